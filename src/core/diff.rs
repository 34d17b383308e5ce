//! Observed against desired → changes, in no particular order.
//!
//! What lives here: the comparison. What it must not know: in which order and
//! by which commands a change is made (`plan`).

use std::collections::BTreeSet;

use super::command::ServerRef;
use super::desired::Scope;
use super::name::{BackendName, MapWord};
use super::state::{Backend, Map, Observed, Server, State};

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// HAProxy lacks a backend (or a backend of the pool comes into use).
    AddBackend(BackendName),
    /// HAProxy has a backend that nobody asks for.
    RemoveBackend(BackendName),
    /// HAProxy lacks a server.
    AddServer(ServerRef, Server),
    /// HAProxy has a server that nobody asks for.
    RemoveServer(ServerRef, Server),
    /// A server differs.
    ChangeServer {
        /// Which one.
        server: ServerRef,
        /// As it is.
        from: Server,
        /// As it should be.
        to: Server,
    },
    /// A map lacks a key.
    AddEntry(Map, MapWord, MapWord),
    /// A key leads to another value.
    ChangeEntry(Map, MapWord, MapWord),
    /// A map has a key that nobody asks for.
    RemoveEntry(Map, MapWord),
    /// A map has an entry that can't be addressed by its key.
    RemoveStray(Map, u64),
}

/// Compares the part that `scope` names.
#[must_use]
pub fn diff(observed: &Observed, desired: &State, scope: &Scope) -> Vec<Change> {
    let mut changes = Vec::new();
    changes
        .extend(observed.stray_entries.iter().map(|&(map, reference)| Change::RemoveStray(map, reference)));
    match scope {
        Scope::All => {
            let names: BTreeSet<_> =
                observed.state.backends.keys().chain(desired.backends.keys()).cloned().collect();
            for name in &names {
                diff_backend(name, &observed.state, desired, &mut changes);
            }
            for map in Map::ALL {
                let keys = [&observed.state, desired].into_iter().filter_map(|state| state.maps.get(&map));
                let keys: BTreeSet<_> = keys.flat_map(|entries| entries.keys()).cloned().collect();
                for key in &keys {
                    diff_entry(map, key, &observed.state, desired, &mut changes);
                }
            }
        }
        Scope::Some { backends, hosts } => {
            for name in backends {
                diff_backend(name, &observed.state, desired, &mut changes);
                for map in [Map::Checks, Map::Sticky, Map::Names] {
                    diff_entry(map, &MapWord::from(name), &observed.state, desired, &mut changes);
                }
            }
            for host in hosts {
                diff_entry(Map::Hosts, host, &observed.state, desired, &mut changes);
            }
        }
    }
    changes
}

fn diff_backend(name: &BackendName, observed: &State, desired: &State, changes: &mut Vec<Change>) {
    let none = Backend::default();
    let (before, after) = (observed.backends.get(name), desired.backends.get(name));
    if before.is_none() && after.is_some() {
        changes.push(Change::AddBackend(name.clone()));
    }
    let servers = &after.unwrap_or(&none).servers;
    let present = &before.unwrap_or(&none).servers;
    let at = |server| ServerRef { backend: name.clone(), server };
    for (server, from) in present {
        match servers.get(server) {
            None => changes.push(Change::RemoveServer(at(server.clone()), from.clone())),
            Some(to) if to != from => changes.push(Change::ChangeServer {
                server: at(server.clone()),
                from: from.clone(),
                to: to.clone(),
            }),
            Some(_) => {}
        }
    }
    for (server, to) in servers {
        if !present.contains_key(server) {
            changes.push(Change::AddServer(at(server.clone()), to.clone()));
        }
    }
    if before.is_some() && after.is_none() {
        changes.push(Change::RemoveBackend(name.clone()));
    }
}

fn diff_entry(map: Map, key: &MapWord, observed: &State, desired: &State, changes: &mut Vec<Change>) {
    let after = desired.map_value(map, key.as_str());
    match (observed.map_value(map, key.as_str()), after) {
        (None, Some(value)) => changes.push(Change::AddEntry(map, key.clone(), value.clone())),
        (Some(before), Some(value)) if before != value => {
            changes.push(Change::ChangeEntry(map, key.clone(), value.clone()));
        }
        (Some(_), None) => changes.push(Change::RemoveEntry(map, key.clone())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::name::ServerName;
    use crate::core::state::{Admin, Making};

    fn word(text: &str) -> MapWord {
        MapWord::new(text).unwrap()
    }

    fn name(text: &str) -> BackendName {
        BackendName::new(text).unwrap()
    }

    /// Two backends with a server each, and a host for each of them.
    fn state(last: u8) -> State {
        let mut state = State::default();
        for host in ["a", "b"] {
            let server = Server {
                address: ([127, 0, 0, last], 80).into(),
                admin: Admin::Ready,
                weight: 1,
                making: Making::default(),
            };
            let backend = state.backends.entry(name(host)).or_default();
            backend.servers.insert(ServerName::new("s-1").unwrap(), server);
            state.maps.entry(Map::Hosts).or_default().insert(word(host), word(host));
            state.maps.entry(Map::Names).or_default().insert(word(host), word(host));
        }
        state
    }

    fn observed(state: State) -> Observed {
        Observed { state, ..Observed::default() }
    }

    #[test]
    fn equal_sides_differ_in_nothing() {
        assert_eq!(diff(&observed(state(1)), &state(1), &Scope::All), []);
    }

    #[test]
    fn everything_is_added_and_everything_is_removed() {
        let added = diff(&Observed::default(), &state(1), &Scope::All);
        let removed = diff(&observed(state(1)), &State::default(), &Scope::All);
        assert_eq!((added.len(), removed.len()), (8, 8));
        assert!(added.contains(&Change::AddBackend(name("a"))));
        assert!(removed.contains(&Change::RemoveEntry(Map::Hosts, word("b"))));
    }

    #[test]
    fn a_scope_sees_nothing_beside_it() {
        let scope = Scope::Some { backends: [name("a")].into(), hosts: [word("b")].into() };
        let changes = diff(&Observed::default(), &state(1), &scope);
        let server = |change: &Change| match change {
            Change::AddServer(at, _) => Some(at.backend.clone()),
            _ => None,
        };
        assert_eq!(changes.iter().filter_map(server).collect::<Vec<_>>(), [name("a")]);
        assert!(changes.contains(&Change::AddEntry(Map::Names, word("a"), word("a"))));
        assert!(changes.contains(&Change::AddEntry(Map::Hosts, word("b"), word("b"))));
        assert_eq!(changes.len(), 4);
    }

    #[test]
    fn a_server_that_differs_is_changed_and_not_replaced() {
        let changes = diff(&observed(state(1)), &state(2), &Scope::All);
        assert_eq!(changes.len(), 2);
        assert!(changes.iter().all(|change| matches!(change, Change::ChangeServer { .. })));
    }

    #[test]
    fn stray_entries_come_first_whatever_the_scope() {
        // Up to 3.2 `del map` by key takes all entries: by reference goes first.
        let mut ground = observed(state(1));
        ground.stray_entries.push((Map::Hosts, 7));
        let changes = diff(&ground, &State::default(), &Scope::All);
        assert_eq!(changes[0], Change::RemoveStray(Map::Hosts, 7));
        assert_eq!(diff(&ground, &state(1), &Scope::default()), [Change::RemoveStray(Map::Hosts, 7)]);
    }
}
