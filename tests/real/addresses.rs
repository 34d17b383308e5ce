//! Which address: each step of the rule on real engines, with HAProxy in a
//! container and on a host, and what happens while networks come and go.
//!
//! What lives here: two engines of the test's own, joined by a network and in one
//! swarm. What it must not know: the many ways in which a step is refused
//! (`core/endpoint/tests.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

#[path = "../support/engine.rs"]
mod engine;
#[path = "../support/private_engine.rs"]
mod private_engine;

use engine::{Docker, SAMPLE, Share, eventually, haproxy_pid, kill, said, served};
use private_engine::{PrivateEngine, Wire};
use serde_json::Value;

/// The HAProxy of `compose/sidecar.yml`, made by `make setup`.
const HAPROXY: &str = "hapilot-haproxy:local";

/// hapilot as a process in the first engine's network namespace, where this thread
/// is, too.
struct Hapilot {
    child: Child,
    dir: tempfile::TempDir,
}

impl Hapilot {
    fn start(dir: tempfile::TempDir, more: &[&str]) -> Self {
        let log = File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hapilot"))
            .args(["run", "--pool-size", "20", "--dir"])
            .arg(dir.path().join("run"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn ask(&self, action: &str) -> Result<String, String> {
        let mut ask = Command::new(env!("CARGO_BIN_EXE_hapilot"));
        said(&ask.args([action, "--json", "--dir"]).arg(self.run_dir()).output().unwrap())
    }

    fn converge(&self) {
        eventually("hapilot check", || self.ask("check"));
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ask("status").unwrap()).unwrap()
    }

    /// Waits until the only server of a host has this address.
    fn until_at(&self, host: &str, wanted: &str) {
        eventually(&format!("{host} is reached at {wanted}"), || {
            let status = self.status();
            let hosts = status["hosts"].as_array().unwrap();
            let servers = hosts.iter().find(|found| found["host"] == host).map(|found| &found["servers"]);
            let address = servers.and_then(|servers| servers[0]["address"].as_str()).unwrap_or("nobody");
            if address == wanted { Ok(()) } else { Err(format!("{address}; {}", status["rejected"])) }
        });
    }

    /// Waits until a container is rejected, with these words.
    fn until_rejected(&self, container: &str, words: &str) {
        eventually(&format!("{container} is rejected: {words}"), || {
            let status = self.status();
            let rejected = status["rejected"].as_array().unwrap();
            let found = rejected.iter().any(|rejection| {
                rejection["container"] == container && rejection["reason"].as_str().unwrap().contains(words)
            });
            if found { Ok(()) } else { Err(status["rejected"].to_string()) }
        });
    }
}

impl Drop for Hapilot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("==== log of hapilot and HAProxy\n{log}");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // HAProxy in a container goes with its engine; its process number is of no use here.
        let socket = self.run_dir().join("admin.sock");
        if !self.run_dir().join("in-a-container").exists()
            && let Ok(pid) = haproxy_pid(&socket)
        {
            kill("-KILL", pid);
        }
    }
}

/// The sample service, listening on a port; `more` are options of `docker run`.
fn serve(docker: &Docker, name: &str, port: u16, more: &[&str]) {
    let environment =
        [format!("PORT={port}"), format!("VIRTUAL_PORT={port}"), format!("VIRTUAL_HOST={name}.example")];
    let mut arguments = vec!["run", "--detach", "--name", name];
    for variable in &environment {
        arguments.extend(["--env", variable]);
    }
    arguments.extend(more);
    arguments.push(SAMPLE);
    docker.run(&arguments);
}

/// A container's address on a network.
fn address(docker: &Docker, container: &str, network: &str, field: &str) -> String {
    docker.inspect(container, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}"))
}

