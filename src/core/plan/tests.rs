//! The rules of a plan, one by one.

use super::*;
use crate::core::name::ServerName;
use crate::core::state::Making;

fn at(backend: &str, server: &str) -> ServerRef {
    ServerRef { backend: BackendName::new(backend).unwrap(), server: ServerName::new(server).unwrap() }
}

fn server(last: u8, admin: Admin) -> Server {
    Server { address: ([127, 0, 0, last], 80).into(), admin, weight: 1, making: Making::default() }
}

fn word(text: &str) -> MapWord {
    MapWord::new(text).unwrap()
}

/// The commands for these changes, and the servers that wait.
fn planned(changes: &[Change], prompt: bool, facts: &[(ServerRef, RemovalFacts)]) -> (Vec<String>, usize) {
    let capabilities = Capabilities { add_backend: false, prompt_deletion: prompt, pools_by_default: prompt };
    let removals = facts.iter().cloned().collect();
    let quarantine = Duration::from_secs(20);
    let ground = Ground {
        capabilities,
        check: Check::default(),
        observed: &Observed::default(),
        removals: &removals,
        session_limit: Duration::from_secs(100),
        quarantine,
    };
    let plan = plan(changes, &ground);
    (plan.steps.iter().map(|step| step.command.to_string()).collect(), plan.waiting.len())
}

#[test]
fn the_dead_leave_before_anybody_takes_their_address() {
    let add = Change::AddServer(at("b", "new-2"), server(1, Admin::Ready));
    let remove = Change::RemoveServer(at("a", "old-1"), server(1, Admin::Ready));
    let (steps, _) = planned(&[add, remove], true, &[]);
    assert_eq!(steps[0], "set server a/old-1 state maint");
    assert_eq!(steps.last().unwrap(), "del server a/old-1");
}

#[test]
fn a_container_that_changes_its_backend_serves_until_the_host_has_moved() {
    let changes = [
        Change::RemoveServer(at("a", "one-1"), server(1, Admin::Ready)),
        Change::ChangeEntry(Map::Hosts, word("h"), word("b")),
        Change::AddServer(at("b", "one-1"), server(1, Admin::Ready)),
    ];
    let (steps, _) = planned(&changes, true, &[]);
    let place = |text: &str| steps.iter().position(|step| step == text).expect(text);
    assert!(place("set server b/one-1 state ready") < place("set map hosts.map h b"));
    assert!(place("set map hosts.map h b") < place("set server a/one-1 state maint"));
}

#[test]
fn a_server_drains_in_a_plan_that_makes_no_other_ready() {
    let drain = Change::ChangeServer {
        server: at("a", "ill-1"),
        from: server(1, Admin::Ready),
        to: server(1, Admin::Drain),
    };
    let moved = |backend: &str| Change::ChangeServer {
        server: at(backend, "well-2"),
        from: server(2, Admin::Ready),
        to: server(3, Admin::Ready),
    };
    let drains = |changes: &[Change]| {
        let (steps, waiting) = planned(changes, true, &[]);
        (steps.contains(&"set server a/ill-1 state drain".to_owned()), waiting)
    };
    assert_eq!(drains(std::slice::from_ref(&drain)), (true, 0));
    assert_eq!(drains(&[drain.clone(), moved("b")]), (true, 0));
    assert_eq!(drains(&[drain, moved("a")]), (false, 1));
}

#[test]
fn one_that_serves_again_makes_a_newcomer_wait_for_its_check() {
    let ill = at("a", "ill-1");
    let back = Change::ChangeServer {
        server: ill.clone(),
        from: server(1, Admin::Drain),
        to: server(1, Admin::Ready),
    };
    let mut young = server(2, Admin::Ready);
    young.making.young = true;
    let changes = [Change::AddServer(at("a", "new-2"), young), back];
    let entrance = |down: bool| {
        let mut observed = Observed::default();
        observed.down.extend(down.then(|| ill.clone()));
        entrances(&changes, &observed)[&at("a", "new-2")]
    };
    assert_eq!(entrance(false), Entrance::Checked);
    assert_eq!(entrance(true), Entrance::Awaited, "it does not answer either");
}

