//! One host: its backend, its servers, and what holds for all of them.
//!
//! What lives here: who decides, which servers a host should have, and in which
//! administrative state. What it must not know: how addresses are found, and
//! what became of other hosts.

use std::collections::BTreeMap;

use super::kept::keep_names;
use super::{Desired, Tenant};
use crate::core::claim::{Policy, Rejection, id_of_server};
use crate::core::command::ServerRef;
use crate::core::container::{ContainerId, Health, RunState};
use crate::core::label::{CHECK_PATH, STICKY};
use crate::core::name::{BackendKey, BackendName, Host, MapWord, ServerName};
use crate::core::state::{Admin, Backend, Making, Map, Observed, Server};
use crate::core::sticky::Sticky;

/// What a host should have, before it has a backend.
#[derive(Default)]
struct Wanted {
    servers: Vec<(ServerName, Server)>,
    /// Those of them that should take no new traffic once others can.
    unfit: Vec<usize>,
}

impl Desired {
    /// Recomputes one host; returns the backends that are concerned.
    pub(super) fn compute_host(&mut self, host: &Host, observed: &Observed) -> Vec<BackendName> {
        let word = MapWord::from(host);
        let before = self.state.map_value(Map::Hosts, word.as_str()).cloned();
        let mut concerned: Vec<BackendName> =
            before.and_then(|name| BackendName::new(name.as_str()).ok()).into_iter().collect();
        self.blocked.remove(host);
        self.hoping.remove(host);
        self.decide(host);
        let mut wanted = self.wanted(host);
        let kept = self.kept.get(host);
        wanted.servers.extend(kept.into_iter().flat_map(|(_, servers)| servers).cloned());
        let class = match (self.policies.get(host), kept) {
            (Some((_, policy)), _) => policy.class(),
            (None, Some((class, _))) => class.clone(),
            (None, None) => Policy::default().class(),
        };
        let key = BackendKey { class, host: host.clone() };
        concerned.extend(self.slots.held(&key));
        let home = if wanted.servers.is_empty() { None } else { self.home(&key) };
        for name in &concerned {
            if home.as_ref() != Some(name) && self.serves(name, &key) {
                self.state.backends.remove(name);
                self.forget_policy(name);
                self.leaving.insert(name.clone());
            }
        }
        let hosts = self.state.maps.entry(Map::Hosts).or_default();
        let Some(home) = home else {
            hosts.remove(&word);
            return concerned;
        };
        hosts.insert(word, MapWord::from(&home));
        self.leaving.remove(&home);
        let present = observed.state.backends.get(&home);
        self.retire(&mut wanted, host, &home, observed);
        let backend = Backend { servers: keep_names(&wanted.servers, present) };
        self.state.backends.insert(home.clone(), backend);
        self.write_policy(host, &home, observed);
        concerned.push(home);
        concerned
    }

    /// True unless a backend that this key once had serves another one by now.
    fn serves(&self, backend: &BackendName, key: &BackendKey) -> bool {
        match self.slots.service_of(backend) {
            Some(service) => *service == key.service(),
            None => true,
        }
    }

    fn home(&mut self, key: &BackendKey) -> Option<BackendName> {
        let sticky = self.policies.get(&key.host).is_some_and(|(_, policy)| policy.sticky.is_some());
        match self.slots.take(key, sticky) {
            Ok(backend) => Some(backend),
            Err(exhausted) => {
                self.blocked.insert(key.host.clone(), exhausted.to_string());
                None
            }
        }
    }

    fn claimants_of(&self, host: &Host) -> impl Iterator<Item = (&ContainerId, &Tenant)> {
        let ids = self.by_host.get(host).into_iter().flatten();
        ids.filter_map(|id| Some((id, self.tenants.get(id)?)))
    }

    /// Finds out who decides for a host. One without an address serves nobody,
    /// so it decides only where there is no other.
    fn decide(&mut self, host: &Host) {
        let age = |(id, tenant): &(&ContainerId, &Tenant)| {
            (tenant.reach.is_none(), tenant.container.started_at.unwrap_or(i64::MAX), (*id).clone())
        };
        let decided = self.claimants_of(host).min_by_key(age);
        let decided = decided.map(|(id, tenant)| (id.clone(), tenant.claims.policy.clone()));
        if decided.as_ref() == self.policies.get(host) {
            return;
        }
        // Others may be overruled from now on, or not any more.
        self.touched.extend(self.by_host.get(host).into_iter().flatten().cloned());
        match decided {
            Some(decided) => self.policies.insert(host.clone(), decided),
            None => self.policies.remove(host),
        };
    }

