//! The containers of all engines: whose word counts.
//!
//! What lives here: which engine tells of which container, and the rule where
//! several tell of one. What it must not know: how an engine is asked, and what
//! follows from a container's facts.
//!
//! One container is told twice if an engine is listed twice, or by its own engine
//! and by managers of its swarm. Then, whoever told it first, the word of one
//! engine counts: of those that are connected, else of all, the one that is
//! nearest to it, and the first in the order of their names. Another one that says
//! that it has ended is believed if the one that counts is away. Its own engine is
//! always believed: a manager elsewhere learns of it later.

use std::collections::{BTreeMap, BTreeSet};

use super::container::{Container, ContainerId, EngineName, Nearness};

/// Who tells what.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Engines that are connected.
    connected: BTreeSet<EngineName>,
    /// Whose word counts.
    counted: BTreeMap<ContainerId, Teller>,
    /// What others say of the same containers.
    spare: BTreeMap<ContainerId, BTreeMap<EngineName, Container>>,
    /// Containers that have ended by the word of their own engines, and the
    /// managers that have not noticed yet.
    over: BTreeMap<ContainerId, BTreeSet<EngineName>>,
}

/// Who tells of a container.
#[derive(Debug, Clone)]
struct Teller {
    engine: EngineName,
    nearness: Nearness,
}

impl Teller {
    fn of(container: &Container) -> Self {
        Self { engine: container.engine.clone(), nearness: container.nearness }
    }
}

/// What the end of a container on one engine means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// It is gone.
    Gone,
    /// Another engine's word counts now; these are its facts.
    Instead(Box<Container>),
    /// Nothing: its word did not count.
    Unheard,
}

impl Inventory {
    /// The engine is connected (again).
    pub fn connected(&mut self, engine: &EngineName) {
        self.connected.insert(engine.clone());
    }

    /// The engine is away. Comes back: facts of others that count from now on.
    /// `current` are the facts in force.
    pub fn disconnected(
        &mut self,
        engine: &EngineName,
        current: impl Fn(&ContainerId) -> Option<Container>,
    ) -> Vec<Container> {
        self.connected.remove(engine);
        let told = |id: &&ContainerId| self.counts(engine, id);
        let ids: Vec<ContainerId> = self.spare.keys().filter(told).cloned().collect();
        ids.into_iter().filter_map(|id| self.pass_on(&id, current(&id))).collect()
    }

    /// An engine (it stands in them) tells these facts. They come back if they
    /// count. `current` are the facts in force.
    pub fn told(
        &mut self,
        container: Container,
        current: impl FnOnce(&ContainerId) -> Option<Container>,
    ) -> Option<Container> {
        let (id, teller) = (container.id.clone(), Teller::of(&container));
        if teller.nearness == Nearness::Elsewhere {
            if self.over.get(&id).is_some_and(|late| late.contains(&teller.engine)) {
                return None;
            }
        } else {
            self.over.remove(&id);
        }
        match self.counted.get(&id) {
            None => {}
            Some(counted) if counted.engine == teller.engine => {
                let better = self.best_spare(&id).filter(|spare| self.rank(spare) < self.rank(&teller));
                if let Some(better) = better {
                    let spare = self.spare.entry(id.clone()).or_default();
                    let instead = spare.remove(&better.engine);
                    spare.insert(teller.engine, container);
                    self.counted.insert(id, better);
                    return instead;
                }
            }
            Some(counted) if self.rank(counted) < self.rank(&teller) => {
                self.spare.entry(id).or_default().insert(teller.engine, container);
                return None;
            }
            Some(_) => {
                let before = current(&id).filter(|before| before.engine != teller.engine);
                let spare = self.spare.entry(id.clone()).or_default();
                spare.remove(&teller.engine);
                spare.extend(before.map(|before| (before.engine.clone(), before)));
            }
        }
        self.counted.insert(id, teller);
        Some(container)
    }

