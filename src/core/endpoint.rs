//! Which of a container's addresses HAProxy can reach.
//!
//! What lives here: the rule, in its order. What it must not know: ports and
//! hosts (`claim`).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::claim::{Rejection, printable, quoted};
use super::container::{Container, ContainerId, Endpoint, NetworkMode};
use super::label::NETWORK;

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
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const V6: &str = "2001:db8::7";

    fn container(name: &str) -> Container {
        Container::running(ContainerId::new(&format!("{name}0123456789abcdef")).expect("valid"), name)
    }

    /// A container with an IPv4 address on each network; "" for none yet.
    fn on(networks: &[(&str, &str)]) -> Container {
        networks.iter().fold(container("shop"), |c, (name, ipv4)| c.on_network(name, ipv4.parse().ok(), None))
    }

    fn networks(names: &[&str]) -> Vantage {
        Vantage::Networks(names.iter().map(|&name| name.into()).collect())
    }

    fn alone(container: &Container, vantage: &Vantage) -> Result<String, String> {
        address(container, vantage, false, |_| panic!("asks for no other container"))
            .map(|address| address.to_string())
            .map_err(|rejection| format!("{}: {}", rejection.key, rejection.reason))
    }

    #[test]
    fn the_first_network_that_haproxy_reaches_is_taken() {
        let two = on(&[("blue", "10.0.1.2"), ("amber", "10.0.2.2")]);
        let late = on(&[("amber", ""), ("blue", "10.0.1.2")]);
        let swarm = on(&[("ingress", "10.255.0.2"), ("zeta", "10.0.3.2")]);
        let cases = [
            (&two, Vantage::Host, "10.0.2.2"),
            (&two, networks(&["blue", "amber"]), "10.0.2.2"),
            (&two, networks(&["blue", "other"]), "10.0.1.2"),
            (&late, Vantage::Host, "10.0.1.2"),
            (&late, networks(&["amber", "blue"]), "10.0.1.2"),
            (&swarm, Vantage::Host, "10.0.3.2"),
            (&swarm, networks(&["ingress", "zeta"]), "10.0.3.2"),
        ];
        for (container, vantage, wanted) in cases {
            assert_eq!(
                alone(container, &vantage).as_deref(),
                Ok(wanted),
                "{:?} {vantage:?}",
                container.networks
            );
        }
    }

    #[test]
    fn a_label_chooses_the_network() {
        let of = |label: &str, vantage: &Vantage| {
            let container =
                on(&[("amber", "10.0.2.2"), ("blue", "10.0.1.2"), ("ingress", "10.255.0.2"), ("new", "")]);
            alone(&container.with_label("hapilot.network", label), vantage)
        };
        let theirs = networks(&["amber", "blue", "ingress"]);
        assert_eq!(of("blue", &Vantage::Host).as_deref(), Ok("10.0.1.2"));
        assert_eq!(of(" blue ", &theirs).as_deref(), Ok("10.0.1.2"));
        let cases = [
            (
                "green",
                &theirs,
                "hapilot.network: it is not on network `green`; it is on `amber`, `blue`, `ingress`, `new`",
            ),
            (
                "new",
                &theirs,
                "hapilot.network: HAProxy is not on network `new`; HAProxy is on `amber`, `blue`, `ingress`",
            ),
            ("new", &Vantage::Host, "hapilot.network: it has no address on network `new` yet"),
            (
                "ingress",
                &theirs,
                "hapilot.network: swarm's network `ingress` can't be used to reach a container",
            ),
            ("", &theirs, "hapilot.network: it is empty; write the name of a network, or leave it out"),
        ];
        for (label, vantage, wanted) in cases {
            assert_eq!(of(label, vantage), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn a_rejection_says_what_was_there() {
        let two = on(&[("amber", "10.0.2.2"), ("blue", "10.0.1.2")]);
        let cases = [
            (
                two.clone(),
                networks(&["green", "red"]),
                "network: it shares no network with HAProxy; it is on `amber`, `blue`, HAProxy is on `green`, `red`",
            ),
            (
                two,
                networks(&[]),
                "network: it shares no network with HAProxy; it is on `amber`, `blue`, HAProxy is on none",
            ),
            (
                on(&[]),
                Vantage::Host,
                "network: it is on no network with an address of its own; it is on none",
            ),
            (on(&[("a", "")]), networks(&["a"]), "network: it has no address on network `a` yet"),
            (
                on(&[("a", ""), ("b", "0.0.0.0")]),
                networks(&["a", "b", "c"]),
                "network: it has no usable address on any of `a`, `b` yet",
            ),
            (
                on(&[("ingress", "10.255.0.2")]),
                Vantage::Host,
                "network: it is on no network with an address of its own; it is on `ingress`",
            ),
        ];
        for (container, vantage, wanted) in cases {
            assert_eq!(alone(&container, &vantage), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn a_long_list_of_networks_leaves_room_for_the_rest() {
        let names: Vec<String> = (0..500).map(|i| format!("network-{i:03}-{}", "n".repeat(20))).collect();
        let many = names.iter().fold(container("shop"), |c, name| c.on_network(name, None, None));
        let theirs = Vantage::Networks(names.iter().map(|name| format!("x{name}").into()).collect());
        let reason = alone(&many, &theirs).expect_err("shares nothing");
        assert!(reason.contains("`network-000-nnnnnnnnnnnnnnnnnnnn`, "), "{reason}");
        assert!(reason.ends_with(" and 498 more"), "{reason}");
    }

    #[test]
    fn the_family_is_a_preference() {
        let v4 = Ipv4Addr::new(10, 0, 0, 7);
        let v6: Ipv6Addr = V6.parse().expect("valid");
        let cases = [
            (Some(v4), Some(v6), false, "10.0.0.7"),
            (Some(v4), Some(v6), true, V6),
            (Some(v4), None, true, "10.0.0.7"),
            (None, Some(v6), false, V6),
            (Some(Ipv4Addr::UNSPECIFIED), Some(v6), false, V6),
            (Some(v4), Some("fe80::1".parse().expect("valid")), true, "10.0.0.7"),
        ];
        for (ipv4, ipv6, prefer_ipv6, wanted) in cases {
            let container = container("shop").on_network("a", ipv4, ipv6);
            let got = address(&container, &Vantage::Host, prefer_ipv6, |_| None).expect("has one");
            assert_eq!(got.to_string(), wanted);
        }
    }

    #[test]
    fn addresses_of_nobody_or_of_many_are_refused() {
        for bad in ["0.0.0.0", "224.0.0.1", "239.1.2.3", "255.255.255.255"] {
            let wanted = format!("network: its address {bad} on network `a` can't be a server's");
            assert_eq!(alone(&on(&[("a", bad)]), &Vantage::Host), Err(wanted));
        }
        for bad in ["::", "ff02::1", "fe80::1", "::ffff:0.0.0.0", "::ffff:255.255.255.255"] {
            let ipv6: Ipv6Addr = bad.parse().expect("valid");
            let wanted = format!("network: its address {ipv6} on network `a` can't be a server's");
            assert_eq!(
                alone(&container("shop").on_network("a", None, Some(ipv6)), &Vantage::Host),
                Err(wanted)
            );
        }
    }

    #[test]
    fn host_mode_is_reached_from_the_host_only() {
        let host = Container { network_mode: NetworkMode::Host, ..on(&[("host", "")]) };
        assert_eq!(alone(&host, &Vantage::Host).as_deref(), Ok("127.0.0.1"));
        let named = host.clone().with_label("hapilot.network", "host");
        assert_eq!(alone(&named, &Vantage::Host).as_deref(), Ok("127.0.0.1"));
        let cases = [
            (
                host.clone(),
                networks(&["a"]),
                "network: it runs in host network mode, which an HAProxy in a container does not reach yet",
            ),
            (
                host.with_label("hapilot.network", "a"),
                Vantage::Host,
                "hapilot.network: it runs in host network mode and can't be on network `a`",
            ),
            (
                Container { network_mode: NetworkMode::None, ..on(&[("none", "")]) },
                Vantage::Host,
                "network: it has no network (network mode `none`)",
            ),
        ];
        for (container, vantage, wanted) in cases {
            assert_eq!(alone(&container, &vantage), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn a_shared_network_namespace_is_followed_one_level() {
        let joined = |other: &Container| Container {
            network_mode: NetworkMode::Container(other.id.clone()),
            ..container("sidecar")
        };
        let ask = |container: &Container, others: &[&Container]| {
            address(container, &networks(&["a"]), false, |id| {
                others.iter().copied().find(|other| other.id == *id)
            })
            .map(|address| address.to_string())
            .map_err(|rejection| format!("{} {}", rejection.container, rejection.reason))
        };
        let vpn = on(&[("a", "10.0.0.7"), ("b", "10.0.1.7")]);
        assert_eq!(ask(&joined(&vpn), &[&vpn]).as_deref(), Ok("10.0.0.7"));

        // The label is that of the container that asks.
        let wants_b = joined(&vpn).with_label("hapilot.network", "b");
        assert_eq!(
            ask(&wants_b, &[&vpn]),
            Err("sidecar it shares the network of container `shop` (shop01234567), and HAProxy is not on network \
                 `b`; HAProxy is on `a`"
                .to_owned())
        );
        assert_eq!(
            ask(&joined(&vpn), &[]),
            Err("sidecar it shares the network of container shop01234567, which is not there".to_owned())
        );
        let stopped = on(&[("a", "")]);
        assert_eq!(
            ask(&joined(&stopped), &[&stopped]),
            Err("sidecar it shares the network of container `shop` (shop01234567), and it has no address on network \
                 `a` yet"
                .to_owned())
        );

        // A loop, of one and of two.
        let itself = joined(&container("sidecar"));
        let other =
            Container { network_mode: NetworkMode::Container(itself.id.clone()), ..container("shop") };
        let first = joined(&other);
        for (container, others) in [(&itself, [&itself]), (&first, [&other])] {
            let reason = ask(container, &others).expect_err("a loop leads nowhere");
            assert!(
                reason.ends_with("shares the network of container sidecar01234; only one level is followed"),
                "{reason}"
            );
        }
    }
}
