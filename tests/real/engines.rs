//! hapilot with several engines: fakes of Docker, and real HAProxy.
//!
//! What lives here: one inventory of many engines, and what an engine that is
//! away, or answers nonsense, does to the others: nothing. What it must not know:
//! faults of a single engine (`flow/docker.rs`, `real/engine_faults.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/fake_docker/mod.rs"]
mod fake_docker;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use daemon::{Scene, Server, check_at, until};
use fake_docker::{FakeContainer, FakeDocker, FakeService, FakeTask, Fault};
use serde_json::Value;

/// A scene with engines of these names, each listening; `more` follows the URL.
fn scene(engines: &[(&str, &str)]) -> (Scene, Vec<FakeDocker>) {
    let mut scene = Scene::without_docker();
    let dockers: Vec<FakeDocker> = engines
        .iter()
        .map(|(name, _)| FakeDocker::start(scene.root().join(format!("{name}.sock"))))
        .collect();
    let words = engines
        .iter()
        .zip(&dockers)
        .map(|((name, more), docker)| format!("{name}={}{more}", docker.address()));
    scene.engines = Some(words.collect::<Vec<_>>().join(" "));
    (scene, dockers)
}

/// Of a status: each host with its servers' containers, and the state of each.
fn hosts(status: &Value) -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let server = |server: &Value| format!("{} {}", text(&server["container"]), text(&server["state"]));
    let host = |host: &Value| {
        let mut servers: Vec<String> = host["servers"].as_array().unwrap().iter().map(server).collect();
        servers.sort();
        (text(&host["host"]), servers)
    };
    status["hosts"].as_array().unwrap().iter().map(host).collect()
}

/// Of a status: each engine, whether it is connected, and how many containers it has.
fn engines(status: &Value) -> Vec<(String, bool, u64)> {
    let engine = |engine: &Value| {
        let (name, connected) = (engine["name"].as_str().unwrap(), engine["connected"].as_bool().unwrap());
        (name.to_owned(), connected, engine["containers"].as_u64().unwrap())
    };
    status["engines"].as_array().unwrap().iter().map(engine).collect()
}

fn engine(name: &str, connected: bool, containers: u64) -> (String, bool, u64) {
    (name.to_owned(), connected, containers)
}

fn up(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{name} up")).collect()
}

