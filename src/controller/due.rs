//! Times that the loop remembers.
//!
//! What lives here: when something happened, and when something is due. What it
//! must not know: what is done then.

use tokio::time::Instant;
use tracing::debug;

/// When an event came, and when Docker had told what it is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Arrival {
    pub(super) event: std::time::Instant,
    pub(super) inspected: std::time::Instant,
}

impl Arrival {
    /// Tells how long it took from there to HAProxy's last acknowledgement. A
    /// target of its own: it can be had without all the rest.
    pub(super) fn tell(self, answered: std::time::Instant, commands: usize) {
        debug!(
            target: "hapilot::latency",
            commands,
            since_event_us = (answered - self.event).as_micros(),
            since_inspect_us = (answered - self.inspected).as_micros(),
            "acknowledged"
        );
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
