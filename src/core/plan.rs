//! Changes → ordered commands, each with its reason.
//!
//! What lives here: ALL order and safety. What it must not know: how a command
//! is sent, and what came of it.
//!
//! The order of a plan, and the invariant behind each part:
//! 1. **Break.** Servers whose container is gone or has another address leave
//!    first, before anything else: Docker may have handed their address on.
//! 2. **Forget.** Hosts that nobody serves any more lose their map entry, so a
//!    backend that is lent anew can't be reached under its old host.
//! 3. **Make.** Backends and servers are made and take traffic. A container that
//!    has just begun takes none before HAProxy's own check has seen it answer;
//!    but where nobody else is, the first one is let in at once: its visitors
//!    wait for it, which is better than an error.
//! 4. **Switch.** Hosts are pointed at backends that are complete by now.
//! 5. **Clear.** What nobody reaches any more is deleted, as far as HAProxy
//!    allows it at this moment; the rest is left for a later turn.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::claim;
use super::command::{Capabilities, Check, Command, ServerRef};
use super::diff::Change;
use super::name::{BackendName, ClassName, MapWord};
use super::state::{Admin, Map, Observed, Server};
pub use entrance::doubtful;
use entrance::{Entrance, enter, entrances, stand_aside};

/// Why a step is taken. Shown in logs and by `hapilot plan`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No container stands behind the server any more.
    ServerGone,
    /// The container has another address now.
    ServerMoved,
    /// A container joined.
    ServerNew,
    /// The container's state or weight changed.
    ServerChanged,
    /// A host is claimed for the first time.
    HostNew,
    /// A host leads to another backend.
    HostMoved,
    /// No container claims the host any more.
    HostGone,
    /// What its check asks differs.
    Check,
    /// Its visitors are known again in another way.
    Sticky,
    /// A loan of the pool is written down or crossed out.
    Loan,
    /// Sessions went on for too long after their server had left service.
    SessionLimit,
    /// A hand on the socket left it there.
    Stray,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ServerGone => "its container is gone",
            Self::ServerMoved => "its container has another address",
            Self::ServerNew => "a container joined",
            Self::ServerChanged => "its container's state or weight changed",
            Self::HostNew => "the host is claimed",
            Self::HostMoved => "the host moved to another backend",
            Self::HostGone => "no container claims it any more",
            Self::Check => "its containers are checked otherwise",
            Self::Sticky => "its visitors come back in another way",
            Self::Loan => "a backend of the pool is lent or comes back",
            Self::SessionLimit => "its container is gone, and its sessions have had their time",
            Self::Stray => "hapilot did not write it",
        })
    }
}

/// One command and why it is sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// What is sent.
    #[serde(flatten)]
    pub command: Command,
    /// Why.
    pub reason: Reason,
}

/// A server that has to wait for a later plan: to be deleted, or to drain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Waiting {
    /// The server.
    pub server: ServerRef,
    /// What it waits for.
    pub reason: &'static str,
    /// It serves, and will drain when those that are better have come. Any other is
    /// out of service.
    #[serde(skip)]
    pub to_drain: bool,
}

/// What is to be sent, in this order.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Plan {
    /// The commands.
    pub steps: Vec<Step>,
    /// What a later turn has to look at again.
    pub waiting: Vec<Waiting>,
}

impl Plan {
    /// True if HAProxy is as it should be, except for servers that are out of
    /// service already and only wait for their deletion.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.steps.iter().all(|step| is_clearing(&step.command))
    }
}

/// True for the commands that only tidy up what nobody reaches any more. That
/// HAProxy puts them off is normal.
#[must_use]
pub fn is_clearing(command: &Command) -> bool {
    matches!(
        command,
        Command::ShutdownSessions { .. }
            | Command::DelServer { .. }
            | Command::DelBackend { .. }
            | Command::UnpublishBackend { .. }
    )
}

/// What is known of a server that is out of service and could not be deleted yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RemovalFacts {
    /// Seconds since its state last changed (`srv_time_since_last_change`).
    pub unchanged_s: u32,
    /// Sessions, queued requests and connections that it still has; counted
    /// without prompt deletion only.
    pub busy: u64,
}

