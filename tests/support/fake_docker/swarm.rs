//! The fake engine as the manager of a swarm: services, nodes, tasks.
//!
//! What lives here: what `/info`, `/services`, `/nodes` and `/tasks` answer, in
//! the form recorded from Docker 20.10, and the events of services and nodes. A
//! manager tells no events of tasks. What it must not know: who asks.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::http::strings;
use super::{FakeDocker, State, network_id};

/// A status, and what is said about it.
type Refusal = (StatusCode, String);

/// The swarm that a fake engine manages.
#[derive(Default)]
pub struct FakeSwarm {
    /// The manager's own node.
    node: String,
    services: BTreeMap<String, FakeService>,
    /// `ready` or `down`, by identifier.
    nodes: BTreeMap<String, String>,
    tasks: BTreeMap<String, FakeTask>,
    next: u64,
    /// What is answered instead of everything but `/info`.
    failure: Option<(u16, String)>,
    /// What `/info` says is `worker`, `locked`, …; a manager if it is `None`.
    role: Option<String>,
}

/// One service.
#[derive(Debug, Clone, Default)]
pub struct FakeService {
    /// Its name.
    pub name: String,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// Labels of its containers.
    pub container_labels: BTreeMap<String, String>,
    /// Environment of its containers, `NAME=value`.
    pub env: Vec<String>,
}

impl FakeService {
    /// One that says nothing.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// With a label of its own.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}

/// One task.
#[derive(Debug, Clone)]
pub struct FakeTask {
    /// Its service.
    pub service: String,
    /// Its number within the service.
    pub slot: u64,
    /// Its node, or an empty text.
    pub node: String,
    /// What its process does: `assigned`, `starting`, `running`, `shutdown`, `failed`, …
    pub state: String,
    /// What is wished of it: `running`, `shutdown`, `remove`.
    pub desired: String,
    /// Its container.
    pub container: String,
    /// IPv4 address by network.
    pub networks: BTreeMap<String, String>,
    /// The driver of its networks.
    pub driver: String,
}

impl FakeTask {
    /// One that runs on a node, in a container of this identifier.
    pub fn running(service: &str, slot: u64, node: &str, container: &str) -> Self {
        Self {
            service: service.into(),
            slot,
            node: node.into(),
            state: "running".into(),
            desired: "running".into(),
            container: container.into(),
            networks: BTreeMap::new(),
            driver: "overlay".into(),
        }
    }

    /// On networks that a host may reach.
    pub fn driver(mut self, driver: &str) -> Self {
        self.driver = driver.into();
        self
    }

    /// In this state.
    pub fn state(mut self, state: &str) -> Self {
        self.state = state.into();
        self
    }

    /// On a network, with an address in 127.0.0.0/8.
    pub fn network(mut self, name: &str, ip: &str) -> Self {
        self.networks.insert(name.into(), ip.into());
        self
    }
}

impl FakeSwarm {
    fn identifier(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{:0>20}", self.next)
    }

    fn info(&self) -> Value {
        let (state, manager) = match self.role.as_deref() {
            None => ("active", true),
            Some("worker") => ("active", false),
            Some(other) => (other, false),
        };
        json!({"NodeID": self.node, "NodeAddr": "127.0.0.1", "LocalNodeState": state,
            "ControlAvailable": manager, "Error": ""})
    }

    fn answer(&self, kind: &str, filters: &Value) -> Result<Value, Refusal> {
        if let Some((status, message)) = &self.failure {
            return Err((StatusCode::from_u16(*status).unwrap(), message.clone()));
        }
        if self.role.is_some() {
            return Err(no_manager());
        }
        match kind {
            "services" => Ok(self.services.iter().map(|(id, service)| service_json(id, service)).collect()),
            "nodes" => Ok(self.nodes.iter().map(|(id, state)| node_json(id, state)).collect()),
            _ => self.tasks(filters),
        }
    }

