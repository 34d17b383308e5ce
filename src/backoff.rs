//! How long to wait before trying again.
//!
//! What lives here: the only use of the `backoff` crate, and jitter. What it
//! must not know: what is being tried.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use ::backoff::ExponentialBackoff;
use ::backoff::backoff::Backoff as _;

/// By how much a wait may differ from its nominal length, so that several
/// instances don't retry in step.
const JITTER: f64 = 0.3;
/// The same for things that happen regularly.
const REGULAR_JITTER: f64 = 0.1;

/// Where jitter comes from: numbers that no other process draws, or the same
/// ones again for a run that is to be repeated. Not for secrets.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Default for Jitter {
    fn default() -> Self {
        // Each is keyed anew from the system's randomness.
        Self(RandomState::new().hash_one(0_u8))
    }
}

impl Jitter {
    /// The same seed draws the same numbers.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Another source; what one draws doesn't show in the other.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.draw())
    }

    /// A wait that differs from this one by at most `by` of its length.
    fn of(&mut self, wait: Duration, by: f64) -> Duration {
        // 32 bits are exact in a float.
        let part = f64::from(u32::try_from(self.draw() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        wait.mul_f64(1.0 - by + 2.0 * by * part)
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014).
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Waits that double from a floor to a ceiling, each jittered, without end.
#[derive(Debug)]
pub struct Backoff {
    policy: ExponentialBackoff,
    ceiling: Duration,
    jitter: Jitter,
}

impl Backoff {
    /// Waits from about `floor` to at most `ceiling`.
    #[must_use]
    pub fn new(floor: Duration, ceiling: Duration) -> Self {
        Self::with_jitter(floor, ceiling, Jitter::default())
    }

    /// The same with a jitter of one's own.
    #[must_use]
    pub fn with_jitter(floor: Duration, ceiling: Duration, jitter: Jitter) -> Self {
        let policy = ExponentialBackoff {
            current_interval: floor,
            initial_interval: floor,
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: ceiling,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { policy, ceiling, jitter }
    }

    /// The next wait; longer than the one before, up to the ceiling.
    #[expect(clippy::should_implement_trait, reason = "an endless iterator would invite `collect`")]
    pub fn next(&mut self) -> Duration {
        // `None` would mean "give up", which `max_elapsed_time: None` rules out.
        let nominal = self.policy.next_backoff().unwrap_or(self.ceiling);
        self.jitter.of(nominal, JITTER).min(self.ceiling)
    }

    /// Begins again at the floor: what was tried has worked.
    pub fn reset(&mut self) {
        self.policy.reset();
    }
}

/// `interval`, a tenth longer or shorter, for things that happen regularly.
#[must_use]
pub fn jittered(interval: Duration) -> Duration {
    Jitter::default().of(interval, REGULAR_JITTER)
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
    fn the_same_seed_waits_the_same() {
        let waits = |seed| {
            let mut jitter = Jitter::seeded(seed);
            let mut both =
                [jitter.split(), jitter].map(|jitter| Backoff::with_jitter(FLOOR, CEILING, jitter));
            both.each_mut().map(Backoff::next)
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
        assert_ne!(waits(7)[0], waits(7)[1]);
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let minute = Duration::from_secs(60);
        let waits: Vec<Duration> = (0..1000).map(|_| jittered(minute)).collect();
        assert!(waits.iter().all(|w| *w >= minute.mul_f64(0.899) && *w <= minute.mul_f64(1.101)));
        assert!(waits.iter().any(|w| *w != waits[0]), "they differ");
    }
}
