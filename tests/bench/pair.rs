//! How long visitors of a pair's virtual address go without an answer when
//! something happens to the load balancer that holds it, on the real parts:
//! Docker's engine, `HAProxy`, keepalived (compose/pair.yml).
//!
//! What lives here: 200 requests a second, each over a connection of its own, and
//! the cases. A pause is the longest time between two answers around the event. A
//! request is *cut* if its connection stood when it broke (it was open at the
//! switch), *refused* if none came about or the answer was no 200, *late* if it
//! took longer than 100 ms.
//!
//! `make bench-pair`; `HAPILOT_BENCH_TIMES=N` (20) repeats each case so often.
//! Needs root and `make setup`'s images. Not run by `cargo test`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its result")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

#[path = "../support/engine.rs"]
mod engine;
#[path = "../support/pair.rs"]
mod pair;

use engine::{SAMPLE, eventually, kill, name_for, said};
use pair::{Pair, Side};

/// 200 a second.
const INTERVAL: Duration = Duration::from_millis(5);
/// A request that takes longer was delayed by what happened.
const LATE: Duration = Duration::from_millis(100);
/// A visitor who waits longer gives up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Load before and after what happens.
const AROUND: Duration = Duration::from_secs(1);
/// The advertisement interval of the configuration.
const ADVERTISEMENT: Duration = Duration::from_millis(200);
/// Third number of the network.
const NETWORK: u8 = 247;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let times = std::env::var("HAPILOT_BENCH_TIMES").ok().filter(|text| !text.is_empty());
    let times: usize = times.map_or(20, |text| text.parse().expect("HAPILOT_BENCH_TIMES is a number"));
    let pair = Pair::up(&name_for("bench-pair"), NETWORK);
    println!("200 requests/s against the virtual address, {times} times each; pauses in ms.\n");
    println!(
        "{:<34} {:>6} {:>6} {:>6} {:>6}  {:>8} {:>7} {:>7} {:>7}",
        "", "bound", "p50", "max", "over", "requests", "refused", "cut", "late"
    );
    case(times, "planned: keepalived is stopped", 100, || planned(&pair));
    case(times, "HAProxy is killed", 1_000, || haproxy_killed(&pair));
    case(times, "the whole machine is killed", 1_000, || machine_killed(&pair));
    let cut = cut_and_healed(&pair, times);
    case_of(&cut.0, "cut off from the network", 1_000);
    case_of(&cut.1, "healed", 1_000);
    case(times.min(3), "hapilot is dead, a container dies", 1_000, || hapilot_dead(&pair));
    deployments(&pair, times.min(5));
}

// ---- the load ----

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Answered,
    Refused,
    Cut,
}

/// One request.
#[derive(Clone, Copy, Debug)]
struct Visit {
    began: Instant,
    ended: Instant,
    ending: Ending,
}

/// Visitors who come at a constant rate, whatever became of those before.
struct Load {
    leave: Arc<AtomicBool>,
    coming: JoinHandle<Vec<JoinHandle<()>>>,
    visits: Arc<Mutex<Vec<Visit>>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let leave = Arc::new(AtomicBool::new(false));
        let visits: Arc<Mutex<Vec<Visit>>> = Arc::default();
        let (left, noted) = (Arc::clone(&leave), Arc::clone(&visits));
        let coming = std::thread::spawn(move || {
            let mut visitors = Vec::new();
            let mut due = Instant::now();
            while !left.load(Ordering::Relaxed) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due += INTERVAL;
                let noted = Arc::clone(&noted);
                visitors.push(std::thread::spawn(move || {
                    let began = Instant::now();
                    let ending = visit(address);
                    noted.lock().unwrap().push(Visit { began, ended: Instant::now(), ending });
                }));
            }
            visitors
        });
        Self { leave, coming, visits }
    }

    /// No further visitors; those that are there are waited for.
    fn end(self) -> Vec<Visit> {
        self.leave.store(true, Ordering::Relaxed);
        for visitor in self.coming.join().unwrap() {
            visitor.join().unwrap();
        }
        let mut visits = std::mem::take(&mut *self.visits.lock().unwrap());
        visits.sort_by_key(|visit| visit.ended);
        visits
    }
}

fn visit(address: SocketAddr) -> Ending {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else { return Ending::Refused };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    match stream.write_all(request).and_then(|()| stream.read_to_end(&mut answer)) {
        Ok(_) if answer.starts_with(b"HTTP/1.1 200 ") => Ending::Answered,
        Ok(_) if answer.is_empty() => Ending::Cut,
        Ok(_) => Ending::Refused,
        // Whoever has read the whole answer isn't hurt by how the connection ended.
        Err(_) if answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\n") => Ending::Answered,
        Err(_) => Ending::Cut,
    }
}

