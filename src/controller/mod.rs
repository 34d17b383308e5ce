//! When to take a turn: wake, coalesce, retry, resync, shut down. Never what.
//!
//! What lives here: one loop, and the clock. What it must not know: what a
//! change of a container means (`core`), how a command is sent (`apply`).
//!
//! Everything that happens ends up in this loop's `select!`: news from Docker,
//! a question on the admin socket, the end of HAProxy's process or of the
//! connection to it, a deadline, a signal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::admin::Ask;
use crate::backoff::{Backoff, Jitter};
use crate::core::command::{Capabilities, Version};
use crate::core::container::EngineName;
use crate::core::desired::Desired;
use crate::core::name::BackendName;
use crate::core::restarts::Restarts;
use crate::core::state::Observed;
use crate::docker::EngineNews;
use crate::haproxy_config::ConfigSettings;
use crate::haproxy_process::{ConfigQuestion, ProcessNews};
use crate::metrics::{ErrorKind, Metrics};
use crate::reconcile::{Link, News, Reconcile, Rules, TurnError};
use crate::report::Mode;
use crate::runtime_api::Connect;

mod answer;
mod connection;
mod containers;
mod down;
mod due;
mod engines;
mod files;
mod meanwhile;
mod told;

use connection::{Attempt, attempted, closed};
use down::DownFile;
use due::{Arrival, Arrivals, Due};
use engines::Engines;
use files::{Files, pool};
use meanwhile::Meanwhile;
use told::Told;

/// Without a first list from every engine for this long, HAProxy starts with what
/// lies on disk from last time.
const FIRST_LIST_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether HAProxy is still the one we think, while nothing
/// else is said. Its end is noticed at once; this is for one that hangs, and
/// for one that was told to stop softly.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between two attempts to reach HAProxy: at least and at most.
const CONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// A connection that lived this long was a good one; whoever closes sooner is not
/// asked again at once.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);
/// Between two attempts at what HAProxy refused: at least and at most.
const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Between two attempts at a deletion that HAProxy put off.
const DELETION_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Between two looks whether the server has come up for which another one that
/// should go still serves: at least and at most.
const HOPING_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What the loop works with.
#[derive(Debug)]
pub struct Config {
    /// Spawn or attach, for the report.
    pub mode: Mode,
    /// HAProxy's Runtime API.
    pub runtime_api: Arc<dyn Connect>,
    /// The engines that are watched, each with its address.
    pub engines: BTreeMap<EngineName, String>,
    /// By how much each pause differs from its nominal length.
    pub jitter: Jitter,
    /// How turns are taken.
    pub rules: Rules,
    /// How the start-up configuration is rendered.
    pub config: ConfigSettings,
    /// Where it is written.
    pub dir: PathBuf,
    /// HAProxy's version where it is known before the first connection.
    pub version: Option<Version>,
    /// The program that must accept a configuration before it is started with it.
    pub checker: Option<PathBuf>,
    /// Between two looks at all of HAProxy's state.
    pub resync: Duration,
}

/// The ends that the loop listens to.
#[derive(Debug)]
pub struct Inputs {
    /// News from Docker.
    pub docker: mpsc::Receiver<EngineNews>,
    /// Questions on the admin sockets.
    pub asks: mpsc::Receiver<Ask>,
    /// What HAProxy's process does; never anything in attach mode.
    pub process: mpsc::Receiver<ProcessNews>,
    /// Who starts HAProxy asks for the configuration to start with.
    pub configs: mpsc::Receiver<ConfigQuestion>,
    /// SIGHUP: everything is to be read anew.
    pub resync: Arc<Notify>,
    /// Rings at whoever watches Docker, for the same.
    pub relist: Arc<Notify>,
    /// End.
    pub stop: CancellationToken,
}

