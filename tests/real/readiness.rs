//! When a server takes traffic, on real HAProxy of every version.
//!
//! What lives here: containers that do not listen yet, that answer their check
//! badly, that are told to end, that leave sessions behind. What it must not
//! know: Docker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[macro_use]
#[path = "../support/attached.rs"]
mod attached;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use attached::{Haproxy, SESSION_LIMIT, address, container, converge, listen, reconcile};
use hapilot::core::container::{Container, Health};
use hapilot::core::state::Admin;
use hapilot::reconcile::{Link, Reconcile};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

on_every_version!(
    a_replica_takes_no_request_before_it_listens,
    visitors_wait_for_the_first_container_of_a_host,
    a_replica_takes_no_request_before_its_answer_is_the_wanted_one,
    one_that_docker_calls_starting_is_asked_before_it_replaces_an_ill_one,
    one_that_docker_calls_starting_is_let_in_at_once_if_it_answers,
    one_that_docker_calls_starting_is_waited_for_when_it_is_the_last,
    the_old_one_serves_until_the_new_one_is_up,
    sessions_that_nobody_ends_are_cut_and_nothing_is_left,
);

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(10);

fn at(n: u8) -> SocketAddr {
    (address(n), 7000).into()
}

fn said(name: &str) -> (u16, String) {
    (200, name.to_owned())
}

/// Until a visitor is served by this container.
async fn until_served_by(haproxy: &Haproxy, name: &str) {
    let deadline = Instant::now() + PATIENCE;
    while haproxy.visit("a.example").await != said(name) {
        assert!(Instant::now() < deadline, "{name} takes no request");
    }
}

/// How often HAProxy tried again, all servers of all time.
async fn retries(haproxy: &Haproxy) -> u64 {
    let stat = haproxy.type_in("show stat -1 4 -1").await;
    let place = stat.lines().next().unwrap().split(',').position(|name| name == "wretr").unwrap();
    stat.lines().skip(1).filter_map(|line| line.split(',').nth(place)?.parse::<u64>().ok()).sum()
}

async fn the_second_waits_until_it_listens(haproxy: &Haproxy) {
    for _ in 0..20 {
        assert_eq!(haproxy.visit("a.example").await, said("one"));
    }
    assert_eq!(retries(haproxy).await, 0, "nobody was sent to it");
    listen(at(2), "two").await;
    until_served_by(haproxy, "two").await;
}

async fn a_replica_takes_no_request_before_it_listens(version: &str) {
    let haproxy = Haproxy::start(version, 3).await;
    let mut link = haproxy.link().await;
    listen(at(1), "one").await;
    let mut reconcile = reconcile(vec![container(1, "a.example")]);
    converge(&mut reconcile, &mut link).await;

    reconcile.desired_mut().set(container(2, "a.example"));
    converge(&mut reconcile, &mut link).await;
    the_second_waits_until_it_listens(&haproxy).await;

    // A restart of HAProxy's side of things is none of the newcomer: it stays.
    let gone = container(1, "").id;
    reconcile.desired_mut().remove(&gone);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("a.example").await, said("two"));
}

async fn visitors_wait_for_the_first_container_of_a_host(version: &str) {
    let haproxy = Haproxy::start(version, 3).await;
    let mut link = haproxy.link().await;
    let mut reconcile = reconcile(vec![]);
    converge(&mut reconcile, &mut link).await;
    // Three at once, as `compose up` starts them: one of them is waited for.
    for n in 1..=3 {
        reconcile.desired_mut().set(container(n, "a.example"));
    }
    converge(&mut reconcile, &mut link).await;
    let late = async {
        // Longer than a check takes to fail, shorter than visitors wait.
        tokio::time::sleep(Duration::from_millis(600)).await;
        listen(at(1), "one").await;
        listen(at(2), "two").await;
    };
    let (first, second, ()) = tokio::join!(haproxy.visit("a.example"), haproxy.visit("a.example"), late);
    for answer in [first, second] {
        assert!([said("one"), said("two")].contains(&answer), "{answer:?}");
    }
    until_served_by(&haproxy, "one").await;
    until_served_by(&haproxy, "two").await;
}

