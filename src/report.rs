//! What hapilot knows about itself, as plain data: `status`, `plan`, `check`.
//!
//! What lives here: the shape of the JSON, its form for people, and the rule by
//! which an instance may call itself well. What it must not know: how anything
//! was found out, the clock, and how a report travels (`admin`).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::core::claim::Rejection;
use crate::core::state::Admin;
use crate::role::ToldRole;

mod text;

/// The head of a report: small however many containers there are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Health {
    /// True if HAProxy has what the containers ask for, as far as hapilot can
    /// know; see [`Health::sealed`]. Whether a change that is blocked counts
    /// is the controller's decision.
    pub converged: bool,
    /// Since when `converged` has its present value, seconds since 1970.
    pub since: Option<u64>,
    /// When HAProxy was last observed completely, seconds since 1970; `None`:
    /// never.
    pub as_of: Option<u64>,
    /// How long ago that was, in seconds, when the report was made.
    pub as_of_age_seconds: Option<u64>,
    /// Why the report may be out of date; empty if it is fresh.
    pub stale: Vec<String>,
    /// hapilot itself.
    pub hapilot: Hapilot,
    /// The engine.
    pub docker: Docker,
    /// HAProxy.
    pub haproxy: Haproxy,
    /// How much there is.
    pub counts: Counts,
    /// The last error of a turn that has not been followed by a good turn.
    pub error: Option<String>,
    /// What keepalived last told; `None` without it. Only the admin server knows.
    #[serde(default)]
    pub role: Option<ToldRole>,
}

/// hapilot itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hapilot {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Whose HAProxy it drives.
    pub mode: Mode,
}

/// Whose HAProxy it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// hapilot's child.
    Spawn,
    /// Somebody else's.
    Attach,
}

/// The connection to the Docker engine; to several, as if they were one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Docker {
    /// True while the stream of events is open and the engine answers; of several
    /// engines, every one.
    pub connected: bool,
    /// The engine's version, once it has answered; the first of several.
    pub engine_version: Option<String>,
    /// Why it is not connected.
    pub error: Option<String>,
}

/// One engine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EngineStatus {
    /// What the operator calls it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// True while the stream of events is open and the engine answers. While it
    /// does not, its containers stay at their last known state.
    pub connected: bool,
    /// It has told what containers it has.
    pub listed: bool,
    /// Its version, once it has answered.
    pub engine_version: Option<String>,
    /// What is wrong with it.
    pub error: Option<String>,
    /// Running containers that it tells of; one that another engine tells of as
    /// well counts for one of them.
    pub containers: usize,
}

/// The connection to HAProxy.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Haproxy {
    /// True while the Runtime API answers.
    pub connected: bool,
    /// Where it is and how that was found out, in words.
    pub place: Option<String>,
    /// Its version, once it has answered: `3.0.11`.
    pub version: Option<String>,
    /// Its process, as it was last seen.
    pub pid: Option<u32>,
    /// Seconds since its start, when it was last seen.
    pub uptime_seconds: Option<u64>,
    /// Why it is not connected.
    pub error: Option<String>,
}

/// How many of each there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Hosts that lead to a backend.
    pub hosts: usize,
    /// Servers in the backends of these hosts.
    pub servers: usize,
    /// Claims that can't be served.
    pub rejected: usize,
    /// Changes that can't be made at present.
    pub blocked: usize,
}

/// How a look at hapilot ends; the worst that holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// HAProxy and Docker answer, and nothing is left to do.
    Well,
    /// HAProxy does not answer hapilot.
    HaproxySilent(String),
    /// What hapilot knows is out of date.
    Stale(String),
    /// Something is still to be done.
    NotConverged(String),
}

impl Health {
    /// Makes the report honest: whoever built it, an instance that is cut off
    /// or has seen nothing yet is not converged, and says why. Doing it twice
    /// changes nothing.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        let mut doubts = Vec::new();
        if !self.haproxy.connected {
            doubts.push(unanswered("HAProxy", self.haproxy.error.as_deref()));
        }
        if !self.docker.connected {
            doubts.push(unanswered("Docker", self.docker.error.as_deref()));
        }
        if self.haproxy.connected && self.as_of.is_none() {
            doubts.push("HAProxy has not been observed yet".to_owned());
        }
        for doubt in doubts {
            if !self.stale.contains(&doubt) {
                self.stale.push(doubt);
            }
        }
        self.converged &= self.stale.is_empty();
        self
    }

    /// Well or not, and why.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let health = self.clone().sealed();
        if !health.haproxy.connected {
            Verdict::HaproxySilent(unanswered("HAProxy", health.haproxy.error.as_deref()))
        } else if !health.stale.is_empty() {
            Verdict::Stale(health.stale.join("; "))
        } else if !health.converged {
            Verdict::NotConverged(match (&health.error, health.counts.blocked) {
                (Some(error), _) => error.clone(),
                (None, 0) => "changes are on their way".to_owned(),
                (None, blocked) => format!("{blocked} blocked, see `hapilot status`"),
            })
        } else {
            Verdict::Well
        }
    }
}

