//! A session after its snapshot: events, resyncs and retries → inspects →
//! updates.
//!
//! What lives here: which container is inspected when. What it must not know:
//! how a session begins and what happens after its end.
//!
//! The first event is acted upon at once. While inspects are under way, what
//! they find is gathered into one update, at most for [`GATHER`]. A container
//! is never inspected twice at the same time; an event that arrives during its
//! inspect leads to another one afterwards. That a container ended, or was told
//! to end, is told at once: its address may be another's next.
//!
//! A death is told before the inspect that confirms it: Docker announces it and
//! then holds the container's lock while it tears down the network, so that an
//! inspect is answered only 70 to 160 ms later (measured with 20.10), in which
//! visitors would be sent to an address where nobody listens. A pause is told
//! before its inspect, too, which takes 15 ms then: as something that is to take
//! nothing new, until the inspect says what it really is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::client::DockerClient;
use super::error::DockerError;
use super::events::EventStream;
use super::inventory::Outcome;
use super::watch::{Change, End, Watch};
use crate::backoff::jittered;
use crate::core::container::{Container, ContainerId};

/// Results are held back at most so long for others that are under way.
const GATHER: Duration = Duration::from_millis(20);
/// An inspect that takes longer no longer counts against the concurrency, so
/// that hanging ones don't hold up the others.
const SLOW: Duration = Duration::from_millis(250);
/// At most so many inspects are under way, slow ones included.
const UNDER_WAY: usize = 128;
/// At most so many unreadable containers are tried again at once.
const RETRIED: usize = 64;

/// Why a container waits for an inspect.
#[derive(Debug, Clone, Copy)]
struct Reason {
    /// Since when.
    at: Instant,
    /// True if only a resync asked for it: no event told of a change.
    by_resync: bool,
}

/// What the inspects since the last `Update` have found.
#[derive(Debug)]
struct Found {
    outcomes: HashMap<ContainerId, Outcome>,
    /// Those that were told to end.
    stopping: HashSet<ContainerId>,
    /// The oldest reason for an inspect.
    reason_at: Instant,
    /// When they must be told.
    tell_by: Instant,
}

/// The containers in a list, each with its fingerprint if it could be read.
type Listing = Vec<(ContainerId, Option<u64>)>;
type ListingCall = Pin<Box<dyn Future<Output = Result<Listing, DockerError>> + Send>>;

/// A session after its `Snapshot`.
pub(super) struct Following<'a> {
    watch: &'a mut Watch,
    client: DockerClient,
    events: EventStream,
    /// Containers to inspect, in the order of their reasons.
    queue: VecDeque<ContainerId>,
    reasons: HashMap<ContainerId, Reason>,
    /// When each inspect that is under way began.
    under_way: HashMap<ContainerId, Instant>,
    /// Of those the ones whose process ended meanwhile: what the inspect finds may
    /// be older than that.
    outdated: HashSet<ContainerId>,
    found: Option<Found>,
    next_resync: Instant,
    resync_began: SystemTime,
}

impl<'a> Following<'a> {
    /// Begins with an inventory that has just been read.
    pub(super) fn new(watch: &'a mut Watch, client: DockerClient, events: EventStream) -> Self {
        let next_resync = Instant::now() + jittered(watch.config.resync);
        Self {
            watch,
            client,
            events,
            queue: VecDeque::new(),
            reasons: HashMap::new(),
            under_way: HashMap::new(),
            outdated: HashSet::new(),
            found: None,
            next_resync,
            resync_began: SystemTime::now(),
        }
    }

