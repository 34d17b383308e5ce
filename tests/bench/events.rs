//! From an event to HAProxy's acknowledgement, with the released hapilot, a
//! fake engine and real HAProxy.
//!
//! An event is a container that joins a host of ten (`docker run`), or dies.
//! Times come from hapilot's own log, so they have no part of the engine's or of
//! this program's: from the end of the inspect (or from the event's arrival) to
//! HAProxy's acknowledgement of the last command that it led to. HAProxy checks all
//! servers meanwhile, every five seconds, on the same cores.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a benchmark prints and ends by panicking"
)]

mod stage;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use stage::daemon::{Acknowledged, Daemon, PATIENCE, container};
use stage::fake_docker::FakeDocker;
use stage::figures::{Cpu, Table, median, ms, percentile};
use stage::haproxy::Haproxy;
use stage::{bare, targets};

const PER_HOST: usize = 10;
const POOL: usize = 1_000;
/// Joins, and as many deaths.
const SINGLE: usize = 150;
const BURST: usize = 100;
const BURSTS: usize = 6;
/// Of a container that joins (`add server`, `enable health`, and three that let it
/// in when its check has passed) and dies (`set server … state maint`, `del server`).
const COMMANDS: usize = 7;
/// No turn of a burst ends so long after the one before.
const SILENCE: Duration = Duration::from_millis(500);
/// Events for the CPU time, and the pause between two of them.
const STREAM: usize = 200;
const PACE: Duration = Duration::from_millis(10);
/// Events far enough apart for the start-up configuration to be written after
/// each.
const LONE: usize = 4;
const LONE_REST: Duration = Duration::from_millis(2_500);
/// Until the start-up configuration is written and the first checks are over.
const REST: Duration = Duration::from_secs(8);

struct Stage {
    docker: FakeDocker,
    haproxy: Haproxy,
    hapilot: Daemon,
    port: u16,
    /// Containers at rest.
    size: usize,
    /// Newcomers so far.
    joined: AtomicUsize,
}

fn main() {
    if !stage::asked() {
        return;
    }
    let port = targets::listen();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let mut latency = Table::new([
        "HAProxy",
        "containers",
        "events",
        "p50",
        "p99",
        "aim (p50)",
        "p50 with inspect",
        "p99 with inspect",
    ]);
    let mut bursts = Table::new([
        "HAProxy",
        "containers",
        "p50 of an event",
        "bare writer for half of a burst",
        "ratio",
        "whole burst, with inspects",
    ]);
    let mut cost = Table::new([
        "HAProxy",
        "containers",
        "CPU per event",
        "aim",
        "CPU of a lone event, with the files",
        "Docker calls per event",
        "aim",
    ]);
    for (version, size) in [("3.0", 100), ("3.0", 1_000), ("3.0", 10_000), ("3.4", 10_000)] {
        let stage = Stage::set(version, size, port);
        let head = || (version.to_owned(), size.to_string());
        let aim = match size {
            10_000 => "<= 5 ms",
            1_000 => "<= 1 ms",
            _ => "",
        };
        let (burst, whole) = stage.bursts();
        for (events, seen) in [("one at a time", &stage.singles()), ("bursts of 100", &burst)] {
            let since_inspect: Vec<Duration> = seen.iter().map(|seen| seen.since_inspect).collect();
            let since_event: Vec<Duration> = seen.iter().map(|seen| seen.since_event).collect();
            latency.row([
                head().0,
                head().1,
                events.to_owned(),
                ms(median(&since_inspect)),
                ms(percentile(&since_inspect, 99)),
                aim.to_owned(),
                ms(median(&since_event)),
                ms(percentile(&since_event, 99)),
            ]);
        }
        let (stream, calls) = stage.stream();
        cost.row([
            head().0,
            head().1,
            ms(stream),
            "<= 5 ms".to_owned(),
            ms(stage.lone()),
            format!("{calls:.2}"),
            "<= 2".to_owned(),
        ]);
        let since_inspect: Vec<Duration> = burst.iter().map(|seen| seen.since_inspect).collect();
        let half = stage.bare() * u32::try_from(COMMANDS * BURST / 4).unwrap();
        bursts.row([
            head().0,
            head().1,
            ms(median(&since_inspect)),
            ms(half),
            format!("{:.2}", median(&since_inspect).as_secs_f64() / half.as_secs_f64()),
            ms(median(&whole)),
        ]);
    }
    latency.print("From the end of the inspect to HAProxy's acknowledgement");
    bursts.print(
        "Bursts of 100, against a bare writer that pushes the same commands in one piece: half of the events can't be \
         acknowledged before half of the commands are",
    );
    cost.print("What an event costs");
}

impl Stage {
    fn set(version: &str, size: usize, port: u16) -> Self {
        let haproxy = Haproxy::start(version, POOL);
        let docker = FakeDocker::start(haproxy.dir.path().join("docker.sock"));
        for n in 0..size {
            docker.add(container(n, n / PER_HOST, port));
        }
        let hapilot = Daemon::start(&docker, &haproxy);
        hapilot.wait_until_converged();
        assert_eq!(haproxy.servers(), size);
        let stage = Self { docker, haproxy, hapilot, port, size, joined: AtomicUsize::new(0) };
        stage.rest();
        stage
    }

