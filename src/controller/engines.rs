//! The engines, as far as the controller remembers them.
//!
//! What lives here: which of them answer, which have listed their containers,
//! whose word about a container counts, and what a report says of that. What it
//! must not know: the containers' facts, and when a turn is taken.

use std::collections::BTreeMap;

use crate::core::container::{Container, ContainerId, EngineName};
use crate::core::inventory::Inventory;
use crate::report::{Docker, EngineStatus};

/// Engines that one message names.
const NAMED: usize = 3;

/// One engine.
#[derive(Debug, Default)]
struct Engine {
    url: String,
    connected: bool,
    /// Its first list has arrived: from now on an absent container is gone.
    listed: bool,
    /// It has once told all that it has, tasks on other nodes included.
    whole: bool,
    version: Option<String>,
    error: Option<String>,
    /// Why it can't tell about the tasks on other nodes of its swarm.
    swarm: Option<String>,
}

/// All engines.
#[derive(Debug, Default)]
pub(super) struct Engines {
    engines: BTreeMap<EngineName, Engine>,
    pub(super) inventory: Inventory,
}

impl Engines {
    /// These are all, each with its address.
    pub(super) fn new(urls: &BTreeMap<EngineName, String>) -> Self {
        let engine = |url: &String| Engine { url: url.clone(), ..Engine::default() };
        let engines = urls.iter().map(|(name, url)| (name.clone(), engine(url)));
        Self { engines: engines.collect(), inventory: Inventory::default() }
    }

    pub(super) fn connected(&mut self, name: &EngineName, version: String) {
        self.inventory.connected(name);
        let engine = self.engines.entry(name.clone()).or_default();
        (engine.connected, engine.version, engine.error) = (true, Some(version), None);
    }

    /// Comes back: the facts of other engines that count from now on.
    pub(super) fn failed(
        &mut self,
        name: &EngineName,
        error: String,
        current: impl Fn(&ContainerId) -> Option<Container>,
    ) -> Vec<Container> {
        let engine = self.engines.entry(name.clone()).or_default();
        (engine.connected, engine.error) = (false, Some(error));
        self.inventory.disconnected(name, current)
    }

    pub(super) fn swarm(&mut self, name: &EngineName, error: Option<String>) {
        let engine = self.engines.entry(name.clone()).or_default();
        engine.swarm = error.map(|error| format!("the swarm's tasks on other nodes are not known: {error}"));
        engine.whole |= engine.listed && engine.swarm.is_none();
    }

    /// Its list has arrived. True if it is the first.
    pub(super) fn listed(&mut self, name: &EngineName) -> bool {
        let engine = self.engines.entry(name.clone()).or_default();
        engine.whole |= engine.swarm.is_none();
        !std::mem::replace(&mut engine.listed, true)
    }

    /// True if there is more than one.
    pub(super) fn are_several(&self) -> bool {
        self.engines.len() > 1
    }

    /// True if at least one has listed its containers.
    pub(super) fn any_listed(&self) -> bool {
        self.engines.values().any(|engine| engine.listed)
    }

    /// False as long as this one may have containers that it has never told of.
    pub(super) fn is_whole(&self, name: &EngineName) -> bool {
        self.engines.get(name).is_some_and(|engine| engine.whole)
    }

    /// False as long as one may have containers that it has never told of.
    pub(super) fn all_whole(&self) -> bool {
        self.engines.values().all(|engine| engine.whole)
    }

    /// What is not known because of them; nothing of those that don't answer.
    pub(super) fn doubts(&self) -> Vec<String> {
        let unlisted = self.named(|engine| engine.connected && !engine.listed);
        let nothing = !self.any_listed();
        let unlisted = match (unlisted, nothing) {
            (_, true) => Some("Docker has not listed its containers yet".to_owned()),
            (Some(names), false) => Some(format!("{names} has not listed its containers yet")),
            (None, false) => None,
        };
        let swarm = |(name, engine): (&EngineName, &Engine)| {
            let error = engine.swarm.as_ref()?;
            Some(if self.are_several() { format!("engine {name}: {error}") } else { error.clone() })
        };
        unlisted.into_iter().chain(self.engines.iter().filter_map(swarm).take(NAMED)).collect()
    }

    /// All as if they were one: connected if every one is.
    pub(super) fn summary(&self) -> Docker {
        let first = self.engines.values().find(|engine| !engine.connected);
        let error = first.map(|engine| engine.error.clone());
        let error = match (error, self.are_several()) {
            (Some(error), true) => {
                let names = self.named(|engine| !engine.connected).unwrap_or_default();
                let away = self.engines.values().filter(|engine| !engine.connected).count();
                let why = error.map(|error| format!(": {error}")).unwrap_or_default();
                Some(format!("{away} of {} engines ({names}){why}", self.engines.len()))
            }
            (error, _) => error.flatten(),
        };
        let swarm = || self.engines.values().find_map(|engine| engine.swarm.clone());
        Docker {
            connected: first.is_none(),
            engine_version: self.engines.values().find_map(|engine| engine.version.clone()),
            error: error.or_else(swarm),
        }
    }

    /// Each of them.
    pub(super) fn status(&self) -> Vec<EngineStatus> {
        let sizes = self.inventory.sizes();
        let say = |(name, engine): (&EngineName, &Engine)| EngineStatus {
            name: name.to_string(),
            url: engine.url.clone(),
            connected: engine.connected,
            listed: engine.listed,
            engine_version: engine.version.clone(),
            error: engine.error.clone().or_else(|| engine.swarm.clone()),
            containers: sizes.get(name).copied().unwrap_or_default(),
        };
        self.engines.iter().map(say).collect()
    }

    /// The names of some of those that are meant.
    fn named(&self, which: impl Fn(&Engine) -> bool) -> Option<String> {
        let names: Vec<&str> =
            self.engines.iter().filter(|(_, engine)| which(engine)).map(|(name, _)| name.as_str()).collect();
        let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        match names.len().checked_sub(NAMED) {
            _ if names.is_empty() => None,
            None | Some(0) => Some(shown),
            Some(more) => Some(format!("{shown} and {more} more")),
        }
    }
}
