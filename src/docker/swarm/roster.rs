//! Who is in the swarm, and what is to be told of it.
//!
//! What lives here: services, nodes and tasks as they were last seen, the
//! service's part in the facts of a container, and what follows from each
//! answer of a manager. What it must not know: sockets, and when a manager is
//! asked.
//!
//! Containers on the manager's own node are told by its engine, as any others
//! are; what is added to them is what their service says ([`Roster::dress`]) and
//! that their task is to end. The rest of the tasks are told from here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use super::answer::{Node, Read, Service, Stage, SwarmId, Task, Wish};
use crate::core::container::{Container, ContainerId, Nearness};

/// The label by which an engine marks the container of a service.
pub(in crate::docker) const SERVICE_MARK: &str = "com.docker.swarm.service.id";
/// The label by which an engine marks the container of a task.
pub(in crate::docker) const TASK_MARK: &str = "com.docker.swarm.task.id";

/// What is new about the containers of tasks.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Their facts now.
    pub(super) changed: Vec<Container>,
    /// Those that no longer run.
    pub(super) gone: Vec<ContainerId>,
}

impl News {
    /// True if there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.gone.is_empty()
    }
}

/// A task on another node that was told, because it runs.
#[derive(Debug)]
struct Elsewhere {
    task: Task,
    told: Container,
}

/// A container on this node that belongs to a task.
#[derive(Debug)]
struct Here {
    /// As its engine tells them.
    facts: Container,
    service: SwarmId,
    task: SwarmId,
    wish: Wish,
    /// When it was first told.
    since: Instant,
    told: Container,
}

/// What is known of a swarm.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// The manager's own node; `None` if the engine is no manager.
    node: Option<SwarmId>,
    services: HashMap<SwarmId, Service>,
    nodes: HashMap<SwarmId, Node>,
    elsewhere: BTreeMap<SwarmId, Elsewhere>,
    here: HashMap<ContainerId, Here>,
    /// Tasks that are not among those which are to run any more.
    missing: BTreeSet<SwarmId>,
    /// Of all tasks in the last list.
    seen: u64,
}

impl Roster {
    /// The engine manages a swarm as this node.
    pub(super) fn manages(&mut self, node: &SwarmId) {
        self.node = Some(node.clone());
    }

    /// The engine manages no swarm (any more): nothing is known of one.
    pub(super) fn leave(&mut self) -> News {
        let mut news = News::default();
        news.gone.extend(self.elsewhere.values().map(|task| task.told.id.clone()));
        let here = std::mem::take(&mut self.here);
        *self = Self { here, ..Self::default() };
        self.redress(&mut news, |_| true);
        news
    }

    /// True if the engine manages a swarm.
    pub(super) fn is_manager(&self) -> bool {
        self.node.is_some()
    }

    /// True if no other node is there.
    pub(super) fn is_alone(&self) -> bool {
        !self.nodes.values().any(|node| !node.down && Some(&node.id) != self.node.as_ref())
    }

    /// True if this container's service has not been read yet.
    pub(super) fn lacks_service_of(&self, container: &Container) -> bool {
        let service = container.labels.get(SERVICE_MARK).and_then(|text| SwarmId::new(text));
        service.is_some_and(|service| !self.services.contains_key(&service))
    }

    /// True if there are tasks to ask for.
    pub(super) fn has_tasks(&self) -> bool {
        !self.elsewhere.is_empty() || self.services.values().any(|service| service.speaks)
    }

    /// The services whose tasks are served, or may be.
    pub(super) fn speaking(&self) -> impl Iterator<Item = &SwarmId> {
        let speaking = self.services.values().filter(|service| service.speaks && !service.ended);
        speaking.map(|service| &service.id)
    }

    fn speaks(&self, service: &SwarmId) -> bool {
        self.services.get(service).is_some_and(|service| service.speaks)
    }

    /// The tasks that are to be asked for one by one.
    pub(super) fn missing(&self) -> &BTreeSet<SwarmId> {
        &self.missing
    }

    /// The containers of all tasks on other nodes that run.
    pub(super) fn all_elsewhere(&self) -> impl Iterator<Item = &Container> {
        self.elsewhere.values().map(|task| &task.told)
    }

