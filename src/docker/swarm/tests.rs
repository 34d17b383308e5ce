//! What follows from a manager's answers, on answers recorded from Docker
//! 20.10.24: two nodes, one service of three replicas in the middle of a
//! `start-first` update, one global service with a check and a published port.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::answer::{self, Node, Read, Role, Service, Stage, SwarmId, Task, Wish};
use super::roster::{News, Roster, SERVICE_MARK, TASK_MARK};
use crate::core::container::{Container, ContainerId, Driver, Health, Nearness, RunState};
use crate::core::few::Few;

const TASKS: &str = include_str!("../../../tests/data/docker/swarm-tasks-20.10.json");
const SERVICES: &str = include_str!("../../../tests/data/docker/swarm-services-20.10.json");
const NODES: &str = include_str!("../../../tests/data/docker/swarm-nodes-20.10.json");
const INFO: &str = include_str!("../../../tests/data/docker/swarm-info-20.10.json");

/// The manager that was asked.
const MANAGER: &str = "t5f33kd5rx4pxl13zy3x7x0j8";
const WORKER: &str = "yb5pxo0vo8v3n2zhfjejm1rsn";
/// A replica on the worker that is to end, and the one that takes its place.
const OLD: &str = "tuqwq1";
const NEW: &str = "otxnee";

