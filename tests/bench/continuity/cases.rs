//! The cases on the machine's Docker engine.
//!
//! What lives here: what is done to the containers while visitors come. What it
//! must not know: how failures are judged.

use std::thread;
use std::time::{Duration, Instant};

use super::row::Row;
use super::stand::{Container, Manner, Stand, act, pass, remove, until};
use super::streams::Streams;
use super::visitors::{Visit, Visitors};
use crate::engine::kill;
use crate::engine_api as api;
use crate::figures::memory_mb;

/// A container finishes what it was given, and listens a while after its start.
const FINISH: Manner = Manner { on_term: "graceful", startup_ms: 200 };
/// It cuts what it was given.
const EXIT: Manner = Manner { on_term: "exit", ..FINISH };
/// It goes on until it is killed.
const IGNORE: Manner = Manner { on_term: "ignore", ..FINISH };

/// Visitors' patience; what takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same while a container is paused: shorter than the pause, or else those
/// who were given to it would be answered in the end.
const PAUSED_PATIENCE: Duration = Duration::from_secs(2);
const PAUSED: Duration = Duration::from_secs(4);
/// Longer than a slow request.
const SETTLED: Duration = Duration::from_millis(400);
/// Containers that are started or ended at the same time.
const AT_ONCE: usize = 6;
/// Streams of the stable service.
const STREAMS: usize = 200;
/// Other containers that come and go before memory is looked at first.
const WARM_UP: usize = 10;

/// Does something as often as said, while visitors come.
type Run = dyn Fn(&Stand, usize) -> Row;

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// In a full run.
    pub(crate) runs: usize,
    pub(crate) run: Box<Run>,
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = one_of_two().into_iter().map(OneOfTwo::into_case).collect();
    let mut add = |name, runs, run: Box<Run>| cases.push(Case { name, runs, run });
    add("rolling replacement of three", 10, Box::new(rolling));
    add("scale 2 → 20 → 2", 3, Box::new(scale));
    add("pause one of two", 5, Box::new(pause));
    add("hapilot killed -9 and started again", 10, Box::new(hapilot_dies));
    add("streams while others come and go", 100, Box::new(streams));
    cases
}

/// One of two replicas ends and is started again (or another in its place).
#[derive(Clone, Copy)]
struct OneOfTwo {
    name: &'static str,
    runs: usize,
    manner: Manner,
    end: fn(&Container),
    /// What is done afterwards.
    then: Then,
    may_lose: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Start,
    /// It would be held back if its process ended by itself again and again.
    Replace,
    /// It runs already.
    Nothing,
}

fn one_of_two() -> [OneOfTwo; 6] {
    let stop = OneOfTwo {
        name: "stop one of two",
        runs: 30,
        manner: FINISH,
        end: |one| api::act(&one.id, "stop?t=10"),
        then: Then::Start,
        may_lose: false,
    };
    [
        stop,
        OneOfTwo { name: "stop one of two that exits at once", manner: EXIT, may_lose: true, ..stop },
        OneOfTwo {
            name: "stop one of two that ignores SIGTERM",
            runs: 10,
            manner: IGNORE,
            end: |one| api::act(&one.id, "stop?t=1"),
            ..stop
        },
        OneOfTwo {
            name: "kill -9 one of two",
            end: |one| api::act(&one.id, "kill?signal=KILL"),
            may_lose: true,
            ..stop
        },
        OneOfTwo {
            name: "the process of one of two is killed",
            runs: 10,
            end: kill_process,
            then: Then::Replace,
            may_lose: true,
            ..stop
        },
        OneOfTwo {
            name: "restart one of two",
            end: |one| api::act(&one.id, "restart?t=10"),
            then: Then::Nothing,
            ..stop
        },
    ]
}

/// From outside, as the kernel does it when memory is short: nothing announces it.
fn kill_process(container: &Container) {
    let pid = api::inspect(&container.id)["State"]["Pid"].as_u64().unwrap();
    kill("-KILL", u32::try_from(pid).unwrap());
    ended(container);
}

