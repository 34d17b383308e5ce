//! `hapilot run` as a process, between a fake Docker engine and real HAProxy:
//! whatever breaks, it converges by itself, and never by a reload.
//!
//! What lives here: what is done to it, and what must be so afterwards. What it
//! must not know: how it does that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/fake_docker/mod.rs"]
mod fake_docker;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use daemon::{
    Between, Hapilot, Haproxy, Scene, Streaming, fake_runtime_api, greeting, hosts_at, is_alive, peak_memory,
    pid_at, servers_at, signal, type_at, until, unused_address,
};
use fake_docker::{FakeContainer, Fault};

/// The body of a test may block: the fake engine has threads of its own.
macro_rules! on {
    ($module:ident, $version:literal: $($test:ident),+ $(,)?) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test($version); })+
        }
    };
}

macro_rules! on_every_version {
    ($($test:ident),+ $(,)?) => {
        on!(haproxy_2_6, "2.6": $($test),+);
        on!(haproxy_3_0, "3.0": $($test),+);
        on!(haproxy_3_2, "3.2": $($test),+);
        on!(haproxy_3_4, "3.4": $($test),+);
    };
}

on_every_version!(
    killed_in_the_middle_of_a_plan,
    the_connection_is_cut_in_the_middle_of_a_plan,
    haproxy_is_restarted_elsewhere,
    a_killed_haproxy_is_back_at_once_and_complete,
    a_hand_on_the_socket_is_undone_on_request_and_by_itself,
    what_is_gone_is_deleted,
);
on!(haproxy, "3.0":
    a_lost_event_is_made_up_for,
    a_silent_event_stream_is_made_up_for,
    the_engine_goes_away_and_comes_back,
    two_containers_of_one_name,
    a_container_that_dies_before_its_inspect,
    an_inspect_that_fails_concerns_one_container,
    bad_metadata_is_rejected_and_nothing_else,
    no_socket,
    a_socket_without_permission,
    a_socket_of_a_user,
    an_old_haproxy,
    a_foreign_haproxy,
    a_socket_that_says_nothing,
    a_socket_that_closes_after_the_greeting,
    a_haproxy_that_hangs,
    a_greeting_that_never_ends,
    a_reply_that_never_ends,
    a_full_pool,
    a_directory_that_cannot_be_written,
    a_full_disk,
    no_engine_at_the_start,
    the_old_configuration_serves_until_the_engine_answers,
    a_second_hapilot,
    sigterm_stops_its_own_haproxy_softly,
    sigterm_leaves_another_haproxy_alone,
    sigterm_while_haproxy_cannot_start,
    sigterm_between_two_starts,
    a_socket_that_closes_when_connected,
    a_taken_port,
    a_killed_hapilot_takes_its_haproxy_over,
);

/// A generator of numbers that differ from run to run of it, but not of the test.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Three hundred containers of thirty hosts; nobody listens in them.
fn crowd(scene: &Scene) -> Vec<String> {
    (0..300)
        .map(|n| {
            let host = format!("h{}.example", n % 30);
            scene.docker.add(scene.container(&format!("c{n}"), &host, unused_address()))
        })
        .collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ')
}

/// Of `web:a/x 127.0.0.1:1 maint` the first word.
fn names(servers: &[String]) -> BTreeSet<&str> {
    servers.iter().filter_map(|server| words(server).next()).collect()
}

