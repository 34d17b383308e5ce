//! A watch on a fake engine that manages a swarm: what is asked of it, and what
//! is told of tasks on other nodes and on its own.
//!
//! What lives here: movement, timing and faults. What it must not know: how an
//! answer is read (`docker::swarm` has tests of its own, on recorded ones).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail tests")]

#[path = "../support/fake_docker/mod.rs"]
mod fake_docker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fake_docker::{FakeContainer, FakeDocker, FakeService, FakeTask};
use hapilot::core::container::Container;
use hapilot::docker::{Change, DockerAddress, WatchConfig, watch};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A test that waits longer than this has failed; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(20);
/// The manager's own node.
const HERE: &str = "manager1";
/// Another.
const THERE: &str = "worker1";

/// A fake manager, a watch on it, and what an attentive listener believes.
struct Scene {
    docker: FakeDocker,
    changes: mpsc::Receiver<Change>,
    believed: BTreeMap<String, Container>,
    /// Why the swarm can't be read.
    trouble: Option<String>,
    snapshots: usize,
    relist: Arc<Notify>,
    _watch: AbortOnDropHandle<()>,
    _dir: TempDir,
}

/// An engine in no swarm.
fn engine() -> (FakeDocker, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (FakeDocker::start(dir.path().join("docker.sock")), dir)
}

/// A manager with another node.
fn manager() -> (FakeDocker, TempDir) {
    let engine = engine();
    engine.0.swarm_init(HERE);
    engine.0.set_node(THERE, "ready");
    engine
}

fn shop() -> FakeService {
    FakeService::new("shop").label("hapilot.host", "shop.example")
}

/// A container of a service on the manager's own node.
fn local(service: &str, task: &str) -> FakeContainer {
    FakeContainer::new("local")
        .network("web", "127.3.0.1")
        .label("com.docker.swarm.service.id", service)
        .label("com.docker.swarm.task.id", task)
}

fn host(container: &Container) -> Option<&str> {
    container.labels.get("hapilot.host").map(String::as_str)
}

impl Scene {
    fn new((docker, dir): (FakeDocker, TempDir)) -> Self {
        let mut config = WatchConfig::new(DockerAddress::parse(&docker.address(), None).unwrap());
        config.resync = Duration::from_secs(3600);
        config.backoff_floor = Duration::from_millis(5);
        config.backoff_ceiling = Duration::from_millis(50);
        let relist = Arc::clone(&config.relist);
        let (out, changes) = mpsc::channel(64);
        let watching = tokio::spawn(watch(config, out, CancellationToken::new()));
        Self {
            docker,
            changes,
            believed: BTreeMap::new(),
            trouble: None,
            snapshots: 0,
            relist,
            _watch: AbortOnDropHandle::new(watching),
            _dir: dir,
        }
    }

    async fn settled(engine: (FakeDocker, TempDir)) -> Self {
        let mut scene = Self::new(engine);
        scene.until(|scene| scene.snapshots > 0).await;
        scene
    }

    async fn next(&mut self) -> Change {
        let change = tokio::time::timeout(PATIENCE, self.changes.recv()).await;
        let change = change.expect("no change came").expect("the watch ended");
        match &change {
            Change::Snapshot { containers, .. } => {
                self.snapshots += 1;
                self.believed = containers.iter().map(|c| (c.id.as_str().to_owned(), c.clone())).collect();
            }
            Change::Update { changed, stopping, gone, unreadable, event_at, inspected_at } => {
                assert!(event_at <= inspected_at && *inspected_at <= Instant::now());
                let told = changed.len() + stopping.len() + gone.len() + unreadable.len();
                assert!(told > 0, "an update that tells nothing");
                self.believed.extend(changed.iter().map(|c| (c.id.as_str().to_owned(), c.clone())));
                for id in stopping {
                    self.believed.get_mut(id.as_str()).unwrap().stopping = true;
                }
                for id in gone {
                    self.believed.remove(id.as_str());
                }
            }
            Change::Swarm { error } => self.trouble.clone_from(error),
            Change::Connected { .. } | Change::Disconnected { .. } => {}
        }
        let marked = |c: &Container| c.labels.keys().any(|key| key.starts_with("com.docker"));
        assert!(!self.believed.values().any(marked), "the engine's marks are nobody else's matter");
        change
    }

    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        while !what(self) {
            self.next().await;
        }
    }

    fn host_of(&self, id: &str) -> Option<&str> {
        self.believed.get(id).and_then(host)
    }

    fn is_stopping(&self, id: &str) -> bool {
        self.believed.get(id).is_some_and(|container| container.stopping)
    }

    /// With one task that runs on the other node, in container `far`.
    async fn with_a_task() -> (Self, String, String) {
        let engine = manager();
        let service = engine.0.create_service(shop());
        let task = FakeTask::running(&service, 1, THERE, "far").network("web", "127.3.0.2");
        let task = engine.0.add_task(task);
        let scene = Self::settled(engine).await;
        assert_eq!(scene.host_of("far"), Some("shop.example"));
        (scene, service, task)
    }
}

