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
    /// Its facts, while it is held back. Few are, so all the others need not have
    /// the room for it.
    held: Option<Box<Container>>,
}

#[derive(Debug, Default)]
struct History {
    name: String,
    /// Times of the early ends, ascending.
    ends: VecDeque<Duration>,
    life: Option<Life>,
    /// It is in the log that it is held back.
    told: bool,
}

impl History {
    fn forget(&mut self, now: Duration) {
        while self.ends.front().is_some_and(|end| *end + MEMORY <= now) {
            self.ends.pop_front();
        }
        if self.ends.len() < TOO_MANY && self.held().is_none() {
            self.told = false;
        }
    }

    /// How long a life has to last before it is served.
    fn wait(&self) -> Option<Duration> {
        let over = u32::try_from(self.ends.len().checked_sub(TOO_MANY)?).unwrap_or(u32::MAX);
        Some(Duration::from_secs(1_u64.checked_shl(over.min(32)).unwrap_or(u64::MAX)).min(LONGEST))
    }

    fn held(&self) -> Option<&Life> {
        self.life.as_ref().filter(|life| life.held.is_some())
    }

    /// When the container that is held back is served.
    fn due(&self) -> Option<Duration> {
        let began = self.held()?.began.unwrap_or_default();
        Some(began + self.wait().unwrap_or_default())
    }
}

/// What is remembered of the containers that run, and of those that ended early.
#[derive(Debug, Default)]
pub struct Restarts {
    histories: BTreeMap<ContainerId, History>,
}

impl Restarts {
    /// New facts about a container that runs. They come back if it may be
    /// served; otherwise they are kept until it may, and whoever serves it must
    /// not any more. `first_look`: it may have run for any time.
    pub fn seen(&mut self, container: Container, first_look: bool, now: Duration) -> Option<Container> {
        if claim::claims(&container).claims.is_empty() {
            return Some(container);
        }
        let history = self.histories.entry(container.id.clone()).or_default();
        let same = history.life.as_ref().is_some_and(|life| life.started_at == container.started_at);
        if !same {
            let began = (!first_look).then_some(now);
            history.forget(now);
            history.life = Some(Life { started_at: container.started_at, began, asked: false, held: None });
        }
        let wait = history.wait();
        let Some(life) = history.life.as_mut() else { return Some(container) };
        life.asked = container.stopping;
        // Who is served already is not taken away while it lives.
        if life.held.is_some() || (!same && wait.is_some()) {
            history.name = claim::printable(&container.name, claim::Rejection::CONTAINER_LIMIT);
            life.held = Some(container.into());
            return None;
        }
        Some(container)
    }

    /// A container was told to end: its end is nobody's fault.
    pub fn stopping(&mut self, id: &ContainerId) {
        if let Some(life) = self.histories.get_mut(id).and_then(|history| history.life.as_mut()) {
            life.asked = true;
            if let Some(container) = life.held.as_mut() {
                container.stopping = true;
            }
        }
    }

    /// A container's process ended.
    pub fn ended(&mut self, id: &ContainerId, now: Duration) {
        self.histories.retain(|_, history| {
            history.forget(now);
            history.life.is_some() || !history.ends.is_empty()
        });
        let Some(history) = self.histories.get_mut(id) else { return };
        let Some(life) = history.life.take() else { return };
        let early = life.began.is_some_and(|began| now < began + SHORT);
        if early && !life.asked {
            history.ends.push_back(now);
            if history.ends.len() > KEPT {
                history.ends.pop_front();
            }
        } else if history.ends.is_empty() {
            self.histories.remove(id);
        }
    }

    /// All that are not among these have ended, unseen: nobody knows why.
    pub fn retain(&mut self, runs: impl Fn(&ContainerId) -> bool) {
        for (id, history) in &mut self.histories {
            if !runs(id) {
                history.life = None;
            }
        }
        self.histories.retain(|_, history| history.life.is_some() || !history.ends.is_empty());
    }

    /// When the next container may be served, if there is one.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.histories.values().filter_map(History::due).min()
    }

    /// The containers that may be served now.
    pub fn take_due(&mut self, now: Duration) -> Vec<Container> {
        let due = self.histories.values_mut().filter(|history| history.due().is_some_and(|due| due <= now));
        due.filter_map(|history| Some(*history.life.as_mut()?.held.take()?)).collect()
    }

    /// Those that are not served at present: held back, or ended once more.
    #[must_use]
    pub fn held_back(&self, now: Duration) -> Vec<HeldBack> {
        let say = |(id, history): (&ContainerId, &History)| {
            let recent = history.ends.iter().filter(|end| **end + MEMORY > now).count();
            let between_two_lives = history.life.is_none() && history.told && recent >= TOO_MANY;
            if history.held().is_none() && !between_two_lives {
                return None;
            }
            let when = match history.due() {
                Some(due) => format!("tried again in {} s", due.saturating_sub(now).as_secs() + 1),
                None => format!("tried again {} s after its next start", history.wait()?.as_secs()),
            };
            let reason = format!("restarts again and again ({recent} times in the last minute); {when}");
            Some(HeldBack { id: id.clone(), name: history.name.clone(), reason })
        };
        self.histories.iter().filter_map(say).collect()
    }

    /// Those that are held back and not in the log yet.
    pub fn take_news(&mut self, now: Duration) -> Vec<HeldBack> {
        let mut news = self.held_back(now);
        news.retain(|held| {
            self.histories
                .get_mut(&held.id)
                .is_some_and(|history| !std::mem::replace(&mut history.told, true))
        });
        news
    }
}

#[cfg(test)]
mod tests;