fn killed_in_the_middle_of_a_plan(version: &str) {
    let mut bytes = 0;
    for seed in 0..=20 {
        let scene = Scene::new();
        let haproxy = scene.haproxy(version, &[]);
        let pid = haproxy.pid();
        let between = Between::start(scene.root().join("between.sock"), scene.socket());
        let ids = crowd(&scene);
        let mut first = scene.attach_to(&between.path, &["--log-level", "warn"]);
        if seed == 0 {
            // How long is the plan?
            first.converge();
            bytes = between.passed().len();
            assert_eq!(haproxy.servers().len(), 300);
            continue;
        }
        let after = 1 + Seeded(seed).below(bytes - 1);
        between.cut_after(after, Some(first.pid()));
        until("it was cut", || between.was_cut());
        first.ended();
        // What has reached HAProxy is carried out, or not: read it when it has settled.
        let (mut before, mut same) = (haproxy.servers(), 0);
        until("HAProxy has nothing left to do", || {
            let now = haproxy.servers();
            same = if now == before { same + 1 } else { 0 };
            before = now;
            same == 5
        });
        let hosts = haproxy.hosts();
        // Meanwhile some go, in half of the runs.
        let gone = if seed % 2 == 0 { 40 } else { 0 };
        for id in &ids[..gone] {
            scene.docker.vanish(id);
        }
        between.passed();
        between.uncut();
        let mut second = scene.attach_to(&between.path, &["--log-level", "warn"]);
        second.converge();
        let commands = between.commands();
        let had = names(&before);
        for command in &commands {
            let parts: Vec<&str> = words(command).collect();
            match parts[..] {
                ["add", "server", server, ..] => {
                    assert!(!had.contains(server), "seed {seed}: added again: {command}");
                }
                ["add", "map", _, host, ..] => {
                    let known = hosts.iter().any(|entry| words(entry).next() == Some(host));
                    assert!(!known, "seed {seed}: mapped again: {command}");
                }
                ["del" | "unpublish", ..]
                | ["set", "server", _, "state", "maint"]
                | ["set", "server", _, "addr", ..] => {
                    assert!(gone > 0, "seed {seed}: {command}");
                }
                _ => {}
            }
        }
        let added = commands.iter().filter(|command| command.starts_with("add server ")).count();
        assert!(added <= 300 - before.len(), "seed {seed}: {added} added to {}", before.len());
        until("all are in service, and only they", || {
            let servers = haproxy.servers();
            servers.iter().filter(|server| !server.ends_with("maint")).count() == 300 - gone
        });
        assert_eq!(pid_at(&scene.socket()), Some(pid));
        // A third one has nothing to do.
        if gone == 0 {
            second.kill();
            between.passed();
            scene.attach_to(&between.path, &[]).converge();
            assert_eq!(between.commands(), [""; 0], "seed {seed}");
        }
    }
}

fn the_connection_is_cut_in_the_middle_of_a_plan(version: &str) {
    for seed in 1..=5 {
        let scene = Scene::new();
        let haproxy = scene.haproxy(version, &[]);
        let between = Between::start(scene.root().join("between.sock"), scene.socket());
        let ids = crowd(&scene);
        between.cut_after(2_000 + Seeded(seed).below(30_000), None);
        let mut hapilot = scene.attach_to(&between.path, &["--log-level", "warn"]);
        until("it was cut", || between.was_cut());
        hapilot.converge();
        assert_eq!(haproxy.servers().len(), 300);
        // And while they go.
        between.cut_after(1_000 + Seeded(seed).below(5_000), None);
        for id in &ids {
            scene.docker.die(id);
        }
        until("it was cut", || between.was_cut());
        hapilot.converge();
        until("nobody is in service", || haproxy.servers().iter().all(|server| server.ends_with("maint")));
        assert_eq!(haproxy.hosts(), [""; 0]);
        assert!(hapilot.log().lines().count() < 40, "{}", hapilot.log());
    }
}

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
        fs::read_to_string(scene.dir().join("maps/hosts.map")).is_ok_and(|map| map.contains("c.example"))
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

fn a_hand_on_the_socket_is_undone_on_request_and_by_itself(version: &str) {
    let scene = Scene::new();
    let haproxy = scene.haproxy(version, &[]);
    let (one, _one) = scene.serve("one", "a.example");
    let id = scene.docker.add(one);
    for resync in ["1h", "1s"] {
        let mut hapilot = scene.attach(&["--resync", resync]);
        hapilot.converge();
        let streaming = Streaming::start(&scene, "a.example");
        let good = haproxy.servers().into_iter().find(|server| !server.ends_with("maint")).unwrap();
        let (backend, server) = words(&good).next().unwrap().split_once('/').unwrap();
        let map = scene.dir().join("maps/hosts.map");
        for line in [
            format!("add server {backend}/hand 127.0.0.1:9"),
            format!("set server {backend}/hand state ready"),
            format!("set server {backend}/{server} state maint"),
            format!("add map {} stranger.example {backend}", map.display()),
            format!("del map {} a.example", map.display()),
        ] {
            haproxy.type_in(&line);
        }
        assert_eq!(scene.visit("a.example").0, 404);
        if resync == "1h" {
            hapilot.signal("HUP");
        }
        until("mended", || scene.visit("a.example") == (200, "one".into()));
        // Whose stream goes on may stay out of service until it ends.
        until("mended", || {
            let servers = haproxy.servers();
            let ready: Vec<&String> = servers.iter().filter(|server| !server.ends_with("maint")).collect();
            let [only] = ready[..] else { return false };
            words(only).nth(1) == words(&good).nth(1) && haproxy.hosts().len() == 1
        });
        hapilot.converge();
        streaming.goes_on();
        hapilot.kill();
    }
    scene.docker.vanish(&id);
}

