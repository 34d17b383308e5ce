//! Stories that happen every day, and exactly what is sent then.
//!
//! What lives here: one story per test; its plans stand as text in
//! `snapshots/`. What it must not know: why a plan is safe (`plan_properties`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests only")]

#[path = "../support/farm.rs"]
mod farm;

use farm::{Fault, Haproxy, Model, QUARANTINE_S, at, container, story, word};
use hapilot::core::container::{Container, Health, RunState};
use hapilot::core::desired::Desired;
use hapilot::core::name::BackendName;
use hapilot::core::state::{Admin, Map};
use insta::assert_snapshot;

/// hapilot and an HAProxy that have come to rest.
struct Scene {
    desired: Desired,
    model: Model,
}

impl Scene {
    /// An HAProxy that makes backends, and these containers.
    fn with(containers: &[Container]) -> Self {
        Self::on((3, 4), 0, containers)
    }

    fn on((major, minor): (u16, u16), pool: usize, containers: &[Container]) -> Self {
        let haproxy = Haproxy::new(farm::capabilities(major, minor), pool);
        let mut scene = Self { desired: farm::desired(), model: Model::new(haproxy) };
        scene.desired.replace(containers.to_vec());
        scene.turn();
        scene
    }

    fn turn(&mut self) -> String {
        story(&self.model.converge(&mut self.desired))
    }

    /// These containers have other facts now, and a turn is taken.
    fn now(&mut self, containers: &[Container]) -> String {
        for container in containers {
            self.desired.set(container.clone());
        }
        self.turn()
    }

    fn gone(&mut self, container: &Container) -> String {
        self.desired.remove(&container.id);
        self.turn()
    }

    /// hapilot is told of a container, and killed after so many commands of
    /// the first plan. The next one starts and knows these containers.
    fn killed(&mut self, after: usize, news: &Container, containers: &[Container]) -> String {
        self.desired.set(news.clone());
        let (_, killed) = self.model.turn(&mut self.desired, Fault::Kill(after), &mut |_, _| {});
        assert!(killed, "the plan has more steps than {after}");
        self.desired = self.model.restart(containers.to_vec());
        self.turn()
    }
}

fn shop(number: usize, last: u8) -> Container {
    container(number, &format!("shop-{number}"), "shop.example", last)
}

fn unhealthy(mut container: Container) -> Container {
    container.health = Some(Health::Unhealthy);
    container
}

#[test]
fn a_new_host_with_one_container() {
    assert_snapshot!(Scene::with(&[]).now(&[shop(1, 11)]));
}

#[test]
fn a_second_replica() {
    assert_snapshot!(Scene::with(&[shop(1, 11)]).now(&[shop(2, 12)]));
}

#[test]
fn a_replica_dies() {
    assert_snapshot!(Scene::with(&[shop(1, 11), shop(2, 12)]).gone(&shop(1, 11)));
}

#[test]
fn the_last_container_dies() {
    assert_snapshot!(Scene::with(&[shop(1, 11)]).gone(&shop(1, 11)));
}

#[test]
fn a_container_is_replaced_by_one_with_its_address() {
    let mut scene = Scene::with(&[shop(1, 11)]);
    scene.desired.remove(&shop(1, 11).id);
    assert_snapshot!(scene.now(&[shop(2, 11)]));
}

#[test]
fn a_container_takes_an_address_whose_holders_death_was_not_seen() {
    assert_snapshot!(Scene::with(&[shop(1, 11), shop(2, 12)]).now(&[shop(3, 11)]));
}

#[test]
fn a_container_moves_to_another_address() {
    assert_snapshot!(Scene::with(&[shop(1, 11)]).now(&[at(&shop(1, 11), 12)]));
}

#[test]
fn two_containers_swap_their_addresses() {
    let blog = container(2, "blog", "blog.example", 12);
    let mut scene = Scene::with(&[shop(1, 11), blog.clone()]);
    assert_snapshot!(scene.now(&[at(&shop(1, 11), 12), at(&blog, 11)]));
}

#[test]
fn a_rename_sends_nothing() {
    let mut renamed = shop(1, 11);
    renamed.name = "boutique".into();
    assert_snapshot!(Scene::with(&[shop(1, 11)]).now(&[renamed]));
}

#[test]
fn pause_and_unpause() {
    let mut scene = Scene::with(&[shop(1, 11), shop(2, 12)]);
    let mut paused = shop(1, 11);
    paused.run = RunState::Paused;
    let pause = scene.now(&[paused]);
    let unpause = scene.now(&[shop(1, 11)]);
    assert_snapshot!(format!("pause:\n{pause}unpause:\n{unpause}"));
}

