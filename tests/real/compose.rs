//! hapilot with the machine's Docker engine: as a sidecar brought up by docker
//! compose, and on the host with HAProxy as its child.
//!
//! What lives here: what a person does with docker, and what visitors and
//! `hapilot status` then see; `HAProxy`'s process never changes unless it is
//! killed on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

#[path = "../support/engine.rs"]
mod engine;

use engine::{
    Share, Visitor, eventually, first_answers_are_200, free_port, get, haproxy_pid, kill, not_served,
    runtime_api, said, served,
};

// ---- what `hapilot status --json` says ----

/// Who is behind a host: names of the containers with the state of each.
fn servers(status: &Value, host: &str) -> Vec<(String, String)> {
    let hosts = status["hosts"].as_array().unwrap();
    let servers = hosts.iter().find(|entry| entry["host"] == host).map(|entry| &entry["servers"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    servers
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|server| (text(&server["container"]), text(&server["state"])))
        .collect()
}

/// The reason for which something of a container is not served.
fn rejection<'a>(status: &'a Value, container: &str, key: &str) -> Option<&'a str> {
    let mut rejected = status["rejected"].as_array().unwrap().iter();
    let found = rejected.find(|entry| entry["container"] == container && entry["key"] == key)?;
    found["reason"].as_str()
}

/// An admin address, asked over HTTP.
fn ask(admin: SocketAddr, path: &str) -> Result<String, String> {
    let answer = get(admin, "hapilot", path).map_err(|error| format!("{path}: {error}"))?;
    (answer.status == 200).then_some(answer.body).ok_or_else(|| format!("{path}: {}", answer.status))
}

fn status(admin: SocketAddr) -> Result<Value, String> {
    serde_json::from_str(&ask(admin, "/status")?).map_err(|error| error.to_string())
}

/// Waits until hapilot says that all is done; returns what it says then.
fn converged(admin: SocketAddr) -> Value {
    eventually("hapilot converges", || {
        ask(admin, "/ready")?;
        let status = status(admin)?;
        (status["converged"] == true).then_some(status.clone()).ok_or_else(|| status.to_string())
    })
}

/// Waits until hapilot is converged and exactly these containers serve a host.
fn is_served_by(admin: SocketAddr, host: &str, containers: &[String]) {
    let wanted: BTreeSet<_> = containers.iter().map(|name| (name.clone(), "up".to_owned())).collect();
    eventually(&format!("{host} has the servers {wanted:?}"), || {
        let status = status(admin)?;
        let found = servers(&status, host);
        let same = found.len() == wanted.len() && found.iter().cloned().collect::<BTreeSet<_>>() == wanted;
        (same && status["converged"] == true).then_some(()).ok_or_else(|| status.to_string())
    });
}

