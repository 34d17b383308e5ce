//! Any bytes as a container's metadata: nothing panics, and what comes out is
//! of the validated alphabets.
#![no_main]

use hapilot::core::claim::{HOSTS_LIMIT, Rejection, claims, id_of_server, server_name};
use hapilot::core::container::{Container, ContainerId, NetworkMode};
use hapilot::core::endpoint::{Vantage, View, reach};
use hapilot::core::name::{BackendKey, BackendName, Host, MapWord, ServerName};
use libfuzzer_sys::fuzz_target;

/// No byte of UTF-8 is this one, so it can part the texts.
const SEPARATOR: u8 = 0xff;

/// The texts in turn: the identifier, the name, a network, then keys and values
/// of labels (`hapilot.…`) and variables (all else).
fn container(data: &[u8]) -> Container {
    let mut texts = data.split(|&b| b == SEPARATOR).map(String::from_utf8_lossy);
    let mut next = || texts.next().unwrap_or_default();
    let fallback = || ContainerId::new("0123456789abcdef").expect("of the alphabet");
    let id = ContainerId::new(&next()).unwrap_or_else(fallback);
    let name = next();
    let network = next();
    let address = data.first_chunk::<4>().map(|&bytes| bytes.into());
    let mut container = Container::running(id, &name).on_network(&network, address, None);
    container.network_mode = match data.len() % 8 {
        0 => NetworkMode::Host,
        1 => NetworkMode::None,
        2 => NetworkMode::Container(fallback()),
        _ => NetworkMode::Networks,
    };
    while let Some(key) = texts.next() {
        let value = texts.next().unwrap_or_default();
        container = match key.starts_with("hapilot.") {
            true => container.with_label(&key, &value),
            false => container.with_env(&key, &value),
        };
    }
    container
}

fn check(rejection: &Rejection) {
    for (text, limit) in [
        (&rejection.container, Rejection::CONTAINER_LIMIT),
        (&rejection.key, Rejection::KEY_LIMIT),
        (&rejection.reason, Rejection::REASON_LIMIT),
    ] {
        assert!(text.len() <= limit && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{text:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let container = container(data);

    let got = claims(&container);
    assert!(got.claims.len() <= HOSTS_LIMIT);
    for claim in &got.claims {
        assert!(claim.port != 0 && claim.weight <= 256);
        assert_eq!(Host::new(claim.host.as_str()).as_ref(), Ok(&claim.host));
        let key = BackendKey { class: got.policy.class(), host: claim.host.clone() };
        let name = key.own_name();
        assert_eq!(BackendName::new(name.as_str()).as_ref(), Ok(&name));
        assert!(!name.is_pool() && !name.as_str().starts_with("hapilot:"));
        assert!(MapWord::new(key.service().as_str()).is_ok());
    }
    got.rejections.iter().for_each(check);

    let ports = got.claims.iter().map(|claim| claim.port).collect();
    for vantage in [Vantage::host(), Vantage::of(&container), Vantage::Unknown("".into())] {
        for prefer_ipv6 in [false, true] {
            let view = View { vantage: &vantage, advertised: &|_| None, prefer_ipv6 };
            if let Err(rejection) = reach(&container, &ports, view, |_| Some(&container)) {
                check(&rejection);
            }
        }
    }

    let server = server_name(&container);
    assert_eq!(ServerName::new(server.as_str()).as_ref(), Ok(&server));
    assert!(id_of_server(&server).is_some());
});
