//! Several engines: one watch each, all told by one channel.
//!
//! What lives here: beginning and ending all watches, and the engine's name on
//! every change. What it must not know: what is told.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::watch::{Change, WatchConfig, watch};
use crate::core::container::EngineName;

/// Changes of one engine that may wait for a place in the common channel.
const WAITING: usize = 16;
/// Inspects that may be under way on all engines together, more or less.
const INSPECTS: usize = 64;

/// So many engines are read at the same time. If all of several hundred were, all
/// that they have would be on its way at once, and be told only at the end.
const READ_AT_ONCE: usize = 32;

/// A change, and on which engine.
#[derive(Debug, Clone)]
pub struct EngineNews {
    /// The engine.
    pub engine: EngineName,
    /// What is new.
    pub change: Change,
}

/// How many connections are kept to each of so many engines, which is also how
/// many inspects run at once while all that an engine has is read: a connection
/// takes 25 kB, and what several hundred engines keep open is to stay small.
#[must_use]
pub fn kept(engines: usize) -> usize {
    (INSPECTS / engines.max(1)).clamp(1, 16)
}

/// How many inspects events may lead to at once on each of so many engines: never
/// one alone, which might hang.
#[must_use]
pub fn concurrency(engines: usize) -> usize {
    kept(engines).max(2)
}

/// Watches all engines until `shutdown` is cancelled or nobody listens to `out`
/// any more. Each rings when `relist` does.
pub async fn watch_all(
    engines: Vec<(EngineName, WatchConfig)>,
    out: mpsc::Sender<EngineNews>,
    relist: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let bells: Vec<Arc<Notify>> = engines.iter().map(|(_, config)| Arc::clone(&config.relist)).collect();
    let turns = Arc::new(Semaphore::new(READ_AT_ONCE));
    let mut watches = JoinSet::new();
    for (engine, config) in engines {
        let config = WatchConfig { turns: Arc::clone(&turns), ..config };
        let (told, mut changes) = mpsc::channel(WAITING);
        watches.spawn(watch(config, told, shutdown.clone()));
        let out = out.clone();
        watches.spawn(async move {
            while let Some(change) = changes.recv().await {
                if out.send(EngineNews { engine: engine.clone(), change }).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(out);
    let ring = async {
        loop {
            relist.notified().await;
            for bell in &bells {
                bell.notify_one();
            }
        }
    };
    tokio::select! {
        () = async { while watches.join_next().await.is_some() {} } => {}
        () = ring => {}
    }
}
