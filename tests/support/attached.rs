//! A real HAProxy with hapilot's own configuration, and turns without a daemon.
//!
//! What lives here: start and restart, a visitor, containers as facts, turns as
//! the controller takes them. What it must not know: Docker, and what a test asks.
//!
//! Use it with `#[macro_use] #[path = "../support/attached.rs"] mod attached;`.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "not every test uses all of it, and a test fails by panicking"
)]

#[path = "haproxy.rs"]
mod haproxy;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hapilot::core::command::Check;
use hapilot::core::container::{Container, ContainerId};
use hapilot::core::desired::{Desired, HaproxyPlace};
use hapilot::core::name::ClassName;
use hapilot::core::state::{Map, State};
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

/// Nobody waits for a server that is out of service: short, so that 2.6 deletes
/// within the test too.
const QUARANTINE: Duration = Duration::from_secs(1);
/// Sessions of a server that left service are cut after this.
pub(crate) const SESSION_LIMIT: Duration = Duration::from_secs(2);

/// A running HAProxy of one version in a directory of its own.
pub(crate) struct Haproxy {
    binary: PathBuf,
    child: Child,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) settings: ConfigSettings,
    pub(crate) http: SocketAddr,
}

impl Haproxy {
    pub(crate) async fn start(version: &str, pool_size: usize) -> Self {
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

    pub(crate) async fn restart(&mut self, state: &State) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = launch(&self.binary, self.dir.path(), &self.settings, state);
        self.until_it_listens().await;
    }

    pub(crate) async fn until_it_listens(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(self.socket()).await.is_err()
            || TcpStream::connect(self.http).await.is_err()
        {
            assert!(Instant::now() < deadline, "HAProxy does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    pub(crate) async fn link(&self) -> Link {
        let address = RuntimeApiAddress::Unix(self.socket());
        Link::new(Client::connect(&address, Timeouts::default()).await.unwrap())
    }

    /// What a person types into the socket.
    pub(crate) async fn type_in(&self, line: &str) -> String {
        let mut socket = UnixStream::connect(self.socket()).await.unwrap();
        socket.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// What a visitor of a host gets: the status, and the body.
    pub(crate) async fn visit(&self, host: &str) -> (u16, String) {
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
pub(crate) async fn listen(address: SocketAddr, name: &'static str) {
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
pub(crate) fn address(last: u8) -> Ipv4Addr {
    let [_, _, b, c] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 + (last & 63), b, c)
}

pub(crate) fn container(n: u8, host: &str) -> Container {
    let id = ContainerId::new(&format!("{n:02x}").repeat(32)).unwrap();
    Container::running(id, &format!("c{n}"))
        .with_env("VIRTUAL_HOST", host)
        .with_env("VIRTUAL_PORT", "7000")
        .on_network("web", Some(address(n)), None)
}

pub(crate) fn reconcile(containers: Vec<Container>) -> Reconcile {
    let rules = Rules {
        classes: ClassName::all(),
        check: Check::default(),
        quarantine: QUARANTINE,
        session_limit: SESSION_LIMIT,
    };
    let mut desired = Desired::new(HaproxyPlace::Host, false);
    desired.replace(containers);
    Reconcile::new(rules, desired, Arc::new(Metrics::default()))
}

/// Takes turns until nothing is left to do, deletions included.
pub(crate) async fn converge(reconcile: &mut Reconcile, link: &mut Link) -> Turn {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let turn = reconcile.turn(link).await.unwrap();
        assert_eq!(turn.failed, 0, "refused: {:?}", reconcile.blocked());
        if turn.settled && turn.waiting + turn.deferred == 0 {
            let read = observe(link.client_mut(), &ClassName::all()).await.unwrap().observed;
            assert_eq!(read, *link.observed(), "what is remembered is what HAProxy has");
            same(&read.state, reconcile.desired().state());
            return turn;
        }
        assert!(Instant::now() < deadline, "not converged: {turn:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Equal, but for maps that are absent on one side and empty on the other.
pub(crate) fn same(observed: &State, desired: &State) {
    assert_eq!(observed.backends, desired.backends);
    for map in Map::ALL {
        let entries = |state: &State| state.maps.get(&map).cloned().unwrap_or_default();
        assert_eq!(entries(observed), entries(desired), "{map:?}");
    }
}
