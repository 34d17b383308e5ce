//! HAProxy's life under hapilot, with real HAProxy of every version.
//!
//! What lives here: start, crash, soft stop, adoption, and every way in which a
//! start can fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/haproxy.rs"]
mod haproxy;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hapilot::core::name::{BackendKey, BackendName, ClassName, Host, MapWord, ServerName};
use hapilot::core::state::{Admin, Backend, Making, Map, Server, State};
use hapilot::haproxy_config::{
    CheckError, ConfigPath, ConfigSettings, Identity, InstallError, RuntimeSocket, install, render,
};
use hapilot::haproxy_process::{Configure, HaproxyBinary, HowStopped, Launch, StartError, Supervisor};
use haproxy::{binary, unused_address};

macro_rules! on_every_version {
    ($($test:ident),+ $(,)?) => {
        on_every_version!(@ haproxy_2_6 "2.6" $($test)+);
        on_every_version!(@ haproxy_3_0 "3.0" $($test)+);
        on_every_version!(@ haproxy_3_2 "3.2" $($test)+);
        on_every_version!(@ haproxy_3_4 "3.4" $($test)+);
    };
    (@ $module:ident $version:literal $($test:ident)+) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($version).await;
            })+
        }
    };
}

on_every_version!(
    a_crash_is_followed_by_a_complete_start,
    a_soft_stop_cuts_no_request,
    the_grace_time_ends,
    a_running_haproxy_is_adopted,
    a_start_that_fails_says_why,
    a_second_haproxy_on_the_port_is_refused,
    the_ports_are_bound_before_root_is_given_up,
);

const PATIENCE: Duration = Duration::from_secs(60);

/// What a Supervisor needs: a directory, and the state to start with.
struct World {
    dir: tempfile::TempDir,
    settings: ConfigSettings,
    binary: HaproxyBinary,
    state: Mutex<State>,
    started: AtomicUsize,
}

struct Config(Arc<World>);

impl Configure for Config {
    fn configure(&self) -> Result<PathBuf, InstallError> {
        self.0.started.fetch_add(1, Ordering::SeqCst);
        let rendered = render(&self.0.settings, &self.0.state.lock().unwrap());
        install(&rendered, self.0.dir.path(), Some(&self.0.binary.path))
    }
}

impl World {
    async fn new(version: &str) -> Arc<Self> {
        Self::with(version, |_| {}).await
    }

    async fn with(version: &str, change: impl FnOnce(&mut ConfigSettings)) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| ConfigPath::new(dir.path().join(name).to_str().unwrap()).unwrap();
        let runtime = RuntimeSocket::unix(path("admin.sock")).unwrap();
        let mut settings =
            ConfigSettings { pool_size: 3, ..ConfigSettings::new(path(""), unused_address(), runtime) };
        change(&mut settings);
        let binary = HaproxyBinary::find(&binary(version)).await.unwrap();
        assert_eq!(format!("{}.{}", binary.version.major, binary.version.minor), version);
        Arc::new(Self { dir, settings, binary, state: Mutex::default(), started: AtomicUsize::new(0) })
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    async fn start(self: &Arc<Self>) -> Result<Supervisor<Config>, StartError> {
        let launch = Launch { binary: self.binary.clone(), socket: self.socket() };
        Supervisor::start(launch, Config(Arc::clone(self))).await
    }

    fn serve(&self, host: &str, address: SocketAddr) {
        let key = BackendKey { class: ClassName::web(), host: Host::new(host).unwrap() };
        let server = Server { address, admin: Admin::Ready, weight: 1, making: Making::default() };
        let mut state = self.state.lock().unwrap();
        let servers = [(ServerName::new("s1").unwrap(), server)].into();
        state.backends.insert(key.own_name(), Backend { servers });
        let hosts = state.maps.entry(Map::Hosts).or_default();
        hosts.insert(MapWord::from(&key.host), MapWord::from(&key.own_name()));
    }

    /// The whole reply to a GET that was sent in full when this returns.
    fn get(&self, host: &str) -> std::thread::JoinHandle<String> {
        let mut stream = TcpStream::connect(self.settings.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        std::thread::spawn(move || {
            let mut reply = Vec::new();
            let mut byte = [0];
            while !reply.ends_with(b"whole") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                reply.push(byte[0]);
            }
            String::from_utf8(reply).unwrap()
        })
    }
}

impl Drop for World {
    /// Nothing may outlive the test that started it.
    fn drop(&mut self) {
        let Ok(mut stream) = UnixStream::connect(self.socket()) else { return };
        let mut reply = String::new();
        let answered = stream.write_all(b"show info\n").and_then(|()| stream.read_to_string(&mut reply));
        let pid = reply.lines().find_map(|line| line.strip_prefix("Pid: "));
        if let (Ok(_), Some(pid)) = (answered, pid) {
            kill("-KILL", pid.parse().unwrap());
        }
    }
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// A container that reports each request and answers when it is told.
fn container() -> (SocketAddr, Receiver<()>, Sender<()>) {
    let listener = TcpListener::bind(unused_address()).unwrap();
    let address = listener.local_addr().unwrap();
    let (arrived, arrivals) = channel();
    let (answer, answers) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            // A health check connects without a word.
            if request.is_empty() {
                continue;
            }
            if arrived.send(()).is_err() || answers.recv().is_err() {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
        }
    });
    (address, arrivals, answer)
}

