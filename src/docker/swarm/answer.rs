//! A manager's answers → services, nodes, tasks.
//!
//! What lives here: pure functions, which take every field as possibly absent
//! or wrong. What it must not know: what was known before, what a label means.
//!
//! Only the fields that are used are read: a task is 2 to 4 kB of JSON, and a
//! list of a thousand may come twice a second.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::super::convert::{LONGEST_STOP, network_kind, our_env, our_labels, unix_seconds};
use super::super::signal;
use crate::core::container::{
    Container, ContainerId, Endpoint, Health, Network, NetworkMode, PublishedPort, RunState, SIGTERM,
    STOP_TIMEOUT,
};
use crate::core::few::Few;

/// Swarm's name for a service, a node or a task: 1 to 64 letters and digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct SwarmId(Arc<str>);

impl SwarmId {
    /// Takes a text as an identifier; `None` if it is outside the alphabet.
    pub(super) fn new(text: &str) -> Option<Self> {
        let fine = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        fine.then(|| Self(text.into()))
    }

    /// The whole identifier.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What an engine says about its part in a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// It manages one, as this node.
    Manager(SwarmId),
    /// It will or may manage one again: it starts, is locked, or failed.
    Undecided(String),
    /// It can't tell about other nodes: a worker, or in no swarm.
    None,
}

/// One service, as far as its tasks are served by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) id: SwarmId,
    /// Untrusted.
    pub(super) name: Arc<str>,
    /// Its own labels whose key begins with `hapilot.`. Untrusted.
    pub(super) labels: Few<String, String>,
    /// True if it or its containers say something that hapilot reads.
    pub(super) speaks: bool,
    /// TCP ports of its containers that it publishes, ascending.
    pub(super) ports: Vec<u16>,
    /// It is gone, and some of its tasks are not yet.
    pub(super) ended: bool,
}

/// The elements of one answer.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) all: Vec<T>,
    /// Those that can't be read, by their identifiers.
    pub(super) unreadable: Vec<SwarmId>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: SwarmId,
    /// The managers have lost sight of it.
    pub(super) down: bool,
    /// Where the others find it.
    pub(super) address: Option<IpAddr>,
}

/// What Swarm wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is to run, now or later.
    Run,
    /// A job's: it is to end by itself.
    Complete,
    /// It is to end.
    End,
}

/// How far a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Not there yet.
    Before,
    /// Its process runs; with a health check, it has passed.
    Running,
    /// It runs no more, and never will again.
    After,
}