#[test]
fn one_of_two_becomes_unhealthy_and_then_the_other_too() {
    let mut scene = Scene::with(&[shop(1, 11), shop(2, 12)]);
    let one = scene.now(&[unhealthy(shop(1, 11))]);
    let both = scene.now(&[unhealthy(shop(2, 12))]);
    assert_snapshot!(format!("one:\n{one}both:\n{both}"));
}

#[test]
fn an_unhealthy_one_drains_only_when_a_better_one_is_there() {
    assert_snapshot!(Scene::with(&[unhealthy(shop(1, 11))]).now(&[shop(2, 12)]));
}

/// As compose replaces a service: the new one starts, the old one is told to
/// end before the new one listens.
#[test]
fn the_old_one_serves_until_the_new_one_has_come_up() {
    let mut scene = Scene::with(&[shop(1, 11)]);
    let begins = scene.now(&[shop(2, 12)]);
    scene.desired.stopping(&shop(1, 11).id);
    let told_to_end = scene.turn();
    scene.model.haproxy.all_come_up();
    let up = scene.turn();
    let gone = scene.gone(&shop(1, 11));
    assert_snapshot!(format!("begins:\n{begins}told to end:\n{told_to_end}up:\n{up}gone:\n{gone}"));
}

#[test]
fn three_replicas_begin_at_once() {
    assert_snapshot!(Scene::with(&[]).now(&[shop(1, 11), shop(2, 12), shop(3, 13)]));
}

/// The name is free only when its deletion is through: 2.6 needs a while.
#[test]
fn a_container_is_restarted_before_its_server_is_deleted() {
    let mut scene = Scene::on((2, 6), 2, &[shop(1, 11), shop(2, 12)]);
    let gone = scene.gone(&shop(1, 11));
    let mut again = shop(1, 13);
    again.started_at = Some(2_000);
    let begins = scene.now(&[again]);
    assert_snapshot!(format!("gone:\n{gone}begins:\n{begins}"));
}

#[test]
fn the_check_of_a_host_follows_the_container_that_runs_longest() {
    let checked = |container: Container| container.with_label("hapilot.check.path", "/health");
    let mut scene = Scene::on((3, 0), 2, &[shop(1, 11)]);
    let other = scene.now(&[checked(shop(2, 12))]);
    scene.model.haproxy.all_come_up();
    let rejections = scene.desired.rejections();
    let rejected: Vec<_> =
        rejections.iter().map(|r| format!("{} {}: {}\n", r.container, r.key, r.reason)).collect();
    let rejected = rejected.concat();
    let oldest_gone = scene.gone(&shop(1, 11));
    assert_snapshot!(format!("joins:\n{other}told:\n{rejected}the first leaves:\n{oldest_gone}"));
}

#[test]
fn two_hosts_of_one_container() {
    let both = container(1, "shop-1", "shop.example,www.shop.example", 11);
    assert_snapshot!(Scene::with(&[]).now(&[both]));
}

#[test]
fn a_wildcard_host() {
    assert_snapshot!(Scene::with(&[]).now(&[container(1, "any", "*.shop.example", 11)]));
}

/// Where backends are made at run time, only one of the pool can be sticky: the
/// host moves there, and stays.
#[test]
fn a_host_becomes_sticky_and_is_so_no_more() {
    for (major, minor) in [(3, 0), (3, 4)] {
        let sticky = shop(1, 11).with_label("hapilot.sticky", "source");
        let mut haproxy = Haproxy::new(farm::capabilities(3, 0), 2);
        haproxy.capabilities = farm::capabilities(major, minor);
        let mut scene = Scene { desired: farm::desired(), model: Model::new(haproxy) };
        scene.now(&[shop(1, 11)]);
        let becomes = scene.now(&[sticky]);
        let other = scene.now(&[shop(2, 12).with_label("hapilot.sticky", "cookie")]);
        let told: Vec<_> = scene.desired.rejections().iter().map(|r| format!("{}\n", r.reason)).collect();
        let told = told.concat();
        scene.model.haproxy.all_come_up();
        let no_more = scene.now(&[shop(1, 11)]);
        assert_snapshot!(
            format!("a_host_becomes_sticky_and_is_so_no_more_on_{major}_{minor}"),
            format!("becomes:\n{becomes}another joins:\n{other}told:\n{told}no more:\n{no_more}")
        );
    }
}

#[test]
fn a_weight_changes() {
    let heavy = shop(1, 11).with_label("hapilot.weight", "20");
    assert_snapshot!(Scene::with(&[shop(1, 11)]).now(&[heavy]));
}

