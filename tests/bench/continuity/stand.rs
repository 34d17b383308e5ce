//! hapilot with an HAProxy of its own between the machine's Docker engine and
//! visitors.
//!
//! What lives here: their start and end, containers that are made, ended and
//! removed, and waiting for a condition. What it must not know: what is measured.
//!
//! Everything carries the share's mark and goes when this is dropped, also after
//! a failure or Ctrl-C: that only raises a flag, which whatever waits or calls
//! the engine looks at.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::verdict::Ending;
use crate::engine::{self, SAMPLE, Share, free_port, get, haproxy_pid, kill, said};
use crate::engine_api as api;

/// What holds at all holds long before.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C and SIGTERM lead to an end that tidies up.
pub(crate) fn heed_signals(runtime: &Runtime) {
    runtime.spawn(async {
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
}

/// Ends the benchmark, with its tidying up, if somebody wants that.
pub(crate) fn go_on() {
    if INTERRUPTED.load(Ordering::Relaxed) && !std::thread::panicking() {
        // A panic without its message.
        std::panic::resume_unwind(Box::new("interrupted"));
    }
}

/// Waits until the probe finds what it wants.
pub(crate) fn until<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        go_on();
        match probe() {
            Ok(found) => return found,
            Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(reason) => panic!("{what}: not within {PATIENCE:?}; at last: {reason}"),
        }
    }
}

/// Lets time pass in which nothing is to happen.
pub(crate) fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        go_on();
        std::thread::sleep(PAUSE);
    }
}

/// A container of the sample service.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
}

impl Container {
    /// As it stands in the name of its server and calls itself.
    pub(crate) fn short(&self) -> &str {
        &self.id[..12]
    }
}

/// `start`, `pause`, `unpause`.
pub(crate) fn act(container: &Container, action: &str) {
    go_on();
    api::act(&container.id, action);
}

/// Removes containers, whatever they do.
pub(crate) fn remove(containers: Vec<Container>) {
    for container in containers {
        go_on();
        api::remove(&container.id);
    }
}

/// How a container behaves.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// `ON_TERM` of the sample service.
    pub(crate) on_term: &'static str,
    /// For so long after its start nobody listens.
    pub(crate) startup_ms: u32,
}

/// All that a case needs.
pub(crate) struct Stand {
    pub(crate) runtime: Handle,
    pub(crate) http: SocketAddr,
    share: Share,
    dir: PathBuf,
    version: String,
    hapilot: Mutex<Child>,
    endings: Mutex<Vec<Ending>>,
    made: AtomicUsize,
}

impl Stand {
    pub(crate) fn new(version: &str, runtime: Handle) -> Self {
        let share = Share::new("continuity");
        let dir = Path::new("/tmp").join(&share.name);
        remove_haproxy(&dir);
        std::fs::create_dir(&dir).unwrap();
        let http: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let hapilot = Mutex::new(launch(&dir, http, version));
        let (endings, made, version) = (Mutex::default(), AtomicUsize::default(), version.to_owned());
        let stand = Self { runtime, http, share, dir, version, hapilot, endings, made };
        stand.converged();
        stand
    }

    // ---- hapilot and HAProxy ----

    /// kill -9.
    pub(crate) fn kill_hapilot(&self) {
        let mut hapilot = self.hapilot.lock().unwrap();
        hapilot.kill().unwrap();
        hapilot.wait().unwrap();
    }

    /// A new one, where the old one was.
    pub(crate) fn start_hapilot(&self) {
        *self.hapilot.lock().unwrap() = launch(&self.dir, self.http, &self.version);
    }

    /// Waits until hapilot says that all is well.
    pub(crate) fn converged(&self) {
        until("hapilot is converged", || {
            let mut check = Command::new(env!("CARGO_BIN_EXE_hapilot"));
            said(&check.arg("check").arg("--dir").arg(&self.dir).output().unwrap())
        });
    }

    /// HAProxy's process.
    pub(crate) fn haproxy(&self) -> u32 {
        haproxy_pid(&self.dir.join("admin.sock")).unwrap()
    }

