//! A HAProxy that hangs, and those who wait meanwhile; on a paused clock.

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::report::{Counts, Docker, Hapilot, Haproxy, Mode, Status};

fn health() -> Health {
    Health {
        converged: true,
        since: Some(1),
        as_of: Some(1),
        as_of_age_seconds: Some(0),
        stale: Vec::new(),
        hapilot: Hapilot { version: "0".into(), pid: 1, uptime_seconds: 1, mode: Mode::Attach },
        docker: Docker { connected: true, engine_version: None, error: None },
        haproxy: Haproxy { connected: true, pid: Some(2), ..Haproxy::default() },
        counts: Counts::default(),
        error: None,
        role: None,
    }
}

/// The far ends of the loop's inputs.
struct Ends {
    asks: mpsc::Sender<Ask>,
    stop: CancellationToken,
}

fn inputs() -> (Inputs, Ends) {
    let (asks_in, asks) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let inputs = Inputs {
        docker: mpsc::channel(1).1,
        asks,
        process: mpsc::channel(1).1,
        configs: mpsc::channel(1).1,
        resync: Arc::new(Notify::new()),
        relist: Arc::new(Notify::new()),
        stop: stop.clone(),
    };
    (inputs, Ends { asks: asks_in, stop })
}

/// A call that takes so long, with a reply every `beat`.
async fn call(lasts: Duration, beat: Duration, heard: Arc<AtomicU64>) {
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        sleep(beat.min(end - Instant::now())).await;
        heard.fetch_add(1, Ordering::Relaxed);
    }
}

struct Outcome {
    ended: Result<(), GivenUp>,
    after: Duration,
    left: usize,
}

async fn waited(
    lasts: Duration,
    beat: Duration,
    changes: bool,
    awaited: bool,
    visitors: impl AsyncFnOnce(Ends),
) -> Outcome {
    let (mut inputs, ends) = inputs();
    let mut asked = VecDeque::new();
    let heard = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let wait = async {
        let inputs = &mut inputs;
        let meanwhile = Meanwhile {
            health: health(),
            changes,
            awaited,
            heard: Arc::clone(&heard),
            asked: &mut asked,
            inputs,
        };
        let ended = meanwhile.wait_for(call(lasts, beat, heard)).await;
        (ended, began.elapsed())
    };
    let ((ended, after), ()) = tokio::join!(wait, visitors(ends));
    Outcome { ended, after, left: asked.len() }
}

const LONG: Duration = Duration::from_secs(30);

async fn ask_health(ends: &Ends) -> (Health, Duration) {
    let began = Instant::now();
    let (to, answer) = oneshot::channel();
    ends.asks.send(Ask::Health(to)).await.unwrap();
    (answer.await.unwrap(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn nobody_hurries_a_call_that_nobody_waits_for() {
    let five = Duration::from_secs(5);
    let outcome = waited(five, LONG, true, false, async |ends| sleep_with(ends, five).await).await;
    assert_eq!((outcome.ended, outcome.after), (Ok(()), five));
}

async fn sleep_with(ends: Ends, so_long: Duration) {
    sleep(so_long).await;
    drop(ends);
}

#[tokio::test(start_paused = true)]
async fn how_it_fares_is_told_at_once_and_honestly() {
    let outcome = waited(Duration::from_secs(5), LONG, true, false, async |ends| {
        let (first, waited) = ask_health(&ends).await;
        assert!(waited <= PULSE, "{waited:?}");
        assert!(!first.converged && first.stale.is_empty(), "a turn is under way: {first:?}");
        sleep(Duration::from_secs(3)).await;
        let (later, waited) = ask_health(&ends).await;
        assert!(waited <= PULSE, "{waited:?}");
        assert!(later.stale[0].starts_with("HAProxy has not answered for 3."), "{later:?}");
    })
    .await;
    assert_eq!(outcome.ended, Ok(()), "a question about health costs no connection");
}

#[tokio::test(start_paused = true)]
async fn reading_alone_leaves_it_converged() {
    let one = Duration::from_secs(1);
    let outcome = waited(one, Duration::from_millis(10), false, false, async |ends| {
        let (health, _) = ask_health(&ends).await;
        assert!(health.converged && health.stale.is_empty(), "{health:?}");
    })
    .await;
    assert_eq!(outcome.ended, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_needs_its_end_makes_a_silent_call_short() {
    let outcome = waited(LONG, LONG, true, false, async |ends| {
        let (to, _answer) = oneshot::channel::<Status>();
        ends.asks.send(Ask::Status(to)).await.unwrap();
    })
    .await;
    assert_eq!((outcome.ended, outcome.left), (Err(GivenUp::Silent), 1), "the loop answers it");
    assert!(outcome.after <= PATIENCE + PULSE, "{:?}", outcome.after);

    let outcome = waited(LONG, LONG, false, true, async |_| {}).await;
    assert_eq!(outcome.ended, Err(GivenUp::Silent), "a call that is itself for an answer");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_makes_progress_is_never_given_up() {
    let outcome = waited(LONG, Duration::from_secs(1), true, false, async |ends| {
        let (to, _answer) = oneshot::channel::<Status>();
        ends.asks.send(Ask::Status(to)).await.unwrap();
    })
    .await;
    assert_eq!((outcome.ended, outcome.after, outcome.left), (Ok(()), LONG, 1));
}

#[tokio::test(start_paused = true)]
async fn the_end_is_obeyed_at_once() {
    let outcome = waited(LONG, LONG, true, false, async |ends| {
        sleep(Duration::from_secs(2)).await;
        ends.stop.cancel();
    })
    .await;
    assert_eq!((outcome.ended, outcome.after), (Err(GivenUp::Ending), Duration::from_secs(2)));
}
