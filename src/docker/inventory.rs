//! What we remember of each container: enough to see that it changed.
//!
//! What lives here: fingerprints, which containers can't be read, which were
//! told to end, and what follows from an inspect or a list. What it must not know: sockets, and when
//! a look is taken. The facts themselves are kept once, by whoever receives
//! the changes.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::convert::Listed;
use super::signal::Signals;
use crate::backoff::Backoff;
use crate::core::container::{Container, ContainerId, Endpoint, Health, RunState};
use crate::core::few::Few;

/// The containers of one engine that run, or were last seen running.
#[derive(Debug)]
pub(super) struct Inventory {
    known: HashMap<ContainerId, Known>,
    unreadable: HashMap<ContainerId, Unreadable>,
    signalled: HashMap<ContainerId, Signalled>,
    fingerprints: Fingerprints,
    floor: Duration,
    ceiling: Duration,
    /// Who lives on so long after its stop timeout has survived its stop signal.
    survival: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// Of what a list shows.
    listed: u64,
    /// Of everything.
    facts: u64,
    /// Start of its process, seconds since 1970.
    started_at: Option<i64>,
    /// What was told: that it ends soon.
    stopping: bool,
    stop_signal: u8,
    stop_timeout: Duration,
}

/// What a container was sent. It is kept until its process has ended, or until
/// it is clear that it does not end.
#[derive(Debug, Clone, Copy)]
struct Signalled {
    signals: Signals,
    /// Arrival of the last one.
    at: Instant,
    /// When it is to be looked at again; `None` as long as its stop signal and
    /// timeout are not known.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Unreadable {
    reason: String,
    due: Instant,
    backoff: Backoff,
}

/// What an inspect means for whoever follows the changes.
#[derive(Debug)]
pub(super) enum Outcome {
    /// These are its facts now.
    Changed(Box<Container>),
    /// It no longer runs.
    Gone,
    /// It can't be read, for this reason; what was known stays in force.
    Unreadable(String),
}

impl Inventory {
    /// An empty one; unreadable containers are looked at again after waits
    /// from `floor` to `ceiling`, and those told to end `survival` after their
    /// stop timeout.
    pub(super) fn new(floor: Duration, ceiling: Duration, survival: Duration) -> Self {
        Self {
            known: HashMap::new(),
            unreadable: HashMap::new(),
            signalled: HashMap::new(),
            fingerprints: Fingerprints(RandomState::new()),
            floor,
            ceiling,
            survival,
        }
    }

    /// True if it runs, or ran when it was last seen, or can't be read.
    pub(super) fn contains(&self, id: &ContainerId) -> bool {
        self.known.contains_key(id) || self.unreadable.contains_key(id)
    }

    /// All that [`Self::contains`] is true for.
    pub(super) fn ids(&self) -> impl Iterator<Item = &ContainerId> {
        self.known.keys().chain(self.unreadable.keys().filter(|id| !self.known.contains_key(*id)))
    }

    /// An inspect succeeded. `None` if that changes nothing.
    pub(super) fn read(&mut self, mut container: Container) -> Option<Outcome> {
        self.mark(&mut container);
        if container.run == RunState::Stopped {
            return self.missing(&container.id);
        }
        self.note(&container).then(|| Outcome::Changed(container.into()))
    }

    /// Remembers a container that is marked, if it runs; otherwise it is forgotten.
    /// True if that changes something.
    pub(super) fn note(&mut self, container: &Container) -> bool {
        if container.run == RunState::Stopped {
            return self.missing(&container.id).is_some();
        }
        let known = Known {
            listed: self.fingerprints.of_container(container),
            facts: self.fingerprints.of_all(container),
            started_at: container.started_at,
            stopping: container.stopping,
            stop_signal: container.stop_signal,
            stop_timeout: container.stop_timeout,
        };
        let before = self.known.insert(container.id.clone(), known);
        let was_unreadable = self.unreadable.remove(&container.id).is_some();
        was_unreadable || before != Some(known)
    }

    /// The engine knows no such container, or it doesn't run. `None` if it
    /// wasn't known anyway.
    pub(super) fn missing(&mut self, id: &ContainerId) -> Option<Outcome> {
        self.signalled.remove(id);
        let known = self.known.remove(id).is_some();
        let unreadable = self.unreadable.remove(id).is_some();
        (known || unreadable).then_some(Outcome::Gone)
    }

    /// Its process was sent signals, at this time. True if that is the first
    /// that says that it will end: no inspect shows it, so it is to be told.
    pub(super) fn signalled(&mut self, id: &ContainerId, signals: Signals, at: Instant) -> bool {
        let new = || Signalled { signals: Signals::default(), at, due: None };
        let entry = self.signalled.entry(id.clone()).or_insert_with(new);
        entry.signals.merge(signals);
        let Some(known) = self.known.get_mut(id) else {
            // Its first inspect is still to come.
            entry.at = at;
            return false;
        };
        if signals.end(known.stop_signal) {
            entry.at = at;
            entry.due = Some(at + known.stop_timeout + self.survival);
            return !std::mem::replace(&mut known.stopping, true);
        }
        if entry.due.is_none() {
            self.signalled.remove(id);
        }
        false
    }

    /// It seems to be paused. True if it is to take nothing new from now on and
    /// that was not told yet; its next inspect is news then, whatever it says.
    pub(super) fn pauses(&mut self, id: &ContainerId) -> bool {
        self.known.get_mut(id).is_some_and(|known| !std::mem::replace(&mut known.stopping, true))
    }

