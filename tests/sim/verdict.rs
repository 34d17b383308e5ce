//! What must hold when everything was told and done.
//!
//! What lives here: the state that HAProxy should have, found from the containers
//! alone, and what of HAProxy differs from it. What it must not know: hapilot's
//! idea of it, but for what hapilot itself says to be blocked or held back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use hapilot::core::claim::{Rejection, id_of_server, printable};
use hapilot::core::container::{Container, Health, RunState};
use hapilot::core::name::ServerName;
use hapilot::report::Status;

use crate::engine::Facts;
use crate::haproxy_model::{Backend, Haproxy, Release, Server};
use crate::invariants::{Breaches, serving};
use crate::play::POOL;
use crate::stage::seen;

/// How a server should stand: address, state, weight.
type Stand = (SocketAddr, &'static str, u32);

/// Something is not as it should be.
pub type Flaw = String;

fn flaw<T>(text: String) -> Result<T, Flaw> {
    Err(text)
}

/// The class in front of a host, as backends made at run time are called.
fn own_name(host: &str) -> String {
    format!("web:{}", host.replace('*', ":any"))
}

fn weight(container: &Container) -> u32 {
    let given = container.labels.get("hapilot.weight").and_then(|text| text.parse().ok());
    given.filter(|weight| *weight <= 256).unwrap_or(1)
}

fn state_of(server: &Server) -> &'static str {
    if server.is_maint() {
        "maint"
    } else if server.is_drain() {
        "drain"
    } else {
        "ready"
    }
}

/// The servers that each host should have, by the container's short identifier.
fn expected(facts: &Facts, held: &BTreeSet<String>) -> BTreeMap<String, BTreeMap<String, Stand>> {
    let mut hosts: BTreeMap<String, BTreeMap<String, (&Container, SocketAddr)>> = BTreeMap::new();
    for (container, at) in facts.placed().filter(|(c, _)| !held.contains(c.id.short())) {
        for host in &facts.claims[container.id.short()] {
            hosts.entry(host.clone()).or_default().insert(container.id.short().to_owned(), (container, at));
        }
    }
    let well = |c: &Container| {
        c.run == RunState::Running && !c.stopping && matches!(c.health, None | Some(Health::Healthy))
    };
    let stand = |(host, claimants): (String, BTreeMap<String, (&Container, SocketAddr)>)| {
        let somebody_well = claimants.values().any(|(c, _)| well(c));
        let servers = claimants.into_iter().map(|(id, (container, at))| {
            let state = match container.run {
                RunState::Running if well(container) || !somebody_well => "ready",
                RunState::Running => "drain",
                _ => "maint",
            };
            (id, (at, state, weight(container)))
        });
        (host, servers.collect())
    };
    hosts.into_iter().map(stand).collect()
}

/// The containers that hapilot says it holds back, as far as it may: those that
/// did restart.
fn held_back(facts: &Facts, status: &Status) -> BTreeSet<String> {
    let held = |c: &Container| {
        let name = printable(&c.name, Rejection::CONTAINER_LIMIT);
        facts.restless.contains(c.id.short())
            && status.rejected.iter().any(|said| said.key == "restarts" && said.container == name)
    };
    facts.containers.values().filter(|c| held(c)).map(|c| c.id.short().to_owned()).collect()
}

/// HAProxy is as the containers ask, and nothing else is left in it but servers
/// that wait, out of service, for their deletion (not even these when `clean`).
pub fn judge(haproxy: &Haproxy, facts: &Facts, status: &Status, clean: bool) -> Result<(), Flaw> {
    let held = held_back(facts, status);
    let expected = expected(facts, &held);
    let blocked: BTreeSet<&str> = status.blocked.iter().map(|note| note.what.as_str()).collect();
    let mut homes: BTreeMap<&str, &str> = BTreeMap::new();

    let mut keys = BTreeSet::new();
    for entry in haproxy.map("hosts.map") {
        if !keys.insert(&entry.key) {
            return flaw(format!("{} has two entries", entry.key));
        }
        if !expected.contains_key(&entry.key) {
            return flaw(format!("{} leads to {} and nobody claims it", entry.key, entry.value));
        }
        if let Some(other) = homes.insert(&entry.value, &entry.key) {
            return flaw(format!("{other} and {} lead to {}", entry.key, entry.value));
        }
    }
    for (host, servers) in &expected {
        match (haproxy.route(host), blocked.contains(host.as_str())) {
            (None, true) => {}
            (Some(_), true) => return flaw(format!("{host} is called blocked and is served")),
            (None, false) => return flaw(format!("{host} is not served")),
            (Some(home), false) => check_servers(host, home, servers, clean, haproxy.now())?,
        }
    }
    check_rest(haproxy, &homes, clean)?;
    if !blocked.is_empty() {
        check_pool(haproxy, &homes)?;
    }
    let breaches = Breaches::of(&seen(haproxy), &facts.fit, &facts.claims);
    if !breaches.is_empty() {
        return flaw(format!("{breaches:#?}"));
    }
    Ok(())
}

