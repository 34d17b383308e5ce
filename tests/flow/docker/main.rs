//! The Docker side against a fake engine: what is asked of the engine, and
//! what is told of it.
//!
//! What lives here: the watch while all goes well; below it, how containers end, and
//! an engine that fails. What it must not know: what the containers are for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail tests")]

#[path = "../../support/fake_docker/mod.rs"]
mod fake_docker;
mod faults;
mod stops;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fake_docker::{FakeContainer, FakeDocker, network_id};
use hapilot::core::container::{Container, ContainerId, Driver, Health, NetworkMode, RunState};
use hapilot::docker::{Change, DockerAddress, WatchConfig, watch};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A test that waits longer than this has failed; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough that nothing of the kind happens within a test.
const NEVER: Duration = Duration::from_secs(3600);

/// A fake engine, a watch on it, and what an attentive listener believes.
struct Scene {
    docker: FakeDocker,
    changes: mpsc::Receiver<Change>,
    believed: BTreeMap<ContainerId, Container>,
    unreadable: BTreeMap<ContainerId, String>,
    _watch: AbortOnDropHandle<()>,
    _dir: TempDir,
}

fn engine() -> (FakeDocker, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (FakeDocker::start(dir.path().join("docker.sock")), dir)
}

fn address(docker: &FakeDocker) -> DockerAddress {
    DockerAddress::parse(&docker.address(), None).unwrap()
}

/// Settings under which nothing happens but what a test asks for.
fn calm(config: &mut WatchConfig) {
    config.resync = NEVER;
    config.quiet = NEVER;
    config.backoff_floor = Duration::from_millis(5);
    config.backoff_ceiling = Duration::from_millis(20);
}

impl Scene {
    fn new((docker, dir): (FakeDocker, TempDir), adjust: impl FnOnce(&mut WatchConfig)) -> Self {
        let mut config = WatchConfig::new(address(&docker));
        calm(&mut config);
        adjust(&mut config);
        let (out, changes) = mpsc::channel(64);
        let watching = tokio::spawn(watch(config, out, CancellationToken::new()));
        Self {
            docker,
            changes,
            believed: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            _watch: AbortOnDropHandle::new(watching),
            _dir: dir,
        }
    }

    /// With a watch that has told its first snapshot.
    async fn settled(engine: (FakeDocker, TempDir), adjust: impl FnOnce(&mut WatchConfig)) -> Self {
        let mut scene = Self::new(engine, adjust);
        scene.until_snapshot().await;
        scene
    }

    async fn next(&mut self) -> Change {
        let change = tokio::time::timeout(PATIENCE, self.changes.recv()).await;
        let change = change.expect("no change came").expect("the watch ended");
        match &change {
            Change::Snapshot { containers, unreadable, .. } => {
                self.unreadable = unreadable.iter().cloned().collect();
                let (unreadable, before) = (&self.unreadable, std::mem::take(&mut self.believed));
                self.believed = before.into_iter().filter(|(id, _)| unreadable.contains_key(id)).collect();
                self.believed.extend(containers.iter().map(|c| (c.id.clone(), c.clone())));
            }
            Change::Update { changed, stopping, gone, unreadable, event_at, inspected_at } => {
                assert!(event_at <= inspected_at && *inspected_at <= Instant::now());
                let told = changed.len() + stopping.len() + gone.len() + unreadable.len();
                assert!(told > 0, "an update that tells nothing");
                for container in changed {
                    self.unreadable.remove(&container.id);
                    self.believed.insert(container.id.clone(), container.clone());
                }
                for id in stopping {
                    self.believed.get_mut(id).expect("only who is known is told to end").stopping = true;
                }
                for id in gone {
                    self.unreadable.remove(id);
                    self.believed.remove(id);
                }
                self.unreadable.extend(unreadable.iter().cloned());
            }
            Change::Connected { .. } | Change::Disconnected { .. } | Change::Swarm { .. } => {}
        }
        change
    }

