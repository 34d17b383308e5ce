//! hapilot itself as a process, between a fake Docker engine and real HAProxy.
//!
//! What lives here: starting, asking and ending the program; below it, an HAProxy
//! of one's own, sockets between the two, containers' processes and visitors. What
//! it must not know: what a test expects. Everything that is started is killed when
//! dropped.
//!
//! Use it with `#[path = "../support/daemon.rs"] mod daemon;`.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake_docker::{FakeContainer, FakeDocker};

#[path = "daemon/haproxy.rs"]
mod haproxy;
#[path = "daemon/service.rs"]
mod service;
#[path = "daemon/sockets.rs"]
mod sockets;

pub(crate) use haproxy::{Haproxy, hosts_at, pid_at, servers_at, type_at};
pub(crate) use service::{Server, Streaming};
pub(crate) use sockets::{Between, fake_runtime_api, greeting};

/// A test that waits longer than this has failed; nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// An address that nobody else uses: every test process has its own corner of
/// 127.0.0.0/8, and in it every call gets its own address (containers must not
/// share one).
pub(crate) fn unused_address() -> SocketAddr {
    static NUMBER: AtomicU16 = AtomicU16::new(0);
    // Old scenes are gone by the time that numbers come again.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 4_000;
    let corner = (corner() | 0x800) << 12;
    let [_, a, b, c] = (corner | u32::from(number)).to_be_bytes();
    // Below the ports that the kernel gives to clients.
    (Ipv4Addr::new(127, a, b, c), 20_000 + number).into()
}

/// The number of this process's corner, 0 to 2,047: the first that no other process
/// holds, for as long as this one lives. A name of the kernel's leaves no file behind.
fn corner() -> u32 {
    static CORNER: OnceLock<(u32, UnixListener)> = OnceLock::new();
    let take = |number: u32| {
        let name = net::SocketAddr::from_abstract_name(format!("hapilot-test-corner-{number}")).unwrap();
        Some((number, UnixListener::bind_addr(&name).ok()?))
    };
    let first = std::process::id();
    let find = || (first..first + 0x800).find_map(|number| take(number & 0x7ff)).expect("no corner is free");
    CORNER.get_or_init(find).0
}

/// The executable of a version, as `make setup` puts it.
pub(crate) fn binary(version: &str) -> PathBuf {
    let root = std::env::var_os("HAPILOT_TEST_HAPROXY")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/haproxy"), PathBuf::from);
    let path = root.join(version).join("haproxy");
    assert!(path.exists(), "{} is missing: run `make setup`", path.display());
    path
}

/// `kill -SIGNAL PID`.
pub(crate) fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{signal} {pid}");
}

