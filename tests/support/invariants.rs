//! What must hold after every single command.
//!
//! What lives here: how a breach shows in what HAProxy has. What it must not
//! know: plans, and hapilot's own idea of what should be.

#![allow(dead_code, unreachable_pub, reason = "a part of the test binary that includes it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use hapilot::core::claim::id_of_server;
use hapilot::core::command::Command;
use hapilot::core::name::{BackendName, ServerName};
use hapilot::core::state::{Admin, Map};

use super::farm::Haproxy;

/// The containers that should serve now: address and hosts, without any whose
/// address is held by a later one.
pub type Fit = BTreeMap<String, (SocketAddr, BTreeSet<String>)>;

/// The hosts that have a ready server of a container that is fit to serve them.
pub fn serving(haproxy: &Haproxy, fit: &Fit, hosts: &BTreeSet<String>) -> BTreeSet<String> {
    let served = hosts.iter().filter(|&host| {
        let servers = haproxy.route(host).into_iter().flat_map(|(_, backend)| &backend.servers);
        servers.filter(|(_, real)| real.serves()).any(|(name, real)| {
            let container = id_of_server(name).and_then(|id| fit.get(id));
            container.is_some_and(|(at, claims)| real.server.address == *at && claims.contains(host))
        })
    });
    served.cloned().collect()
}

/// What must never be, by what it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Breaches {
    /// An address ready under more than one container.
    shared: BTreeSet<(SocketAddr, BTreeSet<String>)>,
    /// A host that leads to a ready server of a container that doesn't claim it.
    strangers: BTreeSet<(String, BackendName, ServerName)>,
    /// A ready server whose container is elsewhere.
    misled: BTreeSet<(BackendName, ServerName, SocketAddr)>,
}

impl Breaches {
    pub fn of(haproxy: &Haproxy, fit: &Fit, claims: &BTreeMap<String, BTreeSet<String>>) -> Self {
        let mut ids: BTreeMap<SocketAddr, BTreeSet<String>> = BTreeMap::new();
        let mut misled = BTreeSet::new();
        for (backend, name, server) in haproxy.observed().state.servers() {
            let id = id_of_server(name).unwrap_or_default();
            if server.admin == Admin::Ready {
                ids.entry(server.address).or_default().insert(id.to_owned());
                if fit.get(id).is_none_or(|(at, _)| *at != server.address) {
                    misled.insert((backend.clone(), name.clone(), server.address));
                }
            }
        }
        let mut strangers = BTreeSet::new();
        for (_, host, _) in haproxy.maps.get(&Map::Hosts).into_iter().flatten() {
            let Some((backend, real)) = haproxy.route(host.as_str()) else { continue };
            for (name, _) in real.servers.iter().filter(|(_, real)| real.server.admin == Admin::Ready) {
                let hosts = id_of_server(name).and_then(|id| claims.get(id));
                if hosts.is_none_or(|hosts| !hosts.contains(host.as_str())) {
                    strangers.insert((host.to_string(), backend.clone(), name.clone()));
                }
            }
        }
        ids.retain(|_, ids| ids.len() > 1);
        Self { shared: ids.into_iter().collect(), strangers, misled }
    }

    /// Those that were not there already.
    pub fn without(mut self, before: &Self, misrouted: &BTreeSet<(String, BackendName)>) -> Self {
        self.shared.retain(|(address, ids)| {
            !before.shared.iter().any(|(other, others)| other == address && ids.is_subset(others))
        });
        self.strangers.retain(|breach| {
            !before.strangers.contains(breach) && !misrouted.contains(&(breach.0.clone(), breach.1.clone()))
        });
        self.misled.retain(|breach| !before.misled.contains(breach));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.strangers.is_empty() && self.misled.is_empty()
    }
}

/// The host that a command is about; none for what only tidies up.
pub fn subject_host(command: &Command, names: &[BTreeMap<String, String>]) -> Option<String> {
    match command {
        Command::DelServer { .. } | Command::DelMap { map: Map::Names, .. } => None,
        Command::AddMap { map: Map::Hosts, key, .. }
        | Command::SetMap { map: Map::Hosts, key, .. }
        | Command::DelMap { map: Map::Hosts, key } => Some(key.to_string()),
        Command::AddMap { value, .. } | Command::SetMap { value, .. } => Some(value.to_string()),
        _ => {
            let backend = command.backend()?;
            // Before and after: a backend of the pool may have changed hands.
            let hosts: Vec<_> = names.iter().filter_map(|names| names.get(backend.as_str())).collect();
            Some(hosts.last().map_or_else(|| format!("nobody ({backend})"), ToString::to_string))
        }
    }
}