    /// What a container wants for its hosts and doesn't get, because another decides.
    pub(super) fn overruled(&self, tenant: &Tenant) -> Option<Rejection> {
        let decided = tenant.hosts().filter_map(|host| Some((host, self.policies.get(host)?)));
        let wanted = &tenant.claims.policy;
        let (host, (other, policy)) = { decided }.find(|(_, (_, policy))| policy != wanted)?;
        let (key, what) = if policy.check == wanted.check {
            (STICKY.key, "sticky or not")
        } else {
            (CHECK_PATH.key, "checked")
        };
        let reason = format!("{host} is {what} as container {other} wants it, which runs longer");
        Some(Rejection::new(&tenant.container, key, &reason))
    }

    /// The servers that a host should have.
    fn wanted(&self, host: &Host) -> Wanted {
        let mut wanted = Wanted::default();
        for (_, tenant) in self.claimants_of(host) {
            let Some(claim) = tenant.claims.claims.iter().find(|claim| claim.host == *host) else { continue };
            let Some(address) = tenant.reach.as_ref().and_then(|reach| reach.at(claim.port)) else {
                continue;
            };
            if self.is_usurped(tenant) {
                continue;
            }
            let admin = match tenant.container.run {
                RunState::Running => Admin::Ready,
                RunState::Paused | RunState::Stopped => Admin::Maint,
            };
            if admin == Admin::Ready
                && (tenant.container.stopping
                    || matches!(tenant.container.health, Some(Health::Starting | Health::Unhealthy)))
            {
                wanted.unfit.push(wanted.servers.len());
            }
            let making = Making {
                young: tenant.young,
                inter_ms: tenant.claims.inter_ms,
                slow_start_ms: tenant.claims.slow_start_ms,
            };
            wanted
                .servers
                .push((tenant.server.clone(), Server { address, admin, weight: claim.weight, making }));
        }
        wanted
    }

    /// A container that Docker calls unhealthy, or that was told to end, takes
    /// no new traffic, as long as there is a better one that is up. Without one,
    /// an answer while it lasts is better than none at all. One that was seen to
    /// begin is up when HAProxy has seen it answer, any other when it is there.
    fn retire(&mut self, wanted: &mut Wanted, host: &Host, home: &BackendName, observed: &Observed) {
        if wanted.unfit.is_empty() {
            return;
        }
        let standing = observed.state.backends.get(home).into_iter().flat_map(|backend| &backend.servers);
        let standing: BTreeMap<&str, bool> = standing
            .filter(|(_, server)| server.admin != Admin::Maint)
            .filter_map(|(name, _)| {
                let at = ServerRef { backend: home.clone(), server: name.clone() };
                Some((id_of_server(name)?, !observed.down.contains(&at)))
            })
            .collect();
        let is_up = |(name, server): &(ServerName, Server)| {
            let seen = id_of_server(name).and_then(|id| standing.get(id));
            seen.copied().unwrap_or(!server.making.young)
        };
        let servers = wanted.servers.iter().enumerate();
        let better: Vec<_> = servers
            .filter(|(index, (_, server))| server.admin == Admin::Ready && !wanted.unfit.contains(index))
            .map(|(_, server)| server)
            .collect();
        let some = !better.is_empty();
        if better.into_iter().any(is_up) {
            for &index in &wanted.unfit {
                if let Some((_, server)) = wanted.servers.get_mut(index) {
                    server.admin = Admin::Drain;
                }
            }
        } else if some {
            self.hoping.insert(host.clone(), home.clone());
        }
    }

    /// Keeps the maps of policies in step with the host's.
    fn write_policy(&mut self, host: &Host, home: &BackendName, observed: &Observed) {
        let words = match self.policies.get(host) {
            Some((_, policy)) => [
                (Map::Checks, policy.check.as_ref().map(|check| check.word(host))),
                (Map::Sticky, policy.sticky.map(Sticky::word)),
            ],
            // Nobody who could decide is known yet: they stay as they are.
            None => [Map::Checks, Map::Sticky]
                .map(|map| (map, observed.state.map_value(map, home.as_str()).cloned())),
        };
        self.forget_policy(home);
        for (map, word) in words {
            if let Some(word) = word {
                self.state.maps.entry(map).or_default().insert(MapWord::from(home), word);
            }
        }
    }

    pub(super) fn forget_policy(&mut self, backend: &BackendName) {
        for map in [Map::Checks, Map::Sticky] {
            if let Some(entries) = self.state.maps.get_mut(&map) {
                entries.remove(backend.as_str());
            }
        }
    }

    /// Keeps the `names` map in step with the loans.
    pub(super) fn write_name(&mut self, backend: &BackendName) {
        let names = self.state.maps.entry(Map::Names).or_default();
        match self.slots.service_of(backend) {
            Some(service) => names.insert(MapWord::from(backend), service.clone()),
            None => names.remove(backend.as_str()),
        };
    }
}