    fn rest(&self) {
        sleep(REST);
        self.hapilot.skip();
    }

    /// A newcomer joins a host that is there. Each is another container: one that
    /// ends again and again is held back.
    fn join(&self) -> String {
        let k = self.joined.fetch_add(1, Ordering::Relaxed);
        let hosts = self.size / PER_HOST;
        self.docker.run(container(self.size + k, k % hosts, self.port))
    }

    fn singles(&self) -> Vec<Acknowledged> {
        let mut seen = Vec::new();
        for _ in 0..SINGLE {
            let id = self.join();
            seen.push(self.hapilot.acknowledged().1);
            sleep(PACE);
            self.docker.die(&id);
            seen.push(self.hapilot.acknowledged().1);
            self.docker.destroy(&id);
            sleep(PACE);
        }
        self.rest();
        seen
    }

    /// What each event took, and what the bursts took as a whole.
    fn bursts(&self) -> (Vec<Acknowledged>, Vec<Duration>) {
        let (mut events, mut wholes) = (Vec::new(), Vec::new());
        for _ in 0..BURSTS {
            let begin = Instant::now();
            let ids: Vec<String> = (0..BURST).map(|_| self.join()).collect();
            wholes.push(self.until_silence(&mut events) - begin);
            self.wait_until_serving(self.size + BURST);
            let begin = Instant::now();
            for id in &ids {
                self.docker.die(id);
            }
            wholes.push(self.until_silence(&mut events) - begin);
            self.wait_until_serving(self.size);
            for id in &ids {
                self.docker.destroy(id);
            }
            self.rest();
            assert_eq!(self.haproxy.servers(), self.size, "all of a burst are deleted");
        }
        (events, wholes)
    }

    /// Newcomers are let in by HAProxy's checks, which have a busy core here.
    fn wait_until_serving(&self, servers: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.haproxy.serving() != servers {
            assert!(Instant::now() < deadline, "{} of {servers} serve", self.haproxy.serving());
            sleep(PACE);
        }
    }

    /// The events of a burst, up to the last: how many there will be is not known,
    /// for a container that is read again without a command is not told of.
    fn until_silence(&self, events: &mut Vec<Acknowledged>) -> Instant {
        let (mut last, event) = self.hapilot.acknowledged();
        events.push(event);
        while let Some((at, event)) = self.hapilot.acknowledged_within(SILENCE) {
            last = at;
            events.push(event);
        }
        last
    }

    /// CPU time and calls to Docker per event of a steady stream.
    fn stream(&self) -> (Duration, f64) {
        let mut cpu = Cpu::of(self.hapilot.pid());
        cpu.used();
        let calls = self.docker.calls().reads();
        for _ in 0..STREAM / 2 {
            let id = self.join();
            sleep(PACE);
            self.docker.die(&id);
            sleep(PACE);
            self.docker.destroy(&id);
        }
        sleep(50 * PACE);
        let time = cpu.used() / u32::try_from(STREAM).unwrap();
        let calls = (self.docker.calls().reads() - calls) as f64 / STREAM as f64;
        self.rest();
        assert_eq!(self.haproxy.servers(), self.size);
        (time, calls)
    }

    /// CPU time of one event in silence, until nothing is left to be written.
    fn lone(&self) -> Duration {
        let mut cpu = Cpu::of(self.hapilot.pid());
        cpu.used();
        let mut time = Duration::ZERO;
        for _ in 0..LONE {
            self.join();
            sleep(LONE_REST);
            time += cpu.used();
        }
        time / u32::try_from(LONE).unwrap()
    }

    /// What a bare writer needs for a command, in bursts as of containers that join
    /// and die. Ends hapilot first: it would undo them.
    fn bare(self) -> Duration {
        let Self { haproxy, hapilot, port, .. } = self;
        drop(hapilot);
        let mut backends = haproxy.backends();
        backends.dedup();
        let servers: Vec<String> =
            (0..BURST).map(|k| format!("{}/bare-{k}", backends[k % backends.len()])).collect();
        let check = "weight 128 check inter 5000ms fastinter 200ms downinter 100ms fall 10 rise 1";
        let mut per_command = Vec::new();
        for _ in 0..2 * BURSTS {
            let add = |server: &String| {
                format!(
                    "add server {server} 127.0.0.1:{port} {check}\nenable health {server}\nset server {server} state \
                     drain\nset server {server} health down\nset server {server} state ready\n"
                )
            };
            let del = |server: &String| format!("set server {server} state maint\ndel server {server}\n");
            let joins: String = servers.iter().map(add).collect();
            let deaths: String = servers.iter().map(del).collect();
            let took = bare::push(&haproxy.socket(), &joins, 5 * BURST)
                + bare::push(&haproxy.socket(), &deaths, 2 * BURST);
            per_command.push(took / u32::try_from(COMMANDS * BURST).unwrap());
        }
        median(&per_command)
    }
}
