//! What goes on while HAProxy is asked something.
//!
//! What lives here: patience. A HAProxy that hangs is found out by the
//! connection's own deadline after some seconds; so long nobody else waits for
//! it: the end is obeyed at once, who asks how hapilot fares is told what is
//! known, and who asks for more makes the wait short. What it must not know:
//! what HAProxy is asked.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Inputs;
use crate::admin::Ask;
use crate::report::Health;

/// How long a reply of HAProxy may take while somebody waits for an answer that
/// needs it; less than [`crate::admin::AdminHandle::DEADLINE`], pulse included.
pub(super) const PATIENCE: Duration = Duration::from_millis(1_500);
/// A call that takes no longer than this makes everybody wait; longer ones are
/// looked at as often.
const PULSE: Duration = Duration::from_millis(200);
/// HAProxy's silence is worth a word from here on.
const NOTABLE: Duration = Duration::from_millis(500);

/// Why a call was given up. The connection is of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GivenUp {
    /// hapilot is to end.
    Ending,
    /// HAProxy kept silent for [`PATIENCE`], and somebody waits.
    Silent,
}

/// What is known while a call is under way, and who waits for its end.
pub(super) struct Meanwhile<'a> {
    /// The head of the report as it was when the call began.
    pub(super) health: Health,
    /// The call changes HAProxy: what is asked for is not in place before its end.
    pub(super) changes: bool,
    /// The call itself is for somebody's answer.
    pub(super) awaited: bool,
    /// Counts HAProxy's replies.
    pub(super) heard: Arc<AtomicU64>,
    /// Questions that only the end of the call lets us answer.
    pub(super) asked: &'a mut VecDeque<Ask>,
    /// Where questions come from, and the end.
    pub(super) inputs: &'a mut Inputs,
}

impl Meanwhile<'_> {
    /// Waits for a call's end.
    pub(super) async fn wait_for<T>(mut self, call: impl Future<Output = T>) -> Result<T, GivenUp> {
        let mut call = pin!(call);
        let began = Instant::now();
        let (mut pulse, mut last, mut heard) = (began + PULSE, began, self.heard.load(Ordering::Relaxed));
        loop {
            tokio::select! {
                biased;
                outcome = &mut call => return Ok(outcome),
                () = self.inputs.stop.cancelled() => return Err(GivenUp::Ending),
                Some(ask) = self.inputs.asks.recv() => self.asked.push_back(ask),
                () = sleep_until(pulse) => {
                    let now = Instant::now();
                    pulse = now + PULSE;
                    let count = self.heard.load(Ordering::Relaxed);
                    if std::mem::replace(&mut heard, count) != count {
                        last = now;
                    }
                    let silent = now - last;
                    self.answer(silent);
                    if silent >= PATIENCE && (self.awaited || !self.asked.is_empty()) {
                        return Err(GivenUp::Silent);
                    }
                }
            }
        }
    }

    /// Tells how hapilot fares; everything else waits.
    fn answer(&mut self, silent: Duration) {
        for _ in 0..self.asked.len() {
            match self.asked.pop_front() {
                // Who asked may have gone away: then nobody hears it.
                Some(Ask::Health(to)) => drop(to.send(self.health_after(silent))),
                Some(other) => self.asked.push_back(other),
                None => {}
            }
        }
    }

    fn health_after(&self, silent: Duration) -> Health {
        let mut health = self.health.clone();
        health.converged &= !self.changes;
        if silent >= NOTABLE {
            let since = silent.as_secs_f64();
            health.stale.push(format!("HAProxy has not answered for {since:.1} s"));
        }
        health
    }
}

#[cfg(test)]
#[path = "meanwhile_tests.rs"]
mod tests;
