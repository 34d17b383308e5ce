//! Swarm mode: a manager's engine simply knows more containers.
//!
//! What lives here: what stands between an engine's watch and whoever follows
//! its changes. If the engine manages a swarm, the tasks on other nodes are told
//! as containers, with the same changes, and those on its own node get what
//! their service says of them. What it must not know: what a label means.
//!
//! ```text
//! watch ──Change──────────────────────► dress ──┐
//! events of services and nodes ─► when ─┐       ├─► Change
//! /info /services /nodes /tasks ◄── pace ──► roster
//! ```
//!
//! One question is asked at a time; which, and when, is decided by
//! [`Swarm::next_question`] from what is due. A manager that can't answer (no
//! quorum, say) freezes what is known of other nodes; this node's engine goes on.

mod answer;
mod ask;
mod pace;
mod roster;

#[cfg(test)]
mod tests;

pub(super) use roster::{SERVICE_MARK, TASK_MARK};

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bollard::models::{EventMessage, EventMessageTypeEnum};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::client::DockerClient;
use super::error::DockerError;
use super::events;
use super::watch::{Change, End, WatchConfig};
use crate::backoff::{Backoff, jittered};
use crate::core::container::{Container, ContainerId};
use answer::Role;
use ask::{Answer, Asking, Question};
use pace::{BOOK, Pace};
use roster::{News, Roster};

/// How long the first snapshot waits for the tasks on other nodes. Then it is
/// told without them, and that they are not known: what an earlier hapilot made
/// for them stays.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a container waits until its service has been read.
const SERVICE_PATIENCE: Duration = Duration::from_millis(250);
/// Containers of services on an engine that manages no swarm ask for a look at
/// its role, at most so often.
const ROLE_DOUBT: Duration = Duration::from_secs(5);

type Events = Pin<Box<dyn Stream<Item = Result<EventMessage, DockerError>> + Send>>;

/// When each question that no list of tasks answers is asked next.
#[derive(Debug)]
struct Due {
    role: Instant,
    services: Instant,
    nodes: Instant,
    /// After a failure nothing is asked before this.
    retry: Instant,
}

/// What of a swarm has been read, whenever.
#[derive(Debug, Default)]
struct Readings {
    services: bool,
    nodes: bool,
    tasks: bool,
}

/// Stands between an engine's watch and whoever follows its changes.
pub(super) struct Swarm {
    config: WatchConfig,
    out: mpsc::Sender<Change>,
    roster: Roster,
    pace: Pace,
    /// True while the watch has its connection.
    connected: bool,
    /// Kept only as long as there may be more to ask.
    client: Option<DockerClient>,
    events: Option<Events>,
    /// What the engine said last.
    role: Option<Role>,
    role_asked: Option<Instant>,
    read: Readings,
    due: Due,
    backoff: Backoff,
    /// What went wrong with the last question.
    failure: Option<String>,
    /// What was told of that.
    told: Option<String>,
    /// A change that waits for an answer, at most until then.
    held: Option<(Change, Instant)>,
}

impl Swarm {
    /// Follows the engine of `config`; tells its changes to `out`.
    pub(super) fn new(config: WatchConfig, out: mpsc::Sender<Change>) -> Self {
        let now = Instant::now();
        let backoff = Backoff::new(config.backoff_floor, config.backoff_ceiling);
        Self {
            config,
            out,
            roster: Roster::default(),
            pace: Pace::new(),
            connected: false,
            client: None,
            events: None,
            role: None,
            role_asked: None,
            read: Readings::default(),
            due: Due { role: now, services: now, nodes: now, retry: now },
            backoff,
            failure: None,
            told: None,
            held: None,
        }
    }

