//! Whatever happens to the containers, to hapilot and to HAProxy: every command
//! of every plan keeps the invariants, and the plans end where they should.
//!
//! What lives here: random histories and the invariants. What it must not know:
//! how a plan is made, and what it looks like (`golden_plans`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests only")]

#[path = "../support/farm.rs"]
mod farm;
#[path = "../support/history.rs"]
mod history;
#[path = "../support/invariants.rs"]
mod invariants;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use farm::{Fault, Haproxy, Model, PORT, QUARANTINE_S, RealServer};
use hapilot::core::claim::id_of_server;
use hapilot::core::command::{Capabilities, Command, ServerRef};
use hapilot::core::container::{Container, ContainerId, Endpoint, Health, RunState};
use hapilot::core::desired::Desired;
use hapilot::core::name::{BackendName, ServerName};
use hapilot::core::state::{Admin, Making, Map, Server, State};
use history::{Event, HOSTS, Hand, Op, PLACES, POOL, op};
use invariants::{Breaches, Fit, subject_host};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Everything there is, and what is known of it without asking hapilot.
struct World {
    containers: BTreeMap<usize, Container>,
    /// What each container that ever was claims; labels never change.
    claims: BTreeMap<ContainerId, BTreeSet<String>>,
    number: usize,
    desired: Desired,
    model: Model,
    /// A hand changed several things at once: all that tells whose backend is
    /// whose may be gone, so the hosts may have to move.
    torn: bool,
}

impl World {
    fn new(capabilities: Capabilities) -> Self {
        Self {
            containers: BTreeMap::new(),
            claims: BTreeMap::new(),
            number: 0,
            desired: farm::desired(),
            model: Model::new(Haproxy::new(capabilities, POOL)),
            torn: false,
        }
    }

    fn ip(container: &Container) -> Option<IpAddr> {
        container.networks.values().next()?.ipv4.map(IpAddr::V4)
    }

    /// Claimants with an address that is theirs, whether they run or are paused.
    fn placed(&self) -> impl Iterator<Item = (&Container, SocketAddr)> {
        let owner = |ip| {
            let sharers = self.containers.values().filter(move |other| Self::ip(other) == Some(ip));
            sharers.max_by_key(|other| (other.started_at, &other.id)).map(|other| &other.id)
        };
        self.containers.values().filter_map(move |container| {
            let ip = Self::ip(container)?;
            (owner(ip) == Some(&container.id)).then_some((container, SocketAddr::new(ip, PORT)))
        })
    }

    fn fit(&self) -> Fit {
        let running = self.placed().filter(|(container, _)| container.run == RunState::Running);
        running.map(|(c, at)| (c.id.short().to_owned(), (at, self.claims[&c.id].clone()))).collect()
    }

    /// Hosts that have somebody to serve them.
    fn wanted(&self) -> BTreeSet<String> {
        self.placed().flat_map(|(container, _)| self.claims[&container.id].clone()).collect()
    }

    fn all_happen(&mut self, events: &[Event]) {
        for event in events {
            self.happen(event);
        }
    }

