//! A farm without machines: containers as values, and an HAProxy that is a
//! value and as strict as the real one.
//!
//! What lives here: short ways to a [`Container`], the strict HAProxy, and the
//! loop of a turn around it. What it must not know: what a plan should look
//! like (the tests say that).

#![allow(dead_code, unreachable_pub, reason = "each test binary includes it and uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests only")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hapilot::core::command::{Capabilities, Check, Command, ServerRef, Version};
use hapilot::core::container::{Container, ContainerId};
use hapilot::core::desired::{Desired, HaproxyPlace, Scope};
use hapilot::core::diff::diff;
use hapilot::core::name::{BackendName, ClassName, MapWord, ServerName};
use hapilot::core::plan::{Ground, Plan, RemovalFacts, doubtful, plan};
use hapilot::core::simulate::simulate;
use hapilot::core::state::{Admin, Backend, Making, Map, Observed, Server, State};

#[path = "farm_files.rs"]
mod files;

use files::Files;

/// For how long a server of a slow HAProxy must have been out of service, seconds.
pub const QUARANTINE_S: u32 = 24;
/// For how long sessions of a server that left service may go on, seconds.
pub const SESSION_LIMIT_S: u32 = 60;
/// Where every container listens.
pub const PORT: u16 = 8080;
/// A turn that takes more plans than this doesn't converge.
const PASSES: usize = 12;

/// `127.0.0.<last>`.
pub fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// The `number`th identifier: they differ in the first twelve characters, and
/// grow with the number.
pub fn id(number: usize) -> ContainerId {
    ContainerId::new(&format!("{number:04x}aaaabbbb{}", "0".repeat(52))).unwrap()
}

/// A running container that claims a list of hosts.
pub fn container(number: usize, name: &str, hosts: &str, last: u8) -> Container {
    let mut container = Container::running(id(number), name).with_label("hapilot.host", hosts).on_network(
        "web",
        Some(address(last)),
        None,
    );
    container.exposed_ports = vec![PORT];
    container.started_at = Some(1_000 + i64::try_from(number).unwrap());
    container
}

/// The same container with another address.
pub fn at(container: &Container, last: u8) -> Container {
    container.clone().on_network("web", Some(address(last)), None)
}

/// An HAProxy on the host, and no container yet.
pub fn desired() -> Desired {
    Desired::new(HaproxyPlace::Host, false)
}

/// What a version can do.
pub fn capabilities(major: u16, minor: u16) -> Capabilities {
    Capabilities::of(Version { major, minor, patch: 0 }).expect("a version that hapilot drives")
}

/// A word of a map.
pub fn word(text: &str) -> MapWord {
    MapWord::new(text).unwrap()
}

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It was carried out.
    Done,
    /// Not now, said HAProxy.
    Deferred,
    /// HAProxy's error.
    Refused(&'static str),
}

/// A server as HAProxy has it.
#[derive(Clone, Debug)]
pub struct RealServer {
    /// What a reading shows.
    pub server: Server,
    /// Seconds in its state.
    pub unchanged_s: u32,
    /// Connections that it still has.
    pub busy: u64,
    /// Its health check runs.
    pub checked: bool,
    /// HAProxy's check says that it doesn't answer, or nobody has asked yet.
    pub down: bool,
}

impl RealServer {
    /// Visitors reach it.
    pub fn serves(&self) -> bool {
        self.server.admin == Admin::Ready && !self.down
    }
}

/// A backend as HAProxy has it.
#[derive(Clone, Debug, Default)]
pub struct RealBackend {
    /// Rules may choose it.
    pub published: bool,
    /// Its servers.
    pub servers: BTreeMap<ServerName, RealServer>,
}

/// A strict HAProxy.
#[derive(Clone, Debug)]
pub struct Haproxy {
    /// What it can do.
    pub capabilities: Capabilities,
    /// All backends, those of the pool too.
    pub backends: BTreeMap<BackendName, RealBackend>,
    /// Entries of each map: reference, key, value, in order.
    pub maps: BTreeMap<Map, Vec<(u64, MapWord, MapWord)>>,
    /// Changes of address that 3.4 has answered and not made yet.
    late: Vec<(ServerRef, SocketAddr)>,
    references: u64,
}

