//! Turns against real HAProxy of every version.
//!
//! What lives here: containers as facts, turns as the controller takes them, and
//! what HAProxy has afterwards. What it must not know: Docker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/haproxy.rs"]
mod haproxy;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hapilot::core::command::Check;
use hapilot::core::container::{Container, ContainerId, RunState};
use hapilot::core::desired::{Desired, HaproxyPlace};
use hapilot::core::name::ClassName;
use hapilot::core::state::{Admin, Map, State};
use hapilot::haproxy_config::{ConfigPath, ConfigSettings, RuntimeSocket, install, render};
use hapilot::metrics::Metrics;
use hapilot::observe::observe;
use hapilot::reconcile::{Link, Reconcile, Rules, Turn};
use hapilot::runtime_api::{Client, RuntimeApiAddress, Timeouts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

macro_rules! on_every_version {
    ($($test:ident),+ $(,)?) => {
        mod haproxy_2_6 { $(#[tokio::test] async fn $test() { super::$test("2.6").await; })+ }
        mod haproxy_3_0 { $(#[tokio::test] async fn $test() { super::$test("3.0").await; })+ }
        mod haproxy_3_2 { $(#[tokio::test] async fn $test() { super::$test("3.2").await; })+ }
        mod haproxy_3_4 { $(#[tokio::test] async fn $test() { super::$test("3.4").await; })+ }
    };
}

on_every_version!(
    a_host_comes_scales_and_goes,
    a_new_hapilot_takes_over_what_is_there,
    a_hand_on_the_socket_is_undone,
    a_container_that_moves_takes_its_server_along,
    a_full_pool_blocks_the_newcomer_only,
    a_restarted_haproxy_is_complete_from_its_configuration,
);

/// Nobody waits for a server that is out of service: short, so that 2.6 deletes
/// within the test too.
const QUARANTINE: Duration = Duration::from_secs(1);

/// A running HAProxy of one version in a directory of its own.
struct Haproxy {
    binary: PathBuf,
    child: Child,
    dir: tempfile::TempDir,
    settings: ConfigSettings,
    http: SocketAddr,
}

impl Haproxy {
    async fn start(version: &str, pool_size: usize) -> Self {
        let binary = haproxy::binary(version);
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| ConfigPath::new(dir.path().join(name).to_str().unwrap()).unwrap();
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let http = SocketAddr::from((Ipv4Addr::new(127, 64 + (a & 63), b, c), 18_080));
        let socket = RuntimeSocket::unix(path("admin.sock")).unwrap();
        let settings = ConfigSettings { pool_size, ..ConfigSettings::new(path(""), http, socket) };
        let child = launch(&binary, dir.path(), &settings, &State::default());
        let haproxy = Self { binary, child, dir, settings, http };
        haproxy.until_it_listens().await;
        haproxy
    }

    async fn restart(&mut self, state: &State) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = launch(&self.binary, self.dir.path(), &self.settings, state);
        self.until_it_listens().await;
    }

    async fn until_it_listens(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(self.socket()).await.is_err()
            || TcpStream::connect(self.http).await.is_err()
        {
            assert!(Instant::now() < deadline, "HAProxy does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    async fn link(&self) -> Link {
        let address = RuntimeApiAddress::Unix(self.socket());
        Link::new(Client::connect(&address, Timeouts::default()).await.unwrap())
    }

    /// What a person types into the socket.
    async fn type_in(&self, line: &str) -> String {
        let mut socket = UnixStream::connect(self.socket()).await.unwrap();
        socket.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// What a visitor of a host gets: the status, and the body.
    async fn visit(&self, host: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.trim().to_owned())
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(binary: &Path, dir: &Path, settings: &ConfigSettings, state: &State) -> Child {
    let config = install(&render(settings, state), dir, None).unwrap();
    let _ = std::fs::remove_file(dir.join("admin.sock"));
    Process::new(binary)
        .args(["-db", "-f"])
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The process in a container: says its own name.
async fn listen(address: SocketAddr, name: &'static str) {
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while matches!(stream.read(&mut request).await, Ok(1..)) {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// Addresses of this test process alone: 127.x.y.z, from the process's number.
fn address(last: u8) -> Ipv4Addr {
    let [_, _, b, c] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 + (last & 63), b, c)
}

fn container(n: u8, host: &str) -> Container {
    let id = ContainerId::new(&format!("{n:02x}").repeat(32)).unwrap();
    Container::running(id, &format!("c{n}"))
        .with_env("VIRTUAL_HOST", host)
        .with_env("VIRTUAL_PORT", "7000")
        .on_network("web", Some(address(n)), None)
}

fn reconcile(containers: Vec<Container>) -> Reconcile {
    let rules = Rules {
        classes: ClassName::all(),
        check: Check::default(),
        quarantine: QUARANTINE,
        session_limit: Duration::from_secs(60),
    };
    let mut desired = Desired::new(HaproxyPlace::Host, false);
    desired.replace(containers);
    Reconcile::new(rules, desired, Arc::new(Metrics::default()))
}

/// Takes turns until nothing is left to do, deletions included.
async fn converge(reconcile: &mut Reconcile, link: &mut Link) -> Turn {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let turn = reconcile.turn(link).await.unwrap();
        assert_eq!(turn.failed, 0, "refused: {:?}", reconcile.blocked());
        if turn.settled && turn.waiting + turn.deferred == 0 {
            let read = observe(link.client_mut(), &[ClassName::web()]).await.unwrap().observed;
            assert_eq!(read, *link.observed(), "what is remembered is what HAProxy has");
            same(&read.state, reconcile.desired().state());
            return turn;
        }
        assert!(Instant::now() < deadline, "not converged: {turn:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Equal, but for maps that are absent on one side and empty on the other.
fn same(observed: &State, desired: &State) {
    assert_eq!(observed.backends, desired.backends);
    for map in Map::ALL {
        let entries = |state: &State| state.maps.get(&map).cloned().unwrap_or_default();
        assert_eq!(entries(observed), entries(desired), "{map:?}");
    }
}

async fn a_host_comes_scales_and_goes(version: &str) {
    let haproxy = Haproxy::start(version, 5).await;
    let mut link = haproxy.link().await;
    let pid = link.client().pid();
    listen((address(1), 7000).into(), "one").await;
    listen((address(2), 7000).into(), "two").await;
    assert_eq!(haproxy.visit("shop.example").await.0, 404);

    let mut reconcile = reconcile(vec![container(1, "shop.example,*.shop.example")]);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("shop.example").await, (200, "one".to_owned()));
    assert_eq!(haproxy.visit("SHOP.example:80").await, (200, "one".to_owned()));
    assert_eq!(haproxy.visit("new.shop.example").await, (200, "one".to_owned()));
    assert_eq!(haproxy.visit("else.example").await.0, 404);

    reconcile.desired_mut().set(container(2, "shop.example"));
    converge(&mut reconcile, &mut link).await;
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..4 {
        seen.push(haproxy.visit("shop.example").await.1);
    }
    assert!(seen.contains(&"one".to_owned()) && seen.contains(&"two".to_owned()), "{seen:?}");

    let gone = container(1, "").id;
    reconcile.desired_mut().remove(&gone);
    let turn = reconcile.turn(&mut link).await.unwrap();
    assert!(turn.settled, "out of service at once, whenever it is deleted: {turn:?}");
    for _ in 0..4 {
        assert_eq!(haproxy.visit("shop.example").await, (200, "two".to_owned()));
    }
    assert_eq!(haproxy.visit("new.shop.example").await.0, 404);
    converge(&mut reconcile, &mut link).await;

    let mut paused = container(2, "shop.example");
    paused.run = RunState::Paused;
    reconcile.desired_mut().set(paused);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("shop.example").await.0, 503);
    reconcile.desired_mut().set(container(2, "shop.example"));
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("shop.example").await, (200, "two".to_owned()));

    reconcile.desired_mut().replace(Vec::new());
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("shop.example").await.0, 404);
    assert_eq!(link.observed().state.servers().count(), 0, "nothing leaks");
    assert_eq!(link.client_mut().heartbeat().await.unwrap().pid, pid);
}

async fn a_new_hapilot_takes_over_what_is_there(version: &str) {
    let haproxy = Haproxy::start(version, 5).await;
    let containers = || vec![container(1, "a.example"), container(2, "a.example,b.example")];
    let mut first = reconcile(containers());
    converge(&mut first, &mut haproxy.link().await).await;

    let mut second = reconcile(containers());
    let turn = converge(&mut second, &mut haproxy.link().await).await;
    assert_eq!(turn.done, 0, "nothing had to be sent");

    let mut changed = containers();
    changed.push(container(3, "c.example"));
    let mut third = reconcile(changed);
    let mut link = haproxy.link().await;
    let turn = third.turn(&mut link).await.unwrap();
    let add_server = 3;
    // Below 3.4: the loan and the host. From 3.4: the backend, its publication
    // and the host.
    let rest = if link.client().capabilities().add_backend { 3 } else { 2 };
    assert_eq!(turn.done, add_server + rest, "only the difference is sent");
}

async fn a_hand_on_the_socket_is_undone(version: &str) {
    let haproxy = Haproxy::start(version, 5).await;
    let mut link = haproxy.link().await;
    let mut reconcile = reconcile(vec![container(1, "a.example"), container(2, "a.example")]);
    converge(&mut reconcile, &mut link).await;
    let (backend, servers) = link.observed().state.backends.iter().next().unwrap();
    let server = servers.servers.keys().next().unwrap();
    let hosts = haproxy.dir.path().join("maps/hosts.map");
    let hosts = hosts.display();
    for line in [
        format!("add server {backend}/by-hand 127.0.0.1:9"),
        format!("set server {backend}/{server} state maint"),
        format!("set server {backend}/{server} weight 7"),
        format!("add map {hosts} stranger.example {backend}"),
        format!("add map {hosts} a.example elsewhere"),
        format!("add map {hosts} odd.example two words"),
    ] {
        let answer = haproxy.type_in(&line).await;
        assert!(!answer.contains("such") && !answer.contains("nknown"), "{line}: {answer}");
    }
    reconcile.observe(&mut link).await.unwrap();
    converge(&mut reconcile, &mut link).await;
    assert!(link.observed().stray_entries.is_empty());
    assert_eq!(reconcile.desired().state().servers().filter(|(_, _, s)| s.admin == Admin::Ready).count(), 2);
}

async fn a_container_that_moves_takes_its_server_along(version: &str) {
    let haproxy = Haproxy::start(version, 5).await;
    let mut link = haproxy.link().await;
    listen((address(1), 7000).into(), "old").await;
    listen((address(2), 7000).into(), "new").await;
    let mut reconcile = reconcile(vec![container(1, "a.example")]);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("a.example").await, (200, "old".to_owned()));
    let moved = container(1, "a.example").on_network("web", Some(address(2)), None);
    reconcile.desired_mut().set(moved);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("a.example").await, (200, "new".to_owned()));
    // And back, as its neighbour takes the address it leaves.
    let mut neighbour = container(2, "b.example");
    neighbour.started_at = Some(1);
    reconcile.desired_mut().set(neighbour);
    reconcile.desired_mut().set(container(1, "a.example"));
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("a.example").await, (200, "old".to_owned()));
    assert_eq!(haproxy.visit("b.example").await, (200, "new".to_owned()));
}

async fn a_full_pool_blocks_the_newcomer_only(version: &str) {
    let haproxy = Haproxy::start(version, 2).await;
    let mut link = haproxy.link().await;
    for n in 1..=3 {
        listen((address(n), 7000).into(), "served").await;
    }
    let mut reconcile = reconcile(vec![container(1, "a.example"), container(2, "b.example")]);
    converge(&mut reconcile, &mut link).await;
    reconcile.desired_mut().set(container(3, "c.example"));
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("a.example").await.0, 200);
    assert_eq!(haproxy.visit("b.example").await.0, 200);
    if link.client().capabilities().add_backend {
        assert_eq!(haproxy.visit("c.example").await.0, 200, "no pool, no limit");
        return;
    }
    let blocked = reconcile.blocked();
    assert_eq!(blocked.len(), 1, "{blocked:?}");
    assert_eq!(blocked[0].what, "c.example");
    assert!(blocked[0].reason.contains("--pool-size"), "{}", blocked[0].reason);
    assert_eq!(haproxy.visit("c.example").await.0, 404);

    let gone = container(1, "").id;
    reconcile.desired_mut().remove(&gone);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("c.example").await.0, 200, "the backend that came back is lent at once");
    assert!(reconcile.blocked().is_empty());
}

async fn a_restarted_haproxy_is_complete_from_its_configuration(version: &str) {
    let mut haproxy = Haproxy::start(version, 5).await;
    listen((address(1), 7000).into(), "one").await;
    let mut reconcile = reconcile(vec![container(1, "a.example"), container(2, "b.example")]);
    converge(&mut reconcile, &mut haproxy.link().await).await;
    let state = reconcile.desired().state().clone();
    haproxy.restart(&state).await;
    assert_eq!(haproxy.visit("a.example").await, (200, "one".to_owned()), "before hapilot said a word");
    let turn = converge(&mut reconcile, &mut haproxy.link().await).await;
    assert_eq!(turn.done, 0, "nothing had to be sent");
    // What stood in the configuration can be taken away like everything else.
    reconcile.desired_mut().replace(Vec::new());
    let mut link = haproxy.link().await;
    converge(&mut reconcile, &mut link).await;
    assert_eq!(link.observed().state.servers().count(), 0);
}
