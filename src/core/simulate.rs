//! A command applied to a state: what HAProxy would have after it succeeded.
//!
//! What lives here: the effect of each command class. What it must not know:
//! whether the command was a good idea. It keeps the observed state up to date
//! between two readings, and proves plans in tests.

use super::command::{Command, ServerRef};
use super::state::{Admin, Making, Observed, Server};

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
            let (address, weight) = (*address, *weight);
            let new = Server { address, admin: Admin::Maint, weight, making: Making::default() };
            backend.servers.insert(server.server.clone(), new);
        }
        Command::SetServerState { server, admin } => {
            if change(observed, server, |s| std::mem::replace(&mut s.admin, *admin)) == Some(Admin::Maint) {
                // Whoever leaves maint is taken for alive until a check says otherwise.
                observed.down.remove(server);
            }
        }
        Command::SetServerHealth { server, up } => {
            if *up {
                observed.down.remove(server);
            } else {
                observed.down.insert(server.clone());
            }
        }
        Command::SetServerAddress { server, address } => {
            change(observed, server, |s| s.address = *address);
        }
        Command::SetServerWeight { server, weight } => {
            change(observed, server, |s| s.weight = *weight);
        }
        Command::DelServer { server } => {
            observed.down.remove(server);
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

fn change<T>(observed: &mut Observed, at: &ServerRef, effect: impl FnOnce(&mut Server) -> T) -> Option<T> {
    observed.state.backends.get_mut(&at.backend)?.servers.get_mut(&at.server).map(effect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::command::Check;
    use crate::core::name::{BackendName, MapWord, ServerName};
    use crate::core::state::Map;

    fn at(backend: &str) -> ServerRef {
        ServerRef { backend: BackendName::new(backend).unwrap(), server: ServerName::new("s-1").unwrap() }
    }

    fn add(backend: &str) -> Command {
        Command::AddServer {
            server: at(backend),
            address: ([127, 0, 0, 1], 80).into(),
            weight: 3,
            check: Check::default(),
            slow_start_ms: None,
            pool_keywords: false,
        }
    }

    fn after(commands: &[Command]) -> Observed {
        let mut observed = Observed::default();
        for command in commands {
            simulate(&mut observed, command);
        }
        observed
    }

    #[test]
    fn a_new_server_is_in_maint() {
        let server = after(&[add("web:a")]).state.backends["web:a"].servers["s-1"].clone();
        assert_eq!((server.admin, server.weight), (Admin::Maint, 3));
    }

    #[test]
    fn an_emptied_backend_of_the_pool_is_not_in_use_and_an_own_one_stays() {
        let gone = |backend| after(&[add(backend), Command::DelServer { server: at(backend) }]).state;
        assert_eq!(gone("web:pool:0001").backends.len(), 0);
        assert_eq!(gone("web:a").backends.len(), 1);
    }

    #[test]
    fn a_map_without_entries_is_absent() {
        let (map, key) = (Map::Hosts, MapWord::new("a").unwrap());
        let add = Command::AddMap { map, key: key.clone(), value: key.clone() };
        assert_eq!(after(&[add, Command::DelMap { map, key }]), Observed::default());
    }

    #[test]
    fn a_stray_entry_goes_by_its_reference() {
        let mut observed =
            Observed { stray_entries: vec![(Map::Hosts, 1), (Map::Names, 1)], ..Observed::default() };
        simulate(&mut observed, &Command::DelMapEntry { map: Map::Hosts, reference: 1 });
        assert_eq!(observed.stray_entries, [(Map::Names, 1)]);
    }
}
