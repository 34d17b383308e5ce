//! One line of the Runtime API → its effect and its answer.
//!
//! What lives here: every command that hapilot or a hand on the socket sends,
//! with the texts that were recorded. What it must not know: framing, and who
//! sends the line.

use std::net::{IpAddr, SocketAddr};

use super::server::Check;
use super::{Entry, Haproxy, Release, Server};

const NO_BACKEND: &str = "No such backend.\n";
const NO_SERVER: &str = "No such server.\n";
const NO_MAP: &str = "Unknown map identifier. Please use #<id> or <file>.\n";
const BUSY: &str = "Server still has connections attached to it, cannot remove it.";

type Answer = Result<(), String>;

fn no(text: &str) -> Answer {
    Err(text.to_owned())
}

fn known_or(known: bool, text: &str) -> Answer {
    if known { Ok(()) } else { no(text) }
}

impl Haproxy {
    /// Carries out one command; its answer without the prompt that ends it.
    pub fn command(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = match words.as_slice() {
            ["show", what @ ..] => return self.show(what),
            ["add", "server", at, address, keywords @ ..] => self.add_server(at, address, keywords),
            ["del", "server", at] => self.del_server(at),
            ["enable", "health", at] => self.on_server(at, |server, _| {
                known_or(
                    server.enable_health(),
                    "Health check was not configured on this server, cannot enable.\n",
                )
            }),
            ["set", "server", at, "state", state] => self.on_server(at, |server, now| {
                let known = server.set_state(state, now);
                known_or(known, "'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n")
            }),
            ["set", "server", at, "health", health] => self.on_server(at, |server, now| {
                let known = server.set_health(health, now);
                known_or(known, "'set server <srv> health' expects 'up', 'stopping', or 'down'.\n")
            }),
            ["set", "server", at, "weight", weight] => self.on_server(at, |server, _| {
                match weight.parse() {
                    Ok(weight @ 0..=256) => server.weight = weight,
                    _ => return no("Absolute weight can only be between 0 and 256 inclusive.\n"),
                }
                Ok(())
            }),
            ["set", "server", at, "addr", ip, "port", port] => self.set_address(at, ip, port),
            ["shutdown", "sessions", "server", at] => self.on_server(at, |server, _| {
                server.sessions = 0;
                Ok(())
            }),
            ["add", "map", file, key, value] => self.add_entry(file, key, value),
            ["set", "map", file, key, value] => self.set_entry(file, key, value),
            ["del", "map", file, key] => self.del_entry(file, key),
            [verb @ ("add" | "del" | "publish" | "unpublish"), "backend", name, rest @ ..]
                if self.release >= Release::V3_4 =>
            {
                self.on_backend(verb, name, rest)
            }
            _ => no(&format!("Unknown command: '{line}'.\n")),
        };
        match done {
            Ok(()) => String::new(),
            Err(text) => text,
        }
    }

    fn on_server(&mut self, at: &str, effect: impl FnOnce(&mut Server, u64) -> Answer) -> Answer {
        let now = self.now;
        let (backend, name) = at.split_once('/').unwrap_or((at, ""));
        if self.backend(backend).is_none() {
            return no(NO_BACKEND);
        }
        match self.server_mut(backend, name) {
            Some(server) => effect(server, now),
            None => no(NO_SERVER),
        }
    }

    fn add_server(&mut self, at: &str, address: &str, keywords: &[&str]) -> Answer {
        let (release, now, spread) = (self.release, self.now, self.max_spread);
        let (backend, name) = at.split_once('/').unwrap_or((at, ""));
        let Some(backend) = self.backends.iter_mut().find(|other| other.name == backend) else {
            return no(NO_BACKEND);
        };
        if backend.servers.iter().any(|server| server.name == name) {
            return no("Already exists a server with the same name in backend.\n");
        }
        let Ok(address) = address.parse::<SocketAddr>() else {
            return no(&format!("'server {name}' : invalid address: '{address}'\n"));
        };
        let id = (1..=u32::MAX).find(|id| backend.servers.iter().all(|server| server.id != *id)).unwrap();
        let mut server = Server::new(release, id, name, address, now);
        server
            .read_keywords(keywords)
            .map_err(|word| format!("'server {name}' : unknown keyword '{word}'.\n"))?;
        server.schedule_first_check(now, spread);
        backend.servers.push(server);
        no("New server registered.\n")
    }

    fn del_server(&mut self, at: &str) -> Answer {
        let release = self.release;
        self.on_server(at, |server, _| {
            if !server.is_maint() {
                return no("Only servers in maintenance mode can be deleted.\n");
            }
            if server.sessions > 0 || (release == Release::V2_6 && server.idle > 0) {
                return no(BUSY);
            }
            Ok(())
        })?;
        let (backend, name) = at.split_once('/').unwrap_or((at, ""));
        if let Some(backend) = self.backends.iter_mut().find(|other| other.name == backend) {
            backend.servers.retain(|server| server.name != name);
        }
        no("Server deleted.\n")
    }

    fn set_address(&mut self, at: &str, ip: &str, port: &str) -> Answer {
        let (Ok(ip), Ok(port)) = (ip.parse::<IpAddr>(), port.parse::<u16>()) else {
            return no(&format!("Invalid addr format '{ip}'.\n"));
        };
        let new = SocketAddr::new(ip, port);
        let old = self.late.iter().rev().find(|(backend, server, _)| format!("{backend}/{server}") == at);
        let mut old = old.map(|(_, _, address)| *address);
        self.on_server(at, |server, _| {
            old.get_or_insert(server.address);
            Ok(())
        })?;
        let Some(old) = old else { return no(NO_SERVER) };
        let text = self.address_text(old, new);
        let (backend, name) = at.split_once('/').unwrap_or((at, ""));
        self.late.push((backend.to_owned(), name.to_owned(), new));
        if self.release == Release::V2_6 {
            self.settle();
        }
        Err(text)
    }

