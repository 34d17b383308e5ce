//! What becomes of a plan: cut, killed half way, undone by a hand, finished.
//!
//! What lives here: HAProxy's state afterwards. What it must not know: how its
//! process or hapilot's is started and ended (`life`).

use std::collections::BTreeSet;

use super::Seeded;
use crate::daemon::{Between, Scene, Streaming, pid_at, until, unused_address};

on!(haproxy, "3.4": a_backend_that_is_not_published_is_published);
on_every_version!(
    killed_in_the_middle_of_a_plan,
    the_connection_is_cut_in_the_middle_of_a_plan,
    a_hand_on_the_socket_is_undone_on_request_and_by_itself,
    what_is_gone_is_deleted,
);

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

/// A plan was cut off between `add backend` and `publish backend`, with the host in the
/// map already; and a hand does the same later.
fn a_backend_that_is_not_published_is_published(version: &str) {
    let scene = Scene::new();
    let haproxy = scene.haproxy(version, &[]);
    let (one, _one) = scene.serve("one", "a.example");
    scene.docker.add(one);
    haproxy.type_in("add backend web:a.example from web");
    let map = scene.dir().join("maps/hosts.map");
    haproxy.type_in(&format!("add map {} a.example web:a.example", map.display()));
    let mut hapilot = scene.attach(&["--resync", "1s"]);
    hapilot.converge();
    assert_eq!(scene.visit("a.example"), (200, "one".into()));
    assert_eq!(haproxy.hosts(), ["a.example web:a.example"], "once");
    haproxy.type_in("unpublish backend web:a.example");
    until("published again", || scene.visit("a.example") == (200, "one".into()));
    hapilot.converge();
    assert_eq!(haproxy.hosts(), ["a.example web:a.example"], "once");
}
