//! Claims of all containers → the state that HAProxy should have.
//!
//! What lives here: who shares a host, who wins a conflict, and the desired
//! state, kept up to date piece by piece: a change to one container recomputes
//! only the hosts it claims. What it must not know: commands and their order.
//!
//! The rules of conflict, none of which depends on the order of arrival:
//! * an address belongs to one network namespace; if two running containers
//!   both seem to have it, the one that started later has it (the other's end
//!   has not been seen yet), and among equals the one with the greater id;
//! * of the containers that share a host, the one that runs longest decides
//!   what holds for all of them (how they are checked), and among equals the
//!   one with the smaller id; who wanted it otherwise is told;
//! * a host without a free backend is blocked, and no other host is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claim::{self, Claims, Policy, Rejection};
use super::command::{Capabilities, ServerRef};
use super::container::{Container, ContainerId, EngineName, NetworkMode, RunState};
use super::endpoint::{Reach, Spot, Vantage};
use super::few::Few;
use super::name::{BackendName, Host, MapWord, ServerName};
pub use super::place::{Clues, HaproxyPlace, Link};
use super::place::{Found, Search};
use super::slots::Slots;
use super::state::{Map, Observed, State};
use kept::{Kept, Unread, kept};
pub use reach::EngineHost;

/// The part of a state that a comparison looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Everything.
    All,
    /// These backends (with their entries of the `names` map) and these hosts.
    Some {
        /// Backends to compare.
        backends: BTreeSet<BackendName>,
        /// Keys of the `hosts` map to compare.
        hosts: BTreeSet<MapWord>,
    },
}

impl Default for Scope {
    fn default() -> Self {
        Self::Some { backends: BTreeSet::new(), hosts: BTreeSet::new() }
    }
}

impl Scope {
    /// Adds everything that another scope names.
    pub fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Some { backends, hosts }, Self::Some { backends: more, hosts: others }) => {
                backends.extend(more);
                hosts.extend(others);
            }
        }
    }

    /// Adds backends.
    pub fn add_backends<'a>(&mut self, more: impl IntoIterator<Item = &'a BackendName>) {
        if let Self::Some { backends, .. } = self {
            backends.extend(more.into_iter().cloned());
        }
    }
}

/// Something that can't be done although its container asked correctly.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct Blocked {
    /// The host.
    pub what: String,
    /// Why, and what to do.
    pub reason: String,
}

/// A container with what follows from its facts.
#[derive(Debug)]
struct Tenant {
    container: Arc<Container>,
    server: ServerName,
    reach: Option<Reach>,
    claims: Claims,
    /// See [`super::state::Making::young`].
    young: bool,
    /// What of it can't be reached, and why.
    unreached: Vec<Rejection>,
}

impl Tenant {
    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.claims.claims.iter().map(|claim| &claim.host)
    }
}

/// All containers, and the desired state that follows.
#[derive(Debug)]
pub struct Desired {
    search: Search,
    found: Found,
    engines: BTreeMap<EngineName, EngineHost>,
    prefer_ipv6: bool,
    vantage: Vantage,
    /// HAProxy has been observed.
    answered: bool,
    tenants: BTreeMap<ContainerId, Tenant>,
    by_host: BTreeMap<Host, BTreeSet<ContainerId>>,
    /// Nearly always one each: only guests share theirs.
    by_spot: BTreeMap<Spot, Few<ContainerId, ()>>,
    /// Containers that live in another one's network namespace.
    guests: BTreeMap<ContainerId, BTreeSet<ContainerId>>,
    slots: Slots,
    state: State,
    /// Who decides for a host, and what.
    policies: BTreeMap<Host, (ContainerId, Policy)>,
    /// Backends where a server that should go stays, because those that should
    /// take its place are not up yet.
    hoping: BTreeMap<Host, BackendName>,
    /// Backends whose host is claimed no more and that still hold a loan or
    /// servers.
    leaving: BTreeSet<BackendName>,
    blocked: BTreeMap<Host, String>,
    dirty: BTreeSet<Host>,
    all_dirty: bool,
    /// Containers whose rejections may have changed.
    touched: BTreeSet<ContainerId>,
    /// Containers that run and of which nothing was ever known.
    unread: Unread,
    /// Their servers, which stay as they are.
    kept: Kept,
}

impl Desired {
    /// Nothing is known yet, of one engine.
    #[must_use]
    pub fn new(place: HaproxyPlace, prefer_ipv6: bool) -> Self {
        let mut desired = Self {
            search: Search::new(place),
            found: Found::Nowhere(String::new()),
            engines: BTreeMap::new(),
            prefer_ipv6,
            vantage: Vantage::host(),
            answered: false,
            tenants: BTreeMap::new(),
            by_host: BTreeMap::new(),
            by_spot: BTreeMap::new(),
            guests: BTreeMap::new(),
            slots: Slots::default(),
            state: State::default(),
            policies: BTreeMap::new(),
            hoping: BTreeMap::new(),
            leaving: BTreeSet::new(),
            blocked: BTreeMap::new(),
            dirty: BTreeSet::new(),
            all_dirty: true,
            touched: BTreeSet::new(),
            unread: Unread::default(),
            kept: Kept::new(),
        };
        desired.look_around();
        desired
    }