/// The loop's memory.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent: no state machine hides in them")]
pub struct Controller {
    config: Config,
    reconcile: Reconcile,
    metrics: Arc<Metrics>,
    link: Option<Link>,
    /// A connection on its way. Apart from the loop: whoever takes it and says
    /// nothing must not keep the loop from answering and ending.
    attempt: Option<Attempt>,
    /// When the last connection stood.
    connected_at: Instant,
    /// How many connections in a row ended soon after they stood.
    short_lived: u32,
    files: Files,
    down: DownFile,
    /// Questions that wait for the end of a call to HAProxy.
    asked: VecDeque<Ask>,
    told: Told,
    restarts: Restarts,
    /// HAProxy's version as far as it was ever seen.
    version: Option<Version>,
    /// Backends of the pool that HAProxy has (or will start with).
    pool: BTreeSet<BackendName>,
    engines: Engines,
    haproxy: answer::HaproxyNews,
    begun: Instant,
    /// HAProxy's process runs (spawn), or is somebody else's care (attach).
    running: bool,
    /// An engine's first list has arrived, and it is clear where HAProxy is: from
    /// now on there is something to plan.
    listed: bool,
    /// A turn was finished: what is desired rests on what HAProxy has.
    grounded: bool,
    /// Something may have to be done.
    wake: bool,
    /// Events that have not been acted upon.
    arrivals: Arrivals,
    settled: bool,
    settled_since: Option<SystemTime>,
    /// Why the last turn did not finish.
    trouble: Option<String>,
    /// Why the files could not be written last time.
    unwritten: Option<String>,
    waiting: usize,
    due: Due,
    connecting: Backoff,
    refused: Backoff,
    deleting: Backoff,
    hoping: Backoff,
}

impl Controller {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(config: Config, desired: Desired, metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        let mut desired = desired;
        desired.set_complete(false);
        let mut reconcile = Reconcile::new(config.rules.clone(), desired, Arc::clone(&metrics));
        let pool = pool(&config.config);
        // What HAProxy starts with, if it does not run yet. While its version is
        // not known, the pool serves: that works with every version.
        let capabilities = config.version.and_then(Capabilities::of).unwrap_or(Capabilities::LEAST);
        reconcile.suppose(&Observed { pool: pool.clone(), ..Observed::default() }, capabilities);
        let mut jitter = config.jitter.clone();
        let mut pauses = |(floor, ceiling)| Backoff::with_jitter(floor, ceiling, jitter.split());
        let mut files = Files::new(config.dir.clone(), config.config.clone(), config.checker.clone());
        if config.mode == Mode::Attach {
            // Nobody asks for it there: HAProxy waits for the file.
            files.changed(now, true);
        }
        Self {
            files,
            down: DownFile::new(&config.dir),
            asked: VecDeque::new(),
            told: Told::default(),
            restarts: Restarts::default(),
            version: config.version,
            pool,
            engines: Engines::new(&config.engines),
            haproxy: answer::HaproxyNews::default(),
            begun: now,
            running: config.mode == Mode::Attach,
            listed: false,
            grounded: false,
            wake: false,
            arrivals: Arrivals::default(),
            settled: false,
            settled_since: None,
            trouble: None,
            unwritten: None,
            waiting: 0,
            due: Due { connect: now, turn: None, resync: now + config.resync, heartbeat: now + HEARTBEAT },
            connecting: pauses(CONNECT_PAUSE),
            refused: pauses(REFUSED_PAUSE),
            deleting: pauses(DELETION_PAUSE),
            hoping: pauses(HOPING_PAUSE),
            link: None,
            attempt: None,
            connected_at: now,
            short_lived: 0,
            reconcile,
            metrics,
            config,
        }
    }

    /// Goes round until `stop` is cancelled.
    pub async fn run(&mut self, mut inputs: Inputs) {
        while !inputs.stop.is_cancelled() {
            self.work(&mut inputs).await;
            while let Some(ask) = self.asked.pop_front() {
                self.answer(ask, &mut inputs).await;
            }
            let next = self.next_due();
            // In a fixed order, so that the same news at the same moments always lead
            // to the same turns (`tests/sim`). What comes rarely stands before what
            // may come in floods, and what is due is done between any two of them.
            tokio::select! {
                biased;
                () = inputs.stop.cancelled() => break,
                Some(news) = inputs.process.recv() => self.take_process(news),
                Some(question) = inputs.configs.recv() => self.files.ask(question),
                () = inputs.resync.notified() => {
                    self.due.resync = Instant::now();
                    inputs.relist.notify_one();
                }
                result = attempted(&mut self.attempt) => self.connected(result),
                () = closed(self.link.as_mut()) => self.lost("HAProxy closed the connection"),
                news = inputs.docker.recv() => match news {
                    Some(news) => {
                        self.take_news(news);
                        while let Ok(news) = inputs.docker.try_recv() {
                            self.take_news(news);
                        }
                        // A flood of news must not keep a question from its answer.
                        if let Ok(ask) = inputs.asks.try_recv() {
                            self.answer(ask, &mut inputs).await;
                        }
                    }
                    // The watcher ends only with us.
                    None => break,
                },
                Some(ask) = inputs.asks.recv() => self.answer(ask, &mut inputs).await,
                () = sleep_until(next) => {}
            }
        }
        if self.config.mode == Mode::Spawn {
            // It is about to end: its partner takes over before visitors notice.
            self.down.write(true);
        }
        // An open session would count as a request in flight.
        self.link = None;
    }

