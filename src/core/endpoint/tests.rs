//! Unit tests of `endpoint`: each rule, and what is said where none helps.

use std::net::Ipv6Addr;

use super::*;
use crate::core::container::PublishedPort;

const V6: &str = "2001:db8::7";

fn container(name: &str) -> Container {
    Container::running(ContainerId::new(&format!("{name}0123456789abcdef")).expect("valid"), name)
}

/// A container with an IPv4 address on each network; "" for none yet.
fn on(networks: &[(&str, &str)]) -> Container {
    networks.iter().fold(container("shop"), |c, (name, ipv4)| c.on_network(name, ipv4.parse().ok(), None))
}

fn networks(names: &[&str]) -> Vantage {
    let networks = names.iter().map(|&name| (name.into(), None)).collect();
    Vantage::Container { engine: EngineName::default(), networks }
}

/// The same container on a network of this identifier and driver.
fn known(mut container: Container, name: &str, id: &str, driver: Driver) -> Container {
    let mut endpoint = container.networks.get(name).cloned().unwrap_or_default();
    let gateway = Some(Ipv4Addr::new(10, 9, 9, 1));
    let network = Network { id: id.into(), driver, internal: false, gateway, gateway_ipv6: None };
    endpoint.network = Some(network.into());
    container.networks.insert(name.into(), endpoint);
    container
}

fn published(mut container: Container, ports: &[(u16, &str, u16)]) -> Container {
    let port = |&(container_port, host, host_port): &(u16, &str, u16)| PublishedPort {
        container_port,
        host: host.parse().expect("valid"),
        host_port,
    };
    container.published = ports.iter().map(port).collect();
    container
}

fn engine(name: &str) -> EngineName {
    EngineName::new(name).expect("valid")
}

/// Where its port 80 is reached, with the addresses that engines advertise.
fn seen(container: &Container, vantage: &Vantage, advertised: &[(&str, &str)]) -> Result<String, String> {
    let advertised = |name: &EngineName| {
        let found = advertised.iter().find(|(engine, _)| *engine == name.as_str());
        found.map(|(_, address)| address.parse().expect("valid"))
    };
    let view = View { vantage, advertised: &advertised, prefer_ipv6: false };
    reach(container, &[80].into(), view, |_| panic!("asks for no other container"))
        .map(|reach| reach.at(80).expect("it was asked for").to_string())
        .map_err(|rejection| format!("{}: {}", rejection.key, rejection.reason))
}

fn alone(container: &Container, vantage: &Vantage) -> Result<String, String> {
    let at = seen(container, vantage, &[]);
    at.map(|at| at.strip_suffix(":80").expect("the same port").trim_matches(['[', ']']).to_owned())
}

#[test]
fn the_first_network_that_haproxy_reaches_is_taken() {
    let two = on(&[("blue", "10.0.1.2"), ("amber", "10.0.2.2")]);
    let late = on(&[("amber", ""), ("blue", "10.0.1.2")]);
    let swarm = on(&[("ingress", "10.255.0.2"), ("zeta", "10.0.3.2")]);
    let cases = [
        (&two, Vantage::host(), "10.0.2.2"),
        (&two, networks(&["blue", "amber"]), "10.0.2.2"),
        (&two, networks(&["blue", "other"]), "10.0.1.2"),
        (&late, Vantage::host(), "10.0.1.2"),
        (&late, networks(&["amber", "blue"]), "10.0.1.2"),
        (&swarm, Vantage::host(), "10.0.3.2"),
        (&swarm, networks(&["ingress", "zeta"]), "10.0.3.2"),
    ];
    for (container, vantage, wanted) in cases {
        assert_eq!(alone(container, &vantage).as_deref(), Ok(wanted), "{:?} {vantage:?}", container.networks);
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
    assert_eq!(of("blue", &Vantage::host()).as_deref(), Ok("10.0.1.2"));
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
        ("new", &Vantage::host(), "hapilot.network: it has no address on network `new` yet"),
        ("ingress", &theirs, "hapilot.network: swarm's network `ingress` can't be used to reach a container"),
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
            "network: it shares no network with HAProxy; it is on `amber`, `blue`, HAProxy is on `green`, `red`; port 80 is not published",
        ),
        (
            two,
            networks(&[]),
            "network: it shares no network with HAProxy; it is on `amber`, `blue`, HAProxy is on none; port 80 is not published",
        ),
        (
            on(&[]),
            Vantage::host(),
            "network: it is on no network that the host reaches; it is on none; port 80 is not published",
        ),
        (on(&[("a", "")]), networks(&["a"]), "network: it has no address on network `a` yet"),
        (
            on(&[("a", ""), ("b", "0.0.0.0")]),
            networks(&["a", "b", "c"]),
            "network: it has no usable address on any of `a`, `b` yet",
        ),
        (
            on(&[("ingress", "10.255.0.2")]),
            Vantage::host(),
            "network: it is on no network that the host reaches; it is on `ingress`; port 80 is not published",
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
    let theirs: Vec<String> = names.iter().map(|name| format!("x{name}")).collect();
    let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
    let reason = alone(&many, &networks(&theirs)).expect_err("shares nothing");
    assert!(reason.contains("`network-000-nnnnnnnnnnnnnnnnnnnn`, "), "{reason}");
    assert!(reason.ends_with(" and 498 more; port 80 is not published"), "{reason}");
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
        let view = View { vantage: &Vantage::host(), advertised: &|_| None, prefer_ipv6 };
        let got = reach(&container, &[80].into(), view, |_| None).expect("has one");
        assert_eq!(got, Reach::Own(wanted.parse().expect("valid")));
    }
}