fn ended(container: &Container) {
    until("the container has ended", || {
        let running = api::inspect(&container.id)["State"]["Running"].as_bool().unwrap();
        if running { Err("it runs".to_owned()) } else { Ok(()) }
    });
}

impl OneOfTwo {
    fn into_case(self) -> Case {
        Case { name: self.name, runs: self.runs, run: Box::new(move |stand, runs| self.run(stand, runs)) }
    }

    fn run(&self, stand: &Stand, runs: usize) -> Row {
        let host = "two.example";
        let haproxy = stand.haproxy();
        let mut pair = start(stand, host, 2, self.manner);
        let visitors = Visitors::come(&stand.runtime, &visit(stand, host));
        for run in 0..runs {
            // Both have slow requests in flight again.
            pass(SETTLED);
            let place = run % 2;
            stand.end(&pair[place], self.end);
            match self.then {
                Then::Start => {
                    // Docker's answer to a kill doesn't wait for the end.
                    ended(&pair[place]);
                    act(&pair[place], "start");
                }
                Then::Replace => {
                    let new = stand.start_new(host, self.manner);
                    remove(vec![std::mem::replace(&mut pair[place], new)]);
                }
                Then::Nothing => {}
            }
            stand.served_by(host, &pair);
        }
        let requests = visitors.leave();
        remove(pair);
        let row = Row::new(self.name, runs, &requests, &stand.take_endings(), &stand.log(), self.may_lose);
        same_haproxy(stand, haproxy, row.no_failure())
    }
}

/// Each of three is replaced: the next one is started, and the old one stopped
/// as soon as the engine has answered.
pub(crate) fn rolling(stand: &Stand, runs: usize) -> Row {
    let host = "rolling.example";
    let haproxy = stand.haproxy();
    let mut three = start(stand, host, 3, FINISH);
    let visitors = Visitors::come(&stand.runtime, &visit(stand, host));
    for _ in 0..runs {
        for place in &mut three {
            let old = std::mem::replace(place, stand.start_new(host, FINISH));
            stand.end(&old, |old| api::act(&old.id, "stop?t=10"));
            remove(vec![old]);
        }
        stand.served_by(host, &three);
    }
    let requests = visitors.leave();
    remove(three);
    let name = "rolling replacement of three";
    let row = Row::new(name, runs, &requests, &stand.take_endings(), &stand.log(), false);
    same_haproxy(stand, haproxy, row.no_failure())
}

/// 2 → 20 → 2, several at the same time.
pub(crate) fn scale(stand: &Stand, runs: usize) -> Row {
    let host = "scale.example";
    let haproxy = stand.haproxy();
    let two = start(stand, host, 2, FINISH);
    let visitors = Visitors::come(&stand.runtime, &visit(stand, host));
    for _ in 0..runs {
        let more = side_by_side(18, |_| stand.start_new(host, FINISH));
        let all = [two.clone(), more.clone()].concat();
        stand.served_by(host, &all);
        side_by_side(18, |index| {
            stand.end(&more[index], |one| api::act(&one.id, "stop?t=10"));
            remove(vec![more[index].clone()]);
        });
        stand.served_by(host, &two);
    }
    let requests = visitors.leave();
    remove(two);
    let row = Row::new("scale 2 → 20 → 2", runs, &requests, &stand.take_endings(), &stand.log(), false);
    same_haproxy(stand, haproxy, row.no_failure())
}

/// One of two is paused for four seconds.
pub(crate) fn pause(stand: &Stand, runs: usize) -> Row {
    let host = "pause.example";
    let haproxy = stand.haproxy();
    let pair = start(stand, host, 2, FINISH);
    // Without slow ones: each of those that is in flight hangs, whatever is done.
    let quick = Visit { slow: false, patience: PAUSED_PATIENCE, ..visit(stand, host) };
    let visitors = Visitors::come(&stand.runtime, &quick);
    let mut starts = Vec::new();
    for run in 0..runs {
        starts.push(Instant::now());
        act(&pair[run % 2], "pause");
        pass(PAUSED);
        act(&pair[run % 2], "unpause");
        stand.served_by(host, &pair);
    }
    let requests = visitors.leave();
    remove(pair);
    let row = Row::new("pause one of two", runs, &requests, &stand.take_endings(), &stand.log(), false);
    same_haproxy(stand, haproxy, row.at_most(2, &starts))
}