    async fn until_snapshot(&mut self) {
        while !matches!(self.next().await, Change::Snapshot { .. }) {}
    }

    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        while !what(self) {
            self.next().await;
        }
    }

    async fn disconnected(&mut self) -> String {
        match self.next().await {
            Change::Disconnected { error } => error,
            other => panic!("expected a disconnection, got {other:?}"),
        }
    }

    fn container(&self, id: &str) -> Option<&Container> {
        self.believed.get(&ContainerId::new(id).unwrap())
    }

    fn is_unreadable(&self, id: &str) -> bool {
        self.unreadable.contains_key(&ContainerId::new(id).unwrap())
    }

    /// Proves that nothing else was told: a further event is the next to be.
    async fn nothing_else(&mut self) {
        let marker = self.docker.run(web("marker"));
        match self.next().await {
            Change::Update { changed, stopping, gone, unreadable, .. } => {
                assert_eq!((changed.len(), stopping.len()), (1, 0), "{changed:?} {stopping:?}");
                assert_eq!(changed[0].id.as_str(), marker);
                assert!(gone.is_empty() && unreadable.is_empty(), "{gone:?} {unreadable:?}");
            }
            other => panic!("expected the marker, got {other:?}"),
        }
    }
}

fn web(name: &str) -> FakeContainer {
    FakeContainer::new(name).env("VIRTUAL_HOST", "a.example").network("bridge", "127.1.0.1").expose(8080)
}

/// Waits for something that shows in the fake engine only.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn it_begins_with_a_snapshot_of_what_runs() {
    let engine = engine();
    let full = engine.0.add(
        FakeContainer::new("full")
            .env("VIRTUAL_HOST", "a.example")
            .env("SECRET", "x")
            .label("hapilot.port", "81")
            .label("other", "x")
            .network("blue", "127.1.0.7")
            .network("red", "")
            .expose(9000)
            .expose(80)
            .health("healthy"),
    );
    let paused = engine.0.add(web("paused").status("paused"));
    engine.0.add(web("stopped").status("exited"));
    let host = engine.0.add(FakeContainer::new("host").network_mode("host").network("host", ""));
    let mut scene = Scene::new(engine, |_| {});

    match scene.next().await {
        Change::Connected { api_version, engine_version } => {
            assert_eq!((&*api_version, &*engine_version), ("1.41", "20.10.24-fake"));
        }
        other => panic!("{other:?}"),
    }
    scene.until_snapshot().await;

    assert_eq!(scene.believed.len(), 3);
    let container = scene.container(&full).unwrap();
    assert_eq!(
        (&*container.name, container.run, container.health),
        ("full", RunState::Running, Some(Health::Healthy))
    );
    assert_eq!(container.started_at, Some(1_700_000_000));
    assert_eq!(container.exposed_ports, [80, 9000]);
    assert_eq!(container.env.keys().collect::<Vec<_>>(), ["VIRTUAL_HOST"]);
    assert_eq!(container.labels.keys().collect::<Vec<_>>(), ["hapilot.port"]);
    assert_eq!(container.networks["blue"].ipv4, Some("127.1.0.7".parse().unwrap()));
    assert_eq!(container.networks["red"].ipv4, None);
    assert_eq!(scene.container(&paused).unwrap().run, RunState::Paused);
    assert_eq!(scene.container(&host).unwrap().network_mode, NetworkMode::Host);
    let calls = scene.docker.calls();
    assert_eq!((calls.list, calls.inspect, calls.events), (1, 3, 1));
}

#[tokio::test]
async fn the_api_version_is_the_lower_of_both() {
    for (engines, spoken) in [("1.41", "v1.41"), ("1.99", "v1.53")] {
        let engine = engine();
        engine.0.set_api_version(engines);
        engine.0.add(web("web"));
        let scene = Scene::settled(engine, |_| {}).await;
        for path in scene.docker.paths() {
            let prefixed = path.contains(&format!("/{spoken}/"));
            assert!(prefixed || path == "/version", "{path}");
        }
    }
}

