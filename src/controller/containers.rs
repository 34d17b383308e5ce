//! News of containers → what is desired.
//!
//! What lives here: a change that an engine tells, carried to whoever remembers
//! something of it. What it must not know: what a fact means (`core`), and when a
//! turn is taken.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::{Arrival, Controller};
use crate::core::container::{Container, ContainerId, EngineName};
use crate::core::inventory::End;
use crate::docker::EngineNews;
use crate::docker::watch::Change;
use crate::metrics::ErrorKind;

/// So long after hapilot's start its own container may be missing from the list
/// of an engine that has just begun it.
const OWN_PATIENCE: Duration = Duration::from_secs(2);

impl Controller {
    pub(super) fn take_news(&mut self, EngineNews { engine, change }: EngineNews) {
        debug!(%engine, ?change, "news from Docker");
        let now = self.begun.elapsed();
        self.reconcile.desired_mut().set_told(self.engines.is_whole(&engine));
        match change {
            Change::Snapshot { containers, unreadable, .. } => {
                let first = self.engines.listed(&engine);
                let listed: BTreeSet<ContainerId> = containers
                    .iter()
                    .map(|c| &c.id)
                    .chain(unreadable.iter().map(|(id, _)| id))
                    .cloned()
                    .collect();
                let missing = self.engines.inventory.missing(&engine, &listed);
                self.restarts.retain(|id| !missing.contains(id));
                self.told.all_readable(&engine);
                for id in &missing {
                    self.take_end(&engine, id, now);
                }
                for container in containers {
                    self.take_facts(&engine, container, first, now);
                }
                self.take_unreadable(&engine, &unreadable);
                self.wake = true;
                // What lies on disk may be from another life.
                self.files.changed(Instant::now(), false);
            }
            Change::Update { changed, stopping, gone, unreadable, event_at, inspected_at } => {
                let changed_ids = changed.iter().map(|container| &container.id);
                let containers = changed_ids.chain(&stopping).chain(&gone).cloned().collect();
                self.arrivals.note(Arrival { containers, event: event_at, inspected: inspected_at });
                for container in changed {
                    self.take_facts(&engine, container, false, now);
                }
                for id in stopping.iter().filter(|id| self.engines.inventory.counts(&engine, id)) {
                    self.restarts.stopping(id);
                    self.reconcile.desired_mut().stopping(id);
                }
                for id in &gone {
                    self.take_end(&engine, id, now);
                }
                self.told.held_back(self.restarts.take_news(now));
                self.take_unreadable(&engine, &unreadable);
                self.wake = true;
            }
            Change::Connected { engine_version, api_version } => {
                debug!(%engine, engine_version, api_version, "connected to Docker");
                self.engines.connected(&engine, engine_version);
            }
            Change::Swarm { error } => {
                self.engines.swarm(&engine, error);
                self.wake = true;
            }
            Change::Disconnected { error } => {
                self.metrics.error(ErrorKind::Docker);
                let desired = self.reconcile.desired();
                let instead = self.engines.failed(&engine, error, |id| desired.container(id).cloned());
                self.wake |= !instead.is_empty();
                for container in instead {
                    self.serve(container, true, now);
                }
            }
        }
        self.reconcile.desired_mut().set_told(true);
        self.judge_completeness();
    }

    /// Every engine has told what it has, hapilot's own container included: where
    /// HAProxy is can't be said without it. If it has not come for a while, it is
    /// on none of these engines.
    pub(super) fn judge_completeness(&mut self) {
        let patient = self.begun.elapsed() < OWN_PATIENCE && self.reconcile.desired().lacks_own_container();
        let complete = self.engines.all_whole() && !patient;
        self.reconcile.desired_mut().set_complete(complete);
        self.listed = self.engines.any_listed() && !self.reconcile.desired().is_looking_for_haproxy();
    }

    /// When to judge again although nothing is told; `None` if nothing is awaited.
    pub(super) fn own_due(&self) -> Option<Instant> {
        let awaited = self.engines.all_whole() && self.reconcile.desired().is_looking_for_haproxy();
        awaited.then(|| self.begun + OWN_PATIENCE)
    }

    /// An engine tells facts about a container.
    fn take_facts(&mut self, engine: &EngineName, container: Container, first: bool, now: Duration) {
        let desired = self.reconcile.desired();
        let container = Container { engine: engine.clone(), ..container };
        let counts = self.engines.inventory.told(container, |id| desired.container(id).cloned());
        if let Some(container) = counts {
            self.told.readable(&container.id);
            self.serve(container, first, now);
        }
    }

    fn serve(&mut self, container: Container, first: bool, now: Duration) {
        let id = container.id.clone();
        let desired = self.reconcile.desired_mut();
        match self.restarts.seen(container, first, now) {
            Some(container) => desired.set(container),
            None => desired.remove(&id),
        }
    }

    /// An engine says that a container runs no more.
    fn take_end(&mut self, engine: &EngineName, id: &ContainerId, now: Duration) {
        match self.engines.inventory.ended(engine, id) {
            End::Gone => {
                self.told.readable(id);
                self.restarts.ended(id, now);
                self.reconcile.desired_mut().remove(id);
            }
            End::Instead(container) => self.serve(*container, true, now),
            End::Unheard => {}
        }
    }

    /// An engine can't tell about these.
    fn take_unreadable(&mut self, engine: &EngineName, unreadable: &[(ContainerId, String)]) {
        for (id, reason) in unreadable {
            if self.engines.inventory.unreadable(engine, id) {
                self.told.unreadable(engine, id, reason);
                self.reconcile.desired_mut().unreadable(id);
            }
        }
    }
}
