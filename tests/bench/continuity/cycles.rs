//! A thousand containers come and go, on each version of HAProxy.
//!
//! What lives here: their lives, on the fake engine, with real processes at
//! addresses of 127.0.0.0/8; what is left over; hapilot's memory. What it must
//! not know: the real engine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::runtime::Runtime;

use super::row::Row;
use super::stand::{go_on, until};
use super::verdict::Ending;
use super::visitors::{Visit, Visitors};
use crate::daemon::{Hapilot, Haproxy, Scene, unused_address};
use crate::engine::{get, root};
use crate::figures::memory_mb;

/// Lives that go on at the same time.
const AT_ONCE: usize = 4;
/// hapilot's memory is looked at first after this part of the cycles.
const WARM_UP: usize = 4;
/// It may have grown so much since, in percent.
const FLAT: f64 = 5.0;
/// Deletions take 8 s and more on 2.6.
const PATIENCE: Duration = Duration::from_secs(60);
const STABLE: &str = "stable.example";

/// A sample service that runs as a process of this machine.
struct Service {
    process: Child,
    address: SocketAddr,
}

impl Service {
    fn start(name: &str) -> Self {
        let address = unused_address();
        let program: PathBuf = root().join("target/release/sample-backend");
        let process = Command::new(&program)
            .args(["--listen", &address.to_string()])
            .env("NAME", name)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} (run `make build`): {error}", program.display()));
        Self { process, address }
    }

    /// SIGTERM; returns when it has ended.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// So many containers come and go, two of three as replicas of a host that
/// has visitors all the time.
pub(crate) fn cycles(runtime: &Runtime, version: &str, count: usize) -> Row {
    let _inside = runtime.enter();
    let scene = Scene::new();
    let mut stable = Vec::new();
    for name in ["a", "b"] {
        let service = Service::start(&format!("{STABLE}#{name}"));
        scene.docker.run(scene.container(name, STABLE, service.address));
        stable.push(service);
    }
    let more = ["--pool-size", "1000"];
    let haproxy = scene.haproxy(version, &more);
    let mut hapilot = scene.attach(&more);
    hapilot.converge();
    serves(&scene, STABLE, &format!("{STABLE}#b"));

    let visit =
        Visit { http: scene.http, host: STABLE.into(), slow: false, patience: Duration::from_secs(10) };
    let visitors = Visitors::come(runtime.handle(), &visit);
    let begin = Instant::now();
    lives(&scene, 0..count / WARM_UP);
    settle(&haproxy, &mut hapilot);
    let before = memory_mb(hapilot.pid(), "VmRSS");
    lives(&scene, count / WARM_UP..count);
    let left = settle(&haproxy, &mut hapilot);
    let growth = (memory_mb(hapilot.pid(), "VmRSS") / before - 1.0) * 100.0;
    let took = begin.elapsed();
    let requests = visitors.leave();

    let name = format!("{count} start/stop cycles, HAProxy {version}");
    let log = scene.socket().with_extension("log");
    if std::env::var_os("HAPILOT_BENCH_KEEP").is_some() {
        std::fs::copy(&log, format!("/tmp/hapilot-cycles-{version}.haproxy.log")).unwrap();
        std::fs::write(format!("/tmp/hapilot-cycles-{version}.hapilot.log"), hapilot.log()).unwrap();
    }
    let endings: [Ending; 0] = [];
    let row = Row::new(&name, 1, &requests, &endings, &log, false).no_failure();
    let memory = format!("hapilot's memory {growth:+.1} % of {before:.1} MB");
    let mut row = row.bound(left == 0, format!("{left} servers left over")).bound(growth <= FLAT, memory);
    row.besides.push(format!("{:.0} s", took.as_secs_f64()));
    row
}

/// Each of these comes, serves and goes, a few at a time.
fn lives(scene: &Scene, numbers: std::ops::Range<usize>) {
    let next = AtomicUsize::new(numbers.start);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    go_on();
                    live(scene, number);
                }
            });
        }
    });
}

fn live(scene: &Scene, number: usize) {
    let host = if number.is_multiple_of(3) { &format!("own-{number}.example") } else { STABLE };
    let name = format!("{host}#{number}");
    let service = Service::start(&name);
    let id = scene.docker.run(scene.container(&format!("life-{number}"), host, service.address));
    serves(scene, host, &name);
    scene.docker.signal(&id, "15");
    service.stop();
    scene.docker.die(&id);
    scene.docker.container_event(&id, "stop");
    scene.docker.destroy(&id);
}

/// Waits until a certain service answers for a host.
fn serves(scene: &Scene, host: &str, name: &str) {
    let wanted = format!("service: {name}\n");
    until(&format!("{name} serves {host}"), || match get(scene.http, host, "/") {
        Ok(answer) if answer.status == 200 && answer.body.contains(&wanted) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Waits until hapilot has nothing more to delete; how many servers are left
/// over then, or when patience ends. HAProxy is asked only once: on 2.6 a dump
/// in the instant of a deletion can crash it.
fn settle(haproxy: &Haproxy, hapilot: &mut Hapilot) -> usize {
    hapilot.converge();
    let deadline = Instant::now() + PATIENCE;
    while hapilot.status()["waiting"] != json!([]) && Instant::now() < deadline {
        go_on();
        thread::sleep(Duration::from_millis(200));
    }
    haproxy.servers().len() - 2
}
