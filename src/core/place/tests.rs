//! Unit tests of `place`: who is taken for HAProxy's container, and who is not.

use super::*;
use crate::core::container::Mount;

fn id(name: &str) -> ContainerId {
    let text: String = name.bytes().map(|byte| char::from(b'a' + byte % 6)).collect();
    ContainerId::new(&format!("{text:0<64}")).expect("valid")
}

fn container(name: &str) -> Container {
    Container::running(id(name), name)
}

/// With directories of the host: source, destination.
fn with(mut container: Container, mounts: &[(&str, &str)]) -> Container {
    let mount = |&(source, destination): &(&str, &str)| Mount {
        source: source.into(),
        destination: destination.into(),
        writable: true,
    };
    container.mounts = mounts.iter().map(mount).collect();
    container
}

fn labelled(container: Container) -> Container {
    container.with_label("hapilot.haproxy", "true")
}

fn detect(own: &[&Container], link: Link) -> HaproxyPlace {
    HaproxyPlace::Detect(Clues { own: own.iter().map(|own| own.id.to_string()).collect(), link })
}

fn socket(path: &str) -> Link {
    Link::Socket(path.to_owned())
}

/// What is found when all engines have told and HAProxy has not answered yet:
/// the container's name, with a `~` if it only stands for HAProxy's.
fn found(place: HaproxyPlace, containers: &[Container]) -> String {
    let elsewhere = BTreeSet::from([EngineName::new("far").expect("valid")]);
    find(place, containers, Circumstances { elsewhere: &elsewhere, answered: false, complete: true })
}

fn find(place: HaproxyPlace, containers: &[Container], circumstances: Circumstances<'_>) -> String {
    let name = |wanted: &ContainerId| {
        containers.iter().find(|container| container.id == *wanted).expect("one of them").name.to_string()
    };
    match Search::new(place).find(containers.iter(), circumstances) {
        Found::Host(_) => "(host)".to_owned(),
        Found::In(id, _) => name(&id),
        Found::Near(id, _) => format!("~{}", name(&id)),
        Found::Nowhere(_) => "(nowhere)".to_owned(),
    }
}

#[test]
fn a_child_is_where_hapilot_is() {
    let (own, other) = (container("own"), labelled(container("other")));
    assert_eq!(found(detect(&[&own], Link::Child), &[other.clone(), own]), "own");
    assert_eq!(found(detect(&[], Link::Child), &[other]), "(host)", "a label moves no child");
}

#[test]
fn who_has_the_directory_of_the_admin_socket_is_haproxy() {
    let own = with(container("own"), &[("/v/logs", "/logs"), ("/v/state", "/run/hapilot")]);
    let proxy = with(container("proxy"), &[("/v/state", "/elsewhere")]);
    let all = with(container("all"), &[("/", "/host"), ("/v", "/volumes")]);
    let logs = with(container("logs"), &[("/v/logs", "/run/hapilot")]);
    let place = || detect(&[&own], socket("/run/hapilot/admin.sock"));
    let found = |containers: &[&Container]| {
        let containers: Vec<Container> = containers.iter().map(|&container| container.clone()).collect();
        found(place(), &containers)
    };
    assert_eq!(found(&[&all, &logs, &own, &proxy]), "proxy");
    // Not there yet: hapilot's own container stands for it.
    assert_eq!(found(&[&logs, &own]), "~own");
    // Read only is not where HAProxy made a socket.
    let mut reader = proxy.clone();
    reader.mounts[0].writable = false;
    assert_eq!(found(&[&logs, &own, &reader]), "~own");
    // Another engine's directory of that name is another one.
    let far = proxy.clone().of_engine(&EngineName::new("b").expect("valid"));
    assert_eq!(found(&[&own, &far]), "~own");
    // Several: only a label decides; one on a stranger does not.
    let second = with(container("second"), &[("/v/state", "/state")]);
    let stranger = labelled(container("stranger"));
    assert_eq!(found(&[&own, &proxy, &second, &stranger]), "~own");
    assert_eq!(found(&[&own, &proxy, &labelled(second), &stranger]), "second");
    // A label alone is nothing beside the socket.
    assert_eq!(found(&[&own, &proxy, &stranger]), "proxy");
}