    fn all_hands(&mut self, hands: &[Hand]) {
        for hand in hands {
            self.hand(hand);
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Start { place, hosts, address, weight } => {
                self.die(*place);
                let hosts = hosts.iter().map(|&host| HOSTS[host]).collect::<Vec<_>>().join(",");
                let container = self.born(*place, &hosts, *address);
                self.set(*place, container.with_label("hapilot.weight", &weight.to_string()));
            }
            Event::Die { place } => self.die(*place),
            Event::Readdress { place, address } => self.change(*place, |c| *c = farm::at(c, *address)),
            Event::TakeOver { place, by, death_first } => {
                let Some(old) = self.containers.get(place).cloned() else { return };
                let Some(Endpoint { ipv4: Some(ip), .. }) = old.networks.values().next().cloned() else {
                    return;
                };
                if *death_first || place == by {
                    self.die(*place);
                }
                self.die(*by);
                let new = self.born(*by, &old.labels["hapilot.host"], ip.octets()[3]);
                self.set(*by, new);
                if place != by {
                    self.die(*place);
                }
            }
            Event::Swap { one, other } => {
                let of = |place| self.containers.get(place).map(|c| c.networks.clone());
                let (Some(first), Some(second)) = (of(one), of(other)) else { return };
                self.change(*one, |c| c.networks = second);
                self.change(*other, |c| c.networks = first);
            }
            Event::Pause { place, paused } => {
                let run = if *paused { RunState::Paused } else { RunState::Running };
                self.change(*place, |c| c.run = run);
            }
            Event::Health { place, health } => self.change(*place, |c| c.health = *health),
            Event::Stopping { place } => {
                if let Some(container) = self.containers.get_mut(place) {
                    container.stopping = true;
                    self.desired.stopping(&container.id);
                }
            }
            Event::Survived { place } => self.change(*place, |c| c.stopping = false),
            Event::Rename { place } => self.change(*place, |c| c.name = format!("{}x", c.name).into()),
            Event::Weight { place, weight } => self.change(*place, |c| {
                c.labels.insert("hapilot.weight".to_owned(), weight.to_string());
            }),
            Event::Disconnect { place } => self.change(*place, |c| c.networks.clear()),
        }
    }

    fn born(&mut self, place: usize, hosts: &str, address: u8) -> Container {
        self.number += 1;
        let container = farm::container(self.number, &format!("web{place}"), hosts, address);
        self.claims.insert(container.id.clone(), hosts.split(',').map(str::to_owned).collect());
        container
    }

    fn set(&mut self, place: usize, container: Container) {
        self.containers.insert(place, container.clone());
        self.desired.set(container);
    }

    fn change(&mut self, place: usize, effect: impl FnOnce(&mut Container)) {
        if let Some(mut container) = self.containers.get(&place).cloned() {
            effect(&mut container);
            self.set(place, container);
        }
    }

    fn die(&mut self, place: usize) {
        if let Some(container) = self.containers.remove(&place) {
            self.desired.remove(&container.id);
        }
    }

    fn hand(&mut self, hand: &Hand) {
        let backends: Vec<BackendName> = self.model.haproxy.backends.keys().cloned().collect();
        let servers: Vec<ServerRef> = self.model.haproxy.removals().into_keys().collect();
        let some_backend = |n: usize| backends.get(n % backends.len().max(1)).cloned();
        let some_server = |n: usize| servers.get(n % servers.len().max(1)).cloned();
        let haproxy = &mut self.model.haproxy;
        let mut on_server = |n: usize, effect: &dyn Fn(&mut RealServer)| {
            let Some(at) = some_server(n) else { return };
            effect(haproxy.backends.get_mut(&at.backend).unwrap().servers.get_mut(&at.server).unwrap());
        };
        let address_of = |last: u8| SocketAddr::new(farm::address(last).into(), PORT);
        match hand {
            Hand::Change { server, admin } => on_server(*server, &|real| {
                real.server.admin = *admin;
                real.unchanged_s = 0;
            }),
            Hand::Address { server, address } => {
                on_server(*server, &|real| real.server.address = address_of(*address));
            }
            Hand::Weight { server, weight } => on_server(*server, &|real| real.server.weight = *weight),
            Hand::Remove { server } => {
                if let Some(at) = some_server(*server) {
                    haproxy.backends.get_mut(&at.backend).unwrap().servers.remove(&at.server);
                }
            }
            Hand::Add { backend, place, address, admin } => {
                let Some(backend) = some_backend(*backend) else { return };
                let known = place.and_then(|place| self.containers.get(&place)).map(|c| c.id.short());
                let name = ServerName::labelled("zz-hand", known.unwrap_or("nobody"));
                let server = Server {
                    address: address_of(*address),
                    admin: *admin,
                    weight: 1,
                    making: Making::default(),
                };
                let busy = u64::from(!haproxy.capabilities.prompt_deletion);
                let real = RealServer { server, unchanged_s: 0, busy, checked: true, down: false };
                haproxy.backends.get_mut(&backend).unwrap().servers.insert(name, real);
            }
            Hand::Entry { map, key, value } => {
                let key = match map {
                    Map::Hosts => HOSTS.get(*key).copied().unwrap_or("stray.example").to_owned(),
                    Map::Checks | Map::Sticky | Map::Names => {
                        some_backend(*key).map_or("web:stray.example".to_owned(), |b| b.to_string())
                    }
                };
                if let Some(value) = some_backend(*value) {
                    haproxy.push_entry(*map, farm::word(&key), farm::word(value.as_str()));
                }
            }
            Hand::Value { entry, value } => {
                let value = some_backend(*value);
                let entries: Vec<_> = haproxy.maps.values_mut().flatten().collect();
                let count = entries.len().max(1);
                let found = entries.into_iter().nth(entry % count);
                if let (Some(found), Some(value)) = (found, value) {
                    found.2 = farm::word(value.as_str());
                }
            }
            Hand::Forget { entry } => {
                let entries = haproxy.maps.values().map(Vec::len).sum::<usize>().max(1);
                let mut left = entry % entries;
                for entries in haproxy.maps.values_mut() {
                    if left < entries.len() {
                        entries.remove(left);
                        break;
                    }
                    left -= entries.len();
                }
            }
        }
    }