#[tokio::test]
async fn an_event_costs_one_inspect_whatever_the_number_of_containers() {
    let engine = engine();
    for number in 0..500 {
        engine.0.add(web(&format!("old-{number}")));
    }
    let mut scene = Scene::settled(engine, |_| {}).await;
    let before = scene.docker.calls();
    let id = scene.docker.run(web("new"));
    scene.until(|s| s.container(&id).is_some()).await;
    let after = scene.docker.calls();
    assert_eq!((after.list - before.list, after.inspect - before.inspect), (0, 1));
}

/// What only the engine's list of networks tells, and how often it is asked.
#[tokio::test]
async fn the_kind_of_a_network_is_asked_once() {
    let (docker, dir) = engine();
    docker.set_network(&network_id("closed"), "bridge", true);
    docker.set_network("swarmnet", "overlay", false);
    let first = docker.add(FakeContainer::new("first").network("closed", "127.0.0.2").overlay(
        "farm",
        "swarmnet",
        "127.0.0.3",
    ));
    let mut scene = Scene::settled((docker, dir), |_| {}).await;
    let kind = |scene: &Scene, id: &str, network: &str| {
        let network =
            scene.believed[&ContainerId::new(id).unwrap()].networks[network].network.clone().unwrap();
        (network.driver, network.internal)
    };
    assert_eq!(kind(&scene, &first, "closed"), (Driver::Bridge, true));
    assert_eq!(kind(&scene, &first, "farm"), (Driver::Overlay, false));
    assert_eq!(scene.docker.calls().networks, 1);

    scene.docker.set_network(&network_id("lan"), "macvlan", false);
    for (name, calls) in [("second", 2), ("third", 2)] {
        let id = scene.docker.run(FakeContainer::new(name).network("lan", "127.0.0.4"));
        scene.until(|scene| scene.believed.contains_key(&ContainerId::new(&id).unwrap())).await;
        assert_eq!(kind(&scene, &id, "lan"), (Driver::Other, false));
        assert_eq!(scene.docker.calls().networks, calls, "{name}");
    }
}

#[tokio::test]
async fn a_container_lives_and_dies() {
    let mut scene = Scene::settled(engine(), |_| {}).await;
    let id = scene.docker.run(web("web"));
    scene.until(|s| s.container(&id).is_some()).await;

    scene.docker.pause(&id);
    scene.until(|s| s.container(&id).unwrap().run == RunState::Paused).await;
    scene.docker.unpause(&id);
    scene.until(|s| s.container(&id).unwrap().run == RunState::Running).await;
    scene.docker.rename(&id, "other");
    scene.until(|s| &*s.container(&id).unwrap().name == "other").await;
    scene.docker.health(&id, "unhealthy");
    scene.until(|s| s.container(&id).unwrap().health == Some(Health::Unhealthy)).await;
    scene.docker.connect(&id, "blue", "127.2.0.1");
    scene.until(|s| s.container(&id).unwrap().networks.contains_key("blue")).await;
    scene.docker.disconnect(&id, "bridge");
    scene.until(|s| !s.container(&id).unwrap().networks.contains_key("bridge")).await;
    scene.docker.stop(&id);
    scene.until(|s| s.container(&id).is_none()).await;
    // The events that follow a death are over.
    scene.nothing_else().await;
    let before = scene.docker.calls();
    scene.docker.destroy(&id);
    scene.nothing_else().await;
    assert_eq!(scene.docker.calls().inspect - before.inspect, 1, "only the marker is inspected");
}

#[tokio::test]
async fn events_about_strangers_that_can_begin_nothing_cost_nothing() {
    let engine = engine();
    let stranger = engine.0.add(web("stranger").status("created"));
    let mut scene = Scene::settled(engine, |_| {}).await;
    let before = scene.docker.calls();
    scene.docker.container_event(&stranger, "die");
    scene.docker.network_event(&stranger, "connect", "bridge");
    scene.docker.container_event("0123456789abcdef", "destroy");
    scene.docker.network_event("", "destroy", "bridge");
    scene.nothing_else().await;
    assert_eq!(scene.docker.calls().inspect - before.inspect, 1, "only the marker is inspected");
}

