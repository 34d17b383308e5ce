//! A stateful fake Docker engine: real HTTP over a unix socket.
//!
//! It answers `/_ping`, `/version`, `/info`, `/containers/json`,
//! `/containers/{id}/json`, `/networks` and `/events`, and as the manager of a
//! swarm (`swarm_init`) `/services`, `/nodes` and `/tasks`, with and without `/v1.x` in front,
//! in the form recorded from Docker 20.10. What a test does to a container
//! (`start`, `die`, `connect`, …) changes what is answered and sends the events
//! that Docker would send. It counts calls, and can be made to fail.
//!
//! It derives nothing from hapilot's code. Containers have addresses in
//! 127.0.0.0/8. Use it with `#[path = "../support/fake_docker/mod.rs"] mod fake_docker;`.
//!
//! ```ignore
//! let docker = FakeDocker::start(dir.path().join("docker.sock"));
//! let id = docker.add(FakeContainer::new("web").env("VIRTUAL_HOST", "a.example").network("bridge", "127.1.0.1"));
//! docker.die(&id);
//! assert_eq!(docker.calls().inspect, 1);
//! ```
//!
//! `start` needs a tokio runtime with I/O. All else is synchronous and cheap:
//! answers are rendered once per change, so that 10,000 containers are served
//! quickly.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it, as a module of its own")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a fault of the fake is a failed test")]
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, clippy::return_self_not_must_use)]

mod container;
mod http;
mod swarm;

pub use container::{FakeContainer, network_id};
use swarm::FakeSwarm;
#[allow(unused_imports, reason = "only tests of swarms use them")]
pub use swarm::{FakeService, FakeTask};

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

/// How many past events are kept for `since`, as Docker does.
const KEPT_EVENTS: usize = 256;

/// How an inspect of a container fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// With this HTTP status.
    Status(u16),
    /// With status 200 and something that is no JSON.
    Garbage,
    /// With status 200 and JSON that lacks everything.
    Empty,
    /// Not at all: the connection stays open and silent.
    Hang,
    /// The connection is closed without an answer.
    Close,
}

/// How often each kind of call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// `/containers/json`.
    pub list: u64,
    /// `/containers/{id}/json`.
    pub inspect: u64,
    /// `/events`: streams opened.
    pub events: u64,
    /// `/_ping`.
    pub ping: u64,
    /// `/version`.
    pub version: u64,
    /// `/networks`.
    pub networks: u64,
    /// `/info`.
    pub info: u64,
    /// `/services` and `/nodes`.
    pub book: u64,
    /// `/tasks`.
    pub tasks: u64,
}

impl Calls {
    /// Calls that read containers.
    pub fn reads(&self) -> u64 {
        self.list + self.inspect
    }
}

#[derive(Default)]
struct Counters {
    list: AtomicU64,
    inspect: AtomicU64,
    events: AtomicU64,
    ping: AtomicU64,
    version: AtomicU64,
    networks: AtomicU64,
    info: AtomicU64,
    book: AtomicU64,
    tasks: AtomicU64,
}

/// One past or present event.
struct Event {
    time_nano: u128,
    typ: String,
    action: String,
    line: Bytes,
}

/// Someone who listens to `/events`.
struct Subscriber {
    types: Vec<String>,
    actions: Vec<String>,
    lines: UnboundedSender<Bytes>,
}

impl Subscriber {
    /// Filters as Docker does: `health_status` means each of its outcomes.
    fn wants(&self, event: &Event) -> bool {
        let action = event.action.split(':').next().unwrap_or_default();
        (self.types.is_empty() || self.types.contains(&event.typ))
            && (self.actions.is_empty() || self.actions.iter().any(|wanted| wanted == action))
    }
}

struct Entry {
    container: FakeContainer,
    listed: Option<Bytes>,
    inspected: Option<Bytes>,
}

#[derive(Default)]
struct State {
    /// In the order of their creation.
    entries: BTreeMap<u64, Entry>,
    by_id: HashMap<String, u64>,
    next: u64,
    events: Vec<Event>,
    subscribers: Vec<Subscriber>,
    /// Streams that stay open and get nothing.
    silent: Vec<Subscriber>,
    inspect_faults: HashMap<String, Fault>,
    list_fault: Option<Fault>,
    /// Driver and whether it is internal, of networks that are no plain bridges;
    /// by identifier.
    networks: BTreeMap<String, (String, bool)>,
    /// The swarm that it manages.
    swarm: Option<FakeSwarm>,
    paths: Vec<String>,
}

struct Shared {
    state: Mutex<State>,
    calls: Counters,
    /// Pings get no answer.
    ping_hangs: AtomicBool,
    api_version: Mutex<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The fake engine. It ends when it is dropped.
pub struct FakeDocker {
    shared: Arc<Shared>,
    path: PathBuf,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        self.stop_listening();
    }
}