#[test]
fn one_that_began_aside_is_checked_there_and_waited_for_when_it_is_the_last() {
    let new = at("a", "new-2");
    let young = |admin| {
        let mut server = server(2, admin);
        server.making.young = true;
        server
    };
    let (steps, _) = planned(&[Change::AddServer(new.clone(), young(Admin::Drain))], true, &[]);
    assert_eq!(
        steps[1..],
        ["enable health a/new-2", "set server a/new-2 state drain", "set server a/new-2 health down"]
    );

    let enters = [Change::ChangeServer {
        server: new.clone(),
        from: server(2, Admin::Drain),
        to: young(Admin::Ready),
    }];
    let observed = |down: &[&ServerRef], other: Admin| {
        let mut observed = Observed::default();
        let backend = observed.state.backends.entry(new.backend.clone()).or_default();
        backend.servers.insert(at("a", "ill-1").server, server(1, other));
        observed.down.extend(down.iter().map(|&at| at.clone()));
        observed
    };
    let entrance = |observed: &Observed| entrances(&enters, observed).get(&new).copied();
    assert_eq!(entrance(&observed(&[], Admin::Ready)), None, "its check has passed");
    assert_eq!(entrance(&observed(&[&new], Admin::Ready)), Some(Entrance::Checked));
    assert_eq!(entrance(&observed(&[&new], Admin::Maint)), Some(Entrance::Awaited));
    let ill = at("a", "ill-1");
    assert_eq!(entrance(&observed(&[&new, &ill], Admin::Ready)), Some(Entrance::Awaited));

    let entered = |entrance| {
        let mut stage = Vec::new();
        enter(&mut stage, &new, Admin::Drain, entrance, Reason::ServerChanged);
        stage.iter().map(|step| step.command.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(entered(Entrance::Checked), ["set server a/new-2 state ready"]);
    assert_eq!(
        entered(Entrance::Awaited),
        ["set server a/new-2 state ready", "set server a/new-2 health up"]
    );
}

#[test]
fn a_moved_server_is_not_made_ready_in_the_same_plan() {
    let change = Change::ChangeServer {
        server: at("a", "one-1"),
        from: server(1, Admin::Ready),
        to: server(2, Admin::Ready),
    };
    let (steps, _) = planned(&[change], true, &[]);
    assert_eq!(steps, ["set server a/one-1 state maint", "set server a/one-1 addr 127.0.0.2 port 80"]);
}

#[test]
fn where_deletion_is_dangerous_it_waits_for_time_and_for_connections() {
    let at = at("a", "old-1");
    let deleted = |admin, facts: Option<(u32, u64)>| {
        let facts = facts.map(|(unchanged_s, busy)| (at.clone(), RemovalFacts { unchanged_s, busy }));
        let change = Change::RemoveServer(at.clone(), server(1, admin));
        let (steps, waiting) = planned(&[change], false, facts.as_slice());
        let deleted = steps.contains(&"del server a/old-1".to_owned());
        assert_eq!(deleted, waiting == 0);
        deleted
    };
    assert!(deleted(Admin::Maint, Some((20, 0))));
    assert!(!deleted(Admin::Maint, Some((19, 0))), "a request may wait for its retry");
    assert!(!deleted(Admin::Maint, Some((99, 1))), "a connection is left");
    assert!(!deleted(Admin::Maint, None), "nobody has counted");
    assert!(!deleted(Admin::Ready, Some((99, 0))), "it is in service");
}

#[test]
fn sessions_are_cut_when_they_have_had_their_time() {
    let at = at("a", "old-1");
    let sent = |prompt, unchanged_s, busy| {
        let facts = [(at.clone(), RemovalFacts { unchanged_s, busy })];
        let (steps, waiting) =
            planned(&[Change::RemoveServer(at.clone(), server(1, Admin::Maint))], prompt, &facts);
        (steps, waiting)
    };
    let (shut, del) = ("shutdown sessions server a/old-1".to_owned(), "del server a/old-1".to_owned());
    assert_eq!(sent(true, 99, 0), (vec![del.clone()], 0));
    assert_eq!(sent(true, 100, 0), (vec![shut.clone(), del], 0));
    assert_eq!(sent(false, 99, 1), (vec![], 1));
    assert_eq!(sent(false, 100, 1), (vec![shut], 1), "it is deleted when they are gone");
}

#[test]
fn a_host_is_forgotten_before_its_backend_is_lent_anew() {
    let changes = [
        Change::ChangeEntry(Map::Names, word("web:pool:0001"), word("new")),
        Change::RemoveEntry(Map::Hosts, word("old")),
    ];
    let (steps, _) = planned(&changes, true, &[]);
    assert_eq!(steps, ["del map hosts.map old", "set map names.map web:pool:0001 new"]);
}
