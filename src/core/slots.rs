//! Which backend of HAProxy a key gets.
//!
//! What lives here: the difference between HAProxy 3.4+, where a backend is
//! made under its own name, and the versions below, where it is borrowed from
//! the pool. What it must not know: servers' details, commands, order.
//!
//! The loans are remembered in HAProxy itself, in the `names` map, so a
//! restarted hapilot reads them back.

use std::collections::{BTreeMap, BTreeSet};

use super::name::{BackendKey, BackendName, MapWord};
use super::state::{Map, Observed};

/// Where the backends for keys come from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Slots {
    /// HAProxy makes backends at run time.
    add_backend: bool,
    /// Backends of the pool that are lent, with the service they were lent to.
    lent: BTreeMap<BackendName, MapWord>,
    /// The same the other way round, per class and service.
    holders: BTreeMap<(String, MapWord), BackendName>,
    /// Backends of the pool without a loan and without a server.
    free: BTreeSet<BackendName>,
    /// Backends of the pool in all, also those that hold servers of nobody.
    size: usize,
}

/// No backend is left for a key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the pool has no free backend ({size} of {size} in use): {}",
    if *.sticky { "on this HAProxy so many hosts can be sticky" }
    else { "raise --pool-size and restart HAProxy, or use HAProxy 3.4 or later, which needs no pool" }
)]
pub struct Exhausted {
    /// Backends of the pool in all.
    pub size: usize,
    /// HAProxy makes backends at run time; only a sticky host needs the pool.
    pub sticky: bool,
}

impl Slots {
    /// Reads the loans back from what HAProxy has.
    #[must_use]
    pub fn from_observed(observed: &Observed, add_backend: bool) -> Self {
        let mut slots = Self { add_backend, size: observed.pool.len(), ..Self::default() };
        let names = observed.state.maps.get(&Map::Names);
        let leading = leading_hosts(observed);
        let mut doubtful = Vec::new();
        for backend in &observed.pool {
            let noted = names.and_then(|names| names.get(backend.as_str()));
            let hosts = leading.get(backend.as_str()).map(Vec::as_slice).unwrap_or_default();
            match noted {
                Some(service) if hosts.is_empty() || hosts.contains(&service) => {
                    slots.lend(backend.clone(), service.clone());
                }
                _ => doubtful.push((backend, noted, hosts)),
            }
        }
        // A hand took the note away or changed it. Whom visitors reach there
        // keeps it: moving a host needs a free backend, and there may be none.
        for (backend, noted, hosts) in doubtful {
            let class = backend.class().unwrap_or_default();
            let homeless =
                |host: &&&MapWord| !slots.holders.contains_key(&(class.to_owned(), (**host).clone()));
            let heir = hosts.iter().find(homeless).copied().filter(|_| has_servers(observed, backend));
            if let Some(service) = heir.or(noted).cloned() {
                slots.lend(backend.clone(), service);
            } else if !has_servers(observed, backend) {
                slots.free.insert(backend.clone());
            }
        }
        slots
    }

    /// The backend that a key has or gets. The answer stays the same until
    /// [`Slots::settle`] takes the loan back.
    ///
    /// A backend that is made at run time has no rules of its own, and that
    /// visitors come back to the same server is such a rule: where `sticky`, the
    /// key gets a backend of the pool on every version.
    pub fn take(&mut self, key: &BackendKey, sticky: bool) -> Result<BackendName, Exhausted> {
        let service = key.service();
        if let Some(backend) = self.holders.get(&(key.class.to_string(), service.clone())) {
            return Ok(backend.clone());
        }
        if self.add_backend && !sticky {
            return Ok(key.own_name());
        }
        let free = self.free.iter().find(|backend| backend.class() == Some(key.class.as_str())).cloned();
        let Some(backend) = free else {
            return Err(Exhausted { size: self.size, sticky: self.add_backend });
        };
        self.free.remove(&backend);
        self.lend(backend.clone(), service);
        Ok(backend)
    }

