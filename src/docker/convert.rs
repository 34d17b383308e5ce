//! Bollard's answers → our facts.
//!
//! What lives here: pure functions, which take every field as possibly absent
//! or wrong. What it must not know: where an answer came from, what a label
//! means.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, EndpointSettings, HealthStatusEnum, MountPoint, PortMap,
};

use super::error::shown;
use super::signal;
use super::swarm::{SERVICE_MARK, TASK_MARK};
use crate::core::container::{
    Container, ContainerId, Driver, ENV_PREFIX, Endpoint, EngineName, Health, LABEL_PREFIX, Mount, Nearness,
    Network, NetworkMode, PublishedPort, RunState, SIGTERM, STOP_TIMEOUT,
};
use crate::core::few::Few;

/// The longest stop timeout that is believed.
pub(super) const LONGEST_STOP: Duration = Duration::from_secs(3600);

/// Why an answer tells nothing about a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// It names no container.
    #[error("it has no `Id`")]
    NoId,
    /// The `Id` is not one; it is cut and escaped here.
    #[error("its `Id` {0:?} is not an identifier")]
    BadId(String),
    /// It doesn't say what the container's process is doing.
    #[error("it has no `State`")]
    NoState,
    /// It says `container:` and then no identifier; cut and escaped here.
    #[error("its network mode {0:?} names no container")]
    BadNetworkMode(String),
    /// An IP address that is none; cut and escaped here.
    #[error("{0:?} is not an IP address")]
    BadAddress(String),
}

/// What a list tells about a container: all but its environment, its exposed
/// ports and its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The engine's identifier.
    pub id: ContainerId,
    /// Its name without the leading `/`.
    pub name: String,
    /// What its process is doing.
    pub run: RunState,
    /// Outcome of its health check. Engines before 29 show it only as a part of a
    /// sentence, and not at all while the container is paused.
    pub health: Option<Health>,
    /// Its endpoints by network name.
    pub networks: Few<Arc<str>, Endpoint>,
    /// Labels whose key begins with `hapilot.`.
    pub labels: Few<String, String>,
}

/// The facts in an inspect. Which engine it came from, and what kind of networks
/// the container stands on, is not in it.
pub fn container(answer: ContainerInspectResponse) -> Result<Container, ConvertError> {
    let id = identifier(answer.id)?;
    let state = answer.state.ok_or(ConvertError::NoState)?;
    let mode = answer.host_config.and_then(|host| host.network_mode).unwrap_or_default();
    let settings = answer.network_settings.unwrap_or_default();
    let config = answer.config.unwrap_or_default();
    Ok(Container {
        id,
        engine: EngineName::default(),
        nearness: Nearness::default(),
        name: bare_name(&answer.name.unwrap_or_default()).into(),
        run: run_state(&state)?,
        stopping: state.status == Some(ContainerStateStatusEnum::STOPPING),
        stop_signal: config.stop_signal.as_deref().and_then(signal::number).unwrap_or(SIGTERM),
        stop_timeout: config.stop_timeout.map_or(STOP_TIMEOUT, stop_timeout),
        health: state.health.as_ref().and_then(|health| health.status).and_then(health_status),
        started_at: state.started_at.as_deref().and_then(unix_seconds).filter(|seconds| *seconds > 0),
        network_mode: network_mode(&mode)?,
        networks: endpoints(settings.networks.unwrap_or_default())?,
        exposed_ports: tcp_ports(&config.exposed_ports.unwrap_or_default()),
        published: published(settings.ports.unwrap_or_default())?,
        mounts: mounts(answer.mounts.unwrap_or_default()),
        labels: told_labels(config.labels.unwrap_or_default()),
        env: our_env(config.env.unwrap_or_default()),
    })
}

