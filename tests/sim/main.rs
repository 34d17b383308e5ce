//! A deterministic simulation of Docker and HAProxy around the real controller.
//!
//! What lives here: which histories are played, and how a failing one is told. A
//! history follows from its seed alone: the clock stands still unless everybody
//! waits, one thread does everything, and chance comes from the seed.
//!
//! ```text
//!  play ──events, faults──► engine ──Change──► Controller ──lines──► stage ──► haproxy_model
//!    └─────────────── verdict ◄── what should be, what is ◄────────────┘
//! ```
//!
//! `HAPILOT_SIM_SEED=7 HAPILOT_SIM_STEPS=300 cargo nextest run --test simulation
//! haproxy_3_4` plays one history again; without a seed, `HAPILOT_SIM_SEEDS=1000`
//! plays more of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test binary")]

#[path = "../support/chance.rs"]
mod chance;
mod engine;
#[path = "../support/farm.rs"]
mod farm;
#[path = "../support/haproxy_model/mod.rs"]
mod haproxy_model;
#[path = "../support/invariants.rs"]
mod invariants;
mod play;
mod sight;
mod stage;
mod verdict;

use haproxy_model::Release;

/// Histories of each version, and the steps of each: 20,000 steps in all.
const STEPS: usize = 200;

fn seeds(release: Release) -> u64 {
    match release {
        // Deletion is slow there, so the same steps have several times the turns.
        Release::V2_6 => 13,
        _ => 29,
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// A place for the files that HAProxy starts with; in memory where there is one,
/// since forcing them to disk is most of what a history takes.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn histories(release: Release, test: &str) {
    if std::env::var_os("HAPILOT_SIM_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_env("HAPILOT_SIM_LOG"))
            .init();
    }
    let steps = number("HAPILOT_SIM_STEPS").map_or(STEPS, |steps| usize::try_from(steps).unwrap());
    let seeds = match number("HAPILOT_SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("HAPILOT_SIM_SEEDS").unwrap_or_else(|| seeds(release)),
    };
    for seed in seeds {
        played(release, seed, steps).unwrap_or_else(|failure| {
            panic!(
                "{}\n\n{}\n\nto play it again:\nHAPILOT_SIM_SEED={seed} HAPILOT_SIM_STEPS={steps} cargo nextest run \
                 --test simulation {test}",
                failure.story, failure.what
            )
        });
    }
}

fn played(release: Release, seed: u64, steps: usize) -> Result<u64, play::Failure> {
    let dir = scratch();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, play::play(release, seed, steps, dir.path()))
}

#[test]
fn the_same_seed_is_the_same_history() {
    for release in [Release::V2_6, Release::V3_4] {
        let digest = |seed| played(release, seed, 150).unwrap();
        assert_eq!(digest(1), digest(1), "{release:?}");
        assert_ne!(digest(1), digest(2), "{release:?}");
    }
}

macro_rules! each_version {
    ($($name:ident: $release:ident,)*) => {$(
        #[test]
        fn $name() {
            histories(Release::$release, stringify!($name));
        }
    )*};
}

each_version! {
    haproxy_2_6: V2_6,
    haproxy_3_0: V3_0,
    haproxy_3_2: V3_2,
    haproxy_3_4: V3_4,
}