/// Rules 1 to 4 and 6 with HAProxy in a container of the first of two engines. It
/// is found by the directory of its admin socket.
#[test]
#[expect(clippy::too_many_lines, reason = "one story on one pair of engines, which take seconds to start")]
fn from_a_container() {
    let (one, two) = (PrivateEngine::start("address", 1, &[]), PrivateEngine::start("address", 2, &[]));
    let _wire = Wire::between(&[&one, &two]);
    one.load(SAMPLE);
    one.load(HAPROXY);
    two.load(SAMPLE);
    one.enter();
    let (docker, far) = (one.docker(), two.docker());
    for network in ["back", "front"] {
        docker.run(&["network", "create", network]);
    }
    docker.run(&["network", "create", "--internal", "a-closed"]);
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    std::fs::create_dir(&run).unwrap();
    File::create(run.join("in-a-container")).unwrap();
    let run = run.to_str().unwrap().to_owned();
    let edge = |command: &[&str]| {
        let volume = format!("{run}:{run}");
        let variable = format!("HAPILOT_DIR={run}");
        let fixed = ["run", "--detach", "--network", "front", "--volume", &volume, "--env", &variable];
        docker.run(&[&fixed, command, &[HAPROXY]].concat());
    };
    edge(&["--name", "edge"]);
    let engines = format!("near={} far={},address={}", one.address(), two.address(), two.wire_address());
    let socket = format!("{run}/admin.sock");
    let hapilot =
        Hapilot::start(dir, &["--docker", &engines, "--http", "0.0.0.0:80", "--runtime-api", &socket]);
    hapilot.converge();
    let place = hapilot.status()["haproxy"]["place"].as_str().unwrap().to_owned();
    assert!(place.starts_with("HAProxy is in container edge ("), "{place}");
    let http = || -> SocketAddr {
        let ip: IpAddr = address(docker, "edge", "front", "IPAddress").parse().unwrap();
        SocketAddr::new(ip, 80)
    };
    let at = |name: &str, network: &str, port: u16| {
        format!("{}:{port}", address(docker, name, network, "IPAddress"))
    };

    // 2: the first network in common, whichever side joins or leaves one.
    serve(docker, "both", 8000, &["--network", "front"]);
    docker.run(&["network", "connect", "back", "both"]);
    hapilot.until_at("both.example", &at("both", "front", 8000));
    docker.run(&["network", "connect", "back", "edge"]);
    hapilot.until_at("both.example", &at("both", "back", 8000));
    served(http(), "both.example");
    docker.run(&["network", "disconnect", "back", "edge"]);
    hapilot.until_at("both.example", &at("both", "front", 8000));
    served(http(), "both.example");
    serve(docker, "behind", 8000, &["--network", "back"]);
    hapilot.until_rejected("behind", "it is on `back`, HAProxy is on `front`; port 8000 is not published");
    docker.run(&["network", "connect", "front", "behind"]);
    hapilot.until_at("behind.example", &at("behind", "front", 8000));
    served(http(), "behind.example");
    docker.run(&["network", "disconnect", "front", "behind"]);
    hapilot.until_rejected("behind", "it shares no network with HAProxy");

    // 1: the network that it names, although another comes first.
    docker.run(&["network", "connect", "back", "edge"]);
    serve(docker, "picky", 8000, &["--network", "back", "--label", "hapilot.network=front"]);
    hapilot.until_rejected("picky", "it is not on network `front`; it is on `back`");
    docker.run(&["network", "connect", "front", "picky"]);
    hapilot.until_at("picky.example", &at("picky", "front", 8000));
    served(http(), "picky.example");

    // 3: somebody else's network namespace.
    serve(docker, "guest", 8001, &["--network", "container:both"]);
    hapilot.until_at("guest.example", &at("both", "back", 8001));
    served(http(), "guest.example");

    // 4: the host is the gateway of the first network that leads out.
    docker.run(&["network", "connect", "a-closed", "edge"]);
    serve(docker, "hosted", 8002, &["--network", "host"]);
    hapilot.until_at("hosted.example", &format!("{}:8002", address(docker, "edge", "back", "Gateway")));
    served(http(), "hosted.example");

    // 6: ports that the other engine publishes, at a specific address or at all.
    let there = two.wire_address();
    serve(far, "all", 8000, &["--publish", "8090:8000"]);
    hapilot.until_at("all.example", &format!("{there}:8090"));
    served(http(), "all.example");
    serve(far, "one", 8000, &["--publish", &format!("{there}:8091:8000")]);
    hapilot.until_at("one.example", &format!("{there}:8091"));
    served(http(), "one.example");
    serve(far, "local", 8000, &["--publish", "127.0.0.1:8092:8000"]);
    hapilot.until_rejected("local", "published at 127.0.0.1:8092 only");
    serve(far, "hosted-there", 8003, &["--network", "host"]);
    hapilot.until_at("hosted-there.example", &format!("{there}:8003"));
    served(http(), "hosted-there.example");

    // 2 again: an overlay of both engines is one network; two bridges of one name are not.
    far.run(&["network", "create", "front"]);
    serve(far, "namesake", 8000, &["--network", "front"]);
    hapilot.until_rejected("namesake", "it shares no network with HAProxy; it is on `front`");
    let advertise = one.wire_address().to_string();
    docker.run(&["swarm", "init", "--advertise-addr", &advertise]);
    let token = docker.run(&["swarm", "join-token", "--quiet", "worker"]);
    far.run(&[
        "swarm",
        "join",
        "--token",
        &token,
        "--advertise-addr",
        &there.to_string(),
        &format!("{advertise}:2377"),
    ]);
    docker.run(&["network", "create", "--driver", "overlay", "--attachable", "farm"]);
    docker.run(&["network", "connect", "farm", "edge"]);
    eventually("the other engine joins the overlay", || {
        let arguments =
            ["run", "--detach", "--name", "wide", "--network", "farm", "--env", "VIRTUAL_HOST=wide.example"];
        let _ = far.attempt(&["rm", "--force", "wide"]);
        far.attempt(&[&arguments[..], &["--env", "VIRTUAL_PORT=8000", SAMPLE]].concat())
    });
    hapilot.until_at("wide.example", &format!("{}:8000", address(far, "wide", "farm", "IPAddress")));
    served(http(), "wide.example");

    // HAProxy's container is replaced by another one, on another network: it is found again.
    docker.run(&["rm", "--force", "edge"]);
    edge(&["--name", "edge-2"]);
    hapilot.until_at("both.example", &at("both", "front", 8000));
    let again = || -> SocketAddr {
        SocketAddr::new(address(docker, "edge-2", "front", "IPAddress").parse().unwrap(), 80)
    };
    served(again(), "both.example");
    hapilot.until_rejected("behind", "HAProxy is on `front`");
}