#[tokio::test]
async fn the_first_snapshot_has_the_tasks_of_other_nodes() {
    let engine = manager();
    let service = engine.0.create_service(shop());
    let task = engine.0.add_task(FakeTask::running(&service, 2, THERE, "far").network("web", "127.3.0.2"));
    let own = engine.0.add_task(FakeTask::running(&service, 1, HERE, "near"));
    engine.0.add(local(&service, &own).id("near"));
    engine.0.add(FakeContainer::new("plain").id("plain").label("hapilot.host", "b.example"));
    let scene = Scene::settled(engine).await;
    assert_eq!(scene.believed.keys().collect::<Vec<_>>(), ["far", "near", "plain"]);
    for id in ["far", "near"] {
        assert_eq!(scene.host_of(id), Some("shop.example"));
    }
    let far = &scene.believed["far"];
    assert_eq!(&*far.name, format!("shop.2.{task}"));
    assert_eq!(far.networks["web"].ipv4, Some("127.3.0.2".parse().unwrap()));
    let near = &scene.believed["near"].networks["web"];
    assert_eq!(near.network_id(), far.networks["web"].network_id(), "one network, whoever tells of it");
    assert_eq!(scene.snapshots, 1);
}

#[tokio::test]
async fn a_task_begins_is_drained_and_ends() {
    let (mut scene, service, old) = Scene::with_a_task().await;
    let new = scene.docker.add_task(FakeTask::running(&service, 1, THERE, "new").state("starting"));
    scene.docker.change_task(&new, |task| task.state = "running".into());
    scene.until(|scene| scene.believed.contains_key("new")).await;
    scene.docker.change_task(&old, |task| task.desired = "shutdown".into());
    scene.until(|scene| scene.is_stopping("far")).await;
    assert_eq!(scene.host_of("far"), Some("shop.example"));
    scene.docker.change_task(&old, |task| task.state = "shutdown".into());
    scene.until(|scene| !scene.believed.contains_key("far")).await;
    scene.docker.strike_task(&new);
    scene.until(|scene| scene.believed.is_empty()).await;
}

#[tokio::test]
async fn a_task_on_this_node_is_drained_before_its_engine_says_a_word() {
    let engine = manager();
    let service = engine.0.create_service(shop());
    let task = engine.0.add_task(FakeTask::running(&service, 1, HERE, "near"));
    engine.0.add(local(&service, &task).id("near"));
    let mut scene = Scene::settled(engine).await;
    scene.docker.change_task(&task, |task| task.desired = "shutdown".into());
    scene.until(|scene| scene.is_stopping("near")).await;
    // The engine tells of something else: that changes nothing.
    scene.docker.rename("near", "other");
    scene.until(|scene| &*scene.believed["near"].name == "other").await;
    assert!(scene.is_stopping("near"));
    scene.docker.die("near");
    scene.until(|scene| scene.believed.is_empty()).await;
}

#[tokio::test]
async fn a_container_of_a_new_service_is_told_with_what_its_service_says() {
    let mut scene = Scene::settled(manager()).await;
    for number in 0..5 {
        let service = scene.docker.create_service(shop().label("hapilot.port", "81"));
        let id = format!("near{number}");
        scene.docker.run(local(&service, "task1").id(&id));
        scene.until(|scene| scene.believed.contains_key(&id)).await;
        assert_eq!(scene.host_of(&id), Some("shop.example"), "from the first word on");
    }
    // A container that lies about its service waits in vain, and not for long.
    scene.docker.run(local("nobody", "task1").id("liar"));
    scene.until(|scene| scene.believed.contains_key("liar")).await;
    assert_eq!(scene.host_of("liar"), None);
}