#[test]
fn a_socket_that_no_container_has_is_the_hosts() {
    let own = with(container("own"), &[("/run/haproxy", "/run/haproxy")]);
    let place = || detect(&[&own], socket("/run/haproxy/admin.sock"));
    let nobody = BTreeSet::new();
    let containers = [own.clone(), container("other")];
    for (answered, wanted) in [(false, "~own"), (true, "(host)")] {
        let circumstances = Circumstances { elsewhere: &nobody, answered, complete: true };
        assert_eq!(find(place(), &containers, circumstances), wanted);
    }
    // hapilot on the host.
    let place = || detect(&[], socket("/srv/edge/admin.sock"));
    assert_eq!(found(place(), &containers), "(host)");
    let edge = with(container("edge"), &[("/srv/edge", "/var/lib/haproxy")]);
    assert_eq!(found(place(), &[containers[0].clone(), edge.clone()]), "edge");
    let far = edge.of_engine(&EngineName::new("far").expect("valid"));
    assert_eq!(found(place(), &[far]), "(host)", "another host has such a path, too");
    // The socket's directory is in the container itself.
    let both = container("both");
    assert_eq!(found(detect(&[&both], socket("/run/haproxy.sock")), std::slice::from_ref(&both)), "~both");
}

#[test]
fn behind_tcp_the_oldest_label_counts() {
    let own = container("own");
    let at =
        |name: &str, started_at: i64| Container { started_at: Some(started_at), ..labelled(container(name)) };
    let place = |own: &[&Container]| detect(own, Link::Tcp);
    assert_eq!(found(place(&[&own]), &[own.clone(), at("young", 9), at("old", 3), container("x")]), "old");
    assert_eq!(found(place(&[&own]), &[own.clone(), container("x")]), "~own");
    assert_eq!(found(place(&[]), &[container("x")]), "(host)");
}

#[test]
fn a_name_is_followed_and_nothing_else() {
    let place = || HaproxyPlace::Container("edge".to_owned());
    let edge = container("edge");
    assert_eq!(found(place(), &[labelled(container("other")), edge.clone()]), "edge");
    assert_eq!(found(place(), &[labelled(container("other"))]), "(nowhere)");
    assert_eq!(found(HaproxyPlace::Container(edge.id.to_string()), std::slice::from_ref(&edge)), "edge");
    assert_eq!(found(HaproxyPlace::Host, &[labelled(container("other"))]), "(host)");
}

#[test]
fn as_long_as_an_engine_may_still_tell_nothing_is_guessed() {
    let own = container("own");
    let nobody = BTreeSet::new();
    let circumstances = Circumstances { elsewhere: &nobody, answered: false, complete: false };
    assert_eq!(find(detect(&[&own], Link::Child), &[], circumstances), "(nowhere)");
    let open = |place: HaproxyPlace, containers: &[Container]| Search::new(place).is_open(containers.iter());
    assert!(open(detect(&[&own], Link::Child), &[container("x")]));
    assert!(!open(detect(&[&own], Link::Child), std::slice::from_ref(&own)));
    assert!(open(HaproxyPlace::Container("own".to_owned()), &[container("x")]));
    assert!(!open(detect(&[], Link::Child), &[]) && !open(HaproxyPlace::Host, &[]));
}

#[test]
fn its_own_container_is_missed_until_it_is_told_of() {
    let (own, other) = (container("own"), container("other"));
    let lacks = |place, containers: &[&Container]| Search::new(place).lacks_own(containers.iter().copied());
    assert!(lacks(detect(&[&own], socket("/run/hapilot/admin.sock")), &[&other]));
    assert!(!lacks(detect(&[&own], socket("/run/hapilot/admin.sock")), &[&other, &own]));
    assert!(!lacks(detect(&[], socket("/run/hapilot/admin.sock")), &[&other]), "it is in no container");
    assert!(!lacks(HaproxyPlace::Container("edge".to_owned()), &[&other]), "it was said");
}