    fn next_due(&self) -> Instant {
        let mut next = self.begun + Duration::from_secs(365 * 24 * 3600);
        next = self.restarts.next_due().map_or(next, |due| next.min(self.begun + due));
        if self.link.is_some() {
            next = next.min(self.due.resync).min(self.due.heartbeat);
            if self.listed {
                next = self.due.turn.map_or(next, |due| next.min(due));
            }
        } else if self.running && self.attempt.is_none() {
            next = next.min(self.due.connect);
        }
        next = self.own_due().map_or(next, |due| next.min(due));
        // Before the first lists there is nothing to write, for a while.
        let not_before = if self.is_whole() { self.begun } else { self.begun + FIRST_LIST_PATIENCE };
        self.files.due().map_or(next, |due| next.min(due.max(not_before)))
    }

    /// Does what is due.
    async fn work(&mut self, inputs: &mut Inputs) {
        let now = Instant::now();
        for container in self.restarts.take_due(now - self.begun) {
            self.reconcile.desired_mut().set(container);
            self.wake = true;
        }
        if self.own_due().is_some_and(|due| due <= now) {
            self.judge_completeness();
            self.wake = true;
        }
        if self.link.is_none() {
            if self.listed && std::mem::take(&mut self.wake) {
                self.suppose();
            }
            self.write_files(now).await;
            if self.attempt.is_none() && self.running && now >= self.due.connect {
                self.attempt = Some(AbortOnDropHandle::new(tokio::spawn(self.config.runtime_api.connect())));
            }
        }
        if self.link.is_some() {
            if now >= self.due.resync {
                self.resync(inputs).await;
            }
            if now >= self.due.heartbeat {
                self.heartbeat(inputs).await;
            }
            if self.listed && (self.wake || self.due.turn.is_some_and(|due| now >= due)) {
                self.turn(inputs).await;
            }
            // After the turn: what was read from HAProxy a moment ago may have
            // begun the desired state anew, and only the turn completes it.
            if self.link.is_some() {
                self.write_files(now).await;
            }
        }
    }

    /// While HAProxy is away: what should it start with?
    fn suppose(&mut self) {
        self.reconcile.suppose_applied(&self.pool);
        // It will have the pool of its next configuration, which may be a larger one
        // than it had: hosts that waited for a backend get theirs now.
        let capabilities = self.version.and_then(Capabilities::of).unwrap_or(Capabilities::LEAST);
        let state = self.reconcile.desired().state();
        let mut pool = pool(&self.config.config);
        pool.extend(state.backends.keys().filter(|name| name.is_pool()).cloned());
        if !capabilities.add_backend && pool != self.pool {
            let ground = Observed { state: state.clone(), pool: pool.clone(), ..Observed::default() };
            self.reconcile.suppose(&ground, capabilities);
            self.pool = pool;
        }
        self.files.changed(Instant::now(), true);
        self.told.place(self.reconcile.desired());
        self.told.rejections(self.reconcile.desired_mut(), self.engines.are_several());
    }

    /// True if what is desired leaves nobody out: every engine has told what it
    /// has, or what HAProxy has of the others' is in it.
    fn is_whole(&self) -> bool {
        self.listed && (self.grounded || self.engines.all_whole())
    }

    async fn write_files(&mut self, now: Instant) {
        let patient = !self.is_whole() && now < self.begun + FIRST_LIST_PATIENCE;
        if patient || self.files.due().is_none_or(|due| now < due) {
            return;
        }
        if !self.is_whole() && self.files.keep() {
            info!("Docker has not answered yet: HAProxy starts with what is on disk from last time");
            return;
        }
        let changed = self.reconcile.take_unwritten();
        if let Err(error) = self.files.write(self.reconcile.desired().state(), changed).await {
            self.metrics.error(ErrorKind::Configuration);
            if self.unwritten.as_ref() == Some(&error) {
                return;
            }
            error!(error, "the start-up configuration can't be written; the old one is kept");
            self.unwritten = Some(error);
        } else {
            self.unwritten = None;
        }
    }