/// Also on 2.6, where that needs patience.
fn what_is_gone_is_deleted(version: &str) {
    let scene = Scene::new();
    let haproxy = scene.haproxy(version, &[]);
    let mut hapilot = scene.attach(&[]);
    let (one, _one) = scene.serve("one", "a.example");
    let (two, _two) = scene.serve("two", "a.example");
    scene.docker.run(one);
    hapilot.converge();
    let streaming = Streaming::start(&scene, "a.example");
    for round in 0..3 {
        let id = scene.docker.run(two.clone());
        until("two replicas", || haproxy.servers().len() >= 2);
        until("the second serves", || scene.visit("a.example").1 == "two");
        scene.docker.stop(&id);
        scene.docker.destroy(&id);
        until("out of service", || {
            haproxy.servers().iter().filter(|server| !server.ends_with("maint")).count() == 1
        });
        assert_eq!(scene.visit("a.example"), (200, "one".into()), "round {round}");
    }
    until("deleted", || haproxy.servers().len() == 1);
    assert_eq!(hapilot.status()["waiting"].as_array().unwrap().len(), 0);
    hapilot.assert_idle("nothing happens");
    streaming.goes_on();
}

/// An attached hapilot with a host `stays.example` that must be served throughout.
fn with_one_served(scene: &Scene, version: &str, more: &[&str], test: impl FnOnce(&mut Hapilot, &Haproxy)) {
    let haproxy = scene.haproxy(version, more);
    let mut hapilot = scene.attach(more);
    let (stays, _server) = scene.serve("stays", "stays.example");
    scene.docker.run(stays);
    until("served", || scene.visit("stays.example").0 == 200);
    let streaming = Streaming::start(scene, "stays.example");
    test(&mut hapilot, &haproxy);
    assert_eq!(scene.visit("stays.example"), (200, "stays".into()));
    streaming.goes_on();
    assert!(hapilot.is_running());
    assert_eq!(pid_at(&scene.socket()), Some(haproxy.pid()));
}

fn a_lost_event_is_made_up_for(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &["--resync", "1s"], |hapilot, _| {
        let (other, _server) = scene.serve("other", "other.example");
        let id = scene.docker.add(other);
        until("served", || scene.visit("other.example").0 == 200);
        scene.docker.vanish(&id);
        until("gone", || scene.visit("other.example").0 == 404);
        hapilot.converge();
    });
}

fn a_silent_event_stream_is_made_up_for(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &["--resync", "1s"], |hapilot, _| {
        hapilot.converge();
        scene.docker.stall_events();
        let (other, _server) = scene.serve("other", "other.example");
        scene.docker.run(other);
        until("served", || scene.visit("other.example").0 == 200);
        until("a new stream", || scene.docker.listeners() == 1);
        hapilot.converge();
    });
}

fn the_engine_goes_away_and_comes_back(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &[], |hapilot, _| {
        let (goes, _goes) = scene.serve("goes", "goes.example");
        let (comes, _comes) = scene.serve("comes", "comes.example");
        let id = scene.docker.run(goes);
        until("served", || scene.visit("goes.example").0 == 200);
        hapilot.converge();
        scene.docker.stop_listening();
        until("not well", || scene.check().0 == 5);
        let status = hapilot.status();
        assert_eq!(status["converged"], false);
        assert_eq!(status["docker"]["connected"], false);
        assert!(status["docker"]["error"].is_string(), "{status:#}");
        scene.docker.vanish(&id);
        scene.docker.add(comes);
        assert_eq!(scene.visit("goes.example").0, 200, "nothing is known to have changed");
        hapilot.assert_idle("the engine is away");
        scene.docker.listen();
        until("gone", || scene.visit("goes.example").0 == 404);
        until("served", || scene.visit("comes.example").0 == 200);
        hapilot.converge();
        assert!(hapilot.said("not connected to Docker") == 1, "said once");
    });
}

