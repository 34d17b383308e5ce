//! Does a visitor notice anything? The real Docker engine, real HAProxy, 200
//! requests a second, and containers that are stopped, killed, restarted,
//! replaced, scaled and paused meanwhile.
//!
//! What lives here: which case is run how often, and the outcome. Every bound is
//! the one of the project's issue "Continuity"; one that doesn't hold makes the
//! exit code 1, and each failed request is told with HAProxy's own line.
//!
//! `make bench-continuity`, or `cargo bench --bench continuity [CASE…]` (parts of
//! names). `HAPILOT_BENCH_RUNS=1` is a short run (30: the full one, which takes a
//! quarter of an hour), `HAPILOT_BENCH_HAPROXY=3.4` another HAProxy,
//! `HAPILOT_BENCH_KEEP=1` keeps the logs. Needs root, `make setup`'s images and
//! HAProxy versions. Not run by `cargo test`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its result")]
#![allow(
    clippy::cast_precision_loss,
    dead_code,
    unreachable_pub,
    reason = "of what is shared, a part is used"
)]

use std::process::ExitCode;

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/engine.rs"]
mod engine;
#[path = "../support/engine_api.rs"]
mod engine_api;
#[path = "../support/fake_docker/mod.rs"]
mod fake_docker;
#[path = "stage/figures.rs"]
mod figures;

#[path = "continuity/cases.rs"]
mod cases;
#[path = "continuity/cycles.rs"]
mod cycles;
#[path = "continuity/row.rs"]
mod row;
#[path = "continuity/stand.rs"]
mod stand;
#[path = "continuity/streams.rs"]
mod streams;
#[path = "continuity/verdict.rs"]
mod verdict;
#[path = "continuity/visitors.rs"]
mod visitors;

use row::Row;
use stand::Stand;
use tokio::runtime::Runtime;

/// A full run has cases of thirty; all others are in proportion.
const FULL: usize = 30;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let runs = variable("HAPILOT_BENCH_RUNS").map_or(FULL, |text| text.parse().expect("a number of runs"));
    let program = Program {
        chosen: arguments.into_iter().filter(|word| !word.starts_with('-')).collect(),
        runs: runs.clamp(1, FULL),
        version: variable("HAPILOT_BENCH_HAPROXY").unwrap_or_else(|| "3.0".to_owned()),
    };
    let runtime = Runtime::new().unwrap();
    stand::heed_signals(&runtime);
    let mut rows = program.on_the_real_engine(&runtime);
    rows.extend(program.on_the_fake_engine(&runtime));

    row::print("Continuity: 200 requests a second, half of them over kept connections", &rows);
    let broken: Vec<&Row> = rows.iter().filter(|row| !row.broken.is_empty()).collect();
    for row in &broken {
        println!("BROKEN: {}: {}", row.name, row.broken.join("; "));
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is to be run.
struct Program {
    /// Parts of names; none: all.
    chosen: Vec<String>,
    /// Of thirty.
    runs: usize,
    /// HAProxy's, for the cases on the real engine.
    version: String,
}

impl Program {
    fn wants(&self, name: &str) -> bool {
        self.chosen.is_empty() || self.chosen.iter().any(|part| name.contains(part.as_str()))
    }

    /// What `full` is in this run.
    fn share_of(&self, full: usize) -> usize {
        (full * self.runs).div_ceil(FULL)
    }

    fn on_the_real_engine(&self, runtime: &Runtime) -> Vec<Row> {
        let cases: Vec<_> = cases::all().into_iter().filter(|case| self.wants(case.name)).collect();
        if cases.is_empty() {
            return Vec::new();
        }
        let stand = Stand::new(&self.version, runtime.handle().clone());
        let run = |case: cases::Case| {
            let row = (case.run)(&stand, self.share_of(case.runs));
            row.tell();
            row
        };
        cases.into_iter().map(run).collect()
    }

    fn on_the_fake_engine(&self, runtime: &Runtime) -> Vec<Row> {
        let versions = ["2.6", "3.0", "3.2", "3.4"];
        let chosen = versions.into_iter().filter(|version| self.wants(&format!("cycles {version}")));
        let run = |version| {
            let row = cycles::cycles(runtime, version, self.share_of(1_000));
            row.tell();
            row
        };
        chosen.map(run).collect()
    }
}