    /// The backend that a key has, if it has one already.
    #[must_use]
    pub fn held(&self, key: &BackendKey) -> Option<BackendName> {
        let held = self.holders.get(&(key.class.to_string(), key.service())).cloned();
        held.or_else(|| self.add_backend.then(|| key.own_name()))
    }

    /// Takes back the loan of a backend whose key is claimed no more, once its
    /// last server is gone. True if it has (or needs) no loan any more.
    pub fn settle(&mut self, backend: &BackendName, observed: &Observed) -> bool {
        if has_servers(observed, backend) {
            return false;
        }
        if let Some(service) = self.lent.remove(backend)
            && let Some(class) = backend.class()
        {
            let holder = (class.to_owned(), service);
            if self.holders.get(&holder) == Some(backend) {
                self.holders.remove(&holder);
            }
        }
        if observed.pool.contains(backend) {
            self.free.insert(backend.clone());
        }
        true
    }

    /// The service that a backend of the pool is lent to.
    #[must_use]
    pub fn service_of(&self, backend: &BackendName) -> Option<&MapWord> {
        self.lent.get(backend)
    }

    /// All loans.
    pub fn loans(&self) -> impl Iterator<Item = (&BackendName, &MapWord)> {
        self.lent.iter()
    }

    /// Backends of the pool that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    fn lend(&mut self, backend: BackendName, service: MapWord) {
        let Some(class) = backend.class().map(str::to_owned) else { return };
        // Two loans for one service (a hand on the socket): the first stays in
        // use, the second is emptied and comes back.
        self.holders.entry((class, service.clone())).or_insert_with(|| backend.clone());
        self.lent.insert(backend, service);
    }
}

/// The hosts that lead to each backend. What a loan notes for a host is the
/// host itself: [`BackendKey::service`].
fn leading_hosts(observed: &Observed) -> BTreeMap<&str, Vec<&MapWord>> {
    let mut leading: BTreeMap<&str, Vec<&MapWord>> = BTreeMap::new();
    for (host, backend) in observed.state.maps.get(&Map::Hosts).into_iter().flatten() {
        leading.entry(backend.as_str()).or_default().push(host);
    }
    leading
}