    /// An engine lists a container and can't tell about it. True if that is all
    /// that anybody knows of it, or if the engine's word counts.
    pub fn unreadable(&mut self, engine: &EngineName, id: &ContainerId) -> bool {
        let new = || Teller { engine: engine.clone(), nearness: Nearness::default() };
        self.counted.entry(id.clone()).or_insert_with(new).engine == *engine
    }

    /// True if this engine's word about the container counts.
    #[must_use]
    pub fn counts(&self, engine: &EngineName, id: &ContainerId) -> bool {
        self.counted.get(id).is_some_and(|counted| counted.engine == *engine)
    }

    /// An engine says that the container runs no more.
    pub fn ended(&mut self, engine: &EngineName, id: &ContainerId) -> End {
        if let Some(late) = self.over.get_mut(id) {
            late.remove(engine);
            if late.is_empty() {
                self.over.remove(id);
            }
        }
        let counted = self.counted.get(id).cloned();
        let spare = self.spare.get(id).and_then(|spare| spare.get(engine)).map(Teller::of);
        let teller = counted.clone().filter(|counted| counted.engine == *engine).or(spare);
        let certain = teller.is_some_and(|teller| teller.nearness != Nearness::Elsewhere);
        let mut late = BTreeSet::new();
        if let Some(spare) = self.spare.get_mut(id) {
            // Who is away said what it said before this.
            spare.retain(|other, _| other != engine && self.connected.contains(other));
            let is_late = |word: &Container| certain && word.nearness == Nearness::Elsewhere;
            late.extend(spare.iter().filter(|(_, word)| is_late(word)).map(|(other, _)| other.clone()));
            spare.retain(|_, word| !is_late(word));
        }
        let unheard = match counted {
            Some(counted) if counted.engine == *engine || !self.connected.contains(&counted.engine) => false,
            Some(counted) if certain && counted.nearness == Nearness::Elsewhere => {
                late.insert(counted.engine);
                false
            }
            _ => true,
        };
        if !late.is_empty() {
            self.over.entry(id.clone()).or_default().extend(late);
        }
        let best = self.best_spare(id).filter(|_| !unheard);
        let instead = best.as_ref().and_then(|best| self.spare.get_mut(id)?.remove(&best.engine));
        self.forget_empty(id);
        if unheard {
            return End::Unheard;
        }
        let Some(container) = instead else {
            self.counted.remove(id);
            return End::Gone;
        };
        self.counted.insert(id.clone(), Teller::of(&container));
        End::Instead(container.into())
    }

    /// Of all that an engine told, those that are not in its new list.
    #[must_use]
    pub fn missing(&self, engine: &EngineName, listed: &BTreeSet<ContainerId>) -> Vec<ContainerId> {
        let counted = self.counted.iter().filter(|(_, counted)| counted.engine == *engine).map(|(id, _)| id);
        let spare = self.spare.iter().filter(|(_, spare)| spare.contains_key(engine)).map(|(id, _)| id);
        let over = self.over.iter().filter(|(_, late)| late.contains(engine)).map(|(id, _)| id);
        counted.chain(spare).chain(over).filter(|id| !listed.contains(*id)).cloned().collect()
    }

    /// How many containers each engine's word counts for.
    #[must_use]
    pub fn sizes(&self) -> BTreeMap<&EngineName, usize> {
        let mut sizes = BTreeMap::new();
        for counted in self.counted.values() {
            *sizes.entry(&counted.engine).or_default() += 1;
        }
        sizes
    }

    /// Another engine's word counts from now on, if one that is connected has any;
    /// what was in force is kept as spare.
    fn pass_on(&mut self, id: &ContainerId, before: Option<Container>) -> Option<Container> {
        let best = self.best_spare(id).filter(|best| self.connected.contains(&best.engine))?;
        let spare = self.spare.get_mut(id)?;
        let container = spare.remove(&best.engine)?;
        spare.extend(before.map(|before| (before.engine.clone(), before)));
        self.forget_empty(id);
        self.counted.insert(id.clone(), best);
        Some(container)
    }