// ---- figures ----

/// What one event did to the visitors.
struct Outcome {
    pause: Duration,
    requests: usize,
    refused: usize,
    cut: usize,
    late: usize,
}

impl Outcome {
    /// Of those who came or were answered around an event.
    fn of(visits: &[Visit], from: Instant, to: Instant) -> Self {
        let answers: Vec<Instant> = visits
            .iter()
            .filter(|visit| visit.ending == Ending::Answered && visit.ended >= from && visit.ended <= to)
            .map(|visit| visit.ended)
            .collect();
        let edges = [vec![from], answers, vec![to]].concat();
        let pause = edges.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        let around: Vec<&Visit> =
            visits.iter().filter(|visit| visit.began >= from && visit.began <= to).collect();
        let ended = |ending| around.iter().filter(|visit| visit.ending == ending).count();
        let late = |visit: &&&Visit| visit.ending == Ending::Answered && visit.ended - visit.began > LATE;
        Self {
            pause,
            requests: around.len(),
            refused: ended(Ending::Refused),
            cut: ended(Ending::Cut),
            late: around.iter().filter(late).count(),
        }
    }
}

fn case(times: usize, name: &str, bound_ms: u64, mut one: impl FnMut() -> Outcome) {
    case_of(&(0..times).map(|_| one()).collect::<Vec<_>>(), name, bound_ms);
}

fn case_of(outcomes: &[Outcome], name: &str, bound_ms: u64) {
    let mut pauses: Vec<Duration> = outcomes.iter().map(|outcome| outcome.pause).collect();
    pauses.sort();
    let over = pauses.iter().filter(|pause| **pause > Duration::from_millis(bound_ms)).count();
    let sum = |part: fn(&Outcome) -> usize| outcomes.iter().map(part).sum::<usize>();
    println!(
        "{name:<34} {bound_ms:>6} {:>6} {:>6} {over:>6}  {:>8} {:>7} {:>7} {:>7}",
        pauses[pauses.len() / 2].as_millis(),
        pauses[pauses.len() - 1].as_millis(),
        sum(|o| o.requests),
        sum(|o| o.refused),
        sum(|o| o.cut),
        sum(|o| o.late),
    );
}

/// Load before, an event, load until the partner has taken over and a little
/// longer; then all is made well again.
fn around(pair: &Pair, event: impl FnOnce(), over: impl FnOnce(), mend: impl FnOnce()) -> Outcome {
    let load = Load::on(pair.virtual_address());
    std::thread::sleep(AROUND);
    let from = Instant::now();
    event();
    over();
    std::thread::sleep(AROUND);
    let to = Instant::now();
    let outcome = Outcome::of(&load.end(), from, to);
    mend();
    pair.is_well();
    outcome
}

// ---- the cases ----

fn planned(pair: &Pair) -> Outcome {
    let keepalived = pair.container(Side::One, "keepalived");
    around(
        pair,
        || drop(pair.docker.run(&["stop", "--time", "12", &keepalived])),
        || pair.has_role(Side::Two, "master"),
        || drop(pair.docker.run(&["start", &keepalived])),
    )
}

/// Waits until it has lived for eleven seconds: the engine starts at once again what
/// lived for ten, and lets wait what dies earlier, each time twice as long.
fn let_haproxy_live(pair: &Pair) {
    eventually("HAProxy has lived for eleven seconds", || {
        let began = pair.docker.inspect(&pair.container(Side::One, "haproxy"), "{{.State.StartedAt}}");
        let date = Command::new("date").args(["-d", &began, "+%s"]).output().unwrap();
        let began: u64 = said(&date)?.parse().map_err(|error| format!("{error}"))?;
        let age = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() - began;
        (age >= 11).then_some(()).ok_or_else(|| format!("{age} s"))
    });
}

fn haproxy_killed(pair: &Pair) -> Outcome {
    let_haproxy_live(pair);
    let pid = pair.pid(Side::One, "haproxy");
    // The engine starts it again.
    around(pair, || kill("-KILL", pid), || pair.has_role(Side::Two, "master"), || {})
}

fn machine_killed(pair: &Pair) -> Outcome {
    around(
        pair,
        || pair.kill_machine(Side::One),
        || pair.has_role(Side::Two, "master"),
        || pair.start_machine(Side::One),
    )
}

