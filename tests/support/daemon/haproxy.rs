//! An HAProxy that hapilot did not start, and what HAProxy says of itself.
//!
//! What lives here: the process and a person at its socket. What it must not know:
//! hapilot.

use std::fs;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{binary, until};

/// What HAProxy answers on a socket.
pub(crate) fn type_at(socket: &Path, line: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(format!("{line}\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The process that answers at a socket.
pub(crate) fn pid_at(socket: &Path) -> Option<u32> {
    type_at(socket, "show info")?.lines().find_map(|line| line.strip_prefix("Pid: "))?.trim().parse().ok()
}

/// An HAProxy that hapilot did not start.
pub(crate) struct Haproxy {
    binary: PathBuf,
    socket: PathBuf,
    child: Child,
}

impl Haproxy {
    pub(crate) fn start(version: &str, config: &Path, socket: &Path) -> Self {
        let binary = binary(version);
        let child = Self::launch(&binary, config, socket);
        Self { binary, socket: socket.to_owned(), child }
    }

    fn launch(binary: &Path, config: &Path, socket: &Path) -> Child {
        let log = File::options().append(true).create(true).open(socket.with_extension("log")).unwrap();
        let mut child = Command::new(binary)
            .args(["-db", "-f"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        until("HAProxy answers", || {
            assert!(
                child.try_wait().unwrap().is_none(),
                "HAProxy ended: {}",
                fs::read_to_string(socket.with_extension("log")).unwrap()
            );
            pid_at(socket) == Some(child.id())
        });
        child
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Killed and started again with another configuration.
    pub(crate) fn restart(&mut self, config: &Path) {
        self.kill();
        self.child = Self::launch(&self.binary, config, &self.socket);
    }

    /// What a person types into the socket.
    pub(crate) fn type_in(&self, line: &str) -> String {
        type_at(&self.socket, line).expect("HAProxy answers")
    }

    /// `backend/server` of all servers of hapilot's with address and whether
    /// they are in service.
    pub(crate) fn servers(&self) -> Vec<String> {
        servers_at(&self.socket)
    }

    /// Lines `key value` of the hosts' map.
    pub(crate) fn hosts(&self) -> Vec<String> {
        hosts_at(&self.socket)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// See [`Haproxy::servers`].
pub(crate) fn servers_at(socket: &Path) -> Vec<String> {
    let answer = type_at(socket, "show servers state").expect("HAProxy answers");
    let mut servers: Vec<String> = answer
        .lines()
        .skip(2)
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.len() > 18 && fields[1].starts_with("web:"))
        .map(|fields| {
            let out = fields[6].parse::<u32>().unwrap() & 0x23 != 0;
            format!(
                "{}/{} {}:{}{}",
                fields[1],
                fields[3],
                fields[4],
                fields[18],
                if out { " maint" } else { "" }
            )
        })
        .collect();
    servers.sort();
    servers
}

/// See [`Haproxy::hosts`].
pub(crate) fn hosts_at(socket: &Path) -> Vec<String> {
    let maps = type_at(socket, "show map").expect("HAProxy answers");
    let line = maps.lines().find(|line| line.contains("hosts.map")).expect("the map exists");
    let path = line.split_once('(').unwrap().1.split_once(')').unwrap().0;
    let mut entries: Vec<String> = type_at(socket, &format!("show map {path}"))
        .unwrap()
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.1.to_owned()))
        .collect();
    entries.sort();
    entries
}
