//! What an engine's networks are, and one shared value for each of them.
//!
//! What lives here: the memory of networks that were asked about. An inspect of
//! a container names its networks and their gateways, but not whether such a
//! gateway is the host: on 20.10 an internal network shows one too. What it
//! must not know: what a network is used for, and how the engine is asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard::models::Network as Answer;

use super::convert::network_kind;
use crate::core::container::{Container, Driver, Network};

/// An engine that could not tell about a network is not asked again before.
const AGAIN: Duration = Duration::from_secs(60);
/// Networks remembered; more are looked up again when they are met.
const REMEMBERED: usize = 10_000;

/// The networks of one engine.
#[derive(Debug, Default)]
pub(super) struct Networks(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// By identifier, as it was told.
    told: HashMap<Arc<str>, (Driver, bool)>,
    /// One value for all that stand on a network.
    shared: HashMap<Arc<str>, Arc<Network>>,
    /// Those that the engine was asked about.
    asked: HashMap<Box<str>, Instant>,
}

impl Networks {
    /// Takes an element of a list of networks.
    pub(super) fn told(&self, answer: &Answer) {
        let Some(id) = answer.id.as_deref() else { return };
        let mut memory = self.lock();
        if memory.told.len() >= REMEMBERED {
            *memory = Memory::default();
        }
        memory.told.insert(id.into(), network_kind(answer.driver.as_deref(), answer.internal));
    }

    /// The networks of a container about which the engine is to be asked now. One
    /// without a gateway is of no interest.
    pub(super) fn unknown(&self, container: &Container, now: Instant) -> Vec<String> {
        let mut memory = self.lock();
        let networks = container.networks.values().filter_map(|endpoint| endpoint.network.as_deref());
        let unknown: Vec<String> = networks
            .filter(|network| network.gateway.is_some() || network.gateway_ipv6.is_some())
            .filter(|network| !memory.told.contains_key(&network.id[..]))
            .filter(|network| memory.asked.get(&network.id[..]).is_none_or(|at| *at + AGAIN <= now))
            .map(|network| network.id.to_string())
            .collect();
        if memory.asked.len() >= REMEMBERED {
            memory.asked.clear();
        }
        memory.asked.extend(unknown.iter().map(|id| (id.as_str().into(), now)));
        unknown
    }

    /// Completes a container's networks by what is known of them.
    pub(super) fn complete(&self, container: &mut Container) {
        let mut memory = self.lock();
        for endpoint in container.networks.values_mut() {
            let Some(network) = &mut endpoint.network else { continue };
            if let Some((id, &(driver, internal))) = memory.told.get_key_value(&network.id) {
                *network =
                    Arc::new(Network { id: Arc::clone(id), driver, internal, ..Network::clone(network) });
            }
            match memory.shared.get(&network.id) {
                Some(shared) if *shared == *network => *network = Arc::clone(shared),
                _ => drop(memory.shared.insert(Arc::clone(&network.id), Arc::clone(network))),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Nothing in a critical section can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::core::container::{ContainerId, Endpoint};

    fn on(id: &str, gateway: Option<Ipv4Addr>) -> Container {
        let mut container = Container::running(ContainerId::new("a").unwrap(), "web");
        let (driver, internal, gateway_ipv6) = (Driver::Unknown, false, None);
        let network = Arc::new(Network { id: id.into(), driver, internal, gateway, gateway_ipv6 });
        let endpoint = Endpoint { network: Some(network), ..Endpoint::default() };
        container.networks.insert("web".into(), endpoint);
        container
    }

    fn network(container: &Container) -> &Arc<Network> {
        container.networks["web"].network.as_ref().unwrap()
    }

    #[test]
    fn what_was_told_completes_all_that_stand_on_it() {
        let networks = Networks::default();
        let gateway = Some(Ipv4Addr::new(172, 18, 0, 1));
        let (mut one, mut other) = (on("beef", gateway), on("beef", gateway));
        let now = Instant::now();
        assert_eq!(networks.unknown(&one, now), ["beef"]);
        assert_eq!(networks.unknown(&one, now), Vec::<String>::new(), "once");
        assert_eq!(networks.unknown(&one, now + AGAIN), ["beef"], "it never answered");
        assert_eq!(networks.unknown(&on("none", None), now), Vec::<String>::new());

        let told = Answer {
            id: Some("beef".into()),
            driver: Some("bridge".into()),
            internal: Some(true),
            ..Answer::default()
        };
        networks.told(&told);
        assert_eq!(networks.unknown(&one, now + AGAIN), Vec::<String>::new());
        networks.complete(&mut one);
        networks.complete(&mut other);
        assert_eq!((network(&one).driver, network(&one).internal), (Driver::Bridge, true));
        assert!(Arc::ptr_eq(network(&one), network(&other)), "they share one value");
        // Another gateway is another value.
        let mut moved = on("beef", None);
        networks.complete(&mut moved);
        assert_eq!((network(&moved).gateway, network(&moved).driver), (None, Driver::Bridge));
    }
}