    /// Goes on until there are no more changes or nobody listens.
    pub(super) async fn run(mut self, mut changes: mpsc::Receiver<Change>) {
        let mut asking: Option<Asking> = None;
        let relist = Arc::clone(&self.config.relist);
        loop {
            if let Err(_nobody_listens) = self.release().await {
                return;
            }
            if !self.connected {
                asking = None;
            } else if asking.is_none() {
                asking = self.next_question(Instant::now()).map(|question| self.ask(question));
            }
            let next = self.next_due();
            let done = tokio::select! {
                biased;
                change = changes.recv(), if self.held.is_none() => match change {
                    Some(change) => self.take_change(change).await,
                    None => return,
                },
                event = next_event(&mut self.events) => {
                    self.take_event(event);
                    Ok(())
                }
                (asked, answer) = answered(&mut asking), if asking.is_some() => {
                    asking = None;
                    self.take_answer(asked, answer).await
                }
                () = relist.notified() => {
                    self.look_again();
                    Ok(())
                }
                () = until(next), if asking.is_none() => Ok(()),
                () = until(self.held.as_ref().map(|(_, until)| *until)), if self.held.is_some() => Ok(()),
            };
            if let Err(_nobody_listens) = done {
                return;
            }
        }
    }

    /// All is asked anew.
    fn look_again(&mut self) {
        let now = Instant::now();
        self.due = Due { role: now, services: now, nodes: now, retry: now };
        self.pace.moved(now);
    }

    /// What is to be asked now.
    fn next_question(&self, now: Instant) -> Option<Question> {
        if now < self.due.retry {
            return None;
        }
        let role = now >= self.due.role;
        if !role && !self.roster.is_manager() {
            return None;
        }
        if self.client.is_none() {
            return Some(Question::Connect);
        }
        if role {
            return Some(Question::Role);
        }
        if now >= self.due.services {
            return Some(Question::Services);
        }
        if now >= self.due.nodes {
            return Some(Question::Nodes);
        }
        if !self.roster.has_tasks() {
            return None;
        }
        if !self.roster.missing().is_empty() {
            return Some(Question::Missing);
        }
        self.pace.next_due().is_none_or(|due| now >= due).then_some(Question::Tasks)
    }

    /// When the next question is due; only right while none is asked.
    fn next_due(&self) -> Option<Instant> {
        if !self.connected {
            return None;
        }
        let mut next = self.due.role;
        if self.roster.is_manager() {
            next = next.min(self.due.services).min(self.due.nodes);
            if self.roster.has_tasks() {
                next = self.pace.next_due().map_or(next, |due| next.min(due));
            }
        }
        Some(next.max(self.due.retry))
    }

    fn ask(&mut self, question: Question) -> Asking {
        if question == Question::Services && self.events.is_none() {
            // First the events, then what they are about.
            self.events = self.client.as_ref().map(|client| {
                let events = client.events(&events::timestamp(SystemTime::now()), &events::swarm_filters());
                Box::pin(events) as Events
            });
        }
        ask::ask(question, self.client.as_ref(), &self.config, &self.roster)
    }

    async fn take_change(&mut self, change: Change) -> Result<(), End> {
        let now = Instant::now();
        match &change {
            Change::Connected { .. } => {
                self.connected = true;
                (self.client, self.events) = (None, None);
                self.look_again();
            }
            Change::Disconnected { .. } => {
                self.connected = false;
                (self.client, self.events) = (None, None);
            }
            Change::Snapshot { .. } if !self.is_ready() => {
                self.held = Some((change, now + PATIENCE));
                return Ok(());
            }
            Change::Update { changed, .. } if self.lacks_service(changed) => {
                self.due.services = now;
                self.held = Some((change, now + SERVICE_PATIENCE));
                return Ok(());
            }
            _ => {}
        }
        self.pass(change).await
    }

    /// True if one of these belongs to a service that has not been read yet.
    fn lacks_service(&self, containers: &[Container]) -> bool {
        self.roster.is_manager() && containers.iter().any(|container| self.roster.lacks_service_of(container))
    }

    /// True if a snapshot can be completed.
    fn is_ready(&self) -> bool {
        match &self.role {
            None => false,
            Some(Role::None) => true,
            Some(Role::Manager(_) | Role::Undecided(_)) => self.read.tasks,
        }
    }

