//! One turn: desired, observe, diff, plan, apply, until nothing is left to do.
//!
//! What lives here: the turn, and what is remembered between two of them. What
//! it must not know: why it was woken, and when the next turn is due
//! (`controller`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::Instant as Moment;

use crate::apply::apply;
use crate::core::command::{Capabilities, Check, Command, ServerRef};
use crate::core::container::ContainerId;
use crate::core::desired::{Blocked, Desired, Scope};
use crate::core::diff::{Change, diff};
use crate::core::name::{BackendName, ClassName};
use crate::core::plan::{self, Ground, Plan, RemovalFacts};
use crate::core::simulate::simulate;
use crate::core::state::{Admin, Observed};
use crate::metrics::{Metrics, Outcome};
use crate::observe::{ObserveError, Operational, observe, observe_backend, removal_facts};
use crate::runtime_api::{Client, ClientError, Verdict};

/// A turn ends after this many plans even if each of them made progress; the
/// next turn goes on.
const MAX_PASSES: usize = 8;

/// What a turn is made with.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The classes whose backends are hapilot's.
    pub classes: Vec<ClassName>,
    /// How HAProxy checks servers.
    pub check: Check,
    /// See [`Ground::quarantine`].
    pub quarantine: Duration,
    /// See [`Ground::session_limit`].
    pub session_limit: Duration,
}

/// A connected HAProxy and what is known of it.
#[derive(Debug)]
pub struct Link {
    client: Client,
    observed: Observed,
    operational: BTreeMap<ServerRef, Operational>,
    /// The last full reading.
    observed_at: Option<Moment>,
    /// Something was changed since.
    changed_since: bool,
    /// The remembered state is what HAProxy really has.
    fresh: bool,
    /// Backends to read again before they are compared: 3.4 applies a change of
    /// address after it has answered, and how servers fare changes by itself.
    reread: BTreeSet<BackendName>,
}

impl Link {
    /// Nothing has been read over this connection yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            observed: Observed::default(),
            operational: BTreeMap::new(),
            observed_at: None,
            changed_since: false,
            fresh: false,
            reread: BTreeSet::new(),
        }
    }

    /// The connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The connection, to ask something that changes nothing.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What HAProxy has, as far as it is known.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Whether that was read from HAProxy and nothing speaks against it.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Health of the servers at the last full reading.
    #[must_use]
    pub fn operational(&self) -> &BTreeMap<ServerRef, Operational> {
        &self.operational
    }

    /// The last full reading is not older than this, and nothing was changed
    /// since: what it says of the servers' health still holds.
    #[must_use]
    pub fn is_current(&self, within: Duration) -> bool {
        !self.changed_since && self.age().is_some_and(|age| age <= within)
    }

    /// Age of the last full reading; `None` before the first.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.observed_at.map(|at| at.elapsed())
    }
}

/// Why a turn could not be finished. Either way the connection is of no use any
/// more.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// HAProxy's state could not be read.
    #[error("HAProxy's state can't be read: {0}")]
    Observe(#[from] ObserveError),
    /// The connection broke while a plan was being sent.
    #[error("the connection to HAProxy broke in the middle of a plan: {0}")]
    Apply(#[from] ClientError),
}

/// What came of a turn.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// Commands that succeeded.
    pub done: usize,
    /// Deletions of the last plan that HAProxy put off.
    pub deferred: usize,
    /// Commands of the last plan that HAProxy refused, or that showed its state
    /// to be another than remembered.
    pub failed: usize,
    /// Nothing is left to do but deletions of what is out of service already.
    pub settled: bool,
    /// Servers whose deletion has to wait.
    pub waiting: usize,
    /// Backends where a server that should go serves until another has come up.
    pub hoping: usize,
    /// What came of the watched containers.
    pub watched: Watched,
}

/// When HAProxy acknowledged what containers led to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watched {
    /// The last command that named the container's server; by [`ContainerId::short`].
    servers: BTreeMap<Box<str>, Option<Instant>>,
    /// The last command that named no server (a backend, a map's entry): it may have
    /// been for any of them.
    others: Option<Instant>,
}

impl Watched {
    /// The last command that a container led to; `None` if it led to none.
    #[must_use]
    pub fn acknowledged(&self, id: &ContainerId) -> Option<Instant> {
        let own = self.servers.get(id.short()).copied().flatten();
        own.max(self.others)
    }

    fn note(&mut self, command: &Command, at: Instant) {
        if self.servers.is_empty() {
            return;
        }
        match command.server() {
            None => self.others = Some(at),
            Some(server) => {
                if let Some(last) = server.server.id_part().and_then(|id| self.servers.get_mut(id)) {
                    *last = Some(at);
                }
            }
        }
    }
}

/// What a full reading brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// Nothing that would change a plan.
    None,
    /// Servers came up or went down by themselves: a turn is due.
    Health,
    /// HAProxy was not as remembered: a turn is due.
    State,
}