fn two_containers_of_one_name(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &[], |hapilot, haproxy| {
        let (one, _one) = scene.serve("twin", "twin.example");
        let (two, _two) = scene.serve("twin", "twin.example");
        let first = scene.docker.run(one);
        scene.docker.run(two);
        until("both serve", || {
            haproxy.servers().iter().filter(|server| server.contains("/twin-")).count() == 2
        });
        scene.docker.stop(&first);
        hapilot.converge();
        for _ in 0..4 {
            assert_eq!(scene.visit("twin.example").0, 200);
        }
    });
}

fn a_container_that_dies_before_its_inspect(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &[], |hapilot, haproxy| {
        hapilot.converge();
        let before = haproxy.servers();
        for n in 0..50 {
            let dies = scene.container(&format!("dies{n}"), "dies.example", unused_address());
            let id = scene.docker.add(dies);
            // `start` is told, and when it is looked at it is dead or gone.
            if n % 2 == 0 {
                scene.docker.change(&id, |container| container.status = "exited".into());
                scene.docker.container_event(&id, "start");
            } else {
                scene.docker.container_event(&id, "start");
                scene.docker.vanish(&id);
            }
        }
        hapilot.converge();
        until("nothing is left", || haproxy.servers() == before);
        assert_eq!(hapilot.status()["rejected"].as_array().unwrap().len(), 0);
    });
}

fn an_inspect_that_fails_concerns_one_container(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &["--resync", "1s"], |hapilot, _| {
        for fault in [Fault::Status(404), Fault::Status(500), Fault::Garbage, Fault::Empty, Fault::Hang] {
            let (bad, _bad) = scene.serve("bad", "bad.example");
            let (good, _good) = scene.serve("good", "good.example");
            let bad = scene.docker.add(bad);
            scene.docker.fail_inspect(&bad, fault);
            scene.docker.container_event(&bad, "start");
            let good = scene.docker.run(good);
            until("the other is served", || scene.visit("good.example").0 == 200);
            if fault != Fault::Status(404) {
                until("it is in the status", || {
                    hapilot.status()["rejected"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|rejected| rejected["container"] == bad[..12] && rejected["key"] == "inspect")
                });
                assert_ne!(scene.check().0, 0, "{fault:?}");
                hapilot.assert_idle("a container can't be inspected");
                let said =
                    hapilot.log().lines().filter(|l| l.contains(&bad[..12]) && l.contains("WARN")).count();
                assert!(said <= 1, "{fault:?}: said {said} times");
            }
            assert_eq!(scene.visit("bad.example").0, 404);
            scene.docker.fail_inspect(&bad, None);
            scene.docker.container_event(&bad, "start");
            until("it is served", || scene.visit("bad.example").0 == 200);
            for id in [bad, good] {
                scene.docker.stop(&id);
                scene.docker.destroy(&id);
            }
            hapilot.converge();
            assert_eq!(hapilot.status()["rejected"].as_array().unwrap().len(), 0);
        }
    });
}

