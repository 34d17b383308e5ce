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
                diff_entry(Map::Names, &MapWord::from(name), &observed.state, desired, &mut changes);
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
