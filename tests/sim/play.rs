//! One history: what happens, step by step, and what is looked at in between.
//!
//! What lives here: the lives of hapilot and of HAProxy, the time that passes, and
//! how long hapilot may take to get over what `step` makes happen. What it must
//! not know: how hapilot does that.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hapilot::admin::AdminHandle;
use hapilot::backoff::Jitter;
use hapilot::controller::{Config, Controller, Inputs};
use hapilot::core::command::Check;
use hapilot::core::container::EngineName;
use hapilot::core::desired::{Desired, HaproxyPlace};
use hapilot::core::name::ClassName;
use hapilot::docker::{Change, EngineNews};
use hapilot::haproxy_config::{ConfigPath, ConfigSettings, QUARANTINE, RuntimeSocket};
use hapilot::metrics::Metrics;
use hapilot::reconcile::Rules;
use hapilot::report::Mode;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::engine::{Engine, PLACES};
use crate::haproxy_model::Release;
use crate::stage::{SESSION_LIMIT, Shared};
use crate::verdict::{self, Rigour};

/// Backends of the pool: fewer than hosts, so it runs out.
pub const POOL: usize = 4;
/// Between two looks at all of HAProxy's state.
const RESYNC: Duration = Duration::from_secs(10);

/// Without a fault: every command takes no time, and on 3.x an address a moment.
const PROMPTLY: Duration = Duration::from_secs(2);
/// After a fault: a deadline (5 s), the longest pause between connections (2 s)
/// and between attempts at what was refused (30 s), each a good deal longer.
const AFTER_A_FAULT: Duration = Duration::from_secs(60);

mod step;

/// hapilot's process, from the loop inwards.
struct Hapilot {
    task: JoinHandle<()>,
    changes: mpsc::Sender<EngineNews>,
    admin: AdminHandle,
    resync: Arc<Notify>,
    /// Kept open: in attach mode nothing comes through them.
    _ends: (
        mpsc::Sender<hapilot::haproxy_process::ProcessNews>,
        mpsc::Sender<hapilot::haproxy_process::ConfigQuestion>,
    ),
}

/// A request or an upgraded connection.
struct Visit {
    backend: String,
    server: String,
    until: u64,
}

pub struct Play<'a> {
    chance: Chance,
    shared: Shared,
    engine: Engine,
    hapilot: Option<Hapilot>,
    dir: &'a Path,
    visits: Vec<Visit>,
    /// Docker can't be reached.
    cut_off: bool,
    /// Events get lost until then.
    deaf_until: u64,
    /// When hapilot is started again.
    reborn_at: Option<u64>,
    /// When HAProxy is started again.
    restarted_at: Option<u64>,
    /// When it ended, if hapilot has had the time to write the files since.
    away_since: Option<u64>,
    /// Something went wrong since the last settling.
    faulty: bool,
}

/// What went wrong, and what came before.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    pub story: String,
}

/// Plays so many steps of the history that a seed makes up; a digest of all that
/// happened.
pub async fn play(release: Release, seed: u64, steps: usize, dir: &Path) -> Result<u64, Failure> {
    let mut play = Play {
        chance: Chance::new(seed),
        shared: Shared::new(release, !seed),
        engine: Engine::default(),
        hapilot: None,
        dir,
        visits: Vec::new(),
        cut_off: false,
        deaf_until: 0,
        reborn_at: None,
        restarted_at: None,
        away_since: None,
        faulty: true,
    };
    let outcome = play.run(steps).await;
    if let Some(hapilot) = &play.hapilot {
        hapilot.task.abort();
    }
    let mut stage = play.shared.stage();
    stage.die();
    outcome.map(|()| stage.digest(dir)).map_err(|what| Failure { what, story: stage.story() })
}

type Outcome = Result<(), String>;

