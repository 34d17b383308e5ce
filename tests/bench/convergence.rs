//! Cold convergence of an attached, empty HAProxy, against a bare writer.
//!
//! 10,000 containers under 1,000 hosts. What is timed begins when the inventory
//! is known and the connection stands, and ends when HAProxy has acknowledged
//! the last command. The bare writer does nothing but push the very same lines
//! down the same kind of socket, whose replies a second thread counts.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints and ends by panicking")]

mod stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hapilot::core::command::Check;
use hapilot::core::container::{Container, ContainerId};
use hapilot::core::desired::{Desired, HaproxyPlace};
use hapilot::core::name::ClassName;
use hapilot::metrics::Metrics;
use hapilot::reconcile::{Link, Reconcile, Rules};
use hapilot::runtime_api::encode::encode;
use hapilot::runtime_api::{Client, RuntimeApiAddress, Timeouts};
use stage::figures::{Table, median, ms};
use stage::haproxy::Haproxy;
use stage::{bare, targets};

const CONTAINERS: usize = 10_000;
const HOSTS: usize = 1_000;
const POOL: usize = 1_000;
/// Of each kind, in turn.
const RUNS: usize = 5;

fn main() {
    if !stage::asked() {
        return;
    }
    let port = targets::listen();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut table = Table::new(["HAProxy", "commands", "hapilot", "bare writer", "ratio", "aim"]);
    for version in ["3.0", "3.4"] {
        let lines = runtime.block_on(lines(version, port));
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            ours.push(runtime.block_on(converge(version, port)));
            bare.push(push(version, &lines));
        }
        let ratio = median(&ours).as_secs_f64() / median(&bare).as_secs_f64();
        table.row([
            version.to_owned(),
            lines.len().to_string(),
            ms(median(&ours)),
            ms(median(&bare)),
            format!("{ratio:.2}"),
            "<= 1.50".to_owned(),
        ]);
    }
    table.print(&format!(
        "Cold convergence: {CONTAINERS} containers under {HOSTS} hosts (medians of {RUNS} runs each, in turn)"
    ));
}

fn containers(port: u16) -> Vec<Container> {
    let container = |n: usize| {
        let id = ContainerId::new(&format!("{:012x}{:052x}", n + 1, 0)).unwrap();
        Container::running(id, &format!("shop-{n}"))
            .with_env("VIRTUAL_HOST", &format!("host-{:04}.example", n % HOSTS))
            .with_env("VIRTUAL_PORT", &port.to_string())
            .on_network("web", Some(targets::address(n)), None)
    };
    (0..CONTAINERS).map(container).collect()
}

fn reconcile() -> Reconcile {
    let quarantine = hapilot::haproxy_config::QUARANTINE;
    let rules = Rules {
        classes: ClassName::all(),
        check: Check::default(),
        quarantine,
        session_limit: Duration::from_secs(60),
    };
    Reconcile::new(rules, Desired::new(HaproxyPlace::Host, false), Arc::new(Metrics::default()))
}

async fn link(haproxy: &Haproxy) -> Link {
    let address = RuntimeApiAddress::Unix(haproxy.socket());
    Link::new(Client::connect(&address, Timeouts::default()).await.unwrap())
}

/// The lines that hapilot sends, with a mark in place of the directory.
async fn lines(version: &str, port: u16) -> Vec<String> {
    let haproxy = Haproxy::start(version, POOL);
    let mut reconcile = reconcile();
    reconcile.desired_mut().replace(containers(port));
    let mut link = link(&haproxy).await;
    let plan = reconcile.preview(&mut link).await.unwrap();
    let encoded = |step: &hapilot::core::plan::Step| {
        let mut text = String::new();
        encode(&step.command, link.client().map_paths(), &mut text).unwrap();
        text.replace(haproxy.dir.path().to_str().unwrap(), "@DIR@")
    };
    plan.steps.iter().map(encoded).collect()
}

async fn converge(version: &str, port: u16) -> Duration {
    let haproxy = Haproxy::start(version, POOL);
    let mut reconcile = reconcile();
    let mut link = link(&haproxy).await;
    let inventory = containers(port);
    let begin = Instant::now();
    reconcile.desired_mut().replace(inventory);
    let turn = reconcile.turn(&mut link).await.unwrap();
    let took = begin.elapsed();
    assert!(turn.settled && turn.failed == 0, "{turn:?}: {:?}", reconcile.blocked());
    assert_eq!(haproxy.servers(), CONTAINERS);
    took
}

/// The same by the bare writer.
fn push(version: &str, lines: &[String]) -> Duration {
    let haproxy = Haproxy::start(version, POOL);
    let text = lines.concat().replace("@DIR@", haproxy.dir.path().to_str().unwrap());
    let took = bare::push(&haproxy.socket(), &text, lines.len());
    assert_eq!(haproxy.servers(), CONTAINERS);
    took
}