/// What a plan is made from, besides the changes.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// What it can do.
    pub capabilities: Capabilities,
    /// How it checks servers.
    pub check: Check,
    /// What HAProxy has.
    pub observed: &'a Observed,
    /// For each server that could not be deleted yet.
    pub removals: &'a BTreeMap<ServerRef, RemovalFacts>,
    /// For how long sessions of a server that left service may go on; then they
    /// are cut. Without it one that nobody ends would keep the server for ever.
    pub session_limit: Duration,
    /// Without prompt deletion: for how long a server must have been out of
    /// service. A request that waits for its retry shows in no counter, so it
    /// is (retries + 1) × (1 s + `timeout connect`).
    pub quarantine: Duration,
}

/// Where a server is pointed before it is deleted on an HAProxy without prompt
/// deletion (the discard port, where nobody listens). The idle connections that
/// it keeps forbid its deletion there for as long as its backend has load, and
/// only a change of address closes them (seen on 2.6.12: maint, and maint again,
/// don't).
const DISCARD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// Puts the changes in order.
#[must_use]
pub fn plan(changes: &[Change], ground: &Ground<'_>) -> Plan {
    let mut stages = Stages::default();
    let added: BTreeSet<Standing<'_>> = changes
        .iter()
        .filter_map(|change| match change {
            Change::AddServer(at, server) => standing(at, server),
            _ => None,
        })
        .collect();
    let filling: BTreeSet<&BackendName> = changes.iter().filter_map(becomes_ready).collect();
    let entrances = entrances(changes, ground.observed);
    for change in changes {
        stages.put(change, ground, &added, &filling, &entrances);
    }
    stages.into_plan()
}

/// A container (its short identifier) at an address. An address alone says
/// nothing: Docker hands it on at once.
type Standing<'a> = (&'a str, SocketAddr);

/// The container behind a server; `None` for a server that hapilot didn't name.
fn standing<'a>(at: &'a ServerRef, server: &Server) -> Option<Standing<'a>> {
    Some((claim::id_of_server(&at.server)?, server.address))
}

/// The backend in which a server takes traffic that took none there before.
fn becomes_ready(change: &Change) -> Option<&BackendName> {
    match change {
        Change::AddServer(at, to) if to.admin == Admin::Ready => Some(&at.backend),
        Change::ChangeServer { server, from, to }
            if to.admin == Admin::Ready && (from.admin != Admin::Ready || from.address != to.address) =>
        {
            Some(&server.backend)
        }
        _ => None,
    }
}

/// The parts of a plan, in the order in which they are sent.
#[derive(Default)]
struct Stages {
    break_: Vec<Step>,
    forget: Vec<Step>,
    lend: Vec<Step>,
    make: Vec<Step>,
    publish: Vec<Step>,
    switch: Vec<Step>,
    retire: Vec<Step>,
    clear_servers: Vec<Step>,
    clear_backends: Vec<Step>,
    waiting: Vec<Waiting>,
}

impl Stages {
    fn into_plan(mut self) -> Plan {
        self.publish_what_is_made();
        let stages = [
            self.break_,
            self.forget,
            self.lend,
            self.make,
            self.publish,
            self.switch,
            self.retire,
            self.clear_servers,
            self.clear_backends,
        ];
        Plan { steps: stages.into_iter().flatten().collect(), waiting: self.waiting }
    }

    fn put(
        &mut self,
        change: &Change,
        ground: &Ground<'_>,
        added: &BTreeSet<Standing<'_>>,
        filling: &BTreeSet<&BackendName>,
        entrances: &BTreeMap<&ServerRef, Entrance>,
    ) {
        let entrance = |server| entrances.get(server).copied().unwrap_or(Entrance::Known);
        match change {
            Change::AddBackend(backend) => self.add_backend(backend, ground),
            Change::RemoveBackend(backend) => self.remove_backend(backend, ground),
            Change::AddServer(server, to) => self.add_server(server, to, ground, entrance(server)),
            Change::ChangeServer { server, from, to } => {
                self.change_server(server, from, to, filling.contains(&server.backend), entrance(server));
            }
            Change::RemoveServer(server, from) => {
                // The same container, under another backend: it lives, so it
                // serves until the host has moved.
                let lives = standing(server, from).is_some_and(|standing| added.contains(&standing));
                self.remove_server(server, from, ground, lives);
            }
            Change::AddEntry(map, key, value) => {
                let (map, key, value) = (*map, key.clone(), value.clone());
                match map {
                    Map::Hosts => {
                        let backend = value.clone();
                        let command = Command::AddMap { map, key, value };
                        self.point(&backend, Step { command, reason: Reason::HostNew }, ground);
                    }
                    Map::Checks | Map::Sticky => self.policy(Command::AddMap { map, key, value }),
                    Map::Names => self.lend(Command::AddMap { map, key, value }),
                }
            }
            Change::ChangeEntry(map, key, value) => {
                let (map, key, value) = (*map, key.clone(), value.clone());
                match map {
                    Map::Hosts => {
                        let backend = value.clone();
                        let command = Command::SetMap { map, key, value };
                        self.point(&backend, Step { command, reason: Reason::HostMoved }, ground);
                    }
                    Map::Checks | Map::Sticky => self.policy(Command::SetMap { map, key, value }),
                    Map::Names => self.lend(Command::SetMap { map, key, value }),
                }
            }
            Change::RemoveEntry(map, key) => {
                let (stage, reason) = match map {
                    Map::Hosts => (&mut self.forget, Reason::HostGone),
                    Map::Names => (&mut self.forget, Reason::Loan),
                    // Its servers may be checked until they have left.
                    Map::Checks => (&mut self.retire, Reason::Check),
                    Map::Sticky => (&mut self.retire, Reason::Sticky),
                };
                stage.push(Step { command: Command::DelMap { map: *map, key: key.clone() }, reason });
            }
            Change::RemoveStray(map, reference) => {
                let command = Command::DelMapEntry { map: *map, reference: *reference };
                self.forget.push(Step { command, reason: Reason::Stray });
            }
        }
    }