#[tokio::test]
async fn another_label_of_a_service_reaches_containers_that_run() {
    let (mut scene, service, _) = Scene::with_a_task().await;
    scene.docker.run(local(&service, "task9").id("near"));
    scene.until(|scene| scene.host_of("near") == Some("shop.example")).await;
    scene.docker.update_service(&service, |service| {
        service.labels.insert("hapilot.host".into(), "b.example".into());
    });
    let both = |host: &'static str| {
        move |scene: &Scene| ["near", "far"].iter().all(|id| scene.host_of(id) == Some(host))
    };
    scene.until(both("b.example")).await;
    scene.docker.update_service(&service, |service| service.labels.clear());
    scene.until(|scene| scene.host_of("near").is_none() && scene.host_of("far").is_none()).await;
}

#[tokio::test]
async fn a_removed_service_takes_its_tasks_along() {
    let (mut scene, service, task) = Scene::with_a_task().await;
    scene.docker.remove_service(&service);
    scene.until(|scene| scene.is_stopping("far")).await;
    assert_eq!(scene.host_of("far"), Some("shop.example"), "its requests in flight finish");
    scene.docker.strike_task(&task);
    scene.until(|scene| scene.believed.is_empty()).await;
    assert_eq!(scene.trouble, None);
}

#[tokio::test]
async fn without_a_quorum_what_is_known_stays_and_this_node_goes_on() {
    let (mut scene, service, task) = Scene::with_a_task().await;
    scene.docker.fail_swarm(Some((503, "rpc error: The swarm does not have a leader.")));
    scene.until(|scene| scene.trouble.is_some()).await;
    assert!(scene.trouble.as_ref().unwrap().contains("does not have a leader"), "{:?}", scene.trouble);
    scene.docker.change_task(&task, |task| task.state = "failed".into());
    scene.docker.run(FakeContainer::new("plain").id("plain").label("hapilot.host", "b.example"));
    scene.until(|scene| scene.believed.contains_key("plain")).await;
    // A connection that is made anew changes nothing about that.
    let snapshots = scene.snapshots;
    scene.docker.stop_listening();
    scene.docker.listen();
    scene.until(|scene| scene.snapshots > snapshots).await;
    assert_eq!(scene.host_of("far"), Some("shop.example"));

    scene.docker.fail_swarm(None);
    scene.until(|scene| scene.trouble.is_none() && !scene.believed.contains_key("far")).await;
    scene.docker.add_task(FakeTask::running(&service, 1, THERE, "new"));
    scene.until(|scene| scene.believed.contains_key("new")).await;
}

#[tokio::test]
async fn the_first_snapshot_waits_for_a_swarm_that_has_no_quorum_yet() {
    let engine = manager();
    let service = engine.0.create_service(shop());
    engine.0.add_task(FakeTask::running(&service, 1, THERE, "far"));
    engine.0.fail_swarm(Some((503, "no leader")));
    let mut scene = Scene::new(engine);
    scene.until(|scene| scene.trouble.is_some()).await;
    assert_eq!(scene.snapshots, 0);
    scene.docker.fail_swarm(None);
    scene.until(|scene| scene.snapshots > 0).await;
    assert!(scene.believed.contains_key("far"));
}

#[tokio::test]
async fn a_first_snapshot_without_the_swarm_says_so_first() {
    let engine = manager();
    let service = engine.0.create_service(shop());
    engine.0.add_task(FakeTask::running(&service, 1, THERE, "far"));
    engine.0.add(FakeContainer::new("plain").id("plain"));
    engine.0.fail_swarm(Some((503, "no leader")));
    let mut scene = Scene::new(engine);
    while scene.snapshots == 0 {
        scene.next().await;
        assert!(scene.snapshots == 0 || scene.trouble.is_some());
    }
    assert!(scene.believed.contains_key("plain") && !scene.believed.contains_key("far"));
    scene.docker.fail_swarm(None);
    while scene.trouble.is_some() {
        scene.next().await;
    }
    assert!(scene.believed.contains_key("far"), "first the tasks, then the good news");
}

