//! An engine that fails: inspects, lists, streams, and the engine as a whole.
//!
//! What lives here: that what was known stays in force, and what makes up for the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::{NEVER, PATIENCE, Scene, engine, eventually, web};
use crate::fake_docker::{FakeDocker, Fault};
use hapilot::docker::{Change, Deadlines, DockerAddress, DockerClient, DockerError, WatchConfig};

#[tokio::test]
async fn an_unreadable_container_keeps_its_facts_until_it_can_be_read() {
    for fault in [Fault::Status(500), Fault::Garbage, Fault::Empty, Fault::Hang, Fault::Close] {
        let engine = engine();
        let id = engine.0.add(web("web"));
        let adjust = |config: &mut WatchConfig| config.deadlines.inspect = Duration::from_millis(40);
        let mut scene = Scene::settled(engine, adjust).await;
        scene.docker.fail_inspect(&id, fault);
        scene.docker.rename(&id, "renamed");
        scene.until(|s| s.is_unreadable(&id)).await;
        assert_eq!(&*scene.container(&id).unwrap().name, "web", "{fault:?}: the old facts stay");

        // It is tried again and again, but told once.
        let tried = scene.docker.calls().inspect;
        eventually("further tries", || scene.docker.calls().inspect > tried + 2).await;
        scene.nothing_else().await;

        scene.docker.fail_inspect(&id, None);
        scene.until(|s| !s.is_unreadable(&id)).await;
        assert_eq!(&*scene.container(&id).unwrap().name, "renamed", "{fault:?}");
    }
}

#[tokio::test]
async fn an_unreadable_container_that_vanishes_is_gone() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    engine.0.fail_inspect(&id, Fault::Status(500));
    let mut scene = Scene::settled(engine, |_| {}).await;
    assert!(scene.is_unreadable(&id) && scene.container(&id).is_none());
    scene.docker.vanish(&id);
    scene.docker.fail_inspect(&id, None);
    scene.until(|s| !s.is_unreadable(&id)).await;
    assert!(scene.container(&id).is_none());
}

#[tokio::test]
async fn unreadable_containers_hold_up_no_other() {
    let engine = engine();
    let good = engine.0.add(web("good"));
    let bad: Vec<String> = (0..40).map(|number| engine.0.add(web(&format!("bad-{number}")))).collect();
    let adjust = |config: &mut WatchConfig| config.deadlines.inspect = NEVER;
    let mut scene = Scene::settled(engine, adjust).await;
    for id in &bad {
        scene.docker.fail_inspect(id, Fault::Hang);
        scene.docker.container_event(id, "update");
    }
    scene.docker.rename(&good, "renamed");
    scene.until(|s| &*s.container(&good).unwrap().name == "renamed").await;
    assert_eq!(scene.believed.len(), 41);
}

#[tokio::test]
async fn a_stream_that_is_cut_leads_to_a_new_snapshot() {
    let engine = engine();
    let stays = engine.0.add(web("stays"));
    let leaves = engine.0.add(web("leaves"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    scene.docker.cut_events();
    scene.docker.vanish(&leaves);
    let comes = scene.docker.add(web("comes"));
    assert!(scene.disconnected().await.contains("ended the stream"));
    assert!(matches!(scene.next().await, Change::Connected { .. }));
    scene.until_snapshot().await;
    assert!(scene.container(&stays).is_some() && scene.container(&comes).is_some());
    assert!(scene.container(&leaves).is_none());
}

#[tokio::test]
async fn a_container_that_is_unreadable_after_a_reconnect_is_not_dropped() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    scene.docker.fail_inspect(&id, Fault::Status(500));
    scene.docker.cut_events();
    scene.until_snapshot().await;
    assert!(scene.is_unreadable(&id) && scene.container(&id).is_some());
    scene.docker.fail_inspect(&id, None);
    scene.until(|s| !s.is_unreadable(&id)).await;
    assert!(scene.container(&id).is_some());
}

#[tokio::test]
async fn a_stream_that_dies_silently_with_its_engine_is_noticed() {
    let engine = engine();
    engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |config| {
        config.quiet = Duration::from_millis(20);
        config.deadlines.ping = Duration::from_millis(20);
    })
    .await;
    // While it is only quiet, pings are enough.
    eventually("pings", || scene.docker.calls().ping >= 3).await;
    assert_eq!(scene.docker.calls().events, 1);
    scene.docker.stall_events();
    scene.docker.hang_ping(true);
    let missed = scene.docker.run(web("missed"));
    assert!(scene.disconnected().await.contains("ping: no answer"), "says what failed");
    scene.docker.hang_ping(false);
    scene.until(|s| s.container(&missed).is_some()).await;
}

#[tokio::test]
async fn garbage_on_the_stream_leads_to_a_new_one() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    for garbage in [&b"<html>\n"[..], b"{\"Type\":17}\n", b"\xff\xfe\n", b"{\"Type\":\"container\",]\n"] {
        scene.docker.emit_raw(garbage);
        scene.disconnected().await;
        scene.until_snapshot().await;
        let name = format!("after-{}", garbage.len());
        scene.docker.rename(&id, &name);
        scene.until(|s| *s.container(&id).unwrap().name == *name).await;
    }
}