/// A container whose answer to everything can be changed.
async fn listen_with_status(address: SocketAddr, name: &'static str) -> Arc<AtomicU16> {
    let status = Arc::new(AtomicU16::new(503));
    let listener = TcpListener::bind(address).await.unwrap();
    let wanted = Arc::clone(&status);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let status = wanted.load(Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                if matches!(stream.read(&mut request).await, Ok(1..)) {
                    let head = String::from_utf8_lossy(&request);
                    let status = if head.starts_with("GET /health?full=1 ") { status } else { 200 };
                    let length = name.len();
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}"
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    status
}

async fn a_replica_takes_no_request_before_its_answer_is_the_wanted_one(version: &str) {
    for (first, status, good) in [(1, None, 302), (3, Some("204"), 204), (5, Some("2xx"), 201)] {
        let haproxy = Haproxy::start(version, 3).await;
        let mut link = haproxy.link().await;
        let checked = |n| {
            let container = container(n, "a.example").with_label("hapilot.check.path", "/health?full=1");
            let container = container.with_label("hapilot.check.interval", "200ms");
            status.iter().fold(container, |c, status| c.with_label("hapilot.check.status", status))
        };
        let one = listen_with_status(at(first), "one").await;
        one.store(good, Ordering::SeqCst);
        let two = listen_with_status(at(first + 1), "two").await;
        let mut reconcile = reconcile(vec![checked(first)]);
        converge(&mut reconcile, &mut link).await;
        reconcile.desired_mut().set(checked(first + 1));
        converge(&mut reconcile, &mut link).await;
        for _ in 0..20 {
            assert_eq!(haproxy.visit("a.example").await, said("one"), "{status:?}");
        }
        two.store(good, Ordering::SeqCst);
        until_served_by(&haproxy, "two").await;
        // And it leaves when its answer is another again.
        two.store(503, Ordering::SeqCst);
        let deadline = Instant::now() + PATIENCE;
        while !haproxy.type_in("show stat -1 4 -1").await.contains(",DOWN,") {
            assert!(Instant::now() < deadline, "{status:?}: nobody noticed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..4 {
            assert_eq!(haproxy.visit("a.example").await, said("one"), "{status:?}");
        }
    }
}

fn with_health(n: u8, health: Health) -> Container {
    Container { health: Some(health), ..container(n, "a.example") }
}

/// One container that is well, and a second one that has just begun, does not
/// listen yet, and of which Docker says so.
async fn one_well_and_one_starting(haproxy: &Haproxy) -> (Reconcile, Link) {
    let mut link = haproxy.link().await;
    listen(at(1), "one").await;
    let mut reconcile = reconcile(vec![with_health(1, Health::Healthy)]);
    converge(&mut reconcile, &mut link).await;
    reconcile.desired_mut().set(with_health(2, Health::Starting));
    converge(&mut reconcile, &mut link).await;
    let admins: Vec<Admin> = link.observed().state.servers().map(|(_, _, server)| server.admin).collect();
    assert_eq!(admins, [Admin::Ready, Admin::Drain]);
    (reconcile, link)
}

async fn one_that_docker_calls_starting_is_asked_before_it_replaces_an_ill_one(version: &str) {
    let haproxy = Haproxy::start(version, 3).await;
    let (mut reconcile, mut link) = one_well_and_one_starting(&haproxy).await;
    reconcile.desired_mut().set(with_health(1, Health::Unhealthy));
    converge(&mut reconcile, &mut link).await;
    the_second_waits_until_it_listens(&haproxy).await;
}

async fn one_that_docker_calls_starting_is_let_in_at_once_if_it_answers(version: &str) {
    let haproxy = Haproxy::start(version, 3).await;
    let (mut reconcile, mut link) = one_well_and_one_starting(&haproxy).await;
    listen(at(2), "two").await;
    // While it is down it is asked every 100 ms.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..10 {
        assert_eq!(haproxy.visit("a.example").await, said("one"), "it drains");
    }
    reconcile.desired_mut().remove(&container(1, "").id);
    converge(&mut reconcile, &mut link).await;
    assert_eq!(haproxy.visit("a.example").await, said("two"));
    assert_eq!(retries(&haproxy).await, 0);
}

async fn one_that_docker_calls_starting_is_waited_for_when_it_is_the_last(version: &str) {
    let haproxy = Haproxy::start(version, 3).await;
    let (mut reconcile, mut link) = one_well_and_one_starting(&haproxy).await;
    // Longer than it takes ten checks to fail.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    reconcile.desired_mut().remove(&container(1, "").id);
    converge(&mut reconcile, &mut link).await;
    let late = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        listen(at(2), "two").await;
    };
    let (answer, ()) = tokio::join!(haproxy.visit("a.example"), late);
    assert_eq!(answer, said("two"));
}