impl Play<'_> {
    async fn run(&mut self, steps: usize) -> Outcome {
        self.be_born().await;
        // It writes the files; then HAProxy starts with them.
        sleep(Duration::from_millis(10)).await;
        self.shared.stage().start(self.dir);
        self.settle(true).await?;
        for _ in 0..steps {
            self.step().await?;
        }
        self.end().await
    }

    /// Everybody goes home, and nothing is left over.
    async fn end(&mut self) -> Outcome {
        self.shared.stage().note("everybody goes home");
        for place in 0..PLACES {
            self.engine.die(place);
        }
        self.settle(true).await?;
        self.tidy().await
    }

    /// When visits that never end were cut, also what waited for its deletion is gone.
    async fn tidy(&mut self) -> Outcome {
        self.pass(SESSION_LIMIT + QUARANTINE + Duration::from_secs(30)).await?;
        let status = self.status().await.ok_or("hapilot does not answer")?;
        let stage = self.shared.stage();
        let haproxy = stage.haproxy.as_ref().ok_or("HAProxy is gone")?;
        verdict::judge(haproxy, &self.engine.facts(), &status, Rigour::Clean)
            .map_err(|flaw| format!("in the end: {flaw}"))
    }

    fn config(&mut self) -> Config {
        let dir = ConfigPath::new(self.dir.to_str().unwrap()).unwrap();
        let socket = RuntimeSocket::unix(ConfigPath::new("/simulated.sock").unwrap()).unwrap();
        let mut config = ConfigSettings::new(dir, ([127, 0, 0, 1], 80).into(), socket);
        config.classes = vec![ClassName::web()];
        config.pool_size = POOL;
        Config {
            mode: Mode::Attach,
            runtime_api: Arc::new(self.shared.clone()),
            engines: [(EngineName::default(), "simulated".to_owned())].into(),
            jitter: Jitter::seeded(self.chance.draw()),
            rules: Rules {
                classes: config.classes.clone(),
                check: Check::default(),
                quarantine: QUARANTINE,
                session_limit: SESSION_LIMIT,
            },
            config,
            dir: self.dir.to_owned(),
            version: None,
            checker: None,
            resync: RESYNC,
        }
    }

    /// hapilot starts, and connects to Docker.
    async fn be_born(&mut self) {
        let (changes, docker) = mpsc::channel(256);
        let (admin, asks) = AdminHandle::new();
        let (news, process) = mpsc::channel(1);
        let (questions, configs) = mpsc::channel(1);
        let resync = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let inputs =
            Inputs { docker, asks, process, configs, resync: resync.clone(), relist: Arc::default(), stop };
        let desired = Desired::new(HaproxyPlace::Host, false);
        let mut controller = Controller::new(self.config(), desired, Arc::new(Metrics::default()));
        let task = tokio::task::spawn_local(async move { controller.run(inputs).await });
        self.shared.stage().begin_life(changes.clone(), task.abort_handle());
        self.shared.stage().note("hapilot starts");
        self.hapilot = Some(Hapilot { task, changes, admin, resync, _ends: (news, questions) });
        self.engine.forget_told();
        self.reborn_at = None;
        if !self.cut_off {
            self.meet_docker().await;
        }
    }

    async fn meet_docker(&mut self) {
        self.cut_off = false;
        self.deaf_until = 0;
        let connected =
            Change::Connected { api_version: "1.41".to_owned(), engine_version: "20.10".to_owned() };
        self.send(connected).await;
        let snapshot = self.engine.snapshot();
        self.send(snapshot).await;
    }

    async fn send(&mut self, change: Change) {
        let facts = self.engine.facts();
        let Some(hapilot) = self.hapilot.as_ref().filter(|hapilot| !hapilot.task.is_finished()) else {
            return;
        };
        // First: at the next await it may be heard already.
        self.shared.stage().told(facts);
        // A killed hapilot listens no more.
        let _ = hapilot.changes.send(EngineNews { engine: EngineName::default(), change }).await;
    }

    /// Tells what is new, if events come through.
    async fn tell(&mut self) {
        let now = self.shared.stage().now();
        self.shared.stage().net.listeners = self.engine.listeners();
        if self.cut_off || now < self.deaf_until || self.is_dead() {
            return;
        }
        if let Some(news) = self.engine.news() {
            self.send(news).await;
        }
    }

    fn is_dead(&self) -> bool {
        self.hapilot.as_ref().is_none_or(|hapilot| hapilot.task.is_finished())
    }

    /// Time passes, and what is due in it happens.
    async fn pass(&mut self, time: Duration) -> Outcome {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let now = self.shared.stage().now();
            let due = [self.reborn_at, self.restarted_at].into_iter().flatten();
            let due = due.chain(self.visits.iter().map(|visit| visit.until)).min();
            let pause = due.map_or(left, |due| left.min(Duration::from_millis(due.saturating_sub(now))));
            sleep(pause).await;
            self.happen_what_is_due().await?;
            if left.is_zero() {
                return self.look();
            }
        }
    }

    async fn happen_what_is_due(&mut self) -> Outcome {
        let now = self.shared.stage().now();
        self.shared.stage().pass_time();
        let (over, on): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.visits).into_iter().partition(|v| v.until <= now);
        self.visits = on;
        if let Some(haproxy) = &mut self.shared.stage().haproxy {
            for visit in over {
                if let Some(server) = haproxy.server_mut(&visit.backend, &visit.server)
                    && server.sessions > 0
                {
                    server.sessions -= 1;
                    // Only these keep a connection for the next one that HAProxy can't delete.
                    server.idle += u32::from(server.release == Release::V2_6);
                }
            }
        }
        if self.engine.pass_time(now) {
            self.tell().await;
        }
        if self.restarted_at.is_some_and(|at| at <= now) {
            self.restart_haproxy()?;
        }
        if self.reborn_at.is_some_and(|at| at <= now) {
            self.be_born().await;
        } else if self.is_dead() && self.reborn_at.is_none() {
            self.died().await?;
        }
        if self.deaf_until > 0 && now >= self.deaf_until {
            self.deaf_until = 0;
            self.tell().await;
        }
        // A hand or a fault may have ended HAProxy.
        if self.shared.stage().haproxy.is_none() && self.restarted_at.is_none() {
            self.haproxy_ended(now);
        }
        Ok(())
    }

    fn haproxy_ended(&mut self, now: u64) {
        let pause = self.chance.below(3_000);
        self.faulty = true;
        self.restarted_at = Some(now + pause);
        self.away_since = Some(now);
        self.visits.clear();
    }

    fn restart_haproxy(&mut self) -> Outcome {
        let empty = self.chance.one_in(5);
        let mut stage = self.shared.stage();
        stage.start(self.dir);
        self.restarted_at = None;
        if empty && let Some(haproxy) = &mut stage.haproxy {
            // With the files of its first day, say.
            haproxy.forget();
            stage.note("without anything");
            return Ok(());
        }
        // hapilot lived and knew all the while: the files are the present state.
        let away = self.away_since.take().map_or(0, |since| stage.now() - since);
        let knew = !self.is_dead() && self.engine.is_told() && !self.cut_off && away > 200;
        match &stage.haproxy {
            Some(haproxy) if knew && !stage.tampered => {
                verdict::starts_complete(haproxy, &self.engine.facts(), stage.has_met)
            }
            Some(_) => Ok(()),
            None => Err("HAProxy can't start: there are no files".to_owned()),
        }
    }

    /// hapilot ended: as it should if it was killed, else by a panic.
    async fn died(&mut self) -> Outcome {
        if let Some(hapilot) = self.hapilot.take()
            && let Err(error) = hapilot.task.await
            && error.is_panic()
        {
            return Err(format!("hapilot panicked: {error}"));
        }
        let pause = if self.chance.one_in(2) { 0 } else { self.chance.below(5_000) };
        self.reborn_at = Some(self.shared.stage().now() + pause);
        self.faulty = true;
        Ok(())
    }

    fn look(&self) -> Outcome {
        let stage = self.shared.stage();
        match stage.breaches.first() {
            Some(breach) => Err(breach.clone()),
            None => Ok(()),
        }
    }

    async fn status(&self) -> Option<hapilot::report::Status> {
        self.hapilot.as_ref()?.admin.status().await.ok()
    }

    /// hapilot calls itself well, and it is.
    async fn is_well(&mut self, honest: bool) -> Result<(), String> {
        let Some(hapilot) = self.hapilot.as_ref().filter(|hapilot| !hapilot.task.is_finished()) else {
            return Err("hapilot does not run".to_owned());
        };
        let health = hapilot.admin.health().await.map_err(|silent| silent.to_string())?;
        if !health.converged {
            return Err(format!("hapilot is not converged: {:?} {:?}", health.error, health.stale));
        }
        let Some(status) = self.status().await else { return Err("hapilot does not answer".to_owned()) };
        self.look()?;
        if !honest && !status.health.converged {
            return Err("hapilot found something when it was asked".to_owned());
        }
        let stage = self.shared.stage();
        if !self.engine.is_told() || !stage.is_heard() {
            return Err("not all is told".to_owned());
        }
        if stage.unseen {
            return Err("hapilot has not seen yet what a hand did".to_owned());
        }
        let Some(haproxy) = &stage.haproxy else { return Err("HAProxy does not run".to_owned()) };
        let rigour = if honest { Rigour::Now } else { Rigour::Settled };
        let verdict = verdict::judge(haproxy, &self.engine.facts(), &status, rigour);
        match verdict {
            // Who asks only now may be told of something that happened in between.
            Err(flaw) if honest && status.health.converged => Err(format!("DISHONEST: {flaw}")),
            other => other,
        }
    }

    /// All faults end; within the time that they may cost, all is as it should be.
    async fn settle(&mut self, thoroughly: bool) -> Outcome {
        {
            let mut stage = self.shared.stage();
            stage.fault = None;
            stage.refuses = false;
            stage.slow = None;
        }
        if self.cut_off {
            self.meet_docker().await;
        }
        self.deaf_until = 0;
        self.tell().await;
        self.faulty |= self.shared.stage().is_hung();
        let mut bound = if self.faulty { AFTER_A_FAULT } else { PROMPTLY };
        if self.shared.stage().tampered {
            bound += RESYNC;
        }
        let begin = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            self.pass(pause).await?;
            match self.is_well(false).await {
                Ok(()) => break,
                Err(flaw) if begin.elapsed() > bound => {
                    return Err(format!("after {bound:?} without a fault: {flaw}"));
                }
                Err(_) => pause = (pause * 2).min(Duration::from_secs(2)),
            }
        }
        self.faulty = self.shared.stage().is_hung();
        self.shared.stage().tampered = false;
        self.shared.stage().note("all is well");
        // Who is hung now can't be asked.
        if thoroughly && !self.faulty { self.plan_is_empty().await } else { Ok(()) }
    }

    /// Planning again yields nothing but what tidies up.
    async fn plan_is_empty(&mut self) -> Outcome {
        let Some(hapilot) = &self.hapilot else { return Ok(()) };
        let Ok(plan) = hapilot.admin.plan().await else { return Err("no plan in time".to_owned()) };
        let clearing = ["shutdown sessions ", "del server ", "del backend ", "unpublish backend "];
        let rest = plan.steps.iter().find(|step| {
            let discards = step.command.contains(" addr 127.0.0.1 port 9");
            // What it waited for has come up by itself since its last look.
            let goes = step.command.ends_with(" state drain");
            !discards && !goes && !clearing.iter().any(|begin| step.command.starts_with(begin))
        });
        match rest {
            Some(step) => Err(format!("planned although all is well: {} ({})", step.command, step.reason)),
            None => Ok(()),
        }
    }
}
