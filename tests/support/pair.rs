//! compose/pair.yml for a test or a benchmark: brought up, looked at, broken and
//! removed.
//!
//! What lives here: a pair of one's own on a network of its own, and what each of
//! its `HAProxy`s has. What it must not know: what is tested. It goes with
//! `engine`, which the including program has too.

#![allow(dead_code, reason = "each of the programs that include this uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use super::engine::{Docker, eventually, get, root, runtime_api, said};

/// One of the two load balancers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// The one that holds the address while both are well.
    One,
    /// Its partner.
    Two,
}

impl Side {
    /// Both.
    pub(crate) const BOTH: [Self; 2] = [Self::One, Self::Two];

    fn word(self) -> &'static str {
        match self {
            Self::One => "lb1",
            Self::Two => "lb2",
        }
    }

    fn host(self) -> u8 {
        match self {
            Self::One => 11,
            Self::Two => 12,
        }
    }
}

/// The parts of a load balancer that have a container of their own.
pub(crate) const PARTS: [&str; 3] = ["keepalived", "haproxy", "hapilot"];

/// compose/pair.yml, up. Dropped, it is removed.
pub(crate) struct Pair {
    /// The engine.
    pub(crate) docker: Docker,
    /// First part of all names.
    pub(crate) name: String,
    /// Third number of the network 172.31.x.0/24.
    network: u8,
}

impl Pair {
    /// Brings it up and waits until the first holds the address and both are well.
    /// What an earlier run left is removed first.
    pub(crate) fn up(name: &str, network: u8) -> Self {
        let pair = Self { docker: Docker::find(), name: name.to_owned(), network };
        pair.down();
        pair.compose(&["up", "--detach", "--no-build"]).unwrap();
        pair.is_well();
        pair
    }

    /// An address on its network.
    pub(crate) fn address(&self, host: u8, port: u16) -> SocketAddr {
        (Ipv4Addr::new(172, 31, self.network, host), port).into()
    }

    /// Where visitors come.
    pub(crate) fn virtual_address(&self) -> SocketAddr {
        self.address(10, 80)
    }

    /// The name of the network.
    pub(crate) fn network(&self) -> String {
        format!("{}-web", self.name)
    }

    /// A container of one side: its namespace (`""`) or one of the parts.
    pub(crate) fn container(&self, side: Side, part: &str) -> String {
        let dash = if part.is_empty() { "" } else { "-" };
        format!("{}-{}{dash}{part}", self.name, side.word())
    }

    fn compose(&self, arguments: &[&str]) -> Result<String, String> {
        let mut compose = Command::new(root().join("compose/setup/compose.sh"));
        compose
            .args(["-p", &self.name, "-f"])
            .arg(root().join("compose/pair.yml"))
            .args(arguments)
            .env("HAPILOT_PAIR", &self.name)
            .env("HAPILOT_PAIR_NET", format!("172.31.{}", self.network))
            .stdin(Stdio::null());
        said(&compose.output().unwrap())
    }