fn unanswered(who: &str, error: Option<&str>) -> String {
    match error {
        Some(error) => format!("{who} does not answer: {error}"),
        None => format!("{who} does not answer"),
    }
}

/// Everything about the present: what `status` shows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The head; its fields stand at the top level of the JSON.
    #[serde(flatten)]
    pub health: Health,
    /// Every engine, in the order of their names.
    #[serde(default)]
    pub engines: Vec<EngineStatus>,
    /// Every host that is served, in the order of the alphabet.
    pub hosts: Vec<HostStatus>,
    /// What can't be served as its container asks.
    pub rejected: Vec<Rejected>,
    /// What can't be done at present and needs a hand or another resource.
    pub blocked: Vec<Note>,
    /// What goes on by itself: draining, waiting for a check.
    pub waiting: Vec<Note>,
}

impl Status {
    /// As [`Health::sealed`], and counts what is in it.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.health.counts = Counts {
            hosts: self.hosts.len(),
            servers: self.hosts.iter().map(|host| host.servers.len()).sum(),
            rejected: self.rejected.len(),
            blocked: self.blocked.len(),
        };
        self.health = self.health.sealed();
        self
    }
}

impl Status {
    /// How many servers visitors should be led to, if HAProxy reaches none of
    /// them; `None` if it reaches one, if there are none, or if HAProxy is away.
    #[must_use]
    pub fn unreached(&self) -> Option<usize> {
        let servers = || self.hosts.iter().flat_map(|host| &host.servers);
        let down = servers().filter(|server| server.state == ServerState::Down).count();
        let reached = servers().any(|server| server.state == ServerState::Up);
        (self.health.haproxy.connected && down > 0 && !reached).then_some(down)
    }
}

/// A host and the backend that serves it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostStatus {
    /// As visitors write it, or `*.domain`.
    pub host: String,
    /// The backend's name in HAProxy.
    pub backend: String,
    /// Its servers, in the order of their names.
    pub servers: Vec<ServerStatus>,
}

/// A server of a backend.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name in HAProxy.
    pub name: String,
    /// The name of the container behind it, as `ENGINE/NAME` where several engines
    /// have one of that name; `None` if hapilot knows none.
    pub container: Option<String>,
    /// Of several engines, the one that tells of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Where the container listens.
    pub address: SocketAddr,
    /// Whether it takes traffic.
    pub state: ServerState,
    /// HAProxy's own words about its last check (`L4OK`, `L4CON`), if any.
    pub check: Option<String>,
    /// Seconds since the container's start, if that is known.
    pub age_seconds: Option<u64>,
}

/// Whether a server takes traffic, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// It takes traffic.
    Up,
    /// It would, but its health check fails.
    Down,
    /// It takes no new traffic.
    Drain,
    /// It takes none and is not checked.
    Maint,
}

impl ServerState {
    /// From the administrative state and, for a server that is ready, whether
    /// HAProxy's check lets it take traffic.
    #[must_use]
    pub fn of(admin: Admin, passes: bool) -> Self {
        match admin {
            Admin::Ready if passes => Self::Up,
            Admin::Ready => Self::Down,
            Admin::Drain => Self::Drain,
            Admin::Maint => Self::Maint,
        }
    }
}

/// Something a container asks for that can't be served.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Rejected {
    /// The container's name, printable.
    pub container: String,
    /// The label, variable or fact at fault.
    pub key: String,
    /// Why, as a sentence without a full stop.
    pub reason: String,
}

impl From<&Rejection> for Rejected {
    fn from(rejection: &Rejection) -> Self {
        Self {
            container: rejection.container.clone(),
            key: rejection.key.clone(),
            reason: rejection.reason.clone(),
        }
    }
}

/// Something that isn't done yet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Note {
    /// What: a host, a server, a command.
    pub what: String,
    /// Why not, and what helps.
    pub reason: String,
}

/// What would be sent now: what `plan` shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PlanReport {
    /// The commands, in their order.
    pub steps: Vec<PlannedStep>,
    /// What a later turn does by itself.
    pub waiting: Vec<Note>,
    /// What can't be done at present.
    pub blocked: Vec<Note>,
    /// Why the plan may be out of date; empty if it is fresh.
    pub stale: Vec<String>,
}

/// One command of a plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlannedStep {
    /// As it would be written on the socket.
    pub command: String,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests;
