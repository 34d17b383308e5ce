//! What the benchmarks stand on: real HAProxy, containers' addresses that
//! answer, a fake engine, and how figures are shown.
//!
//! What lives here: the stage. What it must not know: what is measured.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    dead_code,
    unreachable_pub,
    reason = "a benchmark prints, ends by panicking, and takes from the stage what it needs"
)]

pub mod bare;
pub mod daemon;
#[path = "../../support/fake_docker/mod.rs"]
pub mod fake_docker;
pub mod figures;
pub mod haproxy;
pub mod targets;

/// True for `cargo bench`. Test runners start benchmarks too, to ask what tests
/// they have.
pub fn asked() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
