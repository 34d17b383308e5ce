//! Where HAProxy reaches a container.
//!
//! What lives here: the rule, in its order. What it must not know: hosts and
//! labels but one (`claim`), and how it is found out where HAProxy is (`place`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::claim::{Rejection, printable, quoted};
use super::container::{Container, ContainerId, Driver, Endpoint, EngineName, Network, NetworkMode};
use super::label::NETWORK;

/// From where HAProxy looks at the containers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vantage {
    /// From the host of the engines, or in host network mode: it reaches every
    /// local network of a container.
    Host {
        /// Engines whose host is another one.
        elsewhere: BTreeSet<EngineName>,
    },
    /// From a container.
    Container {
        /// The engine of that container.
        engine: EngineName,
        /// The networks that it stands on, by name.
        networks: BTreeMap<Arc<str>, Option<Arc<Network>>>,
    },
    /// It is not known; why.
    Unknown(Arc<str>),
}

impl Vantage {
    /// From the host of all engines.
    #[must_use]
    pub const fn host() -> Self {
        Self::Host { elsewhere: BTreeSet::new() }
    }

    /// What a container that stands on these networks sees.
    #[must_use]
    pub fn of(container: &Container) -> Self {
        let network = |(name, endpoint): (&Arc<str>, &Endpoint)| (Arc::clone(name), endpoint.network.clone());
        Self::Container {
            engine: container.engine.clone(),
            networks: container.networks.iter().map(network).collect(),
        }
    }

    /// True if HAProxy is on the host of this engine.
    fn is_on_host_of(&self, engine: &EngineName) -> bool {
        matches!(self, Self::Host { elsewhere } if !elsewhere.contains(engine))
    }

    /// True if a container of this engine is reached over this network of it.
    fn reaches(&self, engine: &EngineName, name: &str, endpoint: &Endpoint) -> bool {
        match self {
            // The host of an overlay network's engine does not stand on it.
            Self::Host { elsewhere } => {
                let driver = endpoint.network.as_ref().map_or(Driver::Unknown, |network| network.driver);
                driver != Driver::Overlay && !elsewhere.contains(engine)
            }
            Self::Container { engine: own, networks } => {
                let id = endpoint.network_id();
                let same = |network: &Option<Arc<Network>>| match (network, id) {
                    (Some(network), Some(id)) => *network.id == *id,
                    _ => own == engine,
                };
                let here = networks.get(name).is_some_and(same);
                // A swarm's network has one identifier on all engines, and may be met
                // under another name only in theory.
                here || (id.is_some() && own != engine && networks.values().any(|n| n.is_some() && same(n)))
            }
            Self::Unknown(_) => false,
        }
    }

    fn listed(&self) -> String {
        match self {
            Self::Container { networks, .. } => listed(networks.keys().map(|name| &**name)),
            Self::Host { .. } => "the host".to_owned(),
            Self::Unknown(_) => "none".to_owned(),
        }
    }
}

/// What the rule looks at besides the container.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// From where HAProxy looks.
    pub vantage: &'a Vantage,
    /// The address at which an engine's host is reached, as the operator said.
    pub advertised: &'a dyn Fn(&EngineName) -> Option<IpAddr>,
    /// IPv6 where there is a choice.
    pub prefer_ipv6: bool,
}

/// How HAProxy reaches a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reach {
    /// At an address that its network namespace has for itself.
    Own(IpAddr),
    /// At its host's, on whose ports it listens itself (host network mode).
    Host(IpAddr),
    /// At ports of its host: from the container's port, ascending.
    Published(Vec<(u16, SocketAddr)>),
}

impl Reach {
    /// Where a port of the container is reached.
    #[must_use]
    pub fn at(&self, port: u16) -> Option<SocketAddr> {
        match self {
            Self::Own(address) | Self::Host(address) => Some(SocketAddr::new(*address, port)),
            Self::Published(ports) => ports.iter().find(|(own, _)| *own == port).map(|(_, at)| *at),
        }
    }