    fn step(&mut self, op: &Op) {
        let before = self.wanted();
        let served_before = self.served();
        self.torn = matches!(op, Op::Hand(hands) | Op::HandUnseen(hands, _) if hands.len() > 1);
        match op {
            Op::Events(events) => {
                let mut concerned = self.concerned(events);
                self.all_happen(events);
                concerned.extend(self.concerned(events));
                self.turn(Fault::None, Some(concerned));
                // Who was served and is still claimed is served: only a
                // newcomer finds the pool empty.
                let kept = served_before.intersection(&before).filter(|host| self.wanted().contains(*host));
                for host in kept.collect::<Vec<_>>() {
                    assert!(self.served().contains(host), "{host} lost its backend to a newcomer");
                }
            }
            Op::Refused(events, at) => self.faulty(events, Fault::Refuse(*at)),
            Op::Deferred(events, at) => self.faulty(events, Fault::Defer(*at)),
            Op::Killed(events, at) => self.faulty(events, Fault::Kill(*at)),
            Op::Restart => {
                self.restart();
                let plans = self.turn(Fault::None, None);
                let clearing = plans.iter().all(hapilot::core::plan::Plan::is_settled);
                assert!(clearing, "a restart alone changed something: {}", farm::story(&plans));
            }
            Op::RestartBlind(places) => self.restart_blind(places),
            Op::HaproxyRestart => {
                self.model.haproxy = Haproxy::new(self.model.haproxy.capabilities, POOL);
                self.model.fresh = false;
                self.turn(Fault::None, None);
            }
            Op::Hand(hands) => {
                self.all_hands(hands);
                self.model.fresh = false;
                self.turn(Fault::None, None);
            }
            Op::HandUnseen(hands, events) => {
                self.all_hands(hands);
                self.all_happen(events);
                self.model.turn(&mut self.desired, Fault::None, &mut |_, _| {});
                // The resync.
                self.model.fresh = false;
                self.turn(Fault::None, None);
            }
            Op::TimePasses => {
                self.model.haproxy.pass_time(QUARANTINE_S);
                self.turn(Fault::None, None);
                assert_eq!(self.model.waiting, BTreeSet::new(), "nothing keeps these from deletion");
            }
        }
        // What was gated comes up, and what stayed for it may go.
        self.model.haproxy.all_come_up();
        self.turn(Fault::None, None);
        self.check();
    }

    fn faulty(&mut self, events: &[Event], fault: Fault) {
        self.all_happen(events);
        self.turn(fault, None);
    }

    fn restart(&mut self) {
        self.desired = self.model.restart(self.containers.values().cloned());
    }

