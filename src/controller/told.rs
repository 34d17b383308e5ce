//! What has been said in the log already, so that it is said once.
//!
//! What lives here: memory of complaints. What it must not know: what they mean.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use crate::core::claim::{Rejection, printable};
use crate::core::container::{ContainerId, EngineName};
use crate::core::desired::{Blocked, Desired};
use crate::core::restarts::HeldBack;

/// Longest reason in the log, in characters.
const REASON_LIMIT: usize = 300;

/// Complaints in force that are in the log.
#[derive(Debug, Default)]
pub(super) struct Told {
    rejections: BTreeMap<ContainerId, Vec<Rejection>>,
    unreadable: BTreeMap<ContainerId, (EngineName, String)>,
    blocked: BTreeSet<Blocked>,
    place: String,
}

impl Told {
    /// Logs the rejections that are new, and forgets those that are no more.
    pub(super) fn rejections(&mut self, desired: &mut Desired, several_engines: bool) {
        for id in desired.take_touched() {
            let now = desired.rejections_of_container(&id);
            let engine = desired.container(&id).filter(|_| several_engines).map(|c| c.engine.as_str());
            let before = self.rejections.remove(&id).unwrap_or_default();
            for rejection in now.iter().filter(|rejection| !before.contains(rejection)) {
                let Rejection { container, id, key, reason } = rejection;
                warn!(engine, container, %id, key, reason, "not served as it asks");
            }
            if !now.is_empty() {
                self.rejections.insert(id, now);
            }
        }
    }

    /// Containers are not served because they don't stay. Who held them back
    /// remembers that it was said.
    #[expect(clippy::unused_self, reason = "what is said in the log is said here")]
    pub(super) fn held_back(&self, news: Vec<HeldBack>) {
        for HeldBack { id, name, reason } in news {
            warn!(container = name, %id, reason, "held back");
        }
    }

    /// A container can't be inspected; what was known of it stays in force.
    pub(super) fn unreadable(&mut self, engine: &EngineName, id: &ContainerId, reason: &str) {
        let reason = printable(reason, REASON_LIMIT);
        if self.unreadable.get(id).is_none_or(|(_, before)| *before != reason) {
            warn!(%id, reason, "the engine does not tell about a container; its last known state stays in force");
            self.unreadable.insert(id.clone(), (engine.clone(), reason));
        }
    }

    /// An engine's full list begins: what it can't inspect is told anew.
    pub(super) fn all_readable(&mut self, engine: &EngineName) {
        self.unreadable.retain(|_, (by, _)| by != engine);
    }

    /// A container could be inspected, or is gone.
    pub(super) fn readable(&mut self, id: &ContainerId) {
        self.unreadable.remove(id);
    }

    /// Where HAProxy is, once that is clear and whenever it changes.
    pub(super) fn place(&mut self, desired: &Desired) {
        let place = desired.place();
        if self.place != place {
            info!("{place}");
            self.place = place;
        }
    }

    /// How many rejections are in force.
    pub(super) fn rejected(&self) -> usize {
        self.rejections.values().map(Vec::len).sum::<usize>() + self.unreadable.len()
    }

    /// The containers that can't be inspected, and why.
    pub(super) fn all_unreadable(&self) -> impl Iterator<Item = (&ContainerId, &str)> {
        self.unreadable.iter().map(|(id, (_, reason))| (id, reason.as_str()))
    }

    /// Logs what is newly blocked, and what is not blocked any more.
    pub(super) fn blocked(&mut self, blocked: &[Blocked]) {
        let now: BTreeSet<Blocked> = blocked.iter().cloned().collect();
        for Blocked { what, reason } in now.difference(&self.blocked) {
            warn!(what, reason, "blocked");
        }
        for Blocked { what, .. } in self.blocked.difference(&now) {
            info!(what, "not blocked any more");
        }
        self.blocked = now;
    }
}
