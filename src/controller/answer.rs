//! Answers to the questions on the admin socket.
//!
//! What lives here: facts of the loop → a report. What it must not know: the
//! report's shape on the wire (`admin`) or on paper (`report::text`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::meanwhile::Meanwhile;
use super::{Controller, Inputs};
use crate::admin::Ask;
use crate::core::claim::Rejection;
use crate::core::container::{Container, ContainerId, EngineName};
use crate::core::desired::Blocked;
use crate::core::name::BackendName;
use crate::core::state::{Admin, Backend, Map};
use crate::haproxy_config::render;
use crate::reconcile::Link;
use crate::report::{
    Counts, Hapilot, Haproxy, Health, HostStatus, Note, PlanReport, PlannedStep, Rejected, ServerState,
    ServerStatus, Status,
};
use crate::runtime_api::Client;

/// A report on servers' health is not older than this; without questions
/// HAProxy is not asked more often than needed.
const FRESH: Duration = Duration::from_secs(1);

/// HAProxy, as far as the report goes.
#[derive(Debug, Default)]
pub(super) struct HaproxyNews {
    version: Option<String>,
    pid: Option<u32>,
    started: Option<SystemTime>,
    error: Option<String>,
}

impl HaproxyNews {
    pub(super) fn connected(&mut self, client: &Client) {
        self.version = Some(client.version().to_string());
        self.pid = Some(client.pid());
        self.started = SystemTime::now().checked_sub(client.uptime());
        self.error = None;
    }

    /// True if this is not what was wrong before.
    pub(super) fn failed(&mut self, error: &str) -> bool {
        let new = self.error.as_deref() != Some(error);
        self.error = Some(error.to_owned());
        new
    }
}

impl Controller {
    pub(super) async fn answer(&mut self, ask: Ask, inputs: &mut Inputs) {
        // Who asked may have gone away meanwhile: then nobody hears the answer.
        match ask {
            Ask::Health(to) => drop(to.send(self.health(None))),
            Ask::Status(to) => {
                if self.link.as_ref().is_some_and(|link| !link.is_current(FRESH)) {
                    self.observe(true, inputs).await;
                }
                drop(to.send(self.status()));
            }
            Ask::Plan(to) => drop(to.send(self.preview(inputs).await)),
            Ask::Render(to) => {
                let rendered = render(&self.config.config, self.reconcile.desired().state());
                drop(to.send(rendered.haproxy_cfg));
            }
        }
    }

    pub(super) fn health(&self, counts: Option<Counts>) -> Health {
        let link = self.link.as_ref();
        let age = link.and_then(Link::age);
        let mut stale = self.engines.doubts();
        if stale.is_empty() && !self.listed {
            stale.push(self.reconcile.desired().place());
        }
        let unreadable = self.told.all_unreadable().count();
        if unreadable > 0 {
            stale.push(format!("{unreadable} containers can't be inspected"));
        }
        Health {
            converged: self.settled && link.is_some(),
            since: seconds(self.settled_since),
            as_of: age.and_then(|age| seconds(SystemTime::now().checked_sub(age))),
            as_of_age_seconds: age.map(|age| age.as_secs()),
            stale,
            hapilot: Hapilot {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                uptime_seconds: self.begun.elapsed().as_secs(),
                mode: self.config.mode,
            },
            docker: self.engines.summary(),
            haproxy: Haproxy {
                connected: link.is_some(),
                place: Some(self.reconcile.desired().place()),
                version: self.haproxy.version.clone(),
                pid: self.haproxy.pid,
                uptime_seconds: self
                    .haproxy
                    .started
                    .and_then(|started| started.elapsed().ok())
                    .map(|uptime| uptime.as_secs()),
                error: self.haproxy.error.clone(),
            },
            counts: counts.unwrap_or_else(|| self.counts()),
            error: self.trouble.clone(),
            role: None,
        }
    }

    fn counts(&self) -> Counts {
        let state = self.reconcile.desired().state();
        Counts {
            hosts: state.maps.get(&Map::Hosts).map_or(0, BTreeMap::len),
            servers: state.backends.values().map(|backend| backend.servers.len()).sum(),
            rejected: self.told.rejected() + self.restarts.held_back(self.begun.elapsed()).len(),
            blocked: self.reconcile.blocked().len(),
        }
    }

    fn status(&self) -> Status {
        let desired = self.reconcile.desired();
        // What HAProxy has, not what it should have; while it is away, what it
        // will start with.
        let state = self.link.as_ref().map_or(desired.state(), |link| &link.observed().state);
        let ambiguous = self.ambiguous_names();
        let hosts = state.maps.get(&Map::Hosts).into_iter().flatten();
        let hosts = hosts.map(|(host, name)| HostStatus {
            host: host.to_string(),
            backend: name.to_string(),
            servers: self.servers(&ambiguous, name.as_str(), state.backends.get(name.as_str())),
        });
        let name = |id: &ContainerId, name: &str| self.qualified(&ambiguous, desired.container(id), name);
        let reject = |rejection: &Rejection| Rejected {
            container: name(&rejection.id, &rejection.container),
            ..Rejected::from(rejection)
        };
        let mut rejected: Vec<Rejected> = desired.rejections().iter().map(reject).collect();
        rejected.extend(self.told.all_unreadable().map(|(id, reason)| Rejected {
            container: name(id, &id.to_string()),
            key: "inspect".to_owned(),
            reason: reason.to_owned(),
        }));
        rejected.extend(self.restarts.held_back(self.begun.elapsed()).into_iter().map(|held| Rejected {
            container: name(&held.id, &held.name),
            key: "restarts".to_owned(),
            reason: held.reason,
        }));
        rejected.sort();
        Status {
            engines: self.engines.status(),
            hosts: hosts.collect(),
            rejected,
            blocked: self.reconcile.blocked().into_iter().map(Note::from).collect(),
            waiting: self.waiting_notes(),
            health: self.health(Some(Counts::default())),
        }
    }

