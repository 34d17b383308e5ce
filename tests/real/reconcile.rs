//! Turns against real HAProxy of every version.
//!
//! What lives here: containers as facts, turns as the controller takes them, and
//! what HAProxy has afterwards. What it must not know: Docker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[macro_use]
#[path = "../support/attached.rs"]
mod attached;

use std::time::{Duration, Instant};

use attached::{Haproxy, address, container, converge, listen, reconcile};
use hapilot::core::container::RunState;
use hapilot::core::state::Admin;

on_every_version!(
    a_host_comes_scales_and_goes,
    a_new_hapilot_takes_over_what_is_there,
    a_hand_on_the_socket_is_undone,
    a_container_that_moves_takes_its_server_along,
    a_full_pool_blocks_the_newcomer_only,
    a_restarted_haproxy_is_complete_from_its_configuration,
);

async fn a_host_comes_scales_and_goes(version: &str) {
    let haproxy = Haproxy::start(version, 5).await;
    let mut link = haproxy.link().await;
    let pid = link.client().pid();
    listen((address(1), 7000).into(), "one").await;
    listen((address(2), 7000).into(), "two").await;
    assert_eq!(haproxy.visit("shop.example").await.0, 404);

    let mut reconcile = reconcile(vec![container(1, "shop.example,*.shop.example")]);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("shop.example").await, (200, "one".to_owned()));
    assert_eq!(haproxy.visit("SHOP.example:80").await, (200, "one".to_owned()));
    assert_eq!(haproxy.visit("new.shop.example").await, (200, "one".to_owned()));
    assert_eq!(haproxy.visit("else.example").await.0, 404);

    reconcile.desired_mut().set(container(2, "shop.example"));
    converge(&mut reconcile, &mut link).await;
    // As soon as HAProxy has seen it answer.
    let deadline = Instant::now() + Duration::from_secs(5);
    while haproxy.visit("shop.example").await != (200, "two".to_owned()) {
        assert!(Instant::now() < deadline, "the second one takes no load");
    }
    assert_eq!(haproxy.visit("shop.example").await, (200, "one".to_owned()), "they take turns");

    let gone = container(1, "").id;
    reconcile.desired_mut().remove(&gone);
    let turn = reconcile.turn(&mut link).await.unwrap();
    assert!(turn.settled, "out of service at once, whenever it is deleted: {turn:?}");
    for _ in 0..4 {
        assert_eq!(haproxy.visit("shop.example").await, (200, "two".to_owned()));
    }
    assert_eq!(haproxy.visit("new.shop.example").await.0, 404);
    converge(&mut reconcile, &mut link).await;

    let mut paused = container(2, "shop.example");
    paused.run = RunState::Paused;
    reconcile.desired_mut().set(paused);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("shop.example").await.0, 503);
    reconcile.observe(&mut link).await.unwrap();
    assert!(link.is_current(Duration::from_secs(60)));
    reconcile.desired_mut().set(container(2, "shop.example"));
    converge(&mut reconcile, &mut link).await;
    assert!(!link.is_current(Duration::from_secs(60)), "that it was down is no longer true");
    assert_eq!(haproxy.visit("shop.example").await, (200, "two".to_owned()));

    reconcile.desired_mut().replace(Vec::new());
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("shop.example").await.0, 404);
    assert_eq!(link.observed().state.servers().count(), 0, "nothing leaks");
    assert_eq!(link.client_mut().heartbeat().await.unwrap().pid, pid);
}

async fn a_new_hapilot_takes_over_what_is_there(version: &str) {
    let haproxy = Haproxy::start(version, 5).await;
    let containers = || vec![container(1, "a.example"), container(2, "a.example,b.example")];
    let mut first = reconcile(containers());
    converge(&mut first, &mut haproxy.link().await).await;

    let mut second = reconcile(containers());
    let turn = converge(&mut second, &mut haproxy.link().await).await;
    assert_eq!(turn.done, 0, "nothing had to be sent");

    let mut changed = containers();
    changed.push(container(3, "c.example"));
    let mut third = reconcile(changed);
    let mut link = haproxy.link().await;
    let turn = third.turn(&mut link).await.unwrap();
    let add_server = 3;
    // Below 3.4: the loan and the host. From 3.4: the backend, its publication
    // and the host.
    let rest = if link.client().capabilities().add_backend { 3 } else { 2 };
    assert_eq!(turn.done, add_server + rest, "only the difference is sent");
}