fn check_servers(
    host: &str,
    home: &Backend,
    wanted: &BTreeMap<String, Stand>,
    clean: bool,
    now: u64,
) -> Result<(), Flaw> {
    let mut missing: BTreeSet<&String> = wanted.keys().collect();
    // One that should go serves on as long as none of those that should stay is
    // up, and hapilot looks twice a second at least.
    let is_up = |server: &&Server| {
        let name = ServerName::new(&server.name).ok();
        let id = name.as_ref().and_then(id_of_server);
        let stays = id.and_then(|id| wanted.get(id)).is_some_and(|(_, state, _)| *state == "ready");
        let seen = now.saturating_sub(server.changed) > 1_000;
        stays && state_of(server) == "ready" && server.operational != 0 && seen
    };
    let somebody_up = home.servers.iter().any(|server| is_up(&server));
    for server in &home.servers {
        let name = ServerName::new(&server.name).map_err(|error| error.to_string())?;
        let id = id_of_server(&name).unwrap_or_default();
        let stands = (server.address, state_of(server), server.weight);
        let is_it = wanted.get(id).is_some_and(|stand| {
            let (address, state, weight) = *stand;
            *stand == stands || (state == "drain" && !somebody_up && (address, "ready", weight) == stands)
        });
        if is_it && missing.remove(&id.to_owned()) {
            if !server.is_maint() && !server.is_checked() {
                return flaw(format!("{}/{} is never checked", home.name, server.name));
            }
            continue;
        }
        if clean || !server.is_maint() {
            return flaw(format!(
                "{}/{} of {host} stands {stands:?}, wanted {:?}",
                home.name,
                server.name,
                wanted.get(id)
            ));
        }
    }
    match missing.first() {
        Some(id) => flaw(format!("{host} has no server of {id} as it should be: {:?}", wanted.get(*id))),
        None => Ok(()),
    }
}

/// Nothing is left over.
fn check_rest(haproxy: &Haproxy, homes: &BTreeMap<&str, &str>, clean: bool) -> Result<(), Flaw> {
    let ours = haproxy.backends.iter().filter(|backend| backend.name.starts_with("web:"));
    for backend in ours {
        let Backend { name, servers, .. } = backend;
        let home = homes.get(name.as_str());
        if home.is_none()
            && let Some(server) = servers.iter().find(|server| clean || !server.is_maint())
        {
            return flaw(format!("{name}/{} is left in service or left over", server.name));
        }
        if home.is_none() && servers.is_empty() && !name.contains(":pool:") {
            return flaw(format!("{name} is left over"));
        }
        let noted = haproxy.map("names.map").iter().find(|entry| entry.key == *name);
        let wanted = home.filter(|_| name.contains(":pool:")).copied();
        let noted = noted.map(|entry| entry.value.as_str());
        // A loan stays written down until the last server is deleted.
        if noted != wanted && (wanted.is_some() || servers.is_empty()) {
            return flaw(format!("{name} is noted as lent to {noted:?} instead of {wanted:?}"));
        }
        if let (false, Some(host)) = (name.contains(":pool:"), home)
            && *name != own_name(host)
        {
            return flaw(format!("{host} leads to {name}"));
        }
    }
    Ok(())
}

/// Nobody waits for a backend while there is a free one.
fn check_pool(haproxy: &Haproxy, homes: &BTreeMap<&str, &str>) -> Result<(), Flaw> {
    if haproxy.release >= Release::V3_4 {
        return flaw("something is blocked where backends are made".to_owned());
    }
    let pool = haproxy.backends.iter().filter(|backend| backend.name.contains(":pool:"));
    let mut free =
        pool.filter(|backend| backend.servers.is_empty() && !homes.contains_key(backend.name.as_str()));
    match free.next() {
        Some(backend) => flaw(format!("hosts are blocked while {} is free", backend.name)),
        None => Ok(()),
    }
}

/// The hosts that have somebody fit are served from the first moment after a
/// start with the files. `has_met`: hapilot knew the version when it wrote them.
pub fn starts_complete(haproxy: &Haproxy, facts: &Facts, has_met: bool) -> Result<(), Flaw> {
    let surely = facts.fit.iter().filter(|(id, _)| !facts.restless.contains(*id));
    let wanted: BTreeSet<String> = surely.flat_map(|(_, (_, hosts))| hosts.clone()).collect();
    let served = serving(&seen(haproxy), &facts.fit, &wanted);
    // Of a pool that is too small, somebody goes without; before it has met HAProxy,
    // hapilot can't know that there will be no pool.
    let enough = (haproxy.release >= Release::V3_4 && has_met) || facts.wanted.len() <= POOL;
    match wanted.difference(&served).next() {
        Some(host) if enough => flaw(format!("HAProxy started without {host}")),
        _ => Ok(()),
    }
}