    /// Goes on until the connection is lost or nobody listens.
    pub(super) async fn run(mut self) -> Result<Infallible, End> {
        let client = self.client.clone();
        let relist = Arc::clone(&self.watch.config.relist);
        let mut reads = FuturesUnordered::new();
        let mut listing: Option<ListingCall> = None;
        loop {
            while let Some((id, reason)) = self.next_to_read() {
                let client = &client;
                reads.push(async move { (client.inspect(&id).await, id, reason) });
            }
            let tell_by = self.found.as_ref().map(|found| found.tell_by);
            if tell_by.is_some_and(|by| reads.is_empty() || by <= Instant::now()) {
                self.tell_found().await?;
                continue;
            }
            tokio::select! {
                biased;
                () = self.events.wait() => self.take_events()?,
                Some((result, id, reason)) = reads.next(), if !reads.is_empty() => {
                    self.take_read(result, &id, reason)?;
                }
                answer = finished(&mut listing), if listing.is_some() => {
                    listing = None;
                    self.take_listing(answer?);
                }
                () = relist.notified(), if listing.is_none() => listing = Some(self.list()),
                () = until(Some(self.next_resync)), if listing.is_none() => listing = Some(self.list()),
                () = until(self.watch.inventory.next_due()) => self.take_due(),
                () = until(tell_by) => {}
                () = until(self.lane_free_at()), if !self.queue.is_empty() => {}
            }
        }
    }

    /// Takes the next container that may be inspected now.
    fn next_to_read(&mut self) -> Option<(ContainerId, Reason)> {
        let now = Instant::now();
        let brisk = self.under_way.values().filter(|began| now.duration_since(**began) < SLOW).count();
        if brisk >= self.watch.config.concurrency.max(1) || self.under_way.len() >= UNDER_WAY {
            return None;
        }
        let position = self.queue.iter().position(|id| !self.under_way.contains_key(id))?;
        let id = self.queue.remove(position)?;
        let reason = self.reasons.remove(&id)?;
        self.under_way.insert(id.clone(), now);
        Some((id, reason))
    }

    /// When the next inspect that is under way becomes slow.
    fn lane_free_at(&self) -> Option<Instant> {
        let now = Instant::now();
        self.under_way.values().map(|began| *began + SLOW).filter(|at| *at > now).min()
    }

    fn enqueue(&mut self, id: ContainerId, reason: Reason) {
        if let Some(earlier) = self.reasons.get_mut(&id) {
            earlier.at = earlier.at.min(reason.at);
            earlier.by_resync &= reason.by_resync;
        } else {
            self.queue.push_back(id.clone());
            self.reasons.insert(id, reason);
        }
    }

    fn take_events(&mut self) -> Result<(), End> {
        for (id, touched) in self.events.take()? {
            let concerns_us = touched.may_begin
                || self.watch.inventory.contains(&id)
                || self.reasons.contains_key(&id)
                || self.under_way.contains_key(&id);
            if !concerns_us {
                continue;
            }
            if touched.began {
                self.watch.inventory.began(&id);
            }
            if !touched.signals.is_empty() && self.watch.inventory.signalled(&id, touched.signals, touched.at)
            {
                self.found(touched.at, Instant::now()).stopping.insert(id.clone());
            }
            if touched.paused && self.watch.inventory.pauses(&id) {
                self.found(touched.at, Instant::now()).stopping.insert(id.clone());
            }
            if let Some(at) = touched.died_at {
                if let Some(outcome) = self.watch.inventory.died(&id, at) {
                    self.found(touched.at, Instant::now()).outcomes.insert(id.clone(), outcome);
                }
                if self.under_way.contains_key(&id) {
                    self.outdated.insert(id.clone());
                }
            }
            if touched.look {
                self.enqueue(id, Reason { at: touched.at, by_resync: false });
            }
        }
        Ok(())
    }

    fn take_due(&mut self) {
        let now = Instant::now();
        let busy_until = now + self.watch.config.deadlines.inspect + SLOW;
        for id in self.watch.inventory.take_due(now, busy_until, RETRIED) {
            self.enqueue(id, Reason { at: now, by_resync: false });
        }
    }