    /// Takes the facts of a container on this node and adds what Swarm knows of
    /// it. The marks don't stay: only the engine and Swarm understand them. True
    /// if there were any.
    pub(super) fn dress(&mut self, container: &mut Container, now: Instant) -> bool {
        let mut mark = |key| container.labels.remove(key).and_then(|text| SwarmId::new(&text));
        let (service, task) = (mark(SERVICE_MARK), mark(TASK_MARK));
        let (Some(service), Some(task)) = (service, task) else {
            self.here.remove(&container.id);
            return false;
        };
        let before = self.here.remove(&container.id);
        let since = before.as_ref().map_or(now, |here| here.since);
        // A new process is a new matter only if it is a new task's.
        let wish = before.filter(|here| here.task == task).map_or(Wish::Run, |here| here.wish);
        let facts = container.clone();
        self.wear(container, &service, wish);
        let here = Here { facts, service, task, wish, since, told: container.clone() };
        self.here.insert(container.id.clone(), here);
        true
    }

    /// A container on this node was told to end.
    pub(super) fn stopping(&mut self, id: &ContainerId) {
        if let Some(here) = self.here.get_mut(id) {
            here.facts.stopping = true;
            here.told.stopping = true;
        }
    }

    /// A container on this node no longer runs.
    pub(super) fn gone(&mut self, id: &ContainerId) {
        self.here.remove(id);
    }

    /// Of those on this node only these run.
    pub(super) fn retain_here(&mut self, runs: impl Fn(&ContainerId) -> bool) {
        self.here.retain(|id, _| runs(id));
    }

    /// These are all services, but for the unreadable ones, which stay as they
    /// were.
    pub(super) fn take_services(&mut self, services: Read<Service>) -> News {
        let Read { all: services, unreadable } = services;
        let mut before = std::mem::take(&mut self.services);
        let kept = unreadable.into_iter().filter_map(|id| before.remove_entry(&id)).collect::<Vec<_>>();
        self.services.extend(kept);
        let mut changed = HashSet::new();
        for service in services {
            if before.remove(&service.id).as_ref() != Some(&service) {
                changed.insert(service.id.clone());
            }
            self.services.insert(service.id.clone(), service);
        }
        // What was said by a service that is gone holds for its tasks until they
        // are gone too; it has no new ones.
        let used = |id: &SwarmId| {
            self.elsewhere.values().any(|task| task.task.service == *id)
                || self.here.values().any(|here| here.service == *id)
        };
        let ended = before.into_iter().filter(|(id, _)| used(id));
        let ended: Vec<_> = ended.map(|(id, service)| (id, Service { ended: true, ..service })).collect();
        self.services.extend(ended);
        let mut news = News::default();
        self.redress(&mut news, |service| changed.contains(service));
        let tasks = self.elsewhere.values().map(|elsewhere| &elsewhere.task);
        let silent = tasks.filter(|task| changed.contains(&task.service) && !self.speaks(&task.service));
        for id in silent.map(|task| task.id.clone()).collect::<Vec<_>>() {
            self.drop_task(&id, &mut news);
        }
        news
    }

    /// These are all nodes, but for the unreadable ones, which stay as they were.
    pub(super) fn take_nodes(&mut self, nodes: Read<Node>) -> News {
        self.nodes.retain(|id, _| nodes.unreadable.contains(id));
        self.nodes.extend(nodes.all.into_iter().map(|node| (node.id.clone(), node)));
        let mut news = News::default();
        let tasks = self.elsewhere.values().map(|elsewhere| &elsewhere.task);
        let lost = tasks.filter(|task| self.is_lost(task)).map(|task| task.id.clone());
        for id in lost.collect::<Vec<_>>() {
            self.drop_task(&id, &mut news);
        }
        news
    }

    /// These are all tasks that are to run, of the services that speak, but for
    /// the unreadable ones, which stay as they were. The list was asked for at
    /// `asked`. True if it differs from the one before.
    pub(super) fn take_tasks(&mut self, tasks: Read<Task>, asked: Instant) -> (News, bool) {
        let mut news = News::default();
        let mut missing: BTreeSet<SwarmId> = self.elsewhere.keys().cloned().collect();
        let unfinished = self.here.values().filter(|here| here.wish == Wish::Run && here.since < asked);
        let unfinished = unfinished.filter(|here| self.speaks(&here.service));
        missing.extend(unfinished.map(|here| here.task.clone()));
        missing.retain(|id| !tasks.unreadable.contains(id));
        let own = self.own_tasks();
        let mut seen = 0_u64;
        for task in tasks.all {
            let mut hasher = DefaultHasher::new();
            (&task.id, task.stage, &task.node).hash(&mut hasher);
            // Whatever their order.
            seen = seen.wrapping_add(hasher.finish());
            missing.remove(&task.id);
            self.take_task(task, &own, &mut news);
        }
        self.missing = missing;
        (news, std::mem::replace(&mut self.seen, seen) != seen)
    }