/// Both parts of each, and for how long there were two masters after the healing.
fn cut_and_healed(pair: &Pair, times: usize) -> (Vec<Outcome>, Vec<Outcome>) {
    let (mut cuts, mut heals, mut doubles) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..times {
        let cable = pair.cable(Side::One);
        let watches = Side::BOTH.map(|side| pair.watch(side));
        let load = Load::on(pair.virtual_address());
        std::thread::sleep(AROUND);
        let from = Instant::now();
        cable.cut();
        pair.has_role(Side::Two, "master");
        // Every third cut lasts until its HAProxy has given up all its servers.
        std::thread::sleep(if round % 3 == 2 { Duration::from_secs(20) } else { 2 * AROUND });
        let healed = Instant::now();
        cable.heal();
        eventually("one of them gives the address away", || {
            let gave = watches.iter().any(|w| w.changes().iter().any(|&(at, held)| at > healed && !held));
            gave.then_some(()).ok_or_else(|| "both hold it".to_owned())
        });
        let gave = watches.iter().flat_map(pair::Watch::changes).filter(|&(at, held)| at > healed && !held);
        doubles.push(gave.map(|(at, _)| at - healed).min().unwrap());
        std::thread::sleep(2 * AROUND);
        let to = Instant::now();
        let visits = load.end();
        cuts.push(Outcome::of(&visits, from, healed));
        heals.push(Outcome::of(&visits, healed, to));
        pair.is_well();
    }
    doubles.sort();
    println!(
        "two masters after the healing for {} ms (p50), {} ms (max); an advertisement comes every {} ms",
        doubles[doubles.len() / 2].as_millis(),
        doubles[doubles.len() - 1].as_millis(),
        ADVERTISEMENT.as_millis()
    );
    (cuts, heals)
}

/// hapilot dies where the address is, and at once a container too: `HAProxy`'s own
/// checks and retries keep visitors away from it.
fn hapilot_dead(pair: &Pair) -> Outcome {
    let hapilot = pair.container(Side::One, "hapilot");
    let victim = start_replica(pair, "victim");
    pair.sides_are_equal();
    let outcome = around(
        pair,
        || {
            pair.docker.run(&["kill", &hapilot]);
            pair.docker.run(&["kill", &victim]);
        },
        || {
            eventually("HAProxy has taken it out", || {
                let has = pair.has(Side::One)?;
                let server = has.servers.iter().find(|line| line.contains("-victim-"));
                // SRV_ST_STOPPED is 0.
                let down = server.is_some_and(|line| line.split(' ').nth(5) == Some("0"));
                down.then_some(()).ok_or_else(|| format!("{server:?}"))
            });
            // Later the address goes where hapilot lives.
            eventually("the partner holds it", || {
                let status = pair.status(Side::Two)?;
                (status["role"]["role"] == "master").then_some(()).ok_or_else(|| status.to_string())
            });
        },
        || drop(pair.docker.run(&["start", &hapilot])),
    );
    pair.docker.run(&["rm", "-f", &victim]);
    outcome
}

/// Three replicas are replaced one after the other, and in the middle `HAProxy`
/// dies where the address is.
fn deployments(pair: &Pair, times: usize) {
    let mut all = Vec::new();
    let mut equal = Vec::new();
    for round in 0..times {
        let mut replicas: Vec<String> =
            (0..3).map(|index| start_replica(pair, &format!("old-{round}-{index}"))).collect();
        pair.sides_are_equal();
        let_haproxy_live(pair);
        let mut took = Duration::ZERO;
        all.push(around(
            pair,
            || {
                for (index, replica) in replicas.iter_mut().enumerate() {
                    let new = start_replica(pair, &format!("new-{round}-{index}"));
                    if index == 1 {
                        kill("-KILL", pair.pid(Side::One, "haproxy"));
                    }
                    let old = std::mem::replace(replica, new);
                    pair.docker.run(&["stop", &old]);
                    pair.docker.run(&["rm", &old]);
                }
                took = pair.sides_are_equal();
            },
            || {},
            || {},
        ));
        equal.push(took);
        for replica in replicas {
            pair.docker.run(&["rm", "-f", &replica]);
        }
    }
    case_of(&all, "a deployment, and HAProxy is killed", 1_000);
    equal.sort();
    println!(
        "both sides were equal, server by server and map by map, {} ms (p50), {} ms (max) after the deployment (bound 1000)",
        equal[equal.len() / 2].as_millis(),
        equal[equal.len() - 1].as_millis()
    );
}

fn start_replica(pair: &Pair, what: &str) -> String {
    let name = format!("{}-{what}", pair.name);
    pair.docker.run(&[
        "run",
        "--detach",
        "--name",
        &name,
        "--network",
        &pair.network(),
        "--label",
        "hapilot.host=api.example",
        "--label",
        "hapilot.port=8000",
        SAMPLE,
    ]);
    name
}
