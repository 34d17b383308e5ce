//! The model of Docker: containers as they are, and what is told of them.
//!
//! What lives here: what may happen to containers, and how it becomes news.
//! Events may get lost; whatever is told is told as the difference between what
//! is and what was told before, as the watcher does it. What it must not know:
//! HAProxy, and what hapilot makes of the news.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use hapilot::core::container::{Container, ContainerId, Health, RunState};
use hapilot::docker::Change;

use crate::chance::Chance;
use crate::farm;
use crate::invariants::Fit;

/// All hosts that are ever claimed.
pub const HOSTS: [&str; 6] = ["a.example", "b.example", "c.example", "d.example", "e.example", "*.f.example"];
/// So many containers at a time.
pub const PLACES: usize = 8;
/// Docker's addresses, fewer than it would need to give none twice.
const ADDRESSES: std::ops::RangeInclusive<u8> = 1..=11;

/// What a container says of itself: labels, and the hosts that it can be served
/// for all the same.
struct Speech {
    labels: &'static [(&'static str, &'static str)],
    hosts: &'static [&'static str],
}

/// Ill-meant and ill-written ones.
const HOSTILE: [Speech; 6] = [
    Speech {
        labels: &[("hapilot.host", "a.example,b .example,c.example")],
        hosts: &["a.example", "c.example"],
    },
    Speech { labels: &[("hapilot.host", "a.example\nset server x/y state maint")], hosts: &[] },
    Speech { labels: &[("hapilot.host", "b.example;shutdown"), ("hapilot.weight", "7")], hosts: &[] },
    Speech { labels: &[("hapilot.host", "d.example"), ("hapilot.port", "70000")], hosts: &[] },
    Speech { labels: &[("hapilot.host", "e.example"), ("hapilot.weight", "-1")], hosts: &["e.example"] },
    Speech { labels: &[("hapilot.hosts", "a.example")], hosts: &[] },
];

/// A container as it is.
#[derive(Clone, Debug)]
pub struct Real {
    pub container: Container,
    /// When its process begins to listen, in milliseconds of the simulation.
    pub listens_from: u64,
    /// It survives the signal that tells it to end, until then.
    pub survives_until: Option<u64>,
}

impl Real {
    fn ip(&self) -> Option<IpAddr> {
        ip(&self.container)
    }
}

fn ip(container: &Container) -> Option<IpAddr> {
    container.networks.values().next()?.ipv4.map(IpAddr::V4)
}

/// What hapilot can know at a moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The containers that it was told of.
    pub containers: BTreeMap<ContainerId, Container>,
    /// Those that should serve.
    pub fit: Fit,
    /// What each container that ever was claims, by its short identifier.
    pub claims: BTreeMap<String, BTreeSet<String>>,
    /// Hosts that somebody claims who has an address.
    pub wanted: BTreeSet<String>,
    /// Those that were told to begin: they take no visitors from better ones before
    /// they listen.
    pub young: BTreeSet<String>,
    /// Those that restart again and again: whether they are served is hapilot's
    /// decision.
    pub restless: BTreeSet<String>,
}

impl Facts {
    /// Claimants with an address that is theirs: if several seem to have it, the
    /// end of the others was not told yet.
    pub fn placed(&self) -> impl Iterator<Item = (&Container, SocketAddr)> {
        let claims = |c: &Container| self.claims.get(c.id.short()).is_some_and(|hosts| !hosts.is_empty());
        let owner = move |at: IpAddr| {
            let sharers = self.containers.values().filter(|other| claims(other) && ip(other) == Some(at));
            sharers.max_by_key(|other| (other.started_at, &other.id)).map(|other| &other.id)
        };
        self.containers.values().filter(move |c| claims(c)).filter_map(move |container| {
            let at = ip(container)?;
            (owner(at) == Some(&container.id)).then_some((container, SocketAddr::new(at, farm::PORT)))
        })
    }
}

#[derive(Debug, Default)]
pub struct Engine {
    pub alive: BTreeMap<usize, Real>,
    /// What hapilot's watcher was told, as long as hapilot lives.
    told: BTreeMap<ContainerId, Container>,
    claims: BTreeMap<String, BTreeSet<String>>,
    restless: BTreeSet<String>,
    /// Whose beginning was told, not found in a list.
    young: BTreeSet<String>,
    /// Told to be unreadable, and not read since.
    blind: BTreeSet<ContainerId>,
    number: usize,
    starts: i64,
    /// Ended ones that may be started again.
    ended: BTreeMap<usize, Container>,
}

