//! What the released hapilot needs with 200 engines of 50 containers each:
//! memory, time to converge, CPU while nothing happens, and how fast an event of
//! one of them is acted upon while others are away.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints and ends by panicking")]

mod stage;

use std::thread::sleep;
use std::time::{Duration, Instant};

use stage::daemon::{Daemon, container};
use stage::fake_docker::FakeDocker;
use stage::figures::{Cpu, Table, memory_mb, ms, percentile};
use stage::haproxy::Haproxy;
use stage::targets;

const ENGINES: usize = 200;
const EACH: usize = 50;
const PER_HOST: usize = 10;
const POOL: usize = 1_000;
/// Until the start-up configuration is written and the first checks are over.
const REST: Duration = Duration::from_secs(8);
const IDLE: Duration = Duration::from_secs(20);
/// Events of one engine, one after the other.
const EVENTS: usize = 50;
/// Engines that go away.
const AWAY: usize = 20;

fn main() {
    if !stage::asked() {
        return;
    }
    let port = targets::listen();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let mut table = Table::new(["what", "HAProxy", "figure", "aim"]);
    for version in ["3.0", "3.4"] {
        let mut row = |what: &str, figure: String, aim: &str| {
            table.row([what.to_owned(), version.to_owned(), figure, aim.to_owned()]);
        };
        let haproxy = Haproxy::start(version, POOL);
        let engine = |number: usize| {
            let docker = FakeDocker::start(haproxy.dir.path().join(format!("{number}.sock")));
            // The containers of a host are on different engines.
            for index in 0..EACH {
                let n = number + index * ENGINES;
                docker.add(container(n, n / PER_HOST, port));
            }
            docker
        };
        let engines: Vec<FakeDocker> = (0..ENGINES).map(engine).collect();
        let named = engines.iter().enumerate().map(|(n, docker)| format!("e{n:03}={}", docker.address()));
        let begin = Instant::now();
        let hapilot = Daemon::start_on(&named.collect::<Vec<_>>().join(" "), &haproxy);
        hapilot.wait_until_converged();
        let all = ENGINES * EACH;
        while haproxy.servers() < all {
            assert!(begin.elapsed() < Duration::from_secs(120), "{} of {all} servers", haproxy.servers());
            sleep(Duration::from_millis(20));
        }
        row("start to converged, with 200 lists and 10,000 inspects", ms(begin.elapsed()), "");
        let mut cpu = Cpu::of(hapilot.pid());
        row("CPU of hapilot for that", ms(cpu.used()), "");
        sleep(REST);
        row("memory (RSS)", format!("{:.1} MB", memory_mb(hapilot.pid(), "VmRSS")), "<= 60 MB");
        row("memory at its highest", format!("{:.1} MB", memory_mb(hapilot.pid(), "VmHWM")), "");
        cpu.used();
        sleep(IDLE);
        row(&format!("CPU in {} s of silence", IDLE.as_secs()), ms(cpu.used()), "none to speak of");
        for docker in &engines[..AWAY] {
            docker.stop_listening();
        }
        sleep(Duration::from_secs(2));
        hapilot.skip();
        let mut took = Vec::new();
        for n in 0..EVENTS {
            let last = &engines[ENGINES - 1];
            let id = last.run(container(all + n, n, port));
            took.push(hapilot.acknowledged().1.since_event);
            // One event: a stop is announced before the end, and would be two.
            last.die(&id);
            took.push(hapilot.acknowledged().1.since_event);
        }
        let what = |percent| format!("one event with its inspect, {AWAY} engines away, p{percent}");
        for percent in [50, 99] {
            row(&what(percent), ms(percentile(&took, percent)), "");
        }
        row("memory (RSS) after that", format!("{:.1} MB", memory_mb(hapilot.pid(), "VmRSS")), "<= 60 MB");
    }
    table.print("200 engines with 50 containers each, 1,000 hosts");
}