/// The facts in one element of a list.
pub fn listed(answer: ContainerSummary) -> Result<Listed, ConvertError> {
    let run = match answer.state.ok_or(ConvertError::NoState)? {
        ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::STOPPING => RunState::Running,
        ContainerSummaryStateEnum::PAUSED => RunState::Paused,
        _ => RunState::Stopped,
    };
    let status = answer.status.unwrap_or_default();
    let health = match answer.health.and_then(|health| health.status) {
        Some(known) => match known.as_ref() {
            "starting" => Some(Health::Starting),
            "healthy" => Some(Health::Healthy),
            "unhealthy" => Some(Health::Unhealthy),
            _ => None,
        },
        None if status.ends_with("(healthy)") => Some(Health::Healthy),
        None if status.ends_with("(unhealthy)") => Some(Health::Unhealthy),
        None if status.ends_with("(health: starting)") => Some(Health::Starting),
        None => None,
    };
    // Links of other containers appear as further names with a second slash.
    let names = answer.names.unwrap_or_default();
    let name = names.iter().map(|name| bare_name(name)).find(|name| !name.contains('/')).unwrap_or_default();
    Ok(Listed {
        id: identifier(answer.id)?,
        name: name.to_owned(),
        run,
        health,
        networks: endpoints(answer.network_settings.and_then(|s| s.networks).unwrap_or_default())?,
        labels: told_labels(answer.labels.unwrap_or_default()),
    })
}

fn identifier(text: Option<String>) -> Result<ContainerId, ConvertError> {
    let text = text.ok_or(ConvertError::NoId)?;
    ContainerId::new(&text).ok_or_else(|| ConvertError::BadId(shown(&text)))
}

fn bare_name(name: &str) -> &str {
    name.strip_prefix('/').unwrap_or(name)
}

fn run_state(state: &ContainerState) -> Result<RunState, ConvertError> {
    use ContainerStateStatusEnum as Status;
    let flag = |value: Option<bool>| value == Some(true);
    Ok(match state.status {
        // `stopping` (engines from 29 on): the process still runs and answers.
        Some(Status::RUNNING | Status::STOPPING) => RunState::Running,
        Some(Status::PAUSED) => RunState::Paused,
        Some(Status::CREATED | Status::RESTARTING | Status::REMOVING | Status::EXITED | Status::DEAD) => {
            RunState::Stopped
        }
        None | Some(Status::EMPTY) => match state.running {
            None => return Err(ConvertError::NoState),
            Some(true) if flag(state.paused) => RunState::Paused,
            Some(true) if !flag(state.restarting) && !flag(state.dead) => RunState::Running,
            Some(_) => RunState::Stopped,
        },
    })
}

/// Docker waits for ever if the number is negative. Nobody is kept waiting
/// longer than an hour here, lest a container that ignores the signal is.
fn stop_timeout(seconds: i64) -> Duration {
    u64::try_from(seconds).map_or(LONGEST_STOP, |seconds| Duration::from_secs(seconds).min(LONGEST_STOP))
}

fn health_status(status: HealthStatusEnum) -> Option<Health> {
    match status {
        HealthStatusEnum::STARTING => Some(Health::Starting),
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
        HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => None,
    }
}

fn network_mode(text: &str) -> Result<NetworkMode, ConvertError> {
    match text {
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        _ => match text.strip_prefix("container:") {
            Some(other) => ContainerId::new(other)
                .map(NetworkMode::Container)
                .ok_or_else(|| ConvertError::BadNetworkMode(shown(text))),
            // `default`, `bridge`, and every network's own name.
            None => Ok(NetworkMode::Networks),
        },
    }
}

fn endpoints(networks: HashMap<String, EndpointSettings>) -> Result<Few<Arc<str>, Endpoint>, ConvertError> {
    networks
        .into_iter()
        .map(|(name, settings)| {
            let ipv4 = address::<Ipv4Addr>(settings.ip_address)?;
            let ipv6 = address::<Ipv6Addr>(settings.global_ipv6_address)?;
            let network = match settings.network_id.filter(|id| !id.is_empty()) {
                Some(id) => Some(Arc::new(Network {
                    id: id.into(),
                    driver: Driver::Unknown,
                    internal: false,
                    gateway: address(settings.gateway)?,
                    gateway_ipv6: address(settings.ipv6_gateway)?,
                })),
                None => None,
            };
            Ok((Arc::from(name), Endpoint { ipv4, ipv6, network }))
        })
        .collect()
}

