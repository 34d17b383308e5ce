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
use crate::sight::seen;

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

/// What each host should have.
struct Host<'a> {
    /// hapilot has had the time to see which servers have come up.
    looked: bool,
    /// Address and container, by the container's short identifier.
    claimants: BTreeMap<&'a str, (&'a Container, SocketAddr)>,
}

/// It serves, and Docker has nothing against it.
pub fn is_well(container: &Container) -> bool {
    container.run == RunState::Running
        && !container.stopping
        && matches!(container.health, None | Some(Health::Healthy))
}

impl Host<'_> {
    /// A server stands as its container asks. Who is not well takes no new visitors
    /// as long as a better one is up.
    fn is_right(&self, server: &Server, home: &Backend) -> bool {
        let Some((container, at)) = id_of(server).and_then(|id| self.claimants.get(id.as_str())) else {
            return false;
        };
        let right = match container.run {
            RunState::Running if is_well(container) || !self.has_well() => "ready",
            RunState::Running if self.looked && self.has_well_up(home) => "drain",
            RunState::Running => return self.is_in_place(server, *at, container, &["ready", "drain"]),
            _ => "maint",
        };
        self.is_in_place(server, *at, container, &[right])
    }

    #[expect(clippy::unused_self, reason = "reads well")]
    fn is_in_place(&self, server: &Server, at: SocketAddr, container: &Container, states: &[&str]) -> bool {
        server.address == at && server.weight == weight(container) && states.contains(&state_of(server))
    }

    fn has_well(&self) -> bool {
        self.claimants.values().any(|(container, _)| is_well(container))
    }

    /// One of the better ones has been up for a while.
    fn has_well_up(&self, home: &Backend) -> bool {
        home.servers.iter().any(|server| {
            let container = id_of(server).and_then(|id| self.claimants.get(id.as_str()));
            let up = state_of(server) == "ready" && server.operational != 0;
            up && container.is_some_and(|(container, _)| is_well(container))
        })
    }
}

fn id_of(server: &Server) -> Option<String> {
    let name = ServerName::new(&server.name).ok()?;
    id_of_server(&name).map(str::to_owned)
}

fn expected<'a>(facts: &'a Facts, held: &BTreeSet<String>, looked: bool) -> BTreeMap<&'a str, Host<'a>> {
    let mut hosts: BTreeMap<&str, Host<'_>> = BTreeMap::new();
    for (container, at) in facts.placed().filter(|(c, _)| !held.contains(c.id.short())) {
        for host in &facts.claims[container.id.short()] {
            let host = hosts.entry(host).or_insert_with(|| Host { looked, claimants: BTreeMap::new() });
            host.claimants.insert(container.id.short(), (container, at));
        }
    }
    hosts
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

/// How strictly HAProxy is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rigour {
    /// hapilot may not have seen yet which servers have come up.
    Now,
    /// It has had the time to.
    Settled,
    /// It has also had the time to delete what was out of service.
    Clean,
}

/// HAProxy is as the containers ask, and nothing else is left in it but servers
/// that wait, out of service, for their deletion.
pub fn judge(haproxy: &Haproxy, facts: &Facts, status: &Status, rigour: Rigour) -> Result<(), Flaw> {
    let held = held_back(facts, status);
    let clean = rigour == Rigour::Clean;
    let expected = expected(facts, &held, rigour != Rigour::Now);
    let blocked: BTreeSet<&str> = status.blocked.iter().map(|note| note.what.as_str()).collect();
    let mut homes: BTreeMap<&str, &str> = BTreeMap::new();

    let mut keys = BTreeSet::new();
    for entry in haproxy.map("hosts.map") {
        if !keys.insert(&entry.key) {
            return flaw(format!("{} has two entries", entry.key));
        }
        if !expected.contains_key(entry.key.as_str()) {
            return flaw(format!("{} leads to {} and nobody claims it", entry.key, entry.value));
        }
        if let Some(other) = homes.insert(&entry.value, &entry.key) {
            return flaw(format!("{other} and {} lead to {}", entry.key, entry.value));
        }
    }
    for (host, wanted) in &expected {
        match (haproxy.route(host), blocked.contains(host)) {
            (None, true) => {}
            (Some(_), true) => return flaw(format!("{host} is called blocked and is served")),
            (None, false) => return flaw(format!("{host} is not served")),
            (Some(home), false) => check_servers(host, home, wanted, clean)?,
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

fn check_servers(name: &str, home: &Backend, host: &Host<'_>, clean: bool) -> Result<(), Flaw> {
    let mut missing: BTreeSet<&str> = host.claimants.keys().copied().collect();
    for server in &home.servers {
        let at = format!("{}/{}", home.name, server.name);
        if host.is_right(server, home) && id_of(server).is_some_and(|id| missing.remove(id.as_str())) {
            if !server.is_maint() && !server.is_checked() {
                return flaw(format!("{at} is never checked"));
            }
        } else if clean || !server.is_maint() {
            let stands = (server.address, state_of(server), server.weight, server.operational);
            return flaw(format!("{at} of {name} stands {stands:?}"));
        }
    }
    match missing.first() {
        Some(id) => flaw(format!("{name} has no server of {id} as it should be")),
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
        let may_be_left = wanted.is_none() && name.contains(":pool:") && !servers.is_empty();
        if noted != wanted && !may_be_left {
            return flaw(format!("{name} is noted as lent to {noted:?} instead of {wanted:?}"));
        }
        if let (false, Some(host)) = (name.contains(":pool:"), home)
            && *name != own_name(host)
        {
            return flaw(format!("{host} leads to {name}"));
        }
    }
    match haproxy.map("names.map").iter().find(|entry| haproxy.backend(&entry.key).is_none()) {
        Some(entry) => flaw(format!("{} is noted as lent to {} and does not exist", entry.key, entry.value)),
        None => Ok(()),
    }
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
