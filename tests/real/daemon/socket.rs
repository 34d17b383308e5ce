//! Sockets that aren't what they should be, and an HAProxy that can't or won't do
//! what it is asked.
//!
//! What lives here: that hapilot says so, costs nothing, and goes on when it can.
//! What it must not know: framing (`flow/runtime_api_faults.rs`).

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{open_up, with_one_served};
use crate::daemon::{
    Between, Hapilot, Haproxy, Scene, Streaming, fake_runtime_api, greeting, peak_memory, pid_at, signal,
    until,
};

on_every_version!(the_places_of_the_socket_are_taken, the_places_are_taken_when_hapilot_starts);
on!(haproxy, "3.0":
    nobody_waits_for_a_haproxy_that_hangs,
    a_socket_that_trickles,
    a_larger_pool,
    no_socket,
    a_socket_without_permission,
    a_socket_of_a_user,
    an_old_haproxy,
    a_foreign_haproxy,
    a_socket_that_says_nothing,
    a_socket_that_closes_after_the_greeting,
    a_socket_that_closes_when_connected,
    a_haproxy_that_hangs,
    a_greeting_that_never_ends,
    a_reply_that_never_ends,
    a_full_pool,
);

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

/// In the instant that HAProxy hangs Docker has news, which go nowhere; who asks is
/// told what is known, and the end is obeyed.
fn nobody_waits_for_a_haproxy_that_hangs(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &[], |hapilot, haproxy| {
        hapilot.converge();
        signal(haproxy.pid(), "STOP");
        let (other, _server) = scene.serve("other", "other.example");
        scene.docker.run(other);
        let began = Instant::now();
        let mut slowest = Duration::ZERO;
        let mut codes = Vec::new();
        // Over the connection's own deadline, and one attempt to connect anew.
        while began.elapsed() < Duration::from_secs(7) {
            let asked = Instant::now();
            codes.push(scene.check().0);
            slowest = slowest.max(asked.elapsed());
            hapilot.status();
        }
        assert!(!codes.contains(&4), "hapilot answers all the time: {codes:?}");
        assert!(codes[1..].iter().all(|code| *code != 0), "and never says that it is well: {codes:?}");
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
        // The files have what HAProxy could not be told.
        until("the files are up to date", || {
            fs::read_to_string(scene.dir().join("maps/hosts.map")).is_ok_and(|m| m.contains("other.example"))
        });
        signal(haproxy.pid(), "CONT");
        hapilot.converge();
        assert_eq!(scene.visit("other.example"), (200, "other".into()));

        signal(haproxy.pid(), "STOP");
        let (third, _server) = scene.serve("third", "third.example");
        scene.docker.run(third);
        let began = Instant::now();
        hapilot.signal("TERM");
        assert_eq!(hapilot.ended().code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        signal(haproxy.pid(), "CONT");
        *hapilot = scene.attach(&[]);
        hapilot.converge();
    });
}

/// Every reply comes in small pieces, each after a while.
fn a_socket_that_trickles(version: &str) {
    let scene = Scene::new();
    let haproxy = scene.haproxy(version, &[]);
    let between = Between::start(scene.root().join("between.sock"), scene.socket());
    between.slow_down(100, Duration::from_millis(20));
    let mut hapilot = scene.attach_to(&between.path, &[]);
    let servers: Vec<_> =
        (0..8).map(|n| scene.serve(&format!("s{n}"), &format!("h{}.example", n % 4))).collect();
    let ids: Vec<String> = servers.iter().map(|(container, _)| scene.docker.run(container.clone())).collect();
    until("served", || (0..4).all(|n| scene.visit(&format!("h{n}.example")).0 == 200));
    hapilot.converge();
    assert_eq!(haproxy.servers().len(), 8);
    scene.docker.die(&ids[0]);
    until("out of service", || {
        !haproxy.servers().iter().any(|server| server.contains("/s0-") && !server.ends_with("maint"))
    });
    hapilot.converge();
    assert_eq!(hapilot.said("connection to HAProxy is lost"), 0, "slow is not broken");
}