async fn a_hand_on_the_socket_is_undone(version: &str) {
    let haproxy = Haproxy::start(version, 5).await;
    let mut link = haproxy.link().await;
    let mut reconcile = reconcile(vec![container(1, "a.example"), container(2, "a.example")]);
    converge(&mut reconcile, &mut link).await;
    let (backend, servers) = link.observed().state.backends.iter().next().unwrap();
    let server = servers.servers.keys().next().unwrap();
    let hosts = haproxy.dir.path().join("maps/hosts.map");
    let hosts = hosts.display();
    for line in [
        format!("add server {backend}/by-hand 127.0.0.1:9"),
        format!("set server {backend}/{server} state maint"),
        format!("set server {backend}/{server} weight 7"),
        format!("add map {hosts} stranger.example {backend}"),
        format!("add map {hosts} a.example elsewhere"),
        format!("add map {hosts} odd.example two words"),
    ] {
        let answer = haproxy.type_in(&line).await;
        assert!(!answer.contains("such") && !answer.contains("nknown"), "{line}: {answer}");
    }
    reconcile.observe(&mut link).await.unwrap();
    converge(&mut reconcile, &mut link).await;
    assert!(link.observed().stray_entries.is_empty());
    assert_eq!(reconcile.desired().state().servers().filter(|(_, _, s)| s.admin == Admin::Ready).count(), 2);
}

async fn a_container_that_moves_takes_its_server_along(version: &str) {
    let haproxy = Haproxy::start(version, 5).await;
    let mut link = haproxy.link().await;
    listen((address(1), 7000).into(), "old").await;
    listen((address(2), 7000).into(), "new").await;
    let mut reconcile = reconcile(vec![container(1, "a.example")]);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("a.example").await, (200, "old".to_owned()));
    let moved = container(1, "a.example").on_network("web", Some(address(2)), None);
    reconcile.desired_mut().set(moved);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("a.example").await, (200, "new".to_owned()));
    // And back, as its neighbour takes the address it leaves.
    let mut neighbour = container(2, "b.example");
    neighbour.started_at = Some(1);
    reconcile.desired_mut().set(neighbour);
    reconcile.desired_mut().set(container(1, "a.example"));
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("a.example").await, (200, "old".to_owned()));
    assert_eq!(haproxy.visit("b.example").await, (200, "new".to_owned()));
}

async fn a_full_pool_blocks_the_newcomer_only(version: &str) {
    let haproxy = Haproxy::start(version, 2).await;
    let mut link = haproxy.link().await;
    for n in 1..=3 {
        listen((address(n), 7000).into(), "served").await;
    }
    let mut reconcile = reconcile(vec![container(1, "a.example"), container(2, "b.example")]);
    converge(&mut reconcile, &mut link).await;
    reconcile.desired_mut().set(container(3, "c.example"));
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("a.example").await.0, 200);
    assert_eq!(haproxy.visit("b.example").await.0, 200);
    if link.client().capabilities().add_backend {
        assert_eq!(haproxy.visit("c.example").await.0, 200, "no pool, no limit");
        return;
    }
    let blocked = reconcile.blocked();
    assert_eq!(blocked.len(), 1, "{blocked:?}");
    assert_eq!(blocked[0].what, "c.example");
    assert!(blocked[0].reason.contains("--pool-size"), "{}", blocked[0].reason);
    assert_eq!(haproxy.visit("c.example").await.0, 404);

    let gone = container(1, "").id;
    reconcile.desired_mut().remove(&gone);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("c.example").await.0, 200, "the backend that came back is lent at once");
    assert!(reconcile.blocked().is_empty());
}

async fn a_restarted_haproxy_is_complete_from_its_configuration(version: &str) {
    let mut haproxy = Haproxy::start(version, 5).await;
    listen((address(1), 7000).into(), "one").await;
    let mut reconcile = reconcile(vec![container(1, "a.example"), container(2, "b.example")]);
    converge(&mut reconcile, &mut haproxy.link().await).await;
    let state = reconcile.desired().state().clone();
    haproxy.restart(&state).await;
    assert_eq!(haproxy.visit("a.example").await, (200, "one".to_owned()), "before hapilot said a word");
    let turn = converge(&mut reconcile, &mut haproxy.link().await).await;
    assert_eq!(turn.done, 0, "nothing had to be sent");
    // What stood in the configuration can be taken away like everything else.
    reconcile.desired_mut().replace(Vec::new());
    let mut link = haproxy.link().await;
    converge(&mut reconcile, &mut link).await;
    assert_eq!(link.observed().state.servers().count(), 0);
}