    /// A new process began: what was sent to the one before concerns it no more.
    pub(super) fn began(&mut self, id: &ContainerId) {
        self.signalled.remove(id);
    }

    /// Adds to a container's facts what no inspect shows.
    pub(super) fn mark(&mut self, container: &mut Container) {
        let Some(entry) = self.signalled.get_mut(&container.id) else { return };
        let another = self.known.get(&container.id).is_some_and(|k| k.started_at != container.started_at);
        if another || !entry.signals.end(container.stop_signal) {
            self.signalled.remove(&container.id);
            return;
        }
        entry.due = Some(entry.at + container.stop_timeout + self.survival);
        container.stopping = true;
    }

    /// An event says that its process ended at this time, in seconds since
    /// 1970. `None` if that is not certainly later than the start that we know
    /// of: then only an inspect can tell. Of one that can't be inspected the event
    /// is the last word.
    pub(super) fn died(&mut self, id: &ContainerId, at: i64) -> Option<Outcome> {
        let started_at = self.known.get(id).and_then(|known| known.started_at);
        let certain = started_at.is_some_and(|started_at| started_at < at);
        let last_word =
            self.unreadable.contains_key(id) && started_at.is_none_or(|started_at| started_at <= at);
        if certain || last_word { self.missing(id) } else { None }
    }

    /// An inspect failed. `None` if it failed before for the same reason.
    pub(super) fn failed(&mut self, id: &ContainerId, reason: String, now: Instant) -> Option<Outcome> {
        let new = || Unreadable {
            reason: String::new(),
            due: now,
            backoff: Backoff::new(self.floor, self.ceiling),
        };
        let entry = self.unreadable.entry(id.clone()).or_insert_with(new);
        entry.due = now + entry.backoff.next();
        if entry.reason == reason {
            return None;
        }
        entry.reason.clone_from(&reason);
        Some(Outcome::Unreadable(reason))
    }

    /// The time of the next look at a container that is unreadable or should
    /// have ended by then.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let unreadable = self.unreadable.values().map(|entry| entry.due);
        unreadable.chain(self.signalled.values().filter_map(|entry| entry.due)).min()
    }

    /// Containers that should have ended by now, and unreadable ones whose time
    /// has come, at most `limit` of these; each is put off until `busy_until`, by
    /// when the look at it has an outcome.
    pub(super) fn take_due(&mut self, now: Instant, busy_until: Instant, limit: usize) -> Vec<ContainerId> {
        let survived = self.signalled.extract_if(|_, entry| entry.due.is_some_and(|due| due <= now));
        let mut all: Vec<ContainerId> = survived.map(|(id, _)| id).collect();
        let due = self.unreadable.iter_mut().filter(|(_, entry)| entry.due <= now).take(limit);
        all.extend(due.map(|(id, entry)| {
            entry.due = busy_until;
            id.clone()
        }));
        all
    }

    /// True if a list shows nothing new of the container.
    pub(super) fn is_as_listed(&self, id: &ContainerId, fingerprint: u64) -> bool {
        self.known.get(id).is_some_and(|known| known.listed == fingerprint)
    }

    /// How this inventory takes fingerprints.
    pub(super) fn fingerprints(&self) -> Fingerprints {
        self.fingerprints.clone()
    }
}

/// Takes fingerprints. Seeded at random, so that no container can choose facts
/// that collide; clones agree.
#[derive(Debug, Clone)]
pub(super) struct Fingerprints(RandomState);

impl Fingerprints {
    /// Of what a list shows of a container.
    pub(super) fn of_listed(&self, listed: &Listed) -> u64 {
        self.visible(&listed.name, listed.run, listed.health, &listed.networks, &listed.labels)
    }

    fn of_container(&self, container: &Container) -> u64 {
        let Container { name, run, health, networks, labels, .. } = container;
        self.visible(name, *run, *health, networks, labels)
    }

    fn visible(
        &self,
        name: &str,
        run: RunState,
        health: Option<Health>,
        networks: &Few<Arc<str>, Endpoint>,
        labels: &Few<String, String>,
    ) -> u64 {
        let mut hasher = self.0.build_hasher();
        name.hash(&mut hasher);
        // A list hides the health of a paused container.
        let seen = match (run, health) {
            (RunState::Stopped, _) => 0_u8,
            (RunState::Paused, _) => 1,
            (RunState::Running, None) => 2,
            (RunState::Running, Some(Health::Starting)) => 3,
            (RunState::Running, Some(Health::Healthy)) => 4,
            (RunState::Running, Some(Health::Unhealthy)) => 5,
        };
        seen.hash(&mut hasher);
        for (network, endpoint) in networks {
            (network, endpoint.ipv4, endpoint.ipv6, endpoint.network_id()).hash(&mut hasher);
        }
        labels.hash(&mut hasher);
        hasher.finish()
    }

    fn of_all(&self, container: &Container) -> u64 {
        let mut hasher = self.0.build_hasher();
        self.of_container(container).hash(&mut hasher);
        let health = container.health.map(|health| health as u8);
        let mode = format!("{:?}", container.network_mode);
        (health, container.started_at, mode, &container.exposed_ports, &container.env).hash(&mut hasher);
        (&container.published, &container.mounts).hash(&mut hasher);
        for endpoint in container.networks.values() {
            endpoint.network.hash(&mut hasher);
        }
        hasher.finish()
    }
}
