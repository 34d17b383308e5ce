//! News of containers → what is desired.
//!
//! What lives here: a change that an engine tells, carried to whoever remembers
//! something of it. What it must not know: what a fact means (`core`), and when a
//! turn is taken.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tracing::debug;

use super::{Arrival, Controller};
use crate::docker::watch::Change;
use crate::metrics::ErrorKind;

impl Controller {
    pub(super) fn take_change(&mut self, change: Change) {
        debug!(?change, "news from Docker");
        let now = self.begun.elapsed();
        let desired = self.reconcile.desired_mut();
        match change {
            Change::Snapshot { containers, unreadable, .. } => {
                self.told.all_readable();
                for (id, reason) in &unreadable {
                    self.told.unreadable(id, reason);
                }
                let unreadable: BTreeSet<_> = unreadable.into_iter().map(|(id, _)| id).collect();
                let runs: BTreeSet<_> =
                    containers.iter().map(|c| &c.id).chain(&unreadable).cloned().collect();
                self.restarts.retain(|id| runs.contains(id));
                let first = !self.listed;
                let served = containers.into_iter().filter_map(|c| self.restarts.seen(c, first, now));
                self.docker.listed();
                desired.set_complete(self.docker.is_whole());
                desired.replace_readable(served.collect(), &unreadable);
                self.listed = true;
                self.wake = true;
                // What lies on disk may be from another life.
                self.files.changed(Instant::now(), false);
            }
            Change::Update { changed, stopping, gone, unreadable, event_at, inspected_at } => {
                for container in changed {
                    self.told.readable(&container.id);
                    let id = container.id.clone();
                    match self.restarts.seen(container, false, now) {
                        Some(container) => desired.set(container),
                        None => desired.remove(&id),
                    }
                }
                for id in &stopping {
                    self.restarts.stopping(id);
                    desired.stopping(id);
                }
                for id in &gone {
                    self.told.readable(id);
                    self.restarts.ended(id, now);
                    desired.remove(id);
                }
                self.told.held_back(self.restarts.take_news(now));
                for (id, reason) in &unreadable {
                    self.told.unreadable(id, reason);
                }
                let arrival = Arrival { event: event_at, inspected: inspected_at };
                self.oldest = Some(self.oldest.map_or(arrival, |oldest| oldest.min(arrival)));
                self.wake = true;
            }
            Change::Connected { engine_version, api_version } => {
                debug!(engine_version, api_version, "connected to Docker");
                self.docker.connected(engine_version);
            }
            Change::Swarm { error } => {
                self.docker.swarm(error);
                desired.set_complete(self.docker.is_whole());
                self.wake = true;
            }
            Change::Disconnected { error } => {
                self.metrics.error(ErrorKind::Docker);
                self.docker.failed(error);
            }
        }
    }
}