    fn down(&self) {
        let network = format!("network={}", self.network());
        // Those that a test started beside the compose file's.
        let guests = self.docker.attempt(&["ps", "-aq", "--filter", &network]).unwrap_or_default();
        for guest in guests.lines() {
            let _ = self.docker.attempt(&["rm", "-f", "-v", guest]);
        }
        if let Err(error) = self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "0"]) {
            eprintln!("can't be removed: {error}");
        }
    }

    // ---- what it says ----

    /// hapilot's status.
    pub(crate) fn status(&self, side: Side) -> Result<Value, String> {
        let answer = get(self.address(side.host(), 9100), "hapilot", "/status").map_err(|e| e.to_string())?;
        serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))
    }

    /// Waits until a side has this role and is converged.
    pub(crate) fn has_role(&self, side: Side, role: &str) {
        eventually(&format!("{} is {role}", side.word()), || {
            let status = self.status(side)?;
            let fine = status["role"]["role"] == role && status["converged"] == true;
            fine.then_some(()).ok_or_else(|| status.to_string())
        });
    }

    /// Waits until the first holds the address and both are well.
    pub(crate) fn is_well(&self) {
        self.has_role(Side::One, "master");
        self.has_role(Side::Two, "backup");
    }

    /// `HAProxy`'s answer to a command.
    pub(crate) fn runtime_api(&self, side: Side, command: &str) -> Result<String, String> {
        let volume = format!("{}-{}", self.name, side.word());
        let place = self.docker.attempt(&["volume", "inspect", "--format", "{{.Mountpoint}}", &volume])?;
        runtime_api(&PathBuf::from(place).join("admin.sock"), command).map_err(|error| error.to_string())
    }

    /// All that `HAProxy` has, read from `HAProxy`: maps by name, and servers. A
    /// backend of the pool goes by the name of the service that it is lent to.
    pub(crate) fn has(&self, side: Side) -> Result<Contents, String> {
        let mut maps = BTreeMap::new();
        for line in self.runtime_api(side, "show map")?.lines() {
            let path = line.split(['(', ')']).nth(1).filter(|path| path.contains("/maps/"));
            let Some(path) = path else { continue };
            let name = path.rsplit('/').next().unwrap().to_owned();
            let entries = self.runtime_api(side, &format!("show map {path}"))?;
            let entry = |line: &str| {
                let mut words = line.split_whitespace().skip(1).map(str::to_owned);
                Some((words.next()?, words.next()?))
            };
            maps.insert(name, entries.lines().filter_map(entry).collect::<BTreeMap<String, String>>());
        }
        let lent = maps.remove("names.map").ok_or("no names.map")?;
        let service = |backend: &str| lent.get(backend).cloned().unwrap_or_else(|| backend.to_owned());
        for entries in maps.values_mut() {
            *entries = entries.iter().map(|(key, value)| (service(key), service(value))).collect();
        }
        let states = self.runtime_api(side, "show servers state")?;
        let header: Vec<&str> =
            states.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default().split(' ').collect();
        let at = |column: &str| header.iter().position(|word| *word == column).ok_or("no such column");
        let columns = [
            at("be_name")?,
            at("srv_name")?,
            at("srv_addr")?,
            at("srv_port")?,
            at("srv_admin_state")?,
            at("srv_op_state")?,
            at("srv_uweight")?,
        ];
        let server = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let all: Option<Vec<String>> =
                columns.iter().map(|&column| words.get(column).map(|word| (*word).to_owned())).collect();
            let mut all = all?;
            all[0] = service(&all[0]);
            Some(all.join(" "))
        };
        let lines = states.lines().filter(|line| !line.starts_with('#') && line.contains(' '));
        Ok(Contents { maps, servers: lines.filter_map(server).collect() })
    }

    /// Waits until both have the same; how long that took.
    pub(crate) fn sides_are_equal(&self) -> std::time::Duration {
        let begin = Instant::now();
        eventually("both sides have the same", || {
            let [one, two] = Side::BOTH.map(|side| self.has(side));
            let (one, two) = (one?, two?);
            let same = one == two && !one.servers.is_empty();
            same.then_some(()).ok_or_else(|| format!("{one:#?}\n{two:#?}"))
        });
        begin.elapsed()
    }

    // ---- what happens to it ----

    /// All processes of one side die.
    pub(crate) fn kill_machine(&self, side: Side) {
        let parts = PARTS.map(|part| self.container(side, part));
        let namespace = self.container(side, "");
        self.docker.run(&["kill", &parts[0], &parts[1], &parts[2], &namespace]);
    }

    /// It is switched on again.
    pub(crate) fn start_machine(&self, side: Side) {
        self.docker.run(&["start", &self.container(side, "")]);
        for part in ["haproxy", "hapilot", "keepalived"] {
            self.docker.run(&["start", &self.container(side, part)]);
        }
    }

    /// The process that a container began with.
    pub(crate) fn pid(&self, side: Side, part: &str) -> u32 {
        self.docker.inspect(&self.container(side, part), "{{.State.Pid}}").parse().unwrap()
    }

    /// The cable of one side, as this machine holds it.
    pub(crate) fn cable(&self, side: Side) -> Cable {
        let namespace = self.container(side, "");
        let index = self.docker.run(&["exec", &namespace, "cat", "/sys/class/net/eth0/iflink"]);
        let links = said(&Command::new("ip").args(["-o", "link"]).output().unwrap()).unwrap();
        let line = links.lines().find(|line| line.starts_with(&format!("{index}: "))).unwrap();
        let name = line.split([' ', '@']).nth(1).unwrap().to_owned();
        let bridge = line.split_once(" master ").unwrap().1.split(' ').next().unwrap().to_owned();
        Cable { name, bridge }
    }

    /// Begins to note when a side takes and gives away the virtual address.
    pub(crate) fn watch(&self, side: Side) -> Watch {
        let namespace = format!("--net=/proc/{}/ns/net", self.pid(side, ""));
        let mut monitor = Command::new("nsenter")
            .args([&namespace, "ip", "-o", "monitor", "address"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(monitor.stdout.take().unwrap()).lines().map_while(Result::ok);
        let held = format!(" {}/24 ", self.virtual_address().ip());
        let changes: Arc<Mutex<Vec<(Instant, bool)>>> = Arc::default();
        let noted = Arc::clone(&changes);
        std::thread::spawn(move || {
            for line in lines.filter(|line| line.contains(&held)) {
                noted.lock().unwrap().push((Instant::now(), !line.starts_with("Deleted")));
            }
        });
        Watch { monitor, changes }
    }

    fn print_logs(&self) {
        for side in Side::BOTH {
            eprintln!("==== {}: {:?}", side.word(), self.status(side));
            for part in PARTS {
                let container = self.container(side, part);
                let logs = self.docker.command(&["logs", "--tail", "60", &container]).output().unwrap();
                let text = [logs.stdout, logs.stderr].concat();
                eprintln!("==== log of {container}\n{}", String::from_utf8_lossy(&text));
            }
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        self.down();
    }
}

/// What an `HAProxy` has, in terms that both sides share.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Contents {
    /// Keys and values of each map.
    pub(crate) maps: BTreeMap<String, BTreeMap<String, String>>,
    /// Service, name, address, port, administrative and operational state, weight.
    pub(crate) servers: BTreeSet<String>,
}

/// The machine's end of a container's network.
pub(crate) struct Cable {
    name: String,
    bridge: String,
}

impl Cable {
    /// Nothing passes any more; neither end notices.
    pub(crate) fn cut(&self) {
        self.ip(&["nomaster"]);
    }

    /// As before.
    pub(crate) fn heal(&self) {
        self.ip(&["master", &self.bridge]);
    }

    fn ip(&self, words: &[&str]) {
        let ip = Command::new("ip").args(["link", "set", &self.name]).args(words).output().unwrap();
        said(&ip).unwrap();
    }
}

/// Who notes when a side holds the virtual address.
pub(crate) struct Watch {
    monitor: Child,
    changes: Arc<Mutex<Vec<(Instant, bool)>>>,
}

impl Watch {
    /// When it took (true) and gave away the address, in order.
    pub(crate) fn changes(&self) -> Vec<(Instant, bool)> {
        self.changes.lock().unwrap().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}