    fn add_backend(&mut self, backend: &BackendName, ground: &Ground<'_>) {
        if backend.is_pool() || !ground.capabilities.add_backend {
            return;
        }
        let Some(class) = backend.class().and_then(|class| ClassName::new(class).ok()) else { return };
        let command = Command::AddBackend { backend: backend.clone(), class };
        self.make.push(Step { command, reason: Reason::HostNew });
    }

    fn remove_backend(&mut self, backend: &BackendName, ground: &Ground<'_>) {
        if backend.is_pool() || !ground.capabilities.add_backend {
            return;
        }
        let reason = Reason::HostGone;
        self.retire.push(Step { command: Command::UnpublishBackend { backend: backend.clone() }, reason });
        self.clear_backends.push(Step { command: Command::DelBackend { backend: backend.clone() }, reason });
    }

    fn add_server(&mut self, server: &ServerRef, to: &Server, ground: &Ground<'_>, entrance: Entrance) {
        let reason = Reason::ServerNew;
        let make = Command::AddServer {
            server: server.clone(),
            address: to.address,
            weight: to.weight,
            check: ground.check.every(to.making.inter_ms),
            slow_start_ms: to.making.slow_start_ms,
            pool_keywords: !ground.capabilities.pools_by_default,
        };
        self.make.push(Step { command: make, reason });
        self.make.push(Step { command: Command::EnableHealth { server: server.clone() }, reason });
        match to.admin {
            Admin::Ready => enter(&mut self.make, server, Admin::Maint, entrance, reason),
            Admin::Drain => stand_aside(&mut self.make, server, to.making.young, reason),
            Admin::Maint => {}
        }
    }

    fn change_server(
        &mut self,
        server: &ServerRef,
        from: &Server,
        to: &Server,
        filling: bool,
        entrance: Entrance,
    ) {
        let set = |admin| Command::SetServerState { server: server.clone(), admin };
        if from.address != to.address {
            // It may take traffic again when its new address has been read back:
            // the next plan sees to that. 3.4 changes it after the answer.
            let reason = Reason::ServerMoved;
            if from.admin != Admin::Maint {
                self.break_.push(Step { command: set(Admin::Maint), reason });
            }
            let command = Command::SetServerAddress { server: server.clone(), address: to.address };
            self.make.push(Step { command, reason });
            return;
        }
        let reason = Reason::ServerChanged;
        if from.weight != to.weight {
            let command = Command::SetServerWeight { server: server.clone(), weight: to.weight };
            self.make.push(Step { command, reason });
        }
        if from.admin == Admin::Ready && to.admin == Admin::Drain && filling {
            // HAProxy may refuse one of the better ones, or it is moving and
            // not ready before the next plan.
            let reason = "better ones are on their way";
            self.waiting.push(Waiting { server: server.clone(), reason, to_drain: true });
        } else if from.admin != to.admin {
            let stage = match to.admin {
                // A server that can't answer leaves at once; one that is merely
                // worse than others leaves when they have joined.
                Admin::Maint => &mut self.break_,
                Admin::Drain => &mut self.retire,
                Admin::Ready => &mut self.make,
            };
            if from.admin == Admin::Maint {
                // A plan may have been cut off before it could: whether a check
                // is enabled can't be read back, and twice does no harm.
                stage.push(Step { command: Command::EnableHealth { server: server.clone() }, reason });
            }
            match (from.admin, to.admin) {
                (from, Admin::Ready) => enter(stage, server, from, entrance, reason),
                (Admin::Maint, Admin::Drain) => stand_aside(stage, server, to.making.young, reason),
                _ => stage.push(Step { command: set(to.admin), reason }),
            }
        }
    }

