//! What the released hapilot needs with 10,000 containers: memory, time to
//! converge from a cold start, and CPU while nothing happens.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints and ends by panicking")]

mod stage;

use std::thread::sleep;
use std::time::{Duration, Instant};

use stage::daemon::{Daemon, container};
use stage::fake_docker::FakeDocker;
use stage::figures::{Cpu, Table, memory_mb, ms};
use stage::haproxy::Haproxy;
use stage::targets;

const CONTAINERS: usize = 10_000;
const PER_HOST: usize = 10;
const POOL: usize = 1_000;
/// Until the start-up configuration is written and the first checks are over.
const REST: Duration = Duration::from_secs(8);
/// Without, and with one resync (each minute, a tenth more or less).
const IDLE: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(48)];

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
        let docker = FakeDocker::start(haproxy.dir.path().join("docker.sock"));
        for n in 0..CONTAINERS {
            docker.add(container(n, n / PER_HOST, port));
        }
        let begin = Instant::now();
        let hapilot = Daemon::start(&docker, &haproxy);
        let converged = hapilot.wait_until_converged() - begin;
        assert_eq!(haproxy.servers(), CONTAINERS);
        row("start to converged, with list and 10,000 inspects", ms(converged), "");
        let mut cpu = Cpu::of(hapilot.pid());
        row("CPU of hapilot for that", ms(cpu.used()), "");
        sleep(REST);
        row("memory (RSS)", format!("{:.1} MB", memory_mb(hapilot.pid(), "VmRSS")), "<= 60 MB");
        row("memory at its highest", format!("{:.1} MB", memory_mb(hapilot.pid(), "VmHWM")), "");
        cpu.used();
        for idle in if version == "3.0" { &IDLE[..] } else { &IDLE[..1] } {
            sleep(*idle);
            let resync = if *idle == IDLE[1] { ", with a resync" } else { "" };
            let what = format!("CPU in {} s of silence{resync}", idle.as_secs());
            row(&what, ms(cpu.used()), "none to speak of");
        }
        row("memory (RSS) after that", format!("{:.1} MB", memory_mb(hapilot.pid(), "VmRSS")), "<= 60 MB");
    }
    table.print("10,000 containers under 1,000 hosts");
}
