//! Growing pauses. A stand-in with the interface of `crate::backoff`.

use std::time::Duration;

pub(super) struct Backoff {
    pause: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const CEILING: Duration = Duration::from_secs(10);

    pub(super) fn new() -> Self {
        Self { pause: Self::FIRST }
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(Self::CEILING);
        pause
    }

    pub(super) fn reset(&mut self) {
        self.pause = Self::FIRST;
    }
}
