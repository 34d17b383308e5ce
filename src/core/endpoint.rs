//! Which of a container's addresses HAProxy can reach.
//!
//! What lives here: the rule, in its order. What it must not know: ports and
//! hosts (`claim`).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::claim::{NETWORK, Rejection, printable, quoted};
use super::container::{Container, ContainerId, Endpoint, NetworkMode};

/// From where HAProxy looks at the containers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vantage {
    /// HAProxy runs on the engine's host (or in host network mode): it reaches
    /// every local network of a container.
    Host,
    /// HAProxy runs in a container that stands on these networks.
    Networks(BTreeSet<Arc<str>>),
}

impl Vantage {
    fn reaches(&self, network: &str) -> bool {
        match self {
            Self::Host => true,
            Self::Networks(networks) => networks.contains(network),
        }
    }
}

/// Swarm's network for published ports. Containers stand on it with addresses
/// that are of no use to others.
const INGRESS: &str = "ingress";
/// The network that a container in host mode is said to stand on.
const HOST: &str = "host";
/// What a rejection names as its key where the container chose no network.
const KEY: &str = "network";
/// Characters that a list of networks may take in a reason.
const LIST_LIMIT: usize = 100;

/// The address at which HAProxy reaches the container.
///
/// 1. In host mode it is 127.0.0.1 for an HAProxy on the host.
/// 2. In the network namespace of another container it is the address of that
///    one, which `lookup` finds; only one level deep.
/// 3. Else the networks are tried: the one that `hapilot.network` names, or
///    without it those that HAProxy reaches, in name order, never swarm's
///    `ingress`. The first with an address that can be used is taken; IPv4
///    before IPv6, or the other way round with `prefer_ipv6`.
///
/// A rejection says what was looked for and what was there. Most of them pass
/// by themselves: the container has no address before it runs.
pub fn address<'a>(
    container: &Container,
    vantage: &Vantage,
    prefer_ipv6: bool,
    lookup: impl FnOnce(&ContainerId) -> Option<&'a Container>,
) -> Result<IpAddr, Rejection> {
    let chosen = NETWORK.said_by(container);
    let key = chosen.map_or(KEY, |(key, _)| key);
    let chosen = chosen.map(|(_, network)| network);
    let found = match &container.network_mode {
        NetworkMode::Container(id) => match lookup(id) {
            Some(other) => own_address(other, chosen, vantage, prefer_ipv6).map_err(|reason| {
                format!("it shares the network of container {}, and {reason}", name_of(other))
            }),
            None => Err(format!(
                "it shares the network of container {}, which is not there",
                printable(id.short(), LIST_LIMIT)
            )),
        },
        _ => own_address(container, chosen, vantage, prefer_ipv6),
    };
    found.map_err(|reason| Rejection::new(container, key, &reason))
}

/// The address of a container that has a network namespace of its own or the
/// host's.
fn own_address(
    container: &Container,
    chosen: Option<&str>,
    vantage: &Vantage,
    prefer_ipv6: bool,
) -> Result<IpAddr, String> {
    if chosen == Some("") {
        return Err("it is empty; write the name of a network, or leave it out".to_owned());
    }
    match (&container.network_mode, vantage) {
        (NetworkMode::Networks, _) => on_networks(container, chosen, vantage, prefer_ipv6),
        (NetworkMode::Host, _) if chosen.is_some_and(|network| network != HOST) => Err(format!(
            "it runs in host network mode and can't be on network {}",
            quoted(chosen.unwrap_or_default())
        )),
        (NetworkMode::Host, Vantage::Host) => Ok(Ipv4Addr::LOCALHOST.into()),
        (NetworkMode::Host, Vantage::Networks(_)) => {
            Err("it runs in host network mode, which an HAProxy in a container does not reach yet".to_owned())
        }
        (NetworkMode::None, _) => Err("it has no network (network mode `none`)".to_owned()),
        (NetworkMode::Container(id), _) => Err(format!(
            "that one shares the network of container {}; only one level is followed",
            printable(id.short(), LIST_LIMIT)
        )),
    }
}

fn on_networks(
    container: &Container,
    chosen: Option<&str>,
    vantage: &Vantage,
    prefer_ipv6: bool,
) -> Result<IpAddr, String> {
    let candidates: Vec<(&str, &Endpoint)> = container
        .networks
        .iter()
        .map(|(name, endpoint)| (&**name, endpoint))
        .filter(|&(name, _)| name != INGRESS && vantage.reaches(name))
        .filter(|&(name, _)| chosen.is_none_or(|chosen| chosen == name))
        .collect();
    if candidates.is_empty() {
        return Err(unreachable(container, chosen, vantage));
    }
    let address = candidates.iter().find_map(|(_, endpoint)| usable(endpoint, prefer_ipv6));
    address.ok_or_else(|| match candidates[..] {
        [(name, endpoint)] => match any(endpoint) {
            Some(address) => format!("its address {address} on network {} can't be a server's", quoted(name)),
            None => format!("it has no address on network {} yet", quoted(name)),
        },
        _ => format!(
            "it has no usable address on any of {} yet",
            listed(candidates.iter().map(|&(name, _)| name))
        ),
    })
}

/// Why no network of the container can be used.
fn unreachable(container: &Container, chosen: Option<&str>, vantage: &Vantage) -> String {
    let own = || listed(container.networks.keys().map(|name| &**name));
    match (chosen, vantage) {
        (Some(INGRESS), _) => "swarm's network `ingress` can't be used to reach a container".to_owned(),
        (Some(name), Vantage::Networks(theirs)) if container.networks.contains_key(name) => format!(
            "HAProxy is not on network {}; HAProxy is on {}",
            quoted(name),
            listed(theirs.iter().map(|name| &**name))
        ),
        (Some(name), _) => format!("it is not on network {}; it is on {}", quoted(name), own()),
        (None, Vantage::Networks(theirs)) => format!(
            "it shares no network with HAProxy; it is on {}, HAProxy is on {}",
            own(),
            listed(theirs.iter().map(|name| &**name))
        ),
        (None, Vantage::Host) => {
            format!("it is on no network with an address of its own; it is on {}", own())
        }
    }
}

fn usable(endpoint: &Endpoint, prefer_ipv6: bool) -> Option<IpAddr> {
    let ipv4 = endpoint.ipv4.map(IpAddr::V4).filter(can_be_a_server);
    let ipv6 = endpoint.ipv6.map(IpAddr::V6).filter(can_be_a_server);
    if prefer_ipv6 { ipv6.or(ipv4) } else { ipv4.or(ipv6) }
}

fn any(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.ipv4.map(IpAddr::V4).or(endpoint.ipv6.map(IpAddr::V6))
}

/// False for addresses that lead to nobody, to many, or (link-local IPv6) only
/// somewhere together with an interface.
fn can_be_a_server(address: &IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

fn name_of(container: &Container) -> String {
    format!("{} ({})", quoted(&container.name), printable(container.id.short(), LIST_LIMIT))
}

/// Some names of networks, as many as a reason has room for.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let mut left = names.len();
    let mut text = String::new();
    for name in names {
        let name = format!("`{}`", printable(name, LIST_LIMIT / 2));
        if !text.is_empty() && text.len() + name.len() > LIST_LIMIT {
            text.push_str(&format!(" and {left} more"));
            break;
        }
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&name);
        left -= 1;
    }
    if text.is_empty() { "none".to_owned() } else { text }
}
