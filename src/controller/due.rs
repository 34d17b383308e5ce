//! Times that the loop remembers.
//!
//! What lives here: when something happened, and when something is due. What it
//! must not know: what is done then.

use tokio::time::Instant;
use tracing::debug;

use crate::core::container::ContainerId;
use crate::metrics::Metrics;
use crate::reconcile::Turn;

/// Events that came together, and when Docker had told what they are about.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) containers: Box<[ContainerId]>,
    pub(super) event: std::time::Instant,
    pub(super) inspected: std::time::Instant,
}

/// Events that have not been acted upon.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Vec<Arrival>);

impl Arrivals {
    /// So many are remembered: while HAProxy is away they may be any number.
    const KEPT: usize = 1_000;

    pub(super) fn note(&mut self, arrival: Arrival) {
        if self.0.len() < Self::KEPT {
            self.0.push(arrival);
        }
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = &ContainerId> {
        self.0.iter().flat_map(|arrival| &arrival.containers)
    }

    /// Tells of each how long it took from there to HAProxy's acknowledgement of the
    /// last command that it led to in this turn; of one that led to none, nothing. A
    /// target of its own: it can be had without all the rest.
    pub(super) fn tell(&self, turn: &Turn, metrics: &Metrics) {
        let acknowledged = |arrival: &Arrival| {
            arrival.containers.iter().filter_map(|id| turn.watched.acknowledged(id)).max()
        };
        for arrival in &self.0 {
            let Some(at) = acknowledged(arrival) else { continue };
            metrics.event_to_ack(at - arrival.event);
            debug!(
                target: "hapilot::latency",
                commands = turn.done,
                since_event_us = (at - arrival.event).as_micros(),
                since_inspect_us = (at - arrival.inspected).as_micros(),
                "acknowledged"
            );
        }
    }
}

/// When something is to be done although nothing happened.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) connect: Instant,
    pub(super) turn: Option<Instant>,
    pub(super) resync: Instant,
    pub(super) heartbeat: Instant,
}