    fn tasks(&self, filters: &Value) -> Result<Value, Refusal> {
        let [ids, services, desired] = ["id", "service", "desired-state"].map(|key| strings(&filters[key]));
        // Docker looks them up first.
        if let Some(unknown) = services.iter().find(|id| !self.services.contains_key(*id)) {
            return Err((StatusCode::NOT_FOUND, format!("service {unknown} not found")));
        }
        let any =
            |wanted: &[String], is: &dyn Fn(&str) -> bool| wanted.is_empty() || wanted.iter().any(|w| is(w));
        let wanted = self.tasks.iter().filter(|(id, task)| {
            any(&ids, &|wanted| id.starts_with(wanted))
                && any(&services, &|wanted| task.service == wanted)
                && any(&desired, &|wanted| task.desired == wanted)
        });
        Ok(wanted.map(|(id, task)| task_json(id, task, self.services.get(&task.service))).collect())
    }
}

fn service_json(id: &str, service: &FakeService) -> Value {
    json!({
        "ID": id, "Version": {"Index": 18}, "CreatedAt": "2026-11-25T23:12:24.136990663Z",
        "UpdatedAt": "2026-11-25T23:12:24.136990663Z",
        "Spec": {
            "Name": service.name, "Labels": service.labels,
            "TaskTemplate": {"ContainerSpec": {"Image": "fake:latest", "Labels": service.container_labels,
                "Env": service.env, "Isolation": "default"}, "ForceUpdate": 0, "Runtime": "container"},
            "Mode": {"Replicated": {"Replicas": 3}}, "EndpointSpec": {"Mode": "dnsrr"},
        },
        "Endpoint": {"Spec": {}},
    })
}

fn node_json(id: &str, state: &str) -> Value {
    json!({
        "ID": id, "Version": {"Index": 22}, "Spec": {"Labels": {}, "Role": "worker", "Availability": "active"},
        "Description": {"Hostname": id}, "Status": {"State": state, "Addr": "127.0.0.1"},
    })
}

fn task_json(id: &str, task: &FakeTask, service: Option<&FakeService>) -> Value {
    let service = service.cloned().unwrap_or_default();
    let attachment = |(name, ip): (&String, &String)| {
        json!({
            "Network": {"ID": network_id(name), "Spec": {"Name": name, "Labels": {}, "Scope": "swarm"},
                "DriverState": {"Name": task.driver}},
            "Addresses": [format!("{ip}/8")],
        })
    };
    let runs = task.state == "running";
    json!({
        "ID": id, "Version": {"Index": 27}, "Labels": {}, "ServiceID": task.service, "Slot": task.slot,
        "Spec": {"ContainerSpec": {"Image": "fake:latest", "Labels": service.container_labels,
            "Env": service.env, "Isolation": "default"}, "ForceUpdate": 0},
        "NodeID": task.node, "DesiredState": task.desired,
        "Status": {"Timestamp": "2026-11-25T23:12:25.305185436Z", "State": task.state, "Message": "",
            "ContainerStatus": {"ContainerID": task.container, "PID": if runs { 4711 } else { 0 }, "ExitCode": 0},
            "PortStatus": {}},
        "NetworksAttachments": task.networks.iter().map(attachment).collect::<Vec<_>>(),
    })
}

impl FakeDocker {
    /// `docker swarm init`: from now on it is a manager, as this node.
    pub fn swarm_init(&self, node: &str) {
        let nodes = [(node.to_owned(), "ready".to_owned())].into();
        let swarm = FakeSwarm { node: node.into(), nodes, ..FakeSwarm::default() };
        self.shared.lock().swarm = Some(swarm);
    }

    /// Another role than a manager's: `worker`, `locked`, `inactive`; `None`: a
    /// manager again.
    pub fn swarm_role(&self, role: Option<&str>) {
        self.swarm(|swarm, _| swarm.role = role.map(str::to_owned));
    }

    /// It answers like this to every question about its swarm (`None`: as ever).
    pub fn fail_swarm(&self, failure: Option<(u16, &str)>) {
        self.swarm(|swarm, _| swarm.failure = failure.map(|(status, text)| (status, text.to_owned())));
    }

    /// A node joins, or its state changes.
    pub fn set_node(&self, id: &str, state: &str) {
        self.swarm(|swarm, events| {
            swarm.nodes.insert(id.into(), state.into());
            events.push(("node", "update", id.to_owned()));
        });
    }

    /// `docker service create`, without any tasks.
    pub fn create_service(&self, service: FakeService) -> String {
        self.swarm(|swarm, events| {
            let id = swarm.identifier("service");
            swarm.services.insert(id.clone(), service);
            events.push(("service", "create", id.clone()));
            id
        })
    }

    /// `docker service update`.
    pub fn update_service(&self, id: &str, change: impl FnOnce(&mut FakeService)) {
        self.swarm(|swarm, events| {
            change(swarm.services.get_mut(id).expect("no such service"));
            events.push(("service", "update", id.to_owned()));
        });
    }

    /// `docker service rm`: its tasks are to be removed.
    pub fn remove_service(&self, id: &str) {
        self.swarm(|swarm, events| {
            swarm.services.remove(id).expect("no such service");
            for task in swarm.tasks.values_mut().filter(|task| task.service == id) {
                task.desired = "remove".into();
            }
            events.push(("service", "remove", id.to_owned()));
        });
    }

    /// A new task. Nobody is told.
    pub fn add_task(&self, task: FakeTask) -> String {
        self.swarm(|swarm, _| {
            let id = swarm.identifier("task");
            swarm.tasks.insert(id.clone(), task);
            id
        })
    }

    /// Changes a task. Nobody is told.
    pub fn change_task(&self, id: &str, change: impl FnOnce(&mut FakeTask)) {
        self.swarm(|swarm, _| change(swarm.tasks.get_mut(id).expect("no such task")));
    }

    /// Swarm strikes a task out.
    pub fn strike_task(&self, id: &str) {
        self.swarm(|swarm, _| swarm.tasks.remove(id).expect("no such task"));
    }

    fn swarm<T>(&self, change: impl FnOnce(&mut FakeSwarm, &mut Vec<(&str, &str, String)>) -> T) -> T {
        let mut state = self.shared.lock();
        let mut events = Vec::new();
        let answer = change(state.swarm.as_mut().expect("no swarm: `swarm_init` comes first"), &mut events);
        for (typ, action, id) in events {
            Self::send(&mut state, typ, action, &json!({"ID": id, "Attributes": {"name": "fake"}}));
        }
        answer
    }
}

/// The answer to `/services`, `/nodes` or `/tasks`.
pub fn answer(state: &State, kind: &str, filters: &Value) -> Result<Value, Refusal> {
    state.swarm.as_ref().ok_or_else(no_manager)?.answer(kind, filters)
}

fn no_manager() -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, "This node is not a swarm manager.".into())
}

/// What `/info` says of a swarm.
pub fn info(state: &State) -> Value {
    let inactive = || json!({"NodeID": "", "LocalNodeState": "inactive", "ControlAvailable": false});
    state.swarm.as_ref().map_or_else(inactive, FakeSwarm::info)
}
