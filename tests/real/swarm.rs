//! hapilot beside a manager of a real swarm, HAProxy in a container on the
//! services' overlay network.
//!
//! What lives here: what visitors of services notice while these change, on one
//! node and on two. What it must not know: faults whose timing only a fake can
//! set (`flow/swarm.rs`). Services have `dnsrr` where nothing else is said: the
//! other mode is Swarm's own load balancer, which hapilot goes round anyway.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;

#[path = "../support/engine.rs"]
mod engine;
#[path = "../support/private_engine.rs"]
mod private_engine;

use engine::{Docker, SAMPLE, Visitor, eventually, get, haproxy_pid, not_served, said, served};
use private_engine::{PrivateEngine, Wire};

/// HAProxy's image, made by `make setup`.
const HAPROXY: &str = "hapilot-haproxy:local";
/// The overlay network of the services.
const WEB: &str = "web";
/// The container that HAProxy is in.
const BALANCER: &str = "balancer";

/// A manager, a container with HAProxy, and hapilot. This thread is in the
/// manager's network namespace.
struct Scene {
    hapilot: Child,
    http: SocketAddr,
    dir: tempfile::TempDir,
    manager: PrivateEngine,
}

impl Scene {
    fn new(purpose: &str, manager: PrivateEngine) -> Self {
        manager.load(HAPROXY);
        manager.enter();
        let docker = manager.docker();
        docker.run(&["network", "create", "--driver", "overlay", "--attachable", WEB]);
        let dir = tempfile::Builder::new().prefix(purpose).tempdir().unwrap();
        let run = dir.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let run = run.to_str().unwrap();
        let (volume, environment) = (format!("{run}:{run}"), format!("HAPILOT_DIR={run}"));
        docker.run(&[
            "run",
            "--detach",
            "--name",
            BALANCER,
            "--volume",
            &volume,
            "--env",
            &environment,
            HAPROXY,
        ]);
        // Its place on the bridge is for visitors from the manager's host.
        docker.run(&["network", "connect", WEB, BALANCER]);
        let address = docker.inspect(BALANCER, "{{.NetworkSettings.IPAddress}}").parse::<IpAddr>().unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let mut hapilot = Command::new(env!("CARGO_BIN_EXE_hapilot"));
        hapilot.args(["run", "--pool-size", "20", "--http", "0.0.0.0:80", "--dir", run]);
        hapilot.args(["--runtime-api", &format!("{run}/admin.sock"), "--haproxy-container", BALANCER]);
        hapilot.args(["--docker", &manager.address()]);
        let hapilot =
            hapilot.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let scene = Self { hapilot, http: SocketAddr::new(address, 80), dir, manager };
        scene.until_check(0);
        scene
    }