impl Haproxy {
    /// Just started, with a pool of so many backends if it needs one.
    pub fn new(capabilities: Capabilities, pool: usize) -> Self {
        let pool = if capabilities.add_backend { 0 } else { pool };
        let backend = |name| (name, RealBackend { published: true, ..RealBackend::default() });
        let names = |class| (1..=pool).map(move |index| BackendName::pool(&class, index));
        let backends = ClassName::all().into_iter().flat_map(names).map(backend).collect();
        Self { capabilities, backends, maps: BTreeMap::new(), late: Vec::new(), references: 0x10 }
    }

    /// What `observe` would read.
    pub fn observed(&self) -> Observed {
        let mut observed = Observed::default();
        for (name, real) in &self.backends {
            if name.is_pool() {
                observed.pool.insert(name.clone());
            }
            if !name.is_pool() || !real.servers.is_empty() {
                let servers = real.servers.iter().map(|(name, real)| (name.clone(), real.server.clone()));
                observed.state.backends.insert(name.clone(), Backend { servers: servers.collect() });
            }
        }
        for (&map, entries) in &self.maps {
            for (reference, key, value) in entries {
                let words = observed.state.maps.entry(map).or_default();
                if words.contains_key(key) {
                    observed.stray_entries.push((map, *reference));
                } else {
                    words.insert(key.clone(), value.clone());
                }
            }
        }
        let down = self.backends.iter().flat_map(|(backend, real)| {
            let down = real.servers.iter().filter(|(_, real)| real.down && real.server.admin != Admin::Maint);
            down.map(|(name, _)| ServerRef { backend: backend.clone(), server: name.clone() })
        });
        observed.down = down.collect();
        observed
    }

    /// Every check passes.
    pub fn all_come_up(&mut self) {
        for real in self.backends.values_mut().flat_map(|backend| backend.servers.values_mut()) {
            if real.checked && real.server.admin != Admin::Maint {
                real.down = false;
            }
        }
    }

    /// What is known of the servers that are out of service.
    pub fn removals(&self) -> BTreeMap<ServerRef, RemovalFacts> {
        let all = self.backends.iter().flat_map(|(backend, real)| {
            real.servers.iter().map(move |(name, real)| {
                let server = ServerRef { backend: backend.clone(), server: name.clone() };
                (server, RemovalFacts { unchanged_s: real.unchanged_s, busy: real.busy })
            })
        });
        all.collect()
    }

    /// Time passes, and what was in flight ends.
    pub fn pass_time(&mut self, seconds: u32) {
        for real in self.backends.values_mut().flat_map(|backend| backend.servers.values_mut()) {
            real.unchanged_s += seconds;
            real.busy = 0;
        }
    }

    /// The backend that visitors of a host reach, by the entry of that very name.
    pub fn route(&self, host: &str) -> Option<(&BackendName, &RealBackend)> {
        let (_, _, value) = self.maps.get(&Map::Hosts)?.iter().find(|(_, key, _)| key.as_str() == host)?;
        self.backends.get_key_value(value.as_str()).filter(|(_, backend)| backend.published)
    }

    /// What HAProxy changes a moment after it has answered.
    pub fn settle(&mut self) {
        for (server, address) in std::mem::take(&mut self.late) {
            if let Some(real) = self.server(&server) {
                real.server.address = address;
            }
        }
    }

    fn server(&mut self, at: &ServerRef) -> Option<&mut RealServer> {
        self.backends.get_mut(&at.backend)?.servers.get_mut(&at.server)
    }

    /// Carries a command out, or says why not.
    pub fn run(&mut self, command: &Command) -> Answer {
        match self.try_run(command) {
            Ok(()) => Answer::Done,
            Err("Server still has connections attached to it, cannot remove it.") => Answer::Deferred,
            Err(error) => Answer::Refused(error),
        }
    }