/// What came of one plan.
struct Pass {
    done: usize,
    deferred: usize,
    stale: usize,
    refused: usize,
}

/// Takes turns.
#[derive(Debug)]
pub struct Reconcile {
    rules: Rules,
    desired: Desired,
    /// The part of the state that has to be compared in the next plan.
    pending: Scope,
    /// The part of it that may have changed since [`Reconcile::take_unwritten`].
    unwritten: Scope,
    problems: Vec<Blocked>,
    /// For the turn that comes next, or is under way.
    watched: Watched,
    metrics: Arc<Metrics>,
}

impl Reconcile {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(rules: Rules, desired: Desired, metrics: Arc<Metrics>) -> Self {
        Self {
            rules,
            desired,
            pending: Scope::default(),
            unwritten: Scope::All,
            problems: Vec::new(),
            watched: Watched::default(),
            metrics,
        }
    }

    /// The desired side.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// The desired side, to be told of containers.
    pub fn desired_mut(&mut self) -> &mut Desired {
        &mut self.desired
    }

    /// What can't be done, and why: hosts without a backend, and commands that
    /// HAProxy refused in the last turn.
    #[must_use]
    pub fn blocked(&self) -> Vec<Blocked> {
        let mut all = self.desired.blocked();
        all.extend(self.problems.iter().cloned());
        all
    }

    /// Takes a state as ground that was not read from HAProxy, to compute what
    /// it should start with.
    pub fn suppose(&mut self, ground: &Observed, capabilities: Capabilities) {
        self.adopt(ground, capabilities);
        self.compute(ground);
    }

    /// Brings the desired state up to date while HAProxy is away: it will start
    /// with that state, so it is its own ground.
    pub fn suppose_applied(&mut self, pool: &BTreeSet<BackendName>) {
        // What one pass gives back to the pool, the next can lend.
        for _ in 0..MAX_PASSES {
            let state = self.desired.state().clone();
            let ground = Observed { state, pool: pool.clone(), ..Observed::default() };
            self.compute(&ground);
            if *self.desired.state() == ground.state {
                break;
            }
        }
    }

    /// What of the desired state may have changed since the last call; all of it at
    /// the first.
    pub fn take_unwritten(&mut self) -> Scope {
        std::mem::take(&mut self.unwritten)
    }

    fn adopt(&mut self, ground: &Observed, capabilities: Capabilities) {
        self.desired.adopt(ground, capabilities);
        self.unwritten = Scope::All;
    }

    fn compute(&mut self, ground: &Observed) {
        let changed = self.desired.compute(ground);
        self.unwritten.merge(changed.clone());
        self.pending.merge(changed);
    }

    /// Reads all of HAProxy's state. Unless it is what is remembered anyway, it
    /// becomes the new ground.
    pub async fn observe(&mut self, link: &mut Link) -> Result<News, TurnError> {
        let mut read = observe(&mut link.client, &self.rules.classes).await?;
        let news = if !link.fresh || read.observed != link.observed {
            link.observed = read.observed;
            self.adopt(&link.observed, link.client.capabilities());
            News::State
        } else {
            let before = std::mem::replace(&mut link.observed.down, std::mem::take(&mut read.observed.down));
            let changed = before.symmetric_difference(&link.observed.down);
            if self.desired.health_changed(changed) { News::Health } else { News::None }
        };
        link.operational = read.operational;
        link.observed_at = Some(Moment::now());
        link.changed_since = false;
        link.fresh = true;
        Ok(news)
    }

