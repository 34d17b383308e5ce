//! How containers end: announced, survived, unseen.
//!
//! What lives here: what is told of it, and when. What it must not know: engines that
//! fail.

use std::time::Duration;

use super::{NEVER, Scene, engine, eventually, web};
use crate::fake_docker::Fault;
use hapilot::core::container::{ContainerId, RunState};
use hapilot::docker::{Change, WatchConfig};

#[tokio::test]
async fn a_death_is_told_without_waiting_for_an_inspect() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |config| config.deadlines.inspect = NEVER).await;
    scene.docker.fail_inspect(&id, Fault::Hang);
    scene.docker.die(&id);
    scene.until(|s| s.container(&id).is_none()).await;
    assert!(!scene.is_unreadable(&id));
}

#[tokio::test]
async fn a_pause_is_told_without_waiting_for_an_inspect_and_taken_back_by_it() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |config| config.deadlines.inspect = NEVER).await;
    scene.docker.fail_inspect(&id, Fault::Hang);
    scene.docker.pause(&id);
    scene.until(|s| s.container(&id).unwrap().stopping).await;

    let engine = self::engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    scene.docker.pause(&id);
    scene.until(|s| s.container(&id).is_some_and(|c| c.run == RunState::Paused && !c.stopping)).await;
    scene.docker.unpause(&id);
    scene.until(|s| s.container(&id).is_some_and(|c| c.run == RunState::Running && !c.stopping)).await;
    // It is over before anybody could look: what the inspect finds is news all the same.
    scene.docker.fail_inspect(&id, Fault::Status(500));
    scene.docker.container_event(&id, "pause");
    scene.until(|s| s.container(&id).unwrap().stopping).await;
    scene.docker.fail_inspect(&id, None);
    scene.until(|s| !s.container(&id).unwrap().stopping).await;
}

/// How those that survive their stop signal are taken back at once.
fn impatient(config: &mut WatchConfig) {
    config.survival = Duration::from_millis(20);
}

#[tokio::test]
async fn a_stop_is_told_when_it_is_announced_and_without_an_inspect() {
    for (stop, signal) in
        [(None, "15"), (None, "SIGTERM"), (Some(("SIGQUIT", 1)), "3"), (None, "9"), (Some(("3", -1)), "KILL")]
    {
        let engine = engine();
        let container = web("web");
        let container =
            if let Some((signal, timeout)) = stop { container.stop(signal, timeout) } else { container };
        let id = engine.0.add(container);
        let mut scene = Scene::settled(engine, |_| {}).await;
        let before = scene.docker.calls();
        scene.docker.fail_inspect(&id, Fault::Hang);
        scene.docker.signal(&id, signal);
        scene.until(|s| s.container(&id).unwrap().stopping).await;
        // Told once.
        scene.docker.signal(&id, signal);
        scene.nothing_else().await;
        assert_eq!(scene.docker.calls().inspect - before.inspect, 1, "only the marker is inspected");
        scene.docker.die(&id);
        scene.until(|s| s.container(&id).is_none()).await;
    }
}

#[tokio::test]
async fn a_signal_that_does_not_stop_changes_nothing_and_costs_nothing() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let other = engine.0.add(web("other").stop("SIGQUIT", 10));
    let stranger = engine.0.add(web("stranger").status("created"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    let before = scene.docker.calls();
    for signal in ["1", "10", "SIGUSR2", "28", "nonsense", "", "99"] {
        scene.docker.signal(&id, signal);
    }
    scene.docker.container_event(&id, "kill");
    scene.docker.signal(&other, "15");
    scene.docker.signal(&stranger, "15");
    scene.nothing_else().await;
    assert_eq!(scene.docker.calls().inspect - before.inspect, 1, "only the marker is inspected");
    assert!(scene.believed.values().all(|container| !container.stopping));
}

#[tokio::test]
async fn who_survives_its_stop_signal_is_taken_back() {
    let engine = engine();
    let id = engine.0.add(web("web").stop("SIGTERM", 0));
    let mut scene = Scene::settled(engine, impatient).await;
    for _ in 0..2 {
        scene.docker.signal(&id, "15");
        scene.until(|s| s.container(&id).unwrap().stopping).await;
        scene.until(|s| !s.container(&id).unwrap().stopping).await;
    }
}

#[tokio::test]
async fn what_is_found_out_meanwhile_does_not_take_it_back() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    scene.docker.signal(&id, "15");
    scene.until(|s| s.container(&id).unwrap().stopping).await;
    scene.docker.rename(&id, "renamed");
    scene.until(|s| &*s.container(&id).unwrap().name == "renamed").await;
    assert!(scene.container(&id).unwrap().stopping);
    // Nor does a new connection.
    scene.docker.cut_events();
    scene.until_snapshot().await;
    assert!(scene.container(&id).unwrap().stopping);
}