/// One task, by the manager's book.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    pub(super) id: SwarmId,
    pub(super) service: SwarmId,
    /// `None` as long as it is on no node.
    pub(super) node: Option<SwarmId>,
    pub(super) wish: Wish,
    pub(super) stage: Stage,
    /// Its container's facts, but for what its service and its node have to add:
    /// the first part of its name, labels, exposed ports; the host's address of
    /// published ports.
    pub(super) container: Container,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InfoAnswer {
    swarm: Option<SwarmInfoAnswer>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct SwarmInfoAnswer {
    #[serde(rename = "NodeID")]
    node_id: String,
    local_node_state: String,
    control_available: bool,
    error: String,
}

/// An engine's part in a swarm, from its `/info`.
pub(super) fn role(answer: &[u8]) -> Result<Role, String> {
    let answer: InfoAnswer = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    let Some(swarm) = answer.swarm else { return Ok(Role::None) };
    if swarm.control_available {
        let node = SwarmId::new(&swarm.node_id).ok_or("the manager has no `NodeID`")?;
        return Ok(Role::Manager(node));
    }
    Ok(match swarm.local_node_state.as_str() {
        // A worker is `active`, too.
        "pending" | "error" | "locked" => {
            let error = if swarm.error.is_empty() { "" } else { ": " };
            Role::Undecided(format!(
                "its part in the swarm is {}{error}{}",
                swarm.local_node_state, swarm.error
            ))
        }
        _ => Role::None,
    })
}

/// The identifier of an element that can't be read.
pub(super) fn identifier(element: &[u8]) -> Option<SwarmId> {
    #[derive(Deserialize)]
    struct OnlyId {
        #[serde(rename = "ID")]
        id: String,
    }
    serde_json::from_slice::<OnlyId>(element).ok().and_then(|element| SwarmId::new(&element.id))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceAnswer {
    #[serde(rename = "ID")]
    id: String,
    spec: ServiceSpec,
    #[serde(default)]
    endpoint: Option<EndpointAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceSpec {
    #[serde(default)]
    name: String,
    labels: Option<HashMap<String, String>>,
    task_template: Option<TaskSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointAnswer {
    ports: Option<Vec<PortAnswer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PortAnswer {
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    target_port: u64,
    #[serde(default)]
    published_port: u64,
    #[serde(default)]
    publish_mode: String,
}

impl PortAnswer {
    /// The port on which the container listens, if it is a TCP port.
    fn target(&self) -> Option<u16> {
        let port = u16::try_from(self.target_port).ok()?;
        (self.protocol == "tcp" && port != 0).then_some(port)
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct TaskSpec {
    container_spec: Option<ContainerSpec>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerSpec {
    labels: Option<HashMap<String, String>>,
    env: Option<Vec<String>>,
    stop_signal: Option<String>,
    stop_grace_period: Option<i64>,
    healthcheck: Option<HealthcheckAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthcheckAnswer {
    test: Option<Vec<String>>,
}

/// The service in one element of `/services`.
pub(super) fn service(element: &[u8]) -> Result<Service, String> {
    let answer: ServiceAnswer = serde_json::from_slice(element).map_err(|error| error.to_string())?;
    let id = SwarmId::new(&answer.id).ok_or("a service's `ID` is not an identifier")?;
    let labels = our_labels(answer.spec.labels.unwrap_or_default());
    let inner = answer.spec.task_template.and_then(|template| template.container_spec).unwrap_or_default();
    let speaks = !labels.is_empty()
        || !our_labels(inner.labels.unwrap_or_default()).is_empty()
        || !our_env(inner.env.unwrap_or_default()).is_empty();
    let published = answer.endpoint.and_then(|endpoint| endpoint.ports).unwrap_or_default();
    let ports: BTreeSet<u16> = published.iter().filter_map(PortAnswer::target).collect();
    let ports = ports.into_iter().collect();
    Ok(Service { id, name: answer.spec.name.into(), labels, speaks, ports, ended: false })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeAnswer {
    #[serde(rename = "ID")]
    id: String,
    status: Option<NodeStatus>,
    manager_status: Option<ManagerStatus>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct NodeStatus {
    state: String,
    addr: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManagerStatus {
    #[serde(default)]
    addr: String,
}

/// The node in one element of `/nodes`.
pub(super) fn node(element: &[u8]) -> Result<Node, String> {
    let answer: NodeAnswer = serde_json::from_slice(element).map_err(|error| error.to_string())?;
    let id = SwarmId::new(&answer.id).ok_or("a node's `ID` is not an identifier")?;
    let status = answer.status.unwrap_or_default();
    // A manager's own address may be said to be 0.0.0.0 or 127.0.0.1: those are
    // of no use elsewhere.
    let manager = answer.manager_status.and_then(|status| status.addr.parse::<SocketAddr>().ok());
    let address = manager.map(|address| address.ip()).or_else(|| status.addr.parse().ok());
    let address = address.filter(|address| !address.is_unspecified() && !address.is_loopback());
    Ok(Node { id, down: status.state == "down", address })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskAnswer {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "ServiceID", default)]
    service_id: String,
    #[serde(rename = "NodeID", default)]
    node_id: String,
    slot: Option<u64>,
    spec: Option<TaskSpec>,
    status: Option<TaskStatus>,
    #[serde(default)]
    desired_state: String,
    networks_attachments: Option<Vec<AttachmentAnswer>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct TaskStatus {
    timestamp: String,
    state: String,
    container_status: Option<ContainerStatusAnswer>,
    port_status: Option<EndpointAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerStatusAnswer {
    #[serde(rename = "ContainerID", default)]
    container_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AttachmentAnswer {
    network: Option<NetworkAnswer>,
    addresses: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkAnswer {
    #[serde(rename = "ID", default)]
    id: String,
    spec: Option<NetworkSpec>,
    driver_state: Option<DriverAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DriverAnswer {
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSpec {
    #[serde(default)]
    name: String,
    #[serde(default)]
    ingress: bool,
    internal: Option<bool>,
}

/// The task in one element of `/tasks`; `None` for one that is no container of
/// a service (a plugin's, or the place on a network of a lone container).
pub(super) fn task(element: &[u8]) -> Result<Option<Task>, String> {
    let answer: TaskAnswer = serde_json::from_slice(element).map_err(|error| error.to_string())?;
    let Some(inner) = answer.spec.and_then(|spec| spec.container_spec) else { return Ok(None) };
    if answer.service_id.is_empty() {
        return Ok(None);
    }
    let id = SwarmId::new(&answer.id).ok_or("a task's `ID` is not an identifier")?;
    let service = SwarmId::new(&answer.service_id).ok_or("a task's `ServiceID` is not an identifier")?;
    let node = if answer.node_id.is_empty() {
        None
    } else {
        Some(SwarmId::new(&answer.node_id).ok_or("a task's `NodeID` is not an identifier")?)
    };
    let status = answer.status.unwrap_or_default();
    let stage = stage(&status.state)?;
    let wish = wish(&answer.desired_state)?;
    let container_id = status.container_status.map(|status| status.container_id).unwrap_or_default();
    let container_id = if container_id.is_empty() { id.as_str() } else { &container_id };
    let container_id = ContainerId::new(container_id).ok_or("a task's `ContainerID` is not an identifier")?;
    // As Docker names the container; a global service has one to a node.
    let place = match (answer.slot.filter(|slot| *slot > 0), &node) {
        (Some(slot), _) => slot.to_string(),
        (None, Some(node)) => node.as_str().to_owned(),
        (None, None) => String::new(),
    };
    let container = Container {
        run: if stage == Stage::Running { RunState::Running } else { RunState::Stopped },
        stopping: wish == Wish::End,
        stop_signal: inner.stop_signal.as_deref().and_then(signal::number).unwrap_or(SIGTERM),
        stop_timeout: inner.stop_grace_period.map_or(STOP_TIMEOUT, grace),
        // A task with a check runs (says Swarm) only when it has passed, and
        // ends when it fails.
        health: has_check(inner.healthcheck.as_ref()).then_some(Health::Healthy),
        started_at: unix_seconds(&status.timestamp).filter(|seconds| *seconds > 0),
        network_mode: NetworkMode::Networks,
        networks: endpoints(answer.networks_attachments.unwrap_or_default())?,
        published: published(&status.port_status.and_then(|status| status.ports).unwrap_or_default()),
        labels: our_labels(inner.labels.unwrap_or_default()),
        env: our_env(inner.env.unwrap_or_default()),
        ..Container::running(container_id, &format!("{place}.{}", id.as_str()))
    };
    Ok(Some(Task { id, service, node, wish, stage, container }))
}

fn stage(state: &str) -> Result<Stage, String> {
    match state {
        "new" | "allocated" | "pending" | "assigned" | "accepted" | "preparing" | "ready" | "starting" => {
            Ok(Stage::Before)
        }
        "running" => Ok(Stage::Running),
        "complete" | "shutdown" | "failed" | "rejected" | "remove" | "orphaned" => Ok(Stage::After),
        _ => Err("a task's `State` is none that is known".to_owned()),
    }
}

fn wish(state: &str) -> Result<Wish, String> {
    match state {
        "new" | "allocated" | "pending" | "assigned" | "accepted" | "preparing" | "ready" | "starting"
        | "running" => Ok(Wish::Run),
        "complete" => Ok(Wish::Complete),
        "shutdown" | "failed" | "rejected" | "remove" | "orphaned" => Ok(Wish::End),
        _ => Err("a task's `DesiredState` is none that is known".to_owned()),
    }
}

fn grace(nanoseconds: i64) -> Duration {
    u64::try_from(nanoseconds).map_or(LONGEST_STOP, |nanos| Duration::from_nanos(nanos).min(LONGEST_STOP))
}

fn has_check(check: Option<&HealthcheckAnswer>) -> bool {
    let test = check.and_then(|check| check.test.as_deref()).unwrap_or_default();
    test.first().is_some_and(|first| first != "NONE" && !first.is_empty())
}

/// Ports of the node that lead straight to this task. Which address the node has
/// is another matter.
fn published(ports: &[PortAnswer]) -> Box<[PublishedPort]> {
    let here = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let published: BTreeSet<PublishedPort> = ports
        .iter()
        .filter(|port| port.publish_mode == "host")
        .filter_map(|port| {
            let host_port = u16::try_from(port.published_port).ok().filter(|port| *port != 0)?;
            Some(PublishedPort { container_port: port.target()?, host: here, host_port })
        })
        .collect();
    published.into_iter().collect()
}

/// Addresses come as `10.0.1.7/24`.
fn endpoints(attachments: Vec<AttachmentAnswer>) -> Result<Few<Arc<str>, Endpoint>, String> {
    let mut endpoints: BTreeMap<Arc<str>, Endpoint> = BTreeMap::new();
    for attachment in attachments {
        let Some(NetworkAnswer { id, spec: Some(spec), driver_state }) = attachment.network else { continue };
        // For published ports: of no use to others.
        if spec.ingress {
            continue;
        }
        let driver = driver_state.and_then(|driver| driver.name);
        let (driver, internal) = network_kind(driver.as_deref(), spec.internal);
        let endpoint = endpoints.entry(spec.name.into()).or_default();
        let network = Network { id: id.into(), driver, internal, gateway: None, gateway_ipv6: None };
        endpoint.network = (!network.id.is_empty()).then(|| network.into());
        for address in attachment.addresses.unwrap_or_default() {
            let bare = address.split_once('/').map_or(address.as_str(), |(bare, _)| bare);
            match bare.parse() {
                Ok(IpAddr::V4(v4)) => endpoint.ipv4 = endpoint.ipv4.or(Some(v4)),
                Ok(IpAddr::V6(v6)) => endpoint.ipv6 = endpoint.ipv6.or(Some(v6)),
                Err(_) => return Err("a task's address is not an IP address".to_owned()),
            }
        }
    }
    Ok(endpoints.into_iter().collect())
}