    /// Names that containers of several engines have.
    fn ambiguous_names(&self) -> BTreeSet<&str> {
        let mut engines: BTreeMap<&str, &EngineName> = BTreeMap::new();
        let mut ambiguous = BTreeSet::new();
        if self.engines.are_several() {
            for container in self.reconcile.desired().containers() {
                if engines.insert(&container.name, &container.engine).is_some_and(|e| *e != container.engine)
                {
                    ambiguous.insert(&*container.name);
                }
            }
        }
        ambiguous
    }

    /// A container's name, with its engine's where another engine has one of that
    /// name, too.
    #[expect(clippy::unused_self, reason = "it is about the report")]
    fn qualified(&self, ambiguous: &BTreeSet<&str>, container: Option<&Container>, name: &str) -> String {
        match container {
            Some(container) if ambiguous.contains(&*container.name) => format!("{}/{name}", container.engine),
            _ => name.to_owned(),
        }
    }

    fn servers(
        &self,
        ambiguous: &BTreeSet<&str>,
        name: &str,
        backend: Option<&Backend>,
    ) -> Vec<ServerStatus> {
        let Ok(name) = BackendName::new(name) else { return Vec::new() };
        let servers = backend.into_iter().flat_map(|backend| &backend.servers);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let say = |(server, facts): (&_, &crate::core::state::Server)| {
            let container = self.reconcile.desired().container_of(server);
            let at = crate::core::command::ServerRef {
                backend: name.clone(),
                server: std::clone::Clone::clone(server),
            };
            let seen = self.link.as_ref().and_then(|link| link.operational().get(&at));
            let started = container.and_then(|container| container.started_at);
            ServerStatus {
                name: at.server.to_string(),
                container: container.map(|c| self.qualified(ambiguous, Some(c), &c.name)),
                engine: container.filter(|_| self.engines.are_several()).map(|c| c.engine.to_string()),
                address: facts.address,
                state: ServerState::of(facts.admin, seen.is_none_or(|seen| seen.up)),
                check: seen
                    .filter(|seen| seen.checked && !seen.check.is_empty())
                    .map(|seen| seen.check.clone()),
                age_seconds: started.and_then(|at| now.checked_sub(u64::try_from(at).ok()?)),
            }
        };
        servers.map(say).collect()
    }

    /// Servers in HAProxy that nobody asks for any more.
    fn waiting_notes(&self) -> Vec<Note> {
        // Before Docker's first list nobody knows who asks for what.
        let Some(link) = self.link.as_ref().filter(|_| self.listed) else { return Vec::new() };
        let desired = self.reconcile.desired().state();
        let wanted = |backend: &str, server: &str| {
            desired.backends.get(backend).is_some_and(|backend| backend.servers.contains_key(server))
        };
        link.observed()
            .state
            .servers()
            .filter(|(_, _, facts)| facts.admin == Admin::Maint)
            .filter(|(backend, server, _)| !wanted(backend.as_str(), server.as_str()))
            .map(|(backend, server, _)| Note {
                what: format!("{backend}/{server}"),
                reason: "out of service; deleted as soon as HAProxy allows".to_owned(),
            })
            .collect()
    }

    async fn preview(&mut self, inputs: &mut Inputs) -> PlanReport {
        let blocked = || self.reconcile.blocked().into_iter().map(Note::from).collect();
        let mut report = PlanReport { blocked: blocked(), ..PlanReport::default() };
        if !self.listed {
            report.stale = self.health(None).stale;
            return report;
        }
        let health = self.health(None);
        let Some(link) = self.link.as_mut() else {
            report.stale.push("HAProxy does not answer".to_owned());
            return report;
        };
        let (heard, asked) = (link.client().heard(), &mut self.asked);
        let meanwhile = Meanwhile { health, changes: false, awaited: true, heard, asked, inputs };
        let outcome = match meanwhile.wait_for(self.reconcile.preview(link)).await {
            Ok(outcome) => outcome,
            Err(given_up) => {
                report.stale.push("HAProxy does not answer".to_owned());
                self.given_up(given_up);
                return report;
            }
        };
        match outcome {
            Ok(plan) => {
                report.steps = plan
                    .steps
                    .iter()
                    .map(|step| PlannedStep {
                        command: step.command.to_string(),
                        reason: step.reason.to_string(),
                    })
                    .collect();
                report.waiting = plan
                    .waiting
                    .iter()
                    .map(|waiting| Note {
                        what: waiting.server.to_string(),
                        reason: waiting.reason.to_owned(),
                    })
                    .collect();
            }
            Err(error) => {
                report.stale.push(error.to_string());
                self.broke(&error);
            }
        }
        report
    }
}

impl From<Blocked> for Note {
    fn from(Blocked { what, reason }: Blocked) -> Self {
        Self { what, reason }
    }
}

fn seconds(time: Option<SystemTime>) -> Option<u64> {
    time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs())
}
