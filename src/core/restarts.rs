//! Containers that restart again and again.
//!
//! What lives here: who is held back, for how long, and what to say about it.
//! What it must not know: the clock. Times are durations since one moment that
//! never changes (the program's start, say), by a clock that never goes back.
//!
//! The rule: of ends within [`SHORT`] of their start that nobody asked for, the
//! third within [`MEMORY`] is one too many. From then on the container is served
//! only when it has run for a while: 1 s after the third, and twice as long after
//! each further one, up to [`LONGEST`]. It costs the others no command until then.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::claim;
use super::container::{Container, ContainerId};

/// A life shorter than this ends too early.
pub const SHORT: Duration = Duration::from_secs(10);
/// How long an early end is remembered.
pub const MEMORY: Duration = Duration::from_secs(60);
/// The longest that a container is held back from its start on.
pub const LONGEST: Duration = Duration::from_secs(60);
/// So many early ends within [`MEMORY`] are too many.
const TOO_MANY: usize = 3;
/// More need not be remembered: from here on the wait is the longest anyway.
const KEPT: usize = 64;

/// A container that is not served at present because it does not stay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldBack {
    /// The engine's identifier.
    pub id: ContainerId,
    /// Its name, printable.
    pub name: String,
    /// Why, and until when.
    pub reason: String,
}

/// One life of a container, as far as it was seen.
#[derive(Debug)]
struct Life {
    started_at: Option<i64>,
    /// When we saw it begin; `None` if it ran already when we first looked.
    began: Option<Duration>,
    /// Somebody told it to end.
    asked: bool,
}

/// What is remembered of a container that ended early.
#[derive(Debug, Default)]
struct Restless {
    name: String,
    /// Times of the early ends, ascending.
    ends: VecDeque<Duration>,
    /// Its facts, while it is held back.
    held: Option<Container>,
    /// It is in the log that it is held back.
    told: bool,
}

impl Restless {
    fn forget(&mut self, now: Duration) {
        while self.ends.front().is_some_and(|end| *end + MEMORY <= now) {
            self.ends.pop_front();
        }
        if self.ends.len() < TOO_MANY && self.held.is_none() {
            self.told = false;
        }
    }

    fn is_forgotten(&self) -> bool {
        self.ends.is_empty() && self.held.is_none()
    }

    /// How long a life has to last before it is served.
    fn wait(&self) -> Option<Duration> {
        let over = u32::try_from(self.ends.len().checked_sub(TOO_MANY)?).unwrap_or(u32::MAX);
        Some(Duration::from_secs(1_u64.checked_shl(over.min(32)).unwrap_or(u64::MAX)).min(LONGEST))
    }

    /// When the container that is held back is served.
    fn due(&self, lives: &BTreeMap<ContainerId, Life>) -> Option<Duration> {
        let life = lives.get(&self.held.as_ref()?.id);
        let began = life.and_then(|life| life.began).unwrap_or_default();
        Some(began + self.wait().unwrap_or_default())
    }
}

/// What is remembered of the containers that run, and of those that ended early.
#[derive(Debug, Default)]
pub struct Restarts {
    lives: BTreeMap<ContainerId, Life>,
    /// Few as a rule, and looked through on every event; `lives` never is.
    restless: BTreeMap<ContainerId, Restless>,
}

impl Restarts {
    /// New facts about a container that runs. They come back if it may be
    /// served; otherwise they are kept until it may, and whoever serves it must
    /// not any more. `first_look`: it may have run for any time.
    pub fn seen(&mut self, container: Container, first_look: bool, now: Duration) -> Option<Container> {
        if claim::claims(&container).claims.is_empty() {
            return Some(container);
        }
        let (id, asked) = (container.id.clone(), container.stopping);
        let same = self.lives.get(&id).is_some_and(|life| life.started_at == container.started_at);
        let began = match self.lives.get(&id) {
            Some(life) if same => life.began,
            _ => (!first_look).then_some(now),
        };
        self.lives.insert(id.clone(), Life { started_at: container.started_at, began, asked });
        let Some(restless) = self.restless.get_mut(&id) else { return Some(container) };
        if !same {
            restless.forget(now);
            restless.held = None;
        }
        // Who is served already is not taken away while it lives.
        if restless.held.is_some() || (!same && restless.wait().is_some()) {
            restless.name = claim::printable(&container.name, claim::Rejection::CONTAINER_LIMIT);
            restless.held = Some(container);
            return None;
        }
        Some(container)
    }

    /// A container was told to end: its end is nobody's fault.
    pub fn stopping(&mut self, id: &ContainerId) {
        if let Some(life) = self.lives.get_mut(id) {
            life.asked = true;
        }
        if let Some(container) = self.restless.get_mut(id).and_then(|restless| restless.held.as_mut()) {
            container.stopping = true;
        }
    }

    /// A container's process ended.
    pub fn ended(&mut self, id: &ContainerId, now: Duration) {
        let life = self.lives.remove(id);
        if let Some(life) = &life
            && !life.asked
            && life.began.is_some_and(|began| now < began + SHORT)
        {
            let ends = &mut self.restless.entry(id.clone()).or_default().ends;
            ends.push_back(now);
            if ends.len() > KEPT {
                ends.pop_front();
            }
        }
        self.restless.retain(|other, restless| {
            if other == id {
                restless.held = None;
            }
            restless.forget(now);
            !restless.is_forgotten()
        });
    }

    /// All that are not among these have ended, unseen: nobody knows why.
    pub fn retain(&mut self, runs: impl Fn(&ContainerId) -> bool) {
        self.lives.retain(|id, _| runs(id));
        self.restless.retain(|id, restless| {
            if !runs(id) {
                restless.held = None;
            }
            !restless.is_forgotten()
        });
    }

    /// When the next container may be served, if there is one.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.restless.values().filter_map(|restless| restless.due(&self.lives)).min()
    }

    /// The containers that may be served now.
    pub fn take_due(&mut self, now: Duration) -> Vec<Container> {
        let is_due = |restless: &&mut Restless| restless.due(&self.lives).is_some_and(|due| due <= now);
        self.restless.values_mut().filter(is_due).filter_map(|restless| restless.held.take()).collect()
    }

    /// Those that are not served at present: held back, or ended once more.
    #[must_use]
    pub fn held_back(&self, now: Duration) -> Vec<HeldBack> {
        let say = |(id, restless): (&ContainerId, &Restless)| {
            if restless.held.is_none() && !restless.told {
                return None;
            }
            let recent = restless.ends.iter().filter(|end| **end + MEMORY > now).count();
            let between_two_lives = recent >= TOO_MANY && !self.lives.contains_key(id);
            if restless.held.is_none() && !between_two_lives {
                return None;
            }
            let when = match restless.due(&self.lives) {
                Some(due) => format!("tried again in {} s", due.saturating_sub(now).as_secs() + 1),
                None => format!("tried again {} s after its next start", restless.wait()?.as_secs()),
            };
            let reason = format!("restarts again and again ({recent} times in the last minute); {when}");
            Some(HeldBack { id: id.clone(), name: restless.name.clone(), reason })
        };
        self.restless.iter().filter_map(say).collect()
    }

    /// Those that are held back and not in the log yet.
    pub fn take_news(&mut self, now: Duration) -> Vec<HeldBack> {
        let mut news = self.held_back(now);
        news.retain(|held| {
            self.restless
                .get_mut(&held.id)
                .is_some_and(|restless| !std::mem::replace(&mut restless.told, true))
        });
        news
    }
}

#[cfg(test)]
mod tests;
