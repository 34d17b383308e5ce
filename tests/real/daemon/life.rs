//! HAProxy and hapilot begin, die and end.
//!
//! What lives here: who takes over from whom, and what is served by then. What it
//! must not know: the process itself (`real/process.rs`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::{Seeded, open_up, with_one_served};
use crate::daemon::{
    Haproxy, Scene, Streaming, binary, hosts_at, is_alive, pid_at, servers_at, signal, type_at, until,
    unused_address,
};

on_every_version!(
    haproxy_is_restarted_elsewhere,
    a_killed_haproxy_is_back_at_once_and_complete,
    killed_fifty_times_during_churn,
    stopped_while_things_change,
);
on!(haproxy, "3.0":
    sigterm_between_two_starts,
    a_second_hapilot,
    sigterm_stops_its_own_haproxy_softly,
    sigterm_leaves_another_haproxy_alone,
    sigterm_while_haproxy_cannot_start,
    a_taken_port,
    a_killed_hapilot_takes_its_haproxy_over,
);

fn haproxy_is_restarted_elsewhere(version: &str) {
    let scene = Scene::new();
    let mut haproxy = scene.haproxy(version, &[]);
    let mut hapilot = scene.attach(&[]);
    let (one, _one) = scene.serve("one", "a.example");
    let (two, _two) = scene.serve("two", "b.example");
    scene.docker.run(one);
    hapilot.converge();
    scene.docker.run(two);
    until("served", || scene.visit("b.example") == (200, "two".into()));
    // The files follow by themselves.
    let config = scene.dir().join("haproxy.cfg");
    until("the files are up to date", || {
        fs::read_to_string(scene.dir().join("maps/hosts.map")).is_ok_and(|map| map.contains("b.example"))
    });
    haproxy.kill();
    until("noticed", || scene.check().0 == 3);
    // What happens while it is away is in the files at once.
    let (three, _three) = scene.serve("three", "c.example");
    scene.docker.run(three);
    until("the files are up to date", || {
        fs::read_to_string(&config).is_ok_and(|text| text.contains("server three-"))
    });
    hapilot.assert_idle("HAProxy is away");
    hapilot.signal("STOP");
    haproxy.restart(&config);
    for (host, name) in [("a.example", "one"), ("b.example", "two"), ("c.example", "three")] {
        assert_eq!(scene.visit(host), (200, name.into()), "complete without hapilot");
    }
    hapilot.signal("CONT");
    hapilot.converge();
    // With the files of an emptier past it is filled again.
    haproxy.restart(&scene.root().join("start.cfg"));
    until("complete again", || scene.visit("c.example") == (200, "three".into()));
    hapilot.converge();
    assert_eq!(haproxy.hosts().len(), 3);
    assert_eq!(hapilot.status()["haproxy"]["pid"], haproxy.pid());
}

fn a_killed_haproxy_is_back_at_once_and_complete(version: &str) {
    let scene = Scene::new();
    let mut hapilot = scene.spawn(version, &[]);
    let (one, _one) = scene.serve("one", "a.example");
    let (two, _two) = scene.serve("two", "b.example");
    let id = scene.docker.run(one);
    hapilot.converge();
    let socket = scene.dir().join("admin.sock");
    let first = pid_at(&socket).unwrap();
    scene.docker.run(two);
    until("served", || scene.visit("b.example").0 == 200);
    let streaming = Streaming::start(&scene, "a.example");
    scene.docker.pause(&id);
    scene.docker.unpause(&id);
    hapilot.converge();
    streaming.goes_on();
    assert_eq!(pid_at(&socket), Some(first), "never a reload");
    for _ in 0..3 {
        let before = pid_at(&socket).unwrap();
        signal(before, "KILL");
        // The first answer that anybody gets is a good one.
        let mut answer = (0, String::new());
        until("an answer", || {
            answer = scene.visit("b.example");
            answer.0 != 0
        });
        assert_eq!(answer, (200, "two".into()));
        assert_eq!(scene.visit("a.example"), (200, "one".into()));
        assert_ne!(pid_at(&socket), Some(before));
    }
    hapilot.converge();
    let pid = pid_at(&socket).unwrap();
    assert_eq!(hapilot.status()["haproxy"]["pid"], pid);
    hapilot.signal("TERM");
    assert_eq!(hapilot.ended().code(), Some(0));
    assert!(!is_alive(pid));
}

