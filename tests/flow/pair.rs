//! Two hapilots with the same containers: whatever the order in which each of
//! them heard of what, each `HAProxy` has the same servers under the same names.
//!
//! What lives here: that property. What it must not know: keepalived, sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests only")]

use std::collections::{BTreeMap, BTreeSet};

use hapilot::core::container::Container;
use hapilot::core::state::{Map, Observed};
use proptest::prelude::*;

#[path = "../support/farm.rs"]
mod farm;

use farm::{Haproxy, Model, capabilities, container, desired};

/// What one side hears.
#[derive(Clone, Debug)]
enum News {
    Here(Box<Container>),
    Gone(usize),
}

/// What logs, metrics and stick tables name: per service its hosts and its
/// servers. Which backend of the pool a service borrows is not in it: that
/// depends on who came first, and is printed by the service's own name.
fn by_service(observed: &Observed) -> BTreeMap<String, (BTreeSet<String>, Vec<String>)> {
    let names = observed.state.maps.get(&Map::Names);
    let service = |backend: &str| {
        let lent = names.and_then(|names| names.get(backend)).map(ToString::to_string);
        lent.unwrap_or_else(|| backend.trim_start_matches("web:").replace(":any", "*"))
    };
    let mut services: BTreeMap<String, (BTreeSet<String>, Vec<String>)> = BTreeMap::new();
    for (host, backend) in observed.state.maps.get(&Map::Hosts).into_iter().flatten() {
        services.entry(service(backend.as_str())).or_default().0.insert(host.to_string());
    }
    for (backend, server, facts) in observed.state.servers() {
        services.entry(service(backend.as_str())).or_default().1.push(format!("{server} {facts:?}"));
    }
    services
}

/// One side: a turn after each piece of news, as when each comes alone.
fn side(minor: u16, news: &[News]) -> BTreeMap<String, (BTreeSet<String>, Vec<String>)> {
    let mut model = Model::new(Haproxy::new(capabilities(3, minor), 8));
    let mut desired = desired();
    for one in news {
        match one {
            News::Here(container) => desired.set(Container::clone(container)),
            News::Gone(number) => desired.remove(&farm::id(*number)),
        }
        model.converge(&mut desired);
    }
    by_service(&model.haproxy.observed())
}

fn containers() -> impl Strategy<Value = Vec<Container>> {
    let hosts = prop::sample::select(vec!["a.example", "b.example", "*.c.example", "a.example,d.example"]);
    prop::collection::vec((hosts, 0..4u16, any::<bool>()), 1..7).prop_map(|all| {
        let one = |(number, (hosts, weight, paused)): (usize, (&str, u16, bool))| {
            let last = u8::try_from(number + 10).unwrap();
            let mut one = container(number, &format!("c{number}"), hosts, last)
                .with_label("hapilot.weight", &weight.to_string());
            if paused {
                one.run = hapilot::core::container::RunState::Paused;
            }
            one
        };
        all.into_iter().enumerate().map(one).collect()
    })
}

/// All containers in two orders; on the second side some come and go meanwhile.
fn two_sides() -> impl Strategy<Value = (Vec<News>, Vec<News>)> {
    containers().prop_flat_map(|all| {
        let here = |all: &[Container]| -> Vec<News> {
            all.iter().map(|one| News::Here(Box::new(one.clone()))).collect()
        };
        let detours: Vec<News> = (20..23)
            .flat_map(|number| {
                let last = u8::try_from(number + 10).unwrap();
                let guest = container(number, "guest", "e.example,a.example", last);
                [News::Here(Box::new(guest)), News::Gone(number)]
            })
            .collect();
        let first = Just(here(&all)).prop_shuffle();
        let second = Just(here(&all)).prop_shuffle().prop_map(move |news| {
            let mut mixed = Vec::new();
            for (index, one) in news.into_iter().enumerate() {
                mixed.extend(detours.get(index).cloned());
                mixed.push(one);
            }
            // Whoever is still there leaves.
            mixed.extend((20..23).map(News::Gone));
            mixed
        });
        (first, second)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_sides_have_the_same_names((first, second) in two_sides()) {
        for minor in [0, 4] {
            prop_assert_eq!(side(minor, &first), side(minor, &second), "HAProxy 3.{}", minor);
        }
    }
}