/// `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": null}`. An
/// engine writes an empty `HostIp` for all addresses.
fn published(ports: PortMap) -> Result<Box<[PublishedPort]>, ConvertError> {
    let mut published = BTreeSet::new();
    for (text, bindings) in ports {
        let Some(container_port) = tcp_port(&text) else { continue };
        for binding in bindings.into_iter().flatten() {
            let host = address(binding.host_ip)?.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            // `0` or none while the engine has not chosen one yet.
            let host_port = binding.host_port.and_then(|port| port.parse().ok()).filter(|port| *port != 0);
            published.extend(host_port.map(|host_port| PublishedPort { container_port, host, host_port }));
        }
    }
    Ok(published.into_iter().collect())
}

/// Those that have a place on the host: a tmpfs has none.
fn mounts(mounts: Vec<MountPoint>) -> Box<[Mount]> {
    let mut mounts: Vec<Mount> = mounts
        .into_iter()
        .filter_map(|mount| {
            let source = mount.source.filter(|source| source.starts_with('/'))?;
            let (source, destination) = (source.into(), mount.destination?.into());
            Some(Mount { source, destination, writable: mount.rw != Some(false) })
        })
        .collect();
    mounts.sort_by(|one, other| one.destination.cmp(&other.destination));
    mounts.into()
}

/// What a list of networks tells about one of them.
pub(super) fn network_kind(driver: Option<&str>, internal: Option<bool>) -> (Driver, bool) {
    let driver = match driver {
        Some("bridge") => Driver::Bridge,
        Some("overlay") => Driver::Overlay,
        None | Some("") => Driver::Unknown,
        Some(_) => Driver::Other,
    };
    (driver, internal == Some(true))
}

/// An address, where Docker writes an empty text for none.
fn address<A: std::str::FromStr>(text: Option<String>) -> Result<Option<A>, ConvertError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(ConvertError::BadAddress(shown(&text))),
    }
}

/// The numbers of `8080/tcp` and `8080`, ascending.
fn tcp_ports(exposed: &[String]) -> Vec<u16> {
    let ports: BTreeSet<u16> = exposed.iter().filter_map(|text| tcp_port(text)).collect();
    ports.into_iter().collect()
}

/// The number of `8080/tcp` or `8080`; `None` for other protocols and nonsense.
fn tcp_port(text: &str) -> Option<u16> {
    let port = match text.split_once('/') {
        Some((port, "tcp")) => port,
        Some(_) => return None,
        None => text,
    };
    port.parse().ok().filter(|port| *port != 0)
}

/// Those that hapilot reads.
pub(super) fn our_labels(labels: HashMap<String, String>) -> Few<String, String> {
    labels.into_iter().filter(|(key, _)| key.starts_with(LABEL_PREFIX)).collect()
}

/// The same, and the engine's marks on a container of a service, which `swarm`
/// takes off again.
fn told_labels(labels: HashMap<String, String>) -> Few<String, String> {
    let marks = [SERVICE_MARK, TASK_MARK];
    let told = |key: &str| key.starts_with(LABEL_PREFIX) || marks.contains(&key);
    labels.into_iter().filter(|(key, _)| told(key)).collect()
}

/// Of several settings of one variable the last counts, as for the process.
pub(super) fn our_env(env: Vec<String>) -> Few<String, String> {
    env.into_iter()
        .filter(|line| line.starts_with(ENV_PREFIX))
        .filter_map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect()
}