#[tokio::test]
async fn an_engine_that_is_absent_at_first_is_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let docker = FakeDocker::stopped(dir.path().join("docker.sock"));
    let id = docker.add(web("web"));
    let mut scene = Scene::new((docker, dir), |_| {});
    let error = scene.disconnected().await;
    assert!(error.contains("docker.sock") && error.contains("does not exist"), "{error}");
    scene.docker.listen();
    assert!(matches!(scene.next().await, Change::Connected { .. }), "it says so once");
    scene.until_snapshot().await;
    assert!(scene.container(&id).is_some());
}

#[tokio::test]
async fn an_engine_that_restarts_is_found_again() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    scene.docker.stop_listening();
    scene.disconnected().await;
    assert!(scene.container(&id).is_some(), "what is known stays");
    scene.docker.listen();
    assert!(matches!(scene.next().await, Change::Connected { .. }));
    scene.until_snapshot().await;
    assert!(scene.container(&id).is_some());
}

#[tokio::test]
async fn a_list_that_fails_is_tried_again() {
    for fault in [Fault::Status(500), Fault::Garbage, Fault::Empty, Fault::Close] {
        let engine = engine();
        let id = engine.0.add(web("web"));
        engine.0.fail_list(fault);
        let mut scene = Scene::new(engine, |_| {});
        assert!(scene.disconnected().await.contains("list"), "{fault:?}");
        scene.docker.fail_list(None);
        assert!(matches!(scene.next().await, Change::Connected { .. }), "{fault:?}");
        scene.until_snapshot().await;
        assert!(scene.container(&id).is_some());
    }
}

#[tokio::test]
async fn a_missed_event_is_repaired_by_the_resync() {
    let engine = engine();
    let renamed = engine.0.add(web("old"));
    let moved = engine.0.add(web("moved"));
    let died = engine.0.add(web("died"));
    let vanished = engine.0.add(web("vanished"));
    let mut scene = Scene::settled(engine, |config| config.resync = Duration::from_millis(30)).await;
    // The stream is dead, the engine lives: no ping can tell.
    scene.docker.stall_events();
    scene.docker.rename(&renamed, "new");
    scene.docker.change(&moved, |container| {
        container.networks.insert("bridge".into(), "127.1.9.9".into());
    });
    scene.docker.die(&died);
    scene.docker.vanish(&vanished);
    let begun = scene.docker.run(web("begun"));
    scene
        .until(|s| {
            &*s.container(&renamed).unwrap().name == "new"
                && s.container(&moved).unwrap().networks["bridge"].ipv4 == "127.1.9.9".parse().ok()
                && s.container(&died).is_none()
                && s.container(&vanished).is_none()
                && s.container(&begun).is_some()
        })
        .await;
    eventually("a new stream", || scene.docker.listeners() == 1).await;
}

#[tokio::test]
async fn a_stream_found_dead_by_a_resync_is_opened_anew() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |config| config.resync = Duration::from_millis(30)).await;
    scene.docker.stall_events();
    scene.docker.rename(&id, "missed");
    scene.until(|s| &*s.container(&id).unwrap().name == "missed").await;
    eventually("a new stream", || scene.docker.listeners() == 1).await;
    assert!(scene.docker.calls().events >= 2);
}

#[tokio::test]
async fn errors_of_connecting_say_what_to_do() {
    async fn refused(address: &str) -> DockerError {
        let address = DockerAddress::parse(address, None).unwrap();
        DockerClient::connect(&address, Deadlines::default(), 1).await.map(|_| ()).unwrap_err()
    }
    let dir = tempfile::tempdir().unwrap();
    let absent = refused(&format!("unix://{}/none", dir.path().display())).await;
    assert!(matches!(absent, DockerError::Absent { .. }), "{absent}");

    // A socket that nobody serves any more.
    let path = dir.path().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let dead = refused(&format!("unix://{}", path.display())).await;
    assert!(matches!(dead, DockerError::Unreachable { .. }), "{dead}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let closed = refused(&format!("tcp://127.0.0.1:{port}")).await;
    assert!(matches!(closed, DockerError::Unreachable { .. }), "{closed}");
    assert!(closed.to_string().contains(&port.to_string()) && closed.is_retryable(), "{closed}");
}

#[tokio::test]
async fn an_engine_waits_for_its_turn_to_be_read_but_not_for_ever() {
    let turns = Arc::new(Semaphore::new(0));
    let begin = Instant::now();
    let take_turns = |config: &mut WatchConfig| config.turns = Arc::clone(&turns);
    let _scene = Scene::settled(engine(), take_turns).await;
    assert!(begin.elapsed() >= Duration::from_secs(2), "it was not its turn");

    turns.add_permits(1);
    let _scene = Scene::settled(engine(), take_turns).await;
    let back = tokio::time::timeout(PATIENCE, turns.acquire()).await;
    assert!(back.is_ok(), "who has been read lets the next one");
}
