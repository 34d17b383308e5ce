//! Unit tests of `desired`: conflicts, borrowed networks, HAProxy's own
//! networks, and what a computation says it may have changed.
//!
//! Random histories are in `tests/flow/plan_properties.rs`.

use crate::core::state::Admin::{self, Drain, Ready};

use super::*;
use crate::core::command::Version;
use crate::core::container::PublishedPort;

fn id(number: usize) -> ContainerId {
    ContainerId::new(&format!("{number:012}{}", "0".repeat(52))).unwrap()
}

/// Claims `<name>.example`; started at its number.
fn container(number: usize, name: &str, network: &str, last: u8) -> Container {
    let mut container = Container::running(id(number), name)
        .with_label("hapilot.host", &format!("{name}.example"))
        .on_network(network, Some([127, 0, 0, last].into()), None);
    container.started_at = Some(i64::try_from(number).unwrap());
    container
}

/// In the network namespace of another.
fn guest(number: usize, name: &str, host: usize) -> Container {
    let mut guest = container(number, name, "web", 99);
    guest.networks.clear();
    guest.network_mode = NetworkMode::Container(id(host));
    guest
}

fn desired(place: HaproxyPlace, containers: &[Container]) -> Desired {
    let mut desired = Desired::new(place, false);
    for container in containers {
        desired.set(container.clone());
    }
    let capabilities = Capabilities::of(Version { major: 3, minor: 4, patch: 0 }).unwrap();
    desired.adopt(&Observed::default(), capabilities);
    desired.compute(&Observed::default());
    desired
}

/// Hosts, each with the addresses of its servers.
fn served(desired: &Desired) -> Vec<(String, Vec<String>)> {
    let hosts = desired.state().maps.get(&Map::Hosts).into_iter().flatten();
    let servers = |backend: &MapWord| {
        let backend = desired.state().backends.get(backend.as_str()).unwrap();
        backend.servers.values().map(|server| server.address.ip().to_string()).collect()
    };
    hosts.map(|(host, backend)| (host.to_string(), servers(backend))).collect()
}

fn one(host: &str, address: &str) -> (String, Vec<String>) {
    (host.to_owned(), vec![address.to_owned()])
}

#[test]
fn an_address_is_of_the_container_that_started_later_whoever_is_seen_first() {
    let (old, new) = (container(1, "old", "web", 5), container(2, "new", "web", 5));
    for order in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
        let mut desired = desired(HaproxyPlace::Host, &order);
        assert_eq!(served(&desired), [one("new.example", "127.0.0.5")]);
        let rejections = desired.rejections();
        assert_eq!((rejections.len(), &*rejections[0].container), (1, "old"));
        desired.remove(&new.id);
        desired.compute(&Observed::default());
        assert_eq!(served(&desired), [one("old.example", "127.0.0.5")]);
        assert_eq!(desired.rejections(), []);
    }
}

#[test]
fn among_equals_the_greater_identifier_has_the_address() {
    let (one_, mut two) = (container(1, "one", "web", 5), container(2, "two", "web", 5));
    two.started_at = one_.started_at;
    for order in [[one_.clone(), two.clone()], [two, one_]] {
        assert_eq!(served(&desired(HaproxyPlace::Host, &order)), [one("two.example", "127.0.0.5")]);
    }
}

#[test]
fn a_guest_shares_its_hosts_address_and_moves_with_it() {
    let host = container(1, "host", "web", 5);
    for order in [[host.clone(), guest(2, "guest", 1)], [guest(2, "guest", 1), host.clone()]] {
        let mut desired = desired(HaproxyPlace::Host, &order);
        assert_eq!(served(&desired), [one("guest.example", "127.0.0.5"), one("host.example", "127.0.0.5")]);
        desired.set(container(1, "host", "web", 6));
        desired.compute(&Observed::default());
        assert_eq!(served(&desired), [one("guest.example", "127.0.0.6"), one("host.example", "127.0.0.6")]);
        desired.remove(&host.id);
        desired.compute(&Observed::default());
        assert_eq!(served(&desired), []);
    }
}

