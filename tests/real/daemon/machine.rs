//! The machine below: disks that are full or read-only, logs that nobody takes, clocks
//! that jump.
//!
//! What lives here: what is still whole then, and what goes on. What it must not know:
//! how files are replaced (`haproxy_config::write`).

use std::fs;
use std::process::Command;

use crate::daemon::{Scene, Streaming, binary, pid_at, signal, until};

// Debian 12's own, so that libfaketime works with it.
on!(haproxy_2_6, "2.6": clocks_that_jump);
on!(haproxy, "3.0":
    a_directory_that_cannot_be_written,
    a_full_disk,
    haproxy_crashes_on_a_full_disk,
    a_full_log,
);

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
    let run = scene.run_command(&["--haproxy", binary(version).to_str().unwrap()]);
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
    let run = scene.run_command(&["--haproxy", binary(version).to_str().unwrap(), "--pool-size", "3000"]);
    let small = scene.spawn(version, &[]);
    let mut small = small;
    small.converge();
    small.signal("TERM");
    small.ended();
    let mut command = Command::new("unshare");
    let script = "cp -a \"$0\" \"$0.old\" && mount -t tmpfs -o size=128k tmpfs \"$0\" && cp -a \"$0.old/.\" \"$0\" && \
                  exec \"$@\"";
    command.args(["-m", "sh", "-c", script]).arg(scene.dir()).arg(run.get_program()).args(run.get_args());
    let mut hapilot = scene.launch(command);
    hapilot.until_said("the old configuration is kept");
    assert!(hapilot.log().contains("No space left"), "{}", hapilot.log());
    // HAProxy starts with it, and hapilot goes on from there.
    until("converged", || hapilot.ask_inside(&["check"]).0 == 0);
    assert_eq!(scene.visit("a.example"), (200, "one".into()));
    // Seen from inside.
    let inside = format!("/proc/{}/root{}", hapilot.pid(), scene.dir().display());
    let old = fs::read(format!("{}.old/haproxy.cfg", scene.dir().display())).unwrap();
    assert_eq!(fs::read(format!("{inside}/haproxy.cfg")).unwrap(), old, "the old configuration is whole");
}

/// Files can't be written any more; HAProxy is back all the same, and complete as soon
/// as it answers.
fn haproxy_crashes_on_a_full_disk(version: &str) {
    let scene = Scene::new();
    let (one, _one) = scene.serve("one", "a.example");
    scene.docker.add(one);
    let run = scene.run_command(&["--haproxy", binary(version).to_str().unwrap()]);
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=200k tmpfs \"$0\" && exec \"$@\"";
    command.args(["-m", "sh", "-c", script]).arg(scene.dir()).arg(run.get_program()).args(run.get_args());
    let mut hapilot = scene.launch(command);
    until("converged", || hapilot.ask_inside(&["check"]).0 == 0);
    until("the files are up to date", || {
        fs::read_to_string(hapilot.inside("maps/hosts.map")).is_ok_and(|map| map.contains("a.example"))
    });
    // Whatever is left.
    let filler = fs::File::create(hapilot.inside("filler")).unwrap();
    let full = std::io::copy(&mut std::io::repeat(0), &mut &filler).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let (two, _two) = scene.serve("two", "b.example");
    scene.docker.run(two);
    until("served", || scene.visit("b.example") == (200, "two".into()));
    hapilot.until_said("the old one is kept");

    let before = hapilot.haproxy_inside().unwrap();
    signal(before, "KILL");
    until("back", || scene.visit("a.example") == (200, "one".into()));
    until("complete", || scene.visit("b.example") == (200, "two".into()));
    assert_ne!(hapilot.haproxy_inside(), Some(before));
    until("converged", || hapilot.ask_inside(&["check"]).0 == 0);

    drop(filler);
    fs::remove_file(hapilot.inside("filler")).unwrap();
    until("the files follow", || {
        fs::read_to_string(hapilot.inside("maps/hosts.map")).is_ok_and(|map| map.contains("b.example"))
    });
}

/// Whoever takes the log takes no more: neither hapilot nor HAProxy minds.
fn a_full_log(version: &str) {
    let scene = Scene::new();
    let (one, _one) = scene.serve("one", "a.example");
    let id = scene.docker.add(one);
    let mut hapilot = scene.launch_into(
        scene.run_command(&["--haproxy", binary(version).to_str().unwrap(), "--log-level", "debug"]),
        fs::File::options().write(true).open("/dev/full").unwrap(),
    );
    hapilot.converge();
    assert_eq!(scene.visit("a.example"), (200, "one".into()));
    scene.docker.die(&id);
    until("gone", || scene.visit("a.example").0 == 404);
    let (two, _two) = scene.serve("two", "b.example");
    scene.docker.run(two);
    until("served", || scene.visit("b.example") == (200, "two".into()));
    signal(pid_at(&scene.dir().join("admin.sock")).unwrap(), "KILL");
    until("back", || scene.visit("b.example") == (200, "two".into()));
    hapilot.converge();
    assert!(hapilot.log().is_empty());
}

/// The time of day jumps by a day to and fro, for hapilot and HAProxy (the engine keeps
/// its own): nobody is thought dead, nothing waits for a day.
fn clocks_that_jump(version: &str) {
    let scene = Scene::new();
    let (one, _one) = scene.serve("one", "a.example");
    scene.docker.add(one);
    let library = fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let library = library.map(|path| path.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let library = library.expect("libfaketime is missing: run `make setup`");
    let clock = scene.root().join("clock");
    let set = |offset: &str| {
        let new = scene.root().join("clock.new");
        fs::write(&new, offset).unwrap();
        fs::rename(&new, &clock).unwrap();
    };
    set("+0");
    let binary = binary(version);
    let mut command = scene.run_command(&["--haproxy", binary.to_str().unwrap(), "--resync", "1s"]);
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    let mut hapilot = scene.launch(command);
    hapilot.converge();
    let socket = scene.dir().join("admin.sock");
    let pid = pid_at(&socket).unwrap();
    let streaming = Streaming::start(&scene, "a.example");
    for (round, offset) in ["+1d", "-1d", "+0"].into_iter().enumerate() {
        let before = scene.status_time();
        set(offset);
        until("hapilot's clock has jumped", || scene.status_time().abs_diff(before) > 80_000);
        let name = format!("n{round}");
        let host = format!("{name}.example");
        let (container, server) = scene.serve(&name, &host);
        let id = scene.docker.run(container);
        until("served", || scene.visit(&host) == (200, name.clone()));
        assert_eq!(scene.visit("a.example"), (200, "one".into()));
        hapilot.converge();
        scene.docker.stop(&id);
        until("gone", || scene.visit(&host).0 == 404);
        hapilot.converge();
        streaming.goes_on();
        drop(server);
    }
    assert_eq!(pid_at(&socket), Some(pid));
    assert_eq!(hapilot.said("is lost"), 0);
    assert_eq!(hapilot.said("held back"), 0);
}
