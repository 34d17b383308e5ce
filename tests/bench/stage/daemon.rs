//! The fake engine full of containers, and the released hapilot between it and
//! HAProxy.
//!
//! What lives here: their start and end, and what hapilot's log tells. What it
//! must not know: what is measured.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::fake_docker::{FakeContainer, FakeDocker};
use super::haproxy::Haproxy;
use super::targets;

/// Nothing that is waited for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The `n`th container: as large as those that docker compose makes.
pub fn container(n: usize, host: usize, port: u16) -> FakeContainer {
    let project = format!("project-{host}");
    FakeContainer::new(format!("{project}-web-{n}"))
        .id(&format!("{:016x}{:048x}", (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15), n + 1))
        .env("VIRTUAL_HOST", &host_name(host))
        .env("VIRTUAL_PORT", &port.to_string())
        .env("LANG", "C.UTF-8")
        .env("NODE_VERSION", "22.11.0")
        .env("DATABASE_URL", "postgres://web:secret@db.internal.example:5432/web?sslmode=require")
        .env("REDIS_URL", "redis://cache.internal.example:6379/0")
        .label(
            "com.docker.compose.config-hash",
            "0c4b0f9ab8b4d5b3f5ad1c6c5b3b2e1f0c4b0f9ab8b4d5b3f5ad1c6c5b3b2e1f",
        )
        .label("com.docker.compose.container-number", "1")
        .label("com.docker.compose.oneoff", "False")
        .label("com.docker.compose.project", &project)
        .label("com.docker.compose.project.config_files", &format!("/srv/{project}/compose.yml"))
        .label("com.docker.compose.project.working_dir", &format!("/srv/{project}"))
        .label("com.docker.compose.service", "web")
        .label("com.docker.compose.version", "2.29.7")
        .network(&format!("{project}_default"), &targets::address(n).to_string())
}

pub fn host_name(host: usize) -> String {
    format!("host-{host:04}.example")
}

/// What hapilot told about one event.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// Commands that HAProxy acknowledged in the turn to which it led.
    pub commands: usize,
    /// From its arrival.
    pub since_event: Duration,
    /// From the end of its inspect.
    pub since_inspect: Duration,
}

impl Acknowledged {
    fn read(line: &str) -> Option<Self> {
        let number = |key: &str| -> Option<u64> {
            let (_, rest) = line.split_once(key)?;
            rest.split(' ').next()?.parse().ok()
        };
        let commands = usize::try_from(number("commands=")?).ok().filter(|&commands| commands > 0)?;
        let since_event = Duration::from_micros(number("since_event_us=")?);
        let since_inspect = Duration::from_micros(number("since_inspect_us=")?);
        Some(Self { commands, since_event, since_inspect })
    }
}

/// hapilot as it is released; killed when dropped.
pub struct Daemon {
    child: Child,
    lines: Receiver<(Instant, String)>,
}

impl Daemon {
    /// Starts it between an engine and an HAProxy.
    pub fn start(docker: &FakeDocker, haproxy: &Haproxy) -> Self {
        Self::start_on(&docker.address(), haproxy)
    }

    /// The same with what `--docker` says.
    pub fn start_on(engines: &str, haproxy: &Haproxy) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hapilot"))
            .args(["run", "--log-level", "info,hapilot::latency=debug"])
            .arg("--docker")
            .arg(engines)
            .arg("--runtime-api")
            .arg(haproxy.socket())
            .arg("--http")
            .arg(haproxy.settings.http.to_string())
            .arg("--dir")
            .arg(haproxy.dir.path())
            .arg("--pool-size")
            .arg(haproxy.settings.pool_size.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its log that `wanted` makes something of, and when it
    /// came.
    pub fn wait_for<T>(&self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> (Instant, T) {
        self.within(PATIENCE, wanted).unwrap_or_else(|| panic!("hapilot never said: {what}"))
    }

    /// The same, if it comes in time.
    fn within<T>(&self, patience: Duration, wanted: impl Fn(&str) -> Option<T>) -> Option<(Instant, T)> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (at, line) = self.lines.recv_timeout(left).ok()?;
            assert!(!line.contains("ERROR") && !line.contains("refused"), "{line}");
            if let Some(found) = wanted(&line) {
                return Some((at, found));
            }
        }
    }

    pub fn wait_until_converged(&self) -> Instant {
        self.wait_for("converged", |line| line.contains("converged:").then_some(())).0
    }

    /// The next event that made HAProxy do something.
    pub fn acknowledged(&self) -> (Instant, Acknowledged) {
        self.wait_for("acknowledged", Acknowledged::read)
    }

    /// The same, if it comes in time.
    pub fn acknowledged_within(&self, patience: Duration) -> Option<(Instant, Acknowledged)> {
        self.within(patience, Acknowledged::read)
    }

    /// Forgets what it said so far.
    pub fn skip(&self) {
        while self.lines.try_recv().is_ok() {}
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