impl Engine {
    /// A container is started in a place; whoever was there dies.
    pub fn start(&mut self, place: usize, chance: &mut Chance, now: u64) -> String {
        self.die(place);
        let Some(address) = self.free_address(chance) else { return "no address is free".to_owned() };
        self.number += 1;
        let name = if chance.one_in(8) { "w;e b\n/../" } else { "web" };
        let first = *chance.pick(&HOSTS);
        let second = *chance.pick(&HOSTS);
        let hosts = if chance.one_in(3) { format!("{first},{second}") } else { first.to_owned() };
        let mut container = farm::container(self.number, &format!("{name}{place}"), &hosts, address);
        let mut claims: BTreeSet<String> = hosts.split(',').map(str::to_owned).collect();
        if chance.one_in(10) {
            let speech = chance.pick(&HOSTILE);
            container.labels.clear();
            container.labels.extend(speech.labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
            claims = speech.hosts.iter().map(|host| (*host).to_owned()).collect();
        } else if chance.one_in(3) {
            container = container.with_label("hapilot.weight", &chance.below(257).to_string());
        }
        if chance.one_in(4) {
            container.health = Some(Health::Starting);
        }
        self.claims.insert(container.id.short().to_owned(), claims);
        self.run(place, container, chance, now);
        format!("{} is started at place {place} with {address} for {hosts}", self.alive[&place].container.id)
    }

    fn run(&mut self, place: usize, mut container: Container, chance: &mut Chance, now: u64) {
        self.starts += 1;
        container.started_at = Some(self.starts);
        container.run = RunState::Running;
        container.stopping = false;
        let delay = if chance.one_in(3) { chance.below(3_000) } else { 0 };
        self.ended.remove(&place);
        self.alive.insert(place, Real { container, listens_from: now + delay, survives_until: None });
    }

    fn free_address(&self, chance: &mut Chance) -> Option<u8> {
        let taken: BTreeSet<IpAddr> = self.alive.values().filter_map(Real::ip).collect();
        let free: Vec<u8> = ADDRESSES.filter(|last| !taken.contains(&farm::address(*last).into())).collect();
        (!free.is_empty()).then(|| *chance.pick(&free))
    }

    /// The process ends.
    pub fn die(&mut self, place: usize) -> bool {
        let Some(real) = self.alive.remove(&place) else { return false };
        self.ended.insert(place, real.container);
        true
    }

    /// An ended container is started again, under the identifier that it had.
    pub fn start_again(&mut self, place: usize, chance: &mut Chance, now: u64) -> bool {
        if self.alive.contains_key(&place) {
            return false;
        }
        let Some(container) = self.ended.get(&place).cloned() else { return false };
        let Some(address) = self.free_address(chance) else { return false };
        self.restless.insert(container.id.short().to_owned());
        self.run(place, farm::at(&container, address), chance, now);
        true
    }

    /// A new container takes a place, the hosts and the address of a dead one.
    pub fn take_over(&mut self, place: usize, by: usize, chance: &mut Chance, now: u64) -> bool {
        let Some(old) = self.alive.get(&place).cloned() else { return false };
        let Some(IpAddr::V4(at)) = old.ip() else { return false };
        self.die(place);
        self.die(by);
        self.number += 1;
        let host = *chance.pick(&HOSTS);
        let container = farm::container(self.number, &format!("web{by}"), host, at.octets()[3]);
        self.claims.insert(container.id.short().to_owned(), BTreeSet::from([host.to_owned()]));
        self.run(by, container, chance, now);
        true
    }

    /// Something else becomes of a container.
    pub fn change(&mut self, place: usize, effect: impl FnOnce(&mut Real)) -> bool {
        self.alive.get_mut(&place).map(effect).is_some()
    }

    /// Another address, or none: `network connect` and `disconnect`.
    pub fn readdress(&mut self, place: usize, chance: &mut Chance) -> bool {
        let address = self.free_address(chance);
        let none = chance.one_in(4);
        self.change(place, |real| match address {
            Some(address) if !none => real.container = farm::at(&real.container, address),
            _ => real.container.networks.clear(),
        })
    }

    /// Who survived the signal is taken back.
    pub fn pass_time(&mut self, now: u64) -> bool {
        let mut news = false;
        for real in
            self.alive.values_mut().filter(|real| real.survives_until.is_some_and(|until| until <= now))
        {
            (real.survives_until, real.container.stopping, news) = (None, false, true);
        }
        news
    }

    /// Who listens, and from when on. A paused process' kernel goes on accepting.
    pub fn listeners(&self) -> BTreeMap<SocketAddr, u64> {
        let listeners = self
            .alive
            .values()
            .filter_map(|real| Some((SocketAddr::new(real.ip()?, farm::PORT), real.listens_from)));
        listeners.collect()
    }

    /// What is new since the last telling, as one change; `None` if nothing is.
    pub fn news(&mut self) -> Option<Change> {
        let now: BTreeMap<&ContainerId, &Container> =
            self.alive.values().map(|real| (&real.container.id, &real.container)).collect();
        let gone: Vec<ContainerId> = self.told.keys().filter(|id| !now.contains_key(id)).cloned().collect();
        let (mut changed, mut stopping) = (Vec::new(), Vec::new());
        for (&id, &container) in &now {
            let before = self.told.get(id);
            let blind = self.blind.contains(id);
            if before == Some(container) && !blind {
                continue;
            }
            let marked = before.map(|before| Container { stopping: true, ..before.clone() });
            if marked.as_ref() == Some(container) && !blind {
                stopping.push(id.clone());
            } else {
                // Who goes on after a pause or elsewhere is taken to listen already.
                match before.filter(|before| before.started_at == container.started_at) {
                    None => _ = self.young.insert(id.short().to_owned()),
                    Some(before)
                        if (before.run, &before.networks) == (container.run, &container.networks) => {}
                    Some(_) => _ = self.young.remove(id.short()),
                }
                changed.push(container.clone());
            }
        }
        if gone.is_empty() && changed.is_empty() && stopping.is_empty() {
            return None;
        }
        self.take_note();
        let (event_at, inspected_at) = (Instant::now(), Instant::now());
        Some(Change::Update { changed, stopping, gone, unreadable: Vec::new(), event_at, inspected_at })
    }

    /// A full list, after a connection.
    pub fn snapshot(&mut self) -> Change {
        // Of those that were not known before nobody can say how long they have run.
        for real in self.alive.values() {
            let known = self.told.get(&real.container.id);
            if known.is_none_or(|known| known.started_at != real.container.started_at) {
                self.young.remove(real.container.id.short());
            }
        }
        self.take_note();
        let containers = self.told.values().cloned().collect();
        Change::Snapshot { containers, unreadable: Vec::new(), at: Instant::now() }
    }

    /// The engine can't tell about a container that it has told about before.
    pub fn unreadable(&mut self, place: usize) -> Option<Change> {
        let id = self.alive.get(&place)?.container.id.clone();
        if !self.told.contains_key(&id) {
            return None;
        }
        self.blind.insert(id.clone());
        Some(Change::Update {
            changed: Vec::new(),
            stopping: Vec::new(),
            gone: Vec::new(),
            unreadable: vec![(id, "error 500\n".to_owned())],
            event_at: Instant::now(),
            inspected_at: Instant::now(),
        })
    }

    fn take_note(&mut self) {
        self.blind.clear();
        self.told =
            self.alive.values().map(|real| (real.container.id.clone(), real.container.clone())).collect();
    }

    /// Nothing is left untold.
    pub fn is_told(&self) -> bool {
        self.blind.is_empty()
            && self.told.len() == self.alive.len()
            && self.alive.values().all(|real| self.told.get(&real.container.id) == Some(&real.container))
    }

    /// A hapilot that was just started was told nothing.
    pub fn forget_told(&mut self) {
        self.told.clear();
        self.young.clear();
        self.blind.clear();
    }

    /// What hapilot can know when it has taken all that was told.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts {
            containers: self.told.clone(),
            claims: self.claims.clone(),
            restless: self.restless.clone(),
            young: self.young.clone(),
            ..Facts::default()
        };
        let placed: Vec<(Container, SocketAddr)> = facts.placed().map(|(c, at)| (c.clone(), at)).collect();
        for (container, at) in placed {
            let hosts = self.claims[container.id.short()].clone();
            facts.wanted.extend(hosts.iter().cloned());
            if container.run == RunState::Running {
                facts.fit.insert(container.id.short().to_owned(), (at, hosts));
            }
        }
        facts
    }
}
