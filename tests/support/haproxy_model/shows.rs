//! What `show …` prints.
//!
//! What lives here: headers and columns of each version, taken from what was
//! recorded from the real ones. What it must not know: who reads it.

use std::fmt::Write as _;

use super::{Haproxy, Release, Server};

/// Recorded outputs of one version.
struct Recorded {
    version: &'static str,
    info: &'static str,
    state: &'static str,
    conn: &'static str,
    stat: &'static str,
}

macro_rules! recorded {
    ($version:literal, $name:literal) => {
        Recorded {
            version: $version,
            info: include_str!(concat!("../../data/show-info-", $name, ".txt")),
            state: include_str!(concat!("../../data/show-servers-state-", $name, ".txt")),
            conn: include_str!(concat!("../../data/show-servers-conn-", $name, ".txt")),
            stat: include_str!(concat!("../../data/show-stat-", $name, ".txt")),
        }
    };
}

fn recorded(release: Release) -> Recorded {
    match release {
        Release::V2_6 => recorded!("2.6.12-1+deb12u3", "2.6"),
        Release::V3_0 => recorded!("3.0.11-1+deb13u4", "3.0"),
        Release::V3_2 => recorded!("3.2.26-1", "3.2"),
        Release::V3_4 => recorded!("3.4.7-1", "3.4"),
    }
}

/// When the clock of the models began, seconds since 1970.
const EPOCH: u64 = 1_795_532_704;

impl Haproxy {
    pub(super) fn show(&self, what: &[&str]) -> String {
        match what {
            ["version"] => format!("{}\n", recorded(self.release).version),
            ["cli", "level"] => "admin\n".to_owned(),
            ["info"] => self.show_info(),
            ["map"] => self.show_maps(),
            ["map", file] => match self.maps.iter().find(|map| map.path == *file) {
                Some(map) => {
                    let line = |entry: &super::Entry| {
                        format!("{:#x} {} {}\n", entry.reference, entry.key, entry.value)
                    };
                    map.entries.iter().map(line).collect()
                }
                None => "Unknown map identifier. Please use #<id> or <file>.\n".to_owned(),
            },
            ["backend"] => {
                let names = self.backends.iter().map(|backend| format!("{}\n", backend.name));
                std::iter::once("# name\n".to_owned()).chain(names).collect()
            }
            ["servers", "state"] => self.show_state(None),
            ["servers", "conn"] => self.show_conn(None),
            ["stat", "-1", "4", "-1"] => self.show_stat(None),
            ["stat", "-1", "2", "-1"] => self.show_backends_stat(),
            ["servers", _, name] if self.backend(name).is_none() => "Can't find backend.\n".to_owned(),
            ["stat", name, "4", "-1"] if self.backend(name).is_none() => "No such proxy.\n".to_owned(),
            ["servers", "state", name] => self.show_state(Some(name)),
            ["servers", "conn", name] => self.show_conn(Some(name)),
            ["stat", name, "4", "-1"] => self.show_stat(Some(name)),
            _ => format!("Unknown command: 'show {}'.\n", what.join(" ")),
        }
    }

    fn show_info(&self) -> String {
        let uptime = (self.now - self.started) / 1_000;
        let line = |line: &str| match line.split_once(": ").map_or(line, |(name, _)| name) {
            "Pid" => format!("Pid: {}\n", self.pid),
            "Uptime_sec" => format!("Uptime_sec: {uptime}\n"),
            "Stopping" => format!("Stopping: {}\n", u8::from(self.stopping)),
            "Start_time_sec" => format!("Start_time_sec: {}\n", EPOCH + self.started / 1_000),
            _ => format!("{line}\n"),
        };
        recorded(self.release).info.lines().filter(|text| !text.is_empty()).map(line).collect()
    }

    fn show_maps(&self) -> String {
        let mut text = "# id (file) description\n".to_owned();
        for (id, map) in self.maps.iter().enumerate() {
            let _ = writeln!(
                text,
                "{id} ({0}) pattern loaded from file '{0}' used by map at file '/d/c' line 18. curr_ver=0 next_ver=0 \
                 entry_cnt={1}",
                map.path,
                map.entries.len()
            );
        }
        text
    }

    fn rows<'a>(&'a self, only: Option<&'a str>) -> impl Iterator<Item = (u32, &'a str, &'a Server)> {
        let rows = self.servers().filter(move |(backend, _)| only.is_none_or(|only| backend.name == only));
        rows.map(|(backend, server)| (backend.id, backend.name.as_str(), server))
    }

    fn show_state(&self, only: Option<&str>) -> String {
        let header = recorded(self.release).state.lines().nth(1).unwrap();
        let mut text = format!("1\n{header}\n");
        for (id, backend, server) in self.rows(only) {
            let Server { name, address, admin, operational, weight, initial_weight, .. } = server;
            let since = (self.now - server.changed) / 1_000;
            let check = server.check.as_ref();
            let (status, result, health) =
                check.map_or((1, 0, 0), |check| (check.status, check.result, check.health));
            let _ = writeln!(
                text,
                "{id} {backend} {} {name} {} {operational} {admin} {weight} {initial_weight} {since} {status} {result} \
                 {health} {} 0 0 0 - {} - 0 0 - - 0",
                server.id,
                address.ip(),
                server.check_state,
                address.port()
            );
        }
        text
    }

    fn show_conn(&self, only: Option<&str>) -> String {
        let header = recorded(self.release).conn.lines().next().unwrap();
        let mut text = format!("{header}\n");
        for (id, backend, server) in self.rows(only) {
            let Server { name, address, sessions, idle, .. } = server;
            let (ip, port) = (address.ip(), address.port());
            let _ = write!(text, "{backend}/{name} {id}/{} {ip} {port} -", server.id);
            for column in header.split(' ').skip(6) {
                let value = match column {
                    "served" | "used_cur" => sessions.to_string(),
                    "idle_cur" => idle.to_string(),
                    "purge_delay" => "5000".to_owned(),
                    "idle_lim" => "-1".to_owned(),
                    _ => "0".to_owned(),
                };
                let _ = write!(text, " {value}");
            }
            text.push('\n');
        }
        text
    }

    fn show_backends_stat(&self) -> String {
        let header = recorded(self.release).stat.lines().next().unwrap();
        let mut text = format!("{header}\n");
        for backend in &self.backends {
            for column in header.trim_start_matches("# ").trim_end_matches(',').split(',') {
                match column {
                    "pxname" => text += &backend.name,
                    "svname" => text += "BACKEND",
                    "scur" | "qcur" => text.push('0'),
                    "status" => text += if backend.published { "UP" } else { "UP (UNPUB)" },
                    _ => {}
                }
                text.push(',');
            }
            text.push('\n');
        }
        text
    }

    fn show_stat(&self, only: Option<&str>) -> String {
        let header = recorded(self.release).stat.lines().next().unwrap();
        let mut text = format!("{header}\n");
        for (id, backend, server) in self.rows(only) {
            for column in header.trim_start_matches("# ").trim_end_matches(',').split(',') {
                match column {
                    "pxname" => text += backend,
                    "svname" => text += &server.name,
                    "scur" => text += &server.sessions.to_string(),
                    "qcur" => text.push('0'),
                    "iid" => text += &id.to_string(),
                    "sid" => text += &server.id.to_string(),
                    _ => {}
                }
                text.push(',');
            }
            text.push('\n');
        }
        text
    }
}