    /// The places that are its container's alone.
    pub(super) fn spots(&self, engine: &EngineName, vantage: &Vantage) -> Vec<Spot> {
        match self {
            // From a host, two engines may have two networks with equal addresses.
            Self::Own(ip) => {
                let engine = matches!(vantage, Vantage::Host { .. }).then(|| engine.clone());
                vec![Spot { ip: *ip, port: None, engine }]
            }
            Self::Host(_) => Vec::new(),
            Self::Published(ports) => {
                let spot =
                    |(_, at): &(u16, SocketAddr)| Spot { ip: at.ip(), port: Some(at.port()), engine: None };
                ports.iter().map(spot).collect()
            }
        }
    }
}

/// A place that one network namespace has for itself: an address, or one port
/// of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Spot {
    pub(super) ip: IpAddr,
    pub(super) port: Option<u16>,
    /// Where one engine's address is not another's.
    pub(super) engine: Option<EngineName>,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
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
const LIST_LIMIT: usize = 75;
/// What helps where only the host's address is missing.
const ADVERTISE: &str = "give it one: --docker NAME=URL,address=IP";

/// Where HAProxy reaches these ports of the container.
///
/// 1. In the network namespace of another container, all that follows is about
///    that one, which `lookup` finds; only one level deep.
/// 2. The network that `hapilot.network` names, and nothing else; or without it
///    the first in name order that it shares with HAProxy, never swarm's
///    `ingress`. With HAProxy on the host every local network counts, an overlay
///    never. A network is shared if it is the same one: on another engine only a
///    swarm's can be. IPv4 before IPv6, or the other way round.
/// 3. In host mode: 127.0.0.1 for an HAProxy on that host; for one in a container
///    of the same engine the gateway of its first network in name order that has
///    the host as its gateway; else the address that the engine advertises.
/// 4. A published port: its host address if it is a specific one, else the address
///    that the engine advertises (127.0.0.1 for an HAProxy on that host).
///
/// A rejection says what was looked for and what was there. Most of them pass by
/// themselves: the container has no address before it runs.
pub fn reach<'a>(
    container: &Container,
    ports: &BTreeSet<u16>,
    view: View<'_>,
    lookup: impl FnOnce(&ContainerId) -> Option<&'a Container>,
) -> Result<Reach, Rejection> {
    let chosen = NETWORK.said_by(container);
    let key = chosen.map_or(KEY, |(key, _)| key);
    let chosen = chosen.map(|(_, network)| network);
    let found = match &container.network_mode {
        NetworkMode::Container(id) => match lookup(id) {
            Some(other) => own(other, chosen, ports, view).map_err(|reason| {
                format!("it shares the network of container {}, and {reason}", name_of(other))
            }),
            None => Err(format!(
                "it shares the network of container {}, which is not there",
                printable(id.short(), LIST_LIMIT)
            )),
        },
        _ => own(container, chosen, ports, view),
    };
    found.map_err(|reason| Rejection::new(container, key, &reason))
}

/// Why one port is not reached while others of the container are.
#[must_use]
pub fn unpublished(container: &Container, port: u16) -> Rejection {
    let reason = format!("its port {port} is not published; HAProxy reaches it by its published ports only");
    Rejection::new(container, KEY, &reason)
}

/// How a container is reached that has a network namespace of its own or the
/// host's.
fn own(
    container: &Container,
    chosen: Option<&str>,
    ports: &BTreeSet<u16>,
    view: View<'_>,
) -> Result<Reach, String> {
    if chosen == Some("") {
        return Err("it is empty; write the name of a network, or leave it out".to_owned());
    }
    if let Vantage::Unknown(why) = view.vantage {
        return Err(format!("it is not known yet where HAProxy is: {why}"));
    }
    match &container.network_mode {
        NetworkMode::Networks => on_networks(container, chosen, ports, view),
        NetworkMode::Host if chosen.is_some_and(|network| network != HOST) => Err(format!(
            "it runs in host network mode and can't be on network {}",
            quoted(chosen.unwrap_or_default())
        )),
        NetworkMode::Host => on_host(container, view).map(Reach::Host),
        NetworkMode::None => Err("it has no network (network mode `none`)".to_owned()),
        NetworkMode::Container(id) => Err(format!(
            "that one shares the network of container {}; only one level is followed",
            printable(id.short(), LIST_LIMIT)
        )),
    }
}