#[tokio::test]
async fn who_is_no_manager_any_more_knows_no_tasks() {
    let (mut scene, ..) = Scene::with_a_task().await;
    scene.docker.swarm_role(Some("worker"));
    scene.until(|scene| scene.believed.is_empty()).await;
    assert_eq!(scene.trouble, None, "that is no fault");
}

#[tokio::test]
async fn a_locked_manager_says_so_and_forgets_nothing() {
    let (mut scene, ..) = Scene::with_a_task().await;
    scene.docker.swarm_role(Some("locked"));
    scene.until(|scene| scene.trouble.as_ref().is_some_and(|trouble| trouble.contains("locked"))).await;
    assert!(scene.believed.contains_key("far"));
    scene.docker.swarm_role(None);
    scene.until(|scene| scene.trouble.is_none()).await;
    assert!(scene.believed.contains_key("far"));
}

#[tokio::test]
async fn who_is_in_no_swarm_is_not_asked_about_one() {
    let mut scene = Scene::settled(engine()).await;
    scene.docker.run(FakeContainer::new("plain").id("plain"));
    scene.until(|scene| scene.believed.contains_key("plain")).await;
    let calls = scene.docker.calls();
    // The watch itself asks once, too: whether containers outlive their engine.
    assert!(calls.info <= 2, "{calls:?}");
    assert_eq!((calls.book, calls.tasks, calls.events), (0, 0, 1));
}

#[tokio::test]
async fn an_engine_that_becomes_a_manager_is_found_on_request_or_by_its_first_task() {
    for by_request in [true, false] {
        let mut scene = Scene::settled(engine()).await;
        scene.docker.swarm_init(HERE);
        scene.docker.set_node(THERE, "ready");
        let service = scene.docker.create_service(shop());
        scene.docker.add_task(FakeTask::running(&service, 1, THERE, "far"));
        if by_request {
            scene.relist.notify_one();
        } else {
            scene.docker.run(local(&service, "task1").id("near"));
        }
        scene.until(|scene| scene.host_of("far") == Some("shop.example")).await;
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_no_fault() {
    let engine = manager();
    engine.0.fail_swarm(Some((403, "Forbidden")));
    engine.0.add(FakeContainer::new("plain").id("plain"));
    let scene = Scene::settled(engine).await;
    assert_eq!((scene.believed.len(), scene.trouble), (1, None));
}

#[tokio::test]
async fn a_manager_of_services_that_say_nothing_is_not_asked_for_tasks() {
    let engine = manager();
    let service = engine.0.create_service(FakeService::new("database"));
    engine.0.add_task(FakeTask::running(&service, 1, THERE, "far"));
    let mut scene = Scene::settled(engine).await;
    scene.docker.run(local(&service, "task1").id("near"));
    scene.until(|scene| scene.believed.contains_key("near")).await;
    assert_eq!(scene.docker.calls().tasks, 0);
    // Until one of them does.
    scene.docker.update_service(&service, |service| {
        service.labels.insert("hapilot.host".into(), "db.example".into());
    });
    scene.until(|scene| scene.host_of("far").is_some() && scene.host_of("near").is_some()).await;
}

#[tokio::test]
async fn what_is_to_end_on_a_lost_node_is_gone() {
    let (mut scene, _, task) = Scene::with_a_task().await;
    scene.docker.set_node(THERE, "down");
    scene.docker.change_task(&task, |task| task.desired = "shutdown".into());
    scene.until(|scene| scene.believed.is_empty()).await;
}

#[tokio::test]
async fn a_still_swarm_is_left_in_peace_and_another_nodes_task_is_seen_within_a_second() {
    let (mut scene, service, _) = Scene::with_a_task().await;
    // Nothing has moved for a while.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = scene.docker.calls();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = scene.docker.calls();
    assert!(after.tasks - before.tasks <= 7, "{} looks at tasks in 3 s", after.tasks - before.tasks);
    assert!(after.book - before.book <= 2 && after.info == before.info);

    // No event tells of this.
    let mut seen = Vec::new();
    for number in 0..3 {
        let began = Instant::now();
        let id = format!("new{number}");
        scene.docker.add_task(FakeTask::running(&service, number, THERE, &id));
        scene.until(|scene| scene.believed.contains_key(&id)).await;
        seen.push(began.elapsed());
    }
    assert!(seen[0] < Duration::from_secs(1), "{seen:?}");
}
