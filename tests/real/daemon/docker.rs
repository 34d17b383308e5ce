//! A Docker engine that lies, loses, hangs or goes away, and containers that claim
//! what can't be served.
//!
//! What lives here: what visitors and the status notice of it. What it must not
//! know: how the engine's answers are read (`flow/docker`).

use std::fs;
use std::time::{Duration, Instant};

use super::with_one_served;
use crate::daemon::{Scene, pid_at, until, unused_address};
use crate::fake_docker::{FakeContainer, Fault};

on!(haproxy, "3.0":
    sighup_asks_docker_too,
    an_unread_container_dies,
    five_hundred_events_in_a_second,
    a_lost_event_is_made_up_for,
    a_silent_event_stream_is_made_up_for,
    the_engine_goes_away_and_comes_back,
    two_containers_of_one_name,
    a_container_that_dies_before_its_inspect,
    an_inspect_that_fails_concerns_one_container,
    bad_metadata_is_rejected_and_nothing_else,
    no_engine_at_the_start,
    the_old_configuration_serves_until_the_engine_answers,
);

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
                // On a busy machine it may have been read by now.
                scene.docker.die(&id);
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

fn sighup_asks_docker_too(version: &str) {
    let scene = Scene::new();
    // The next resync by itself is an hour away.
    with_one_served(&scene, version, &["--resync", "1h"], |hapilot, _| {
        let (other, _server) = scene.serve("other", "other.example");
        let id = scene.docker.run(other);
        until("served", || scene.visit("other.example").0 == 200);
        scene.docker.vanish(&id);
        hapilot.signal("HUP");
        until("gone", || scene.visit("other.example").0 == 404);
        hapilot.converge();
    });
}

/// Its inspect fails since before hapilot began, so nothing is known of it but that
/// it runs; then the engine says that it died, and goes on failing.
fn an_unread_container_dies(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &[], |hapilot, _| {
        let (other, _server) = scene.serve("other", "other.example");
        let id = scene.docker.run(other);
        until("served", || scene.visit("other.example").0 == 200);
        hapilot.kill();
        scene.docker.fail_inspect(&id, Fault::Status(500));
        *hapilot = scene.attach(&[]);
        hapilot.until_said("the engine does not tell about a container");
        let stays = || scene.visit("other.example") == (200, "other".into());
        until("read by hapilot", || scene.check().0 == 5);
        assert!(stays(), "what an earlier hapilot made for it stays");
        scene.docker.die(&id);
        until("gone", || scene.visit("other.example").0 == 404);
        scene.docker.fail_inspect(&id, None);
        hapilot.converge();
    });
}

/// More than a hapilot that acted on each alone would be done with in time.
fn five_hundred_events_in_a_second(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &["--pool-size", "100"], |hapilot, haproxy| {
        hapilot.converge();
        let before = scene.docker.calls();
        let mut alive = Vec::new();
        // 250 begin, every second one ends again, half of the rest changes its name.
        for n in 0..250 {
            let host = format!("h{}.example", n % 50);
            alive.push(scene.docker.run(scene.container(&format!("c{n}"), &host, unused_address())));
            if n % 2 == 1 {
                scene.docker.stop(&alive.pop().unwrap());
            } else if n % 4 == 0 {
                scene.docker.rename(alive.last().unwrap(), &format!("renamed{n}"));
            }
            // Evenly over most of a second.
            std::thread::sleep(Duration::from_millis(3));
        }
        let done = Instant::now();
        hapilot.converge();
        let lag = done.elapsed();
        assert!(lag < Duration::from_secs(10), "{lag:?} behind");
        until("what ended is deleted", || haproxy.servers().len() == alive.len() + 1);
        let inspects = scene.docker.calls().inspect - before.inspect;
        assert!(inspects <= 900, "{inspects} inspects for some 930 events about 250 containers");
        assert_eq!(scene.docker.calls().list, before.list, "and never a list");
        // h0, h2, … of the containers with an even number, and stays.example.
        assert_eq!(haproxy.hosts().len(), 25 + 1);
    });
}