    /// hapilot starts again, and the engine can't tell about some containers.
    fn restart_blind(&mut self, places: &[usize]) {
        // Of two with one address one has died: Docker gives none twice.
        let alone = |container: &Container| {
            self.containers.values().filter(|other| Self::ip(other) == Self::ip(container)).count() == 1
        };
        let (blind, seen): (Vec<_>, Vec<_>) =
            self.containers.iter().partition(|(place, c)| places.contains(*place) && alone(c));
        let blind: BTreeSet<ContainerId> = blind.into_iter().map(|(_, c)| c.id.clone()).collect();
        let seen: Vec<Container> = seen.into_iter().map(|(_, c)| c.clone()).collect();
        // What waits for its deletion may as well stay until more is known.
        let waiting = self.model.waiting.clone();
        let theirs = |world: &Self| -> BTreeMap<ServerRef, Server> {
            let state = world.model.haproxy.observed().state;
            let servers = state.servers().map(|(backend, server, facts)| {
                (ServerRef { backend: backend.clone(), server: server.clone() }, facts.clone())
            });
            let blind = |at: &ServerRef| blind.iter().any(|id| id_of_server(&at.server) == Some(id.short()));
            servers.filter(|(at, _)| blind(at) && !waiting.contains(at)).collect()
        };
        let (served, servers) = (self.served(), theirs(self));
        self.desired = self.model.restart([]);
        self.desired.replace_readable(seen, &blind);
        self.turn(Fault::None, None);
        assert_eq!(theirs(self), servers, "nobody can say that these should change");
        assert!(served.is_subset(&self.served()), "{served:?} were served");
        for container in self.containers.values().filter(|c| blind.contains(&c.id)) {
            self.desired.set(container.clone());
        }
        self.turn(Fault::None, None);
        assert_eq!(theirs(self), servers, "they are as they were");
    }

    /// Takes a turn; every step is looked at, and for an event without fault
    /// also whether it concerns only whom it may.
    fn turn(&mut self, fault: Fault, concerned: Option<BTreeSet<String>>) -> Vec<hapilot::core::plan::Plan> {
        let (fit, wanted) = (self.fit(), self.wanted());
        let claims = self.claims_by_short();
        let start = Breaches::of(&self.model.haproxy, &fit, &claims);
        let misrouted = self.misrouted();
        // Who was refused a backend has no right to one that a hand points it to.
        let blocked: BTreeSet<String> = self.desired.blocked().into_iter().map(|b| b.what).collect();
        let mut serving = invariants::serving(&self.model.haproxy, &fit, &wanted);
        serving.retain(|host| !self.torn && !blocked.contains(host));
        let names_before = self.names();
        let mut sent = Vec::new();
        let mut watch = |haproxy: &Haproxy, command: &Command| {
            sent.push(command.clone());
            if matches!(fault, Fault::Refuse(_)) {
                // The rest of the plan is on its way already and stands on
                // what was refused. How it ends is checked all the same.
                return;
            }
            let new = Breaches::of(haproxy, &fit, &claims).without(&start, &misrouted);
            assert!(new.is_empty(), "{new:#?}\nafter {sent:#?}");
            let now = invariants::serving(haproxy, &fit, &wanted);
            let lost: Vec<_> = serving.difference(&now).collect();
            assert!(lost.is_empty(), "{lost:?} lost their last ready server after {sent:#?}");
        };
        let (mut plans, killed) = self.model.turn(&mut self.desired, fault, &mut watch);
        if killed {
            self.restart();
            plans = self.model.turn(&mut self.desired, Fault::None, &mut watch).0;
        }
        if let Some(concerned) = concerned {
            let names = [names_before, self.names()];
            for command in &sent {
                let host = subject_host(command, &names);
                assert!(
                    host.is_none_or(|host| concerned.contains(&host)),
                    "`{command}` is about none of {concerned:?}: {sent:#?}"
                );
            }
        }
        plans
    }

    fn claims_by_short(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.claims.iter().map(|(id, hosts)| (id.short().to_owned(), hosts.clone())).collect()
    }