/// So many sessions that nobody else is let in; each has asked something.
fn take_all_places(socket: &Path) -> Vec<UnixStream> {
    let mut places: Vec<UnixStream> = Vec::new();
    loop {
        let mut place = UnixStream::connect(socket).unwrap();
        place.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        place.write_all(b"prompt\n").unwrap();
        let mut answer = [0; 16];
        let inside = place.read(&mut answer).is_ok_and(|read| read > 0);
        places.push(place);
        if !inside {
            return places;
        }
        assert!(places.len() < 100, "there is no end of places");
    }
}

/// An operator's scripts have forgotten to close their sessions. hapilot's own
/// stands; one that comes later waits, says why, and is let in when there is room.
fn the_places_of_the_socket_are_taken(version: &str) {
    let scene = Scene::new();
    with_one_served(&scene, version, &[], |hapilot, _| {
        hapilot.converge();
        let places = take_all_places(&scene.socket());
        let (other, _server) = scene.serve("other", "other.example");
        scene.docker.run(other);
        until("served", || scene.visit("other.example").0 == 200);
        assert_eq!(scene.check().0, 0);

        hapilot.kill();
        *hapilot = scene.attach(&[]);
        until("it looks for HAProxy", || scene.check().0 == 3);
        until("it says so", || {
            hapilot.status()["haproxy"]["error"].as_str().is_some_and(|error| error.contains("says nothing"))
        });
        assert_eq!(scene.check().0, 3);
        assert_eq!(scene.visit("other.example").0, 200);
        drop(places);
        hapilot.converge();
    });
}

/// HAProxy is hapilot's own, and can't be asked whether it is there.
fn the_places_are_taken_when_hapilot_starts(version: &str) {
    let scene = Scene::new();
    let (one, _one) = scene.serve("one", "a.example");
    scene.docker.add(one);
    let mut hapilot = scene.spawn(version, &[]);
    hapilot.converge();
    let socket = scene.dir().join("admin.sock");
    let pid = pid_at(&socket).unwrap();
    let streaming = Streaming::start(&scene, "a.example");
    let places = take_all_places(&socket);
    hapilot.kill();
    std::mem::forget(hapilot);
    let mut hapilot = scene.spawn(version, &[]);
    until("it knows no HAProxy that answers", || scene.check().0 == 3);
    hapilot.until_said(&format!("process {pid} listens on"));
    assert_eq!(scene.visit("a.example"), (200, "one".into()));
    drop(places);
    hapilot.converge();
    assert_eq!(pid_at(&socket), Some(pid), "it is the same HAProxy");
    streaming.goes_on();
}

/// The operator gives hapilot a larger pool, and HAProxy a new start: who waited for
/// a backend is served from its first request.
fn a_larger_pool(version: &str) {
    let scene = Scene::new();
    let mut haproxy = scene.haproxy(version, &["--pool-size", "1"]);
    let (first, _first) = scene.serve("first", "first.example");
    let (second, _second) = scene.serve("second", "second.example");
    scene.docker.add(first);
    let mut hapilot = scene.attach(&["--pool-size", "1"]);
    hapilot.converge();
    scene.docker.run(second);
    until("blocked", || hapilot.status()["blocked"].as_array().unwrap().len() == 1);
    let (code, said) = scene.check();
    assert_eq!((code, said.trim()), (0, "well, but 1 blocked, see `hapilot status`"), "it fails nobody");
    assert!(scene.metrics().lines().any(|line| line == "hapilot_blocked 1"), "{}", scene.metrics());

    hapilot.kill();
    let mut hapilot = scene.attach(&["--pool-size", "2"]);
    hapilot.converge();
    assert_eq!(scene.visit("second.example").0, 404, "this HAProxy has but one");
    haproxy.kill();
    // The configuration is the last of the files that is put in place.
    until("the files are up to date", || {
        fs::read_to_string(scene.dir().join("haproxy.cfg")).is_ok_and(|text| text.contains("server second-"))
    });
    hapilot.signal("STOP");
    haproxy.restart(&scene.dir().join("haproxy.cfg"));
    assert_eq!(scene.visit("first.example"), (200, "first".into()));
    assert_eq!(scene.visit("second.example"), (200, "second".into()));
    hapilot.signal("CONT");
    hapilot.converge();
    assert!(hapilot.status()["blocked"].as_array().unwrap().is_empty());
}