    /// Takes a full list: what is not in it is gone.
    pub fn replace(&mut self, containers: Vec<Container>) {
        self.replace_readable(containers, &BTreeSet::new());
    }

    /// Takes a full list of those that could be read: what is neither in it nor
    /// among `unreadable` is gone. Of the latter the last known facts stay in
    /// force; where there are none, the servers that stand in HAProxy do.
    pub fn replace_readable(&mut self, containers: Vec<Container>, unreadable: &BTreeSet<ContainerId>) {
        let listed: BTreeSet<&ContainerId> = containers.iter().map(|c| &c.id).chain(unreadable).collect();
        let gone: Vec<ContainerId> = self.tenants.keys().filter(|id| !listed.contains(id)).cloned().collect();
        for id in gone {
            self.remove(&id);
        }
        for container in containers {
            self.set(container);
        }
        let unknown = |id: &&ContainerId| !self.tenants.contains_key(*id);
        let unread: BTreeSet<ContainerId> = unreadable.iter().filter(unknown).cloned().collect();
        self.all_dirty |= self.unread.replace(unread);
    }

    /// What comes next is told by an engine that has told all that it has before, or
    /// hasn't: only then a container of which nothing was known has just begun.
    pub fn set_told(&mut self, told: bool) {
        self.unread.set_listed(told);
    }

    /// A container is listed and can't be read. Its last known facts stay in force;
    /// where there are none, the servers that stand in HAProxy do.
    pub fn unreadable(&mut self, id: &ContainerId) {
        if !self.tenants.contains_key(id) {
            self.all_dirty |= self.unread.add(id);
        }
    }

    /// Takes new facts about one container. A container that neither runs nor
    /// is paused is as good as gone.
    pub fn set(&mut self, container: Container) {
        if container.run == RunState::Stopped {
            return self.remove(&container.id);
        }
        if self.tenants.get(&container.id).is_some_and(|tenant| *tenant.container == container) {
            return;
        }
        let id = container.id.clone();
        let young = self.is_young(&container);
        self.all_dirty |= self.unread.read(&id);
        self.detach(&id);
        if let NetworkMode::Container(host) = &container.network_mode {
            self.guests.entry(host.clone()).or_default().insert(id.clone());
        }
        let tenant = Tenant {
            server: claim::server_name(&container),
            claims: claim::claims(&container),
            container: Arc::new(container),
            reach: None,
            young,
            unreached: Vec::new(),
        };
        for host in tenant.hosts() {
            self.by_host.entry(host.clone()).or_default().insert(id.clone());
        }
        self.tenants.insert(id.clone(), tenant);
        self.resolve(&id);
        self.resolve_guests(&id);
        self.look_around_for(&id);
    }

    /// Whether its process was seen to begin. One that goes on after a pause, or
    /// got another address, listens already.
    fn is_young(&self, container: &Container) -> bool {
        match self.tenants.get(&container.id) {
            None => !self.unread.may_run(&container.id),
            Some(before) if before.container.started_at != container.started_at => true,
            Some(before) => {
                before.young
                    && before.container.run == container.run
                    && before.container.networks == container.networks
            }
        }
    }

    /// A container was told to end: it will, soon.
    pub fn stopping(&mut self, id: &ContainerId) {
        let Some(tenant) = self.tenants.get(id) else { return };
        let container = Container { stopping: true, ..Container::clone(&tenant.container) };
        self.set(container);
    }

    /// Forgets one container.
    pub fn remove(&mut self, id: &ContainerId) {
        self.all_dirty |= self.unread.gone(id);
        self.detach(id);
        if self.tenants.remove(id).is_some() {
            self.resolve_guests(id);
        }
    }

    /// Takes what HAProxy really has as the new ground: loans are read back,
    /// everything is computed again.
    pub fn adopt(&mut self, observed: &Observed, capabilities: Capabilities) {
        self.slots = Slots::from_observed(observed, capabilities.add_backend);
        self.state = State::default();
        self.leaving = observed.state.backends.keys().cloned().collect();
        self.leaving.extend(self.slots.loans().map(|(backend, _)| backend.clone()));
        self.blocked.clear();
        self.all_dirty = true;
        self.answered();
    }