/// Commands that this hapilot has sent to `HAProxy`, whatever came of them.
fn commands_sent(admin: SocketAddr) -> u64 {
    let metrics = ask(admin, "/metrics").unwrap();
    let counters: Vec<u64> = metrics
        .lines()
        .filter(|line| line.starts_with("hapilot_commands_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(!counters.is_empty(), "{metrics}");
    counters.iter().sum()
}

// ---- the sidecar ----

/// compose/test.yml, up and converged.
struct Sidecar {
    share: Share,
    http: SocketAddr,
    admin: SocketAddr,
}

/// `HAProxy`'s container and process; a reload or restart would change it.
#[derive(PartialEq, Eq, Debug)]
struct Process {
    container: String,
    processes: String,
    said_by_hapilot: u64,
}

impl Sidecar {
    fn up(purpose: &str) -> Self {
        let share = Share::new(purpose);
        let http = free_port();
        let admin = (http + 1..32_000).find(|&port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
        let sidecar = Self {
            share,
            http: (Ipv4Addr::LOCALHOST, http).into(),
            admin: (Ipv4Addr::LOCALHOST, admin.unwrap()).into(),
        };
        sidecar.compose(&["up", "--detach", "--no-build", "--scale", "api=2"]);
        converged(sidecar.admin);
        sidecar
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let mut compose = Command::new(engine::root().join("compose/setup/compose.sh"));
        compose
            .args(["--project-name", &self.share.name, "--file"])
            .arg(engine::root().join("compose/test.yml"))
            .args(arguments)
            .env("HAPILOT_TEST", &self.share.name)
            .env("HAPILOT_HTTP_PORT", self.http.port().to_string())
            .env("HAPILOT_ADMIN_PORT", self.admin.port().to_string())
            .stdin(Stdio::null());
        said(&compose.output().unwrap())
            .unwrap_or_else(|error| panic!("compose {}: {error}", arguments.join(" ")))
    }

    fn docker(&self, arguments: &[&str]) -> String {
        self.share.docker.run(arguments)
    }

    /// `hapilot …` in its container.
    fn hapilot(&self, arguments: &[&str]) -> Result<String, String> {
        let container = self.share.named("hapilot");
        self.share.docker.attempt(&[&["exec", &container, "hapilot"], arguments].concat())
    }

    fn status(&self) -> Value {
        status(self.admin).unwrap()
    }

    fn haproxy(&self) -> Process {
        let name = self.share.named("haproxy");
        let status = self.hapilot(&["status", "--json", "--dir", "/run/hapilot"]).unwrap();
        let status: Value = serde_json::from_str(&status).unwrap();
        Process {
            container: self.share.docker.inspect(&name, "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}"),
            processes: self.docker(&["top", &name, "-eo", "pid,comm"]),
            said_by_hapilot: status["haproxy"]["pid"].as_u64().unwrap(),
        }
    }

    /// `HAProxy`'s socket, as the host sees it.
    fn runtime_api(&self, command: &str) -> String {
        let volume = self.share.named("state");
        let place = self.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]);
        runtime_api(&Path::new(&place).join("admin.sock"), command).unwrap()
    }

    /// Names and short identifiers of the containers of a service.
    fn replicas(&self, service: &str) -> (Vec<String>, BTreeSet<String>) {
        let project = format!("label=com.docker.compose.project={}", self.share.name);
        let service = format!("label=com.docker.compose.service={service}");
        let filters = ["ps", "--filter", &project, "--filter", &service, "--format", "{{.Names}} {{.ID}}"];
        let listed = self.docker(&filters);
        listed
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .unzip()
    }

    /// Scales `api`, and waits until visitors and hapilot see just its replicas.
    fn scale(&self, count: usize) {
        let scale = format!("api={count}");
        self.compose(&["up", "--detach", "--no-build", "--no-recreate", "--scale", &scale, "api"]);
        let (names, ids) = self.replicas("api");
        assert_eq!(names.len(), count, "{names:?}");
        is_served_by(self.admin, "api.example", &names);
        // They take turns: as many requests as there are replicas reach each.
        let answers = (0..count * 2).map(|_| get(self.http, "api.example", "/").unwrap());
        let seen: BTreeSet<String> = answers
            .map(|answer| {
                assert_eq!(answer.status, 200, "{answer:?}");
                answer.backend
            })
            .collect();
        assert_eq!(seen, ids, "who answered, and who should");
    }
}

#[test]
fn a_sidecar_follows_the_containers() {
    let sidecar = Sidecar::up("follow");
    let haproxy = sidecar.haproxy();
    let visitor = Visitor::of(sidecar.http, "shop.example");

    every_host_answers(&sidecar);
    what_cannot_be_served_is_rejected(&sidecar);
    it_says_how_it_is(&sidecar);
    sidecar.scale(5);
    sidecar.scale(1);
    hosts_come_and_go(&sidecar);
    networks_are_followed(&sidecar);
    visitor.noticed_nothing();
    haproxys_networks_are_followed(&sidecar);
    assert_eq!(sidecar.haproxy(), haproxy);
}

fn every_host_answers(sidecar: &Sidecar) {
    for host in ["shop.example", "www.shop.example", "api.example", "plain.example", "good.example"] {
        assert_eq!(get(sidecar.http, host, "/").unwrap().status, 200, "{host}");
    }
    // The label beats the variable, for the host and for the port.
    assert_eq!(get(sidecar.http, "label.example", "/").unwrap().status, 200);
    assert_eq!(get(sidecar.http, "variable.example", "/").unwrap().status, 404);
    assert_eq!(get(sidecar.http, "nobody.example", "/").unwrap().status, 404);
    sidecar.scale(2);
}

fn what_cannot_be_served_is_rejected(sidecar: &Sidecar) {
    let status = sidecar.status();
    let bad = rejection(&status, &sidecar.share.named("bad"), "VIRTUAL_HOST");
    assert!(bad.is_some_and(|reason| reason.contains("blank")), "{bad:?}");
    let island = rejection(&status, &sidecar.share.named("island"), "network");
    assert!(island.is_some_and(|reason| reason.contains("shares no network with HAProxy")), "{island:?}");
    assert_eq!(get(sidecar.http, "island.example", "/").unwrap().status, 404);
    let all = status["rejected"].as_array().unwrap().iter();
    let ours = all.filter(|entry| entry["container"].as_str().unwrap().starts_with(&sidecar.share.name));
    assert_eq!(ours.count(), 2, "{status}");
}

fn it_says_how_it_is(sidecar: &Sidecar) {
    let said = sidecar.hapilot(&["check", "--dir", "/run/hapilot"]);
    assert!(said.is_ok(), "{said:?}");
    assert_eq!(get(sidecar.admin, "hapilot", "/live").unwrap().status, 200);
    assert_eq!(get(sidecar.admin, "hapilot", "/ready").unwrap().status, 200);
    let metrics = ask(sidecar.admin, "/metrics").unwrap();
    assert!(metrics.contains("\nhapilot_converged 1\n"), "{metrics}");
    let status = sidecar.status();
    assert!(status["haproxy"]["version"].as_str().unwrap().starts_with("3.0."), "{status}");
    assert_eq!(status["blocked"], Value::Array(vec![]), "{status}");
    let plan = ask(sidecar.admin, "/plan").unwrap();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["steps"], Value::Array(vec![]), "{plan}");
    let container = sidecar.share.named("hapilot");
    eventually("Docker calls hapilot healthy", || {
        let health = sidecar.share.docker.inspect(&container, "{{.State.Health.Status}}");
        (health == "healthy").then_some(()).ok_or(health)
    });
}