#[tokio::test]
async fn a_new_process_is_not_blamed_for_the_signals_of_the_old_one() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    scene.docker.signal(&id, "15");
    scene.until(|s| s.container(&id).unwrap().stopping).await;
    scene.docker.stop(&id);
    scene.docker.start_container(&id);
    scene.docker.rename(&id, "second");
    scene.until(|s| s.container(&id).is_some_and(|container| &*container.name == "second")).await;
    assert!(!scene.container(&id).unwrap().stopping);
    // A connection that was cut hides the end and the new start.
    scene.docker.signal(&id, "15");
    scene.until(|s| s.container(&id).unwrap().stopping).await;
    scene.docker.stall_events();
    scene.docker.change(&id, |container| container.started_at += 100);
    scene.docker.cut_events();
    scene.until_snapshot().await;
    assert!(!scene.container(&id).unwrap().stopping);
}

#[tokio::test]
async fn a_stop_of_one_that_is_still_being_inspected_is_not_lost() {
    let mut scene = Scene::settled(engine(), |_| {}).await;
    // All happens before the watch can look: this test's runtime has one thread.
    let id = scene.docker.run(web("short").stop("SIGQUIT", 10));
    scene.docker.signal(&id, "3");
    scene.until(|s| s.container(&id).is_some_and(|container| container.stopping)).await;
}

#[tokio::test]
async fn an_end_that_was_asked_for_is_told_as_such() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    scene.docker.stop(&id);
    let id = ContainerId::new(&id).unwrap();
    let mut asked = false;
    loop {
        match scene.next().await {
            Change::Update { stopping, gone, .. } => {
                asked |= stopping.contains(&id);
                if gone.contains(&id) {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(asked, "its end was told as if nobody had asked for it");
}

#[tokio::test]
async fn an_end_waits_for_no_inspect_of_another() {
    let engine = engine();
    let id = engine.0.add(web("web").stop("SIGTERM", 10));
    let slow = engine.0.add(web("slow"));
    let mut scene = Scene::settled(engine, |config| config.deadlines.inspect = NEVER).await;
    scene.docker.fail_inspect(&slow, Fault::Hang);
    scene.docker.rename(&slow, "renamed");
    // An end within the second of the start takes an inspect to be sure of.
    scene.docker.start_container(&id);
    scene.until(|s| s.container(&id).unwrap().started_at != Some(1_800_000_000)).await;
    scene.docker.die(&id);
    scene.until(|s| s.container(&id).is_none()).await;
}

#[tokio::test]
async fn a_death_before_the_present_life_is_not_believed() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    let before = scene.docker.calls();
    let death = r#"{"Type":"container","Action":"die","time":1600000000,"Actor":{"ID":"@"}}"#;
    scene.docker.emit_raw(format!("{}\n", death.replace('@', &id)).as_bytes());
    eventually("an inspect", || scene.docker.calls().inspect == before.inspect + 1).await;
    scene.nothing_else().await;
    assert!(scene.container(&id).is_some());
}

#[tokio::test]
async fn a_death_that_an_inspect_denies_is_corrected() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    scene.docker.container_event(&id, "die");
    scene.until(|s| s.container(&id).is_none()).await;
    scene.until(|s| s.container(&id).is_some()).await;
}