#[tokio::test]
async fn a_container_that_is_gone_before_its_inspect_is_no_trouble() {
    let mut scene = Scene::settled(engine(), |_| {}).await;
    // Both happen before the watch can look: this test's runtime has one thread.
    let id = scene.docker.run(web("short"));
    scene.docker.vanish(&id);
    scene.nothing_else().await;

    let id = scene.docker.run(web("known"));
    scene.until(|s| s.container(&id).is_some()).await;
    scene.docker.container_event(&id, "restart");
    scene.docker.vanish(&id);
    scene.until(|s| s.container(&id).is_none()).await;
}

#[tokio::test]
async fn a_burst_is_few_updates_and_one_inspect_each() {
    let engine = engine();
    let ids: Vec<String> = (0..100).map(|number| engine.0.add(web(&format!("web-{number}")))).collect();
    let mut scene = Scene::settled(engine, |_| {}).await;
    let before = scene.docker.calls();
    for id in &ids {
        // Several events for each, as Docker sends them.
        scene.docker.container_event(id, "update");
        scene.docker.rename(id, "burst");
    }
    let (mut updates, begin) = (0, Instant::now());
    while scene.believed.values().any(|container| &*container.name != "burst") {
        scene.next().await;
        updates += 1;
    }
    let inspects = scene.docker.calls().inspect - before.inspect;
    assert!(inspects <= 200, "{inspects} inspects for 200 events");
    // What is found within 20 ms is told together, however busy the machine is.
    let most = 2 + begin.elapsed().as_millis() / 20;
    assert!(updates <= most, "{updates} updates, {most} expected at most");
}

#[tokio::test]
async fn a_resync_of_what_has_not_changed_is_one_call() {
    let engine = engine();
    for number in 0..50 {
        engine.0.add(web(&format!("web-{number}")).label("hapilot.x", "1").health("healthy"));
    }
    engine.0.add(web("paused").status("paused").health("healthy"));
    let mut scene = Scene::settled(engine, |config| config.resync = Duration::from_millis(10)).await;
    eventually("resyncs", || scene.docker.calls().list >= 5).await;
    assert_eq!(scene.docker.calls().inspect, 51, "only those of the first snapshot");
    scene.nothing_else().await;
    assert_eq!(scene.docker.calls().events, 1);
}

#[tokio::test]
async fn who_rings_has_everything_listed_now() {
    let engine = engine();
    let id = engine.0.add(web("web"));
    let relist = Arc::new(Notify::new());
    let bell = Arc::clone(&relist);
    let mut scene = Scene::settled(engine, |config| config.relist = bell).await;
    scene.docker.vanish(&id);
    relist.notify_one();
    scene.next().await;
    assert!(scene.believed.is_empty());
}

#[tokio::test]
async fn an_event_between_the_list_and_the_snapshot_is_not_lost() {
    // 200 containers keep the first inspects busy while one of them changes.
    let engine = engine();
    let ids: Vec<String> = (0..200).map(|number| engine.0.add(web(&format!("web-{number}")))).collect();
    let mut scene = Scene::new(engine, |config| config.concurrency = 1);
    eventually("the inspects", || scene.docker.calls().inspect >= 20).await;
    for id in &ids {
        scene.docker.rename(id, "during");
    }
    scene.until(|s| s.believed.len() == 200 && s.believed.values().all(|c| &*c.name == "during")).await;
}

#[tokio::test]
async fn it_ends_when_told_to_or_when_nobody_listens() {
    let (docker, _dir) = engine();
    let (out, mut changes) = mpsc::channel(8);
    let shutdown = CancellationToken::new();
    let mut config = WatchConfig::new(address(&docker));
    calm(&mut config);
    let task = tokio::spawn(watch(config.clone(), out, shutdown.clone()));
    changes.recv().await.unwrap();
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();

    let (out, changes) = mpsc::channel(8);
    drop(changes);
    let task = tokio::spawn(watch(config, out, CancellationToken::new()));
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
}