fn hosts_come_and_go(sidecar: &Sidecar) {
    let web = sidecar.share.named("web");
    for (what, end) in [("stopped", &["stop"][..]), ("killed", &["kill"]), ("removed", &["rm", "-f"])] {
        let host = format!("{what}.example");
        assert_eq!(get(sidecar.http, &host, "/").unwrap().status, 404);
        let name = sidecar.share.serve(what, &web, &host);
        let answer = served(sidecar.http, &host);
        let id = sidecar.share.docker.inspect(&name, "{{.Id}}");
        assert_eq!(answer.backend, id[..12]);
        is_served_by(sidecar.admin, &host, std::slice::from_ref(&name));

        sidecar.docker(&[end, &[&name]].concat());
        not_served(sidecar.http, &host);
        is_served_by(sidecar.admin, &host, &[]);
    }
    // And back again.
    let name = sidecar.share.named("stopped");
    sidecar.docker(&["start", &name]);
    served(sidecar.http, "stopped.example");
    // A host of a container that was given up is free for another.
    sidecar.docker(&["rm", "-f", &name]);
    let name = sidecar.share.serve("heir", &web, "stopped.example");
    is_served_by(sidecar.admin, "stopped.example", &[name]);
    served(sidecar.http, "stopped.example");
}

fn networks_are_followed(sidecar: &Sidecar) {
    let (web, island) = (sidecar.share.named("web"), sidecar.share.named("island"));
    sidecar.docker(&["network", "connect", &web, &island]);
    served(sidecar.http, "island.example");
    is_served_by(sidecar.admin, "island.example", std::slice::from_ref(&island));
    assert_eq!(rejection(&sidecar.status(), &island, "network"), None);

    sidecar.docker(&["network", "disconnect", &web, &island]);
    not_served(sidecar.http, "island.example");
    eventually("the container is rejected again", || {
        let status = status(sidecar.admin)?;
        rejection(&status, &island, "network").map(drop).ok_or_else(|| status.to_string())
    });
}