    fn docker(&self) -> &Docker {
        self.manager.docker()
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn haproxy(&self) -> u32 {
        haproxy_pid(&self.run_dir().join("admin.sock")).unwrap()
    }

    /// `hapilot ACTION`: its exit code, and what it printed.
    fn ask(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut ask = Command::new(env!("CARGO_BIN_EXE_hapilot"));
        let output = ask.args(arguments).arg("--dir").arg(self.run_dir()).output().unwrap();
        (output.status.code(), said(&output).unwrap_or_else(|error| error))
    }

    fn until_check(&self, code: i32) {
        eventually(&format!("`hapilot check` ends with {code}"), || match self.ask(&["check"]) {
            (Some(found), _) if found == code => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// The servers of a host, as `hapilot status` tells them.
    fn servers(&self, host: &str) -> Vec<Value> {
        let status: Value = serde_json::from_str(&self.ask(&["status", "--json"]).1).unwrap();
        let hosts = status["hosts"].as_array().unwrap();
        let found = hosts.iter().find(|found| found["host"] == host);
        found.map(|found| found["servers"].as_array().unwrap().clone()).unwrap_or_default()
    }

    /// Waits for so many servers of a host that are ready.
    fn until_servers(&self, host: &str, count: usize) {
        eventually(&format!("{count} servers of {host}"), || {
            let servers = self.servers(host);
            let ready = servers.iter().filter(|server| server["state"] == "up").count();
            if (ready, servers.len()) == (count, count) { Ok(()) } else { Err(format!("{servers:?}")) }
        });
    }

    /// `docker service create` of a sample service for a host, which is told by
    /// a label of the service.
    fn create(&self, name: &str, host: &str, options: &[&str]) {
        let fixed = format!(
            "service create --detach --name {name} --no-resolve-image --network {WEB} --label hapilot.host={host} \
             --label hapilot.port=8000 --update-monitor 100ms --rollback-monitor 100ms --rollback-order start-first"
        );
        let fixed: Vec<&str> = fixed.split_whitespace().collect();
        self.docker().run(&[&fixed, options, &[SAMPLE]].concat());
    }

    /// `docker service update`, until Swarm says that it is in this state.
    fn update(&self, name: &str, options: &[&str], end: &str) {
        let fixed = ["service", "update", "--detach"];
        self.docker().run(&[&fixed[..], options, &[name]].concat());
        let inspect = ["service", "inspect", "--format", "{{.UpdateStatus.State}}", name];
        eventually("the update is done", || match self.docker().run(&inspect) {
            state if state == end => Ok(()),
            state => Err(state),
        });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("==== log of hapilot\n{}", self.log());
            eprintln!("==== services\n{:?}", self.docker().attempt(&["service", "ls"]));
        }
        let _ = self.hapilot.kill();
        let _ = self.hapilot.wait();
    }
}

/// A new swarm, managed by this engine.
fn init(engine: &PrivateEngine, address: &str) {
    let pool = ["--default-addr-pool", "10.98.0.0/16"];
    engine.docker().run(&[&["swarm", "init", "--advertise-addr", address], &pool[..]].concat());
}

#[test]
fn one_node() {
    let manager = PrivateEngine::start("swarm", 1, &[]);
    manager.load(SAMPLE);
    init(&manager, "127.0.0.1");
    let scene = Scene::new("one", manager);
    let haproxy = scene.haproxy();
    scene.create("shop", "shop.example", &["--replicas", "2", "--endpoint-mode", "dnsrr"]);
    served(scene.http, "shop.example");
    scene.until_servers("shop.example", 2);

    let visitor = Visitor::of(scene.http, "shop.example");
    scene.update(
        "shop",
        &["--no-resolve-image", "--update-order", "stop-first", "--env-add", "A=1"],
        "completed",
    );
    scene.until_servers("shop.example", 2);
    // In the other order.
    scene.update("shop", &["--rollback"], "rollback_completed");
    scene.until_servers("shop.example", 2);
    scene.docker().run(&["service", "scale", "--detach", "shop=4"]);
    scene.until_servers("shop.example", 4);

    // Who is to end takes no visitors any more while nobody has told its process.
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().to_string();
    scene.docker().run(&["service", "scale", "--detach", "shop=2"]);
    let drained = eventually("two servers are drained", || {
        let servers = scene.servers("shop.example");
        let drained: Vec<String> = servers
            .iter()
            .filter(|server| server["state"] == "drain")
            .map(|server| server["container"].as_str().unwrap().to_owned())
            .collect();
        if drained.len() == 2 { Ok(drained) } else { Err(format!("{servers:?}")) }
    });
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let filter = ["--filter", "type=container", "--filter", "event=kill", "--filter", "event=die"];
    let events = [&["events", "--since", &began, "--until", &until], &filter[..]].concat();
    assert_eq!(scene.docker().run(&events), "", "{drained:?}");
    scene.until_servers("shop.example", 2);
    visitor.noticed_nothing();

    // Only the service's labels change: no task is replaced.
    let names = |host: &str| {
        let servers = scene.servers(host);
        servers.iter().map(|server| server["name"].to_string()).collect::<Vec<_>>()
    };
    let before = names("shop.example");
    scene.docker().run(&["service", "update", "--detach", "--label-add", "hapilot.host=b.example", "shop"]);
    served(scene.http, "b.example");
    not_served(scene.http, "shop.example");
    assert_eq!(names("b.example"), before);

    // Swarm's load balancer in front of a service changes nothing.
    scene.create("vip", "vip.example", &["--mode", "global", "--endpoint-mode", "vip"]);
    served(scene.http, "vip.example");
    scene.docker().run(&["service", "rm", "shop", "vip"]);
    not_served(scene.http, "b.example");
    not_served(scene.http, "vip.example");
    scene.until_check(0);
    assert_eq!(scene.haproxy(), haproxy, "HAProxy is the same");
}

/// How long after its process began a new task of a host was first asked with
/// success.
fn routed_after(scene: &Scene, worker: &PrivateEngine, name: &str) -> Duration {
    let host = format!("{name}.example");
    let constraint = format!("node.id=={}", node(worker));
    scene.create(name, &host, &["--endpoint-mode", "dnsrr", "--constraint", &constraint]);
    eventually(&format!("{host} is served"), || match get(scene.http, &host, "/") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let routed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let container = worker.docker().run(&["ps", "-q", "--filter", &format!("name={name}.")]);
    let began = worker.docker().inspect(&container, "{{.State.StartedAt}}");
    let began = Command::new("date").args(["--date", &began, "+%s.%N"]).output().unwrap();
    routed.saturating_sub(Duration::from_secs_f64(said(&began).unwrap().parse().unwrap()))
}

fn node(engine: &PrivateEngine) -> String {
    engine.docker().run(&["info", "--format", "{{.Swarm.NodeID}}"])
}

#[test]
fn two_nodes() {
    let manager = PrivateEngine::start("swarm", 1, &[]);
    let worker = PrivateEngine::start("swarm", 2, &[]);
    let _wire = Wire::between(&[&manager, &worker]);
    manager.load(SAMPLE);
    worker.load(SAMPLE);
    let address = manager.wire_address().to_string();
    init(&manager, &address);
    let token = manager.docker().run(&["swarm", "join-token", "--quiet", "worker"]);
    let own = worker.wire_address().to_string();
    worker.docker().run(&["swarm", "join", "--token", &token, "--advertise-addr", &own, &address]);
    let scene = Scene::new("two", manager);
    let haproxy = scene.haproxy();

    let after = ["one", "two"].map(|name| routed_after(&scene, &worker, name));
    eprintln!("routed {after:?} after the start on the other node");
    assert!(after.iter().min().unwrap() < &Duration::from_secs(1), "{after:?}");
    scene.docker().run(&["service", "rm", "one", "two"]);

    scene.create("shop", "shop.example", &["--replicas", "4", "--endpoint-mode", "dnsrr"]);
    served(scene.http, "shop.example");
    scene.until_servers("shop.example", 4);
    let here = scene.docker().run(&["ps", "-q", "--filter", "name=shop"]).lines().count();
    assert!((1..4).contains(&here), "{here} of 4 tasks are on the manager");
    let visitor = Visitor::of(scene.http, "shop.example");
    let update = ["--no-resolve-image", "--update-order", "start-first", "--update-parallelism", "4"];
    scene.update("shop", &[&update[..], &["--env-add", "A=1"]].concat(), "completed");
    scene.until_servers("shop.example", 4);
    // All that is on the other node moves to this one.
    scene.docker().run(&["node", "update", "--availability", "drain", &node(&worker)]);
    eventually("nobody is on the drained node", || match worker.docker().run(&["ps", "-q"]).as_str() {
        "" => Ok(()),
        some => Err(some.to_owned()),
    });
    scene.until_servers("shop.example", 4);
    visitor.noticed_nothing();

    scene.docker().run(&["service", "rm", "shop"]);
    not_served(scene.http, "shop.example");
    not_served(scene.http, "one.example");
    assert_eq!(scene.haproxy(), haproxy, "HAProxy is the same");
}
