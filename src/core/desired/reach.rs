//! Where HAProxy reaches the containers, and who has an address to himself.
//!
//! What lives here: each container's way (`endpoint`) kept up to date while
//! containers and HAProxy's own networks change, and the conflict between two
//! that seem to have one address. What it must not know: hosts and servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Desired, Tenant};
use crate::core::claim::{Rejection, printable, quoted};
use crate::core::container::{Container, ContainerId, EngineName, NetworkMode};
use crate::core::endpoint::{self, Reach, Spot, Vantage, View};
use crate::core::label::HAPROXY;
use crate::core::place::{Circumstances, Found};

/// What the operator said about an engine's host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineHost {
    /// It is another host than the one on which HAProxy is, should HAProxy be on
    /// a host at all.
    pub elsewhere: bool,
    /// The address at which HAProxy reaches it.
    pub advertised: Option<IpAddr>,
}

impl Desired {
    /// What the operator said about the engines. Of one that is not among them
    /// nothing was said.
    #[must_use]
    pub fn with_engines(mut self, engines: BTreeMap<EngineName, EngineHost>) -> Self {
        self.engines = engines;
        self.look_around();
        self
    }

    /// Whether every engine has told what it has. As long as one has not, a server
    /// in HAProxy that belongs to no known container may be one of its, and stays.
    pub fn set_complete(&mut self, complete: bool) {
        if self.unread.set_anybody(!complete) {
            self.all_dirty = true;
            self.look_around();
        }
    }

    /// True as long as it can't be said where HAProxy is, and an engine may still
    /// tell: then no container can be said to be out of reach.
    #[must_use]
    pub fn is_looking_for_haproxy(&self) -> bool {
        self.unread.anybody() && self.search.is_open(self.containers())
    }

    /// True as long as the container that hapilot itself is in has not been told of.
    #[must_use]
    pub fn lacks_own_container(&self) -> bool {
        self.search.lacks_own(self.containers())
    }

    /// From where HAProxy looks at the containers.
    #[must_use]
    pub fn vantage(&self) -> &Vantage {
        &self.vantage
    }

    /// Where HAProxy is and how that was found, in words.
    #[must_use]
    pub fn place(&self) -> String {
        let (what, why) = match &self.found {
            Found::Host(why) => ("HAProxy is on the host".to_owned(), why),
            Found::In(id, why) => (format!("HAProxy is in container {}", self.name_of(id)), why),
            Found::Near(id, why) => {
                (format!("HAProxy is taken to be near container {}", self.name_of(id)), why)
            }
            Found::Nowhere(why) => ("it is not known where HAProxy is".to_owned(), why),
        };
        let networks = match &self.vantage {
            Vantage::Container { networks, .. } => {
                let names: Vec<String> = networks.keys().map(|name| printable(name, 64)).collect();
                format!("; its networks: {}", names.join(", "))
            }
            Vantage::Host { .. } => "; every local network of a container counts".to_owned(),
            Vantage::Unknown(_) => String::new(),
        };
        format!("{what} ({why}){networks}")
    }

    fn name_of(&self, id: &ContainerId) -> String {
        match self.tenants.get(id) {
            Some(tenant) => format!("{} ({id})", printable(&tenant.container.name, 64)),
            // It has ended, and is looked for under its identifier alone.
            None => id.to_string(),
        }
    }

    /// HAProxy has been observed.
    pub(super) fn answered(&mut self) {
        if !std::mem::replace(&mut self.answered, true) && !matches!(self.found, Found::In(..)) {
            self.look_around();
        }
    }

    /// Looks for HAProxy's container if news of this one may matter for that.
    pub(super) fn look_around_for(&mut self, news: &ContainerId) {
        let Some(tenant) = self.tenants.get(news) else { return };
        let host = match &self.found {
            Found::In(id, _) | Found::Near(id, _) => {
                self.tenants.get(id).map(|own| self.owner(&own.container))
            }
            Found::Host(_) | Found::Nowhere(_) => None,
        };
        let is_namespace = host.is_some_and(|host| host.id == *news);
        let is_guest = matches!(&self.found, Found::In(id, _) | Found::Near(id, _) if id == news);
        if is_namespace || is_guest || self.search.concerns(&tenant.container) {
            self.look_around();
        }
    }

