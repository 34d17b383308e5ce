//! Whatever a container says about itself, what comes out is of the validated
//! alphabets, bounded, and fit for a terminal.
//!
//! What lives here: properties over arbitrary metadata. What it must not know:
//! which reason belongs to which mistake (the unit tests of `core::claim`).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hapilot::core::claim::{HOSTS_LIMIT, Rejection, claims, id_of_server, printable, server_name};
use hapilot::core::container::{Container, ContainerId, Endpoint, EngineName, NetworkMode, PublishedPort};
use hapilot::core::endpoint::{Reach, Vantage, View, reach};
use hapilot::core::label::LABELS;
use hapilot::core::name::{BackendKey, BackendName, Host, MapWord, ServerName};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Any text, and texts made of what has a meaning to somebody: to us, to
/// HAProxy's socket and configuration, to a shell, to a terminal, to a map.
fn text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a.example",
        "b",
        "*.",
        "*",
        ".",
        ",",
        ";",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\0",
        "\\",
        "\"",
        "'",
        "`",
        "#",
        "<<",
        "://",
        ":8080",
        "/",
        "..",
        "/../",
        "-",
        "80",
        "0",
        "-1",
        "65536",
        "999999999999",
        "$(id)",
        "${x}",
        "%[env(HOME)]",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{85}",
        "\u{202e}",
        "\u{2028}",
        "é",
        "xn--",
        "server",
        "del server web/a",
        "@1",
        "+",
        "web:pool:0000",
        "hapilot:",
        "~^x$",
        "amber",
        "blue",
        "ingress",
    ]);
    prop_oneof![
        // `any::<String>()` would leave control characters out.
        2 => vec(any::<char>(), 0..40).prop_map(String::from_iter),
        4 => vec(pieces, 0..8).prop_map(|pieces| pieces.concat()),
        1 => r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){1,3}(,[a-z0-9]{1,10}\.example){0,4}",
        1 => r"[a-z.*,-]{250,400}",
    ]
}

fn key(known: Vec<&'static str>, prefix: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(known).prop_map(str::to_owned),
        1 => text().prop_map(move |text| format!("{prefix}{text}")),
        1 => text(),
    ]
}

fn identifier() -> impl Strategy<Value = ContainerId> {
    "[A-Za-z0-9_.-]{1,128}".prop_filter_map("outside the alphabet", |text| ContainerId::new(&text))
}

fn network() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["amber", "blue", "ingress", "host"]).prop_map(str::to_owned),
        text()
    ]
}

fn mode() -> impl Strategy<Value = NetworkMode> {
    prop_oneof![
        4 => Just(NetworkMode::Networks),
        1 => Just(NetworkMode::Host),
        1 => Just(NetworkMode::None),
        1 => identifier().prop_map(NetworkMode::Container),
    ]
}

/// Any address, and those that mean nobody or everybody.
fn endpoint() -> impl Strategy<Value = Endpoint> {
    let special =
        [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST, Ipv4Addr::new(224, 0, 0, 1)];
    let ipv4 = prop_oneof![any::<Ipv4Addr>(), prop::sample::select(special.to_vec())];
    let ipv6 = prop_oneof![
        any::<Ipv6Addr>(),
        prop::sample::select(special.map(|address| address.to_ipv6_mapped()).to_vec()),
        Just(Ipv6Addr::UNSPECIFIED),
    ];
    (option::of(ipv4), option::of(ipv6)).prop_map(|(ipv4, ipv6)| Endpoint { ipv4, ipv6, network: None })
}

fn container() -> impl Strategy<Value = Container> {
    let labels = btree_map(
        key(LABELS.iter().map(|doc| doc.key).collect(), "hapilot."),
        prop_oneof![4 => text(), 1 => text().prop_map(|text| format!("/{text}"))],
        0..8,
    );
    let env = btree_map(key(vec!["VIRTUAL_HOST", "VIRTUAL_PORT", "VIRTUAL_PATH"], "VIRTUAL_"), text(), 0..5);
    let networks = btree_map(network(), endpoint(), 0..4);
    let address = prop_oneof![any::<IpAddr>(), Just(Ipv4Addr::UNSPECIFIED.into())];
    let published = (1..4_u16, address, 1..=u16::MAX)
        .prop_map(|(container_port, host, host_port)| PublishedPort { container_port, host, host_port });
    let ports = (vec(any::<u16>(), 0..3), vec(published, 0..4));
    (identifier(), text(), mode(), networks, ports, labels, env).prop_map(
        |(id, name, network_mode, networks, (exposed_ports, published), labels, env)| Container {
            published: published.into(),
            network_mode,
            networks: networks.into_iter().map(|(name, endpoint)| (name.into(), endpoint)).collect(),
            exposed_ports,
            labels: labels.into_iter().collect(),
            env: env.into_iter().collect(),
            ..Container::running(id, &name)
        },
    )
}

fn vantage() -> impl Strategy<Value = Vantage> {
    prop_oneof![
        Just(Vantage::host()),
        btree_set(network(), 0..4).prop_map(|names| Vantage::Container {
            engine: EngineName::default(),
            networks: names.into_iter().map(|name| (name.into(), None)).collect(),
        }),
        text().prop_map(|why| Vantage::Unknown(why.into())),
    ]
}