/// hapilot dies and comes back; while it is away one more container is started.
pub(crate) fn hapilot_dies(stand: &Stand, runs: usize) -> Row {
    let host = "alone.example";
    let haproxy = stand.haproxy();
    let pair = start(stand, host, 2, FINISH);
    let visitors = Visitors::come(&stand.runtime, &visit(stand, host));
    for _ in 0..runs {
        stand.kill_hapilot();
        let more = stand.start_new(host, FINISH);
        pass(Duration::from_millis(300));
        stand.start_hapilot();
        stand.converged();
        stand.served_by(host, &[pair.clone(), vec![more.clone()]].concat());
        stand.end(&more, |one| api::act(&one.id, "stop?t=10"));
        remove(vec![more]);
        stand.served_by(host, &pair);
    }
    let requests = visitors.leave();
    remove(pair);
    let name = "hapilot killed -9 and started again";
    let row = Row::new(name, runs, &requests, &stand.take_endings(), &stand.log(), false);
    same_haproxy(stand, haproxy, row.no_failure())
}

/// Streams to a stable service stand while others come and go.
pub(crate) fn streams(stand: &Stand, others: usize) -> Row {
    let host = "stable.example";
    let haproxy = stand.haproxy();
    let stable = start(stand, host, 2, FINISH);
    let visitors = Visitors::come(&stand.runtime, &visit(stand, host));
    let streams = Streams::open(&stand.runtime, stand.http, host, STREAMS);
    let come_and_go = |count: usize| {
        side_by_side(count, |index| {
            let host = format!("other-{index}.example");
            let one = stand.start_new(&host, FINISH);
            stand.served_by(&host, std::slice::from_ref(&one));
            stand.end(&one, |one| api::act(&one.id, "stop?t=10"));
            remove(vec![one]);
        });
    };
    come_and_go(WARM_UP);
    let (before, servers) = (memory_mb(haproxy, "VmRSS"), stable.len());
    come_and_go(others);
    until("only the stable service's servers are left", || {
        let left = stand.servers();
        if left == servers { Ok(()) } else { Err(left.to_string()) }
    });
    let growth = (memory_mb(haproxy, "VmRSS") / before - 1.0) * 100.0;
    let beaten = streams.close();
    let requests = visitors.leave();
    remove(stable);
    let name = format!("{STREAMS} streams, {others} others come and go");
    for dropped in beaten.dropped.iter().take(5) {
        println!("    dropped: {dropped}");
    }
    let row = Row::new(&name, 1, &requests, &stand.take_endings(), &stand.log(), false).no_failure().bound(
        beaten.dropped.is_empty(),
        format!("{} streams dropped, {} beats", beaten.dropped.len(), beaten.beats),
    );
    let memory = format!("HAProxy's memory {growth:+.1} % of {before:.0} MB");
    same_haproxy(stand, haproxy, row.bound(growth <= 5.0, memory))
}

fn visit(stand: &Stand, host: &str) -> Visit {
    Visit { http: stand.http, host: host.to_owned(), slow: true, patience: PATIENCE }
}

/// Replicas that all serve.
fn start(stand: &Stand, host: &str, count: usize, manner: Manner) -> Vec<Container> {
    let replicas: Vec<Container> = (0..count).map(|_| stand.start_new(host, manner)).collect();
    stand.served_by(host, &replicas);
    replicas
}

fn same_haproxy(stand: &Stand, before: u32, mut row: Row) -> Row {
    let now = stand.haproxy();
    if now != before {
        row.broken.push(format!("HAProxy's process is another: {now}, not {before}"));
    }
    row
}

/// Does something `count` times, a few at a time; what it gave.
fn side_by_side<T: Send>(count: usize, task: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let task = &task;
    thread::scope(|scope| {
        let hands: Vec<_> = (0..AT_ONCE)
            .map(|hand| scope.spawn(move || (hand..count).step_by(AT_ONCE).map(task).collect::<Vec<T>>()))
            .collect();
        hands
            .into_iter()
            .flat_map(|hand| hand.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