    /// Finds HAProxy's container and its networks anew. Should they have changed,
    /// everybody's address may have. While a container that was found is away, the
    /// last networks stay.
    pub(super) fn look_around(&mut self) {
        let elsewhere = self.engines.iter().filter(|(_, host)| host.elsewhere).map(|(name, _)| name.clone());
        let elsewhere: BTreeSet<EngineName> = elsewhere.collect();
        let circumstances = Circumstances {
            elsewhere: &elsewhere,
            answered: self.answered,
            complete: !self.unread.anybody(),
        };
        let containers = self.tenants.values().map(|tenant| &*tenant.container);
        let found = self.search.find(containers, circumstances);
        if matches!(found, Found::In(..)) || !matches!(self.found, Found::In(..)) {
            self.found = found;
        }
        let vantage = match &self.found {
            Found::Host(_) => Vantage::Host { elsewhere },
            Found::Nowhere(why) => Vantage::Unknown(why.as_str().into()),
            Found::In(id, _) | Found::Near(id, _) => match self.tenants.get(id) {
                Some(own) => self.vantage_of(&own.container),
                None => return,
            },
        };
        if vantage != self.vantage {
            self.vantage = vantage;
            // They were registered as seen from elsewhere.
            self.by_spot.clear();
            let all: Vec<ContainerId> = self.tenants.keys().cloned().collect();
            for id in &all {
                if let Some(tenant) = self.tenants.get_mut(id) {
                    tenant.reach = None;
                }
            }
            for id in &all {
                self.resolve(id);
            }
        }
    }

    fn vantage_of(&self, container: &Container) -> Vantage {
        let namespace = self.owner(container);
        match namespace.network_mode {
            NetworkMode::Host => {
                let others = self.engines.keys().filter(|name| **name != namespace.engine);
                Vantage::Host { elsewhere: others.cloned().collect() }
            }
            _ => Vantage::of(namespace),
        }
    }

    /// Finds anew how a container is reached.
    pub(super) fn resolve(&mut self, id: &ContainerId) {
        self.touched.insert(id.clone());
        let Some(tenant) = self.tenants.get(id) else { return };
        let mut unreached = Vec::new();
        let reach = self.way_to(tenant, &mut unreached);
        self.dirty.extend(tenant.hosts().cloned());
        let before = self.spots(tenant);
        let Some(tenant) = self.tenants.get_mut(id) else { return };
        tenant.unreached = unreached;
        tenant.reach = reach;
        let after = self.tenants.get(id).map(|tenant| self.spots(tenant)).unwrap_or_default();
        for spot in before.iter().filter(|spot| !after.contains(spot)) {
            self.leave_spot(spot, id);
            self.touch_spot(spot);
        }
        for spot in after {
            self.by_spot.entry(spot.clone()).or_default().insert(id.clone(), ());
            self.touch_spot(&spot);
        }
    }

    /// How a container that claims something is reached.
    fn way_to(&self, tenant: &Tenant, rejections: &mut Vec<Rejection>) -> Option<Reach> {
        let ports: BTreeSet<u16> = tenant.claims.claims.iter().map(|claim| claim.port).collect();
        if ports.is_empty() {
            // Nobody asked for it to be served, so nobody is told.
            return None;
        }
        let advertised = |name: &EngineName| self.engines.get(name).and_then(|host| host.advertised);
        let lookup = |other: &ContainerId| self.tenants.get(other).map(|tenant| &*tenant.container);
        let view = View { vantage: &self.vantage, advertised: &advertised, prefer_ipv6: self.prefer_ipv6 };
        match endpoint::reach(&tenant.container, &ports, view, lookup) {
            Ok(reach) => {
                let missing = ports.into_iter().filter(|port| reach.at(*port).is_none());
                rejections.extend(missing.map(|port| endpoint::unpublished(&tenant.container, port)));
                Some(reach)
            }
            Err(rejection) => {
                rejections.push(rejection);
                None
            }
        }
    }