/// Nobody visits meanwhile: Docker closes a container's published ports for a
/// moment when its networks change.
fn haproxys_networks_are_followed(sidecar: &Sidecar) {
    let (away, haproxy) = (sidecar.share.named("away"), sidecar.share.named("haproxy"));
    sidecar.docker(&["network", "connect", &away, &haproxy]);
    served(sidecar.http, "island.example");
    sidecar.docker(&["network", "disconnect", &away, &haproxy]);
    not_served(sidecar.http, "island.example");
}

#[test]
fn a_sidecar_outlives_every_restart() {
    let sidecar = Sidecar::up("outlive");
    hapilot_restarts(&sidecar);
    a_hand_on_the_socket_is_undone(&sidecar);
    hapilot_is_away(&sidecar);
    haproxy_restarts(&sidecar);
}

fn hapilot_restarts(sidecar: &Sidecar) {
    let haproxy = sidecar.haproxy();
    let (hapilot, web) = (sidecar.share.named("hapilot"), sidecar.share.named("web"));
    let visitor = Visitor::of(sidecar.http, "api.example");
    sidecar.docker(&["restart", &hapilot]);
    converged(sidecar.admin);
    assert_eq!(commands_sent(sidecar.admin), 0, "HAProxy had everything already");
    sidecar.docker(&["kill", "--signal", "KILL", &hapilot]);
    sidecar.docker(&["start", &hapilot]);
    converged(sidecar.admin);
    assert_eq!(commands_sent(sidecar.admin), 0, "HAProxy had everything already");

    // Killed in the middle of its work.
    for (index, what) in ["one", "two", "three", "four"].into_iter().enumerate() {
        sidecar.share.serve(what, &web, &format!("{what}.example"));
        if index % 2 == 1 {
            sidecar.docker(&["kill", "--signal", "KILL", &hapilot]);
            sidecar.docker(&["start", &hapilot]);
        }
    }
    for what in ["one", "two", "three", "four"] {
        is_served_by(sidecar.admin, &format!("{what}.example"), &[sidecar.share.named(what)]);
        served(sidecar.http, &format!("{what}.example"));
    }
    visitor.noticed_nothing();
    assert_eq!(sidecar.haproxy(), haproxy);
}

fn a_hand_on_the_socket_is_undone(sidecar: &Sidecar) {
    let haproxy = sidecar.haproxy();
    let status = sidecar.status();
    let shop = status["hosts"].as_array().unwrap().iter().find(|entry| entry["host"] == "shop.example");
    let backend = shop.unwrap()["backend"].as_str().unwrap();
    let visitor = Visitor::of(sidecar.http, "api.example");
    assert_eq!(
        sidecar.runtime_api(&format!("add server {backend}/hand 127.0.0.1:9")),
        "New server registered."
    );
    let maps = sidecar.runtime_api("show map");
    let hosts = maps.split_whitespace().find(|word| word.contains("hosts.map")).unwrap();
    let hosts = hosts.trim_matches(['(', ')']);
    sidecar.runtime_api(&format!("del map {hosts} plain.example"));
    assert_eq!(get(sidecar.http, "plain.example", "/").unwrap().status, 404);
    sidecar.runtime_api(&format!("add map {hosts} hand.example {backend}"));

    sidecar.docker(&["kill", "--signal", "HUP", &sidecar.share.named("hapilot")]);
    eventually("the server that was added by hand is gone", || {
        let servers = sidecar.runtime_api(&format!("show servers state {backend}"));
        (!servers.contains(" hand ")).then_some(()).ok_or(servers)
    });
    served(sidecar.http, "plain.example");
    not_served(sidecar.http, "hand.example");
    visitor.noticed_nothing();
    assert_eq!(sidecar.haproxy(), haproxy);
}

