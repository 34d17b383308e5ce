//! Times that the loop remembers.
//!
//! What lives here: when something happened, and when something is due. What it
//! must not know: what is done then.

use tokio::time::Instant;
use tracing::debug;

use crate::metrics::Metrics;

/// When an event came, and when Docker had told what it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
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

    /// Tells of each how long it took from there to HAProxy's last acknowledgement
    /// in the turn that they led to. A target of its own: it can be had without all
    /// the rest.
    pub(super) fn tell(&self, answered: std::time::Instant, commands: usize, metrics: &Metrics) {
        for arrival in &self.0 {
            metrics.event_to_ack(answered - arrival.event);
            debug!(
                target: "hapilot::latency",
                commands,
                events = self.0.len(),
                since_event_us = (answered - arrival.event).as_micros(),
                since_inspect_us = (answered - arrival.inspected).as_micros(),
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