#[test]
fn addresses_of_nobody_or_of_many_are_refused() {
    for bad in ["0.0.0.0", "224.0.0.1", "239.1.2.3", "255.255.255.255"] {
        let wanted = format!("network: its address {bad} on network `a` can't be a server's");
        assert_eq!(alone(&on(&[("a", bad)]), &Vantage::host()), Err(wanted));
    }
    for bad in ["::", "ff02::1", "fe80::1", "::ffff:0.0.0.0", "::ffff:255.255.255.255"] {
        let ipv6: Ipv6Addr = bad.parse().expect("valid");
        let wanted = format!("network: its address {ipv6} on network `a` can't be a server's");
        assert_eq!(
            alone(&container("shop").on_network("a", None, Some(ipv6)), &Vantage::host()),
            Err(wanted)
        );
    }
}

#[test]
fn host_mode_is_reached_at_the_host() {
    let host = Container { network_mode: NetworkMode::Host, ..on(&[("host", "")]) };
    assert_eq!(alone(&host, &Vantage::host()).as_deref(), Ok("127.0.0.1"));
    let named = host.clone().with_label("hapilot.network", "host");
    assert_eq!(alone(&named, &Vantage::host()).as_deref(), Ok("127.0.0.1"));
    let cases = [
        (
            host.clone(),
            networks(&["a"]),
            "network: it runs in host network mode, and HAProxy is on no network with the host as its gateway; \
             HAProxy is on `a`; engine `docker` has no advertised address either, \
             give it one: --docker NAME=URL,address=IP",
        ),
        (
            host.with_label("hapilot.network", "a"),
            Vantage::host(),
            "hapilot.network: it runs in host network mode and can't be on network `a`",
        ),
        (
            Container { network_mode: NetworkMode::None, ..on(&[("none", "")]) },
            Vantage::host(),
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
        let vantage = networks(&["a"]);
        let view = View { vantage: &vantage, advertised: &|_| None, prefer_ipv6: false };
        reach(container, &[80].into(), view, |id| others.iter().copied().find(|other| other.id == *id))
            .map(|reach| reach.at(80).expect("it was asked for").ip().to_string())
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
    let other = Container { network_mode: NetworkMode::Container(itself.id.clone()), ..container("shop") };
    let first = joined(&other);
    for (container, others) in [(&itself, [&itself]), (&first, [&other])] {
        let reason = ask(container, &others).expect_err("a loop leads nowhere");
        assert!(
            reason.ends_with("shares the network of container sidecar01234; only one level is followed"),
            "{reason}"
        );
    }
}

/// Rule 2: the network must be the same one, not one of the same name.
#[test]
fn another_engines_network_is_shared_only_if_it_is_a_swarms() {
    let haproxy = known(known(on(&[]), "farm", "swarm1", Driver::Overlay), "web", "a0", Driver::Bridge);
    let vantage = Vantage::of(&haproxy);
    let here = known(on(&[("web", "10.0.1.2")]), "web", "a0", Driver::Bridge);
    let there = known(on(&[("web", "10.0.1.2")]), "web", "b0", Driver::Bridge).of_engine(&engine("b"));
    let farm = known(on(&[("farm", "10.0.7.2"), ("web", "10.0.1.2")]), "farm", "swarm1", Driver::Overlay);
    let farm = known(farm, "web", "b0", Driver::Bridge).of_engine(&engine("b"));
    let unknown = on(&[("web", "10.0.1.2")]).of_engine(&engine("b"));
    assert_eq!(alone(&here, &vantage).as_deref(), Ok("10.0.1.2"));
    assert_eq!(alone(&farm, &vantage).as_deref(), Ok("10.0.7.2"));
    for container in [&there, &unknown] {
        let reason = alone(container, &vantage).expect_err("another network");
        assert!(reason.starts_with("network: it shares no network with HAProxy; it is on `web`"), "{reason}");
    }
    // A network made anew under the old name is another one.
    let stale = known(on(&[("web", "10.0.1.2")]), "web", "a1", Driver::Bridge);
    assert!(alone(&stale, &vantage).is_err());
    let chosen = there.with_label("hapilot.network", "web");
    assert_eq!(
        alone(&chosen, &vantage),
        Err("hapilot.network: network `web` of engine `b` is another one than that of engine `docker`, where \
             HAProxy is"
            .to_owned())
    );
}

/// Rule 2, from the host: an overlay never, a macvlan last.
#[test]
fn from_the_host_bridges_come_first() {
    let both = known(on(&[("a-lan", "10.0.3.2"), ("web", "10.0.1.2")]), "a-lan", "x", Driver::Other);
    assert_eq!(alone(&both, &Vantage::host()).as_deref(), Ok("10.0.1.2"));
    let lan = known(on(&[("lan", "10.0.3.2")]), "lan", "x", Driver::Other);
    assert_eq!(alone(&lan, &Vantage::host()).as_deref(), Ok("10.0.3.2"));
    let farm = known(on(&[("farm", "10.0.7.2")]), "farm", "swarm1", Driver::Overlay);
    assert_eq!(
        alone(&farm, &Vantage::host()),
        Err("network: it is on no network that the host reaches; it is on `farm`; port 80 is not published"
            .to_owned())
    );
    assert_eq!(
        alone(&farm.clone().with_label("hapilot.network", "farm"), &Vantage::host()),
        Err("hapilot.network: network `farm` is an overlay, which an HAProxy on the host does not reach"
            .to_owned())
    );
    assert_eq!(
        seen(&published(farm, &[(80, "0.0.0.0", 8080)]), &Vantage::host(), &[]).as_deref(),
        Ok("127.0.0.1:8080")
    );
}

/// Rule 3: the gateway of HAProxy's first network in name order that has one.
#[test]
fn from_a_container_the_host_is_the_gateway() {
    let host = Container { network_mode: NetworkMode::Host, ..on(&[("host", "")]) };
    let stand = |networks: &[(&str, Driver, bool, Option<[u8; 4]>)]| {
        let network = |&(name, driver, internal, gateway): &(&str, Driver, bool, Option<[u8; 4]>)| {
            let gateway = gateway.map(Ipv4Addr::from);
            let network = Network { id: name.into(), driver, internal, gateway, gateway_ipv6: None };
            (name.into(), Some(network.into()))
        };
        let networks = networks.iter().map(network).collect();
        Vantage::Container { engine: EngineName::default(), networks }
    };
    let closed = ("a", Driver::Bridge, true, Some([10, 0, 1, 1]));
    let lan = ("b", Driver::Other, false, Some([10, 0, 2, 1]));
    let farm = ("c", Driver::Overlay, false, None);
    let bridge = ("d", Driver::Bridge, false, Some([10, 0, 4, 1]));
    let untold = ("e", Driver::Unknown, false, Some([10, 0, 5, 1]));
    let advertised = [("docker", "192.0.2.1")];
    for (networks, told, wanted) in [
        (&[closed, lan, farm, bridge, untold][..], &advertised[..], Ok("10.0.4.1:80")),
        (&[untold], &[], Ok("10.0.5.1:80")),
        (&[closed, lan, farm], &advertised, Ok("192.0.2.1:80")),
        (&[closed, lan, farm], &[], Err(())),
    ] {
        let got = seen(&host, &stand(networks), told);
        assert_eq!(got.as_deref().map_err(|_| ()), wanted, "{networks:?}");
    }
    // On another engine only the advertised address leads there.
    let there = host.of_engine(&engine("b"));
    assert_eq!(seen(&there, &stand(&[bridge]), &[("b", "192.0.2.2")]).as_deref(), Ok("192.0.2.2:80"));
    assert_eq!(
        seen(&there, &stand(&[bridge]), &advertised),
        Err("network: it runs in host network mode on another host than HAProxy, and engine `b` has no advertised \
             address; give it one: --docker NAME=URL,address=IP"
            .to_owned())
    );
    let elsewhere = Vantage::Host { elsewhere: [engine("b")].into() };
    assert_eq!(seen(&there, &elsewhere, &[("b", "192.0.2.2")]).as_deref(), Ok("192.0.2.2:80"));
    assert_eq!(seen(&there, &Vantage::host(), &[("b", "192.0.2.2")]).as_deref(), Ok("127.0.0.1:80"));
}

/// Rule 4: a specific host address before the advertised one.
#[test]
fn a_published_port_is_the_last_way() {
    let away = Vantage::Host { elsewhere: [engine("b")].into() };
    let inside = networks(&["web"]);
    let advertised = [("b", "192.0.2.2")];
    let all = &[(80, "0.0.0.0", 8080), (80, "::", 8080)][..];
    let specific = &[(80, "0.0.0.0", 8080), (80, "192.0.2.77", 8081), (80, "2001:db8::7", 8082)][..];
    let local = &[(80, "127.0.0.1", 8080)][..];
    let other = &[(443, "0.0.0.0", 8443)][..];
    let none = "port 80 is not published";
    let unadvertised = "port 80 is published at all addresses of engine `b`, which has no advertised address: give it \
                        one: --docker NAME=URL,address=IP";
    let loopback = "port 80 is published at 127.0.0.1:8080 only, which HAProxy does not reach";
    for vantage in [&away, &inside] {
        for (ports, told, wanted) in [
            (all, &advertised[..], Ok("192.0.2.2:8080")),
            (all, &[("b", "2001:db8::2")], Ok("[2001:db8::2]:8080")),
            (&all[..1], &[("b", "2001:db8::2")], Err(unadvertised)),
            (specific, &advertised, Ok("192.0.2.77:8081")),
            (specific, &[], Ok("192.0.2.77:8081")),
            (&specific[2..], &[], Ok("[2001:db8::7]:8082")),
            (all, &[], Err(unadvertised)),
            (local, &advertised, Err(loopback)),
            (other, &advertised, Err(none)),
        ] {
            let container = published(on(&[("lan", "10.0.1.2")]), ports).of_engine(&engine("b"));
            let got = seen(&container, vantage, told);
            match wanted {
                Ok(at) => assert_eq!(got.as_deref(), Ok(at), "{ports:?}"),
                Err(why) => {
                    let reason = got.expect_err(why);
                    assert!(reason.ends_with(&format!("; {why}")), "{reason}");
                }
            }
        }
    }
    // A network in common is better, whatever is published.
    let near = published(on(&[("web", "10.0.1.2")]), specific);
    assert_eq!(seen(&near, &inside, &advertised).as_deref(), Ok("10.0.1.2:80"));
    // Who chose a network gets no other way.
    let chosen = published(on(&[("lan", "10.0.1.2")]), specific).with_label("hapilot.network", "lan");
    assert!(seen(&chosen, &inside, &advertised).is_err());
}

#[test]
fn a_port_that_is_not_published_is_told_from_those_that_are() {
    let container = published(on(&[("lan", "10.0.1.2")]), &[(80, "192.0.2.7", 8080)]);
    let inside = networks(&["web"]);
    let view = View { vantage: &inside, advertised: &|_| None, prefer_ipv6: false };
    let reach = reach(&container, &[80, 81].into(), view, |_| None).expect("one is");
    assert_eq!(reach.at(80), Some(([192, 0, 2, 7], 8080).into()));
    assert_eq!(reach.at(81), None);
    assert!(unpublished(&container, 81).reason.contains("port 81 is not published"));
}