fn hapilot_is_away(sidecar: &Sidecar) {
    let haproxy = sidecar.haproxy();
    let hapilot = sidecar.share.named("hapilot");
    let visitor = Visitor::of(sidecar.http, "shop.example");
    sidecar.docker(&["stop", &hapilot]);
    assert_eq!(sidecar.share.docker.inspect(&hapilot, "{{.State.ExitCode}}"), "0");
    for host in ["shop.example", "api.example", "label.example"] {
        assert_eq!(get(sidecar.http, host, "/").unwrap().status, 200, "{host}");
    }
    // Meanwhile a container leaves and another comes.
    sidecar.docker(&["rm", "-f", &sidecar.share.named("one")]);
    let late = sidecar.share.serve("late", &sidecar.share.named("web"), "late.example");
    sidecar.docker(&["start", &hapilot]);
    is_served_by(sidecar.admin, "late.example", &[late]);
    not_served(sidecar.http, "one.example");
    visitor.noticed_nothing();
    assert_eq!(sidecar.haproxy(), haproxy);
}

fn haproxy_restarts(sidecar: &Sidecar) {
    let hosts = ["late.example", "api.example", "shop.example", "good.example", "label.example"];
    let haproxy = sidecar.share.named("haproxy");
    for end in [&["stop"][..], &["kill", "--signal", "KILL"]] {
        let before = sidecar.haproxy();
        sidecar.docker(&[end, &[&haproxy]].concat());
        eventually("hapilot says that HAProxy is away", || {
            let ready = get(sidecar.admin, "hapilot", "/ready").map_err(|error| error.to_string())?;
            (ready.status == 503).then_some(()).ok_or_else(|| format!("{ready:?}"))
        });
        // A host that comes while HAProxy is away is in what it starts with.
        let what = format!("while-away-{}", end[0]);
        let host = format!("{what}.example");
        sidecar.share.serve(&what, &sidecar.share.named("web"), &host);
        eventually("hapilot has written it down", || {
            let config = ask(sidecar.admin, "/render")?;
            config.contains(&what).then_some(()).ok_or(config)
        });
        let mut start =
            sidecar.share.docker.command(&["start", &haproxy]).stdout(Stdio::null()).spawn().unwrap();
        first_answers_are_200(sidecar.http, &hosts);
        assert!(start.wait().unwrap().success());
        served(sidecar.http, &host);
        converged(sidecar.admin);
        assert_ne!(sidecar.haproxy(), before);
    }
}

// ---- on the host ----

/// hapilot on the host, with `HAProxy` as its child.
struct Spawned {
    share: Share,
    dir: PathBuf,
    http: SocketAddr,
    hapilot: Option<Child>,
}

impl Spawned {
    fn new(purpose: &str) -> Self {
        let share = Share::new(purpose);
        // The same in every run: what a killed one left is found there. Short: it holds sockets.
        let dir = Path::new("/tmp").join(&share.name);
        let http = (Ipv4Addr::LOCALHOST, free_port()).into();
        let spawned = Self { share, dir, http, hapilot: None };
        spawned.clear();
        std::fs::create_dir(&spawned.dir).unwrap();
        spawned
    }

    /// Starts hapilot, and waits until it is converged.
    fn start(&mut self) {
        let log = std::fs::File::options().append(true).create(true).open(self.dir.join("log")).unwrap();
        let hapilot = Command::new(env!("CARGO_BIN_EXE_hapilot"))
            .args(["run", "--http", &self.http.to_string(), "--dir"])
            .arg(&self.dir)
            .arg("--haproxy")
            .arg(engine::haproxy("3.0"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.hapilot = Some(hapilot.unwrap());
        eventually("hapilot check", || self.ask(&["check"]));
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let mut hapilot = Command::new(env!("CARGO_BIN_EXE_hapilot"));
        said(&hapilot.args(arguments).arg("--dir").arg(&self.dir).output().unwrap())
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ask(&["status", "--json"]).unwrap()).unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    fn haproxy(&self) -> u32 {
        haproxy_pid(&self.socket()).unwrap()
    }

    /// Ends hapilot by a signal; returns its exit code.
    fn end(&mut self, signal: &str) -> Option<i32> {
        let mut hapilot = self.hapilot.take().unwrap();
        kill(signal, hapilot.id());
        hapilot.wait().unwrap().code()
    }

    fn clear(&self) {
        if let Ok(pid) = haproxy_pid(&self.socket()) {
            kill("-KILL", pid);
        }
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir).unwrap();
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            eprintln!("==== log of hapilot and HAProxy\n{log}");
        }
        if let Some(mut hapilot) = self.hapilot.take() {
            // Or it would start HAProxy again.
            let _ = hapilot.kill();
            let _ = hapilot.wait();
        }
        self.clear();
    }
}