/// A process runs and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// CPU time that a process has used, in clock ticks (a hundredth of a second).
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The most memory that a process ever had, in KiB.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One place: a directory, an engine, and addresses.
pub(crate) struct Scene {
    /// `docker` is listened to from the start.
    pub(crate) docker: FakeDocker,
    /// HAProxy's address for visitors.
    pub(crate) http: SocketAddr,
    /// What hapilot is told instead of the engine's address.
    pub(crate) engines: Option<String>,
    temp: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let scene = Self::without_docker();
        scene.docker.listen();
        scene
    }

    pub(crate) fn without_docker() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let docker = FakeDocker::stopped(temp.path().join("docker.sock"));
        fs::create_dir(temp.path().join("run")).unwrap();
        Self { docker, http: unused_address(), engines: None, temp }
    }

    /// What is around `--dir`.
    pub(crate) fn root(&self) -> &Path {
        self.temp.path()
    }

    /// `--dir`.
    pub(crate) fn dir(&self) -> PathBuf {
        self.temp.path().join("run")
    }

    /// HAProxy's own socket in attach mode.
    pub(crate) fn socket(&self) -> PathBuf {
        self.temp.path().join("haproxy.sock")
    }

    /// The arguments of `run` and `render` that all tests share.
    fn settings(&self, action: &str, more: &[&str]) -> Command {
        let mut command = command(action, &self.dir());
        let engines = self.engines.clone().unwrap_or_else(|| self.docker.address());
        command.args(["--docker", &engines, "--http", &self.http.to_string()]);
        if !more.contains(&"--pool-size") {
            command.args(["--pool-size", "50"]);
        }
        command.args(more);
        command
    }

    /// The command line of `hapilot run`.
    pub(crate) fn run_command(&self, more: &[&str]) -> Command {
        self.settings("run", more)
    }

    /// `hapilot run` beside an HAProxy at a socket.
    pub(crate) fn attach_to(&self, socket: &Path, more: &[&str]) -> Hapilot {
        let more = [&["--runtime-api", socket.to_str().unwrap()], more].concat();
        self.launch(self.run_command(&more))
    }

    /// `hapilot run` beside the HAProxy of [`Self::haproxy`].
    pub(crate) fn attach(&self, more: &[&str]) -> Hapilot {
        self.attach_to(&self.socket(), more)
    }

    /// `hapilot run` with HAProxy as its child.
    pub(crate) fn spawn(&self, version: &str, more: &[&str]) -> Hapilot {
        let binary = binary(version);
        let more = [&["--haproxy", binary.to_str().unwrap()], more].concat();
        self.launch(self.run_command(&more))
    }

    /// Starts a command line of `hapilot run`.
    pub(crate) fn launch(&self, mut command: Command) -> Hapilot {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let log = self.temp.path().join(format!("log.{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let file = File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Hapilot { dir: self.dir(), child, log }
    }

    /// As [`Self::launch`], but all it says goes into this file.
    pub(crate) fn launch_into(&self, mut command: Command, file: File) -> Hapilot {
        let log = self.temp.path().join("no-log");
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Hapilot { dir: self.dir(), child, log }
    }

    /// An HAProxy that hapilot did not start, with hapilot's empty configuration.
    pub(crate) fn haproxy(&self, version: &str, more: &[&str]) -> Haproxy {
        let socket = self.socket();
        let more = [&["--runtime-api", socket.to_str().unwrap()], more].concat();
        let rendered = self.settings("render", &more).output().unwrap();
        assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
        let config = self.temp.path().join("start.cfg");
        fs::write(&config, rendered.stdout).unwrap();
        fs::create_dir_all(self.dir().join("maps")).unwrap();
        for map in hapilot::core::state::Map::ALL.map(hapilot::core::state::Map::file_name) {
            File::options().append(true).create(true).open(self.dir().join("maps").join(map)).unwrap();
        }
        Haproxy::start(version, &config, &self.socket())
    }

    /// A container whose process says its name; listening until dropped.
    pub(crate) fn serve(&self, name: &str, host: &str) -> (FakeContainer, Server) {
        let server = Server::start(name);
        (self.container(name, host, server.address), server)
    }

    /// A container with a host at an address.
    #[expect(clippy::unused_self, reason = "reads well")]
    pub(crate) fn container(&self, name: &str, host: &str, address: SocketAddr) -> FakeContainer {
        static NUMBER: AtomicU16 = AtomicU16::new(1);
        // As with real ones, the short identifiers differ, too.
        let id = format!("{:04x}", NUMBER.fetch_add(1, Ordering::Relaxed)).repeat(16);
        FakeContainer::new(name)
            .id(&id)
            .env("VIRTUAL_HOST", host)
            .env("VIRTUAL_PORT", &address.port().to_string())
            .network("bridge", &address.ip().to_string())
    }

    /// What a visitor of a host gets: the status and the body; 0 if nobody answers.
    pub(crate) fn visit(&self, host: &str) -> (u16, String) {
        self.fetch(host, "/").unwrap_or_default()
    }

    /// As [`Self::visit`], of a path.
    pub(crate) fn fetch(&self, host: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.trim().to_owned()))
    }

    /// What time it is where hapilot runs, as it says itself: seconds since 1970, to
    /// the last full reading of HAProxy.
    pub(crate) fn status_time(&self) -> u64 {
        let output = command("status", &self.dir()).arg("--json").output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        status["as_of"].as_u64().unwrap()
    }

    /// See [`check_at`].
    pub(crate) fn check(&self) -> (i32, String) {
        check_at(&self.dir())
    }

    /// Its metrics, as Prometheus would read them.
    pub(crate) fn metrics(&self) -> String {
        let mut stream = UnixStream::connect(self.dir().join("hapilot.sock")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

/// A command line of hapilot's that no variable of the test's own shell changes.
fn command(action: &str, dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapilot"));
    for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("HAPILOT_") || n.starts_with("DOCKER_")) {
        command.env_remove(name);
    }
    command.arg(action).arg("--dir").arg(dir).stdin(Stdio::null());
    command
}

/// `hapilot check`: its exit code and what it says.
pub(crate) fn check_at(dir: &Path) -> (i32, String) {
    let output = command("check", dir).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

/// A running `hapilot run`.
pub(crate) struct Hapilot {
    dir: PathBuf,
    child: Child,
    log: PathBuf,
}

impl Hapilot {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Lines of the log that contain a text.
    pub(crate) fn said(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it is converged by its own words, `check` included.
    pub(crate) fn converge(&mut self) {
        until("converged", || {
            assert!(self.is_running(), "hapilot ended");
            check_at(&self.dir).0 == 0
        });
    }

    /// Waits until its log has a line with this text.
    pub(crate) fn until_said(&mut self, text: &str) {
        until(&format!("the log says: {text}"), || {
            let said = self.said(text) > 0;
            assert!(said || self.is_running(), "hapilot ended and never said: {text}");
            said
        });
    }

    /// The status; fails if it gives none.
    pub(crate) fn status(&self) -> Value {
        let output = command("status", &self.dir).arg("--json").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A file below its `--dir` as it sees it, from a mount namespace of its own.
    pub(crate) fn inside(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.pid(), self.dir.display())).join(file)
    }

    /// As [`check_at`] of any question, from within its mount namespace.
    pub(crate) fn ask_inside(&self, arguments: &[&str]) -> (i32, String) {
        let mut ask = Command::new("nsenter");
        ask.args(["--mount", "--target", &self.pid().to_string(), env!("CARGO_BIN_EXE_hapilot")]);
        let output = ask.args(arguments).arg("--dir").arg(&self.dir).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Its HAProxy, from within its mount namespace.
    pub(crate) fn haproxy_inside(&self) -> Option<u32> {
        pid_at(&self.inside("admin.sock"))
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("hapilot ends", || !self.is_running());
        self.child.wait().unwrap()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Does next to nothing, says next to nothing and answers, over a while.
    pub(crate) fn assert_idle(&mut self, state: &str) {
        let window = Duration::from_secs(3);
        let (cpu, lines) = (cpu_ticks(self.pid()), self.log().lines().count());
        thread::sleep(window);
        assert!(self.is_running(), "{state}: hapilot ended");
        let used = cpu_ticks(self.pid()) - cpu;
        assert!(used <= 60, "{state}: used {used} ticks of CPU in {window:?}");
        let new = self.log().lines().count() - lines;
        assert!(new <= 3, "{state}: said {new} lines in {window:?}");
        self.status();
    }
}

impl Drop for Hapilot {
    fn drop(&mut self) {
        let children =
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap_or_default();
        let inner = self.haproxy_inside();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut orphans: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        // Of a child that another thread started the list may say nothing.
        orphans.extend(inner.or_else(|| pid_at(&self.dir.join("admin.sock"))));
        for pid in orphans {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        if thread::panicking() {
            eprintln!("--- log of hapilot {}:\n{}---", self.pid(), tail(&self.log()));
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