    /// The next turn tells when HAProxy acknowledged what these led to.
    pub fn watch<'a>(&mut self, containers: impl IntoIterator<Item = &'a ContainerId>) {
        let servers = containers.into_iter().map(|id| (id.short().into(), None)).collect();
        self.watched = Watched { servers, others: None };
    }

    /// Takes one turn.
    pub async fn turn(&mut self, link: &mut Link) -> Result<Turn, TurnError> {
        let mut turn = Turn::default();
        let mut stale_before = false;
        let mut before = Plan::default();
        for _ in 0..MAX_PASSES {
            self.look(link).await?;
            self.compute(&link.observed);
            let scope = std::mem::take(&mut self.pending);
            let plan = self.plan(link, &scope).await?;
            turn.waiting = plan.waiting.len();
            turn.settled = plan.is_settled();
            turn.hoping = self.desired.hoping().count();
            self.pending.add_backends(plan.waiting.iter().map(|waiting| &waiting.server.backend));
            // Whether the better ones have come up or fallen down by then is to be read.
            let to_drain = plan.waiting.iter().filter(|waiting| waiting.to_drain);
            link.reread.extend(to_drain.map(|waiting| waiting.server.backend.clone()));
            if turn.settled && plan.steps == before.steps {
                // What succeeds as often as it is sent (`unpublish`) is no progress
                // while the rest is put off.
                self.pending.merge(scope);
                break;
            }
            (turn.deferred, turn.failed) = (0, 0);
            if plan.steps.is_empty() {
                break;
            }
            let pass = self.carry_out(link, &plan).await?;
            turn.done += pass.done;
            turn.deferred = pass.deferred;
            turn.failed = pass.refused + pass.stale;
            turn.settled &= turn.failed == 0;
            // What HAProxy refuses doesn't hold up what follows from the rest.
            let news = pass.stale > 0 && !stale_before;
            if pass.done == 0 && !news {
                break;
            }
            stale_before = pass.stale > 0;
            before = plan;
        }
        if turn.failed == 0 {
            self.problems.clear();
        }
        turn.watched = std::mem::take(&mut self.watched);
        Ok(turn)
    }

    /// What would be sent now. Sends nothing, and forgets nothing.
    pub async fn preview(&mut self, link: &mut Link) -> Result<Plan, TurnError> {
        self.look(link).await?;
        self.compute(&link.observed);
        self.plan(link, &Scope::All).await
    }

    /// Reads what is not known, or not any more.
    async fn look(&mut self, link: &mut Link) -> Result<(), TurnError> {
        if !link.fresh {
            link.reread.clear();
            return self.observe(link).await.map(drop);
        }
        link.reread.extend(self.desired.hoping().cloned());
        if link.reread.is_empty() {
            return Ok(());
        }
        let before = link.observed.down.clone();
        for name in std::mem::take(&mut link.reread) {
            observe_backend(&mut link.client, &name, &mut link.observed).await?;
            self.pending.add_backends([&name]);
        }
        self.desired.health_changed(before.symmetric_difference(&link.observed.down));
        Ok(())
    }

    async fn plan(&mut self, link: &mut Link, scope: &Scope) -> Result<Plan, TurnError> {
        let capabilities = link.client.capabilities();
        let mut changes = diff(&link.observed, self.desired.state(), scope);
        let doubtful = plan::doubtful(&changes, &link.observed);
        if !doubtful.is_empty() {
            for backend in &doubtful {
                observe_backend(&mut link.client, backend, &mut link.observed).await?;
            }
            changes = diff(&link.observed, self.desired.state(), scope);
        }
        let removals = removals(&mut link.client, &changes).await?;
        let ground = Ground {
            capabilities,
            check: self.rules.check,
            observed: &link.observed,
            removals: &removals,
            session_limit: self.rules.session_limit,
            quarantine: self.rules.quarantine,
        };
        Ok(plan::plan(&changes, &ground))
    }

    /// Sends a plan and takes its outcome into the remembered state.
    async fn carry_out(&mut self, link: &mut Link, plan: &Plan) -> Result<Pass, TurnError> {
        let applied = apply(&mut link.client, plan).await;
        let mut pass = Pass { done: 0, deferred: 0, stale: 0, refused: 0 };
        for ((step, verdict), at) in plan.steps.iter().zip(&applied.verdicts).zip(&applied.times) {
            self.metrics.command(&step.command, outcome(verdict));
            self.watched.note(&step.command, *at);
            match verdict {
                Verdict::Done => {
                    pass.done += 1;
                    link.changed_since = true;
                    simulate(&mut link.observed, &step.command);
                    if let Command::SetServerAddress { server, .. } = &step.command {
                        link.reread.insert(server.backend.clone());
                    }
                }
                Verdict::Deferred(_) => {
                    pass.deferred += 1;
                    self.pending.add_backends(step.command.backend());
                }
                Verdict::AlreadySo(_) => {
                    pass.stale += 1;
                    link.fresh = false;
                }
                Verdict::Refused(answer) => {
                    if pass.refused == 0 {
                        self.problems.clear();
                    }
                    pass.refused += 1;
                    link.fresh = false;
                    let reason = format!("HAProxy refused `{}`: {answer}", step.command);
                    self.problems.push(Blocked { what: step.command.subject(), reason });
                }
            }
        }
        let Some(error) = applied.error else { return Ok(pass) };
        for step in plan.steps.iter().skip(applied.verdicts.len()) {
            self.metrics.command(&step.command, Outcome::Unanswered);
        }
        Err(error.into())
    }
}

fn outcome(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Done => Outcome::Done,
        Verdict::Deferred(_) => Outcome::Deferred,
        Verdict::AlreadySo(_) => Outcome::Stale,
        Verdict::Refused(_) => Outcome::Refused,
    }
}

/// What must be known of servers that could not be deleted when they left service.
async fn removals(
    client: &mut Client,
    changes: &[Change],
) -> Result<BTreeMap<ServerRef, RemovalFacts>, TurnError> {
    let backends: BTreeSet<&BackendName> = changes
        .iter()
        .filter_map(|change| match change {
            Change::RemoveServer(at, from) if from.admin == Admin::Maint => Some(&at.backend),
            _ => None,
        })
        .collect();
    let count = !client.capabilities().prompt_deletion;
    let mut facts = BTreeMap::new();
    for backend in backends {
        for (server, found) in removal_facts(client, backend, count).await? {
            facts.insert(ServerRef { backend: backend.clone(), server }, found);
        }
    }
    Ok(facts)
}
