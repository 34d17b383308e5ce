//! `hapilot run` as a process, between a fake Docker engine and real HAProxy:
//! whatever breaks, it converges by itself, and never by a reload.
//!
//! What lives here: what is done to it, and what must be so afterwards; a file for
//! each part that breaks. What it must not know: how hapilot does that.
//!
//! The faults that hapilot survives, and where each is shown (`d/`: in this directory):
//!
//! | fault | test |
//! |---|---|
//! | HAProxy killed -9, spawned | `d/life::a_killed_haproxy_is_back_at_once_and_complete`; on the real engine `compose::haproxy_dies_and_is_back` |
//! | HAProxy killed -9, attached | `d/life::haproxy_is_restarted_elsewhere`; `compose::haproxy_restarts` |
//! | HAProxy hangs (SIGSTOP) | `d/socket::a_haproxy_that_hangs`, `d/socket::nobody_waits_for_a_haproxy_that_hangs` |
//! | hapilot killed -9, 200 times during churn | `d/life::killed_fifty_times_during_churn`, four versions; at every part of one long plan `d/plans::killed_in_the_middle_of_a_plan` |
//! | hapilot stopped while things change | `d/life::stopped_while_things_change` |
//! | Docker engine restarted, killed, with live-restore | `engine_faults::restarted_with_live_restore` |
//! | … without live-restore: no stranger answers at an address that changed hands | `engine_faults::restarted_without_live_restore` |
//! | Docker engine hangs | `engine_faults::hangs` |
//! | Docker engine away, cut | `d/docker::the_engine_goes_away_and_comes_back`; `flow/docker/faults::an_engine_that_restarts_is_found_again` |
//! | event stream stalled silently | `d/docker::a_silent_event_stream_is_made_up_for`; `flow/docker/faults::a_stream_that_dies_silently_with_its_engine_is_noticed` |
//! | event stream cut, garbage, an event lost | `flow/docker/faults::a_stream_that_is_cut_leads_to_a_new_snapshot`, `…::garbage_on_the_stream_leads_to_a_new_one`; `d/docker::a_lost_event_is_made_up_for` |
//! | socket full (HAProxy reads no more) | `flow/runtime_api_faults::a_peer_that_stops_reading_is_a_deadline_and_no_deadlock` |
//! | socket slow | `d/socket::a_socket_that_trickles`, `d/socket::a_socket_that_says_nothing` |
//! | socket cut in the middle of a reply, of a plan | `flow/runtime_api_faults::a_close_in_the_middle_of_a_reply_is_no_success`; `d/plans::the_connection_is_cut_in_the_middle_of_a_plan` |
//! | replies that never end | `d/socket::a_reply_that_never_ends`, `d/socket::a_greeting_that_never_ends` |
//! | HAProxy's socket connections exhausted | `d/socket::the_places_of_the_socket_are_taken`, `d/socket::the_places_are_taken_when_hapilot_starts` |
//! | an operator's own changes | `d/plans::a_hand_on_the_socket_is_undone_on_request_and_by_itself`; `compose::a_hand_on_the_socket_is_undone` |
//! | 500 events in a second | `d/docker::five_hundred_events_in_a_second` |
//! | clock jumps | `d/machine::clocks_that_jump` |
//! | disk full: files | `d/machine::a_full_disk`, `d/machine::haproxy_crashes_on_a_full_disk` |
//! | disk full: log | `d/machine::a_full_log` |
//! | pool exhausted | `d/socket::a_full_pool`, `d/socket::a_larger_pool` |
//! | a container's inspect fails, and it dies meanwhile | `d/docker::an_inspect_that_fails_concerns_one_container`, `d/docker::an_unread_container_dies` |
//! | a swarm without a quorum | `d/swarm::no_quorum`; `flow/swarm::without_a_quorum_what_is_known_stays_and_this_node_goes_on` |

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
mod reuse;
mod socket;
mod swarm;

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
