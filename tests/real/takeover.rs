//! A hapilot that has just started beside an HAProxy that serves: what it does
//! not know yet costs nobody anything, and is not told as if it were known.
//!
//! What lives here: the first moments. What it must not know: how faults in the
//! middle of work are mended (`daemon`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/fake_docker/mod.rs"]
mod fake_docker;

use std::fs;

use daemon::{Hapilot, Haproxy, Scene, Server, until};
use fake_docker::Fault;

macro_rules! on {
    ($module:ident, $version:literal: $($test:ident),+ $(,)?) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test($version); })+
        }
    };
}

on!(haproxy_2_6, "2.6": a_container_that_cannot_be_read_keeps_its_servers, the_files_stay_complete);
on!(haproxy_3_4, "3.4":
    a_container_that_cannot_be_read_keeps_its_servers,
    the_files_stay_complete,
    before_the_first_list_nothing_is_said_to_leave,
    a_status_that_shows_drift_is_not_converged,
);

/// `a.example` is served, its container's id is known; hapilot has converged.
fn one_served(scene: &Scene, version: &str) -> (Haproxy, Hapilot, String, Server) {
    let haproxy = scene.haproxy(version, &[]);
    let (one, server) = scene.serve("one", "a.example");
    let id = scene.docker.add(one);
    let mut hapilot = scene.attach(&[]);
    hapilot.converge();
    assert_eq!(scene.visit("a.example"), (200, "one".into()));
    (haproxy, hapilot, id, server)
}

fn a_container_that_cannot_be_read_keeps_its_servers(version: &str) {
    let scene = Scene::new();
    let (haproxy, mut hapilot, id, _one) = one_served(&scene, version);
    let (servers, hosts) = (haproxy.servers(), haproxy.hosts());
    hapilot.kill();
    scene.docker.fail_inspect(&id, Fault::Status(500));
    let mut hapilot = scene.attach(&[]);
    let (two, _two) = scene.serve("two", "b.example");
    let two = scene.docker.run(two);
    until("the other is served", || scene.visit("b.example") == (200, "two".into()));
    assert_eq!(scene.visit("a.example"), (200, "one".into()));
    assert_ne!(scene.check().0, 0, "what can't be read is told");
    scene.docker.stop(&two);
    until("only what can't be read is left", || haproxy.hosts() == hosts);
    let in_service = || haproxy.servers().into_iter().filter(|server| !server.ends_with(" maint"));
    assert!(in_service().eq(servers.iter().cloned()), "as it was");
    scene.docker.fail_inspect(&id, None);
    hapilot.converge();
    assert!(in_service().eq(servers), "as it was");
    // Known by now: it goes as any other does.
    scene.docker.stop(&id);
    until("gone", || haproxy.hosts().is_empty());
}

fn the_files_stay_complete(version: &str) {
    let scene = Scene::new();
    let (_haproxy, mut hapilot, _, _one) = one_served(&scene, version);
    let files = || ["haproxy.cfg", "maps/hosts.map"].map(|name| fs::read_to_string(scene.dir().join(name)));
    let complete = || {
        let [config, hosts] = files().map(Result::unwrap_or_default);
        config.contains("server one-") && hosts.contains("a.example")
    };
    until("the files follow", complete);
    hapilot.kill();
    scene.docker.stop_listening();
    let mut hapilot = scene.attach(&[]);
    hapilot.until_said("connected to HAProxy");
    scene.docker.listen();
    hapilot.converge();
    assert!(complete(), "{:?}", files());
}

fn before_the_first_list_nothing_is_said_to_leave(version: &str) {
    let scene = Scene::new();
    let (_haproxy, mut hapilot, _, _one) = one_served(&scene, version);
    hapilot.kill();
    scene.docker.stop_listening();
    let mut hapilot = scene.attach(&[]);
    hapilot.until_said("connected to HAProxy");
    let status = hapilot.status();
    assert_eq!(status["converged"], false);
    assert_eq!(status["hosts"][0]["host"], "a.example", "what HAProxy has: {status}");
    assert_eq!(status["waiting"].as_array().unwrap().len(), 0, "{status}");
}

fn a_status_that_shows_drift_is_not_converged(version: &str) {
    let scene = Scene::new();
    let (haproxy, mut hapilot, _, _one) = one_served(&scene, version);
    let server = haproxy.servers()[0].split(' ').next().unwrap().to_owned();
    haproxy.type_in(&format!("set server {server} state maint"));
    until("the status sees it", || {
        let status = hapilot.status();
        let seen = status["hosts"][0]["servers"][0]["state"] == "maint";
        assert!(!seen || status["converged"] == false, "{status}");
        seen
    });
    hapilot.converge();
    until("up again", || hapilot.status()["hosts"][0]["servers"][0]["state"] == "up");
}