fn elements(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn id(text: &str) -> SwarmId {
    SwarmId::new(text).unwrap()
}

fn all<T>(all: Vec<T>) -> Read<T> {
    Read { all, unreadable: Vec::new() }
}

fn service(value: &Value) -> Service {
    answer::service(value.to_string().as_bytes()).unwrap()
}

fn task(value: &Value) -> Task {
    answer::task(value.to_string().as_bytes()).unwrap().unwrap()
}

fn services() -> Vec<Service> {
    elements(SERVICES).iter().map(service).collect()
}

fn nodes() -> Vec<Node> {
    elements(NODES).iter().map(|node| answer::node(node.to_string().as_bytes()).unwrap()).collect()
}

fn tasks() -> Vec<Task> {
    elements(TASKS).iter().map(task).collect()
}

/// The recorded task whose identifier begins so.
fn recorded(begins: &str) -> Value {
    elements(TASKS).into_iter().find(|task| task["ID"].as_str().unwrap().starts_with(begins)).unwrap()
}

/// Those that are to run: what a manager answers to that question.
fn to_run() -> Vec<Task> {
    tasks().into_iter().filter(|task| task.wish == Wish::Run).collect()
}

fn roster() -> Roster {
    let mut roster = Roster::default();
    roster.manages(&id(MANAGER));
    assert!(roster.take_services(all(services())).is_empty());
    assert!(roster.take_nodes(all(nodes())).is_empty());
    roster
}

fn names(news: &News) -> Vec<String> {
    let mut names: Vec<String> = news.changed.iter().map(|container| container.name.to_string()).collect();
    names.sort();
    names
}

fn own(container: &str, service: &str, task: &str) -> Container {
    Container::running(ContainerId::new(container).unwrap(), "own")
        .with_label(SERVICE_MARK, service)
        .with_label(TASK_MARK, task)
}

fn shop() -> Service {
    services().into_iter().find(|service| &*service.name == "shop").unwrap()
}

#[test]
fn roles() {
    assert_eq!(answer::role(INFO.as_bytes()), Ok(Role::Manager(id(MANAGER))));
    let role = |swarm: Value| answer::role(json!({"ID": "x", "Swarm": swarm}).to_string().as_bytes());
    let worker = json!({"NodeID": WORKER, "LocalNodeState": "active", "ControlAvailable": false});
    assert_eq!(role(worker), Ok(Role::None));
    assert_eq!(role(json!({"NodeID": "", "LocalNodeState": "inactive"})), Ok(Role::None));
    assert_eq!(role(json!(null)), Ok(Role::None));
    let locked = json!({"LocalNodeState": "locked", "Error": "no key"});
    assert_eq!(role(locked), Ok(Role::Undecided("its part in the swarm is locked: no key".into())));
    assert!(role(json!({"ControlAvailable": true, "NodeID": "a b"})).is_err());
    assert!(answer::role(b"{").is_err());
}

#[test]
fn a_service_speaks_by_its_labels_its_containers_labels_or_their_environment() {
    let shop = shop();
    assert_eq!(shop.labels.keys().collect::<Vec<_>>(), ["hapilot.host", "hapilot.port"]);
    assert!(shop.speaks && shop.ports.is_empty());
    let other = services().into_iter().find(|service| &*service.name == "glob").unwrap();
    assert!(!other.speaks && other.ports == [8000], "{other:?}");
    let speaks = |spec: Value| service(&json!({"ID": "a", "Spec": spec})).speaks;
    assert!(!speaks(json!({"Name": "x", "Labels": {"other": "x"}})));
    assert!(speaks(json!({"TaskTemplate": {"ContainerSpec": {"Labels": {"hapilot.host": "x"}}}})));
    assert!(speaks(json!({"TaskTemplate": {"ContainerSpec": {"Env": ["VIRTUAL_HOST=x"]}}})));
    assert!(!speaks(json!({"TaskTemplate": {"ContainerSpec": {"Env": ["SECRET=x"]}}})));
    assert!(!speaks(json!({"TaskTemplate": {"PluginSpec": {}}})));
}

#[test]
fn a_recorded_task_has_the_facts_of_its_container() {
    let task = task(&recorded(OLD));
    assert_eq!((task.stage, task.wish), (Stage::Running, Wish::End));
    assert_eq!(task.node, Some(id(WORKER)));
    let container = &task.container;
    let wanted = recorded(OLD)["Status"]["ContainerStatus"]["ContainerID"].as_str().unwrap().to_owned();
    assert_eq!(container.id.as_str(), wanted);
    assert!(container.run == RunState::Running && container.stopping);
    assert_eq!(&*container.name, format!("2.{}", task.id.as_str()));
    assert_eq!((container.stop_signal, container.stop_timeout.as_secs()), (3, 20));
    assert_eq!(container.health, None);
    assert!(container.started_at.is_some());
    assert_eq!(container.labels.iter().collect::<Vec<_>>(), [(&"hapilot.weight".into(), &"7".into())]);
    assert_eq!(container.env.iter().collect::<Vec<_>>(), [(&"VIRTUAL_PORT".into(), &"8000".into())]);
    let (name, endpoint) = container.networks.iter().next().unwrap();
    let network = endpoint.network.as_ref().unwrap();
    assert_eq!(
        (&**name, &*network.id, network.driver),
        ("web", "vi10er0eyljzrax8p70rvbq5o", Driver::Overlay)
    );
    assert!(endpoint.ipv4.is_some() && endpoint.ipv6.is_none());
}

#[test]
fn a_global_task_is_named_after_its_node_and_healthy_when_it_runs() {
    let task = task(&recorded("wl7pcz"));
    assert_eq!(&*task.container.name, format!("{WORKER}.{}", task.id.as_str()));
    assert_eq!(task.container.health, Some(Health::Healthy));
    let ports: Vec<_> = task.container.published.iter().map(|p| (p.container_port, p.host_port)).collect();
    assert_eq!(ports, [(8000, 18000)], "told twice, of IPv4 and IPv6");
}

#[test]
fn what_is_no_container_of_a_service_is_passed_over() {
    let none = |change: &dyn Fn(&mut Value)| {
        let mut value = recorded(OLD);
        change(&mut value);
        answer::task(value.to_string().as_bytes())
    };
    assert_eq!(none(&|task| task["ServiceID"] = json!("")), Ok(None));
    assert_eq!(none(&|task| task["Spec"] = json!({"NetworkAttachmentSpec": {"ContainerID": "x"}})), Ok(None));
}

#[test]
fn garbage_is_an_error() {
    let with = |pointer: &str, value: Value| {
        let mut task = recorded(OLD);
        *task.pointer_mut(pointer).unwrap() = value;
        answer::task(task.to_string().as_bytes())
    };
    assert!(with("/ID", json!("../x")).is_err());
    assert!(with("/NodeID", json!("a\nb")).is_err());
    assert!(with("/Status/ContainerStatus/ContainerID", json!("a b")).is_err());
    assert!(with("/Status/State", json!("flying")).is_err());
    assert!(with("/DesiredState", json!("")).is_err());
    assert!(with("/NetworksAttachments/0/Addresses/0", json!("here/24")).is_err());
    assert!(answer::task(b"{}").is_err());
    assert!(answer::service(br#"{"ID": "a;b", "Spec": {}}"#).is_err());
    assert!(answer::node(br#"{"ID": ""}"#).is_err());
    assert_eq!(answer::identifier(br#"{"ID": "abc", "Status": 7}"#), Some(id("abc")));
}

#[test]
fn tasks_of_services_that_speak_are_told_with_what_the_service_says() {
    let mut roster = roster();
    let (news, moved) = roster.take_tasks(all(to_run()), Instant::now());
    assert!(moved && news.gone.is_empty());
    let name = format!("shop.2.{}", recorded(NEW)["ID"].as_str().unwrap());
    assert_eq!(news.changed[0].nearness, Nearness::Elsewhere);
    assert_eq!(names(&news), [name], "only what runs, on other nodes, and speaks");
    let labels: Vec<String> = news.changed[0].labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["hapilot.host=shop.example", "hapilot.port=8000", "hapilot.weight=7"]);
    let (news, moved) = roster.take_tasks(all(to_run().into_iter().rev().collect()), Instant::now());
    assert!(news.is_empty() && !moved, "the same again, in another order");
}

#[test]
fn what_a_container_says_itself_counts_before_what_its_service_says() {
    let mut roster = roster();
    let mut changed = shop();
    changed.labels.insert("hapilot.weight".into(), "1".into());
    roster.take_services(all(vec![changed]));
    let (news, _) = roster.take_tasks(all(to_run()), Instant::now());
    assert_eq!(news.changed[0].labels["hapilot.weight"], "7");
}

#[test]
fn a_task_is_drained_when_it_is_to_end_and_gone_when_it_has_ended() {
    let mut roster = roster();
    let mut running = recorded(OLD);
    running["DesiredState"] = json!("running");
    let (news, _) = roster.take_tasks(all(vec![task(&running)]), Instant::now());
    assert!(!news.changed[0].stopping);

    // It is not among those which are to run any more: what has become of it?
    let (news, moved) = roster.take_tasks(all(to_run()), Instant::now());
    assert!(moved && news.gone.is_empty());
    assert_eq!(roster.missing().iter().collect::<Vec<_>>(), [&id(recorded(OLD)["ID"].as_str().unwrap())]);
    let news = roster.take_missing(all(vec![task(&recorded(OLD))]));
    assert!(news.changed.len() == 1 && news.changed[0].stopping && news.gone.is_empty());

    // Again and again, until it has ended.
    let (_, moved) = roster.take_tasks(all(to_run()), Instant::now());
    assert!(!moved);
    let news = roster.take_missing(all(vec![task(&recorded(OLD))]));
    assert!(news.is_empty());
    let mut ended = recorded(OLD);
    ended["Status"]["State"] = json!("shutdown");
    roster.take_tasks(all(to_run()), Instant::now());
    let news = roster.take_missing(all(vec![task(&ended)]));
    assert_eq!(news.gone, [task(&ended).container.id]);
    roster.take_tasks(all(to_run()), Instant::now());
    assert!(roster.missing().is_empty());
}

#[test]
fn a_task_that_swarm_has_struck_out_or_that_failed_is_gone() {
    for state in ["failed", "complete", "rejected", "orphaned", "remove"] {
        let mut roster = roster();
        roster.take_tasks(all(to_run()), Instant::now());
        let mut failed = recorded(NEW);
        failed["Status"]["State"] = json!(state);
        let (news, _) = roster.take_tasks(all(vec![task(&failed)]), Instant::now());
        assert_eq!(news.gone, [task(&failed).container.id], "{state}");
    }
    let mut roster = roster();
    roster.take_tasks(all(to_run()), Instant::now());
    roster.take_tasks(all(Vec::new()), Instant::now());
    let news = roster.take_missing(all(Vec::new()));
    assert_eq!(news.gone, [task(&recorded(NEW)).container.id]);
}

#[test]
fn a_task_that_is_not_there_yet_is_movement_and_not_told() {
    let mut roster = roster();
    roster.take_tasks(all(to_run()), Instant::now());
    let mut next = recorded("whd6aw");
    for state in ["accepted", "preparing", "ready", "starting"] {
        next["Status"]["State"] = json!(state);
        let mut tasks: Vec<Task> = to_run().into_iter().filter(|task| task.stage == Stage::Running).collect();
        tasks.push(task(&next));
        let (news, _) = roster.take_tasks(all(tasks), Instant::now());
        assert!(news.is_empty(), "{state}");
    }
    next["Status"]["State"] = json!("running");
    let (news, moved) = roster.take_tasks(all(vec![task(&recorded(NEW)), task(&next)]), Instant::now());
    assert!(moved && news.changed.len() == 1);
}

#[test]
fn another_label_of_a_service_reaches_all_its_tasks() {
    let mut roster = roster();
    let began = Instant::now();
    let mut local = own("abc", shop().id.as_str(), "task1");
    assert!(roster.dress(&mut local, began));
    assert_eq!(local.labels["hapilot.host"], "shop.example");
    assert_eq!(local.nearness, Nearness::Here);
    assert!(!local.labels.contains_key(SERVICE_MARK) && !local.labels.contains_key(TASK_MARK));
    roster.take_tasks(all(to_run()), began);

    let mut changed = shop();
    changed.labels.insert("hapilot.host".into(), "b.example".into());
    let news = roster.take_services(all(vec![changed]));
    assert_eq!(news.changed.len(), 2);
    assert!(news.changed.iter().all(|container| container.labels["hapilot.host"] == "b.example"));

    // It asks for nothing any more.
    let news = roster.take_services(all(vec![Service { labels: Few::new(), speaks: false, ..shop() }]));
    assert_eq!((news.changed.len(), news.gone.len()), (2, 1));
    assert!(news.changed.iter().all(|container| !container.labels.contains_key("hapilot.host")));
}

#[test]
fn a_service_that_is_removed_speaks_for_its_tasks_until_they_are_gone() {
    let mut roster = roster();
    let began = Instant::now();
    let mut local = own("abc", shop().id.as_str(), "task1");
    roster.dress(&mut local, began);
    roster.take_tasks(all(to_run()), began + Duration::from_millis(1));
    assert!(roster.take_services(all(Vec::new())).is_empty());
    assert_eq!((roster.speaking().count(), roster.has_tasks()), (0, true));
    roster.take_tasks(all(Vec::new()), began + Duration::from_millis(2));
    assert_eq!(roster.missing().len(), 2, "both are asked for");
    let mut ends = recorded(NEW);
    ends["DesiredState"] = json!("remove");
    let mut local_ends = recorded(NEW);
    (local_ends["ID"], local_ends["NodeID"], local_ends["DesiredState"]) =
        (json!("task1"), json!(MANAGER), json!("remove"));
    let news = roster.take_missing(all(vec![task(&ends), task(&local_ends)]));
    assert_eq!(news.changed.len(), 2);
    assert!(news.changed.iter().all(|c| c.stopping && c.labels["hapilot.host"] == "shop.example"));

    roster.take_tasks(all(Vec::new()), began + Duration::from_millis(3));
    assert_eq!(roster.take_missing(all(Vec::new())).gone.len(), 1);
    roster.gone(&local.id);
    roster.take_services(all(Vec::new()));
    assert!(!roster.has_tasks());
}

#[test]
fn a_container_on_this_node_stops_when_its_task_is_to_end() {
    let mut roster = roster();
    let seen = Instant::now();
    let mut local = own("abc", shop().id.as_str(), "task1");
    roster.dress(&mut local, seen);
    // This list may be older than the container.
    roster.take_tasks(all(to_run()), seen);
    assert!(roster.missing().is_empty());
    roster.take_tasks(all(to_run()), seen + Duration::from_millis(1));
    assert_eq!(roster.missing().len(), 1);
    let mut ends = recorded(NEW);
    (ends["ID"], ends["NodeID"], ends["DesiredState"]) = (json!("task1"), json!(MANAGER), json!("shutdown"));
    let news = roster.take_missing(all(vec![task(&ends)]));
    assert!(news.changed.len() == 1 && news.changed[0].stopping);
    assert_eq!(news.changed[0].id, local.id);
    // It stays so, whatever its engine tells of it.
    let mut again = own("abc", shop().id.as_str(), "task1");
    roster.dress(&mut again, seen);
    assert!(again.stopping);
    roster.take_tasks(all(to_run()), seen + Duration::from_millis(2));
    assert!(roster.missing().is_empty(), "it is not asked for again");
    // The same container for another task begins anew.
    let mut other = own("abc", shop().id.as_str(), "task2");
    roster.dress(&mut other, seen);
    assert!(!other.stopping);
}

#[test]
fn a_container_that_only_pretends_to_be_a_task_is_asked_for_once() {
    let mut roster = roster();
    let seen = Instant::now();
    let mut local = own("abc", shop().id.as_str(), "nobody");
    roster.dress(&mut local, seen);
    roster.take_tasks(all(to_run()), seen + Duration::from_millis(1));
    assert!(roster.take_missing(all(Vec::new())).is_empty());
    let (_, moved) = roster.take_tasks(all(to_run()), seen + Duration::from_millis(2));
    assert!(!moved && roster.missing().is_empty());
    let mut strange = own("def", "not an id", "task1");
    assert!(!roster.dress(&mut strange, seen));
    assert!(strange.labels.is_empty());
}

#[test]
fn a_job_is_not_asked_for_again_and_again() {
    let mut roster = roster();
    let seen = Instant::now();
    roster.dress(&mut own("abc", shop().id.as_str(), "task1"), seen);
    roster.take_tasks(all(to_run()), seen + Duration::from_millis(1));
    let mut job = recorded(NEW);
    (job["ID"], job["NodeID"], job["DesiredState"]) = (json!("task1"), json!(MANAGER), json!("complete"));
    assert!(roster.take_missing(all(vec![task(&job)])).is_empty());
    roster.take_tasks(all(to_run()), seen + Duration::from_millis(2));
    assert!(roster.missing().is_empty());
}

#[test]
fn what_is_to_end_on_a_lost_node_is_gone() {
    let mut roster = roster();
    let mut ends = recorded(OLD);
    let (news, _) = roster.take_tasks(all(vec![task(&ends)]), Instant::now());
    assert_eq!(news.changed.len(), 1);
    let lost: Vec<Node> =
        nodes().into_iter().map(|node| Node { down: node.id == id(WORKER), ..node }).collect();
    let news = roster.take_nodes(all(lost.clone()));
    assert_eq!(news.gone.len(), 1);
    assert!(roster.is_alone());
    // Swarm has not given it up: it may live, and HAProxy checks it.
    ends["DesiredState"] = json!("running");
    let (news, _) = roster.take_tasks(all(vec![task(&ends)]), Instant::now());
    assert_eq!((news.changed.len(), news.gone.len()), (1, 0));
    assert!(roster.take_nodes(all(lost)).is_empty());
}

#[test]
fn published_ports_are_those_of_the_node() {
    let mut roster = roster();
    let speaks: Vec<Service> = services().into_iter().map(|s| Service { speaks: true, ..s }).collect();
    roster.take_services(all(speaks));
    let (news, _) = roster.take_tasks(all(vec![task(&recorded("wl7pcz"))]), Instant::now());
    let published: Vec<String> =
        news.changed[0].published.iter().map(|p| format!("{}:{}", p.host, p.host_port)).collect();
    assert_eq!(published, ["10.211.0.2:18000"]);
    assert_eq!(news.changed[0].exposed_ports, [8000]);
    roster.take_nodes(all(Vec::new()));
    let mut again = recorded("wl7pcz");
    again["Slot"] = json!(1);
    let (news, _) = roster.take_tasks(all(vec![task(&again)]), Instant::now());
    assert!(news.changed[0].published.is_empty());
}

#[test]
fn what_cannot_be_read_stays_as_it_was() {
    let mut roster = roster();
    roster.take_tasks(all(to_run()), Instant::now());
    let unreadable = |id: &SwarmId| vec![id.clone()];
    let task_id = task(&recorded(NEW)).id;
    let (news, _) =
        roster.take_tasks(Read { all: Vec::new(), unreadable: unreadable(&task_id) }, Instant::now());
    assert!(news.is_empty() && roster.missing().is_empty());
    assert!(roster.take_services(Read { all: Vec::new(), unreadable: unreadable(&shop().id) }).is_empty());
    assert_eq!(roster.speaking().count(), 1);
    roster.take_nodes(Read { all: Vec::new(), unreadable: unreadable(&id(WORKER)) });
    assert!(!roster.is_alone());
}

#[test]
fn who_leaves_the_swarm_forgets_it() {
    let mut roster = roster();
    let mut local = own("abc", shop().id.as_str(), "task1");
    roster.dress(&mut local, Instant::now());
    roster.take_tasks(all(to_run()), Instant::now());
    let news = roster.leave();
    assert_eq!((news.changed.len(), news.gone.len()), (1, 1));
    assert!(news.changed[0].labels.is_empty());
    assert_eq!(news.changed[0].nearness, Nearness::Worker);
    assert!(!roster.is_manager() && !roster.has_tasks());
}

/// Every value of an answer may be anything: it is read or refused, and nobody
/// panics.
#[test]
fn any_field_may_be_anything() {
    type Reads = fn(&[u8]) -> bool;
    fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
        all.push(at.to_owned());
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), all));
            }
            Value::Array(values) => {
                values.iter().enumerate().for_each(|(n, value)| pointers(value, &format!("{at}/{n}"), all));
            }
            _ => {}
        }
    }
    let strange = [
        json!(null),
        json!(""),
        json!("\u{0}\n;\u{e9}"),
        json!("x".repeat(300)),
        json!(-1),
        json!(u64::MAX),
        json!(1.5e300),
        json!([]),
        json!([null]),
        json!({}),
        json!(true),
    ];
    let read: [(&str, Reads); 3] = [
        (TASKS, |bytes| answer::task(bytes).is_ok()),
        (SERVICES, |bytes| answer::service(bytes).is_ok()),
        (NODES, |bytes| answer::node(bytes).is_ok()),
    ];
    let mut refused = 0;
    for (text, read) in read {
        for element in elements(text).into_iter().take(3) {
            let mut all = Vec::new();
            pointers(&element, "", &mut all);
            for pointer in all {
                for value in &strange {
                    let mut changed = element.clone();
                    *changed.pointer_mut(&pointer).unwrap() = value.clone();
                    let bytes = changed.to_string();
                    refused += usize::from(!read(bytes.as_bytes()));
                    let _ = answer::role(bytes.as_bytes());
                    let _ = answer::identifier(bytes.as_bytes());
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}