    /// Passes on what was held back, if its time has come.
    async fn release(&mut self) -> Result<(), End> {
        let Some((change, until)) = &self.held else { return Ok(()) };
        let ripe = match change {
            Change::Update { changed, .. } => !self.lacks_service(changed),
            _ => self.is_ready(),
        };
        if !ripe && Instant::now() < *until {
            return Ok(());
        }
        if !ripe && matches!(change, Change::Snapshot { .. }) && self.told.is_none() {
            let failure = self.failure.clone();
            let waited = || format!("no answer within {} s", PATIENCE.as_secs());
            self.degraded(failure.unwrap_or_else(waited)).await?;
        }
        match self.held.take() {
            Some((change, _)) => self.pass(change).await,
            None => Ok(()),
        }
    }

    /// Completes a change and tells it.
    async fn pass(&mut self, mut change: Change) -> Result<(), End> {
        let now = Instant::now();
        let mut marked = false;
        match &mut change {
            Change::Snapshot { containers, unreadable, .. } => {
                let runs: BTreeSet<&ContainerId> =
                    containers.iter().map(|c| &c.id).chain(unreadable.iter().map(|(id, _)| id)).collect();
                self.roster.retain_here(|id| runs.contains(id));
                for container in containers.iter_mut() {
                    marked |= self.roster.dress(container, now);
                }
                containers.extend(self.roster.all_elsewhere().cloned());
            }
            Change::Update { changed, stopping, gone, .. } => {
                for container in changed.iter_mut() {
                    marked |= self.roster.dress(container, now);
                }
                for id in stopping.iter() {
                    self.roster.stopping(id);
                }
                for id in gone.iter() {
                    self.roster.gone(id);
                }
            }
            Change::Connected { .. } | Change::Disconnected { .. } | Change::Swarm { .. } => {}
        }
        if marked && self.roster.is_manager() {
            self.pace.moved(now);
        } else if marked {
            // Perhaps it manages a swarm by now.
            let earliest = self.role_asked.map_or(now, |asked| asked + ROLE_DOUBT);
            self.due.role = self.due.role.min(earliest);
        }
        self.tell(change).await
    }

    fn take_event(&mut self, event: Option<Result<EventMessage, DockerError>>) {
        let now = Instant::now();
        match event {
            Some(Ok(event)) => {
                match event.typ {
                    Some(EventMessageTypeEnum::SERVICE) => self.due.services = now,
                    Some(EventMessageTypeEnum::NODE) => self.due.nodes = now,
                    _ => return,
                }
                self.pace.moved(now);
            }
            // Opened anew before services are read next.
            Some(Err(_)) | None => self.events = None,
        }
    }

    async fn take_answer(
        &mut self,
        asked: Instant,
        answer: Result<Answer, (Question, DockerError)>,
    ) -> Result<(), End> {
        let now = Instant::now();
        let answer = match answer {
            Ok(answer) => answer,
            Err((question, error)) => return self.take_failure(question, &error).await,
        };
        let mut whole = false;
        let news = match answer {
            Answer::Connected(client) => {
                self.client = Some(*client);
                return Ok(());
            }
            Answer::Role(role) => {
                self.role_asked = Some(now);
                self.due.role = now + jittered(self.config.resync);
                return self.take_role(role).await;
            }
            Answer::Services(services) => {
                self.read.services = true;
                self.due.services = now + BOOK;
                self.roster.take_services(services)
            }
            Answer::Nodes(nodes) => {
                self.read.nodes = true;
                self.due.nodes = now + BOOK;
                let news = self.roster.take_nodes(nodes);
                self.pace.alone(self.roster.is_alone());
                news
            }
            Answer::Tasks(tasks) => {
                self.pace.looked(now, now - asked);
                let (news, moved) = self.roster.take_tasks(tasks, asked);
                if moved {
                    self.pace.moved(now);
                }
                whole = true;
                news
            }
            Answer::Missing(tasks) => self.roster.take_missing(tasks),
        };
        self.tell_news(news, asked).await?;
        // Tasks are asked for last, if there are any.
        whole |= self.read.services && self.read.nodes && !self.roster.has_tasks();
        if whole {
            self.read.tasks = true;
            self.recovered().await?;
        }
        Ok(())
    }

