//! When a manager is asked again.
//!
//! What lives here: the intervals, and the rule that chooses between them. What
//! it must not know: the clock, and what is asked.
//!
//! A manager announces that a service was changed, and that a node came or
//! went; of tasks it says nothing, so they are asked for. On another node a task
//! runs 0.3 s after it was assigned at the earliest (measured with 20.10), and
//! within 0.1 s the manager knows. To be routed within a second of that it has to
//! be seen within [`STILL`], at any time: a task that ends by itself is replaced
//! without a word.

use std::time::{Duration, Instant};

/// Between two looks at the tasks while something moves.
pub(super) const QUICK: Duration = Duration::from_millis(100);
/// So long after the last sign of movement looks are quick.
pub(super) const MOVING: Duration = Duration::from_secs(4);
/// Between two looks while nothing moves.
pub(super) const STILL: Duration = Duration::from_millis(500);
/// The same where there is no other node: its own engine's events tell all but
/// that a task is to end, which Docker does some 3 s before it says so to the
/// process (measured with 20.10).
pub(super) const ALONE: Duration = Duration::from_secs(2);
/// The longest that looks are put off because they are costly.
pub(super) const LONGEST: Duration = Duration::from_secs(10);
/// Between two looks at services and nodes that no event asked for.
pub(super) const BOOK: Duration = Duration::from_secs(10);
/// While nothing moves, looks take at most this part of the time: a look at
/// 1,000 tasks costs the manager 20 ms.
const STILL_SHARE: u32 = 50;
/// While something moves, this part.
const QUICK_SHARE: u32 = 4;

/// When to look at tasks next.
#[derive(Debug)]
pub(super) struct Pace {
    moved_at: Option<Instant>,
    /// When the last look ended, and how long it took.
    last: Option<(Instant, Duration)>,
    alone: bool,
}

impl Pace {
    /// The first look is due at once.
    pub(super) fn new() -> Self {
        Self { moved_at: None, last: None, alone: false }
    }

    /// There are other nodes, or not.
    pub(super) fn alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    /// There was a sign of movement.
    pub(super) fn moved(&mut self, now: Instant) {
        self.moved_at = Some(now);
    }

    /// A look has ended.
    pub(super) fn looked(&mut self, now: Instant, took: Duration) {
        self.last = Some((now, took));
    }

    /// When the next look is due; `None` for at once.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let (ended, took) = self.last?;
        let quick = ended + QUICK.max(took * QUICK_SHARE).min(LONGEST);
        let still = if self.alone { ALONE } else { STILL };
        let still = ended + still.max(took * STILL_SHARE).min(LONGEST);
        // A sign of movement calls for a quick look even if it comes in the
        // middle of a long wait.
        let moving = self.moved_at.is_some_and(|moved| ended < moved + MOVING);
        Some(if moving { quick } else { still })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_is_quick_while_something_moves_and_slow_when_still() {
        let began = Instant::now();
        let mut pace = Pace::new();
        assert_eq!(pace.next_due(), None);
        pace.looked(began, MS);
        assert_eq!(pace.next_due(), Some(began + STILL));
        pace.moved(began + 50 * MS);
        assert_eq!(pace.next_due(), Some(began + QUICK));
        let just_before = began + 49 * MS + MOVING;
        pace.looked(just_before, MS);
        assert_eq!(pace.next_due(), Some(just_before + QUICK));
        let later = just_before + MS;
        pace.looked(later, MS);
        assert_eq!(pace.next_due(), Some(later + STILL));
        pace.alone(true);
        assert_eq!(pace.next_due(), Some(later + ALONE));
    }

    #[test]
    fn a_costly_look_is_taken_less_often_but_never_forgotten() {
        let began = Instant::now();
        let mut pace = Pace::new();
        pace.looked(began, 20 * MS);
        assert_eq!(pace.next_due(), Some(began + 1000 * MS));
        pace.looked(began, 5000 * MS);
        assert_eq!(pace.next_due(), Some(began + LONGEST));
        pace.moved(began);
        pace.looked(began, 100 * MS);
        assert_eq!(pace.next_due(), Some(began + 400 * MS));
    }
}