    /// The hosts that events may be about: of the container itself, of whoever
    /// has or gets the same address, and those that wait for a backend.
    fn concerned(&self, events: &[Event]) -> BTreeSet<String> {
        let mut places = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        let mut hosts: BTreeSet<String> = self.desired.blocked().into_iter().map(|b| b.what).collect();
        for event in events {
            match event {
                Event::Start { place, hosts: claimed, address, .. } => {
                    hosts.extend(claimed.iter().map(|&host| HOSTS[host].to_owned()));
                    addresses.insert(IpAddr::V4(farm::address(*address)));
                    places.insert(*place);
                }
                Event::Readdress { place, address } => {
                    addresses.insert(IpAddr::V4(farm::address(*address)));
                    places.insert(*place);
                }
                Event::TakeOver { place, by, .. } => places.extend([*place, *by]),
                Event::Swap { one, other } => places.extend([*one, *other]),
                Event::Die { place }
                | Event::Pause { place, .. }
                | Event::Health { place, .. }
                | Event::Stopping { place }
                | Event::Survived { place }
                | Event::Rename { place }
                | Event::Weight { place, .. }
                | Event::Disconnect { place } => places.extend([*place]),
            }
        }
        addresses.extend(places.iter().filter_map(|place| Self::ip(self.containers.get(place)?)));
        let touched = self.containers.iter().filter(|(place, container)| {
            places.contains(place) || Self::ip(container).is_some_and(|ip| addresses.contains(&ip))
        });
        hosts.extend(touched.flat_map(|(_, container)| self.claims[&container.id].clone()));
        hosts
    }

    /// Which host each backend of HAProxy is for.
    fn names(&self) -> BTreeMap<String, String> {
        let names = self.model.haproxy.maps.get(&Map::Names).into_iter().flatten();
        let lent = names.map(|(_, backend, service)| (backend.to_string(), service.to_string()));
        let own = HOSTS.map(|host| (format!("web:{}", host.replace('*', ":any")), host.to_owned()));
        lent.chain(own).collect()
    }

    /// Hosts that a hand has pointed at somebody else's backend.
    fn misrouted(&self) -> BTreeSet<(String, BackendName)> {
        let names = self.names();
        let hosts = self.model.haproxy.maps.get(&Map::Hosts).into_iter().flatten();
        let wrong = hosts.filter(|(_, host, backend)| {
            names.get(backend.as_str()).map(String::as_str) != Some(host.as_str())
        });
        wrong
            .filter_map(|(_, host, backend)| {
                Some((host.to_string(), BackendName::new(backend.as_str()).ok()?))
            })
            .collect()
    }

    fn served(&self) -> BTreeSet<String> {
        let hosts = self.model.haproxy.maps.get(&Map::Hosts).into_iter().flatten();
        hosts.map(|(_, host, _)| host.to_string()).collect()
    }

    /// What holds whenever a turn is over.
    fn check(&mut self) {
        // Nothing is left to do.
        let again = self.model.converge(&mut self.desired);
        assert!(again.is_empty(), "planned again: {}", farm::story(&again));

        // HAProxy is as desired, but for what waits for its deletion.
        let observed = self.model.haproxy.observed();
        assert_eq!(observed.stray_entries, []);
        let real = self.without_waiting(&observed.state);
        assert_eq!(real, farm::plain(self.desired.state()), "HAProxy (left) is not as desired");
        for (host, _) in observed.state.maps.get(&Map::Hosts).into_iter().flatten() {
            assert!(
                self.model.haproxy.route(host.as_str()).is_some(),
                "{host} leads to no published backend"
            );
        }

        // Each server stands as its container says.
        self.check_servers();

        let breaches = Breaches::of(&self.model.haproxy, &self.fit(), &self.claims_by_short());
        assert!(breaches.is_empty(), "{breaches:#?}");

        let servers = self.model.haproxy.backends.values().flat_map(|backend| &backend.servers);
        for (name, real) in servers.filter(|(_, real)| real.server.admin != Admin::Maint) {
            assert!(real.checked, "{name} takes traffic and its check never runs");
        }

        // Served or blocked: never both, never neither, and not blocked while
        // there is a free backend.
        let blocked: BTreeSet<String> = self.desired.blocked().into_iter().map(|b| b.what).collect();
        let served = self.served();
        assert_eq!(served.intersection(&blocked).count(), 0, "{served:?} and {blocked:?}");
        assert_eq!(served.union(&blocked).cloned().collect::<BTreeSet<_>>(), self.wanted());
        if !blocked.is_empty() {
            let names = observed.state.maps.get(&Map::Names);
            let lent = |b: &BackendName| names.is_some_and(|names| names.contains_key(b.as_str()));
            let in_use = |b: &BackendName| lent(b) || observed.state.backends.contains_key(b);
            let free: Vec<_> =
                observed.pool.iter().filter(|&b| b.class() == Some("web") && !in_use(b)).collect();
            assert!(free.is_empty(), "{blocked:?} are blocked while {free:?} are free");
        }

        // Somebody who has seen nothing but this moment wants the same.
        let mut fresh = farm::desired();
        fresh.replace(self.containers.values().cloned().collect());
        fresh.adopt(&observed, self.model.haproxy.capabilities);
        fresh.compute(&observed);
        assert_eq!(farm::plain(self.desired.state()), farm::plain(fresh.state()), "incremental, full");
        assert_eq!(self.desired.blocked(), fresh.blocked());
    }