fn bad_metadata_is_rejected_and_nothing_else(version: &str) {
    let long = format!("{}.example", "x".repeat(300));
    let cases: Vec<(&str, &str, &str)> = vec![
        ("VIRTUAL_HOST", "evil host.example", "80"),
        ("VIRTUAL_HOST", "evil.example;shutdown sessions server a/b", "80"),
        ("VIRTUAL_HOST", "evil.example\ndel map x", "80"),
        ("VIRTUAL_HOST", "evil.example\0x", "80"),
        ("VIRTUAL_HOST", "evil'\"\\.example", "80"),
        ("VIRTUAL_HOST", "evil\u{202e}bücher.example", "80"),
        ("VIRTUAL_HOST", &long, "80"),
        ("VIRTUAL_HOST", "", "80"),
        ("VIRTUAL_HOST", "evil\u{1b}[31m.example", "80"),
        ("hapilot.host", "evil<<.example", "80"),
        ("hapilot.host", "evil\r\n>.example", "80"),
        ("VIRTUAL_PORT", "evil-port.example", "0"),
        ("VIRTUAL_PORT", "evil-port.example", "70000"),
        ("VIRTUAL_PORT", "evil-port.example", "abc"),
        ("VIRTUAL_PORT", "evil-port.example", "80\nevil"),
        ("hapilot.network", "evil-net.example", "80"),
    ];
    let scene = Scene::new();
    with_one_served(&scene, version, &["--resync", "1s"], |hapilot, haproxy| {
        for (n, (key, value, port)) in cases.iter().enumerate() {
            let address = unused_address();
            let bad = FakeContainer::new(format!("bad{n}"))
                .env("VIRTUAL_PORT", port)
                .network("bridge", &address.ip().to_string());
            let bad = match *key {
                "hapilot.host" => bad.label("hapilot.host", value),
                "hapilot.network" => bad.env("VIRTUAL_HOST", value).label("hapilot.network", "ev\u{7}il"),
                _ => bad.env("VIRTUAL_HOST", value),
            };
            scene.docker.run(bad);
        }
        // Rejections don't keep it from being converged.
        until("all are rejected", || {
            let status = hapilot.status();
            let rejected = status["rejected"].as_array().unwrap();
            cases.iter().enumerate().all(|(n, (key, ..))| {
                let name = format!("bad{n}");
                // An empty variable may count as none: then nothing is asked for.
                cases[n].1.is_empty()
                    || rejected.iter().any(|r| {
                        r["container"] == name.as_str()
                            && r["key"] == *key
                            && !r["reason"].as_str().unwrap().is_empty()
                    })
            })
        });
        hapilot.converge();
        // Several resyncs later nothing was said again.
        let resyncs = |scene: &Scene| scene.docker.calls().list;
        let now = resyncs(&scene);
        until("resyncs", || resyncs(&scene) > now + 2);
        let text = hapilot.log();
        for (n, (_, value, _)) in cases.iter().enumerate() {
            let said = text
                .lines()
                .filter(|line| {
                    line.contains(&format!("container=\"bad{n}\""))
                        || line.contains(&format!("container=bad{n} "))
                })
                .count();
            assert!(said <= 1 && (said == 1 || value.is_empty()), "bad{n} {said} times in\n{text}");
        }
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "raw control characters in the log");
        // Not a trace of them in HAProxy nor in its files.
        hapilot.signal("HUP");
        let mut all = haproxy.hosts();
        all.extend(haproxy.servers());
        assert!(!all.iter().any(|line| line.contains("evil") || line.contains("bad")), "{all:?}");
        assert!(!all.iter().any(|line| line.contains("xxx")));
        until("the files are written", || {
            fs::read_to_string(scene.dir().join("maps/hosts.map")).is_ok_and(|map| map.contains("stays"))
        });
        for file in ["haproxy.cfg", "maps/hosts.map", "maps/checks.map", "maps/names.map"] {
            let text = fs::read_to_string(scene.dir().join(file)).unwrap();
            assert!(!text.contains("evil") && !text.contains("bad0"), "{file}");
        }
    });
}

/// HAProxy can't be used: it is said once, `check` fails, and nothing is busy.
fn assert_says(scene: &Scene, hapilot: &mut Hapilot, state: &str, error: &str) {
    hapilot.until_said(error);
    until("the status says why", || {
        let status = hapilot.status();
        let why = [&status["haproxy"]["error"], &status["error"]];
        status["converged"] == false
            && why.iter().any(|why| why.as_str().is_some_and(|why| why.contains(error)))
    });
    assert!(matches!(scene.check().0, 1 | 3), "{state}: {:?}", scene.check());
    hapilot.assert_idle(state);
    assert!(hapilot.is_running());
    let said = hapilot.said(error);
    assert!(said <= 2, "{state}: said {said} times:\n{}", hapilot.log());
}

