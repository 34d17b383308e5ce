//! What HAProxy has, or should have: one type for the observed and the desired
//! side.
//!
//! What lives here: data. What it must not know: containers, and how a state is
//! reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Serialize;

use super::command::ServerRef;
use super::name::{BackendName, MapWord, ServerName};

/// The administrative state of a server (management.txt, `set server … state`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// Takes traffic, as far as its health check allows.
    Ready,
    /// Takes no new traffic but that of sessions bound to it.
    Drain,
    /// Takes no traffic and isn't checked.
    Maint,
}

impl std::fmt::Display for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        })
    }
}

/// One server of a backend.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Server {
    /// Where the container listens.
    pub address: SocketAddr,
    /// Its administrative state.
    pub admin: Admin,
    /// Its share of the load, 0 to 256.
    pub weight: u16,
    /// How it is made.
    #[serde(skip)]
    pub making: Making,
}

/// What counts only at the moment when a server is made or enters service.
/// HAProxy does not tell it afterwards, so it makes no difference between two
/// servers: all values are equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Making {
    /// Its container was seen to begin: whether it listens yet is for a check
    /// to find out. False for one that ran already when it was first seen.
    pub young: bool,
    /// Between two checks while it is up, milliseconds; `None` as its class has it.
    pub inter_ms: Option<u32>,
    /// For how long its share of the load grows, milliseconds; `None` for at once.
    pub slow_start_ms: Option<u32>,
}

impl PartialEq for Making {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Making {}

/// One backend that is in use.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Backend {
    /// Its servers by name.
    pub servers: BTreeMap<ServerName, Server>,
}

/// The maps that hapilot writes. All of them exist in the start-up
/// configuration, one file each, below `<dir>/maps`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Map {
    /// Host (or `*.domain`) → the backend that serves it.
    Hosts,
    /// Backend whose servers are checked by HTTP → what is asked and expected:
    /// `STATUS:HOST:/PATH` (see [`super::check`]).
    Checks,
    /// Backend whose visitors come back to the same server → `source` or
    /// `cookie` (see [`super::sticky`]).
    Sticky,
    /// Backend of the pool → the service it was lent to; its own name is used
    /// where there is no entry. Read by logs, and by a restarted hapilot.
    Names,
}

impl Map {
    /// Every map.
    pub const ALL: [Self; 4] = [Self::Hosts, Self::Checks, Self::Sticky, Self::Names];

    /// The file's name below `<dir>/maps`.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Hosts => "hosts.map",
            Self::Checks => "checks.map",
            Self::Sticky => "sticky.map",
            Self::Names => "names.map",
        }
    }
}

/// One side of the comparison.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct State {
    /// The backends that are in use: a backend of the pool that has no server
    /// is not in here, a backend made at run time is even when it is empty.
    pub backends: BTreeMap<BackendName, Backend>,
    /// Keys and values of each map; a map without entries may be absent
    /// (and is, in what was observed).
    pub maps: BTreeMap<Map, BTreeMap<MapWord, MapWord>>,
}

impl State {
    /// The value under a key of a map.
    #[must_use]
    pub fn map_value(&self, map: Map, key: &str) -> Option<&MapWord> {
        self.maps.get(&map).and_then(|entries| entries.get(key))
    }

    /// All servers with the backend they stand in.
    pub fn servers(&self) -> impl Iterator<Item = (&BackendName, &ServerName, &Server)> {
        self.backends
            .iter()
            .flat_map(|(backend, b)| b.servers.iter().map(move |(name, server)| (backend, name, server)))
    }
}

/// What `observe` read from HAProxy in one go.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The part that is compared with the desired state.
    pub state: State,
    /// Every backend of the pool, lent or free.
    pub pool: BTreeSet<BackendName>,
    /// Map entries that must go: a second entry under one key, or a key or
    /// value that hapilot can't have written. The reference is the number that
    /// `show map` prints.
    pub stray_entries: Vec<(Map, u64)>,
    /// Servers that take no traffic because HAProxy's check has not passed (yet),
    /// as far as it was read or follows from what was sent. It changes by itself,
    /// so it is no part of what is compared.
    pub down: BTreeSet<ServerRef>,
}

impl Observed {
    /// A server takes traffic, as far as is known.
    #[must_use]
    pub fn serves(&self, at: &ServerRef) -> bool {
        let server = self.state.backends.get(&at.backend).and_then(|b| b.servers.get(&at.server));
        server.is_some_and(|server| server.admin == Admin::Ready) && !self.down.contains(at)
    }
}

/// But for what changes by itself.
impl PartialEq for Observed {
    fn eq(&self, other: &Self) -> bool {
        (&self.state, &self.pool, &self.stray_entries) == (&other.state, &other.pool, &other.stray_entries)
    }
}

impl Eq for Observed {}
