//! Facts about one container, as any engine could tell them.
//!
//! What lives here: plain data, filled by `docker::convert`. What it must not
//! know: bollard, HAProxy, and what a label means. All text in here except the
//! identifiers is untrusted.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::Serialize;

/// The engine's name for a container: `[A-Za-z0-9_.-]`, 1 to 128 bytes (Docker
/// uses 64 hexadecimal digits).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct ContainerId(Arc<str>);

impl ContainerId {
    /// Takes a text as an identifier; `None` if it is outside the alphabet.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fine = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        fine.then(|| Self(text.into()))
    }

    /// The whole identifier.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve characters, as `docker ps` shows.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.short())
    }
}

/// What the container's process is doing (`State.Status` of an inspect).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Its process runs.
    Running,
    /// Frozen by `docker pause`: its sockets accept, nothing answers.
    Paused,
    /// Anything else: created, restarting, exited, dead, being removed.
    Stopped,
}

/// The outcome of the image's or container's `HEALTHCHECK`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No passed check yet, within the start period.
    Starting,
    /// The last check passed.
    Healthy,
    /// As many checks as `retries` failed in a row.
    Unhealthy,
}

/// `HostConfig.NetworkMode`, as far as it decides how the container is reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// It stands on the networks listed in `networks`.
    Networks,
    /// It shares the host's network namespace.
    Host,
    /// It has no network.
    None,
    /// It shares the network namespace of another container.
    Container(ContainerId),
}

/// The container's place on one network.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Endpoint {
    /// IPv4 address, if it has one at this moment.
    pub ipv4: Option<Ipv4Addr>,
    /// Global IPv6 address, if it has one at this moment.
    pub ipv6: Option<Ipv6Addr>,
}

/// One container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Container {
    /// The engine's identifier.
    pub id: ContainerId,
    /// Its name without the leading `/`. Untrusted.
    pub name: Arc<str>,
    /// What its process is doing.
    pub run: RunState,
    /// Outcome of its health check; `None` without one.
    pub health: Option<Health>,
    /// Start of its process, seconds since 1970; `None` if it never ran.
    pub started_at: Option<i64>,
    /// How it is attached to the network.
    pub network_mode: NetworkMode,
    /// Its endpoints by network name. Names are untrusted.
    pub networks: BTreeMap<Arc<str>, Endpoint>,
    /// TCP ports that the image or the container exposes, ascending.
    pub exposed_ports: Vec<u16>,
    /// Labels whose key begins with `hapilot.`. Untrusted.
    pub labels: BTreeMap<String, String>,
    /// Environment variables whose name begins with `VIRTUAL_`. Untrusted.
    pub env: BTreeMap<String, String>,
}

/// The beginning of every label that hapilot reads.
pub const LABEL_PREFIX: &str = "hapilot.";
/// The beginning of every environment variable that hapilot reads.
pub const ENV_PREFIX: &str = "VIRTUAL_";