    fn remove_server(&mut self, server: &ServerRef, from: &Server, ground: &Ground<'_>, lives: bool) {
        let reason = if lives { Reason::HostMoved } else { Reason::ServerGone };
        if from.admin != Admin::Maint {
            let command = Command::SetServerState { server: server.clone(), admin: Admin::Maint };
            let stage = if lives { &mut self.retire } else { &mut self.break_ };
            stage.push(Step { command, reason });
        }
        let too_long = |facts: &RemovalFacts| {
            from.admin == Admin::Maint
                && Duration::from_secs(u64::from(facts.unchanged_s)) >= ground.session_limit
        };
        if ground.removals.get(server).is_some_and(too_long) {
            let command = Command::ShutdownSessions { server: server.clone() };
            self.clear_servers.push(Step { command, reason: Reason::SessionLimit });
        }
        if let Some(reason) = keeps_from_deletion(server, from, ground) {
            self.waiting.push(Waiting { server: server.clone(), reason, to_drain: false });
            return;
        }
        if !ground.capabilities.prompt_deletion && from.address != DISCARD {
            let command = Command::SetServerAddress { server: server.clone(), address: DISCARD };
            self.clear_servers.push(Step { command, reason });
        }
        self.clear_servers.push(Step { command: Command::DelServer { server: server.clone() }, reason });
    }

    /// Says how a host's servers are to be checked. Before the first server: its
    /// check comes within milliseconds.
    fn policy(&mut self, command: Command) {
        let sticky = matches!(
            command,
            Command::AddMap { map: Map::Sticky, .. } | Command::SetMap { map: Map::Sticky, .. }
        );
        let reason = if sticky { Reason::Sticky } else { Reason::Check };
        self.lend.push(Step { command, reason });
    }

    /// Writes down a loan of the pool. Before the first server: a hapilot that
    /// is killed in between finds out from it whose servers these are.
    fn lend(&mut self, command: Command) {
        self.lend.push(Step { command, reason: Reason::Loan });
    }

    /// A new backend to which the map leads already (HAProxy was started with
    /// older files than its maps, or a hand deleted it) has no step that points
    /// at it; unpublished, it would be passed over for ever.
    fn publish_what_is_made(&mut self) {
        let pointed: BTreeSet<&BackendName> =
            self.publish.iter().filter_map(|step| step.command.backend()).collect();
        let rest: Vec<Step> = self
            .make
            .iter()
            .filter_map(|step| match &step.command {
                Command::AddBackend { backend, .. } if !pointed.contains(backend) => Some(Step {
                    command: Command::PublishBackend { backend: backend.clone() },
                    reason: step.reason,
                }),
                _ => None,
            })
            .collect();
        self.publish.extend(rest);
    }

    /// Points a host at a backend. HAProxy 3.4 passes over a backend that isn't
    /// published; publishing twice does no harm, so a plan that was cut off
    /// between the two needs no memory.
    fn point(&mut self, to: &MapWord, step: Step, ground: &Ground<'_>) {
        if ground.capabilities.add_backend
            && let Ok(backend) = BackendName::new(to.as_str())
            && !backend.is_pool()
        {
            self.publish.push(Step { command: Command::PublishBackend { backend }, reason: step.reason });
        }
        self.switch.push(step);
    }
}

/// Why a server can't be deleted in this plan; `None` if it may be tried.
fn keeps_from_deletion(server: &ServerRef, from: &Server, ground: &Ground<'_>) -> Option<&'static str> {
    if ground.capabilities.prompt_deletion {
        return None;
    }
    if from.admin != Admin::Maint {
        return Some("this HAProxy can only delete it safely a while after it left service");
    }
    let Some(facts) = ground.removals.get(server) else {
        return Some("its connections have not been counted yet");
    };
    if facts.busy > 0 {
        return Some("it still has connections");
    }
    if Duration::from_secs(u64::from(facts.unchanged_s)) < ground.quarantine {
        return Some("a request may still wait for its retry on it");
    }
    None
}

mod entrance;

#[cfg(test)]
mod tests;