impl FakeDocker {
    /// Listens at `path`.
    pub fn start(path: impl Into<PathBuf>) -> Self {
        let docker = Self::stopped(path);
        docker.listen();
        docker
    }

    /// An engine that does not listen yet: see [`Self::listen`].
    pub fn stopped(path: impl Into<PathBuf>) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            calls: Counters::default(),
            ping_hangs: AtomicBool::new(false),
            api_version: Mutex::new("1.41".into()),
        });
        Self { shared, path: path.into(), server: Mutex::new(None) }
    }

    /// Listens (again).
    pub fn listen(&self) {
        let _ = std::fs::remove_file(&self.path);
        let listener = tokio::net::UnixListener::bind(&self.path).unwrap();
        let server = tokio::spawn(http::serve(listener, Arc::clone(&self.shared)));
        *self.server.lock().unwrap() = Some(server);
    }

    /// Stops as an engine does that is killed: connections are cut, the socket
    /// vanishes. The containers stay.
    pub fn stop_listening(&self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
        self.cut_events();
        let _ = std::fs::remove_file(&self.path);
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The address, as `DOCKER_HOST` names it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// What `/version` says; 1.41 if never set.
    pub fn set_api_version(&self, version: &str) {
        version.clone_into(&mut self.shared.api_version.lock().unwrap());
    }

    // --- Containers. Everything that takes an `id` panics if there is none. ---

    /// Adds a container that runs (unless the builder says otherwise), without
    /// an event: it was there before anyone looked.
    pub fn add(&self, container: FakeContainer) -> String {
        let mut state = self.shared.lock();
        let number = state.next;
        state.next += 1;
        let id = format!("{:064x}", 0x00c0_ffee_u128 << 64 | u128::from(number) << 24 | 0xd0_ca11);
        let id = container.id.clone().unwrap_or(id);
        let container = FakeContainer { id: Some(id.clone()), ..container };
        state.by_id.insert(id.clone(), number);
        state.entries.insert(number, Entry { container, listed: None, inspected: None });
        id
    }

    /// `docker run`: create, connect, start, with their events.
    pub fn run(&self, container: FakeContainer) -> String {
        let networks: Vec<String> = container.networks.keys().cloned().collect();
        let id = self.add(FakeContainer { status: "created".into(), ..container });
        self.container_event(&id, "create");
        for network in networks {
            self.network_event(&id, "connect", &network);
        }
        self.start_container(&id);
        id
    }

    /// `docker start`.
    pub fn start_container(&self, id: &str) {
        self.change(id, |container| {
            container.status = "running".into();
            container.started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        });
        self.container_event(id, "start");
    }

    /// The process ends by itself. Its addresses are given back.
    pub fn die(&self, id: &str) {
        let mut networks = Vec::new();
        self.change(id, |container| {
            container.status = "exited".into();
            networks = container.networks.keys().cloned().collect();
        });
        self.container_event(id, "die");
        for network in networks {
            self.network_event(id, "disconnect", &network);
        }
    }

    /// `docker kill --signal`, or the first half of `docker stop`; what its process
    /// does about it is another matter.
    pub fn signal(&self, id: &str, signal: &str) {
        let actor = json!({"ID": id, "Attributes": {"image": "fake:latest", "signal": signal}});
        Self::send(&mut self.shared.lock(), "container", "kill", &actor);
    }

    /// `docker stop`.
    pub fn stop(&self, id: &str) {
        self.signal(id, "15");
        self.die(id);
        self.container_event(id, "stop");
    }

    /// `docker rm` of a stopped container.
    pub fn destroy(&self, id: &str) {
        self.container_event(id, "destroy");
        self.vanish(id);
    }

    /// It is gone, and no event tells of it.
    pub fn vanish(&self, id: &str) {
        let mut state = self.shared.lock();
        let number = state.by_id.remove(id).expect("no such container");
        state.entries.remove(&number);
    }

    /// `docker pause`.
    pub fn pause(&self, id: &str) {
        self.change(id, |container| container.status = "paused".into());
        self.container_event(id, "pause");
    }

    /// `docker unpause`.
    pub fn unpause(&self, id: &str) {
        self.change(id, |container| container.status = "running".into());
        self.container_event(id, "unpause");
    }

    /// `docker rename`.
    pub fn rename(&self, id: &str, name: &str) {
        self.change(id, |container| container.name = name.into());
        self.container_event(id, "rename");
    }

    /// `docker network connect`.
    pub fn connect(&self, id: &str, network: &str, ip: &str) {
        self.change(id, |container| {
            container.networks.insert(network.into(), ip.into());
        });
        self.network_event(id, "connect", network);
    }

    /// `docker network disconnect`.
    pub fn disconnect(&self, id: &str, network: &str) {
        self.change(id, |container| {
            container.networks.remove(network);
        });
        self.network_event(id, "disconnect", network);
    }

    /// The health check comes to a result: `starting`, `healthy`, `unhealthy`.
    pub fn health(&self, id: &str, status: &str) {
        self.change(id, |container| container.health = Some(status.into()));
        self.container_event(id, &format!("health_status: {status}"));
    }

    /// Changes a container, and no event tells of it.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut FakeContainer)) {
        let mut state = self.shared.lock();
        let number = state.by_id[id];
        let entry = state.entries.get_mut(&number).unwrap();
        change(&mut entry.container);
        (entry.listed, entry.inspected) = (None, None);
    }

    /// A network of this identifier is made by another driver than a bridge's, or
    /// leads nowhere.
    pub fn set_network(&self, id: &str, driver: &str, internal: bool) {
        self.shared.lock().networks.insert(id.into(), (driver.into(), internal));
    }

    // --- Events ---

    /// Sends an event about a container as it is.
    pub fn container_event(&self, id: &str, action: &str) {
        let mut state = self.shared.lock();
        let attributes = match state.by_id.get(id) {
            Some(number) => {
                let container = &state.entries[number].container;
                json!({"image": "fake:latest", "name": container.name})
            }
            None => json!({}),
        };
        Self::send(&mut state, "container", action, &json!({"ID": id, "Attributes": attributes}));
    }

    /// Sends an event about a container and a network.
    pub fn network_event(&self, id: &str, action: &str, network: &str) {
        let attributes = json!({"container": id, "name": network, "type": "bridge"});
        let actor = json!({"ID": format!("{:0>64}", "beef"), "Attributes": attributes});
        Self::send(&mut self.shared.lock(), "network", action, &actor);
    }

    /// Sends these bytes down every event stream, whatever they are.
    pub fn emit_raw(&self, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.shared.lock().subscribers.retain(|subscriber| subscriber.lines.send(bytes.clone()).is_ok());
    }

    fn send(state: &mut State, typ: &str, action: &str, actor: &Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let body = json!({
            "Type": typ, "Action": action, "Actor": actor, "scope": "local",
            "time": now.as_secs(), "timeNano": u64::try_from(now.as_nanos()).unwrap(),
        });
        let line = Bytes::from(format!("{body}\n"));
        let event = Event { time_nano: now.as_nanos(), typ: typ.into(), action: action.into(), line };
        state.subscribers.retain(|subscriber| {
            if subscriber.wants(&event) {
                subscriber.lines.send(event.line.clone()).is_ok()
            } else {
                !subscriber.lines.is_closed()
            }
        });
        if state.events.len() == KEPT_EVENTS {
            state.events.remove(0);
        }
        state.events.push(event);
    }

    // --- Faults ---

    /// From now on an inspect of `id` fails like this (`None`: it works again).
    pub fn fail_inspect(&self, id: &str, fault: impl Into<Option<Fault>>) {
        let mut state = self.shared.lock();
        match fault.into() {
            Some(fault) => state.inspect_faults.insert(id.to_owned(), fault),
            None => state.inspect_faults.remove(id),
        };
    }

    /// From now on a list fails like this (`None`: it works again).
    pub fn fail_list(&self, fault: impl Into<Option<Fault>>) {
        self.shared.lock().list_fault = fault.into();
    }

    /// Ends every event stream, as an engine does that shuts down in order.
    pub fn cut_events(&self) {
        let mut state = self.shared.lock();
        state.subscribers.clear();
        state.silent.clear();
    }

    /// The event streams that are open fall silent for good, as after a lost
    /// connection. New ones work.
    pub fn stall_events(&self) {
        let mut state = self.shared.lock();
        let silent = std::mem::take(&mut state.subscribers);
        state.silent.extend(silent);
    }

    /// Pings get no answer.
    pub fn hang_ping(&self, hangs: bool) {
        self.shared.ping_hangs.store(hangs, Ordering::Relaxed);
    }

    // --- What was done to it ---

    /// How often each kind of call was made so far.
    pub fn calls(&self) -> Calls {
        let calls = &self.shared.calls;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Calls {
            list: count(&calls.list),
            inspect: count(&calls.inspect),
            events: count(&calls.events),
            ping: count(&calls.ping),
            version: count(&calls.version),
            networks: count(&calls.networks),
            info: count(&calls.info),
            book: count(&calls.book),
            tasks: count(&calls.tasks),
        }
    }

    /// The last paths asked for (at most 1,000), with version and query.
    pub fn paths(&self) -> Vec<String> {
        self.shared.lock().paths.clone()
    }

    /// How many event streams are open.
    pub fn listeners(&self) -> usize {
        let mut state = self.shared.lock();
        state.subscribers.retain(|subscriber| !subscriber.lines.is_closed());
        state.subscribers.len()
    }
}
