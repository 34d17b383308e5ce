//! What stays of the servers that stand in HAProxy already.
//!
//! What lives here: under which names servers stay, and which servers belong to
//! containers that nothing is known of. A hapilot that has just
//! started may find an engine that lists a container and can't tell about it, or
//! one of several engines that does not answer at all: what an earlier hapilot
//! made for its containers stays until the engine can tell. What it must
//! not know: the facts of any container.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::core::claim;
use crate::core::container::ContainerId;
use crate::core::name::{BackendKey, BackendName, ClassName, Host, ServerName};
use crate::core::slots::Slots;
use crate::core::state::{Backend, Map, Observed, Server};

/// Servers that stay as they are, by the host that leads to them, with the class
/// of their backend.
pub(super) type Kept = BTreeMap<Host, (ClassName, Vec<(ServerName, Server)>)>;

/// Containers that run, or may run, and of which nothing was ever known.
#[derive(Debug, Default)]
pub(super) struct Unread {
    these: BTreeSet<ContainerId>,
    /// A first list has been taken: who is not in it and comes later, begins then.
    listed: bool,
    /// An engine has not told yet what it has: anybody may run there …
    anybody: bool,
    /// … but these, which ended before everybody's eyes.
    ended: BTreeSet<ContainerId>,
}

impl Unread {
    /// Takes all that can't be read. True if that changes something.
    pub(super) fn replace(&mut self, these: BTreeSet<ContainerId>) -> bool {
        let changed = these != self.these;
        self.these = these;
        self.listed = true;
        changed
    }

    /// One that can't be read.
    pub(super) fn add(&mut self, id: &ContainerId) -> bool {
        self.ended.remove(id);
        self.these.insert(id.clone())
    }

    /// A container could be read.
    pub(super) fn read(&mut self, id: &ContainerId) -> bool {
        self.ended.remove(id);
        self.these.remove(id)
    }

    /// True if it may have run for any time already.
    pub(super) fn may_run(&self, id: &ContainerId) -> bool {
        !self.listed || self.these.contains(id)
    }

    /// A container is gone.
    pub(super) fn gone(&mut self, id: &ContainerId) -> bool {
        if self.anybody {
            self.ended.insert(id.clone());
        }
        self.these.remove(id)
    }

    /// Who is told next was seen to begin if the engine had told all before.
    pub(super) fn set_listed(&mut self, listed: bool) {
        self.listed = listed;
    }

    /// From now on anybody may run, or nobody else.
    pub(super) fn set_anybody(&mut self, anybody: bool) -> bool {
        let changed = std::mem::replace(&mut self.anybody, anybody) != anybody;
        if changed {
            self.ended.clear();
        }
        changed
    }

    /// True as long as anybody may run.
    pub(super) fn anybody(&self) -> bool {
        self.anybody
    }
}

/// The servers of `unread` containers that visitors reach: those in the backend
/// of the host that leads there. One whose address is `held` by a container that
/// is known isn't kept: its own container must have another by now. `known` tells
/// a container that is known by its short identifier.
pub(super) fn kept(
    observed: &Observed,
    slots: &Slots,
    unread: &Unread,
    known: impl Fn(&str) -> bool,
    held: impl Fn(SocketAddr) -> bool,
) -> Kept {
    let mut kept = Kept::new();
    if unread.these.is_empty() && !unread.anybody {
        return kept;
    }
    let named = |ids: &BTreeSet<ContainerId>| -> Vec<ServerName> {
        ids.iter().map(|id| ServerName::labelled("x", id.short())).collect()
    };
    let (these, ended) = (named(&unread.these), named(&unread.ended));
    let [these, ended] = [&these, &ended]
        .map(|names| names.iter().filter_map(claim::id_of_server).collect::<BTreeSet<&str>>());
    let is_theirs = |id: &str| these.contains(id) || (unread.anybody && !known(id) && !ended.contains(id));
    for (host, backend) in observed.state.maps.get(&Map::Hosts).into_iter().flatten() {
        let Some(key) = key(host.as_str(), backend.as_str()) else { continue };
        let Some(home) = slots.held(&key).filter(|home| home.as_str() == backend.as_str()) else { continue };
        let servers = observed.state.backends.get(&home).into_iter().flat_map(|backend| &backend.servers);
        let theirs: Vec<_> = servers
            .filter(|(name, server)| {
                claim::id_of_server(name).is_some_and(is_theirs) && !held(server.address)
            })
            .map(|(name, server)| (name.clone(), server.clone()))
            .collect();
        if !theirs.is_empty() {
            kept.insert(key.host, (key.class, theirs));
        }
    }
    kept
}

fn key(host: &str, backend: &str) -> Option<BackendKey> {
    let class = ClassName::new(BackendName::new(backend).ok()?.class()?).ok()?;
    Some(BackendKey { class, host: Host::new(host).ok()? })
}

/// A server keeps the name under which it already stands, whatever its
/// container is called by now: a `docker rename` must cost nobody a connection.
/// If a hand made it stand there twice, the one that serves is kept. Where two
/// containers' short identifiers are equal, only their whole names differ.
pub(super) fn keep_names(
    wanted: &[(ServerName, Server)],
    present: Option<&Backend>,
) -> BTreeMap<ServerName, Server> {
    let mut by_id: BTreeMap<&str, Vec<(&ServerName, &Server)>> = BTreeMap::new();
    for (name, server) in present.iter().flat_map(|backend| &backend.servers) {
        if let Some(id) = claim::id_of_server(name) {
            by_id.entry(id).or_default().push((name, server));
        }
    }
    let mut seen = BTreeSet::new();
    for id in wanted.iter().filter_map(|(name, _)| claim::id_of_server(name)) {
        if !seen.insert(id) {
            by_id.remove(id);
        }
    }
    let keep = |(name, server): &(ServerName, Server)| {
        let standing = claim::id_of_server(name).and_then(|id| by_id.get(id));
        let kept = standing.and_then(|all| {
            all.iter().min_by_key(|(_, present)| (present.address != server.address, present.admin))
        });
        (kept.map_or(name, |(kept, _)| *kept).clone(), server.clone())
    };
    wanted.iter().map(keep).collect()
}
