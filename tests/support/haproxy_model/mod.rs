//! A model of HAProxy: what its Runtime API answers, and what it does by itself.
//!
//! What lives here: the process as a value (backends, servers, maps, checks, a
//! clock that is given to it). `commands` changes it, `shows` prints it, `boot`
//! makes it out of the files that a start would read. What it must not know:
//! hapilot's plans, sockets, and what should be.
//!
//! Whether it is right is not for it to say: `tests/real/model.rs` plays the
//! same commands on it and on the real HAProxy of each version.
//!
//! Use it with `#[path = "../support/haproxy_model/mod.rs"] mod haproxy_model;`.

#![allow(dead_code, unreachable_pub, reason = "each test binary includes it and uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests only")]

mod boot;
mod commands;
mod server;
mod shows;

pub use server::Server;

use std::net::SocketAddr;

/// A version of HAProxy, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Release {
    V2_6,
    V3_0,
    V3_2,
    V3_4,
}

impl Release {
    pub const ALL: [Self; 4] = [Self::V2_6, Self::V3_0, Self::V3_2, Self::V3_4];

    /// As in `target/haproxy/…`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V2_6 => "2.6",
            Self::V3_0 => "3.0",
            Self::V3_2 => "3.2",
            Self::V3_4 => "3.4",
        }
    }
}

/// Who listens where: what a check finds.
pub trait Network {
    /// Somebody takes a connection to this address now.
    fn listens(&self, at: SocketAddr) -> bool;
}

#[derive(Clone, Debug)]
pub struct Backend {
    pub id: u32,
    pub name: String,
    /// It may be chosen by a rule.
    pub published: bool,
    /// Something in the configuration names it: it can't be deleted.
    pub referenced: bool,
    pub servers: Vec<Server>,
}

/// An entry of a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub reference: u64,
    pub key: String,
    pub value: String,
}

#[derive(Clone, Debug)]
pub struct MapFile {
    pub path: String,
    pub entries: Vec<Entry>,
}

/// One HAProxy process. Times are milliseconds on the clock of whoever owns it.
#[derive(Clone, Debug)]
pub struct Haproxy {
    pub release: Release,
    pub pid: u32,
    /// When it started.
    pub started: u64,
    /// It was told to end softly: `Stopping: 1`.
    pub stopping: bool,
    pub backends: Vec<Backend>,
    pub maps: Vec<MapFile>,
    /// The classes: `defaults` sections with a name.
    pub classes: Vec<String>,
    /// `max-spread-checks`, milliseconds.
    max_spread: Option<u64>,
    /// Backends that a rule of the configuration names.
    referenced: Vec<String>,
    now: u64,
    next_id: u32,
    next_reference: u64,
    /// Changes of address that were answered and not made yet: 3.0 and later make
    /// them in a task of their own.
    late: Vec<(String, String, SocketAddr)>,
}

impl Haproxy {
    /// A process without a backend or a map.
    pub fn bare(release: Release, pid: u32, now: u64) -> Self {
        Self {
            release,
            pid,
            started: now,
            stopping: false,
            backends: Vec::new(),
            maps: Vec::new(),
            classes: vec!["web".to_owned()],
            max_spread: None,
            referenced: Vec::new(),
            now,
            next_id: 2,
            next_reference: 0x7f0d_2c2a_e000,
            late: Vec::new(),
        }
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    /// Time passes: checks are made, what was answered is carried out.
    pub fn pass_time(&mut self, now: u64, network: &impl Network) {
        while self.now < now {
            let due = self.servers_mut().filter_map(|server| server.next_check()).min();
            self.now = due.unwrap_or(now).clamp(self.now, now);
            self.settle();
            let at = self.now;
            for server in self.servers_mut() {
                server.check(at, network);
            }
        }
    }

    /// What 3.0 and later do a moment after they have answered; false if that was
    /// nothing.
    pub fn settle(&mut self) -> bool {
        let something = !self.late.is_empty();
        for (backend, server, address) in std::mem::take(&mut self.late) {
            if let Some(server) = self.server_mut(&backend, &server) {
                server.set_address(address);
            }
        }
        something
    }

    pub fn backend(&self, name: &str) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.name == name)
    }

    pub fn servers(&self) -> impl Iterator<Item = (&Backend, &Server)> {
        self.backends.iter().flat_map(|backend| backend.servers.iter().map(move |server| (backend, server)))
    }

    pub fn server_mut(&mut self, backend: &str, name: &str) -> Option<&mut Server> {
        let backend = self.backends.iter_mut().find(|other| other.name == backend)?;
        backend.servers.iter_mut().find(|server| server.name == name)
    }

    fn servers_mut(&mut self) -> impl Iterator<Item = &mut Server> {
        self.backends.iter_mut().flat_map(|backend| &mut backend.servers)
    }

    /// The map whose file ends so.
    pub fn map(&self, file: &str) -> &[Entry] {
        self.maps.iter().find(|map| map.path.ends_with(file)).map_or(&[], |map| &map.entries)
    }

    /// The backend that visitors of a host are sent to, by the entry of that very
    /// name; of several entries under one key the first is in force.
    pub fn route(&self, host: &str) -> Option<&Backend> {
        let entry = self.map("hosts.map").iter().find(|entry| entry.key == host)?;
        self.backend(&entry.value).filter(|backend| backend.published)
    }

    fn add_backend(&mut self, name: &str, published: bool) -> &mut Backend {
        self.next_id += 1;
        let backend = Backend {
            id: self.next_id,
            name: name.to_owned(),
            published,
            referenced: false,
            servers: Vec::new(),
        };
        self.backends.push(backend);
        self.backends.last_mut().unwrap()
    }

    fn add_map(&mut self, path: &str) -> &mut MapFile {
        self.maps.push(MapFile { path: path.to_owned(), entries: Vec::new() });
        self.maps.last_mut().unwrap()
    }

    fn new_reference(&mut self) -> u64 {
        self.next_reference += 0x80;
        self.next_reference
    }
}