    async fn take_role(&mut self, role: Role) -> Result<(), End> {
        let now = Instant::now();
        let before = self.role.replace(role.clone());
        match role {
            Role::Manager(node) => {
                if before.as_ref() != self.role.as_ref() {
                    tracing::info!(
                        engine = %self.config.address,
                        node = node.as_str(),
                        "the engine manages a swarm: tasks on other nodes are served, too"
                    );
                }
                if let Some(Role::Manager(other)) = before
                    && other != node
                {
                    self.leave(now).await?;
                }
                self.roster.manages(&node);
                match self.failure.take() {
                    // It is a manager, and can't answer all the same.
                    Some(failure) => self.degraded(failure).await,
                    None => Ok(()),
                }
            }
            Role::Undecided(reason) => {
                self.due.role = now;
                self.due.retry = now + self.backoff.next();
                self.degraded(reason).await
            }
            Role::None => {
                self.failure = None;
                // Of several hundred engines most are none, and a connection is 25 kB.
                self.client = None;
                if self.roster.is_manager() {
                    tracing::warn!(
                        engine = %self.config.address,
                        "the engine manages no swarm any more: nothing is known of tasks on other nodes"
                    );
                    self.leave(now).await?;
                }
                self.recovered().await
            }
        }
    }

    /// Forgets the swarm.
    async fn leave(&mut self, asked: Instant) -> Result<(), End> {
        self.read = Readings::default();
        self.events = None;
        self.pace = Pace::new();
        let news = self.roster.leave();
        self.tell_news(news, asked).await
    }

    async fn take_failure(&mut self, question: Question, error: &DockerError) -> Result<(), End> {
        let now = Instant::now();
        self.due.retry = now + self.backoff.next();
        match question {
            // The watch has the same trouble, and says so.
            Question::Connect => Ok(()),
            Question::Role | Question::Services if error.is_refused() => {
                tracing::debug!(engine = %self.config.address, %error, "not asked about a swarm");
                self.due.role = now + jittered(self.config.resync);
                self.take_role(Role::None).await
            }
            Question::Tasks if error.is_not_found() => {
                // One of the services is gone.
                self.due.services = now;
                Ok(())
            }
            Question::Role if !self.roster.is_manager() => {
                tracing::debug!(engine = %self.config.address, %error, "its part in a swarm is not known");
                // One in no swarm had told so once; whether this one is in any is open.
                self.failure = Some(error.to_string());
                Ok(())
            }
            Question::Role => self.degraded(error.to_string()).await,
            Question::Services | Question::Nodes | Question::Tasks | Question::Missing => {
                // Is it still one?
                self.due.role = now;
                self.failure = Some(error.to_string());
                Ok(())
            }
        }
    }

    /// The swarm can't be read: what is known of other nodes stays in force.
    async fn degraded(&mut self, error: String) -> Result<(), End> {
        if self.told.as_ref() == Some(&error) {
            return Ok(());
        }
        // Once: without a quorum a manager answers now this, now that, or nothing.
        if self.told.is_none() {
            tracing::warn!(
                engine = %self.config.address,
                error,
                "the swarm can't be read; tasks on other nodes stay as they were"
            );
        }
        self.told = Some(error.clone());
        self.tell(Change::Swarm { error: Some(error) }).await
    }

    async fn recovered(&mut self) -> Result<(), End> {
        self.backoff.reset();
        self.failure = None;
        if self.told.take().is_none() {
            return Ok(());
        }
        tracing::info!(engine = %self.config.address, "the swarm can be read again");
        self.tell(Change::Swarm { error: None }).await
    }

    async fn tell_news(&mut self, news: News, asked: Instant) -> Result<(), End> {
        if news.is_empty() {
            return Ok(());
        }
        let News { changed, gone } = news;
        let update = Change::Update {
            changed,
            stopping: Vec::new(),
            gone,
            unreadable: Vec::new(),
            event_at: asked,
            inspected_at: Instant::now(),
        };
        self.tell(update).await
    }

    async fn tell(&mut self, change: Change) -> Result<(), End> {
        self.out.send(change).await.map_err(|_| End::NobodyListens)
    }
}

/// The next event; never without a stream.
async fn next_event(events: &mut Option<Events>) -> Option<Result<EventMessage, DockerError>> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// The end of a question; never without one.
async fn answered(asking: &mut Option<Asking>) -> (Instant, Result<Answer, (Question, DockerError)>) {
    match asking {
        Some(asking) => asking.await,
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
