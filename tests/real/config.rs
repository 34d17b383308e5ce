//! The generated configuration against real HAProxy of every version.
//!
//! What lives here: that HAProxy takes it without a warning, and that requests
//! come out where they should, whatever a visitor writes into them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/haproxy.rs"]
mod haproxy;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hapilot::core::name::{BackendKey, BackendName, ClassName, Host, MapWord, ServerName};
use hapilot::core::state::{Admin, Backend, Making, Map, Server, State};
use hapilot::haproxy_config::{
    ConfigPath, ConfigSettings, Peer, Peers, RenderedConfig, RuntimeSocket, check, install, render,
};
use haproxy::{binary, unused_address};

macro_rules! on_every_version {
    ($($test:ident),+ $(,)?) => {
        mod haproxy_2_6 { $(#[test] fn $test() { super::$test("2.6"); })+ }
        mod haproxy_3_0 { $(#[test] fn $test() { super::$test("3.0"); })+ }
        mod haproxy_3_2 { $(#[test] fn $test() { super::$test("3.2"); })+ }
        mod haproxy_3_4 { $(#[test] fn $test() { super::$test("3.4"); })+ }
    };
}

on_every_version!(
    is_accepted_without_a_warning,
    a_broken_configuration_is_refused_in_haproxys_words,
    leads_hosts_to_their_backends,
    no_request_breaks_a_log_line,
    only_safe_requests_are_repeated,
    makes_room_for_new_hosts,
    outlives_the_reader_of_its_log,
    sticky_visitors_come_back,
);

fn settings(dir: &Path, pool_size: usize) -> ConfigSettings {
    let path = |name: &str| ConfigPath::new(dir.join(name).to_str().unwrap()).unwrap();
    let runtime = RuntimeSocket::unix(path("admin.sock")).unwrap();
    ConfigSettings { pool_size, ..ConfigSettings::new(path(""), unused_address(), runtime) }
}

fn word(text: &str) -> MapWord {
    MapWord::new(text).unwrap()
}

/// A host with its servers, under its own name or lent from the pool.
fn serve(state: &mut State, host: &str, lent: Option<usize>, servers: &[(SocketAddr, Admin)]) {
    let key = BackendKey { class: ClassName::web(), host: Host::new(host).unwrap() };
    let name = lent.map_or_else(|| key.own_name(), |index| BackendName::pool(&key.class, index));
    let servers = servers.iter().enumerate().map(|(n, &(address, admin))| {
        (
            ServerName::new(&format!("s{n}")).unwrap(),
            Server { address, admin, weight: 1, making: Making::default() },
        )
    });
    state.backends.insert(name.clone(), Backend { servers: servers.collect() });
    state.maps.entry(Map::Hosts).or_default().insert(MapWord::from(&key.host), MapWord::from(&name));
    if name.is_pool() {
        state.maps.entry(Map::Names).or_default().insert(MapWord::from(&name), key.service());
    }
}

/// HAProxy running on a state; ended with this value.
struct Running {
    child: Child,
    dir: tempfile::TempDir,
    http: SocketAddr,
}

impl Running {
    fn start(version: &str, state: &State, stdout: impl FnOnce(&Path) -> Stdio) -> Self {
        Self::with_peers(version, state, None, stdout)
    }

    fn with_peers(
        version: &str,
        state: &State,
        peers: Option<Peers>,
        stdout: impl FnOnce(&Path) -> Stdio,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = ConfigSettings { peers, ..settings(dir.path(), 20) };
        let binary = binary(version);
        let config = install(&render(&settings, state), dir.path(), Some(&binary)).unwrap();
        let errors = File::create(dir.path().join("stderr")).unwrap();
        let mut command = Command::new(binary);
        command.arg("-db").arg("-f").arg(config).stdin(Stdio::null());
        let child = command.stdout(stdout(dir.path())).stderr(errors).spawn().unwrap();
        let mut running = Self { child, dir, http: settings.http };
        let deadline = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(running.dir.path().join("admin.sock")).is_err() {
            let ended = running.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?} {}", running.read("stderr"));
            std::thread::sleep(Duration::from_millis(5));
        }
        running
    }

    fn logging(version: &str, state: &State) -> Self {
        Self::start(version, state, |dir| File::create(dir.join("stdout")).unwrap().into())
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    fn command(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.dir.path().join("admin.sock")).unwrap();
        stream.write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply.trim().to_owned()
    }

    /// Sends bytes as they are and reads to the end of the connection.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        String::from_utf8_lossy(&reply).into_owned()
    }

    fn get(&self, host: &[u8]) -> String {
        self.raw(&[b"GET /path HTTP/1.1\r\nConnection: close\r\nHost: ", host, b"\r\n\r\n"].concat())
    }

    /// Stops it softly, so that all is logged, and returns the log's lines.
    fn log(mut self) -> Vec<String> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-USR1", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        self.read("stdout")
            .lines()
            .filter(|line| line.contains("] hapilot:http "))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A container's stand-in: answers with its name and the request it got.
fn container(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(unused_address()).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let request = request_of(&mut stream);
            let body = format!("{name}\n{request}");
            let reply = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    address
}

fn request_of(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => request.extend_from_slice(&buffer[..n]),
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

fn is_accepted_without_a_warning(version: &str) {
    let mut many = State::default();
    for n in 0..50_u8 {
        let servers: Vec<_> = [Admin::Ready, Admin::Drain, Admin::Maint]
            .into_iter()
            .zip(1..)
            .map(|(admin, last)| (SocketAddr::from(([127, 0, n, last], 80)), admin))
            .collect();
        serve(&mut many, &format!("shop-{n}.example"), (n < 25).then_some(usize::from(n) + 1), &servers);
    }
    serve(&mut many, "*.six.example", None, &[("[fd00::1]:8080".parse().unwrap(), Admin::Ready)]);
    for (state, pool_size, http) in [
        (State::default(), 0, unused_address()),
        (State::default(), 1_000, "[::]:8080".parse().unwrap()),
        (many, 1_000, "[::1]:8080".parse().unwrap()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let rendered = render(&ConfigSettings { http, ..settings(dir.path(), pool_size) }, &state);
        let config = install(&rendered, dir.path(), None).unwrap();
        let output = Command::new(binary(version)).arg("-c").arg("-f").arg(config).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("[WARNING]") && !said.contains("[ALERT]"), "{said}");
    }
}

fn a_broken_configuration_is_refused_in_haproxys_words(version: &str) {
    let dir = tempfile::tempdir().unwrap();
    let good = render(&settings(dir.path(), 1), &State::default());
    let config = install(&good, dir.path(), Some(&binary(version))).unwrap();
    let bad =
        RenderedConfig { haproxy_cfg: format!("{}\nnonsense here\n", good.haproxy_cfg), ..good.clone() };
    let error = install(&bad, dir.path(), Some(&binary(version))).unwrap_err().to_string();
    assert!(error.contains("unknown keyword 'nonsense'") && !error.contains('\n'), "{error}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), good.haproxy_cfg);
    check(&binary(version), &config).unwrap();
}

fn leads_hosts_to_their_backends(version: &str) {
    let (one, two, wild) = (container("one"), container("two"), container("wild"));
    let refusing = unused_address();
    let mut state = State::default();
    serve(&mut state, "one.example", None, &[(one, Admin::Ready)]);
    serve(&mut state, "two.example", Some(3), &[(refusing, Admin::Maint), (two, Admin::Ready)]);
    serve(&mut state, "*.wild.example", Some(4), &[(wild, Admin::Ready)]);
    serve(&mut state, "exact.wild.example", Some(5), &[(one, Admin::Ready)]);
    serve(&mut state, "down.example", Some(6), &[(one, Admin::Maint), (two, Admin::Drain)]);
    let hosts = state.maps.get_mut(&Map::Hosts).unwrap();
    hosts.insert(word("lost.example"), word("web:nowhere"));
    hosts.insert(word("self.example"), word("hapilot:http"));
    let running = Running::logging(version, &state);

    for (host, expected) in [
        ("one.example", "one"),
        ("ONE.Example", "one"),
        ("one.example:8080", "one"),
        ("one.example.", "one"),
        ("one.example.:80", "one"),
        ("two.example", "two"),
        ("a.wild.example", "wild"),
        ("A.WILD.example.:1", "wild"),
        ("exact.wild.example", "one"),
        ("wild.example", "404"),
        ("a.b.wild.example", "404"),
        ("unknown.example", "404"),
        ("lost.example", "404"),
        ("self.example", "404"),
        ("[::1]:80", "404"),
        ("[::1]", "404"),
        ("127.0.0.1", "404"),
        ("", "404"),
        ("down.example", "503"),
    ] {
        let reply = running.get(host.as_bytes());
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        let outcome = match head.split(' ').nth(1).unwrap() {
            "200" => body.lines().next().unwrap(),
            status => status,
        };
        assert_eq!(outcome, expected, "{host}: {reply}");
        if expected == "404" {
            assert_eq!(body, "404: no container serves this host here\n");
        }
    }
    assert!(running.raw(b"GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404 "));

    let reply = running.raw(
        b"GET / HTTP/1.1\r\nHost: one.example:80\r\nConnection: close\r\nX-Forwarded-For: 1.2.3.4\r\n\
          X-Forwarded-Proto: https\r\nX-Forwarded-Host: forged.example\r\n\r\n",
    );
    let mut forwarded: Vec<&str> = reply.lines().filter(|line| line.starts_with("x-forwarded-")).collect();
    forwarded.sort_unstable();
    assert_eq!(
        forwarded,
        [
            "x-forwarded-for: 1.2.3.4",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: one.example:80",
            "x-forwarded-proto: http"
        ]
    );

    let log = running.log();
    let services: BTreeMap<&str, usize> = log.iter().fold(BTreeMap::new(), |mut counts, line| {
        *counts.entry(line.split(' ').nth(3).unwrap()).or_default() += 1;
        counts
    });
    let expected = [
        ("*.wild.example/s0", 2),
        ("-/<NOSRV>", 8),
        ("down.example/<NOSRV>", 1),
        ("exact.wild.example/s0", 1),
        ("http/<NOSRV>", 1),
        ("nowhere/<NOSRV>", 1),
        ("one.example/s0", 6),
        ("two.example/s1", 1),
    ];
    assert_eq!(services.into_iter().collect::<Vec<_>>(), expected, "{log:#?}");
}

fn no_request_breaks_a_log_line(version: &str) {
    let mut state = State::default();
    serve(&mut state, "one.example", None, &[(container("one"), Admin::Ready)]);
    let running = Running::logging(version, &state);
    let hostile: [&[u8]; 10] = [
        b"a\"b}c{d|e\\f",
        b"a\x01\x1b[31m\x7fb",
        b"a b c",
        b"a\rb",
        b"%[src]%0a",
        b"one.example, two.example",
        b"\xff\xfe\xe2\x80\xae",
        b"} \"GET / HTTP/1.1\" {",
        &[b'x'; 4_000],
        &[0xff; 4_000],
    ];
    for host in hostile {
        let reply = running.get(host);
        // Newer versions refuse more of these themselves; none may reach a container.
        assert!(
            reply.starts_with("HTTP/1.1 404 ") || reply.starts_with("HTTP/1.1 400 "),
            "{host:?}: {reply}"
        );
        let path = [b"GET /", host, b" HTTP/1.1\r\nConnection: close\r\nHost: one.example\r\n\r\n"].concat();
        running.raw(&path);
    }
    assert!(running.get(b"one.example").starts_with("HTTP/1.1 200 "));
    let log = running.log();
    assert_eq!(log.len(), 2 * hostile.len() + 1, "{log:#?}");
    for line in &log {
        assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line:?}");
        assert!(line.ends_with('"') && line.matches('"').count() == 2, "{line}");
        let captured = line.split('"').next().unwrap();
        assert!(captured.matches('{').count() <= 1 && captured.matches('}').count() <= 1, "{line}");
    }
}

/// The first server takes a request and closes without an answer.
fn only_safe_requests_are_repeated(version: &str) {
    let listener = TcpListener::bind(unused_address()).unwrap();
    let dying = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            request_of(&mut stream);
        }
    });
    let mut state = State::default();
    serve(&mut state, "mixed.example", Some(1), &[(dying, Admin::Ready), (container("alive"), Admin::Ready)]);
    let running = Running::logging(version, &state);
    // Each twice: round robin offers either server first once.
    let statuses = |method: &str| {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: mixed.example\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let mut both =
            [(); 2].map(|()| running.raw(request.as_bytes()).split(' ').nth(1).unwrap().to_owned());
        both.sort_unstable();
        both
    };
    assert_eq!(statuses("POST"), ["200", "502"]);
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert_eq!(statuses(method), ["200", "200"], "{method}");
    }
    assert_eq!(statuses("DELETE"), ["200", "502"]);
}

/// Two `HAProxy`s that share what they know. On the second one the servers were made
/// at run time and in another order: their numbers differ, their names don't.
fn sticky_visitors_come_back(version: &str) {
    let servers = [(container("one"), Admin::Ready), (container("two"), Admin::Ready)];
    let hosts = ["source.example", "cookie.example", "plain.example"];
    let state = |servers: &[(SocketAddr, Admin)]| {
        let mut state = State::default();
        for (index, host) in hosts.into_iter().enumerate() {
            serve(&mut state, host, Some(index + 1), servers);
        }
        let sticky = ["source", "cookie"].into_iter().enumerate();
        let entry = |(index, how): (usize, &str)| {
            (MapWord::from(&BackendName::pool(&ClassName::web(), index + 1)), word(how))
        };
        state.maps.insert(Map::Sticky, sticky.map(entry).collect());
        state
    };
    let peer = |name: &str| Peer { name: ServerName::new(name).unwrap(), address: unused_address() };
    let (lb1, lb2) = (peer("lb1"), peer("lb2"));
    let start = |state: &State, own: &Peer, other: &Peer| {
        let peers = Peers { own: own.clone(), other: other.clone() };
        Running::with_peers(version, state, Some(peers), |_| Stdio::null())
    };
    let one = start(&state(&servers), &lb1, &lb2);
    let two = start(&state(&[]), &lb2, &lb1);
    for backend in 1..=3 {
        for (name, (address, _)) in [("s1", servers[1]), ("s0", servers[0])] {
            let server = format!("web:pool:{backend:04}/{name}");
            assert_eq!(two.command(&format!("add server {server} {address}")), "New server registered.");
            assert_eq!(two.command(&format!("set server {server} state ready")), "");
        }
    }
    let by = |answer: &str| {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.lines().next().unwrap().to_owned()
    };
    let asked = |running: &Running, host: &str| by(&running.get(host.as_bytes()));

    // Nobody else is bound to anything.
    let answered: std::collections::BTreeSet<String> = (0..4).map(|_| asked(&one, "plain.example")).collect();
    assert_eq!(answered.len(), 2);
    assert!(!one.get(b"plain.example").contains("Set-Cookie"));

    let first = asked(&one, "source.example");
    assert!((0..4).all(|_| asked(&one, "source.example") == first));
    // 2.6 looks servers that were made at run time up by their number.
    if version != "2.6" {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !two.command("show table hapilot:sticky").contains("server_key=s") {
            assert!(Instant::now() < deadline, "{}", two.command("show peers"));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!((0..4).all(|_| asked(&two, "source.example") == first));
    }

    let answer = one.get(b"cookie.example");
    let cookie = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("set-cookie").then(|| value.split(';').next().unwrap().to_owned())
    });
    let cookie = cookie.unwrap();
    let first = by(&answer);
    let back = |running: &Running, cookie: &str| {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: cookie.example\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        );
        running.raw(request.as_bytes())
    };
    for running in [&one, &two, &one, &two] {
        let answer = back(running, &cookie);
        assert_eq!(by(&answer), first);
        assert!(!answer.to_ascii_lowercase().contains("set-cookie"), "{answer}");
    }
    // A server that is no more, or never was: any other, and its cookie.
    for wrong in ["hapilot=gone", "hapilot=", "hapilot=%0d%0aX: y", "hapilot=web:pool:0001/s0"] {
        let answer = back(&two, wrong);
        by(&answer);
        assert!(answer.to_ascii_lowercase().contains("set-cookie: hapilot=s"), "{wrong}: {answer}");
    }
    // A visitor who has proof is moved on when his server leaves.
    let server = format!("web:pool:0002/{}", cookie.trim_start_matches("hapilot="));
    assert_eq!(one.command(&format!("set server {server} state maint")), "");
    assert_ne!(by(&back(&one, &cookie)), first);
}

/// Below 3.4 the pool stands ready; from 3.4 on only its beginning, for sticky
/// hosts, and the class takes backends at run time.
fn makes_room_for_new_hosts(version: &str) {
    let new = container("new");
    let mut state = State::default();
    serve(&mut state, "old.example", Some(2), &[(new, Admin::Ready)]);
    let running = Running::logging(version, &state);
    let backends = running.command("show backend");
    let pool = backends.lines().filter(|line| line.starts_with("web:pool:")).count();
    assert_eq!(pool, 20, "{backends}");
    let backend = if version == "3.4" {
        assert_eq!(running.command("add backend web:new.example from web"), "New backend registered.");
        assert_eq!(running.command("publish backend web:new.example"), "Backend published.");
        "web:new.example"
    } else {
        "web:pool:0001"
    };
    let map = running.dir.path().join("maps/hosts.map");
    assert_eq!(running.command(&format!("add server {backend}/s1 {new}")), "New server registered.");
    assert_eq!(running.command(&format!("set server {backend}/s1 state ready")), "");
    assert_eq!(running.command(&format!("add map {} new.example {backend}", map.display())), "");
    assert!(running.get(b"new.example").starts_with("HTTP/1.1 200 "));
    // Servers of the start-up configuration can be moved and removed like any other.
    assert_eq!(running.command("set server web:pool:0002/s0 state maint"), "");
    assert_eq!(running.command("del server web:pool:0002/s0"), "Server deleted.");
    assert!(running.get(b"old.example").starts_with("HTTP/1.1 503 "));
}

fn outlives_the_reader_of_its_log(version: &str) {
    let mut state = State::default();
    serve(&mut state, "one.example", None, &[(container("one"), Admin::Ready)]);
    let (reader, writer) = std::io::pipe().unwrap();
    let running = Running::start(version, &state, |_| writer.into());
    drop(reader);
    let pid = running.child.id();
    for _ in 0..20 {
        assert!(running.get(b"one.example").starts_with("HTTP/1.1 200 "));
    }
    assert!(running.command("show info").contains(&format!("\nPid: {pid}\n")));
}