    pub(super) fn resolve_guests(&mut self, id: &ContainerId) {
        let guests: Vec<ContainerId> = self.guests.get(id).into_iter().flatten().cloned().collect();
        for guest in guests {
            self.resolve(&guest);
        }
    }

    /// What the container has for itself.
    pub(super) fn spots(&self, tenant: &Tenant) -> Vec<Spot> {
        let reach = tenant.reach.as_ref();
        reach.map(|reach| reach.spots(&tenant.container.engine, &self.vantage)).unwrap_or_default()
    }

    /// A container has no part in an address any more.
    pub(super) fn leave_spot(&mut self, spot: &Spot, id: &ContainerId) {
        if let Some(sharers) = self.by_spot.get_mut(spot) {
            sharers.remove(id);
            if sharers.is_empty() {
                self.by_spot.remove(spot);
            }
        }
    }

    /// Everyone who has (or had) a part in an address is to be looked at again.
    pub(super) fn touch_spot(&mut self, spot: &Spot) {
        let Some(sharers) = self.by_spot.get(spot) else { return };
        self.touched.extend(sharers.keys().cloned());
        let hosts = sharers.keys().filter_map(|id| self.tenants.get(id)).flat_map(Tenant::hosts);
        self.dirty.extend(hosts.cloned());
    }

    /// True if a container that is known has the address for itself.
    pub(super) fn has_holder(&self, at: SocketAddr) -> bool {
        let from = Spot { ip: at.ip(), port: None, engine: None };
        let spots = self.by_spot.range(from..).map(|(spot, _)| spot);
        let mut spots = spots.take_while(|spot| spot.ip == at.ip());
        spots.any(|spot| spot.port.is_none_or(|port| port == at.port()))
    }

    /// The tenant whose identifier begins so.
    pub(super) fn tenant_of(&self, short: &str) -> Option<&Tenant> {
        let (id, tenant) = self.tenants.range(ContainerId::new(short)?..).next()?;
        id.as_str().starts_with(short).then_some(tenant)
    }

    /// The namespace that an address of this container belongs to.
    fn owner<'a>(&'a self, container: &'a Container) -> &'a Container {
        match &container.network_mode {
            NetworkMode::Container(id) => self.tenants.get(id).map_or(container, |host| &host.container),
            _ => container,
        }
    }

    /// The container that has this one's address, if it isn't its own, and which
    /// address.
    fn usurped(&self, tenant: &Tenant) -> Option<(&Container, Spot)> {
        let own = self.owner(&tenant.container);
        self.spots(tenant).into_iter().find_map(|spot| {
            let sharers = self.by_spot.get(&spot)?.keys().filter_map(|id| self.tenants.get(id));
            let owners = sharers.map(|other| self.owner(&other.container));
            let last = owners.max_by_key(|owner| (owner.started_at, &owner.id))?;
            (last.id != own.id).then_some((last, spot))
        })
    }

    /// True if another container has this one's address.
    pub(super) fn is_usurped(&self, tenant: &Tenant) -> bool {
        self.usurped(tenant).is_some()
    }

    pub(super) fn rejections_of(&self, tenant: &Tenant) -> Vec<Rejection> {
        let mut all = tenant.claims.rejections.clone();
        all.extend(tenant.unreached.iter().cloned());
        all.extend(self.overruled(tenant));
        let container = &*tenant.container;
        if let Some((other, spot)) = self.usurped(tenant) {
            let reason = format!("{spot} is held by container {}, which started later", other.id);
            all.push(Rejection::new(container, "address", &reason));
        }
        match HAPROXY.said_by(container) {
            Some((key, "true")) if !matches!(&self.found, Found::In(id, _) if *id == container.id) => {
                all.push(Rejection::new(
                    container,
                    key,
                    &format!("the label is not followed: {}", self.place()),
                ));
            }
            Some((key, value)) if value != "true" => {
                let reason = format!("{} is not `true`; write that, or leave it out", quoted(value));
                all.push(Rejection::new(container, key, &reason));
            }
            _ => {}
        }
        all
    }
}
