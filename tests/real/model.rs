//! The simulation's model of HAProxy against the real one, version by version:
//! the same commands are played on both.
//!
//! What lives here: random commands, and what of the answers and of the dumps
//! must be the same. What it must not know: hapilot's plans.
//!
//! `HAPILOT_MODEL_SEED=N` plays another sequence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/chance.rs"]
mod chance;
#[path = "../support/haproxy.rs"]
mod haproxy;
#[path = "../support/haproxy_model/mod.rs"]
mod haproxy_model;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use chance::Chance;
use hapilot::runtime_api::parse;
use haproxy::{PATIENCE, POOL_CONFIG, TestHaproxy, unused_address};
use haproxy_model::{Haproxy, Network, Release};

/// So many commands are played in a row before the dumps are compared.
const ROUND: usize = 60;
const ROUNDS: usize = 6;

/// A session on the real socket, framed by prompts.
struct Session(UnixStream);

impl Session {
    fn open(real: &TestHaproxy) -> Self {
        let stream = UnixStream::connect(real.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut session = Self(stream);
        assert_eq!(session.command("prompt"), "");
        session
    }

    fn command(&mut self, line: &str) -> String {
        self.0.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"\n> ") {
            let mut byte = [0; 4096];
            let count = self.0.read(&mut byte).unwrap();
            assert!(count > 0, "closed after {line}: {}", String::from_utf8_lossy(&reply));
            reply.extend_from_slice(&byte[..count]);
        }
        reply.truncate(reply.len() - 3);
        String::from_utf8(reply).unwrap()
    }
}

/// Those who listen, on both sides.
struct Listening(BTreeMap<SocketAddr, TcpListener>);

impl Network for Listening {
    fn listens(&self, at: SocketAddr) -> bool {
        self.0.contains_key(&at)
    }
}

/// A real HAProxy and its model.
struct Twins {
    real: TestHaproxy,
    session: Session,
    model: Haproxy,
    listening: Listening,
    /// Where servers may be put: some listen, some don't.
    addresses: Vec<SocketAddr>,
    played: Vec<String>,
}

impl Twins {
    fn start(release: Release) -> Self {
        let real = TestHaproxy::start(release.name(), POOL_CONFIG);
        let session = Session::open(&real);
        let mut model = Haproxy::bare(release, real.pid(), 0);
        let config = std::fs::read_to_string(real.dir().join("haproxy.cfg")).unwrap();
        for map in ["hosts.map", "names.map"] {
            model.read_map(real.dir().join("maps").join(map).to_str().unwrap(), "");
        }
        model.read_config(&config);
        let addresses: Vec<SocketAddr> = (0..6).map(|_| unused_address()).collect();
        let listeners = addresses.iter().take(3).map(|at| (*at, TcpListener::bind(at).unwrap()));
        let listening = Listening(listeners.collect());
        Self { real, session, model, listening, addresses, played: Vec::new() }
    }

    /// One command on both; what decides is the last line that isn't empty.
    fn play(&mut self, line: &str) -> String {
        let last = |reply: &str| {
            reply.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or_default().to_owned()
        };
        self.played.push(line.to_owned());
        let real = last(&self.session.command(line));
        let model = last(&self.model.command(line));
        assert!(same_answer(&model, &real), "model: {model:?}\nreal:  {real:?}\nafter {:#?}", self.played);
        self.model.settle();
        real
    }

    fn map_path(&self, file: &str) -> String {
        self.real.dir().join("maps").join(file).to_str().unwrap().to_owned()
    }