    /// These are what was found of the tasks that were [`Self::missing`].
    pub(super) fn take_missing(&mut self, tasks: Read<Task>) -> News {
        let mut news = News::default();
        let own = self.own_tasks();
        let mut missing = std::mem::take(&mut self.missing);
        missing.retain(|id| !tasks.unreadable.contains(id));
        for task in tasks.all {
            if missing.remove(&task.id) {
                self.take_task(task, &own, &mut news);
            }
        }
        // Swarm strikes out a task when it has ended.
        for id in missing {
            self.drop_task(&id, &mut news);
            // When its container ends is the engine's to tell. It is not asked for
            // again: anybody can write the mark of any task on a container.
            if let Some(here) = own.get(&id).and_then(|container| self.here.get_mut(container)) {
                here.wish = Wish::Complete;
            }
        }
        news
    }

    /// The containers on this node by their tasks.
    fn own_tasks(&self) -> HashMap<SwarmId, ContainerId> {
        self.here.iter().map(|(container, here)| (here.task.clone(), container.clone())).collect()
    }

    fn take_task(&mut self, task: Task, own: &HashMap<SwarmId, ContainerId>, news: &mut News) {
        if self.node.is_some() && task.node == self.node {
            if let Some(here) = own.get(&task.id).and_then(|container| self.here.get_mut(container)) {
                here.wish = task.wish;
                if task.wish == Wish::End && !here.told.stopping {
                    here.told.stopping = true;
                    news.changed.push(here.told.clone());
                }
            }
            return;
        }
        // Nobody can tell any more how it goes on there, and Swarm has given it up.
        if task.stage != Stage::Running || self.is_lost(&task) {
            self.drop_task(&task.id, news);
            return;
        }
        if !self.speaks(&task.service) && !self.elsewhere.contains_key(&task.id) {
            return;
        }
        let mut told = task.container.clone();
        self.wear_task(&mut told, &task);
        let before = self.elsewhere.get(&task.id);
        if before.is_some_and(|before| before.told.id != told.id) {
            self.drop_task(&task.id, news);
        }
        if self.elsewhere.get(&task.id).is_none_or(|before| before.told != told) {
            news.changed.push(told.clone());
        }
        self.elsewhere.insert(task.id.clone(), Elsewhere { task, told });
    }

    fn is_lost(&self, task: &Task) -> bool {
        let node = task.node.as_ref().and_then(|id| self.nodes.get(id));
        task.wish == Wish::End && node.is_some_and(|node| node.down)
    }

    fn drop_task(&mut self, id: &SwarmId, news: &mut News) {
        if let Some(dropped) = self.elsewhere.remove(id) {
            news.gone.push(dropped.told.id);
        }
    }

    /// Tells of all whose facts are others by what their service says now.
    fn redress(&mut self, news: &mut News, concerned: impl Fn(&SwarmId) -> bool) {
        let mut here = std::mem::take(&mut self.here);
        for here in here.values_mut().filter(|here| concerned(&here.service)) {
            let mut told = here.facts.clone();
            self.wear(&mut told, &here.service, here.wish);
            if here.told != told {
                here.told = told;
                news.changed.push(here.told.clone());
            }
        }
        self.here = here;
        let mut elsewhere = std::mem::take(&mut self.elsewhere);
        for task in elsewhere.values_mut().filter(|task| concerned(&task.task.service)) {
            let mut told = task.task.container.clone();
            self.wear_task(&mut told, &task.task);
            if task.told != told {
                task.told = told;
                news.changed.push(task.told.clone());
            }
        }
        self.elsewhere = elsewhere;
    }

    /// What a container says itself counts before what its service says.
    fn wear(&self, container: &mut Container, service: &SwarmId, wish: Wish) {
        container.stopping |= wish == Wish::End;
        container.nearness = Nearness::Worker;
        let Some(service) = self.services.get(service) else { return };
        container.nearness = Nearness::Here;
        let own = std::mem::take(&mut container.labels);
        container.labels = service.labels.clone().into_iter().chain(own).collect();
    }

    fn wear_task(&self, container: &mut Container, task: &Task) {
        self.wear(container, &task.service, task.wish);
        container.nearness = Nearness::Elsewhere;
        if let Some(service) = self.services.get(&task.service) {
            container.name = format!("{}.{}", service.name, container.name).into();
            container.exposed_ports.clone_from(&service.ports);
        }
        // Without its node's address nobody knows where its ports are published.
        let node = task.node.as_ref().and_then(|id| self.nodes.get(id)).and_then(|node| node.address);
        match node {
            Some(host) => container.published.iter_mut().for_each(|port| port.host = host),
            None => container.published = Box::default(),
        }
    }
}