async fn a_crash_is_followed_by_a_complete_start(version: &str) {
    let world = World::new(version).await;
    let mut supervisor = world.start().await.unwrap();
    assert!(!supervisor.is_adopted());
    let first = supervisor.pid();
    let (address, _arrivals, answer) = container();
    world.serve("new.example", address);

    kill("-KILL", first);
    let report = supervisor.wait_exit().await.to_string();
    assert!(report.starts_with(&format!("HAProxy (pid {first}) was ended by signal 9 after ")), "{report}");
    supervisor.restart().await.unwrap();
    assert_ne!(supervisor.pid(), first);
    answer.send(()).unwrap();
    let reply = world.get("new.example").join().unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("whole"), "{reply}");
}

async fn a_soft_stop_cuts_no_request(version: &str) {
    let world = World::new(version).await;
    let (address, arrivals, answer) = container();
    world.serve("slow.example", address);
    let mut supervisor = world.start().await.unwrap();
    let idle = world.get("unknown.example");
    let reply = world.get("slow.example");
    arrivals.recv_timeout(PATIENCE).unwrap();

    let stop = tokio::spawn(async move { supervisor.stop(PATIENCE).await.unwrap() });
    while TcpStream::connect(world.settings.http).is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!stop.is_finished(), "it ended with a request in flight");
    answer.send(()).unwrap();
    let reply = reply.join().unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("whole"), "{reply}");
    let (report, how) = stop.await.unwrap();
    assert_eq!((how, report.status.unwrap().code()), (HowStopped::Softly, Some(0)), "{report}");
    assert!(idle.join().unwrap().ends_with("here\n"));
}

async fn the_grace_time_ends(version: &str) {
    let world = World::new(version).await;
    let (address, arrivals, _answer) = container();
    world.serve("stuck.example", address);
    let mut supervisor = world.start().await.unwrap();
    let reply = world.get("stuck.example");
    arrivals.recv_timeout(PATIENCE).unwrap();
    let (report, how) = supervisor.stop(Duration::from_millis(50)).await.unwrap();
    assert_eq!(how, HowStopped::Terminated, "{report}");
    assert!(!reply.join().unwrap().contains("200"));
}

async fn a_running_haproxy_is_adopted(version: &str) {
    let world = World::new(version).await;
    let supervisor = world.start().await.unwrap();
    let pid = supervisor.pid();
    drop(supervisor);
    let mut supervisor = world.start().await.unwrap();
    assert_eq!((supervisor.pid(), supervisor.is_adopted()), (pid, true));
    assert_eq!(world.started.load(Ordering::SeqCst), 1, "its configuration was written anew");

    kill("-KILL", pid);
    assert_eq!(supervisor.wait_exit().await.status, None);
    supervisor.restart().await.unwrap();
    assert!(!supervisor.is_adopted());
    drop(supervisor);
    let mut supervisor = world.start().await.unwrap();
    assert!(supervisor.is_adopted());
    let (_, how) = supervisor.stop(PATIENCE).await.unwrap();
    assert_eq!(how, HowStopped::Softly);
    assert!(UnixStream::connect(world.socket()).is_err());
}

async fn a_start_that_fails_says_why(version: &str) {
    let taken = TcpListener::bind(unused_address()).unwrap();
    let address = taken.local_addr().unwrap();
    let world = World::with(version, |settings| settings.http = address).await;
    let error = world.start().await.err().unwrap();
    let StartError::Exited(report) = &error else { panic!("{error}") };
    assert_eq!(report.status.unwrap().code(), Some(1));
    assert!(error.to_string().ends_with("before it served anything; its reason stands on stderr above"));

    // Whatever fails a restart, the next one may succeed.
    drop(taken);
    let mut supervisor = world.start().await.unwrap();
    kill("-KILL", supervisor.pid());
    supervisor.wait_exit().await;
    let taken = TcpListener::bind(address).unwrap();
    assert!(matches!(supervisor.restart().await, Err(StartError::Exited(_))));
    assert!(matches!(supervisor.restart().await, Err(StartError::Exited(_))));
    drop(taken);
    supervisor.restart().await.unwrap();
    assert!(UnixStream::connect(world.socket()).is_ok());

    // A class that the template doesn't define.
    let world = World::with(version, |settings| settings.classes.push(ClassName::new("lost").unwrap())).await;
    let backend = BackendName::new("lost:shop.example").unwrap();
    world.state.lock().unwrap().backends.insert(backend, Backend::default());
    let error = world.start().await.err().unwrap();
    assert!(
        matches!(error, StartError::Configure(InstallError::Check(CheckError::Refused { .. }))),
        "{error}"
    );
    assert!(!world.dir.path().join("haproxy.cfg").exists());
}

async fn a_second_haproxy_on_the_port_is_refused(version: &str) {
    let world = World::new(version).await;
    let mut supervisor = world.start().await.unwrap();
    let other = World::with(version, |settings| settings.http = world.settings.http).await;
    assert!(matches!(other.start().await, Err(StartError::Exited(_))));
    assert_eq!(supervisor.stop(PATIENCE).await.unwrap().1, HowStopped::Softly);
    other.start().await.unwrap();
}

async fn the_ports_are_bound_before_root_is_given_up(version: &str) {
    let nobody = Identity { uid: 65_534, gid: 65_534 };
    let world = World::with(version, |settings| {
        settings.http.set_port(80);
        settings.identity = Some(nobody);
    })
    .await;
    let mut supervisor = world.start().await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", supervisor.pid())).unwrap();
    assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
    assert!(TcpStream::connect(world.settings.http).is_ok());
    assert_eq!(supervisor.stop(PATIENCE).await.unwrap().1, HowStopped::Softly);
}