    fn take_read(
        &mut self,
        result: Result<Container, DockerError>,
        id: &ContainerId,
        reason: Reason,
    ) -> Result<(), End> {
        self.under_way.remove(id);
        let now = Instant::now();
        let outdated = self.outdated.remove(id);
        let outcome = match result {
            // Another inspect follows.
            Ok(_) if outdated => None,
            Ok(container) => self.watch.inventory.read(container),
            Err(error) if error.is_not_found() => self.watch.inventory.missing(id),
            Err(error) if error.is_unreachable() => return Err(error.into()),
            Err(error) => {
                let outcome = self.watch.inventory.failed(id, error.to_string(), now);
                // Who follows the changes says it; here it would stand twice.
                if outcome.is_some() {
                    tracing::debug!(container = %id, %error, "the container can't be read; its last known state stays");
                }
                outcome
            }
        };
        let Some(outcome) = outcome else { return Ok(()) };
        let changed = matches!(outcome, Outcome::Changed(_) | Outcome::Gone);
        if changed && reason.by_resync && !self.reasons.contains_key(id) {
            self.reopen_events(id);
        }
        let tell_by = if matches!(outcome, Outcome::Gone) { now } else { now + GATHER };
        let found = self.found(reason.at, tell_by);
        // Whether it is to end is among its facts.
        if matches!(outcome, Outcome::Changed(_)) {
            found.stopping.remove(id);
        }
        found.outcomes.insert(id.clone(), outcome);
        Ok(())
    }

    /// What is to be told, by this time at the latest.
    fn found(&mut self, reason_at: Instant, tell_by: Instant) -> &mut Found {
        let new = || Found { outcomes: HashMap::new(), stopping: HashSet::new(), reason_at, tell_by };
        let found = self.found.get_or_insert_with(new);
        found.reason_at = found.reason_at.min(reason_at);
        found.tell_by = found.tell_by.min(tell_by);
        found
    }

    /// A resync found what no event had told: the stream may be dead while the
    /// engine lives. One reopened in vain costs nothing.
    fn reopen_events(&mut self, id: &ContainerId) {
        tracing::warn!(container = %id, "Docker sent no event about a change; opening the event stream anew");
        // What the old stream has brought is read before it is dropped. Its end
        // doesn't matter any more.
        let _ = self.take_events();
        self.events = EventStream::open(self.client.clone(), self.resync_began, self.watch.config.quiet);
    }

    async fn tell_found(&mut self) -> Result<(), End> {
        let Some(found) = self.found.take() else { return Ok(()) };
        let (mut changed, mut gone, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        for (id, outcome) in found.outcomes {
            match outcome {
                Outcome::Changed(container) => changed.push(*container),
                Outcome::Gone => gone.push(id),
                Outcome::Unreadable(reason) => unreadable.push((id, reason)),
            }
        }
        let stopping = found.stopping.into_iter().collect();
        let (event_at, inspected_at) = (found.reason_at, Instant::now());
        self.watch.tell(Change::Update { changed, stopping, gone, unreadable, event_at, inspected_at }).await
    }

    /// Begins a resync.
    fn list(&mut self) -> ListingCall {
        self.next_resync = Instant::now() + jittered(self.watch.config.resync);
        self.resync_began = SystemTime::now();
        let fingerprints = self.watch.inventory.fingerprints();
        let client = self.client.clone();
        Box::pin(async move {
            let mut listing = Listing::new();
            let each = |element| match element {
                Ok(listed) => {
                    let fingerprint = fingerprints.of_listed(&listed);
                    listing.push((listed.id, Some(fingerprint)));
                }
                Err(Some(id)) => listing.push((id, None)),
                Err(None) => {}
            };
            client.list(each).await?;
            Ok(listing)
        })
    }

    /// Has everything inspected that a list shows differently from what is
    /// known, or doesn't show at all: a list alone proves nothing, because it
    /// may be older than the last event.
    fn take_listing(&mut self, listing: Listing) {
        let inventory = &self.watch.inventory;
        let mut doubtful: HashSet<ContainerId> = inventory.ids().cloned().collect();
        for (id, fingerprint) in listing {
            if fingerprint.is_some_and(|fingerprint| inventory.is_as_listed(&id, fingerprint)) {
                doubtful.remove(&id);
            } else {
                doubtful.insert(id);
            }
        }
        let now = Instant::now();
        for id in doubtful {
            // What is under way is being read anyway.
            if !self.under_way.contains_key(&id) {
                self.enqueue(id, Reason { at: now, by_resync: true });
            }
        }
    }
}

/// The end of the call, if there is one; otherwise never.
async fn finished(call: &mut Option<ListingCall>) -> Result<Listing, DockerError> {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

/// Ends at a time, or never.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