    fn check_servers(&self) {
        let routed = self.served();
        for host in HOSTS.iter().filter(|&&host| routed.contains(host)) {
            let (home, backend) = self.model.haproxy.route(host).unwrap();
            let stays = |name: &ServerName| {
                let server = ServerRef { backend: home.clone(), server: name.clone() };
                !self.model.waiting.contains(&server)
            };
            let stand: BTreeMap<&str, &Server> = backend
                .servers
                .iter()
                .filter(|(name, _)| stays(name))
                .map(|(name, real)| (id_of_server(name).unwrap(), &real.server))
                .collect();
            let claimants: Vec<_> =
                self.placed().filter(|(c, _)| self.claims[&c.id].contains(*host)).collect();
            let well = |c: &Container| {
                c.run == RunState::Running && !c.stopping && matches!(c.health, None | Some(Health::Healthy))
            };
            let somebody_well = claimants.iter().any(|(c, _)| well(c));
            for (container, address) in claimants {
                let server = stand.get(container.id.short()).expect("each claimant has a server");
                let admin = match container.run {
                    RunState::Running if well(container) || !somebody_well => Admin::Ready,
                    RunState::Running => Admin::Drain,
                    _ => Admin::Maint,
                };
                assert_eq!((server.address, server.admin), (address, admin), "{host}: {container:?}");
            }
        }
    }

    fn without_waiting(&self, state: &State) -> State {
        let mut rest = farm::plain(state);
        for server in &self.model.waiting {
            let backend = rest.backends.get_mut(&server.backend).expect("what waits is there");
            let waits = backend.servers.remove(&server.server).expect("what waits is there");
            assert_eq!(waits.admin, Admin::Maint, "{server} waits for its deletion");
        }
        rest.backends.retain(|name, backend| !name.is_pool() || !backend.servers.is_empty());
        rest
    }
}

fn live(capabilities: Capabilities, ops: &[Op]) {
    let mut world = World::new(capabilities);
    for op in ops {
        world.step(op);
    }
    // Everybody goes home: nothing is left behind.
    for place in 0..PLACES {
        world.die(place);
    }
    world.turn(Fault::None, None);
    world.model.haproxy.pass_time(QUARANTINE_S);
    world.turn(Fault::None, None);
    let left = world.model.haproxy.observed();
    assert_eq!(farm::plain(&left.state), State::default());
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 400,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..24)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn histories_on_an_haproxy_with_a_pool_and_slow_deletion(ops in ops()) {
        live(farm::capabilities(2, 6), &ops);
    }

    #[test]
    fn histories_on_an_haproxy_with_a_pool(ops in ops()) {
        live(farm::capabilities(3, 0), &ops);
    }

    #[test]
    fn histories_on_an_haproxy_that_makes_backends(ops in ops()) {
        live(farm::capabilities(3, 4), &ops);
    }
}
