//! A manager of a swarm that does not know its swarm any more.
//!
//! What lives here: what visitors of tasks on other nodes notice of it. What it
//! must not know: how a manager is asked (`flow/swarm.rs`).

use super::with_one_served;
use crate::daemon::{Scene, Server, until};
use crate::fake_docker::{FakeService, FakeTask};

on!(haproxy, "3.0": no_quorum);

/// A task on another node whose process listens until dropped, and its identifier.
fn far(scene: &Scene, service: &str, slot: u64) -> (String, Server) {
    let server = Server::start("far");
    let container = format!("fa{slot:02}").repeat(16);
    let task = FakeTask::running(service, slot, "worker1", &container).driver("macvlan");
    (scene.docker.add_task(task.network("web", &server.address.ip().to_string())), server)
}

fn no_quorum(version: &str) {
    let scene = Scene::new();
    scene.docker.swarm_init("manager1");
    scene.docker.set_node("worker1", "ready");
    with_one_served(&scene, version, &[], |hapilot, _| {
        // Each task has a port of its own; a service has but one.
        let mut tasks = Vec::new();
        for slot in 1..=2 {
            let host = format!("far{slot}.example");
            let service = scene.docker.create_service(FakeService::new("far").label("hapilot.host", &host));
            let (task, server) = far(&scene, &service, slot);
            scene.docker.update_service(&service, |service| {
                service.labels.insert("hapilot.port".into(), server.address.port().to_string());
            });
            until("served", || scene.visit(&host) == (200, "far".into()));
            tasks.push((task, server));
        }
        hapilot.converge();

        scene.docker.fail_swarm(Some((503, "The swarm does not have a leader.")));
        until("it says so", || scene.check().0 == 5);
        scene.docker.strike_task(&tasks[0].0);
        // Even who has never known them leaves them alone.
        hapilot.kill();
        *hapilot = scene.attach(&[]);
        let (other, _other) = scene.serve("other", "other.example");
        scene.docker.run(other);
        until("this node goes on", || scene.visit("other.example").0 == 200);
        let status = hapilot.status();
        let error = status["docker"]["error"].as_str().unwrap();
        assert!(error.contains("does not have a leader"), "{error}");
        for host in ["far1.example", "far2.example"] {
            assert_eq!(scene.visit(host), (200, "far".into()));
        }

        scene.docker.fail_swarm(None);
        until("gone", || scene.visit("far1.example").0 == 404);
        hapilot.converge();
        assert_eq!(scene.visit("far2.example"), (200, "far".into()));
    });
}
