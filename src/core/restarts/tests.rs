//! Unit tests of `restarts`: lives of one container in a few lines each.

use super::*;

fn id() -> ContainerId {
    ContainerId::new(&"f".repeat(64)).unwrap()
}

fn life(started_at: i64) -> Container {
    let mut container = Container::running(id(), "web").with_label("hapilot.host", "a.example");
    container.started_at = Some(started_at);
    container
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Lives of half a second, one each second: how many of them were served.
fn crashes(restarts: &mut Restarts, count: u32, from_ms: u64) -> usize {
    let mut served = 0;
    for number in 0..u64::from(count) {
        let at = from_ms + number * 1000;
        let seen = restarts.seen(life(i64::try_from(at).unwrap()), false, ms(at));
        served += usize::from(seen.is_some());
        served += restarts.take_due(ms(at + 499)).len();
        restarts.ended(&id(), ms(at + 500));
    }
    served
}

#[test]
fn the_third_early_end_is_one_too_many() {
    let mut restarts = Restarts::default();
    assert_eq!(crashes(&mut restarts, 50, 0), 3, "each second, but served three times only");
    let held = restarts.held_back(ms(50_000));
    assert_eq!(held.len(), 0, "nothing was told while nobody asked for news");
}

#[test]
fn what_is_held_back_is_told_once_and_reported_all_the_time() {
    let mut restarts = Restarts::default();
    assert_eq!(crashes(&mut restarts, 3, 0), 3);
    assert_eq!(restarts.take_news(ms(2600)), []);
    assert_eq!(restarts.seen(life(3000), false, ms(3000)), None);
    let news = restarts.take_news(ms(3000));
    assert_eq!(news.len(), 1);
    assert_eq!(news[0].reason, "restarts again and again (3 times in the last minute); tried again in 2 s");
    restarts.ended(&id(), ms(3100));
    let between = restarts.held_back(ms(3200));
    assert!(
        between[0].reason.ends_with("(4 times in the last minute); tried again 2 s after its next start")
    );
    assert_eq!(restarts.seen(life(4000), false, ms(4000)), None);
    assert_eq!(restarts.take_news(ms(4000)), [], "it is in the log already");
    assert_eq!(restarts.held_back(ms(4000)).len(), 1);
    // It went away for good.
    restarts.ended(&id(), ms(4100));
    assert_eq!(restarts.held_back(ms(70_000)), []);
}

#[test]
fn the_wait_doubles_up_to_a_minute_and_begins_with_the_start() {
    for (ends, wait_ms) in [(3, 1000), (4, 2000), (5, 4000), (8, 32_000), (9, 60_000), (40, 60_000)] {
        let mut restarts = Restarts::default();
        crashes(&mut restarts, ends, 0);
        let at = 1000 * u64::from(ends);
        assert_eq!(restarts.seen(life(-1), false, ms(at)), None);
        assert_eq!(restarts.next_due(), Some(ms(at + wait_ms)), "{ends}");
        assert_eq!(restarts.take_due(ms(at + wait_ms - 1)), []);
        assert_eq!(restarts.take_due(ms(at + wait_ms)), [life(-1)]);
        assert_eq!((restarts.next_due(), restarts.held_back(ms(at + wait_ms))), (None, vec![]));
        // News of one that is served are passed on.
        assert_eq!(restarts.seen(life(-1), false, ms(at + wait_ms + 1)), Some(life(-1)));
    }
}

#[test]
fn news_of_one_that_is_held_back_are_kept_for_later() {
    let mut restarts = Restarts::default();
    crashes(&mut restarts, 3, 0);
    assert_eq!(restarts.seen(life(7), false, ms(3000)), None);
    let renamed = life(7).with_label("hapilot.port", "81");
    assert_eq!(restarts.seen(renamed.clone(), false, ms(3100)), None);
    assert_eq!(restarts.take_due(ms(4000)), [renamed]);
}

#[test]
fn an_end_that_was_asked_for_or_came_late_or_long_ago_does_not_count() {
    // Asked for.
    let mut restarts = Restarts::default();
    for number in 0..20_u64 {
        assert!(restarts.seen(life(i64::try_from(number).unwrap()), false, ms(number * 1000)).is_some());
        restarts.stopping(&id());
        restarts.ended(&id(), ms(number * 1000 + 500));
    }
    // Late: after exactly ten seconds.
    for number in 100..120_u64 {
        assert!(restarts.seen(life(i64::try_from(number).unwrap()), false, ms(number * 10_000)).is_some());
        restarts.ended(&id(), ms(number * 10_000 + 10_000));
    }
    // Long ago.
    crashes(&mut restarts, 2, 2_000_000);
    assert_eq!(crashes(&mut restarts, 3, 2_061_500), 3);
}

#[test]
fn one_that_ran_before_we_looked_or_ended_unseen_is_not_blamed() {
    let mut restarts = Restarts::default();
    for number in 0..10 {
        assert!(restarts.seen(life(number), true, ms(0)).is_some());
        restarts.ended(&id(), ms(1));
    }
    for number in 10..20 {
        assert!(restarts.seen(life(number), false, ms(2)).is_some());
        restarts.retain(|_| false);
    }
    assert!(restarts.lives.is_empty() && restarts.restless.is_empty());
}

#[test]
fn one_that_asks_for_nothing_is_never_held_back() {
    let mut restarts = Restarts::default();
    for number in 0..10 {
        let container = Container::running(id(), "proxy");
        assert!(restarts.seen(container, false, ms(number)).is_some());
        restarts.ended(&id(), ms(number));
    }
    assert!(restarts.lives.is_empty() && restarts.restless.is_empty());
}

#[test]
fn nothing_is_kept_of_the_dead_for_longer_than_a_minute() {
    let mut restarts = Restarts::default();
    for number in 0..200_u64 {
        let other = ContainerId::new(&format!("{number:064}")).unwrap();
        let mut container = life(0);
        container.id = other.clone();
        restarts.seen(container, false, ms(number * 1000));
        restarts.ended(&other, ms(number * 1000));
    }
    assert!(restarts.restless.len() <= 61, "{}", restarts.restless.len());
}
