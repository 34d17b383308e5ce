//! A real HAProxy for one test.
//!
//! What lives here: start, readiness, end. What it must not know: what a test
//! asks of it.
//!
//! Use it with `#[path = "../support/haproxy.rs"] mod haproxy;`.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "not every test uses all of it, and a test fails by panicking"
)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// The versions that the matrix consists of.
pub(crate) const VERSIONS: [&str; 4] = ["2.6", "3.0", "3.2", "3.4"];

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration to put behind the `global` section: the class `web`, all
/// maps in use, two backends of a pool, and backends that are not hapilot's.
pub(crate) const POOL_CONFIG: &str = "
defaults web
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 30s
frontend main from web
  bind @HTTP@
  http-request set-var(txn.be) req.hdr(host),host_only,lower,map_str(@DIR@/maps/hosts.map)
  http-request set-var(txn.service) var(txn.be),map_str(@DIR@/maps/names.map)
  http-request set-var(txn.check) var(txn.be),map_str(@DIR@/maps/checks.map)
  http-request set-var(txn.sticky) var(txn.be),map_str(@DIR@/maps/sticky.map)
  use_backend %[var(txn.be)] if { var(txn.be) -m found }
  default_backend nowhere
backend nowhere from web
  http-request return status 404
backend other:backend from web
  server theirs 127.0.0.1:9
backend web:pool:0001 from web
backend web:pool:0002 from web
backend web:start.example from web
  server disabled 127.0.0.1:9 disabled
";

/// The executable of a version, as `make setup` puts it.
pub(crate) fn binary(version: &str) -> PathBuf {
    let root = std::env::var_os("HAPILOT_TEST_HAPROXY")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/haproxy"), PathBuf::from);
    let path = root.join(version).join("haproxy");
    assert!(path.exists(), "{} is missing: run `make setup`", path.display());
    path
}

/// An address that no other test uses: every test process has its own 127.x.y.z.
pub(crate) fn unused_address() -> SocketAddr {
    static PORT: AtomicU16 = AtomicU16::new(30_000);
    let [_, a, b, c] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, 64 + (a & 63), b, c), PORT.fetch_add(1, Ordering::Relaxed)).into()
}

/// A running HAProxy; killed when dropped.
pub(crate) struct TestHaproxy {
    dir: tempfile::TempDir,
    child: Child,
    /// What stands for `@HTTP@`.
    pub(crate) http: SocketAddr,
    /// What stands for `@TCP@`: an address for a second bind of any kind.
    pub(crate) tcp: SocketAddr,
}

impl TestHaproxy {
    /// Starts a version with a configuration and waits until it answers. In the
    /// text, `@DIR@` is a directory of this HAProxy's own in which
    /// all maps below `maps/` exist and are empty, `@HTTP@` and
    /// `@TCP@` are free addresses. A `global` section with the admin socket is
    /// put in front.
    pub(crate) fn start(version: &str, config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (http, tcp) = (unused_address(), unused_address());
        let here = dir.path();
        fs::create_dir(here.join("maps")).unwrap();
        for map in hapilot::core::state::Map::ALL.map(hapilot::core::state::Map::file_name) {
            File::create(here.join("maps").join(map)).unwrap();
        }
        let global = "global\n  nbthread 2\n  stats socket @DIR@/admin.sock mode 600 level admin\n  stats timeout 1h\n  \
                      stats maxconn 20\n";
        let text = format!("{global}{config}")
            .replace("@DIR@", here.to_str().unwrap())
            .replace("@HTTP@", &http.to_string())
            .replace("@TCP@", &tcp.to_string());
        fs::write(here.join("haproxy.cfg"), text).unwrap();
        let log = File::create(here.join("log")).unwrap();
        let child = Command::new(binary(version))
            .args(["-db", "-f"])
            .arg(here.join("haproxy.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("HAProxy can be run");
        let mut haproxy = Self { dir, child, http, tcp };
        haproxy.wait_ready();
        haproxy
    }

    /// The admin socket is bound before the others: only a reply shows that all
    /// of them are.
    fn answers(&self) -> bool {
        let mut reply = String::new();
        UnixStream::connect(self.socket()).is_ok_and(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE)).is_ok()
                && stream.write_all(b"show info\n").is_ok()
                && stream.read_to_string(&mut reply).is_ok()
                && reply.contains("Pid: ")
        })
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.answers() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("HAProxy ended ({status}):\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "HAProxy does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its admin socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("admin.sock")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// True until the process has ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to end softly, as a reload does with the old process.
    pub(crate) fn stop_softly(&self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-USR1", &pid]).status().unwrap().success());
    }

    /// Ends it at once and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for TestHaproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("HAProxy's log:\n{}", self.log());
        }
    }
}