#[test]
fn on_the_host_haproxy_is_a_child_that_outlives_its_parent() {
    let mut spawned = Spawned::new("spawn");
    let network = spawned.share.network("net");
    let own = spawned.share.serve("own", &network, "own.spawn.example");
    spawned.start();
    let bridge = spawned.share.serve("bridge", "bridge", "bridge.spawn.example");

    containers_are_reached_by_their_address(&spawned, &[(&own, &network), (&bridge, "bridge")]);
    hapilot_dies_and_adopts(&mut spawned);
    haproxy_dies_and_is_back(&spawned);
    a_request_in_flight_outlives_sigterm(&mut spawned);
}

fn containers_are_reached_by_their_address(spawned: &Spawned, containers: &[(&str, &str)]) {
    for host in ["own.spawn.example", "bridge.spawn.example"] {
        served(spawned.http, host);
    }
    let status = spawned.status();
    let hosts = status["hosts"].as_array().unwrap();
    for &(name, network) in containers {
        let template = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}:8000");
        let address = spawned.share.docker.inspect(name, &template);
        let mut servers = hosts.iter().flat_map(|host| host["servers"].as_array().unwrap());
        let server = servers.find(|server| server["container"] == name);
        assert_eq!(server.unwrap()["address"], address, "{status}");
    }
}

fn hapilot_dies_and_adopts(spawned: &mut Spawned) {
    let haproxy = spawned.haproxy();
    let visitor = Visitor::of(spawned.http, "own.spawn.example");
    assert_eq!(spawned.end("-KILL"), None);
    spawned.share.docker.run(&["rm", "-f", &spawned.share.named("bridge")]);
    let name = spawned.share.serve("orphan", "bridge", "orphan.spawn.example");
    spawned.start();
    served(spawned.http, "orphan.spawn.example");
    not_served(spawned.http, "bridge.spawn.example");
    visitor.noticed_nothing();
    assert_eq!(spawned.haproxy(), haproxy, "HAProxy was adopted");
    assert_eq!(servers(&spawned.status(), "orphan.spawn.example"), [(name, "up".to_owned())]);
}

fn haproxy_dies_and_is_back(spawned: &Spawned) {
    let haproxy = spawned.haproxy();
    kill("-KILL", haproxy);
    first_answers_are_200(spawned.http, &["orphan.spawn.example", "own.spawn.example"]);
    eventually("hapilot check", || spawned.ask(&["check"]));
    assert_ne!(spawned.haproxy(), haproxy);
    assert_eq!(spawned.status()["haproxy"]["pid"], spawned.haproxy());
}

fn a_request_in_flight_outlives_sigterm(spawned: &mut Spawned) {
    let haproxy = spawned.haproxy();
    let http = spawned.http;
    let slow = std::thread::spawn(move || get(http, "own.spawn.example", "/slow?ms=1500"));
    eventually("the request is in flight", || {
        let servers =
            runtime_api(&spawned.socket(), "show servers conn").map_err(|error| error.to_string())?;
        // Columns by name: they differ between versions.
        let head = servers.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
        let used = head.split(' ').position(|column| column == "used_cur").unwrap();
        let own = servers.lines().find(|line| line.contains("-own-")).unwrap_or_default();
        let busy = own.split(' ').nth(used).is_some_and(|used| used != "0");
        busy.then_some(()).ok_or(servers)
    });
    assert_eq!(spawned.end("-TERM"), Some(0));
    let answer = slow.join().unwrap().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!Path::new(&format!("/proc/{haproxy}")).exists(), "HAProxy is still there");
    assert!(get(http, "own.spawn.example", "/").is_err());
}
