//! What may happen to containers, to hapilot and to HAProxy: as values, and as
//! strategies that make them up.
//!
//! What lives here: the vocabulary of random histories. What it must not know:
//! what should come of them (`plan_properties`).

#![allow(dead_code, unreachable_pub, reason = "a part of the test binary that includes it")]

use hapilot::core::container::Health;
use hapilot::core::state::{Admin, Map};
use proptest::prelude::*;

/// All hosts that are ever claimed.
pub const HOSTS: [&str; 6] = ["a.example", "b.example", "c.example", "d.example", "e.example", "*.f.example"];
/// So many containers at a time.
pub const PLACES: usize = 8;
/// Fewer than hosts: it runs out.
pub const POOL: usize = 4;

/// What happens to one container.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new one is started in a place; whoever was there dies.
    Start {
        place: usize,
        hosts: Vec<usize>,
        address: u8,
        weight: u16,
    },
    Die {
        place: usize,
    },
    Readdress {
        place: usize,
        address: u8,
    },
    /// One dies, and a new one with its address and its hosts is seen in the
    /// same turn, before the death or after it.
    TakeOver {
        place: usize,
        by: usize,
        death_first: bool,
    },
    /// Two exchange their addresses.
    Swap {
        one: usize,
        other: usize,
    },
    Pause {
        place: usize,
        paused: bool,
    },
    Health {
        place: usize,
        health: Option<Health>,
    },
    /// It is told to end.
    Stopping {
        place: usize,
    },
    /// It survived that.
    Survived {
        place: usize,
    },
    Rename {
        place: usize,
    },
    Weight {
        place: usize,
        weight: u16,
    },
    Disconnect {
        place: usize,
    },
}

/// What a hand does on the socket.
#[derive(Clone, Debug)]
pub enum Hand {
    /// A server of an unknown container, or of a known one in any backend.
    Add {
        backend: usize,
        place: Option<usize>,
        address: u8,
        admin: Admin,
    },
    Remove {
        server: usize,
    },
    Change {
        server: usize,
        admin: Admin,
    },
    Address {
        server: usize,
        address: u8,
    },
    Weight {
        server: usize,
        weight: u16,
    },
    /// An entry more, of a host that nobody may claim; a second one if there is one.
    Entry {
        map: Map,
        key: usize,
        value: usize,
    },
    Value {
        entry: usize,
        value: usize,
    },
    Forget {
        entry: usize,
    },
}

#[derive(Clone, Debug)]
pub enum Op {
    Events(Vec<Event>),
    /// The same with a fault in the middle.
    Refused(Vec<Event>, usize),
    Deferred(Vec<Event>, usize),
    Killed(Vec<Event>, usize),
    /// hapilot knows nothing any more but the containers.
    Restart,
    /// The same, and at first the containers at these places can't be inspected.
    RestartBlind(Vec<usize>),
    HaproxyRestart,
    /// hapilot reads HAProxy's state anew afterwards.
    Hand(Vec<Hand>),
    /// It finds out only when its next commands fail.
    HandUnseen(Vec<Hand>, Vec<Event>),
    TimePasses,
}

pub fn event() -> impl Strategy<Value = Event> {
    let place = 0..PLACES;
    let address = 1..=10u8;
    let health = prop_oneof![
        Just(None),
        Just(Some(Health::Starting)),
        Just(Some(Health::Healthy)),
        Just(Some(Health::Unhealthy))
    ];
    let hosts = prop::collection::vec(0..HOSTS.len(), 1..=2);
    let start = (place.clone(), hosts, address.clone(), 0..=256u16);
    prop_oneof![
        6 => start.prop_map(|(place, hosts, address, weight)| Event::Start { place, hosts, address, weight }),
        3 => place.clone().prop_map(|place| Event::Die { place }),
        2 => (place.clone(), address).prop_map(|(place, address)| Event::Readdress { place, address }),
        2 => (place.clone(), place.clone(), any::<bool>())
            .prop_map(|(place, by, death_first)| Event::TakeOver { place, by, death_first }),
        1 => (place.clone(), place.clone()).prop_map(|(one, other)| Event::Swap { one, other }),
        2 => (place.clone(), any::<bool>()).prop_map(|(place, paused)| Event::Pause { place, paused }),
        3 => (place.clone(), health).prop_map(|(place, health)| Event::Health { place, health }),
        3 => place.clone().prop_map(|place| Event::Stopping { place }),
        1 => place.clone().prop_map(|place| Event::Survived { place }),
        1 => place.clone().prop_map(|place| Event::Rename { place }),
        1 => (place.clone(), 0..=256u16).prop_map(|(place, weight)| Event::Weight { place, weight }),
        1 => place.prop_map(|place| Event::Disconnect { place }),
    ]
}

pub fn hand() -> impl Strategy<Value = Hand> {
    let any_admin = prop_oneof![Just(Admin::Ready), Just(Admin::Drain), Just(Admin::Maint)];
    let any_map = prop_oneof![Just(Map::Hosts), Just(Map::Checks), Just(Map::Sticky), Just(Map::Names)];
    let nth = 0..16usize;
    prop_oneof![
        (nth.clone(), prop::option::of(0..PLACES), 1..=12u8, any_admin.clone())
            .prop_map(|(backend, place, address, admin)| Hand::Add { backend, place, address, admin }),
        nth.clone().prop_map(|server| Hand::Remove { server }),
        (nth.clone(), any_admin).prop_map(|(server, admin)| Hand::Change { server, admin }),
        (nth.clone(), 1..=12u8).prop_map(|(server, address)| Hand::Address { server, address }),
        (nth.clone(), 0..=256u16).prop_map(|(server, weight)| Hand::Weight { server, weight }),
        (any_map, nth.clone(), nth.clone()).prop_map(|(map, key, value)| Hand::Entry { map, key, value }),
        (nth.clone(), nth.clone()).prop_map(|(entry, value)| Hand::Value { entry, value }),
        nth.prop_map(|entry| Hand::Forget { entry }),
    ]
}

pub fn op() -> impl Strategy<Value = Op> {
    let events = || prop::collection::vec(event(), 1..4);
    let hands = || prop::collection::vec(hand(), 1..3);
    prop_oneof![
        10 => event().prop_map(|event| Op::Events(vec![event])),
        4 => events().prop_map(Op::Events),
        2 => (events(), 0..12usize).prop_map(|(events, at)| Op::Refused(events, at)),
        1 => (events(), 0..12usize).prop_map(|(events, at)| Op::Deferred(events, at)),
        3 => (events(), 0..12usize).prop_map(|(events, at)| Op::Killed(events, at)),
        1 => Just(Op::Restart),
        1 => prop::collection::vec(0..PLACES, 1..4).prop_map(Op::RestartBlind),
        1 => Just(Op::HaproxyRestart),
        2 => hands().prop_map(Op::Hand),
        2 => (hands(), events()).prop_map(|(hands, events)| Op::HandUnseen(hands, events)),
        2 => Just(Op::TimePasses),
    ]
}
