//! Docker engines that are restarted, killed and hang, with hapilot and HAProxy
//! beside them: visitors of a container that lives on notice nothing.
//!
//! What lives here: faults of a real engine, one of each test's own. What it must
//! not know: faults whose timing only a fake can set (`flow/docker`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

#[path = "../support/engine.rs"]
mod engine;
#[path = "../support/private_engine.rs"]
mod private_engine;

use engine::{SAMPLE, Share, Visitor, eventually, get, haproxy_pid, kill, not_served, said, served};
use private_engine::PrivateEngine;

/// In each test's network namespace.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// An engine, hapilot, and HAProxy as its child, in one network namespace, in
/// which this thread is, too.
struct Scene {
    hapilot: Child,
    dir: tempfile::TempDir,
    share: Share,
    engine: PrivateEngine,
}

impl Scene {
    fn new(purpose: &str, options: &[&str]) -> Self {
        let engine = PrivateEngine::start(purpose, 1, options);
        engine.load(SAMPLE);
        engine.enter();
        let share = Share::on(engine.docker().clone(), purpose);
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let hapilot = Command::new(env!("CARGO_BIN_EXE_hapilot"))
            .args(["run", "--pool-size", "20", "--http", &HTTP.to_string(), "--docker", &engine.address()])
            .arg("--dir")
            .arg(dir.path().join("run"))
            .arg("--haproxy")
            .arg(engine::haproxy("3.0"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let scene = Self { hapilot, dir, share, engine };
        scene.converge();
        scene
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn haproxy(&self) -> u32 {
        haproxy_pid(&self.run_dir().join("admin.sock")).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// `hapilot check`, and its exit code.
    fn check(&self) -> (Option<i32>, String) {
        let mut check = Command::new(env!("CARGO_BIN_EXE_hapilot"));
        let output = check.args(["check", "--dir"]).arg(self.run_dir()).output().unwrap();
        (output.status.code(), said(&output).unwrap_or_else(|error| error))
    }

    fn converge(&self) {
        self.until_check(0);
    }

    fn until_check(&self, code: i32) {
        eventually(&format!("`hapilot check` ends with {code}"), || match self.check() {
            (Some(found), _) if found == code => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    fn serve(&self, what: &str) -> String {
        self.share.serve(what, "bridge", &format!("{what}.example"))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("==== log of hapilot and HAProxy\n{}", self.log());
        }
        // Or it would start HAProxy again.
        let _ = self.hapilot.kill();
        let _ = self.hapilot.wait();
        if let Ok(pid) = haproxy_pid(&self.run_dir().join("admin.sock")) {
            kill("-KILL", pid);
        }
    }
}

/// What the visitors of a host met.
struct Met {
    asked: usize,
    failed: usize,
    backends: BTreeSet<String>,
}

/// Asks for a host all the time and remembers who answered.
struct Watcher {
    leave: Arc<AtomicBool>,
    asking: JoinHandle<Met>,
}

impl Watcher {
    fn of(host: String) -> Self {
        let leave = Arc::new(AtomicBool::new(false));
        let left = Arc::clone(&leave);
        let asking = std::thread::spawn(move || {
            let mut met = Met { asked: 0, failed: 0, backends: BTreeSet::new() };
            while !left.load(Ordering::Relaxed) {
                met.asked += 1;
                match get(HTTP, &host, "/") {
                    Ok(answer) if answer.status == 200 => drop(met.backends.insert(answer.backend)),
                    _ => met.failed += 1,
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            met
        });
        Self { leave, asking }
    }

    fn leaves(self) -> Met {
        self.leave.store(true, Ordering::Relaxed);
        self.asking.join().unwrap()
    }
}

/// The engine is updated: it ends and starts again, its containers live on.
#[test]
fn restarted_with_live_restore() {
    let mut scene = Scene::new("restore", &["--live-restore"]);
    scene.serve("stays");
    let goes = scene.serve("goes");
    served(HTTP, "stays.example");
    served(HTTP, "goes.example");
    scene.converge();
    let haproxy = scene.haproxy();
    let visitor = Visitor::of(HTTP, "stays.example");

    let process = scene.share.docker.inspect(&goes, "{{.State.Pid}}").parse().unwrap();
    scene.engine.stop();
    // It knows that it doesn't know, and does nothing.
    scene.until_check(5);
    kill("-KILL", process);
    scene.engine.launch();
    not_served(HTTP, "goes.example");
    scene.converge();

    scene.engine.kill();
    scene.until_check(5);
    scene.engine.launch();
    scene.converge();
    scene.serve("later");
    served(HTTP, "later.example");

    visitor.noticed_nothing();
    assert_eq!(scene.haproxy(), haproxy, "HAProxy is the same");
}

/// The containers end with the engine; with the next one they come back, at
/// addresses that were others' before.
#[test]
fn restarted_without_live_restore() {
    let mut scene = Scene::new("norestore", &[]);
    let names = ["one", "two", "three", "four"];
    let mut own = Vec::new();
    for name in names {
        let container = scene.serve(name);
        scene.share.docker.run(&["update", "--restart", "always", &container]);
        own.push(scene.share.docker.inspect(&container, "{{.Id}}")[..12].to_owned());
    }
    let all_served = || names.map(|name| served(HTTP, &format!("{name}.example")).backend);
    assert_eq!(all_served(), *own);
    let addresses = || names.map(|name| scene_address(&scene.share, name));
    let haproxy = scene.haproxy();

    for killed in [false, true] {
        let watchers = names.map(|name| Watcher::of(format!("{name}.example")));
        let before = addresses();
        if killed {
            scene.engine.kill();
            scene.until_check(5);
            assert_eq!(all_served(), *own, "they live on until the next engine begins");
        } else {
            scene.engine.stop();
            scene.until_check(5);
        }
        scene.engine.launch();
        scene.converge();
        assert_eq!(all_served(), *own);
        let moved = before.iter().zip(addresses()).filter(|(before, after)| *before != after).count();
        let (mut asked, mut failed) = (0, 0);
        for (watcher, own) in watchers.into_iter().zip(&own) {
            let met = watcher.leaves();
            let strangers: Vec<_> = met.backends.iter().filter(|&other| other != own).collect();
            assert!(
                strangers.is_empty(),
                "killed: {killed}: the visitors of {own} were answered by {strangers:?}"
            );
            (asked, failed) = (asked + met.asked, failed + met.failed);
        }
        eprintln!("killed: {killed}; {moved} addresses changed hands; {asked} requests, {failed} unanswered");
    }
    assert_eq!(scene.haproxy(), haproxy, "HAProxy is the same");
}

fn scene_address(share: &Share, what: &str) -> String {
    share.docker.inspect(&share.named(what), "{{.NetworkSettings.IPAddress}}")
}

/// It answers nothing any more, but its socket and its streams stand; then it
/// goes on.
#[test]
fn hangs() {
    let scene = Scene::new("hangs", &[]);
    scene.serve("stays");
    let goes = scene.serve("goes");
    served(HTTP, "stays.example");
    served(HTTP, "goes.example");
    let process = scene.share.docker.inspect(&goes, "{{.State.Pid}}").parse().unwrap();
    let visitor = Visitor::of(HTTP, "stays.example");
    scene.engine.freeze();
    scene.until_check(5);
    kill("-KILL", process);
    scene.engine.thaw();
    not_served(HTTP, "goes.example");
    scene.converge();
    visitor.noticed_nothing();
}