/// The address of the host that a container in host mode runs on.
fn on_host(container: &Container, view: View<'_>) -> Result<IpAddr, String> {
    let engine = &container.engine;
    if view.vantage.is_on_host_of(engine) {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    if let Vantage::Container { engine: own, networks } = view.vantage
        && own == engine
    {
        let hosts = networks.values().flatten().find_map(|network| {
            preferred(network.host_addresses().filter(can_be_a_server), view.prefer_ipv6)
        });
        if let Some(address) = hosts {
            return Ok(address);
        }
    }
    (view.advertised)(engine).ok_or_else(|| match view.vantage {
        Vantage::Container { engine: own, .. } if own == engine => format!(
            "it runs in host network mode, and HAProxy is on no network with the host as its gateway; \
             HAProxy is on {}; engine `{engine}` has no advertised address either, {ADVERTISE}",
            view.vantage.listed()
        ),
        _ => format!(
            "it runs in host network mode on another host than HAProxy, and engine `{engine}` has no \
             advertised address; {ADVERTISE}"
        ),
    })
}

fn on_networks(
    container: &Container,
    chosen: Option<&str>,
    ports: &BTreeSet<u16>,
    view: View<'_>,
) -> Result<Reach, String> {
    let mut candidates: Vec<(&str, &Endpoint)> = container
        .networks
        .iter()
        .map(|(name, endpoint)| (&**name, endpoint))
        .filter(|&(name, endpoint)| {
            name != INGRESS && view.vantage.reaches(&container.engine, name, endpoint)
        })
        .filter(|&(name, _)| chosen.is_none_or(|chosen| chosen == name))
        .collect();
    if candidates.is_empty() {
        return match chosen {
            Some(name) => Err(not_on(container, name, view.vantage)),
            None => published(container, ports, view),
        };
    }
    if matches!(view.vantage, Vantage::Host { .. }) {
        // A macvlan keeps its host out, mostly; a bridge never does.
        let driver = |endpoint: &Endpoint| endpoint.network.as_ref().map(|network| network.driver);
        candidates.sort_by_key(|(_, endpoint)| driver(endpoint) == Some(Driver::Other));
    }
    let address = candidates.iter().find_map(|(_, endpoint)| usable(endpoint, view.prefer_ipv6));
    address.map(Reach::Own).ok_or_else(|| match candidates[..] {
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

/// Why the network that it chose can't be used.
fn not_on(container: &Container, chosen: &str, vantage: &Vantage) -> String {
    match (container.networks.contains_key(chosen), vantage) {
        _ if chosen == INGRESS => "swarm's network `ingress` can't be used to reach a container".to_owned(),
        (false, _) => {
            let own = listed(container.networks.keys().map(|name| &**name));
            format!("it is not on network {}; it is on {own}", quoted(chosen))
        }
        (true, Vantage::Host { elsewhere }) if elsewhere.contains(&container.engine) => {
            format!(
                "network {} is on the host of engine `{}`, HAProxy is not",
                quoted(chosen),
                container.engine
            )
        }
        (true, Vantage::Host { .. }) => {
            format!("network {} is an overlay, which an HAProxy on the host does not reach", quoted(chosen))
        }
        (true, Vantage::Container { engine, networks })
            if *engine != container.engine && networks.contains_key(chosen) =>
        {
            format!(
                "network {} of engine `{}` is another one than that of engine `{engine}`, where HAProxy is",
                quoted(chosen),
                container.engine
            )
        }
        (true, _) => {
            format!("HAProxy is not on network {}; HAProxy is on {}", quoted(chosen), vantage.listed())
        }
    }
}

/// The last way: ports of the host.
fn published(container: &Container, ports: &BTreeSet<u16>, view: View<'_>) -> Result<Reach, String> {
    let found: Vec<(u16, SocketAddr)> =
        ports.iter().filter_map(|&port| Some((port, published_at(container, port, view)?))).collect();
    if !found.is_empty() {
        return Ok(Reach::Published(found));
    }
    let own = listed(container.networks.keys().map(|name| &**name));
    let networks = match view.vantage {
        Vantage::Host { elsewhere } if elsewhere.contains(&container.engine) => {
            "it is on another host than HAProxy".to_owned()
        }
        Vantage::Host { .. } => format!("it is on no network that the host reaches; it is on {own}"),
        _ => format!(
            "it shares no network with HAProxy; it is on {own}, HAProxy is on {}",
            view.vantage.listed()
        ),
    };
    let port = ports.first().copied().unwrap_or_default();
    let theirs = container.published.iter().filter(|published| published.container_port == port);
    let ports = match theirs.max_by_key(|published| published.host.is_unspecified()) {
        None => format!("port {port} is not published"),
        Some(all) if all.host.is_unspecified() => format!(
            "port {port} is published at all addresses of engine `{}`, which has no advertised address: {ADVERTISE}",
            container.engine
        ),
        Some(one) => format!(
            "port {port} is published at {} only, which HAProxy does not reach",
            SocketAddr::new(one.host, one.host_port)
        ),
    };
    Err(format!("{networks}; {ports}"))
}

fn published_at(container: &Container, port: u16, view: View<'_>) -> Option<SocketAddr> {
    let advertised = (view.advertised)(&container.engine);
    // One whose host is reached at a loopback address shares that with HAProxy.
    let here = view.vantage.is_on_host_of(&container.engine) || advertised.is_some_and(|ip| ip.is_loopback());
    let all = || container.published.iter().filter(|published| published.container_port == port);
    let specific = all()
        .filter(|published| can_be_a_server(&published.host) && (here || !published.host.is_loopback()))
        .map(|published| SocketAddr::new(published.host, published.host_port));
    let host = advertised.or(here.then_some(Ipv4Addr::LOCALHOST.into()));
    let on_all = || {
        let host = host?;
        let open = all()
            .find(|published| published.host.is_unspecified() && published.host.is_ipv4() == host.is_ipv4());
        Some(SocketAddr::new(host, open?.host_port))
    };
    preferred(specific, view.prefer_ipv6).or_else(on_all)
}

/// Addresses of both families, of which one is liked better.
trait Family {
    fn is_v6(&self) -> bool;
}

impl Family for IpAddr {
    fn is_v6(&self) -> bool {
        self.is_ipv6()
    }
}

impl Family for SocketAddr {
    fn is_v6(&self) -> bool {
        self.is_ipv6()
    }
}

/// The first of the family that is preferred, else the first.
fn preferred<A: Family>(addresses: impl Iterator<Item = A>, prefer_ipv6: bool) -> Option<A> {
    addresses.min_by_key(|address| address.is_v6() != prefer_ipv6)
}

fn usable(endpoint: &Endpoint, prefer_ipv6: bool) -> Option<IpAddr> {
    let both = [endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6)];
    preferred(both.into_iter().flatten().filter(can_be_a_server), prefer_ipv6)
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
    let count = names.len();
    let mut room = LIST_LIMIT;
    let shown: Vec<String> = names
        .map(|name| format!("`{}`", printable(name, LIST_LIMIT / 2)))
        .take_while(|name| {
            let fits = name.len() <= room;
            room = room.saturating_sub(name.len());
            fits
        })
        .collect();
    match count - shown.len() {
        0 if count == 0 => "none".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
