//! `hapilot run` as a process, between a fake Docker engine and real HAProxy:
//! whatever breaks, it converges by itself, and never by a reload.
//!
//! What lives here: what is done to it, and what must be so afterwards; a file for
//! each part that breaks. What it must not know: how hapilot does that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../support/daemon.rs"]
mod daemon;
#[path = "../../support/fake_docker/mod.rs"]
mod fake_docker;

use std::path::Path;
use std::process::Command;

use daemon::{Hapilot, Haproxy, Scene, Streaming, pid_at, until};

/// The body of a test may block: the fake engine has threads of its own.
macro_rules! on {
    ($module:ident, $version:literal: $($test:ident),+ $(,)?) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test($version); })+
        }
    };
}

macro_rules! on_every_version {
    ($($test:ident),+ $(,)?) => {
        on!(haproxy_2_6, "2.6": $($test),+);
        on!(haproxy_3_0, "3.0": $($test),+);
        on!(haproxy_3_2, "3.2": $($test),+);
        on!(haproxy_3_4, "3.4": $($test),+);
    };
}

mod docker;
mod life;
mod machine;
mod plans;
mod socket;

/// An attached hapilot with a host `stays.example` that must be served throughout.
fn with_one_served(scene: &Scene, version: &str, more: &[&str], test: impl FnOnce(&mut Hapilot, &Haproxy)) {
    let haproxy = scene.haproxy(version, more);
    let mut hapilot = scene.attach(more);
    let (stays, _server) = scene.serve("stays", "stays.example");
    scene.docker.run(stays);
    until("served", || scene.visit("stays.example").0 == 200);
    let streaming = Streaming::start(scene, "stays.example");
    test(&mut hapilot, &haproxy);
    assert_eq!(scene.visit("stays.example"), (200, "stays".into()));
    streaming.goes_on();
    assert!(hapilot.is_running());
    assert_eq!(pid_at(&scene.socket()), Some(haproxy.pid()));
}

fn open_up(path: &Path, mode: &str) {
    assert!(Command::new("chmod").arg(mode).arg(path).status().unwrap().success());
}

/// A generator of numbers that differ from run to run of it, but not of the test.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}