async fn the_old_one_serves_until_the_new_one_is_up(version: &str) {
    let haproxy = Haproxy::start(version, 3).await;
    let mut link = haproxy.link().await;
    listen(at(1), "old").await;
    let mut reconcile = reconcile(vec![container(1, "a.example")]);
    converge(&mut reconcile, &mut link).await;
    reconcile.desired_mut().set(container(2, "a.example"));
    reconcile.desired_mut().stopping(&container(1, "").id);
    let turn = converge(&mut reconcile, &mut link).await;
    assert_eq!(turn.hoping, 1, "the old one is needed until the new one is up");
    for _ in 0..10 {
        assert_eq!(haproxy.visit("a.example").await, said("old"));
    }
    listen(at(2), "new").await;
    let deadline = Instant::now() + PATIENCE;
    while reconcile.turn(&mut link).await.unwrap().hoping > 0 {
        assert!(Instant::now() < deadline, "it never comes up");
        assert_eq!(haproxy.visit("a.example").await.0, 200);
    }
    for _ in 0..10 {
        assert_eq!(haproxy.visit("a.example").await, said("new"));
    }
}

async fn sessions_that_nobody_ends_are_cut_and_nothing_is_left(version: &str) {
    let haproxy = Haproxy::start(version, 3).await;
    let mut link = haproxy.link().await;
    let listener = TcpListener::bind(at(1)).await.unwrap();
    let mut reconcile = reconcile(vec![container(1, "a.example")]);
    converge(&mut reconcile, &mut link).await;

    // As a websocket: upgraded, and then neither side says anything.
    let mut visitor = TcpStream::connect(haproxy.http).await.unwrap();
    let upgrade = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    visitor.write_all(upgrade.as_bytes()).await.unwrap();
    let mut request = [0; 4096];
    let mut served = loop {
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
        let (mut served, _) = accepted.expect("HAProxy connects").unwrap();
        // HAProxy's checks come too, and say nothing.
        if matches!(served.read(&mut request).await, Ok(1..)) {
            break served;
        }
    };
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    served.write_all(switched.as_bytes()).await.unwrap();
    assert!(matches!(visitor.read(&mut request).await, Ok(1..)));

    reconcile.desired_mut().remove(&container(1, "").id);
    let began = Instant::now();
    let turn = reconcile.turn(&mut link).await.unwrap();
    assert_ne!(turn.waiting + turn.deferred, 0, "its session keeps it");
    let mut closed = [0; 1];
    let cut = tokio::spawn(async move {
        let _ = visitor.read(&mut closed).await;
        Instant::now()
    });
    converge(&mut reconcile, &mut link).await;
    let went_on = cut.await.unwrap() - began;
    // HAProxy tells ages in whole seconds.
    assert!(went_on + Duration::from_secs(1) > SESSION_LIMIT, "cut after {went_on:?}");
    assert_eq!(link.observed().state.servers().count(), 0);
}