    /// HAProxy's access log.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("haproxy.log")
    }

    /// How many servers HAProxy has.
    pub(crate) fn servers(&self) -> usize {
        let state = engine::runtime_api(&self.dir.join("admin.sock"), "show servers state").unwrap();
        // The first line is the format's number, the second the header.
        state.lines().skip(2).filter(|line| !line.is_empty()).count()
    }

    // ---- containers ----

    /// Starts one more for a host, and returns as soon as the engine does.
    pub(crate) fn start_new(&self, host: &str, manner: Manner) -> Container {
        go_on();
        let name = self.share.named(&self.made.fetch_add(1, Ordering::Relaxed).to_string());
        let mark = self.share.mark();
        let (mark, share) = mark.split_once('=').unwrap();
        let body = json!({
            "Image": SAMPLE,
            "Env": [
                format!("VIRTUAL_HOST={host}"),
                "VIRTUAL_PORT=8000",
                format!("NAME={host}"),
                format!("ON_TERM={}", manner.on_term),
                format!("STARTUP_MS={}", manner.startup_ms),
            ],
            "Labels": { mark: share },
        });
        let container = Container { id: api::create(&name, &body) };
        act(&container, "start");
        container
    }

    /// Whatever ends a container; remembered, with its time.
    pub(crate) fn end(&self, container: &Container, how: impl FnOnce(&Container)) {
        go_on();
        let from = Instant::now();
        how(container);
        let ending = Ending { container: container.short().to_owned(), from, until: Instant::now() };
        self.endings.lock().unwrap().push(ending);
    }

    /// All that were ended since the last call.
    pub(crate) fn take_endings(&self) -> Vec<Ending> {
        std::mem::take(&mut self.endings.lock().unwrap())
    }

    /// Waits until each of these, and nobody else, answers for a host.
    pub(crate) fn served_by(&self, host: &str, containers: &[Container]) {
        let wanted: BTreeSet<&str> = containers.iter().map(Container::short).collect();
        until(&format!("{host} is served by all of its containers"), || {
            let mut seen = BTreeSet::new();
            for _ in 0..2 * wanted.len() {
                let answer = get(self.http, host, "/").map_err(|error| error.to_string())?;
                seen.insert(answer.backend);
            }
            let same = seen.iter().map(String::as_str).eq(wanted.iter().copied());
            if same { Ok(()) } else { Err(format!("{seen:?}, not {wanted:?}")) }
        });
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let hapilot = self.hapilot.get_mut().unwrap();
        let _ = hapilot.kill();
        let _ = hapilot.wait();
        if std::thread::panicking() && !INTERRUPTED.load(Ordering::Relaxed) {
            let log = std::fs::read_to_string(self.dir.join("hapilot.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!("hapilot's log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        if std::env::var_os("HAPILOT_BENCH_KEEP").is_some() {
            let kept = self.dir.with_extension("logs");
            let _ = std::fs::create_dir(&kept);
            for log in ["hapilot.log", "haproxy.log"] {
                let _ = std::fs::copy(self.dir.join(log), kept.join(log));
            }
        }
        remove_haproxy(&self.dir);
    }
}

fn launch(dir: &Path, http: SocketAddr, version: &str) -> Child {
    let open = |name| File::options().append(true).create(true).open(dir.join(name)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapilot"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HAPILOT_")) {
        command.env_remove(name);
    }
    command
        .args(["run", "--log-level", "info,hapilot::controller=debug"])
        .args(["--docker", &format!("unix://{}", api::ENGINE), "--http", &http.to_string(), "--dir"])
        .arg(dir)
        .arg("--haproxy")
        .arg(engine::haproxy(version))
        .stdin(Stdio::null())
        // HAProxy's access log: it writes where hapilot does.
        .stdout(open("haproxy.log"))
        .stderr(open("hapilot.log"))
        .spawn()
        .unwrap()
}

fn remove_haproxy(dir: &Path) {
    if let Ok(pid) = haproxy_pid(&dir.join("admin.sock")) {
        kill("-KILL", pid);
    }
    if dir.exists() {
        std::fs::remove_dir_all(dir).unwrap();
    }
}