#[test]
fn haproxys_own_networks_decide_who_is_reached() {
    let place = HaproxyPlace::Container("proxy".to_owned());
    let mut proxy = Container::running(id(9), "proxy").on_network("web", Some([127, 0, 0, 9].into()), None);
    let both = [container(1, "a", "web", 1), container(2, "b", "back", 2)];
    let mut desired = desired(place, &both);
    assert_eq!(served(&desired), [], "HAProxy has not been seen yet");
    desired.set(proxy.clone());
    desired.compute(&Observed::default());
    assert_eq!(served(&desired), [one("a.example", "127.0.0.1")]);
    proxy = proxy.on_network("back", Some([127, 0, 1, 9].into()), None);
    desired.set(proxy.clone());
    desired.compute(&Observed::default());
    assert_eq!(served(&desired), [one("a.example", "127.0.0.1"), one("b.example", "127.0.0.2")]);
    desired.remove(&proxy.id);
    desired.compute(&Observed::default());
    assert_eq!(served(&desired).len(), 2, "while it is not there, the last ones stay");
}

#[test]
fn a_computation_names_only_what_may_have_changed() {
    let mut desired =
        desired(HaproxyPlace::Host, &[container(1, "a", "web", 1), container(2, "b", "web", 2)]);
    let mut ground = Observed { state: desired.state().clone(), ..Observed::default() };
    assert!(matches!(desired.compute(&ground), Scope::Some { .. }));
    desired.set(container(1, "a", "web", 3));
    let Scope::Some { backends, hosts } = desired.compute(&ground) else { panic!("not everything changed") };
    let name = |name: &BackendName| name.to_string();
    assert!(backends.iter().map(name).eq(["web:a.example"]), "{backends:?}");
    assert_eq!(hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a.example"]);
    // The same facts again are no news.
    ground.state = desired.state().clone();
    desired.set(container(1, "a", "web", 3));
    assert_eq!(desired.compute(&ground), Scope::default());
}

#[test]
fn the_container_behind_a_server_is_found() {
    let desired = desired(HaproxyPlace::Host, &[container(1, "a", "web", 1), container(2, "b", "web", 2)]);
    let behind = |server: &str| desired.container_of(&ServerName::new(server).unwrap()).map(|c| &*c.name);
    assert_eq!(behind("whatever-000000000002"), Some("b"));
    assert_eq!(behind("whatever-000000000003"), None);
    assert_eq!(behind("nobody"), None);
}

/// What a hapilot that has just started wants of an HAProxy that is as another
/// one left it, and the engine lists these and those it can't read.
fn newcomer(left: &Observed, readable: &[Container], unreadable: &[usize], version: Version) -> Desired {
    let mut desired = Desired::new(HaproxyPlace::Host, false);
    desired.replace_readable(readable.to_vec(), &unreadable.iter().map(|&number| id(number)).collect());
    desired.adopt(left, Capabilities::of(version).unwrap());
    desired.compute(left);
    desired
}

#[test]
fn a_container_that_was_never_readable_keeps_the_servers_it_has() {
    let [a, b] = [container(1, "a", "web", 1), container(2, "b", "web", 2)];
    let second = container(3, "c", "web", 3).with_label("hapilot.host", "a.example");
    let all = [a.clone(), b.clone(), second.clone()];
    for (major, minor) in [(2, 6), (3, 4)] {
        let version = Version { major, minor, patch: 0 };
        let pool: BTreeSet<BackendName> =
            (1..=3).map(|index| BackendName::pool(&crate::core::name::ClassName::web(), index)).collect();
        let empty = Observed { pool: pool.clone(), ..Observed::default() };
        let before = newcomer(&empty, &all, &[], version);
        let left = Observed { state: before.state().clone(), pool, ..Observed::default() };

        // One host's only container, and one of two of another host.
        let mut after = newcomer(&left, std::slice::from_ref(&second), &[1, 2], version);
        assert_eq!(after.state(), before.state(), "{version}");
        // Other news change nothing about it.
        after.set(container(4, "d", "web", 4));
        after.compute(&left);
        assert_eq!(served(&after).len(), 3);
        after.remove(&id(4));
        after.compute(&left);
        assert_eq!(after.state(), before.state(), "{version}");
        // Gone; and readable, which is no change.
        after.remove(&b.id);
        after.set(a.clone());
        after.compute(&left);
        let hosts = served(&after);
        assert_eq!(hosts, [("a.example".to_owned(), vec!["127.0.0.1".to_owned(), "127.0.0.3".to_owned()])]);
        assert!(after.kept.is_empty(), "{version}");
    }
}

#[test]
fn an_unread_container_keeps_no_address_that_a_known_one_has_and_no_host_that_was_not_its_own() {
    let version = Version { major: 3, minor: 4, patch: 0 };
    let a = container(1, "a", "web", 1);
    let before = newcomer(&Observed::default(), std::slice::from_ref(&a), &[], version);
    let mut left = Observed { state: before.state().clone(), ..Observed::default() };
    let hosts = left.state.maps.get_mut(&Map::Hosts).unwrap();
    let home = hosts.values().next().unwrap().clone();
    hosts.insert(MapWord::new("stolen.example").unwrap(), home);
    assert_eq!(newcomer(&left, &[], &[1], version).state(), before.state());
    let heir = container(2, "b", "web", 1);
    assert_eq!(served(&newcomer(&left, &[heir], &[1], version)), [one("b.example", "127.0.0.1")]);
    assert_eq!(served(&newcomer(&left, &[], &[3], version)), [], "somebody else can't be read");
}

#[test]
fn containers_with_equal_short_identifiers_stand_beside_each_other() {
    let twin = |last: char, name: &str, address: u8| {
        let mut twin = container(1, name, "web", address).with_label("hapilot.host", "a.example");
        twin.id = ContainerId::new(&format!("{}{last}", &id(1).as_str()[..63])).unwrap();
        twin
    };
    let twins = [twin('a', "y", 1), twin('b', "x", 2)];
    let both = [("a.example".to_owned(), vec!["127.0.0.2".to_owned(), "127.0.0.1".to_owned()])];
    let version = Version { major: 3, minor: 4, patch: 0 };
    for present in 0..=2 {
        let before = newcomer(&Observed::default(), &twins[..present], &[], version);
        let left = Observed { state: before.state().clone(), ..Observed::default() };
        assert_eq!(served(&newcomer(&left, &twins, &[], version)), both, "{present} stand already");
    }
}

/// The states of a host's servers, by the container's number.
fn states(desired: &Desired, host: &str) -> Vec<(usize, Admin)> {
    let backend = desired.state().map_value(Map::Hosts, host).unwrap();
    let servers = &desired.state().backends.get(backend.as_str()).unwrap().servers;
    let number = |name| claim::id_of_server(name).unwrap().parse().unwrap();
    servers.iter().map(|(name, server)| (number(name), server.admin)).collect()
}

#[test]
fn who_was_told_to_end_takes_no_new_traffic_as_long_as_there_is_a_better_one() {
    let mut two = container(2, "a", "web", 2);
    let mut desired = desired(HaproxyPlace::Host, &[container(1, "a", "web", 1), two.clone()]);
    let mut after = |what: &dyn Fn(&mut Desired)| {
        what(&mut desired);
        desired.compute(&Observed::default());
        states(&desired, "a.example")
    };
    assert_eq!(after(&|d| d.stopping(&id(1))), [(1, Drain), (2, Ready)]);
    // Nobody is better any more: who still answers is asked.
    assert_eq!(after(&|d| d.stopping(&id(2))), [(1, Ready), (2, Ready)]);
    assert_eq!(after(&|d| d.remove(&id(1))), [(2, Ready)]);
    // Its replacement starts.
    assert_eq!(after(&|d| d.set(container(3, "a", "web", 3))), [(2, Drain), (3, Ready)]);
    // It survived.
    two.stopping = false;
    assert_eq!(after(&|d| d.set(two.clone())), [(2, Ready), (3, Ready)]);
    assert_eq!(after(&|d| d.stopping(&id(9))), [(2, Ready), (3, Ready)], "nobody knows it");
}

fn engine(name: &str) -> EngineName {
    EngineName::new(name).unwrap()
}

/// The same container with a published port 80.
fn published(mut container: Container, host: &str, host_port: u16) -> Container {
    let port = PublishedPort { container_port: 80, host: host.parse().unwrap(), host_port };
    container.published = Box::new([port]);
    container
}

/// From the host, each of two local engines may use the same addresses; from a
/// container, the other engine's are reached by published ports only.
#[test]
fn equal_addresses_on_two_engines_are_two_places() {
    let here = container(1, "a", "web", 5);
    let there = published(container(2, "b", "web", 5).of_engine(&engine("b")), "192.0.2.7", 8080);
    let from_host = desired(HaproxyPlace::Host, &[here.clone(), there.clone()]);
    assert_eq!(served(&from_host), [one("a.example", "127.0.0.5"), one("b.example", "127.0.0.5")]);
    assert_eq!(from_host.rejections(), []);

    let proxy = Container::running(id(9), "proxy").on_network("web", None, None);
    let place = HaproxyPlace::Container("proxy".to_owned());
    let inside = desired(place, &[here, there, proxy]);
    assert_eq!(served(&inside), [one("a.example", "127.0.0.5"), one("b.example", "192.0.2.7")]);
}

#[test]
fn a_published_port_is_of_the_container_that_started_later() {
    let place = || HaproxyPlace::Container("proxy".to_owned());
    let proxy = Container::running(id(9), "proxy").on_network("front", None, None);
    let old = published(container(1, "old", "web", 5), "192.0.2.7", 8080);
    let new = published(container(2, "new", "web", 6), "192.0.2.7", 8080);
    let other = published(container(3, "other", "web", 7), "192.0.2.7", 8081);
    for order in [[old.clone(), new.clone(), other.clone()], [other, new, old]] {
        let mut all = order.to_vec();
        all.push(proxy.clone());
        let desired = desired(place(), &all);
        assert_eq!(served(&desired), [one("new.example", "192.0.2.7"), one("other.example", "192.0.2.7")]);
        let reasons: Vec<String> = desired.rejections().into_iter().map(|r| r.reason).collect();
        assert_eq!(reasons, ["192.0.2.7:8080 is held by container 000000000002, which started later"]);
    }
}

/// A server of which no engine has told stays until all have.
#[test]
fn before_every_engine_has_told_strangers_servers_stay() {
    let all = [container(1, "a", "web", 1), container(2, "b", "web", 2), container(3, "c", "web", 3)];
    let before = desired(HaproxyPlace::Host, &all);
    let ground = Observed { state: before.state().clone(), ..Observed::default() };
    let mut desired = Desired::new(HaproxyPlace::Host, false);
    desired.set_complete(false);
    desired.set(all[0].clone());
    desired.set(all[2].clone());
    desired.adopt(&ground, Capabilities::of(Version { major: 3, minor: 4, patch: 0 }).unwrap());
    desired.compute(&ground);
    let [a, b, c] = [(1, "a"), (2, "b"), (3, "c")]
        .map(|(n, name)| one(&format!("{name}.example"), &format!("127.0.0.{n}")));
    assert_eq!(served(&desired), [a.clone(), b.clone(), c]);
    // One that ended before our eyes does not.
    desired.remove(&all[2].id);
    desired.compute(&ground);
    assert_eq!(served(&desired), [a.clone(), b]);
    // Nor one whose address is somebody else's by now.
    desired.set(container(4, "d", "web", 2));
    desired.compute(&ground);
    assert_eq!(served(&desired), [a.clone(), one("d.example", "127.0.0.2")]);
    desired.remove(&id(4));
    desired.set_complete(true);
    desired.compute(&ground);
    assert_eq!(served(&desired), [a]);
}

/// A label moves HAProxy only where nothing better is known, and is answered.
#[test]
fn a_label_that_is_not_followed_is_reported() {
    let liar = container(2, "liar", "back", 2).with_label("hapilot.haproxy", "true");
    let typo = container(3, "typo", "back", 3).with_label("hapilot.haproxy", "yes");
    let desired = desired(HaproxyPlace::Host, &[container(1, "a", "web", 1), liar, typo]);
    assert_eq!(served(&desired).len(), 3, "all are served as ever");
    let reasons: Vec<String> = desired.rejections().into_iter().map(|r| r.reason).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].starts_with("the label is not followed: HAProxy is on the host"), "{reasons:?}");
    assert!(reasons[1].starts_with("`yes` is not `true`"), "{reasons:?}");
}
