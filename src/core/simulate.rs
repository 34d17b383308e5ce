//! A command applied to a state: what HAProxy would have after it succeeded.
//!
//! What lives here: the effect of each command class. What it must not know:
//! whether the command was a good idea. It keeps the observed state up to date
//! between two readings, and proves plans in tests.

use super::command::{Command, ServerRef};
use super::state::{Admin, Backend, Observed, Server};

/// Applies one successful command.
pub fn simulate(observed: &mut Observed, command: &Command) {
    let state = &mut observed.state;
    match command {
        Command::AddBackend { backend, .. } => {
            state.backends.entry(backend.clone()).or_default();
        }
        Command::DelBackend { backend } => {
            state.backends.remove(backend);
        }
        Command::AddServer { server, address, weight, .. } => {
            let backend = state.backends.entry(server.backend.clone()).or_default();
            let new = Server { address: *address, admin: Admin::Maint, weight: *weight };
            backend.servers.insert(server.server.clone(), new);
        }
        Command::SetServerState { server, admin } => change(observed, server, |s| s.admin = *admin),
        Command::SetServerAddress { server, address } => change(observed, server, |s| s.address = *address),
        Command::SetServerWeight { server, weight } => change(observed, server, |s| s.weight = *weight),
        Command::DelServer { server } => {
            if let Some(backend) = state.backends.get_mut(&server.backend) {
                backend.servers.remove(&server.server);
                // An empty backend of the pool is not in use.
                if backend.servers.is_empty() && server.backend.is_pool() {
                    state.backends.remove(&server.backend);
                }
            }
        }
        Command::AddMap { map, key, value } | Command::SetMap { map, key, value } => {
            state.maps.entry(*map).or_default().insert(key.clone(), value.clone());
        }
        Command::DelMap { map, key } => {
            if let Some(entries) = state.maps.get_mut(map) {
                entries.remove(key);
                // As it is read back: a map without entries is absent.
                if entries.is_empty() {
                    state.maps.remove(map);
                }
            }
        }
        Command::DelMapEntry { map, reference } => {
            observed.stray_entries.retain(|stray| stray != &(*map, *reference));
        }
        // Neither is part of a state: see `Command`.
        Command::PublishBackend { .. }
        | Command::UnpublishBackend { .. }
        | Command::EnableHealth { .. }
        | Command::ShutdownSessions { .. } => {}
    }
}

fn change(observed: &mut Observed, at: &ServerRef, effect: impl FnOnce(&mut Server)) {
    let backend: Option<&mut Backend> = observed.state.backends.get_mut(&at.backend);
    if let Some(server) = backend.and_then(|backend| backend.servers.get_mut(&at.server)) {
        effect(server);
    }
}
