//! What the invariants see of HAProxy.
//!
//! What lives here: the model of HAProxy and the containers → who serves, who is
//! let in too early, and the terms of the plan properties. What it must not know:
//! what goes wrong when, and what is done about it.

use std::collections::BTreeSet;

use hapilot::core::claim::id_of_server;
use hapilot::core::command::Capabilities;
use hapilot::core::name::{BackendName, MapWord, ServerName};
use hapilot::core::state;

use crate::engine::Facts;
use crate::farm;
use crate::haproxy_model::{Haproxy, Network as _, Server};
use crate::invariants::{Breaches, serving};
use crate::stage::Net;

/// Servers that are given visitors and don't listen yet, where others would.
fn hasty(haproxy: &Haproxy, facts: &Facts, net: &Net) -> BTreeSet<String> {
    let begun = |server: &&Server| {
        let name = ServerName::new(&server.name).ok();
        name.as_ref().and_then(id_of_server).is_some_and(|id| facts.young.contains(id))
    };
    let mut hasty = BTreeSet::new();
    for backend in &haproxy.backends {
        if backend.servers.iter().any(|server| server.takes_traffic() && net.listens(server.address)) {
            let early = |server: &&Server| server.takes_traffic() && net.is_to_listen(server.address);
            let servers = backend.servers.iter().filter(early).filter(begun);
            hasty.extend(servers.map(|server| format!("{}/{}", backend.name, server.name)));
        }
    }
    hasty
}

/// What can be said of HAProxy by those who know the containers.
pub struct Sight {
    /// What is broken.
    pub breaches: Breaches,
    /// Hosts that are served.
    pub serving: BTreeSet<String>,
    /// The same without those whose servers may be taken away because they restart
    /// again and again.
    pub surely: BTreeSet<String>,
    /// Servers that are given visitors and don't listen yet, where others would.
    pub hasty: BTreeSet<String>,
    /// Servers that are given visitors.
    pub taking: BTreeSet<String>,
}

impl Sight {
    /// Looks at it.
    pub fn of(haproxy: &Haproxy, facts: &Facts, net: &Net) -> Self {
        let seen = seen(haproxy);
        let mut fit = facts.fit.clone();
        let breaches = Breaches::of(&seen, &fit, &facts.claims);
        let all = serving(&seen, &fit, &facts.wanted);
        fit.retain(|id, _| !facts.restless.contains(id));
        let surely = serving(&seen, &fit, &facts.wanted);
        let taking = haproxy.servers().filter(|(_, server)| server.takes_traffic());
        let taking = taking.map(|(backend, server)| format!("{}/{}", backend.name, server.name)).collect();
        Self { breaches, serving: all, surely, hasty: hasty(haproxy, facts, net), taking }
    }
}

/// The model as the checks of the plan properties take it.
pub fn seen(haproxy: &Haproxy) -> farm::Haproxy {
    let (major, minor) = haproxy.release.name().split_once('.').unwrap();
    let capabilities: Capabilities = farm::capabilities(major.parse().unwrap(), minor.parse().unwrap());
    let mut seen = farm::Haproxy::new(capabilities, 0);
    for backend in haproxy.backends.iter().filter(|backend| backend.name.starts_with("web:")) {
        let servers = backend
            .servers
            .iter()
            .map(|server| (ServerName::new(&server.name).unwrap(), real_server(server, haproxy.now())));
        let real = farm::RealBackend { published: backend.published, servers: servers.collect() };
        seen.backends.insert(BackendName::new(&backend.name).unwrap(), real);
    }
    for (map, file) in state::Map::ALL.map(|map| (map, map.file_name())) {
        for entry in haproxy.map(file) {
            if let (Ok(key), Ok(value)) = (MapWord::new(&entry.key), MapWord::new(&entry.value)) {
                seen.push_entry(map, key, value);
            }
        }
    }
    seen
}

fn real_server(server: &Server, now: u64) -> farm::RealServer {
    let admin = if server.is_maint() {
        state::Admin::Maint
    } else if server.is_drain() {
        state::Admin::Drain
    } else {
        state::Admin::Ready
    };
    farm::RealServer {
        server: state::Server {
            address: server.address,
            admin,
            weight: u16::try_from(server.weight).unwrap(),
            making: state::Making::default(),
        },
        unchanged_s: u32::try_from((now - server.changed) / 1_000).unwrap(),
        busy: u64::from(server.sessions + server.idle),
        checked: server.is_checked(),
        down: server.operational == 0 && admin != state::Admin::Maint,
    }
}
