//! How long to wait before trying again.
//!
//! What lives here: the only use of the `backoff` crate. What it must not
//! know: what is being tried.

use std::time::Duration;

use ::backoff::ExponentialBackoff;
use ::backoff::backoff::Backoff as _;

/// By how much a wait may differ from its nominal length, so that several
/// instances don't retry in step.
const JITTER: f64 = 0.3;

/// Waits that double from a floor to a ceiling, each jittered, without end.
#[derive(Debug)]
pub struct Backoff {
    policy: ExponentialBackoff,
    ceiling: Duration,
}

impl Backoff {
    /// Waits from about `floor` to at most `ceiling`.
    #[must_use]
    pub fn new(floor: Duration, ceiling: Duration) -> Self {
        let policy = ExponentialBackoff {
            current_interval: floor,
            initial_interval: floor,
            randomization_factor: JITTER,
            multiplier: 2.0,
            max_interval: ceiling,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { policy, ceiling }
    }

    /// The next wait; longer than the one before, up to the ceiling.
    #[expect(clippy::should_implement_trait, reason = "an endless iterator would invite `collect`")]
    pub fn next(&mut self) -> Duration {
        // `None` would mean "give up", which `max_elapsed_time: None` rules out.
        self.policy.next_backoff().unwrap_or(self.ceiling).min(self.ceiling)
    }

    /// Begins again at the floor: what was tried has worked.
    pub fn reset(&mut self) {
        self.policy.reset();
    }
}

/// `interval`, a tenth longer or shorter, for things that happen regularly.
#[must_use]
pub fn jittered(interval: Duration) -> Duration {
    let mut policy = ExponentialBackoff {
        current_interval: interval,
        initial_interval: interval,
        randomization_factor: 0.1,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    policy.next_backoff().unwrap_or(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_millis(100);
    const CEILING: Duration = Duration::from_secs(10);

    #[test]
    fn it_grows_to_the_ceiling_and_never_ends() {
        let mut backoff = Backoff::new(FLOOR, CEILING);
        let first = backoff.next();
        assert!(first >= FLOOR.mul_f64(0.7) && first <= FLOOR.mul_f64(1.31), "{first:?}");
        let waits: Vec<Duration> = (0..10_000).map(|_| backoff.next()).collect();
        assert!(waits.iter().all(|wait| *wait <= CEILING));
        assert!(waits.iter().skip(8).all(|wait| *wait >= CEILING.mul_f64(0.69)));
    }

    #[test]
    fn a_reset_begins_at_the_floor() {
        let mut backoff = Backoff::new(FLOOR, CEILING);
        for _ in 0..20 {
            backoff.next();
        }
        backoff.reset();
        assert!(backoff.next() <= FLOOR.mul_f64(1.31));
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let minute = Duration::from_secs(60);
        let waits: Vec<Duration> = (0..1000).map(|_| jittered(minute)).collect();
        assert!(waits.iter().all(|w| *w >= minute.mul_f64(0.899) && *w <= minute.mul_f64(1.101)));
        assert!(waits.iter().any(|w| *w != waits[0]), "they differ");
    }
}