    async fn turn(&mut self, inputs: &mut Inputs) {
        let health = self.health(None);
        let Some(link) = self.link.as_mut() else { return };
        self.wake = false;
        self.due.turn = None;
        let arrivals = std::mem::take(&mut self.arrivals);
        self.reconcile.watch(arrivals.containers());
        let (heard, asked) = (link.client().heard(), &mut self.asked);
        let meanwhile = Meanwhile { health, changes: true, awaited: false, heard, asked, inputs };
        let outcome = match meanwhile.wait_for(self.reconcile.turn(link)).await {
            Ok(outcome) => outcome,
            Err(given_up) => return self.given_up(given_up),
        };
        self.metrics.turn();
        self.told.place(self.reconcile.desired());
        self.told.rejections(self.reconcile.desired_mut(), self.engines.are_several());
        self.told.blocked(&self.reconcile.blocked());
        match outcome {
            Ok(turn) => {
                if turn.failed == 0 {
                    arrivals.tell(&turn, &self.metrics);
                }
                self.trouble = None;
                self.grounded = true;
                self.waiting = turn.waiting + turn.deferred;
                if turn.done > 0 {
                    self.files.changed(Instant::now(), false);
                }
                let now = Instant::now();
                if turn.settled {
                    self.refused.reset();
                    self.settle();
                } else {
                    self.unsettle();
                    self.due.turn = Some(now + self.refused.next());
                }
                if turn.settled && self.waiting > 0 {
                    self.due.turn = Some(now + self.deleting.next());
                } else {
                    self.deleting.reset();
                }
                if turn.hoping > 0 {
                    let due = now + self.hoping.next();
                    self.due.turn = Some(self.due.turn.map_or(due, |other| other.min(due)));
                } else {
                    self.hoping.reset();
                }
            }
            Err(error) => self.broke(&error),
        }
    }

    /// A turn or a reading could not be finished: whatever the reason, the
    /// connection is given up, and everything is read again over a new one.
    fn broke(&mut self, error: &TurnError) {
        let text = error.to_string();
        self.lost(&text);
        if self.trouble.as_ref() != Some(&text) {
            error!(error = text, "HAProxy's state is not as hapilot wants it");
        }
        self.trouble = Some(text);
        self.due.connect = Instant::now() + self.refused.next();
    }

    fn settle(&mut self) {
        if !self.settled {
            self.settled = true;
            self.settled_since = Some(SystemTime::now());
            let servers = self.reconcile.desired().state().servers().count();
            match self.reconcile.blocked().len() {
                0 => info!(servers, "converged: HAProxy has what the containers ask for"),
                blocked => info!(servers, blocked, "converged: HAProxy has what it can have"),
            }
        }
    }

    fn unsettle(&mut self) {
        self.settled = false;
        self.settled_since = None;
    }

    /// Looks at all of HAProxy's state: a hand on the socket is found out.
    async fn resync(&mut self, inputs: &mut Inputs) {
        self.due.resync = Instant::now() + self.config.resync;
        self.metrics.resync();
        self.observe(false, inputs).await;
    }

    /// Reads all of HAProxy's state; `awaited` for an answer.
    async fn observe(&mut self, awaited: bool, inputs: &mut Inputs) {
        let health = self.health(None);
        let Some(link) = self.link.as_mut() else { return };
        let (heard, asked) = (link.client().heard(), &mut self.asked);
        let meanwhile = Meanwhile { health, changes: false, awaited, heard, asked, inputs };
        let outcome = match meanwhile.wait_for(self.reconcile.observe(link)).await {
            Ok(outcome) => outcome,
            Err(given_up) => return self.given_up(given_up),
        };
        match outcome {
            Ok(News::State) => {
                // It was not as remembered; until a turn has mended that,
                // nobody may be told otherwise.
                self.unsettle();
                self.wake = true;
            }
            Ok(News::Health) => self.wake = true,
            Ok(News::None) => {}
            Err(error) => self.broke(&error),
        }
    }
}
