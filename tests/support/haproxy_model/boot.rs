//! What a start makes of the files.
//!
//! What lives here: the lines of a start-up configuration that matter to the
//! model. What it must not know: who wrote them.

use std::path::Path;

use super::{Haproxy, Release, Server};

impl Haproxy {
    /// Starts with `<dir>/haproxy.cfg` and the maps beside it.
    pub fn start(release: Release, pid: u32, now: u64, dir: &Path) -> std::io::Result<Self> {
        let mut haproxy = Self::bare(release, pid, now);
        haproxy.classes.clear();
        let mut maps = std::fs::read_dir(dir.join("maps"))?.map(|entry| Ok(entry?.path()));
        let mut maps: Vec<_> = maps.by_ref().collect::<std::io::Result<_>>()?;
        maps.retain(|path| path.extension().is_some_and(|extension| extension == "map"));
        maps.sort();
        for path in maps {
            haproxy.read_map(path.to_str().unwrap_or_default(), &std::fs::read_to_string(&path)?);
        }
        haproxy.read_config(&std::fs::read_to_string(dir.join("haproxy.cfg"))?);
        Ok(haproxy)
    }

    /// As a start with a configuration that was written before there was anything.
    pub fn forget(&mut self) {
        self.backends.retain(|backend| !backend.name.starts_with("web") || backend.name.contains(":pool:"));
        self.backends.iter_mut().for_each(|backend| backend.servers.clear());
        self.maps.iter_mut().for_each(|map| map.entries.clear());
    }

    /// Takes a map's file.
    pub fn read_map(&mut self, path: &str, text: &str) {
        self.add_map(path);
        for line in text.lines() {
            if let Some((key, value)) = line.split_once(' ') {
                let answer = self.command(&format!("add map {path} {key} {value}"));
                assert_eq!(answer, "", "{path}: {line}");
            }
        }
    }

    /// Takes a configuration.
    pub fn read_config(&mut self, text: &str) {
        let mut skipped = false;
        let mut backend = None;
        for line in text.lines() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            match words.as_slice() {
                [".if", "!version_atleast(3.4)"] => skipped = self.release >= Release::V3_4,
                [".endif"] => skipped = false,
                _ if skipped => {}
                ["max-spread-checks", time] => {
                    let time = time.strip_suffix("ms").unwrap_or(time);
                    self.max_spread = Some(time.parse().unwrap());
                }
                ["defaults", class, ..] => self.classes.push((*class).to_owned()),
                ["frontend" | "listen", ..] => backend = None,
                ["backend", name, ..] => {
                    self.add_backend(name, true);
                    backend = Some((*name).to_owned());
                }
                ["default_backend", name] => self.referenced.push((*name).to_owned()),
                ["server", name, address, keywords @ ..] => {
                    let home = backend.as_ref().unwrap();
                    self.configured_server(home, name, address, keywords);
                }
                _ => {}
            }
        }
        for backend in &mut self.backends {
            backend.referenced = self.referenced.contains(&backend.name);
        }
    }

    fn configured_server(&mut self, backend: &str, name: &str, address: &str, keywords: &[&str]) {
        let (release, now, spread) = (self.release, self.now, self.max_spread);
        let home = self.backends.iter_mut().find(|other| other.name == backend).unwrap();
        let id = u32::try_from(home.servers.len()).unwrap() + 1;
        let mut server = Server::new(release, id, name, address.parse().unwrap(), now);
        server.read_keywords(keywords).unwrap_or_else(|word| panic!("{name}: {word}"));
        server.schedule_first_check(now, spread);
        server.configured(keywords.contains(&"disabled"), now);
        home.servers.push(server);
    }
}