/// A container of this name behind an address, and one more that answers there.
fn web(scene: &Scene, name: &str, host: &str) -> (FakeContainer, Server) {
    scene.serve(name, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_freezes_only_its_own_containers() {
    let (scene, dockers) = scene(&[("a", ""), ("b", "")]);
    let [a, b] = &dockers[..] else { panic!("two") };
    let (one, _one) = web(&scene, "web", "shop.example");
    let (two, _two) = web(&scene, "web", "shop.example");
    let (only, _only) = web(&scene, "only", "b.example");
    a.add(one);
    b.add(two);
    let only = b.add(only);
    let mut hapilot = scene.spawn("3.0", &[]);
    hapilot.converge();
    let status = hapilot.status();
    // Names are qualified where they clash, and only there.
    assert_eq!(hosts(&status)["shop.example"], up(&["a/web", "b/web"]));
    assert_eq!(hosts(&status)["b.example"], up(&["only"]));
    assert_eq!(engines(&status), [engine("a", true, 1), engine("b", true, 2)]);

    b.stop_listening();
    until("b is missed", || scene.check().0 == 5);
    let said = scene.check().1;
    assert!(said.contains("1 of 2 engines (b)"), "{said}");
    // The other goes on as ever.
    let (late, _late) = web(&scene, "late", "a.example");
    let late = a.run(late);
    until("a new container of a is served", || scene.visit("a.example") == (200, "late".to_owned()));
    a.die(&late);
    until("it is gone again", || scene.visit("a.example").0 == 404);
    assert_eq!(scene.visit("b.example"), (200, "only".to_owned()));
    let status = hapilot.status();
    assert_eq!(hosts(&status)["shop.example"], up(&["a/web", "b/web"]));
    assert_eq!(engines(&status), [engine("a", true, 1), engine("b", false, 2)]);
    assert_eq!(hapilot.said("not connected to Docker"), 1, "it is said once");

    // What happened there meanwhile shows when it is back.
    b.die(&only);
    b.listen();
    until("b's container is gone", || scene.visit("b.example").0 == 404);
    hapilot.converge();
    assert_eq!(hosts(&hapilot.status())["shop.example"], up(&["a/web", "b/web"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_hapilot_keeps_the_servers_of_an_engine_that_is_away() {
    for version in ["3.0", "3.4"] {
        let (scene, dockers) = scene(&[("a", ""), ("b", "")]);
        let [a, b] = &dockers[..] else { panic!("two") };
        let (gone, _gone) = web(&scene, "gone", "a.example");
        let (kept, _kept) = web(&scene, "kept", "b.example");
        let (shared, _shared) = web(&scene, "shared", "shop.example");
        let gone = a.add(gone);
        b.add(kept);
        let shared = b.add(shared);
        let haproxy = scene.haproxy(version, &[]);
        let mut hapilot = scene.attach(&[]);
        hapilot.converge();
        hapilot.kill();

        // While nobody looks: one of a's ends, one begins; b goes away, and then one of
        // its ends, too.
        a.die(&gone);
        let (new, _new) = web(&scene, "new", "shop.example");
        a.add(new);
        b.stop_listening();
        b.die(&shared);
        let hapilot = scene.attach(&[]);
        until("it answers", || scene.check().0 == 5);
        until("what a has is served", || {
            let hosts = hosts(&hapilot.status());
            hosts.get("shop.example").is_some_and(|servers| servers.contains(&"new up".to_owned()))
        });
        assert_eq!(scene.visit("b.example"), (200, "kept".to_owned()), "{version}");
        assert_eq!(scene.check().0, 5, "it doesn't say that all is well");
        let shop = &hosts(&hapilot.status())["shop.example"];
        assert_eq!(shop.len(), 2, "of b's nobody knows better: {shop:?}");

        b.listen();
        until("all is known", || scene.check().0 == 0);
        let hosts = hosts(&hapilot.status());
        assert_eq!(hosts["shop.example"], up(&["new"]), "{version}");
        assert_eq!(hosts["b.example"], up(&["kept"]), "{version}");
        assert!(!hosts.contains_key("a.example"), "{version}: {hosts:?}");
        drop((hapilot, haproxy));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_answers_nonsense_is_reported_and_the_others_go_on() {
    let (scene, dockers) = scene(&[("a", ""), ("b", ""), ("c", "")]);
    let [a, b, c] = &dockers[..] else { panic!("three") };
    let (one, _one) = web(&scene, "one", "a.example");
    let (two, _two) = web(&scene, "two", "b.example");
    let (three, _three) = web(&scene, "three", "c.example");
    a.add(one);
    b.add(two);
    let three = c.add(three);
    b.fail_list(Fault::Garbage);
    c.fail_inspect(&three, Fault::Garbage);
    let hapilot = scene.spawn("3.0", &[]);
    until("a's container is served", || scene.visit("a.example").0 == 200);
    assert_eq!(scene.visit("b.example").0, 404);
    until("b is missed", || {
        let (code, said) = scene.check();
        code == 5 && said.contains("1 of 3 engines (b)")
    });
    let status = hapilot.status();
    assert_eq!(engines(&status), [engine("a", true, 1), engine("b", false, 0), engine("c", true, 1)]);
    let rejected = status["rejected"].to_string();
    assert!(rejected.contains("inspect"), "{rejected}");

    b.fail_list(None);
    c.fail_inspect(&three, None);
    until("all are served", || ["b.example", "c.example"].iter().all(|host| scene.visit(host).0 == 200));
    until("all is well", || scene.check().0 == 0);
}

/// One engine listed twice: whose word counts is settled by the names, and the
/// other's does when it goes away.
#[tokio::test(flavor = "multi_thread")]
async fn one_engine_listed_twice_is_served_once() {
    let (scene, dockers) = scene(&[("b", ""), ("a", "")]);
    let (container, _server) = web(&scene, "web", "shop.example");
    for docker in &dockers {
        docker.add(container.clone());
    }
    let id = container.id.clone().unwrap();
    let mut hapilot = scene.spawn("3.0", &[]);
    hapilot.converge();
    let whose = || {
        let status = hapilot.status();
        let servers = status["hosts"][0]["servers"].as_array().unwrap().clone();
        assert_eq!(servers.len(), 1, "{servers:?}");
        servers[0]["engine"].as_str().unwrap().to_owned()
    };
    assert_eq!(whose(), "a");
    dockers[1].stop_listening();
    until("the other's word counts", || whose() == "b");
    assert_eq!(scene.visit("shop.example").0, 200);
    // What has ended by its word does not come back by the old word of the other.
    dockers[0].die(&id);
    until("it is gone", || scene.visit("shop.example").0 == 404);
    dockers[1].die(&id);
    dockers[1].listen();
    until("all is well", || scene.check().0 == 0);
    assert_eq!(scene.visit("shop.example").0, 404);
}

/// The API of standalone Swarm: one endpoint for many hosts, whose published ports
/// carry the hosts' own addresses. The containers' own addresses are of no use.
#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_for_many_hosts_is_reached_by_published_ports() {
    let (scene, dockers) = scene(&[("farm", ",address=127.0.0.1")]);
    let servers: Vec<Server> = (0..6).map(|n| Server::start(&format!("web-{n}"))).collect();
    let published = |n: usize, at: SocketAddr| {
        // On three hosts, each of which gives its containers the same addresses.
        FakeContainer::new(format!("host-{}/web-{n}", n % 3))
            .id(&format!("{:064x}", n + 1))
            .env("VIRTUAL_HOST", "shop.example")
            .env("VIRTUAL_PORT", "8000")
            .network("bridge", &format!("127.250.0.{}", 2 + n / 3))
            .publish(8000, &at.ip().to_string(), at.port())
    };
    for (n, server) in servers.iter().enumerate() {
        dockers[0].add(published(n, server.address));
    }
    let mut hapilot = scene.spawn("3.0", &[]);
    hapilot.converge();
    let status = hapilot.status();
    let addresses = status["hosts"][0]["servers"].as_array().unwrap().iter();
    let mut addresses: Vec<String> = addresses.map(|s| s["address"].as_str().unwrap().to_owned()).collect();
    let mut wanted: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    addresses.sort();
    wanted.sort();
    assert_eq!(addresses, wanted);
    assert_eq!(scene.visit("shop.example").0, 200);
    // One that publishes nothing is told so.
    let hidden =
        FakeContainer::new("hidden").env("VIRTUAL_HOST", "hidden.example").network("bridge", "127.250.0.9");
    dockers[0].run(hidden);
    until("it is rejected", || {
        let rejected = hapilot.status()["rejected"].to_string();
        rejected.contains("port 80 is not published")
    });
}

/// Many engines: each has its containers, all are served, and the loss of some is
/// told in one line.
#[tokio::test(flavor = "multi_thread")]
async fn many_engines_converge() {
    const ENGINES: usize = 40;
    const EACH: usize = 5;
    let mut scene = Scene::without_docker();
    let server = Server::start("web");
    let dockers: Vec<FakeDocker> = (0..ENGINES)
        .map(|n| {
            let docker = FakeDocker::start(scene.root().join(format!("{n}.sock")));
            for index in 0..EACH {
                let number = n * EACH + index + 1;
                let [_, b, c, d] = u32::try_from(number).unwrap().to_be_bytes();
                docker.add(
                    FakeContainer::new(format!("web-{index}"))
                        .id(&format!("{number:012x}{:052x}", 0))
                        .env("VIRTUAL_HOST", &format!("host-{}.example", number % 10))
                        .env("VIRTUAL_PORT", &server.address.port().to_string())
                        .network("bridge", &format!("127.{}.{c}.{d}", 100 + b)),
                );
            }
            docker
        })
        .collect();
    let words = dockers.iter().enumerate().map(|(n, docker)| format!("e{n:02}={}", docker.address()));
    scene.engines = Some(words.collect::<Vec<_>>().join(" "));
    let mut hapilot = scene.spawn("3.0", &[]);
    hapilot.converge();
    let servers: usize = hosts(&hapilot.status()).values().map(Vec::len).sum();
    assert_eq!(servers, ENGINES * EACH);
    for docker in &dockers[..10] {
        docker.stop_listening();
    }
    until("ten are missed", || {
        check_at(&scene.dir()).1.contains("10 of 40 engines (e00, e01, e02 and 7 more)")
    });
    for docker in &dockers[..10] {
        docker.listen();
    }
    hapilot.converge();
}

/// A task of one swarm is told by its own engine and by all managers: it is one
/// server, its service's labels count wherever it is told from, and its own engine
/// is the first to know of its end.
#[tokio::test(flavor = "multi_thread")]
async fn the_engines_of_one_swarm() {
    let (scene, dockers) = scene(&[("a", ""), ("b", ""), ("c", "")]);
    let [a, b, worker] = &dockers[..] else { panic!("three") };
    let managers = [a, b];
    for (manager, node) in managers.into_iter().zip(["manager1", "manager2"]) {
        manager.swarm_init(node);
        for node in ["manager1", "manager2", "worker1"] {
            manager.set_node(node, "ready");
        }
    }
    // One on the second manager's node, the other on the worker's.
    let mut tasks = Vec::new();
    for (engine, node, letter) in [(b, "manager2", "b"), (worker, "worker1", "c")] {
        let server = Server::start(letter);
        let (ip, port) = (server.address.ip().to_string(), server.address.port().to_string());
        let label = |key: &str, value: &str| FakeService::new(node).label(key, value);
        let service = || label("hapilot.host", "shop.example").label("hapilot.port", &port);
        let id = letter.repeat(64);
        let told = managers.map(|manager| {
            let service = manager.create_service(service());
            let task = FakeTask::running(&service, 1, node, &id).driver("macvlan").network("web", &ip);
            (manager.add_task(task), service)
        });
        assert_eq!(told[0], told[1], "the book is the same");
        let [(task, service), _] = told;
        engine.add(
            FakeContainer::new(format!("{node}.1.{task}"))
                .id(&id)
                .network("web", &ip)
                .label("com.docker.swarm.service.id", &service)
                .label("com.docker.swarm.task.id", &task),
        );
        tasks.push((task, id, server));
    }
    let mut hapilot = scene.spawn("3.0", &[]);
    hapilot.converge();
    let servers = |hapilot: &daemon::Hapilot| hosts(&hapilot.status())["shop.example"].len();
    assert_eq!(servers(&hapilot), 2);
    // The worker's word counts for nothing: it doesn't know what the service says.
    assert_eq!(
        engines(&hapilot.status()),
        [engine("a", true, 1), engine("b", true, 1), engine("c", true, 0)]
    );

    // The managers still believe that they run.
    for (engine, (_, id, _), left) in [(b, &tasks[0], 1), (worker, &tasks[1], 0)] {
        engine.die(id);
        until("its own engine is believed", || {
            hosts(&hapilot.status()).get("shop.example").map_or(0, Vec::len) == left
        });
        let looks = || managers.map(|manager| manager.calls().tasks);
        let before = looks();
        until("the managers were asked again", || {
            looks().iter().zip(before).all(|(now, then)| *now > then + 2)
        });
        assert_eq!(hosts(&hapilot.status()).get("shop.example").map_or(0, Vec::len), left);
    }
    for manager in managers {
        for (task, ..) in &tasks {
            manager.strike_task(task);
        }
    }
    hapilot.converge();
    // One manager is enough.
    b.stop_listening();
    let server = Server::start("late");
    let service = FakeService::new("late").label("hapilot.host", "late.example");
    let service = a.create_service(service.label("hapilot.port", &server.address.port().to_string()));
    let late = FakeTask::running(&service, 1, "worker1", &"d".repeat(64)).driver("macvlan");
    a.add_task(late.network("web", &server.address.ip().to_string()));
    until("served", || scene.visit("late.example") == (200, "late".to_owned()));
}