#[test]
fn killed_before_the_server_was_ready() {
    let mut scene = Scene::with(&[]);
    assert_snapshot!(scene.killed(2, &shop(1, 11), &[shop(1, 11)]));
}

#[test]
fn killed_after_a_backend_of_the_pool_was_lent() {
    let mut scene = Scene::on((3, 0), 4, &[]);
    assert_snapshot!(scene.killed(1, &shop(1, 11), &[shop(1, 11)]));
}

#[test]
fn killed_and_the_container_is_gone_when_it_comes_back() {
    let mut scene = Scene::with(&[]);
    assert_snapshot!(scene.killed(4, &shop(1, 11), &[]));
}

#[test]
fn restarted_with_nothing_to_do() {
    let mut scene = Scene::on((3, 0), 4, &[shop(1, 11), shop(2, 12)]);
    scene.desired = scene.model.restart([shop(2, 12), shop(1, 11)]);
    assert_snapshot!(scene.turn());
}

#[test]
fn haproxy_restarted_empty() {
    let mut scene = Scene::on((3, 0), 4, &[shop(1, 11)]);
    scene.model.haproxy = Haproxy::new(farm::capabilities(3, 0), 4);
    scene.model.fresh = false;
    assert_snapshot!(scene.turn());
}

#[test]
fn a_hand_on_the_socket() {
    let blog = container(2, "blog", "blog.example", 12);
    let mut scene = Scene::with(&[shop(1, 11), blog]);
    let haproxy = &mut scene.model.haproxy;
    // Its server in maint, its host pointed elsewhere, a second entry, a host
    // of nobody.
    let shop = haproxy.backends.get_mut("web:shop.example").unwrap();
    shop.servers.values_mut().for_each(|real| real.server.admin = Admin::Maint);
    let hosts = haproxy.maps.get_mut(&Map::Hosts).unwrap();
    hosts.iter_mut().filter(|(_, host, _)| host.as_str() == "shop.example").for_each(|(_, _, backend)| {
        *backend = word("web:blog.example");
    });
    haproxy.push_entry(Map::Hosts, word("blog.example"), word("web:shop.example"));
    haproxy.push_entry(Map::Hosts, word("nobody.example"), word("web:shop.example"));
    scene.model.fresh = false;
    assert_snapshot!(scene.turn());
}

#[test]
fn a_hand_crossed_a_loan_out() {
    let mut scene = Scene::on((3, 0), 1, &[shop(1, 11)]);
    scene.model.haproxy.maps.remove(&Map::Names);
    scene.model.fresh = false;
    assert_snapshot!(scene.turn());
}

/// A host comes, and goes, and what was left of it is cleared later.
fn comes_and_goes(version: (u16, u16)) -> String {
    let mut scene = Scene::on(version, 4, &[]);
    let comes = scene.now(&[shop(1, 11)]);
    let goes = scene.gone(&shop(1, 11));
    scene.model.haproxy.pass_time(QUARANTINE_S);
    let later = scene.turn();
    format!("comes:\n{comes}goes:\n{goes}later:\n{later}")
}

#[test]
fn a_host_comes_and_goes_on_2_6() {
    assert_snapshot!(comes_and_goes((2, 6)));
}

#[test]
fn a_host_comes_and_goes_on_3_0() {
    assert_snapshot!(comes_and_goes((3, 0)));
}

#[test]
fn a_host_comes_and_goes_on_3_4() {
    assert_snapshot!(comes_and_goes((3, 4)));
}

#[test]
fn the_pool_is_exhausted_until_somebody_leaves() {
    let mut scene = Scene::on((3, 0), 1, &[shop(1, 11)]);
    let newcomer = scene.now(&[container(2, "blog", "blog.example", 12)]);
    let blocked: Vec<String> =
        scene.desired.blocked().into_iter().map(|b| format!("{}: {}", b.what, b.reason)).collect();
    let leaves = scene.gone(&shop(1, 11));
    assert_eq!(scene.desired.blocked(), []);
    let blocked = blocked.join("\n");
    assert_snapshot!(format!("newcomer:\n{newcomer}blocked:\n{blocked}\nsomebody leaves:\n{leaves}"));
}

#[test]
fn a_loan_is_returned_and_lent_again() {
    let mut scene = Scene::on((3, 0), 1, &[shop(1, 11)]);
    scene.gone(&shop(1, 11));
    assert!(scene.model.haproxy.backends[&BackendName::new("web:pool:0001").unwrap()].servers.is_empty());
    assert_snapshot!(scene.now(&[container(2, "blog", "blog.example", 12)]));
}