fn sigterm_between_two_starts(version: &str) {
    let scene = Scene::new();
    let path = scene.root().join("haproxy");
    let real = binary(version);
    let works = scene.root().join("works");
    fs::write(&works, "").unwrap();
    let text = format!("#!/bin/sh\n[ -e {} ] || exit 3\nexec {} \"$@\"\n", works.display(), real.display());
    fs::write(&path, text).unwrap();
    open_up(&path, "755");
    let mut hapilot = scene.launch(scene.run_command(&["--haproxy", path.to_str().unwrap()]));
    hapilot.converge();
    fs::remove_file(&works).unwrap();
    signal(pid_at(&scene.dir().join("admin.sock")).unwrap(), "KILL");
    hapilot.until_said("can't be started");
    hapilot.assert_idle("HAProxy can't be started again");
    assert_eq!(hapilot.said("can't be started"), 1);
    let begin = Instant::now();
    hapilot.signal("TERM");
    assert_eq!(hapilot.ended().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

fn a_second_hapilot(version: &str) {
    let scene = Scene::new();
    let mut first = scene.spawn(version, &[]);
    first.converge();
    let pid = pid_at(&scene.dir().join("admin.sock")).unwrap();
    let second = scene.run_command(&["--haproxy", binary(version).to_str().unwrap()]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("--dir") && said.contains(scene.dir().to_str().unwrap()), "{said}");
    first.converge();
    assert_eq!(pid_at(&scene.dir().join("admin.sock")), Some(pid));
}

fn sigterm_stops_its_own_haproxy_softly(version: &str) {
    let scene = Scene::new();
    let (one, _one) = scene.serve("one", "a.example");
    scene.docker.add(one);
    let mut hapilot = scene.spawn(version, &[]);
    hapilot.converge();
    let pid = pid_at(&scene.dir().join("admin.sock")).unwrap();
    std::thread::scope(|scope| {
        let visitor = scope.spawn(|| scene.fetch("a.example", "/slow"));
        until("the request is in flight", || {
            type_at(&scene.dir().join("admin.sock"), "show sess").is_some_and(|all| all.contains("web:"))
        });
        hapilot.signal("TERM");
        assert_eq!(visitor.join().unwrap(), Some((200, "one".into())), "not cut");
    });
    assert_eq!(hapilot.ended().code(), Some(0));
    assert!(!is_alive(pid));
    assert_eq!(hapilot.said("nothing was cut"), 1);
    assert!(!scene.dir().join("hapilot.sock").exists());
    assert_eq!(scene.check().0, 4);
}

fn sigterm_leaves_another_haproxy_alone(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &[], |hapilot, _| {
        hapilot.signal("TERM");
        assert_eq!(hapilot.ended().code(), Some(0));
        assert_eq!(hapilot.said("HAProxy goes on serving"), 1);
        *hapilot = scene.attach(&[]);
        hapilot.converge();
    });
}

/// A program that says it is HAProxy 3.0 and ends at once.
fn broken_binary(scene: &Scene) -> std::path::PathBuf {
    let path = scene.root().join("broken");
    let text = "#!/bin/sh\ncase \"$1\" in -v) echo 'HAProxy version 3.0.11 2026/10/15';; -c) exit 0;; *) exit 3;; esac\n";
    fs::write(&path, text).unwrap();
    open_up(&path, "755");
    path
}

fn sigterm_while_haproxy_cannot_start(_version: &str) {
    let scene = Scene::new();
    let broken = broken_binary(&scene);
    let mut hapilot = scene.launch(scene.run_command(&["--haproxy", broken.to_str().unwrap()]));
    hapilot.until_said("can't be started");
    let begin = Instant::now();
    // Long enough for a long pause between two attempts.
    std::thread::sleep(Duration::from_secs(5));
    hapilot.assert_idle("HAProxy can't be started");
    assert_eq!(hapilot.said("can't be started"), 1, "{:?}", begin.elapsed());
    let begin = Instant::now();
    hapilot.signal("TERM");
    assert_eq!(hapilot.ended().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

fn a_taken_port(version: &str) {
    let scene = Scene::new();
    let taken = std::net::TcpListener::bind(scene.http).unwrap();
    let mut hapilot = scene.spawn(version, &[]);
    hapilot.until_said("can't be started");
    assert_eq!(scene.check().0, 3);
    drop(taken);
    hapilot.converge();
    assert_eq!(scene.visit("a.example").0, 404);
}

fn a_killed_hapilot_takes_its_haproxy_over(version: &str) {
    let scene = Scene::new();
    let (one, _one) = scene.serve("one", "a.example");
    let (two, _two) = scene.serve("two", "b.example");
    let id = scene.docker.add(one);
    let mut hapilot = scene.spawn(version, &[]);
    hapilot.converge();
    let socket = scene.dir().join("admin.sock");
    let pid = pid_at(&socket).unwrap();
    let streaming = Streaming::start(&scene, "a.example");
    hapilot.kill();
    std::mem::forget(hapilot);
    scene.docker.add(two);
    let mut hapilot = scene.spawn(version, &[]);
    hapilot.converge();
    assert_eq!(hapilot.said("took over"), 1);
    assert_eq!(pid_at(&socket), Some(pid));
    assert_eq!(scene.visit("b.example"), (200, "two".into()));
    assert_eq!(hosts_at(&socket).len(), 2);
    assert_eq!(servers_at(&socket).len(), 2);
    streaming.goes_on();
    scene.docker.die(&id);
    until("gone", || scene.visit("a.example").0 == 404);
    // Crashes of an adopted one are noticed, too.
    signal(pid, "KILL");
    until("back", || scene.visit("b.example").0 == 200);
    hapilot.converge();
    hapilot.signal("TERM");
    assert_eq!(hapilot.ended().code(), Some(0));
}

/// Containers of ten hosts that come and go; nobody listens in them, and each has an
/// address that one before it may have had.
struct Churn {
    seed: Seeded,
    addresses: Vec<SocketAddr>,
    /// Those that run: container, place of its address, paused.
    alive: Vec<(String, usize, bool)>,
    number: usize,
}

impl Churn {
    fn new(seed: u64) -> Self {
        let addresses = (0..30).map(|_| unused_address()).collect();
        Self { seed: Seeded(seed), addresses, alive: Vec::new(), number: 0 }
    }

    /// One thing happens to one of them.
    fn happens(&mut self, scene: &Scene) {
        let free: Vec<usize> = (0..self.addresses.len())
            .filter(|place| self.alive.iter().all(|(_, taken, _)| taken != place))
            .collect();
        let what = self.seed.below(10);
        if what < 4 && !free.is_empty() || self.alive.is_empty() {
            let place = free[self.seed.below(free.len())];
            let host = format!("h{}.example", self.seed.below(10));
            self.number += 1;
            let container = scene.container(&format!("c{}", self.number), &host, self.addresses[place]);
            self.alive.push((scene.docker.run(container), place, false));
            return;
        }
        let index = self.seed.below(self.alive.len());
        match what {
            0..=5 => scene.docker.stop(&self.alive.swap_remove(index).0),
            6 | 7 => scene.docker.die(&self.alive.swap_remove(index).0),
            8 => {
                let (id, _, paused) = &mut self.alive[index];
                *paused = !*paused;
                if *paused { scene.docker.pause(id) } else { scene.docker.unpause(id) }
            }
            _ => {
                self.number += 1;
                scene.docker.rename(&self.alive[index].0, &format!("c{}", self.number));
            }
        }
    }

    /// HAProxy has the addresses of those that run, each once, and no other in service.
    fn is_what_haproxy_has(&self, haproxy: &Haproxy) -> bool {
        let mut served: Vec<String> = haproxy
            .servers()
            .into_iter()
            .filter(|server| !server.contains("/stays-") && !server.ends_with(" maint"))
            .map(|server| server.split(' ').nth(1).unwrap().to_owned())
            .collect();
        served.sort();
        let running = self.alive.iter().filter(|(_, _, paused)| !paused);
        let mut wanted: Vec<String> =
            running.map(|(_, place, _)| self.addresses[*place].to_string()).collect();
        wanted.sort();
        served == wanted
    }
}

/// With the four versions of HAProxy: two hundred times, each at a random point of
/// what hapilot does after its start, while containers come and go all the time.
fn killed_fifty_times_during_churn(version: &str) {
    let scene = Scene::new();
    let mut moment = Seeded(version.bytes().map(u64::from).sum());
    with_one_served(&scene, version, &[], |hapilot, haproxy| {
        let mut churn = Churn::new(7);
        for _ in 0..50 {
            // From before it has read anything to some turns later.
            let lives = Duration::from_millis(5 + u64::try_from(moment.below(150)).unwrap());
            let born = Instant::now();
            while born.elapsed() < lives {
                churn.happens(&scene);
                thread::sleep(Duration::from_millis(2));
            }
            hapilot.kill();
            for _ in 0..moment.below(6) {
                churn.happens(&scene);
            }
            *hapilot = scene.attach(&[]);
        }
        hapilot.converge();
        until("all in place", || churn.is_what_haproxy_has(haproxy));
        let hosts = haproxy.hosts();
        for (id, _, _) in churn.alive {
            scene.docker.stop(&id);
        }
        until("nothing leaks", || haproxy.servers().len() == 1 && haproxy.hosts().len() == 1);
        assert!(hosts.len() > 1, "there was a churn");
    });
}

/// hapilot is stopped (SIGSTOP, a virtual machine that is moved); when it goes on, all
/// it has heard is old.
fn stopped_while_things_change(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &[], |hapilot, haproxy| {
        let mut churn = Churn::new(11);
        for _ in 0..40 {
            churn.happens(&scene);
        }
        hapilot.converge();
        hapilot.signal("STOP");
        for _ in 0..400 {
            churn.happens(&scene);
        }
        // Longer than the heartbeat and every deadline of a call.
        thread::sleep(Duration::from_secs(7));
        hapilot.signal("CONT");
        until("all in place", || churn.is_what_haproxy_has(haproxy));
        hapilot.converge();
    });
}
