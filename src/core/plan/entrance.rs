//! How a server enters service.
//!
//! What lives here: who is let in at once, and who only when HAProxy's own check
//! has seen it answer. What it must not know: what else is in a plan.

use std::collections::{BTreeMap, BTreeSet};

use super::{Reason, Standing, Step, standing};
use crate::core::command::{Command, ServerRef};
use crate::core::diff::Change;
use crate::core::name::BackendName;
use crate::core::state::{Admin, Observed};

/// Backends of which must be known how their servers fare before the changes can
/// be put in order: somebody enters beside servers that were down when they were
/// last seen.
#[must_use]
pub fn doubtful(changes: &[Change], observed: &Observed) -> BTreeSet<BackendName> {
    let enters = |change: &Change| match change {
        Change::AddServer(at, to) if to.making.young => Some(at.backend.clone()),
        Change::ChangeServer { server, to, .. } if to.making.young => Some(server.backend.clone()),
        _ => None,
    };
    let down: BTreeSet<&BackendName> = observed.down.iter().map(|at| &at.backend).collect();
    changes.iter().filter_map(enters).filter(|backend| down.contains(backend)).collect()
}

/// How a server enters service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entrance {
    /// At once: its container ran already.
    Known,
    /// At once, and it stays although its first checks fail: there is no other.
    Awaited,
    /// When HAProxy's check has seen it answer.
    Checked,
}

/// How those enter whose container has just begun; all others are known.
pub(super) fn entrances<'a>(changes: &'a [Change], observed: &Observed) -> BTreeMap<&'a ServerRef, Entrance> {
    let mut young: BTreeMap<&BackendName, BTreeSet<&ServerRef>> = BTreeMap::new();
    // Those that leave, and where somebody enters who is known.
    let (mut leaving, mut manned) = (BTreeSet::new(), BTreeSet::new());
    let living: BTreeSet<Standing<'_>> = changes
        .iter()
        .filter_map(|change| match change {
            Change::RemoveServer(at, from) if observed.serves(at) => standing(at, from),
            _ => None,
        })
        .collect();
    for change in changes {
        let (at, to, enters) = match change {
            Change::AddServer(at, to) => (at, to, true),
            Change::ChangeServer { server, from, to } => {
                let stays = from.address == to.address;
                let down = observed.down.contains(server);
                if !stays || to.admin != Admin::Ready {
                    leaving.insert(server);
                } else if from.admin == Admin::Drain && !down {
                    // One that was worse than others serves again, now that they are gone.
                    manned.insert(&server.backend);
                }
                // One that has just begun may not listen yet when they go.
                let begins = from.admin == Admin::Drain && down && to.making.young;
                (server, to, stays && (from.admin == Admin::Maint || begins))
            }
            Change::RemoveServer(at, _) => {
                leaving.insert(at);
                continue;
            }
            _ => continue,
        };
        if !enters || to.admin != Admin::Ready {
            continue;
        }
        // One that serves elsewhere is as good as known.
        if to.making.young && standing(at, to).is_none_or(|standing| !living.contains(&standing)) {
            young.entry(&at.backend).or_default().insert(at);
        } else {
            manned.insert(&at.backend);
        }
    }
    let mut entrances = BTreeMap::new();
    for (backend, servers) in young {
        let present = observed.state.backends.get(backend).into_iter().flat_map(|b| b.servers.keys());
        let mut present = present.map(|name| ServerRef { backend: backend.clone(), server: name.clone() });
        let served =
            manned.contains(backend) || present.any(|at| observed.serves(&at) && !leaving.contains(&at));
        for (index, server) in servers.into_iter().enumerate() {
            let alone = index == 0 && !served;
            entrances.insert(server, if alone { Entrance::Awaited } else { Entrance::Checked });
        }
    }
    entrances
}

/// Into service, out of maint or out of drain. Leaving maint makes a server count
/// as alive, so one that is to be checked first drains meanwhile: no request reaches
/// it between two commands. One that drains already and is down needs no more than
/// its state: its check may have passed since it was looked at.
pub(super) fn enter(
    stage: &mut Vec<Step>,
    server: &ServerRef,
    from: Admin,
    entrance: Entrance,
    reason: Reason,
) {
    if entrance == Entrance::Checked && from == Admin::Maint {
        stand_aside(stage, server, true, reason);
    }
    stage.push(Step {
        command: Command::SetServerState { server: server.clone(), admin: Admin::Ready },
        reason,
    });
    if entrance == Entrance::Awaited {
        let command = Command::SetServerHealth { server: server.clone(), up: true };
        stage.push(Step { command, reason });
    }
}

/// Out of maint into drain. There its check goes on: one that has just begun counts
/// as down until it has passed, so that it is known by the time it is needed.
pub(super) fn stand_aside(stage: &mut Vec<Step>, server: &ServerRef, young: bool, reason: Reason) {
    let command = Command::SetServerState { server: server.clone(), admin: Admin::Drain };
    stage.push(Step { command, reason });
    if young {
        let command = Command::SetServerHealth { server: server.clone(), up: false };
        stage.push(Step { command, reason });
    }
}