fn has_servers(observed: &Observed, backend: &BackendName) -> bool {
    observed.state.backends.get(backend).is_some_and(|b| !b.servers.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::name::{ClassName, Host, ServerName};
    use crate::core::state::{Admin, Making, Server};

    fn key(host: &str) -> BackendKey {
        BackendKey { class: ClassName::web(), host: Host::new(host).unwrap() }
    }

    fn pool(index: usize) -> BackendName {
        BackendName::pool(&ClassName::web(), index)
    }

    fn word(text: &str) -> MapWord {
        MapWord::new(text).unwrap()
    }

    /// A pool of so many, those of `busy` with a server, these notes and hosts.
    fn observed(size: usize, busy: &[usize], names: &[(usize, &str)], hosts: &[(&str, usize)]) -> Observed {
        let mut observed = Observed { pool: (1..=size).map(pool).collect(), ..Observed::default() };
        for &index in busy {
            let address = ([127, 0, 0, 2], 80).into();
            let server = Server { address, admin: Admin::Ready, weight: 1, making: Making::default() };
            let backend = observed.state.backends.entry(pool(index)).or_default();
            backend.servers.insert(ServerName::new("s-1").unwrap(), server);
        }
        let maps = &mut observed.state.maps;
        let names = names.iter().map(|&(index, service)| (MapWord::from(&pool(index)), word(service)));
        maps.insert(Map::Names, names.collect());
        let hosts = hosts.iter().map(|&(host, index)| (word(host), MapWord::from(&pool(index))));
        maps.insert(Map::Hosts, hosts.collect());
        observed
    }

    #[test]
    fn a_loan_is_read_back_from_the_note() {
        let mut slots = Slots::from_observed(&observed(3, &[], &[(2, "a.example")], &[]), false);
        assert_eq!(slots.take(&key("a.example"), false), Ok(pool(2)));
        assert_eq!(slots.take(&key("b.example"), false), Ok(pool(1)));
        assert_eq!(slots.free(), 1);
    }

    #[test]
    fn without_a_note_the_host_that_leads_there_keeps_its_backend() {
        for names in [&[][..], &[(2, "wrong.example")][..]] {
            let ground = observed(2, &[2], names, &[("a.example", 2)]);
            let mut slots = Slots::from_observed(&ground, false);
            assert_eq!(slots.take(&key("a.example"), false), Ok(pool(2)), "noted {names:?}");
        }
    }

    #[test]
    fn a_host_that_was_pointed_elsewhere_keeps_the_backend_of_its_note() {
        let ground = observed(3, &[1, 2], &[(1, "b.example"), (2, "a.example")], &[("a.example", 1)]);
        let slots = Slots::from_observed(&ground, false);
        assert_eq!(slots.held(&key("a.example")), Some(pool(2)));
        let free = observed(3, &[2], &[(2, "a.example")], &[("a.example", 1)]);
        assert_eq!(Slots::from_observed(&free, false).held(&key("a.example")), Some(pool(2)));
    }

    #[test]
    fn of_two_loans_for_one_service_the_first_is_in_use() {
        let ground = observed(2, &[1, 2], &[(1, "a.example"), (2, "a.example")], &[]);
        let mut slots = Slots::from_observed(&ground, false);
        assert_eq!(slots.take(&key("a.example"), false), Ok(pool(1)));
        let emptied = observed(2, &[1], &[(1, "a.example")], &[]);
        assert!(slots.settle(&pool(2), &emptied));
        assert_eq!((slots.held(&key("a.example")), slots.free()), (Some(pool(1)), 1));
    }

    #[test]
    fn a_backend_with_servers_of_nobody_is_not_free() {
        let mut slots = Slots::from_observed(&observed(1, &[1], &[], &[]), false);
        assert_eq!(slots.take(&key("a.example"), false), Err(Exhausted { size: 1, sticky: false }));
        assert!(!slots.settle(&pool(1), &observed(1, &[1], &[], &[])));
        assert!(slots.settle(&pool(1), &observed(1, &[], &[], &[])));
        assert_eq!(slots.take(&key("a.example"), false), Ok(pool(1)));
    }

    #[test]
    fn an_exhausted_pool_says_its_size_and_keeps_its_loans() {
        let mut slots = Slots::from_observed(&observed(1, &[], &[], &[]), false);
        assert_eq!(slots.take(&key("a.example"), false), Ok(pool(1)));
        assert_eq!(slots.take(&key("b.example"), false), Err(Exhausted { size: 1, sticky: false }));
        assert_eq!(slots.take(&key("a.example"), false), Ok(pool(1)));
        assert_eq!(slots.held(&key("b.example")), None);
    }

    #[test]
    fn where_backends_are_made_no_pool_is_needed() {
        let mut slots = Slots::from_observed(&Observed::default(), true);
        let own = key("*.a.example").own_name();
        assert_eq!(slots.take(&key("*.a.example"), false), Ok(own.clone()));
        assert_eq!(slots.held(&key("*.a.example")), Some(own));
    }

    #[test]
    fn a_sticky_host_needs_the_pool_on_every_version() {
        let mut slots = Slots::from_observed(&observed(1, &[], &[], &[]), true);
        let own = key("a.example").own_name();
        assert_eq!(slots.take(&key("a.example"), false), Ok(own));
        assert_eq!(slots.take(&key("a.example"), true), Ok(pool(1)));
        // It stays there when it is sticky no more.
        assert_eq!(slots.take(&key("a.example"), false), Ok(pool(1)));
        assert_eq!(slots.take(&key("b.example"), true), Err(Exhausted { size: 1, sticky: true }));
        assert!(slots.take(&key("b.example"), false).is_ok());
    }
}
