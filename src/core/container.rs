//! Facts about one container, as any engine could tell them.
//!
//! What lives here: plain data, filled by `docker::convert`. What it must not
//! know: bollard, HAProxy, and what a label means. All text in here except the
//! identifiers is untrusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::few::Few;

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

/// What the operator calls an engine: `[A-Za-z0-9_.-]`, 1 to 64 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct EngineName(Arc<str>);

impl EngineName {
    /// Longest name, in bytes.
    pub const LIMIT: usize = 64;

    /// Takes a text as a name; `None` if it is outside the alphabet.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fine = (1..=Self::LIMIT).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        fine.then(|| Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an only engine to which nobody gave one.
impl Default for EngineName {
    fn default() -> Self {
        Self("docker".into())
    }
}

impl std::fmt::Display for EngineName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
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
    /// The network, as far as it is known. Shared by all that stand on it.
    pub network: Option<Arc<Network>>,
}

impl Endpoint {
    /// The engine's identifier of the network, if it is known.
    #[must_use]
    pub fn network_id(&self) -> Option<&str> {
        self.network.as_ref().map(|network| &*network.id)
    }
}

/// What is the same for all who stand on a network.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Network {
    /// The engine's identifier. A network of a swarm has the same one on every
    /// engine; two networks that only share a name never have.
    pub id: Arc<str>,
    /// How it is made, and so what its gateway is.
    pub driver: Driver,
    /// No way leads out of it.
    pub internal: bool,
    /// Its gateway for IPv4.
    pub gateway: Option<Ipv4Addr>,
    /// Its gateway for IPv6.
    pub gateway_ipv6: Option<Ipv6Addr>,
}

impl Network {
    /// The addresses at which the engine's host stands on this network. Only a
    /// bridge has any: the gateway of a macvlan is somebody's router.
    pub fn host_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let bridge = !self.internal && matches!(self.driver, Driver::Bridge | Driver::Unknown);
        let all = [self.gateway.map(IpAddr::V4), self.gateway_ipv6.map(IpAddr::V6)];
        all.into_iter().flatten().filter(move |_| bridge)
    }
}

/// A network's driver, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// The engine did not tell.
    #[default]
    Unknown,
    /// A bridge of the engine's host, which is its gateway.
    Bridge,
    /// One network across the engines of a swarm.
    Overlay,
    /// Any other: macvlan, ipvlan, a plugin's.
    Other,
}

/// How near the engine that tells of a container is to it. What is nearer counts
/// before what is less near.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Nearness {
    /// It runs there, and the engine knows all that is said of it.
    #[default]
    Here,
    /// It runs on another node of the swarm that the engine manages: its end is
    /// noticed later.
    Elsewhere,
    /// It runs there, but what its service says of it only a manager of the swarm
    /// knows.
    Worker,
}

/// A TCP port of the container that leads to it from outside as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct PublishedPort {
    /// The port on which the container listens.
    pub container_port: u16,
    /// The address on which the host listens; unspecified: on all of them.
    pub host: IpAddr,
    /// The port on which the host listens.
    pub host_port: u16,
}

/// A directory or file that the container has from its host.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Mount {
    /// Where it is on the host.
    pub source: Box<str>,
    /// Where the container sees it.
    pub destination: Box<str>,
    /// The container may write there.
    pub writable: bool,
}

/// One container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Container {
    /// The engine's identifier.
    pub id: ContainerId,
    /// The engine that tells of it.
    pub engine: EngineName,
    /// How near that engine is to it.
    pub nearness: Nearness,
    /// Its name without the leading `/`. Untrusted.
    pub name: Arc<str>,
    /// What its process is doing.
    pub run: RunState,
    /// It was told to end, and has not had the time for it yet: it still
    /// answers, but soon won't. Engines before 29 only announce it, by an
    /// event; the mark that the event makes expires.
    pub stopping: bool,
    /// The signal that tells it to end (`Config.StopSignal`), 1 to 64.
    pub stop_signal: u8,
    /// How long after that signal the engine waits before it kills
    /// (`Config.StopTimeout`), at most an hour.
    pub stop_timeout: Duration,
    /// Outcome of its health check; `None` without one.
    pub health: Option<Health>,
    /// Start of its process, seconds since 1970; `None` if it never ran.
    pub started_at: Option<i64>,
    /// How it is attached to the network.
    pub network_mode: NetworkMode,
    /// Its endpoints by network name. Names are untrusted.
    pub networks: Few<Arc<str>, Endpoint>,
    /// TCP ports that the image or the container exposes, ascending.
    pub exposed_ports: Vec<u16>,
    /// Its published TCP ports, ascending; only while it runs.
    pub published: Box<[PublishedPort]>,
    /// What it has from its host, volumes included, in the order of `destination`.
    pub mounts: Box<[Mount]>,
    /// Labels whose key begins with `hapilot.`. Untrusted.
    pub labels: Few<String, String>,
    /// Environment variables whose name begins with `VIRTUAL_`. Untrusted.
    pub env: Few<String, String>,
}

impl Container {
    /// A running container that says nothing and stands on no network. With the
    /// methods below, the short way to a value where no engine is asked: tests,
    /// benchmarks, fuzz targets.
    #[must_use]
    pub fn running(id: ContainerId, name: &str) -> Self {
        Self {
            id,
            engine: EngineName::default(),
            nearness: Nearness::default(),
            name: name.into(),
            run: RunState::Running,
            stopping: false,
            stop_signal: SIGTERM,
            stop_timeout: STOP_TIMEOUT,
            health: None,
            started_at: None,
            network_mode: NetworkMode::Networks,
            networks: Few::new(),
            exposed_ports: Vec::new(),
            published: Box::default(),
            mounts: Box::default(),
            labels: Few::new(),
            env: Few::new(),
        }
    }

    /// The same with one more label.
    #[must_use]
    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same with one more environment variable.
    #[must_use]
    pub fn with_env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same with one more network, on which it has these addresses.
    #[must_use]
    pub fn on_network(mut self, name: &str, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Self {
        self.networks.insert(name.into(), Endpoint { ipv4, ipv6, network: None });
        self
    }

    /// The same, told by another engine.
    #[must_use]
    pub fn of_engine(mut self, engine: &EngineName) -> Self {
        self.engine = engine.clone();
        self
    }
}

/// The stop signal of a container that names none.
pub const SIGTERM: u8 = 15;
/// The stop timeout of a container that names none.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The beginning of every label that hapilot reads.
pub const LABEL_PREFIX: &str = "hapilot.";
/// The beginning of every environment variable that hapilot reads.
pub const ENV_PREFIX: &str = "VIRTUAL_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_has_a_narrow_alphabet() {
        for good in ["a", "0123456789abcdef", "A_b.c-d", &"f".repeat(128)] {
            assert_eq!(ContainerId::new(good).expect(good).as_str(), good);
        }
        for bad in ["", "a/b", "a b", "a\n", "\u{e9}", "a;b", &"f".repeat(129)] {
            assert_eq!(ContainerId::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_short_identifier_is_at_most_twelve_characters() {
        assert_eq!(ContainerId::new("0123456789abcdef").expect("valid").short(), "0123456789ab");
        assert_eq!(ContainerId::new("abc").expect("valid").short(), "abc");
    }
}