    fn try_run(&mut self, command: &Command) -> Result<(), &'static str> {
        match command {
            Command::AddBackend { .. }
            | Command::PublishBackend { .. }
            | Command::UnpublishBackend { .. }
            | Command::DelBackend { .. } => self.run_on_backend(command),
            Command::AddServer { server, address, weight, pool_keywords, .. } => {
                if *pool_keywords == self.capabilities.pools_by_default {
                    return Err("the keywords of the pool of connections are not those of this version");
                }
                let backend = self.backends.get_mut(&server.backend).ok_or("No such backend.")?;
                let new = Server {
                    address: *address,
                    admin: Admin::Maint,
                    weight: *weight,
                    making: Making::default(),
                };
                let real = RealServer { server: new, unchanged_s: 0, busy: 0, checked: false, down: false };
                match backend.servers.insert(server.server.clone(), real) {
                    None => Ok(()),
                    Some(_) => Err("Already exists a server with the same name in backend."),
                }
            }
            Command::DelServer { server } => self.del_server(server),
            Command::EnableHealth { server } => {
                self.server(server).ok_or("No such server.")?.checked = true;
                Ok(())
            }
            Command::ShutdownSessions { server } => {
                let real = self.server(server).ok_or("No such server.")?;
                assert!(real.unchanged_s >= SESSION_LIMIT_S, "sessions of {server} are cut too early");
                real.busy = 0;
                Ok(())
            }
            Command::SetServerState { server, admin } => {
                let real = self.server(server).ok_or("No such server.")?;
                // Whoever leaves maint is taken for alive.
                real.down &= real.server.admin != Admin::Maint;
                real.server.admin = *admin;
                real.unchanged_s = 0;
                Ok(())
            }
            Command::SetServerHealth { server, up } => {
                let real = self.server(server).ok_or("No such server.")?;
                if !real.checked {
                    return Err("health checks are not enabled on this server.");
                }
                real.down = !up;
                Ok(())
            }
            Command::SetServerAddress { server, address } => {
                self.server(server).ok_or("No such server.")?;
                self.late.push((server.clone(), *address));
                if !self.capabilities.add_backend {
                    self.settle();
                }
                Ok(())
            }
            Command::SetServerWeight { server, weight } => {
                self.server(server).ok_or("No such server.")?.server.weight = *weight;
                Ok(())
            }
            Command::AddMap { map, key, value } => {
                if self.entries(*map).iter().any(|(_, other, _)| other == key) {
                    return Err("the key is there already: this makes a second entry");
                }
                self.leads_somewhere(*map, value)?;
                self.push_entry(*map, key.clone(), value.clone());
                Ok(())
            }
            Command::SetMap { map, key, value } => {
                self.leads_somewhere(*map, value)?;
                let found = self.entries(*map).iter_mut().filter(|(_, other, _)| other == key);
                match found.map(|entry| entry.2 = value.clone()).count() {
                    0 => Err("entry not found."),
                    _ => Ok(()),
                }
            }
            Command::DelMap { map, key } => {
                let only_one = self.capabilities.add_backend;
                let entries = self.entries(*map);
                let first = entries.iter().position(|(_, other, _)| other == key).ok_or("Key not found.")?;
                if only_one {
                    entries.remove(first);
                } else {
                    entries.retain(|(_, other, _)| other != key);
                }
                Ok(())
            }
            Command::DelMapEntry { map, reference } => {
                let entries = self.entries(*map);
                let found = entries.iter().position(|(other, _, _)| other == reference);
                entries.remove(found.ok_or("Key not found.")?);
                Ok(())
            }
        }
    }

    fn run_on_backend(&mut self, command: &Command) -> Result<(), &'static str> {
        if !self.capabilities.add_backend {
            return Err("Unknown command.");
        }
        match command {
            Command::AddBackend { backend, .. } => {
                if self.backends.contains_key(backend) {
                    return Err("Backend name already in use.");
                }
                self.backends.insert(backend.clone(), RealBackend::default());
                Ok(())
            }
            Command::DelBackend { backend } => {
                let real = self.backends.get(backend).ok_or("No such backend.")?;
                if real.published {
                    return Err("Backend is still published.");
                }
                if !real.servers.is_empty() {
                    return Err("Backend still has servers attached to it.");
                }
                self.backends.remove(backend);
                Ok(())
            }
            Command::PublishBackend { backend } | Command::UnpublishBackend { backend } => {
                let published = matches!(command, Command::PublishBackend { .. });
                self.backends.get_mut(backend).ok_or("No such backend.")?.published = published;
                Ok(())
            }
            _ => Err("not about a backend"),
        }
    }

    fn del_server(&mut self, at: &ServerRef) -> Result<(), &'static str> {
        let prompt = self.capabilities.prompt_deletion;
        let real = self.server(at).ok_or("No such server.")?;
        if real.server.admin != Admin::Maint {
            return Err("Only servers in maintenance mode can be deleted.");
        }
        assert!(
            prompt || (real.unchanged_s >= QUARANTINE_S && real.busy == 0),
            "this HAProxy may crash: {at} is deleted {} s after it left service with {} connections",
            real.unchanged_s,
            real.busy
        );
        if real.busy > 0 {
            return Err("Server still has connections attached to it, cannot remove it.");
        }
        self.backends.get_mut(&at.backend).map(|backend| backend.servers.remove(&at.server));
        Ok(())
    }

    fn leads_somewhere(&self, map: Map, value: &MapWord) -> Result<(), &'static str> {
        if map == Map::Hosts && !self.backends.contains_key(value.as_str()) {
            return Err("the entry leads to a backend that isn't there");
        }
        Ok(())
    }

    fn entries(&mut self, map: Map) -> &mut Vec<(u64, MapWord, MapWord)> {
        self.maps.entry(map).or_default()
    }

    /// Adds an entry without asking whether the key is there: what a hand does.
    pub fn push_entry(&mut self, map: Map, key: MapWord, value: MapWord) {
        self.references += 1;
        let reference = self.references;
        self.entries(map).push((reference, key, value));
    }
}