fn check_rejection(rejection: &Rejection) -> Result<(), TestCaseError> {
    for (text, limit) in [
        (&rejection.container, Rejection::CONTAINER_LIMIT),
        (&rejection.key, Rejection::KEY_LIMIT),
        (&rejection.reason, Rejection::REASON_LIMIT),
    ] {
        prop_assert!(text.len() <= limit, "{text:?}");
        prop_assert!(text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{text:?}");
    }
    prop_assert!(!rejection.reason.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1024,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_metadata_gives_valid_claims_and_printable_rejections(container in container()) {
        let got = claims(&container);
        prop_assert!(got.claims.len() <= HOSTS_LIMIT);
        let mut seen = BTreeSet::new();
        for claim in &got.claims {
            prop_assert_ne!(claim.port, 0);
            prop_assert!(claim.weight <= 256);
            let host = &claim.host;
            let key = BackendKey { class: got.policy.class(), host: host.clone() };
            prop_assert_eq!(Host::new(host.as_str()), Ok(host.clone()));
            prop_assert!(seen.insert(host.clone()), "{host} is there twice");
            let name = key.own_name();
            prop_assert_eq!(BackendName::new(name.as_str()), Ok(name.clone()));
            prop_assert!(!name.is_pool() && !name.as_str().starts_with("hapilot:"), "{name}");
            let check = got.policy.check.as_ref().map(|check| check.word(host));
            if let Some(check) = &check {
                let parts: Vec<&str> = check.as_str().splitn(3, ':').collect();
                prop_assert!(matches!(parts[..], [_, _, path] if path.starts_with('/')), "{check}");
            }
            for word in [MapWord::from(&name), MapWord::from(host), key.service()].into_iter().chain(check) {
                prop_assert_eq!(MapWord::new(word.as_str()), Ok(word));
            }
        }
        for rejection in &got.rejections {
            check_rejection(rejection)?;
            prop_assert_eq!(&rejection.id, &container.id);
        }
        prop_assert!(got.rejections.len() <= HOSTS_LIMIT + 20);
    }

    #[test]
    fn every_list_of_hosts_is_answered(list in text()) {
        let id = ContainerId::new("0123456789abcdef").expect("of the alphabet");
        let got = claims(&Container::running(id, "shop").with_env("VIRTUAL_HOST", &list));
        prop_assert!(!got.claims.is_empty() || !got.rejections.is_empty());
    }

    #[test]
    fn one_bad_host_takes_no_good_one_with_it(bad in text()) {
        let id = ContainerId::new("0123456789abcdef").expect("of the alphabet");
        let list = format!("first.example,{bad},last.example");
        let got = claims(&Container::running(id, "shop").with_label("hapilot.host", &list));
        for good in ["first.example", "last.example"] {
            prop_assert!(got.claims.iter().any(|claim| claim.host.as_str() == good), "{got:?}");
        }
    }

    #[test]
    fn any_network_gives_a_usable_address_or_a_printable_rejection(
        container in container(), other in option::of(container()), vantage in vantage(), prefer_ipv6: bool,
        ports in btree_set(1..4_u16, 1..3), advertised in option::of(any::<IpAddr>()),
    ) {
        let view = View { vantage: &vantage, advertised: &|_| advertised, prefer_ipv6 };
        let ports = ports.into_iter().collect();
        match reach(&container, &ports, view, |_| other.as_ref()) {
            Ok(reach) => {
                let owners = [Some(&container), other.as_ref()];
                let all = || owners.into_iter().flatten();
                for port in ports {
                    let Some(at) = reach.at(port) else { continue };
                    let (address, seen) = (at.ip(), at.ip().to_canonical());
                    let has = |owner: &Container| match &reach {
                        Reach::Own(_) => owner.networks.values().any(|e| {
                            [e.ipv4.map(IpAddr::V4), e.ipv6.map(IpAddr::V6)].contains(&Some(address))
                        }),
                        Reach::Host(_) => owner.network_mode == NetworkMode::Host,
                        Reach::Published(_) => owner
                            .published
                            .iter()
                            .any(|p| p.container_port == port && p.host_port == at.port()),
                    };
                    prop_assert!(all().any(has), "{reach:?} is nobody's");
                    if !matches!(reach, Reach::Own(_)) {
                        let told = Some(address) == advertised
                            || address == IpAddr::from(Ipv4Addr::LOCALHOST)
                            || all().any(|owner| owner.published.iter().any(|p| p.host == address));
                        prop_assert!(told, "{address} is nobody's");
                    }
                    prop_assert!(Some(address) == advertised || !seen.is_unspecified() && !seen.is_multicast());
                    prop_assert!(Some(address) == advertised || seen != IpAddr::from(Ipv4Addr::BROADCAST));
                }
            }
            Err(rejection) => check_rejection(&rejection)?,
        }
    }

    #[test]
    fn any_container_has_a_valid_server_name(container in container()) {
        let server = server_name(&container);
        prop_assert_eq!(ServerName::new(server.as_str()), Ok(server.clone()));
        prop_assert!(server.as_str().len() <= 64, "{server}");
        let short = container.id.short().replace('-', "_");
        prop_assert_eq!(id_of_server(&server), Some(short.as_str()));
    }

    #[test]
    fn printable_is_bounded_and_leaves_plain_text_alone(text in text(), limit in 0..100_usize) {
        let got = printable(&text, limit);
        prop_assert!(got.len() <= limit);
        prop_assert!(got.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
        if text.len() <= limit && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            prop_assert_eq!(got, text);
        }
    }
}