    /// Brings the desired state up to date and says which part of it may have
    /// changed since the last call.
    pub fn compute(&mut self, observed: &Observed) -> Scope {
        let all = std::mem::take(&mut self.all_dirty) || !self.kept.is_empty();
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.extend(self.hoping.keys().cloned());
        if all {
            let known = |id: &str| self.tenant_of(id).is_some();
            let kept = kept(observed, &self.slots, &self.unread, known, |at| self.has_holder(at));
            dirty.extend(std::mem::replace(&mut self.kept, kept).into_keys());
            dirty.extend(self.kept.keys().cloned());
        }
        let concerned: BTreeSet<Host> = if all {
            self.by_host.keys().cloned().chain(dirty).collect()
        } else {
            dirty.into_iter().chain(self.blocked.keys().cloned()).collect()
        };
        let mut backends = BTreeSet::new();
        let mut hosts = BTreeSet::new();
        // Hosts that are claimed no more go first: what they give back can be
        // taken by the others in the same pass.
        let (claimed, unclaimed): (Vec<_>, Vec<_>) = concerned
            .into_iter()
            .partition(|host| self.by_host.contains_key(host) || self.kept.contains_key(host));
        for host in unclaimed.iter().chain(&claimed) {
            hosts.insert(MapWord::from(host));
            backends.extend(self.compute_host(host, observed));
        }
        let leaving: Vec<BackendName> = self.leaving.iter().cloned().collect();
        for backend in leaving {
            if self.slots.settle(&backend, observed) && !observed.state.backends.contains_key(&backend) {
                self.leaving.remove(&backend);
            }
            backends.insert(backend);
        }
        // What came back only now is for those who wait for it. Nothing else
        // may happen that would make anybody look again.
        if self.slots.free() > 0 {
            let blocked: Vec<Host> = self.blocked.keys().cloned().collect();
            for host in blocked {
                hosts.insert(MapWord::from(&host));
                backends.extend(self.compute_host(&host, observed));
            }
        }
        for backend in &backends {
            self.write_name(backend);
        }
        if all { Scope::All } else { Scope::Some { backends, hosts } }
    }

    /// The desired state as of the last [`Desired::compute`].
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where a server that should go stays until another has come up: whoever
    /// reads these backends again may find that it has.
    pub fn hoping(&self) -> impl Iterator<Item = &BackendName> {
        self.hoping.values()
    }

    /// Servers came up or went down by themselves. True if that may change what
    /// is desired.
    pub fn health_changed<'a>(&mut self, servers: impl IntoIterator<Item = &'a ServerRef>) -> bool {
        let changed: BTreeSet<&str> = servers.into_iter().map(|at| at.backend.as_str()).collect();
        let hosts = self.state.maps.get(&Map::Hosts).into_iter().flatten();
        let hosts = hosts.filter(|(_, backend)| changed.contains(backend.as_str()));
        let hosts: Vec<Host> = hosts.filter_map(|(host, _)| Host::new(host.as_str()).ok()).collect();
        let any = !hosts.is_empty();
        self.dirty.extend(hosts);
        any
    }

    /// The backend that serves a key at present.
    #[must_use]
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Everything that containers asked for and can't have, in a stable order.
    #[must_use]
    pub fn rejections(&self) -> Vec<Rejection> {
        self.tenants.values().flat_map(|tenant| self.rejections_of(tenant)).collect()
    }

    /// The rejections of one container; none if it is unknown.
    #[must_use]
    pub fn rejections_of_container(&self, id: &ContainerId) -> Vec<Rejection> {
        self.tenants.get(id).map(|tenant| self.rejections_of(tenant)).unwrap_or_default()
    }

    /// The containers whose rejections may have changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<ContainerId> {
        std::mem::take(&mut self.touched)
    }

    /// What is blocked, and why.
    #[must_use]
    pub fn blocked(&self) -> Vec<Blocked> {
        let say =
            |(host, reason): (&Host, &String)| Blocked { what: host.to_string(), reason: reason.clone() };
        self.blocked.iter().map(say).collect()
    }

    /// All containers that are known.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.tenants.values().map(|tenant| &*tenant.container)
    }

    /// The facts about a container, if it is known.
    #[must_use]
    pub fn container(&self, id: &ContainerId) -> Option<&Container> {
        self.tenants.get(id).map(|tenant| &*tenant.container)
    }

    /// The container behind a server's name, if it is known.
    #[must_use]
    pub fn container_of(&self, server: &ServerName) -> Option<&Container> {
        self.tenant_of(claim::id_of_server(server)?).map(|tenant| &*tenant.container)
    }

    /// How many containers claim something.
    #[must_use]
    pub fn claimants(&self) -> usize {
        self.tenants.values().filter(|tenant| !tenant.claims.claims.is_empty()).count()
    }

    /// Takes a container out of every index.
    fn detach(&mut self, id: &ContainerId) {
        self.touched.insert(id.clone());
        let Some(tenant) = self.tenants.get(id) else { return };
        let hosts: Vec<Host> = tenant.hosts().cloned().collect();
        let spots = self.spots(tenant);
        if let NetworkMode::Container(host) = &tenant.container.network_mode {
            unlink(&mut self.guests, &host.clone(), id);
        }
        for host in hosts {
            unlink(&mut self.by_host, &host, id);
            self.dirty.insert(host);
        }
        for spot in spots {
            self.leave_spot(&spot, id);
            self.touch_spot(&spot);
        }
    }
}

fn unlink<K: Ord + Clone>(index: &mut BTreeMap<K, BTreeSet<ContainerId>>, key: &K, id: &ContainerId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

mod hosts;
mod kept;
mod reach;

#[cfg(test)]
mod tests;