/// What goes wrong while the first plan of a turn is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// HAProxy refuses the command of this index.
    Refuse(usize),
    /// HAProxy puts the command of this index off, if it is a deletion.
    Defer(usize),
    /// hapilot is killed after so many commands.
    Kill(usize),
}

/// Looks at HAProxy after a command.
pub type Watch<'a> = &'a mut dyn FnMut(&Haproxy, &Command);

/// An HAProxy and what hapilot remembers of it; takes turns as `reconcile` does.
#[derive(Debug)]
pub struct Model {
    /// What there really is.
    pub haproxy: Haproxy,
    /// What hapilot remembers.
    pub believed: Observed,
    /// What is remembered is to be trusted.
    pub fresh: bool,
    /// The servers that the last plan had to leave for later.
    pub waiting: BTreeSet<ServerRef>,
    pending: Scope,
    files: Files,
}

impl Model {
    /// hapilot has just met this HAProxy.
    pub fn new(haproxy: Haproxy) -> Self {
        let believed = Observed::default();
        let (waiting, pending) = (BTreeSet::new(), Scope::default());
        Self { haproxy, believed, fresh: false, waiting, pending, files: Files::new() }
    }

    /// hapilot starts again and knows nothing but the containers.
    pub fn restart(&mut self, containers: impl IntoIterator<Item = Container>) -> Desired {
        let mut desired = desired();
        desired.replace(containers.into_iter().collect());
        self.fresh = false;
        self.pending = Scope::default();
        desired
    }

    /// Plans and carries out until nothing is left to do; the plans, for those
    /// who want to see them.
    pub fn converge(&mut self, desired: &mut Desired) -> Vec<Plan> {
        let (plans, killed) = self.turn(desired, Fault::None, &mut |_, _| {});
        assert!(!killed);
        plans
    }

    /// The same with a fault and with somebody who looks at every step. True if
    /// hapilot was killed: then nothing of it may be used any more.
    pub fn turn(&mut self, desired: &mut Desired, fault: Fault, watch: Watch<'_>) -> (Vec<Plan>, bool) {
        let mut plans = Vec::new();
        for pass in 0..PASSES {
            self.look(desired);
            let plan = self.plan(desired);
            self.waiting = plan.waiting.iter().map(|waiting| waiting.server.clone()).collect();
            self.pending.add_backends(plan.waiting.iter().map(|waiting| &waiting.server.backend));
            if plan.steps.is_empty() {
                return (plans, false);
            }
            let fault = if pass == 0 { fault } else { Fault::None };
            let killed = self.carry_out(&plan, fault, watch);
            plans.push(plan);
            if killed {
                return (plans, true);
            }
        }
        panic!("no fixpoint after {PASSES} plans: {plans:#?}");
    }

