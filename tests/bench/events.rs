//! From an event to HAProxy's acknowledgement, with the released hapilot, a
//! fake engine and real HAProxy.
//!
//! An event is a container that joins a host of ten (`docker run`), or dies.
//! Times come from hapilot's own log, so they have no part of the engine's or of
//! this program's: from the end of the inspect (or from the event's arrival) to
//! HAProxy's acknowledgement of the last command that it led to. Where a turn
//! serves several events, the oldest counts. HAProxy checks all servers
//! meanwhile, every five seconds, on the same cores.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints and ends by panicking"
)]

mod stage;

use std::thread::sleep;
use std::time::{Duration, Instant};

use stage::daemon::{Acknowledged, Daemon, container};
use stage::fake_docker::FakeDocker;
use stage::figures::{Table, cpu, median, ms, percentile};
use stage::haproxy::Haproxy;
use stage::targets;

const PER_HOST: usize = 10;
const POOL: usize = 1_000;
/// Joins, and as many deaths.
const SINGLE: usize = 150;
const BURST: usize = 100;
const BURSTS: usize = 6;
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
}

fn main() {
    let port = targets::listen();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let mut latency = Table::new([
        "HAProxy", "containers", "events", "p50", "p99", "aim (p50)", "p50 with inspect", "p99 with inspect",
    ]);
    let mut bursts = Table::new(["HAProxy", "containers", "100 at once: from the first event to the last acknowledgement"]);
    let mut cost = Table::new([
        "HAProxy", "containers", "CPU per event", "aim", "CPU of a lone event, with the files", "Docker calls per event", "aim",
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
        for (events, seen) in [("one at a time", stage.singles()), ("bursts of 100", burst)] {
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
        bursts.row([head().0, head().1, ms(median(&whole))]);
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
    }
    latency.print("From the end of the inspect to HAProxy's acknowledgement");
    bursts.print("Bursts as a whole, the engine's 100 inspects included (medians)");
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
        let stage = Self { docker, haproxy, hapilot, port, size };
        stage.rest();
        stage
    }

    fn rest(&self) {
        sleep(REST);
        self.hapilot.skip();
    }

    /// The `k`th newcomer joins a host that is there.
    fn join(&self, k: usize) -> String {
        let hosts = self.size / PER_HOST;
        self.docker.run(container(self.size + k, k % hosts, self.port))
    }

    fn singles(&self) -> Vec<Acknowledged> {
        let mut seen = Vec::new();
        for k in 0..SINGLE {
            let id = self.join(k);
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

    /// What each turn took, and what the bursts took as a whole.
    fn bursts(&self) -> (Vec<Acknowledged>, Vec<Duration>) {
        let (mut turns, mut wholes) = (Vec::new(), Vec::new());
        for _ in 0..BURSTS {
            let begin = Instant::now();
            let ids: Vec<String> = (0..BURST).map(|k| self.join(k)).collect();
            // Each is added, checked and enabled.
            wholes.push(self.until(3 * BURST, &mut turns) - begin);
            sleep(50 * PACE);
            self.hapilot.skip();
            let begin = Instant::now();
            ids.iter().for_each(|id| self.docker.die(id));
            // Each is taken out of service and deleted.
            wholes.push(self.until(2 * BURST, &mut turns) - begin);
            ids.iter().for_each(|id| self.docker.destroy(id));
            sleep(50 * PACE);
            self.hapilot.skip();
        }
        self.rest();
        assert_eq!(self.haproxy.servers(), self.size);
        (turns, wholes)
    }

    fn until(&self, commands: usize, turns: &mut Vec<Acknowledged>) -> Instant {
        let mut done = 0;
        loop {
            let (at, turn) = self.hapilot.acknowledged();
            done += turn.commands;
            turns.push(turn);
            if done >= commands {
                return at;
            }
        }
    }

    /// CPU time and calls to Docker per event of a steady stream.
    fn stream(&self) -> (Duration, f64) {
        let (time, calls) = (cpu(self.hapilot.pid()), self.docker.calls().reads());
        for k in 0..STREAM / 2 {
            let id = self.join(k);
            sleep(PACE);
            self.docker.die(&id);
            sleep(PACE);
            self.docker.destroy(&id);
        }
        sleep(50 * PACE);
        let time = (cpu(self.hapilot.pid()) - time) / u32::try_from(STREAM).unwrap();
        let calls = (self.docker.calls().reads() - calls) as f64 / STREAM as f64;
        self.rest();
        assert_eq!(self.haproxy.servers(), self.size);
        (time, calls)
    }

    /// CPU time of one event in silence, until nothing is left to be written.
    fn lone(&self) -> Duration {
        let before = cpu(self.hapilot.pid());
        for k in 0..LONE {
            self.join(k);
            sleep(LONE_REST);
        }
        (cpu(self.hapilot.pid()) - before) / u32::try_from(LONE).unwrap()
    }
}