fn no_socket(version: &str) {
    let scene = Scene::new();
    let mut hapilot = scene.attach(&[]);
    assert_says(&scene, &mut hapilot, "no socket", "is the path right");
    let _haproxy = scene.haproxy(version, &[]);
    hapilot.converge();
}

fn open_up(path: &Path, mode: &str) {
    assert!(Command::new("chmod").arg(mode).arg(path).status().unwrap().success());
}

fn a_socket_without_permission(version: &str) {
    let scene = Scene::new();
    let _haproxy = scene.haproxy(version, &[]);
    open_up(scene.root(), "755");
    open_up(&scene.dir(), "777");
    open_up(&scene.dir().join("maps"), "777");
    open_up(&scene.dir().join("maps/hosts.map"), "666");
    open_up(&scene.dir().join("maps/names.map"), "666");
    open_up(scene.docker.path(), "777");
    open_up(&scene.socket(), "600");
    let run = scene.run_command(&["--runtime-api", scene.socket().to_str().unwrap()]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(run.get_program());
    command.args(run.get_args());
    let mut hapilot = scene.launch(command);
    assert_says(&scene, &mut hapilot, "no permission", "hapilot's user may not open the socket");
    open_up(&scene.socket(), "666");
    hapilot.converge();
}

fn a_socket_of_a_user(version: &str) {
    let scene = Scene::new();
    let _haproxy = foreign(&scene, version, "level user");
    let mut hapilot = scene.attach(&[]);
    assert_says(&scene, &mut hapilot, "not admin", "level admin");
}

/// A real HAProxy with a configuration that hapilot did not make.
fn foreign(scene: &Scene, version: &str, level: &str) -> Haproxy {
    let config = scene.root().join("foreign.cfg");
    let socket = scene.socket();
    let text = format!(
        "global\n  stats socket {} {level}\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  \
         timeout server 1s\nfrontend f\n  bind {}\n",
        socket.display(),
        scene.http
    );
    fs::write(&config, text).unwrap();
    Haproxy::start(version, &config, &socket)
}

fn an_old_haproxy(_version: &str) {
    let scene = Scene::new();
    fake_runtime_api(&scene.socket(), |line, stream| {
        let answer = if line == "show version" { "2.4.0-1\n\n> " } else { greeting(line).unwrap() };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let mut hapilot = scene.attach(&[]);
    assert_says(&scene, &mut hapilot, "too old", "HAProxy 2.4.0");
    assert_eq!(hapilot.said("2.6.0 or later"), 1);
}

fn a_foreign_haproxy(version: &str) {
    let scene = Scene::new();
    let mut haproxy = foreign(&scene, version, "level admin");
    let mut hapilot = scene.attach(&[]);
    assert_says(&scene, &mut hapilot, "foreign configuration", "hosts.map");
    assert!(hapilot.log().contains("hapilot render"), "what to do");
    haproxy.restart(&scene.dir().join("haproxy.cfg"));
    hapilot.converge();
}

fn a_socket_that_says_nothing(_version: &str) {
    let scene = Scene::new();
    fake_runtime_api(&scene.socket(), |_, _| true);
    let mut hapilot = scene.attach(&[]);
    // While it waits, it answers.
    for _ in 0..20 {
        until("the first answer", || hapilot.log().contains("connected to Docker"));
        hapilot.status();
    }
    assert_says(&scene, &mut hapilot, "mute", "says nothing");
    hapilot.signal("TERM");
    let begin = Instant::now();
    assert_eq!(hapilot.ended().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(3), "it ends while it waits for HAProxy");
}

fn a_socket_that_closes_after_the_greeting(_version: &str) {
    let scene = Scene::new();
    let connections = fake_runtime_api(&scene.socket(), |line, stream| {
        line == "prompt" && stream.write_all(greeting(line).unwrap().as_bytes()).is_ok()
    });
    let mut hapilot = scene.attach(&[]);
    until("it tries again", || connections.load(Ordering::Relaxed) > 3);
    hapilot.assert_idle("HAProxy closes");
    let before = connections.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(2));
    let tries = connections.load(Ordering::Relaxed) - before;
    assert!(tries <= 5, "{tries} connections in two seconds");
}

/// As before, but the connection stood; and nobody asks anything over it, because
/// there is no engine.
fn a_socket_that_closes_when_connected(_version: &str) {
    let scene = Scene::without_docker();
    let connections = fake_runtime_api(&scene.socket(), |line, stream| {
        let answered = greeting(line).is_some_and(|answer| stream.write_all(answer.as_bytes()).is_ok());
        answered && line != "show info"
    });
    let mut hapilot = scene.attach(&[]);
    until("it tries again", || connections.load(Ordering::Relaxed) > 3);
    hapilot.assert_idle("HAProxy closes");
}

fn a_haproxy_that_hangs(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &[], |hapilot, haproxy| {
        hapilot.converge();
        signal(haproxy.pid(), "STOP");
        until("noticed", || scene.check().0 == 3);
        assert!(hapilot.status()["haproxy"]["error"].is_string());
        hapilot.assert_idle("HAProxy hangs");
        let (other, _server) = scene.serve("other", "other.example");
        scene.docker.run(other);
        signal(haproxy.pid(), "CONT");
        until("served", || scene.visit("other.example").0 == 200);
        hapilot.converge();
    });
}

fn flood(stream: &mut std::os::unix::net::UnixStream) -> bool {
    while stream.write_all(&[b'x'; 16_000]).is_ok() {}
    false
}

fn a_greeting_that_never_ends(_version: &str) {
    let scene = Scene::new();
    fake_runtime_api(&scene.socket(), |_, stream| flood(stream));
    let mut hapilot = scene.attach(&[]);
    until("it listens", || scene.check().0 != 4);
    until("it gives up", || hapilot.status()["haproxy"]["error"].is_string());
    let peak = peak_memory(hapilot.pid());
    assert!(peak < 250_000, "{peak} KiB");
    assert!(hapilot.is_running());
}

fn a_reply_that_never_ends(_version: &str) {
    let scene = Scene::new();
    fake_runtime_api(&scene.socket(), |line, stream| match greeting(line) {
        Some(answer) => stream.write_all(answer.as_bytes()).is_ok(),
        None => flood(stream),
    });
    let mut hapilot = scene.attach(&[]);
    hapilot.until_said("reply of more than");
    until("the status says so", || {
        hapilot.status()["error"].as_str().is_some_and(|error| error.contains("reply of more than"))
    });
    let peak = peak_memory(hapilot.pid());
    assert!(peak < 250_000, "{peak} KiB");
    assert!(hapilot.is_running());
}

fn a_full_pool(version: &str) {
    let scene = Scene::new();
    let more = ["--pool-size", "2"];
    with_one_served(&scene, version, &more, |hapilot, _| {
        let (second, _second) = scene.serve("second", "second.example");
        let (third, _third) = scene.serve("third", "third.example");
        let second = scene.docker.run(second);
        until("served", || scene.visit("second.example").0 == 200);
        scene.docker.run(third);
        until("blocked", || hapilot.status()["blocked"].as_array().unwrap().len() == 1);
        let blocked = hapilot.status()["blocked"][0].clone();
        assert_eq!(blocked["what"], "third.example");
        assert!(blocked["reason"].as_str().unwrap().contains("--pool-size"), "{blocked}");
        assert_eq!(scene.visit("second.example").0, 200);
        assert_eq!(scene.visit("third.example").0, 404);
        hapilot.assert_idle("the pool is full");
        assert_eq!(hapilot.said("third.example"), 1, "said once");
        scene.docker.stop(&second);
        until("served", || scene.visit("third.example").0 == 200);
        until("not blocked", || hapilot.status()["blocked"].as_array().unwrap().is_empty());
        hapilot.converge();
    });
}

fn a_directory_that_cannot_be_written(version: &str) {
    let scene = Scene::new();
    let (one, _one) = scene.serve("one", "a.example");
    scene.docker.add(one);
    let mut hapilot = scene.spawn(version, &[]);
    hapilot.converge();
    hapilot.signal("TERM");
    hapilot.ended();
    let files = || ["haproxy.cfg", "maps/hosts.map"].map(|name| fs::read(scene.dir().join(name)).unwrap());
    let before = files();
    let run = scene.run_command(&["--haproxy", daemon::binary(version).to_str().unwrap()]);
    let mut command = Command::new("unshare");
    command.args([
        "-m",
        "sh",
        "-c",
        "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"",
    ]);
    command.arg(scene.dir()).arg(run.get_program()).args(run.get_args());
    let mut refused = scene.launch(command);
    assert_eq!(refused.ended().code(), Some(1));
    let log = refused.log();
    assert!(log.contains("--dir") && log.contains("Read-only"), "{log}");
    assert_eq!(files(), before, "the old configuration is whole");
}

fn a_full_disk(version: &str) {
    let scene = Scene::new();
    let (one, _one) = scene.serve("one", "a.example");
    scene.docker.add(one);
    // A small disk of its own, full but for what lies there already; what is
    // asked of it then is more than before.
    let run =
        scene.run_command(&["--haproxy", daemon::binary(version).to_str().unwrap(), "--pool-size", "3000"]);
    let small = scene.spawn(version, &[]);
    let mut small = small;
    small.converge();
    small.signal("TERM");
    small.ended();
    let mut command = Command::new("unshare");
    let script = "cp -a \"$0\" \"$0.old\" && mount -t tmpfs -o size=32k tmpfs \"$0\" && cp -a \"$0.old/.\" \"$0\" && \
                  exec \"$@\"";
    command.args(["-m", "sh", "-c", script]).arg(scene.dir()).arg(run.get_program()).args(run.get_args());
    let mut hapilot = scene.launch(command);
    hapilot.until_said("the old configuration is kept");
    assert!(hapilot.log().contains("No space left"), "{}", hapilot.log());
    hapilot.until_said("can't be started");
    assert!(hapilot.is_running());
    // Seen from inside.
    let inside = format!("/proc/{}/root{}", hapilot.pid(), scene.dir().display());
    let old = fs::read(format!("{}.old/haproxy.cfg", scene.dir().display())).unwrap();
    assert_eq!(fs::read(format!("{inside}/haproxy.cfg")).unwrap(), old, "the old configuration is whole");
}

fn sigterm_between_two_starts(version: &str) {
    let scene = Scene::new();
    let path = scene.root().join("haproxy");
    let real = daemon::binary(version);
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

fn no_engine_at_the_start(version: &str) {
    let scene = Scene::without_docker();
    let mut hapilot = scene.spawn(version, &[]);
    hapilot.until_said("not connected to Docker");
    until("HAProxy runs all the same", || scene.visit("a.example").0 == 404);
    hapilot.assert_idle("no engine");
    assert_eq!(hapilot.said("not connected to Docker"), 1);
    assert_eq!(scene.check().0, 5, "{:?}", scene.check());
    assert_eq!(hapilot.status()["converged"], false);
    let (one, _one) = scene.serve("one", "a.example");
    scene.docker.add(one);
    scene.docker.listen();
    until("served", || scene.visit("a.example").0 == 200);
    hapilot.converge();
}

fn the_old_configuration_serves_until_the_engine_answers(version: &str) {
    let scene = Scene::new();
    let (one, _one) = scene.serve("one", "a.example");
    let id = scene.docker.add(one);
    let mut hapilot = scene.spawn(version, &[]);
    hapilot.converge();
    hapilot.signal("TERM");
    hapilot.ended();
    scene.docker.stop_listening();
    let mut hapilot = scene.spawn(version, &[]);
    until("served as before", || scene.visit("a.example") == (200, "one".into()));
    hapilot.until_said("what is on disk from last time");
    let pid = pid_at(&scene.dir().join("admin.sock")).unwrap();
    scene.docker.vanish(&id);
    scene.docker.listen();
    until("gone", || scene.visit("a.example").0 == 404);
    hapilot.converge();
    assert_eq!(pid_at(&scene.dir().join("admin.sock")), Some(pid));
}

fn a_second_hapilot(version: &str) {
    let scene = Scene::new();
    let mut first = scene.spawn(version, &[]);
    first.converge();
    let pid = pid_at(&scene.dir().join("admin.sock")).unwrap();
    let second =
        scene.run_command(&["--haproxy", daemon::binary(version).to_str().unwrap()]).output().unwrap();
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