    fn look(&mut self, desired: &mut Desired) {
        if self.fresh {
            self.read_health(&desired.hoping().cloned().collect());
        } else {
            self.believed = self.haproxy.observed();
            desired.adopt(&self.believed, self.haproxy.capabilities);
            self.fresh = true;
        }
    }

    fn read_health(&mut self, backends: &BTreeSet<BackendName>) {
        let seen = self.haproxy.observed().down;
        self.believed.down.retain(|at| !backends.contains(&at.backend));
        self.believed.down.extend(seen.into_iter().filter(|at| backends.contains(&at.backend)));
    }

    /// What would be sent now.
    pub fn plan(&mut self, desired: &mut Desired) -> Plan {
        let touched = desired.compute(&self.believed);
        self.pending.merge(touched.clone());
        self.files.are_up_to_date(desired.state(), touched);
        let scope = std::mem::take(&mut self.pending);
        let changes = diff(&self.believed, desired.state(), &scope);
        self.read_health(&doubtful(&changes, &self.believed));
        let ground = Ground {
            capabilities: self.haproxy.capabilities,
            check: Check::default(),
            observed: &self.believed,
            removals: &self.haproxy.removals(),
            session_limit: Duration::from_secs(SESSION_LIMIT_S.into()),
            quarantine: Duration::from_secs(QUARANTINE_S.into()),
        };
        plan(&changes, &ground)
    }

    fn carry_out(&mut self, plan: &Plan, fault: Fault, watch: Watch<'_>) -> bool {
        // What a hand did behind hapilot's back, or a fault, may make HAProxy
        // refuse; else it never does.
        let mut excused = !same(&self.believed, &self.haproxy.observed());
        let mut reread = BTreeSet::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let command = &step.command;
            if fault == Fault::Kill(index) {
                self.haproxy.settle();
                return true;
            }
            let deletion = matches!(command, Command::DelServer { .. });
            // Whether a backend is published or a check enabled can't be read
            // back: no later plan could find out that these were refused.
            let seen = !matches!(command, Command::PublishBackend { .. } | Command::EnableHealth { .. });
            let answer = match fault {
                Fault::Refuse(at) if at == index && seen => Answer::Refused("because the test says so"),
                Fault::Defer(at) if at == index && deletion => Answer::Deferred,
                _ => self.haproxy.run(command),
            };
            watch(&self.haproxy, command);
            match answer {
                Answer::Done => {
                    simulate(&mut self.believed, command);
                    if let Command::SetServerAddress { server, .. } = command {
                        reread.insert(server.backend.clone());
                    }
                }
                Answer::Deferred => {
                    excused = true;
                    self.pending.add_backends(command.backend());
                }
                Answer::Refused(why) => {
                    let injected = matches!(fault, Fault::Refuse(at) if at == index);
                    assert!(excused || injected, "`{command}` refused: {why}\n{}", text(plan));
                    excused = true;
                    self.fresh = false;
                }
            }
        }
        self.haproxy.settle();
        if !excused {
            let real = self.haproxy.observed();
            assert!(same(&self.believed, &real), "simulated {:#?}\nbut {real:#?}", self.believed);
        }
        self.pending.add_backends(&reread);
        false
    }
}

/// Equal, but for maps without entries.
pub fn same(one: &Observed, other: &Observed) -> bool {
    let strays = |observed: &Observed| observed.stray_entries.iter().copied().collect::<BTreeSet<_>>();
    plain(&one.state) == plain(&other.state) && one.pool == other.pool && strays(one) == strays(other)
}

/// The same state without maps that have no entries.
pub fn plain(state: &State) -> State {
    let mut plain = state.clone();
    plain.maps.retain(|_, entries| !entries.is_empty());
    plain
}

/// A plan as text: one line per step, and what has to wait.
pub fn text(plan: &Plan) -> String {
    let steps = plan.steps.iter().map(|step| format!("{}  # {}\n", step.command, step.reason));
    let waiting = plan.waiting.iter().map(|w| format!("({} waits: {})\n", w.server, w.reason));
    steps.chain(waiting).collect()
}

/// The plans of a turn as text; the first one is what is sent at once.
pub fn story(plans: &[Plan]) -> String {
    if plans.is_empty() {
        return "(nothing to do)\n".to_owned();
    }
    plans.iter().map(text).collect::<Vec<_>>().join("then\n")
}