    /// Waits until the dumps of both are equal: the real one's checks take their
    /// time, and on 3.x so does a change of address.
    fn compare(&mut self) {
        let (now, maps) = (self.model.now(), self.map_path(""));
        self.model.pass_time(now + 60_000, &self.listening);
        let wanted = Dumps::of(&mut |line| self.model.command(line), &maps);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = Dumps::of(&mut |line| self.session.command(line), &maps);
            if found == wanted {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "only the model: {:#?}\nonly the real one: {:#?}\nafter {:#?}",
                wanted.without(&found),
                found.without(&wanted),
                self.played
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Texts that only say what is free to choose (which keyword, which word) may
/// differ.
fn same_answer(model: &str, real: &str) -> bool {
    let unknown = |text: &str| text.starts_with("Unknown command") || text.contains("prompt ");
    model == real
        || (unknown(model) && unknown(real))
        || (model.starts_with("Unknown command") && !real.is_empty())
}

/// What `show …` tells, as hapilot's own parsers read it: one line for each
/// backend, server and map.
#[derive(PartialEq, Eq, Debug)]
struct Dumps(BTreeSet<String>);

impl Dumps {
    fn of(ask: &mut dyn FnMut(&str) -> String, maps: &str) -> Self {
        let mut lines = BTreeSet::new();
        let reply = ask("show backend");
        lines.extend(
            parse::backends::parse(&reply).unwrap().into_iter().map(|name| format!("backend {name}")),
        );
        let reply = ask("show servers state");
        for row in parse::servers_state::parse(&reply).unwrap() {
            // The last result stays shown when nobody checks any more.
            let checked = row.check_state & 4 != 0 && row.admin & 1 == 0;
            lines.insert(format!(
                "server {}/{} {}:{} op {} admin {} weight {} check {} {}",
                row.backend,
                row.server,
                row.address,
                row.port,
                row.operational,
                row.admin,
                row.weight,
                row.check_state,
                if checked { row.check_status } else { 0 },
            ));
        }
        let reply = ask("show servers conn");
        for row in parse::servers_conn::parse(&reply).unwrap() {
            lines.insert(format!("connections {}/{} {}", row.backend, row.server, row.used));
        }
        let reply = ask("show stat -1 4 -1");
        for row in parse::stat::parse(&reply).unwrap() {
            lines.insert(format!("sessions {}/{} {}", row.proxy, row.server, row.sessions));
        }
        for file in ["hosts.map", "names.map"] {
            let reply = ask(&format!("show map {maps}{file}"));
            let entries = parse::map_entries::parse(&reply).unwrap();
            let entries: Vec<_> = entries.iter().map(|entry| (entry.key, entry.value)).collect();
            lines.insert(format!("{file} {entries:?}"));
        }
        Self(lines)
    }

    fn without(&self, other: &Self) -> BTreeSet<String> {
        &self.0 - &other.0
    }
}

const BACKENDS: [&str; 7] =
    ["web:pool:0001", "web:pool:0002", "web:start.example", "other:backend", "web:a", "web:b", "nowhere"];
const SERVERS: [&str; 5] = ["s1", "s2", "s3", "disabled", "theirs"];
const MAPS: [&str; 2] = ["hosts.map", "names.map"];
const KEYS: [&str; 3] = ["a.example", "*.b.example", "c.example"];

/// Some command, most of them such that can succeed.
fn some_command(chance: &mut Chance, twins: &Twins) -> String {
    let at = |chance: &mut Chance| {
        let there: Vec<String> = twins
            .model
            .servers()
            .map(|(backend, server)| format!("{}/{}", backend.name, server.name))
            .collect();
        if !there.is_empty() && chance.one_in(4) {
            chance.pick(&there).clone()
        } else {
            format!("{}/{}", chance.pick(&BACKENDS), chance.pick(&SERVERS))
        }
    };
    let address = |chance: &mut Chance| *chance.pick(&twins.addresses);
    let map = |chance: &mut Chance| twins.map_path(chance.pick::<&str>(&MAPS));
    match chance.below(30) {
        0..=6 => {
            let check = chance.pick(&["", " check inter 40ms fastinter 20ms downinter 30ms fall 2 rise 1"]);
            format!("add server {} {} weight {}{check}", at(chance), address(chance), chance.below(257))
        }
        7..=8 => format!("enable health {}", at(chance)),
        9..=14 => {
            format!("set server {} state {}", at(chance), chance.pick(&["ready", "drain", "maint", "maint"]))
        }
        15 => format!("set server {} health {}", at(chance), chance.pick(&["up", "down"])),
        16 => {
            let address = address(chance);
            format!("set server {} addr {} port {}", at(chance), address.ip(), address.port())
        }
        17 => format!("set server {} weight {}", at(chance), chance.below(260)),
        18 => format!("shutdown sessions server {}", at(chance)),
        19..=21 => format!("del server {}", at(chance)),
        22 => format!("add map {} {} {}", map(chance), chance.pick(&KEYS), chance.pick(&BACKENDS)),
        23 => format!("set map {} {} {}", map(chance), chance.pick(&KEYS), chance.pick(&BACKENDS)),
        24 => format!("del map {} {}", map(chance), chance.pick(&KEYS)),
        25 => {
            format!("add backend {} from {}", chance.pick(&BACKENDS), chance.pick(&["web", "web", "nosuch"]))
        }
        26 => format!("publish backend {}", chance.pick(&BACKENDS)),
        27 => format!("unpublish backend {}", chance.pick(&BACKENDS)),
        28 => format!("del backend {}", chance.pick(&BACKENDS)),
        _ => format!("del map {} #0x1", map(chance)),
    }
}

fn twins_play(release: Release) {
    let seed = std::env::var("HAPILOT_MODEL_SEED").map_or(1, |text| text.parse().expect("a number"));
    let mut chance = Chance::new(seed);
    let mut twins = Twins::start(release);
    twins.compare();
    for _ in 0..ROUNDS {
        for _ in 0..ROUND {
            let line = some_command(&mut chance, &twins);
            twins.play(&line);
        }
        twins.compare();
    }
    // One of several entries under one key goes by its reference.
    let path = twins.map_path("hosts.map");
    for value in ["one", "two", "three"] {
        twins.play(&format!("add map {path} many.example {value}"));
    }
    let place = twins.model.map("hosts.map").iter().position(|entry| entry.value == "two").unwrap();
    let model = twins.model.map("hosts.map")[place].reference;
    let reply = twins.session.command(&format!("show map {path}"));
    let real = parse::map_entries::parse(&reply).unwrap()[place].reference;
    assert_eq!(twins.model.command(&format!("del map {path} #{model:#x}")), "");
    assert_eq!(twins.session.command(&format!("del map {path} #{real:#x}")).trim(), "");
    twins.compare();
}

/// A request that is never answered: the server can't be deleted until its
/// sessions are shut down.
fn twins_keep_a_busy_server(release: Release) {
    let mut twins = Twins::start(release);
    let at = twins.addresses[0];
    let path = twins.map_path("hosts.map");
    let pool = if release == Release::V2_6 { " pool-max-conn -1 pool-purge-delay 5s" } else { "" };
    twins.play(&format!("add server web:pool:0001/s1 {at} weight 1{pool}"));
    twins.play("set server web:pool:0001/s1 state ready");
    twins.play(&format!("add map {path} a.example web:pool:0001"));
    let mut visitor = TcpStream::connect(twins.real.http).unwrap();
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
    twins.model.server_mut("web:pool:0001", "s1").unwrap().sessions = 1;
    twins.compare();
    twins.play("set server web:pool:0001/s1 state maint");
    let answer = twins.play("del server web:pool:0001/s1");
    assert_eq!(answer, "Server still has connections attached to it, cannot remove it.");
    twins.play("shutdown sessions server web:pool:0001/s1");
    twins.compare();
    // The session is gone; the connection may take a moment longer.
    let deadline = Instant::now() + PATIENCE;
    while twins.session.command("del server web:pool:0001/s1").trim() != "Server deleted." {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(twins.model.command("del server web:pool:0001/s1").trim(), "Server deleted.");
    twins.compare();
}

macro_rules! each_version {
    ($($name:ident: $release:ident,)*) => {$(
        mod $name {
            use super::Release;

            #[test]
            fn the_model_answers_as_it_does() {
                super::twins_play(Release::$release);
            }

            #[test]
            fn the_model_keeps_a_busy_server_as_it_does() {
                super::twins_keep_a_busy_server(Release::$release);
            }
        }
    )*};
}

each_version! {
    haproxy_2_6: V2_6,
    haproxy_3_0: V3_0,
    haproxy_3_2: V3_2,
    haproxy_3_4: V3_4,
}