    fn address_text(&self, old: SocketAddr, new: SocketAddr) -> String {
        let verbose = self.release == Release::V2_6;
        let ip = (old.ip() != new.ip()).then(|| format!("IP changed from '{}' to '{}'", old.ip(), new.ip()));
        let port = (old.port() != new.port())
            .then(|| format!("port changed from '{}' to '{}'", old.port(), new.port()));
        let parts = match (ip, port) {
            (None, None) if !verbose => return "nothing changed\n".to_owned(),
            (ip, port) if verbose => vec![
                ip.unwrap_or_else(|| "no need to change the addr".to_owned()),
                port.unwrap_or_else(|| "no need to change the port".to_owned()),
            ],
            (ip, port) => ip.into_iter().chain(port).collect(),
        };
        format!("{} by 'stats socket command'\n", parts.join(", "))
    }

    fn entries(&mut self, file: &str) -> Result<&mut Vec<Entry>, String> {
        let map = self.maps.iter_mut().find(|map| map.path == file);
        map.map(|map| &mut map.entries).ok_or_else(|| NO_MAP.to_owned())
    }

    fn add_entry(&mut self, file: &str, key: &str, value: &str) -> Answer {
        let reference = self.new_reference();
        let entry = Entry { reference, key: key.to_owned(), value: value.to_owned() };
        self.entries(file)?.push(entry);
        Ok(())
    }

    fn set_entry(&mut self, file: &str, key: &str, value: &str) -> Answer {
        let mut found = false;
        for entry in self.entries(file)?.iter_mut().filter(|entry| entry.key == key) {
            value.clone_into(&mut entry.value);
            found = true;
        }
        if found { Ok(()) } else { no("entry not found.\n") }
    }

    fn del_entry(&mut self, file: &str, key: &str) -> Answer {
        let only_one = self.release >= Release::V3_4;
        let entries = self.entries(file)?;
        let reference = key.strip_prefix("#0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let meant =
            |entry: &Entry| reference.map_or(entry.key == key, |reference| entry.reference == reference);
        let Some(first) = entries.iter().position(meant) else { return no("Key not found.\n") };
        if only_one || reference.is_some() {
            entries.remove(first);
        } else {
            entries.retain(|entry| entry.key != key);
        }
        Ok(())
    }

    fn on_backend(&mut self, verb: &str, name: &str, rest: &[&str]) -> Answer {
        if verb == "add" {
            let ["from", class] = rest else { return no("Usage: add backend <name> from <defproxy>.\n") };
            if !self.classes.iter().any(|other| other == class) {
                return no(&format!("Cannot find default proxy '{class}'.\n"));
            }
            if self.backend(name).is_some() {
                return no(&format!(
                    "Error during backend creation : name is already used by other proxy 'backend {name}'.\n"
                ));
            }
            self.add_backend(name, false);
            return no("New backend registered.\n");
        }
        let Some(place) = self.backends.iter().position(|backend| backend.name == name) else {
            return no(NO_BACKEND);
        };
        let backend = &mut self.backends[place];
        match verb {
            "publish" => {
                backend.published = true;
                no("Backend published.\n")
            }
            "unpublish" => {
                backend.published = false;
                no("Backend unpublished.\n")
            }
            _ if backend.referenced => no(
                "This proxy cannot be removed at runtime due to other configuration elements pointing to it.\n",
            ),
            _ if backend.published => no("Backend must be unpublished prior to its deletion.\n"),
            _ if !backend.servers.is_empty() => no("Only a backend without server can be deleted.\n"),
            _ => {
                self.backends.remove(place);
                no("Backend deleted.\n")
            }
        }
    }
}

impl Server {
    /// The keywords behind an address, of `add server` and of a configuration; the
    /// word that isn't one.
    pub(super) fn read_keywords(&mut self, keywords: &[&str]) -> Result<(), String> {
        let time = |text: &str| {
            let (number, factor) = match text.strip_suffix("ms") {
                Some(number) => (number, 1),
                None => match text.strip_suffix('s') {
                    Some(number) => (number, 1_000),
                    None => (text, 1),
                },
            };
            number.parse::<u64>().map(|number| number * factor).map_err(|_| text.to_owned())
        };
        let mut words = keywords.iter();
        let mut check = Check::new();
        let mut checked = false;
        while let Some(&word) = words.next() {
            let mut value = || words.next().copied().ok_or_else(|| word.to_owned());
            match word {
                "check" => checked = true,
                "disabled" => {}
                "weight" => {
                    self.weight = value()?.parse().map_err(|_| word.to_owned())?;
                    self.initial_weight = self.weight;
                }
                "inter" => check.inter = time(value()?)?,
                "fastinter" => check.fastinter = Some(time(value()?)?),
                "downinter" => check.downinter = Some(time(value()?)?),
                "rise" => check.rise = value()?.parse().map_err(|_| word.to_owned())?,
                "fall" => check.fall = value()?.parse().map_err(|_| word.to_owned())?,
                "pool-max-conn" | "pool-purge-delay" | "pool-conn-name" | "sni" | "slowstart" => {
                    value()?;
                }
                _ => return Err(word.to_owned()),
            }
        }
        if checked {
            self.checked_by(check);
        }
        Ok(())
    }

    /// `start_check_task`.
    pub(super) fn schedule_first_check(&mut self, now: u64, max_spread: Option<u64>) {
        if let Some(check) = &mut self.check {
            let pause = check.downinter.unwrap_or(check.inter);
            check.next = now + max_spread.map_or(pause, |most| pause.min(most));
        }
    }
}