    fn forget_empty(&mut self, id: &ContainerId) {
        if self.spare.get(id).is_some_and(BTreeMap::is_empty) {
            self.spare.remove(id);
        }
    }

    /// Whose word counts after the one that counts now.
    fn best_spare(&self, id: &ContainerId) -> Option<Teller> {
        let tellers = self.spare.get(id)?.values().map(Teller::of);
        tellers.min_by(|one, other| self.rank(one).cmp(&self.rank(other)))
    }

    /// The least counts.
    fn rank<'a>(&self, teller: &'a Teller) -> (bool, Nearness, &'a EngineName) {
        (!self.connected.contains(&teller.engine), teller.nearness, &teller.engine)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn engine(name: &str) -> EngineName {
        EngineName::new(name).unwrap()
    }

    fn id() -> ContainerId {
        ContainerId::new(&"a".repeat(64)).unwrap()
    }

    fn told_by(name: &str) -> Container {
        Container::running(id(), &format!("told-by-{name}")).of_engine(&engine(name))
    }

    /// An inventory, and what is in force as whoever follows it believes.
    #[derive(Default)]
    struct Scene {
        inventory: Inventory,
        in_force: BTreeMap<ContainerId, Container>,
    }

    impl Scene {
        fn connect(&mut self, names: &[&str]) {
            for name in names {
                self.inventory.connected(&engine(name));
            }
        }

        fn tell(&mut self, name: &str) {
            self.tell_as(name, Nearness::Here);
        }

        fn tell_as(&mut self, name: &str, nearness: Nearness) {
            let current = self.in_force.clone();
            let container = Container { nearness, ..told_by(name) };
            let told = self.inventory.told(container, |id| current.get(id).cloned());
            self.in_force.extend(told.map(|container| (container.id.clone(), container)));
        }

        fn lose(&mut self, name: &str) {
            let current = self.in_force.clone();
            let instead = self.inventory.disconnected(&engine(name), |id| current.get(id).cloned());
            self.in_force.extend(instead.into_iter().map(|container| (container.id.clone(), container)));
        }

        fn end(&mut self, name: &str) {
            match self.inventory.ended(&engine(name), &id()) {
                End::Gone => drop(self.in_force.remove(&id())),
                End::Instead(container) => drop(self.in_force.insert(container.id.clone(), *container)),
                End::Unheard => {}
            }
        }

        fn whose(&self) -> &str {
            self.in_force.get(&id()).map_or("nobody", |container| container.engine.as_str())
        }
    }

    #[test]
    fn the_first_name_counts_whoever_was_first() {
        for order in [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]] {
            let mut scene = Scene::default();
            scene.connect(&["a", "b", "c"]);
            for name in order {
                scene.tell(name);
            }
            assert_eq!(scene.whose(), "a", "{order:?}");
            scene.end("b");
            assert_eq!(scene.whose(), "a");
            scene.end("a");
            assert_eq!(scene.whose(), "c");
            scene.end("c");
            assert_eq!(scene.whose(), "nobody");
            assert!(scene.inventory.spare.is_empty() && scene.inventory.counted.is_empty());
        }
    }

    #[test]
    fn who_is_away_counts_after_all_others_and_again_when_it_is_back() {
        let mut scene = Scene::default();
        scene.connect(&["a", "b"]);
        scene.tell("a");
        scene.tell("b");
        scene.lose("a");
        assert_eq!(scene.whose(), "b");
        scene.connect(&["a"]);
        assert_eq!(scene.whose(), "b", "it has told nothing new yet");
        scene.tell("a");
        assert_eq!(scene.whose(), "a");
        // Both away: what was known last stays.
        scene.lose("a");
        scene.lose("b");
        assert_eq!(scene.whose(), "b");
    }

    #[test]
    fn what_ended_while_an_engine_was_away_does_not_come_back_by_its_old_word() {
        let mut scene = Scene::default();
        scene.connect(&["a", "b"]);
        scene.tell("a");
        scene.tell("b");
        scene.lose("a");
        scene.end("b");
        assert_eq!(scene.whose(), "nobody");
        // The same if the one that is away is the only one that counts.
        scene.connect(&["a"]);
        scene.tell("a");
        scene.lose("a");
        assert_eq!(scene.whose(), "a", "an only engine's containers stay while it is away");
        scene.tell("b");
        assert_eq!(scene.whose(), "b");
        scene.end("b");
        assert_eq!(scene.whose(), "nobody");
    }

    #[test]
    fn the_engine_that_a_container_runs_on_counts_before_a_manager_elsewhere() {
        for order in [["a", "z"], ["z", "a"]] {
            let mut scene = Scene::default();
            scene.connect(&["a", "z"]);
            for name in order {
                scene.tell_as(name, if name == "z" { Nearness::Here } else { Nearness::Elsewhere });
            }
            assert_eq!(scene.whose(), "z", "{order:?}");
            scene.end("a");
            assert_eq!(scene.whose(), "z");
        }
        // A worker doesn't know what its service says.
        let mut scene = Scene::default();
        scene.connect(&["a", "m"]);
        scene.tell_as("a", Nearness::Worker);
        scene.tell_as("m", Nearness::Elsewhere);
        assert_eq!(scene.whose(), "m");
        scene.tell_as("a", Nearness::Here);
        assert_eq!(scene.whose(), "a", "it has become a manager");
        scene.tell_as("a", Nearness::Worker);
        assert_eq!(scene.whose(), "m", "it is none any more");
    }

    #[test]
    fn its_own_engine_knows_best_that_a_container_has_ended() {
        for own in [Nearness::Here, Nearness::Worker] {
            let mut scene = Scene::default();
            scene.connect(&["a", "m"]);
            scene.tell_as("a", own);
            scene.tell_as("m", Nearness::Elsewhere);
            scene.end("a");
            assert_eq!(scene.whose(), "nobody", "{own:?}");
            // The manager has not noticed yet.
            scene.tell_as("m", Nearness::Elsewhere);
            assert_eq!(scene.whose(), "nobody");
            assert_eq!(scene.inventory.missing(&engine("m"), &BTreeSet::new()), [id()]);
            scene.end("m");
            assert!(scene.inventory.over.is_empty() && scene.inventory.counted.is_empty());
            // It is started again.
            scene.tell_as("a", own);
            assert_eq!(scene.whose(), "a");
        }
    }

    #[test]
    fn a_list_shows_what_is_missing() {
        let mut scene = Scene::default();
        scene.connect(&["a", "b"]);
        scene.tell("a");
        scene.tell("b");
        for name in ["a", "b"] {
            assert_eq!(scene.inventory.missing(&engine(name), &BTreeSet::new()), [id()]);
            assert_eq!(scene.inventory.missing(&engine(name), &[id()].into()), []);
        }
        assert_eq!(scene.inventory.missing(&engine("c"), &BTreeSet::new()), []);
        assert_eq!(scene.inventory.sizes(), BTreeMap::from([(&engine("a"), 1)]));
    }

    #[test]
    fn one_that_nobody_can_read_is_remembered() {
        let mut scene = Scene::default();
        scene.connect(&["a", "b"]);
        assert!(scene.inventory.unreadable(&engine("b"), &id()));
        assert!(!scene.inventory.unreadable(&engine("a"), &id()), "b told of it");
        scene.tell("a");
        assert_eq!(scene.whose(), "a", "facts are better than none");
        scene.end("a");
        assert_eq!(scene.whose(), "nobody");
    }
}
