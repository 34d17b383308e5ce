//! An address passes from one container to another under load, on the machine's
//! Docker engine: no visitor of the first one's host may reach the second.
//!
//! What lives here: the hardest handing over that an engine allows (the next
//! container is started over and over from the moment the end of the first one
//! is asked for, so that it begins in the instant the address is free), and who
//! answers meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[path = "../support/engine.rs"]
mod engine;

use engine::{SAMPLE, Share, Visitor, eventually, free_port, get, haproxy_pid, kill, said, served};

/// The two services that the address goes to and fro between.
const HOSTS: [&str; 2] = ["one.reuse.example", "two.reuse.example"];
/// So many ask for each of them all the time.
const VISITORS: usize = 4;
/// How often the address changes hands for each way to end.
const ROUNDS: usize = 6;

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// hapilot on the host, `HAProxy` as its child.
struct Spawned {
    share: Share,
    dir: PathBuf,
    http: SocketAddr,
    hapilot: Child,
}

impl Spawned {
    fn new(purpose: &str) -> Self {
        let share = Share::new(purpose);
        let dir = std::env::temp_dir().join(&share.name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let hapilot = Command::new(env!("CARGO_BIN_EXE_hapilot"))
            .args(["run", "--http", &http.to_string(), "--dir"])
            .arg(&dir)
            .arg("--haproxy")
            .arg(engine::haproxy("3.0"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let spawned = Self { share, dir, http, hapilot };
        eventually("hapilot check", || {
            let mut check = Command::new(env!("CARGO_BIN_EXE_hapilot"));
            said(&check.args(["check", "--dir"]).arg(&spawned.dir).output().unwrap())
        });
        spawned
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let own: Vec<&str> =
                log.lines().filter(|line| line.contains("reuse") && !line.contains(" 200 ")).collect();
            eprintln!("==== log of hapilot and HAProxy\n{}", own.join("\n"));
        }
        let haproxy = haproxy_pid(&self.dir.join("admin.sock"));
        let _ = self.hapilot.kill();
        let _ = self.hapilot.wait();
        if let Ok(pid) = haproxy {
            kill("-KILL", pid);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Asks the engine to do something, without the time a docker command takes.
fn post(path: &str) -> u16 {
    let mut stream = UnixStream::connect("/var/run/docker.sock").unwrap();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.get(9..12).unwrap().parse().unwrap()
}

/// What the visitors of a host have met.
#[derive(Default)]
struct Met {
    asked: usize,
    backends: BTreeSet<String>,
    failures: Vec<String>,
}

fn visit(address: SocketAddr, host: &'static str, leave: &Arc<AtomicBool>) -> JoinHandle<Met> {
    let leave = Arc::clone(leave);
    std::thread::spawn(move || {
        let mut met = Met::default();
        while !leave.load(Ordering::Relaxed) {
            met.asked += 1;
            match get(address, host, "/") {
                Ok(answer) if answer.status == 200 => drop(met.backends.insert(answer.backend)),
                other => met.failures.push(format!("{host}: {other:?}")),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        met
    })
}

#[test]
fn no_visitor_of_one_reaches_the_other_who_has_its_address_now() {
    let spawned = Spawned::new("reuse");
    let docker = spawned.share.docker.clone();
    // A network of this checkout's own.
    let third = spawned.share.name.bytes().fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    let network = spawned.share.named("net");
    let subnet = format!("10.213.{third}.0/24");
    docker.run(&["network", "create", "--label", &spawned.share.mark(), "--subnet", &subnet, &network]);
    let contested = format!("10.213.{third}.77");
    let make = |name: &str, host: &str, ip: &str| {
        let (mark, host) = (spawned.share.mark(), format!("VIRTUAL_HOST={host}"));
        let id = docker.run(&[
            "create",
            "--name",
            &spawned.share.named(name),
            "--label",
            &mark,
            "--network",
            &network,
            "--ip",
            ip,
            "--env",
            &host,
            "--env",
            "VIRTUAL_PORT=8000",
            SAMPLE,
        ]);
        id[..12].to_owned()
    };
    let mut stable = Vec::new();
    let mut movers = Vec::new();
    for (index, host) in HOSTS.into_iter().enumerate() {
        stable.push(make(&format!("stays-{index}"), host, &format!("10.213.{third}.{}", 20 + index)));
        docker.run(&["start", &stable[index]]);
        served(spawned.http, host);
        movers.push(make(&format!("moves-{index}"), host, &contested));
    }
    let leave = Arc::new(AtomicBool::new(false));
    let visitors: Vec<_> = (0..VISITORS * 2).map(|n| visit(spawned.http, HOSTS[n % 2], &leave)).collect();

    docker.run(&["start", &movers[0]]);
    let mut turns = 0;
    for end in ["stop", "kill?signal=KILL", "stop?t=0"] {
        for _ in 0..ROUNDS {
            let (old, new) = (movers[turns % 2].clone(), movers[(turns + 1) % 2].clone());
            is_answered_by(spawned.http, HOSTS[turns % 2], &old);
            let ending = std::thread::spawn(move || post(&format!("/containers/{old}/{end}")));
            // The address is in use until the engine gives it free.
            let deadline = Instant::now() + PATIENCE;
            while !matches!(post(&format!("/containers/{new}/start")), 204 | 304) {
                assert!(Instant::now() < deadline, "the address is never given free");
            }
            assert_eq!(ending.join().unwrap(), 204);
            turns += 1;
        }
    }
    is_answered_by(spawned.http, HOSTS[turns % 2], &movers[turns % 2]);
    leave.store(true, Ordering::Relaxed);

    let (mut asked, mut failures) = (0, Vec::new());
    for (number, visitor) in visitors.into_iter().enumerate() {
        let met = visitor.join().unwrap();
        let own = BTreeSet::from([stable[number % 2].clone(), movers[number % 2].clone()]);
        let strangers: Vec<_> = met.backends.difference(&own).collect();
        assert!(strangers.is_empty(), "{} was answered by {strangers:?}", HOSTS[number % 2]);
        asked += met.asked;
        failures.extend(met.failures);
    }
    eprintln!("{turns} changes of hands, {asked} requests, {} failures: {failures:?}", failures.len());
    assert!(asked > 10 * turns, "{asked} requests are no load");
}

/// Waits until this container answers for a host.
fn is_answered_by(address: SocketAddr, host: &str, backend: &str) {
    eventually(&format!("{host} is answered by {backend}"), || {
        let answer = get(address, host, "/").map_err(|error| error.to_string())?;
        (answer.backend == backend).then_some(()).ok_or_else(|| format!("{answer:?}"))
    });
}

#[test]
fn one_that_restarts_again_and_again_is_held_back_and_nobody_else_notices() {
    let spawned = Spawned::new("crash-loop");
    spawned.share.serve("well", "bridge", "well.reuse.example");
    served(spawned.http, "well.reuse.example");
    let visitor = Visitor::of(spawned.http, "well.reuse.example");
    let name = spawned.share.named("ill");
    let mark = spawned.share.mark();
    spawned.share.docker.run(&[
        "run",
        "--detach",
        "--name",
        &name,
        "--label",
        &mark,
        "--restart",
        "always",
        "--env",
        "VIRTUAL_HOST=ill.reuse.example",
        "--entrypoint",
        "sleep",
        SAMPLE,
        "0.7",
    ]);
    let status = || {
        let mut status = Command::new(env!("CARGO_BIN_EXE_hapilot"));
        said(&status.args(["status", "--json", "--dir"]).arg(&spawned.dir).output().unwrap())
    };
    eventually("it is held back", || {
        let status = status()?;
        let held = status.contains("restarts again and again") && status.contains(&name);
        held.then_some(()).ok_or(status)
    });
    visitor.noticed_nothing();
    let log = std::fs::read_to_string(spawned.dir.join("log")).unwrap();
    assert_eq!(log.matches("held back").count(), 1, "{log}");
}
