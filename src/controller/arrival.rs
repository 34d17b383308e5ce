//! From an event to HAProxy's acknowledgement of what follows from it.
//!
//! What lives here: when the oldest event that waits came. What it must not
//! know: what the event was.

use std::time::Instant;

use tracing::debug;

/// When an event came, and when Docker had told what it is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Arrival {
    pub(super) event: Instant,
    pub(super) inspected: Instant,
}

impl Arrival {
    /// Tells how long it took from there to HAProxy's last acknowledgement. A
    /// target of its own: it can be had without all the rest.
    pub(super) fn tell(self, answered: Instant, commands: usize) {
        debug!(
            target: "hapilot::latency",
            commands,
            since_event_us = (answered - self.event).as_micros(),
            since_inspect_us = (answered - self.inspected).as_micros(),
            "acknowledged"
        );
    }
}