/// Seconds since 1970 of `2026-11-24T15:03:54.032199499Z` or the like with
/// `+01:00` (RFC 3339); `None` if it is not one.
pub(super) fn unix_seconds(text: &str) -> Option<i64> {
    fn number(text: &str, from: usize, to: usize) -> Option<i64> {
        let digits = text.get(from..to)?;
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
    }
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark))
        || !matches!(bytes.get(10), Some(b'T' | b't'))
    {
        return None;
    }
    let (year, month, day) = (number(text, 0, 4)?, number(text, 5, 7)?, number(text, 8, 10)?);
    let (hour, minute, second) = (number(text, 11, 13)?, number(text, 14, 16)?, number(text, 17, 19)?);
    // 60 is a leap second.
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        rest = fraction.get(digits..)?;
    }
    let offset = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let seconds = number(rest, 1, 3)? * 3600 + number(rest, 4, 6)? * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, with years that
/// begin in March so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use serde_json::{Value, json};

    /// Recorded from Docker 20.10.24.
    const INSPECT: &str = include_str!("../../tests/data/docker/inspect-20.10.json");
    const LIST: &str = include_str!("../../tests/data/docker/list-20.10.json");
    const ID: &str = "b8ae4835b087f792577fbc9cfee7ad1763c795eb0ebe56063519423039b5d65e";

    fn from(value: Value) -> Result<Container, ConvertError> {
        container(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_recorded_inspect() {
        let container = container(serde_json::from_str(INSPECT).unwrap()).unwrap();
        assert_eq!(container.id.as_str(), ID);
        assert_eq!(&*container.name, "hapilot-docker-rec");
        assert_eq!(container.run, RunState::Running);
        assert_eq!(container.health, Some(Health::Healthy));
        assert_eq!(container.started_at, Some(1_795_532_634));
        assert_eq!(container.network_mode, NetworkMode::Networks);
        assert_eq!(container.networks["bridge"].ipv4, Some(Ipv4Addr::new(172, 17, 0, 2)));
        assert_eq!(container.networks["bridge"].ipv6, None);
        assert_eq!(container.exposed_ports, [8080]);
        assert_eq!(container.labels.len(), 1);
        assert_eq!(container.labels["hapilot.host"], "shop.example");
        assert_eq!(container.env["VIRTUAL_PORT"], "8080");
    }

    #[test]
    fn a_list_and_an_inspect_agree() {
        let summaries: Vec<ContainerSummary> = serde_json::from_str(LIST).unwrap();
        let listed = listed(summaries.into_iter().next().unwrap()).unwrap();
        let container = container(serde_json::from_str(INSPECT).unwrap()).unwrap();
        assert_eq!(listed.id, container.id);
        assert_eq!(listed.name, &*container.name);
        assert_eq!(listed.run, container.run);
        assert_eq!(listed.health, container.health);
        assert_eq!(listed.networks, container.networks);
        assert_eq!(listed.labels, container.labels);
    }

    #[test]
    fn garbage_is_an_error() {
        assert_eq!(from(json!({})), Err(ConvertError::NoId));
        assert_eq!(from(json!({"Id": "a/../b", "State": {}})), Err(ConvertError::BadId("a/../b".into())));
        assert_eq!(from(json!({"Id": "", "State": {}})), Err(ConvertError::BadId(String::new())));
        assert_eq!(from(json!({"Id": "a"})), Err(ConvertError::NoState));
        assert_eq!(from(json!({"Id": "a", "State": {}})), Err(ConvertError::NoState));
        let mode =
            json!({"Id": "a", "State": {"Running": true}, "HostConfig": {"NetworkMode": "container:a b"}});
        assert_eq!(from(mode), Err(ConvertError::BadNetworkMode("container:a b".into())));
        let address = json!({"Id": "a", "State": {"Running": true},
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "10.0.0.1\n"}}}});
        assert_eq!(from(address), Err(ConvertError::BadAddress("10.0.0.1\\n".into())));
    }

    #[test]
    fn next_to_nothing_is_enough() {
        let container = from(json!({"Id": "a", "State": {"Running": true}})).unwrap();
        assert_eq!((container.run, &*container.name, container.started_at), (RunState::Running, "", None));
    }

    #[test]
    fn states() {
        for (state, wanted) in [
            (json!({"Status": "running"}), RunState::Running),
            (json!({"Status": "paused", "Running": true, "Paused": true}), RunState::Paused),
            (json!({"Status": "restarting", "Running": true}), RunState::Stopped),
            (json!({"Status": "exited"}), RunState::Stopped),
            (json!({"Status": "created"}), RunState::Stopped),
            (json!({"Running": true, "Paused": true}), RunState::Paused),
            (json!({"Running": true, "Restarting": true}), RunState::Stopped),
            (json!({"Running": false}), RunState::Stopped),
        ] {
            let text = state.to_string();
            assert_eq!(from(json!({"Id": "a", "State": state})).unwrap().run, wanted, "{text}");
        }
    }

    #[test]
    fn how_it_is_stopped() {
        let of = |config: Value| {
            let container = from(json!({"Id": "a", "State": {"Running": true}, "Config": config})).unwrap();
            (container.stop_signal, container.stop_timeout.as_secs())
        };
        assert_eq!(of(json!({})), (15, 10));
        assert_eq!(of(json!({"StopSignal": "SIGQUIT", "StopTimeout": 30})), (3, 30));
        assert_eq!(of(json!({"StopSignal": "nonsense", "StopTimeout": 0})), (15, 0));
        assert_eq!(of(json!({"StopSignal": "37", "StopTimeout": -1})), (37, 3600));
        let stopping = |status: &str| from(json!({"Id": "a", "State": {"Status": status}})).unwrap().stopping;
        assert!(stopping("stopping") && !stopping("running"));
    }

    #[test]
    fn network_modes() {
        let mode = |mode: &str| {
            from(json!({"Id": "a", "State": {"Running": true}, "HostConfig": {"NetworkMode": mode}}))
                .unwrap()
                .network_mode
        };
        assert_eq!(mode("host"), NetworkMode::Host);
        assert_eq!(mode("none"), NetworkMode::None);
        assert_eq!(mode("container:b"), NetworkMode::Container(ContainerId::new("b").unwrap()));
        assert_eq!([mode("default"), mode("my_network")], [NetworkMode::Networks, NetworkMode::Networks]);
    }

    #[test]
    fn networks_published_ports_and_mounts() {
        let answer = json!({"Id": "a", "State": {"Running": true},
        "NetworkSettings": {
            "Ports": {
                "8000/tcp": [{"HostIp": "::1", "HostPort": "18097"}, {"HostIp": "", "HostPort": "18099"}],
                "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
                "80/tcp": [{"HostIp": "192.0.2.7", "HostPort": "8080"}, {"HostIp": "192.0.2.7", "HostPort": "0"}],
                "443/tcp": null,
            },
            "Networks": {
                "web": {"NetworkID": "beef", "Gateway": "172.18.0.1", "IPv6Gateway": "", "IPAddress": "172.18.0.2"},
                "old": {"IPAddress": "172.19.0.2"},
            },
        },
        "Mounts": [
            {"Type": "volume", "Source": "/v/x/_data", "Destination": "/run/x", "RW": true},
            {"Type": "bind", "Source": "/etc", "Destination": "/host", "RW": false},
            {"Type": "tmpfs", "Source": "", "Destination": "/tmp", "RW": true},
        ]});
        let container = from(answer).unwrap();
        let ports: Vec<String> = container
            .published
            .iter()
            .map(|p| format!("{} <- {}:{}", p.container_port, p.host, p.host_port))
            .collect();
        assert_eq!(ports, ["80 <- 192.0.2.7:8080", "8000 <- 0.0.0.0:18099", "8000 <- ::1:18097"]);
        assert_eq!(container.networks["old"].network, None);
        let web = container.networks["web"].network.as_ref().unwrap();
        assert_eq!((&*web.id, web.driver, web.internal), ("beef", Driver::Unknown, false));
        assert_eq!(web.host_addresses().collect::<Vec<_>>(), [IpAddr::from([172, 18, 0, 1])]);
        let mounts: Vec<String> = container
            .mounts
            .iter()
            .map(|m| format!("{} {} {}", m.source, m.destination, m.writable))
            .collect();
        assert_eq!(mounts, ["/etc /host false", "/v/x/_data /run/x true"]);
        let bad = json!({"Id": "a", "State": {"Running": true},
            "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "here", "HostPort": "1"}]}}});
        assert_eq!(from(bad), Err(ConvertError::BadAddress("here".into())));
    }

    #[test]
    fn only_a_bridge_that_leads_out_has_the_host_on_it() {
        let host = |driver: &str, internal: bool| {
            let (driver, internal) = network_kind(Some(driver), Some(internal));
            let gateway = Some(Ipv4Addr::new(172, 18, 0, 1));
            let network = Network { id: "x".into(), driver, internal, gateway, gateway_ipv6: None };
            network.host_addresses().count()
        };
        assert_eq!([host("bridge", false), host("", false)], [1, 1]);
        assert_eq!([host("bridge", true), host("macvlan", false), host("overlay", false)], [0, 0, 0]);
    }

    #[test]
    fn ports_and_variables() {
        let config = json!({
            "ExposedPorts": {"9000/tcp": {}, "80/tcp": {}, "53/udp": {}, "x/tcp": {}, "0/tcp": {}, "70000/tcp": {}},
            "Env": ["PATH=/bin", "VIRTUAL_HOST=a=b", "VIRTUAL_PORT", "VIRTUAL_X=1", "VIRTUAL_X=2"],
            "Labels": {"hapilot.x": "1", "hapilotx": "2", "other": "3"},
        });
        let container = from(json!({"Id": "a", "State": {"Running": true}, "Config": config})).unwrap();
        assert_eq!(container.exposed_ports, [80, 9000]);
        let env: Vec<_> = container.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(env, ["VIRTUAL_HOST=a=b", "VIRTUAL_X=2"]);
        assert_eq!(container.labels.keys().collect::<Vec<_>>(), ["hapilot.x"]);
    }

    #[test]
    fn health_in_a_list() {
        let health = |answer: Value| listed(serde_json::from_value(answer).unwrap()).unwrap().health;
        let old = |status: &str| health(json!({"Id": "a", "State": "running", "Status": status}));
        assert_eq!(old("Up 3 minutes (healthy)"), Some(Health::Healthy));
        assert_eq!(old("Up 3 minutes (unhealthy)"), Some(Health::Unhealthy));
        assert_eq!(old("Up 1 second (health: starting)"), Some(Health::Starting));
        assert_eq!(old("Up 3 minutes"), None);
        let new = json!({"Id": "a", "State": "running", "Status": "Up 1 second", "Health": {"Status": "unhealthy"}});
        assert_eq!(health(new), Some(Health::Unhealthy));
    }

    #[test]
    fn a_link_is_not_the_name() {
        let answer = json!({"Id": "a", "State": "running", "Names": ["/web/db", "/db"]});
        assert_eq!(listed(serde_json::from_value(answer).unwrap()).unwrap().name, "db");
    }

    #[test]
    fn times() {
        for (text, wanted) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T23:59:59.999999999Z", Some(951_868_799)),
            ("2026-11-24T16:03:54.032199499+01:00", Some(1_795_532_634)),
            ("2026-11-24T14:33:54-00:30", Some(1_795_532_634)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400)),
            ("0001-01-01T00:00:00Z", Some(-62_135_596_800)),
            ("", None),
            ("2026-11-24", None),
            ("2026-11-24T16:03:54", None),
            ("2026-13-24T16:03:54Z", None),
            ("2026-11-24T16:03:54.Z", None),
            ("2026-11-24T16:03:5äZ", None),
            ("+026-11-24T16:03:54Z", None),
        ] {
            assert_eq!(unix_seconds(text), wanted, "{text}");
        }
        let never = json!({"Id": "a", "State": {"Running": false, "StartedAt": "0001-01-01T00:00:00Z"}});
        assert_eq!(from(never).unwrap().started_at, None);
    }
}