/// Rules 2 to 5 with HAProxy on the engine's host.
#[test]
fn from_the_host() {
    let engine = PrivateEngine::start("address-host", 3, &[]);
    engine.load(SAMPLE);
    engine.enter();
    let docker = engine.docker();
    let _share = Share::on(docker.clone(), "address-host");
    let command = |arguments: &[&str]| said(&Command::new("ip").args(arguments).output().unwrap()).unwrap();
    // A parent for a macvlan: this thread is in the engine's network namespace.
    command(&["link", "add", "lan", "type", "veth", "peer", "name", "wall"]);
    command(&["link", "set", "lan", "up"]);
    command(&["link", "set", "wall", "up"]);
    let lan = ["--driver", "macvlan", "--opt", "parent=lan", "--subnet", "10.55.0.0/24"];
    docker.run(&[&["network", "create"], &lan[..], &["a-lan"]].concat());
    docker.run(&["network", "create", "--ipv6", "--subnet", "fd00:5::/64", "six"]);
    docker.run(&["network", "create", "--internal", "closed"]);
    let http: SocketAddr = ([127, 0, 0, 1], 8080).into();
    let haproxy = engine::haproxy("3.0");
    let docker_address = engine.address();
    let run = |more: &[&str]| {
        let fixed =
            ["--docker", &docker_address, "--http", "127.0.0.1:8080", "--haproxy", haproxy.to_str().unwrap()];
        let dir = tempfile::tempdir().unwrap();
        Hapilot::start(dir, &[&fixed[..], more].concat())
    };
    let hapilot = run(&[]);
    hapilot.converge();
    let place = hapilot.status()["haproxy"]["place"].as_str().unwrap().to_owned();
    assert!(place.starts_with("HAProxy is on the host (it is hapilot's child"), "{place}");
    let at = |name: &str, network: &str, port: u16| {
        format!("{}:{port}", address(docker, name, network, "IPAddress"))
    };

    // A bridge, although the macvlan's name comes first; an internal one will do.
    serve(docker, "web", 8000, &["--network", "a-lan"]);
    hapilot.until_at("web.example", &at("web", "a-lan", 8000));
    docker.run(&["network", "connect", "closed", "web"]);
    hapilot.until_at("web.example", &at("web", "closed", 8000));
    served(http, "web.example");
    serve(docker, "hosted", 8002, &["--network", "host"]);
    hapilot.until_at("hosted.example", "127.0.0.1:8002");
    served(http, "hosted.example");
    serve(docker, "guest", 8001, &["--network", "container:web"]);
    hapilot.until_at("guest.example", &at("web", "closed", 8001));
    served(http, "guest.example");
    serve(docker, "none", 8000, &["--network", "none"]);
    hapilot.until_rejected("none", "it has no network");
    serve(docker, "six", 8000, &["--network", "six"]);
    hapilot.until_at("six.example", &at("six", "six", 8000));
    drop(hapilot);
    let hapilot = run(&["--prefer-ipv6"]);
    hapilot
        .until_at("six.example", &format!("[{}]:8000", address(docker, "six", "six", "GlobalIPv6Address")));
    hapilot.until_at("web.example", &at("web", "closed", 8000));
    // The status tells of it before HAProxy, which is started anew, listens.
    served(http, "web.example");
}
