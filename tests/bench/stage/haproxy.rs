//! A running HAProxy with a configuration of hapilot's.
//!
//! What lives here: its start and end. What it must not know: what is sent to
//! it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hapilot::core::state::State;
use hapilot::haproxy_config::{ConfigPath, ConfigSettings, RuntimeSocket, install, render};

/// HAProxy in a directory of its own; killed when dropped.
pub struct Haproxy {
    pub dir: tempfile::TempDir,
    pub settings: ConfigSettings,
    child: Child,
}

impl Haproxy {
    /// Starts one version, empty: its pool is `pool_size` backends.
    pub fn start(version: &str, pool_size: usize) -> Self {
        let root = std::env::var_os("HAPILOT_TEST_HAPROXY")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/haproxy"), PathBuf::from);
        let binary = root.join(version).join("haproxy");
        assert!(binary.exists(), "{} is missing: run `make setup`", binary.display());
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| ConfigPath::new(dir.path().join(name).to_str().unwrap()).unwrap();
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let socket = RuntimeSocket::unix(path("admin.sock")).unwrap();
        let settings = ConfigSettings { pool_size, ..ConfigSettings::new(path(""), http, socket) };
        let config = install(&render(&settings, &State::default()), dir.path(), None).unwrap();
        let child = Command::new(binary)
            .args(["-db", "-f"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let haproxy = Self { dir, settings, child };
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(haproxy.socket()).is_err() {
            assert!(Instant::now() < deadline, "HAProxy {version} does not listen");
            sleep(Duration::from_millis(5));
        }
        haproxy
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// How many servers it has.
    pub fn servers(&self) -> usize {
        self.rows().count()
    }

    /// How many of them take visitors: up, and neither in drain nor in maint.
    pub fn serving(&self) -> usize {
        // Behind the names, ids and the address: srv_op_state 2, srv_admin_state 0.
        self.rows().filter(|row| row.split(' ').skip(5).take(2).eq(["2", "0"])).count()
    }

    /// The backends that have servers, each once per server.
    pub fn backends(&self) -> Vec<String> {
        self.rows().map(|row| row.split(' ').nth(1).unwrap().to_owned()).collect()
    }

    fn rows(&self) -> impl Iterator<Item = String> {
        let mut socket = UnixStream::connect(self.socket()).unwrap();
        socket.write_all(b"show servers state\n").unwrap();
        let lines = BufReader::new(socket).lines().map_while(Result::ok);
        // The first line is the format's number, rows begin with a backend's.
        lines.filter(|line| line.starts_with(|c: char| c.is_ascii_digit()) && line.contains(' '))
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
