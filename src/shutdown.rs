//! Signals → what the rest waits for.
//!
//! What lives here: the meaning of each signal. What it must not know: what is
//! done about it (`controller` drains and resyncs, `main` exits).

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What signals have asked for so far. Clones look at the same thing.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Cancelled by the first SIGTERM or SIGINT: end softly, within the grace time.
    pub stop: CancellationToken,
    /// Cancelled by the second one: end now, whatever is still open.
    pub abort: CancellationToken,
    /// Notified by SIGHUP: read everything anew, HAProxy's state and Docker's list.
    pub resync: Arc<Notify>,
}

impl Signals {
    /// Begins to listen. Must be called inside a tokio runtime.
    ///
    /// The error is the kernel's, when no handler can be installed.
    pub fn listen() -> io::Result<Self> {
        let signals = Self::default();
        let sources = Sources {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        tokio::spawn(sources.forward(signals.clone()));
        Ok(signals)
    }

    /// One SIGTERM or SIGINT has arrived: the first stops, the second aborts.
    fn end(&self) {
        if self.stop.is_cancelled() {
            self.abort.cancel();
        } else {
            self.stop.cancel();
        }
    }
}

struct Sources {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Sources {
    async fn forward(mut self, signals: Signals) {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reading all of HAProxy's state and Docker's list");
                    signals.resync.notify_one();
                    continue;
                }
            };
            signals.end();
            if signals.abort.is_cancelled() {
                tracing::warn!("{name} again: ending at once");
            } else {
                tracing::info!("{name}: ending softly; once more ends at once");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Number, getpid, kill_process};

    use super::*;

    /// Before the handlers exist a signal would end the process, so only this
    /// test sends some, and only after `listen`.
    #[tokio::test]
    async fn real_signals_arrive() {
        let signals = Signals::listen().unwrap();
        let send = |number| kill_process(getpid(), number).unwrap();
        send(Number::HUP);
        signals.resync.notified().await;
        assert!(!signals.stop.is_cancelled());
        send(Number::INT);
        signals.stop.cancelled().await;
        assert!(!signals.abort.is_cancelled());
        send(Number::TERM);
        signals.abort.cancelled().await;
    }

    #[test]
    fn the_first_stops_and_the_second_aborts() {
        let signals = Signals::default();
        signals.end();
        assert!(signals.stop.is_cancelled());
        assert!(!signals.abort.is_cancelled());
        signals.end();
        assert!(signals.abort.is_cancelled());
    }
}
