//! One history: what happens, step by step, and what is looked at in between.
//!
//! What lives here: the choice of the next event or fault, and how long hapilot
//! may take to get over it. What it must not know: how hapilot does that.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hapilot::admin::AdminHandle;
use hapilot::backoff::Jitter;
use hapilot::controller::{Config, Controller, Inputs};
use hapilot::core::command::Check;
use hapilot::core::container::{Health, RunState};
use hapilot::core::desired::{Desired, HaproxyPlace};
use hapilot::core::name::ClassName;
use hapilot::docker::Change;
use hapilot::haproxy_config::{ConfigPath, ConfigSettings, QUARANTINE, RuntimeSocket};
use hapilot::metrics::Metrics;
use hapilot::reconcile::Rules;
use hapilot::report::Mode;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::engine::{Engine, HOSTS, PLACES, Real};
use crate::farm;
use crate::haproxy_model::Release;
use crate::stage::{Fault, Shared};
use crate::verdict;

/// Backends of the pool: fewer than hosts, so it runs out.
pub const POOL: usize = 4;
/// Between two looks at all of HAProxy's state.
const RESYNC: Duration = Duration::from_secs(10);

/// Without a fault: every command takes no time, and on 3.x an address a moment.
const PROMPTLY: Duration = Duration::from_millis(500);
/// After a fault: a deadline (5 s), the longest pause between connections (2 s)
/// and between attempts at what was refused (30 s), each a good deal longer.
const AFTER_A_FAULT: Duration = Duration::from_secs(60);

/// hapilot's process, from the loop inwards.
struct Hapilot {
    task: JoinHandle<()>,
    changes: mpsc::Sender<Change>,
    admin: AdminHandle,
    resync: Arc<Notify>,
    /// Kept open: in attach mode nothing comes through them.
    _ends: (mpsc::Sender<hapilot::haproxy_process::ProcessNews>, mpsc::Sender<hapilot::haproxy_process::ConfigQuestion>),
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

/// Plays so many steps of the history that a seed makes up.
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
    outcome.map(|()| stage.commands).map_err(|what| Failure { what, story: stage.story() })
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
        self.visits.clear();
        for (backend, server) in self.server_names() {
            self.shared.stage().hand(&format!("shutdown sessions server {backend}/{server}"));
        }
        self.settle(true).await?;
        self.tidy().await
    }

    /// When nobody visits any more, also what waited for its deletion is gone.
    async fn tidy(&mut self) -> Outcome {
        self.pass(QUARANTINE + Duration::from_secs(30)).await?;
        let status = self.status().await.ok_or("hapilot does not answer")?;
        let stage = self.shared.stage();
        let haproxy = stage.haproxy.as_ref().ok_or("HAProxy is gone")?;
        verdict::judge(haproxy, &self.engine.facts(), &status, true).map_err(|flaw| format!("in the end: {flaw}"))
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
            jitter: Jitter::seeded(self.chance.draw()),
            rules: Rules { classes: config.classes.clone(), check: Check::default(), quarantine: QUARANTINE },
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
        let inputs = Inputs { docker, asks, process, configs, resync: resync.clone(), stop };
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
        let Some(hapilot) = self.hapilot.as_ref().filter(|hapilot| !hapilot.task.is_finished()) else { return };
        // First: at the next await it may be heard already.
        self.shared.stage().told(facts);
        // A killed hapilot listens no more.
        let _ = hapilot.changes.send(change).await;
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
        let (over, on): (Vec<_>, Vec<_>) = std::mem::take(&mut self.visits).into_iter().partition(|v| v.until <= now);
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
        let mut stage = self.shared.stage();
        stage.start(self.dir);
        self.restarted_at = None;
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
        let stage = self.shared.stage();
        if !self.engine.is_told() || !stage.is_heard() {
            return Err("not all is told".to_owned());
        }
        if stage.unseen {
            return Err("hapilot has not seen yet what a hand did".to_owned());
        }
        let Some(haproxy) = &stage.haproxy else { return Err("HAProxy does not run".to_owned()) };
        let verdict = verdict::judge(haproxy, &self.engine.facts(), &status, false);
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
                Err(flaw) if begin.elapsed() > bound => return Err(format!("after {bound:?} without a fault: {flaw}")),
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
        let clearing = ["del server ", "del backend ", "unpublish backend "];
        let rest = plan.steps.iter().find(|step| {
            let discards = step.command.contains(" addr 127.0.0.1 port 9");
            !discards && !clearing.iter().any(|begin| step.command.starts_with(begin))
        });
        match rest {
            Some(step) => Err(format!("planned although all is well: {} ({})", step.command, step.reason)),
            None => Ok(()),
        }
    }

    async fn step(&mut self) -> Outcome {
        match self.chance.below(100) {
            0..=54 => self.something_of_docker().await?,
            55..=59 => self.deafness().await?,
            60..=67 => self.visit(),
            68..=76 => self.wire_fault(),
            77..=80 => self.haproxy_fault(),
            81..=83 => self.hapilot_fault(),
            84..=88 => self.hands(),
            89..=92 => {
                let time = Duration::from_millis(self.chance.below(20_000));
                self.shared.stage().note(format_args!("{time:?} pass"));
                self.pass(time).await?;
            }
            _ => self.question().await?,
        }
        self.shared.stage().net.listeners = self.engine.listeners();
        // Often the next event comes before hapilot is done with the last.
        let pause = Duration::from_millis(self.chance.below(12));
        self.pass(pause).await?;
        let quiet = if self.faulty { 4 } else { 2 };
        if self.chance.one_in(quiet) {
            let thoroughly = self.chance.one_in(3);
            self.settle(thoroughly).await?;
        }
        Ok(())
    }

    async fn something_of_docker(&mut self) -> Outcome {
        let now = self.shared.stage().now();
        let events = if self.chance.one_in(5) { 1 + self.chance.below(4) } else { 1 };
        for _ in 0..events {
            let what = self.event(now);
            self.shared.stage().note(what);
            if self.chance.one_in(3) {
                // Each by itself, one after the other.
                self.tell().await;
            }
        }
        self.tell().await;
        Ok(())
    }

    fn place(&mut self) -> usize {
        usize::try_from(self.chance.below(PLACES as u64)).unwrap()
    }

    fn event(&mut self, now: u64) -> String {
        let place = self.place();
        let chance = &mut self.chance;
        let done = |happened: bool, what: &str| {
            if happened { format!("place {place}: {what}") } else { format!("place {place}: nobody to {what}") }
        };
        match chance.below(20) {
            0..=4 => self.engine.start(place, chance, now),
            5..=6 => {
                let happened = self.engine.die(place);
                done(happened, "die")
            }
            7..=8 => {
                let by = usize::try_from(chance.below(PLACES as u64)).unwrap();
                let happened = self.engine.take_over(place, by, chance, now);
                done(happened, &format!("be taken over by {by}"))
            }
            9 => {
                let happened = self.engine.readdress(place, chance);
                done(happened, "be readdressed")
            }
            10..=11 => {
                let happened = self.engine.start_again(place, chance, now);
                done(happened, "start again")
            }
            12 => done(self.engine.change(place, |real| real.container.run = RunState::Paused), "pause"),
            13 => done(self.engine.change(place, |real| real.container.run = RunState::Running), "unpause"),
            14..=16 => {
                let health = *chance.pick(&[None, Some(Health::Starting), Some(Health::Healthy), Some(Health::Unhealthy)]);
                done(self.engine.change(place, |real| real.container.health = health), &format!("be {health:?}"))
            }
            17..=18 => {
                let survives = now + 12_000;
                let stop = |real: &mut Real| {
                    real.container.stopping = true;
                    real.survives_until = Some(survives);
                };
                done(self.engine.change(place, stop), "be told to end")
            }
            _ => {
                let rename = |real: &mut Real| real.container.name = format!("{}x", real.container.name).into();
                done(self.engine.change(place, rename), "be renamed")
            }
        }
    }

    /// Events get lost, Docker goes away, a container can't be read.
    async fn deafness(&mut self) -> Outcome {
        let now = self.shared.stage().now();
        match self.chance.below(4) {
            0 if !self.cut_off => {
                self.shared.stage().note("Docker is gone");
                self.cut_off = true;
                self.send(Change::Disconnected { error: "gone\n".to_owned() }).await;
            }
            1 if self.cut_off => {
                self.shared.stage().note("Docker is back");
                if !self.is_dead() {
                    self.meet_docker().await;
                }
            }
            2 => {
                let place = self.place();
                if !self.cut_off
                    && !self.is_dead()
                    && let Some(change) = self.engine.unreadable(place)
                {
                    self.shared.stage().note(format_args!("place {place} can't be read"));
                    self.send(change).await;
                }
            }
            _ => {
                self.deaf_until = now + self.chance.below(30_000);
                self.shared.stage().note("events get lost");
            }
        }
        Ok(())
    }

    fn visit(&mut self) {
        let host = *self.chance.pick(&HOSTS);
        let (time, turn) = (self.chance.below(20_000), self.chance.draw());
        let mut stage = self.shared.stage();
        let until = stage.now() + time;
        let Some(haproxy) = &mut stage.haproxy else { return };
        let Some(backend) = haproxy.route(host) else { return };
        let takers: Vec<&str> =
            backend.servers.iter().filter(|s| s.takes_traffic()).map(|s| s.name.as_str()).collect();
        if takers.is_empty() {
            return;
        }
        let place = usize::try_from(turn % takers.len() as u64).unwrap();
        let (backend, server) = (backend.name.clone(), takers[place].to_owned());
        if let Some(server) = haproxy.server_mut(&backend, &server) {
            server.sessions += 1;
        }
        stage.note(format_args!("a visitor of {host} is on {backend}/{server} for {time} ms"));
        drop(stage);
        self.visits.push(Visit { backend, server, until });
    }

    fn wire_fault(&mut self) {
        self.faulty = true;
        let after = u32::try_from(self.chance.below(25)).unwrap();
        let bytes = usize::try_from(self.chance.below(30)).unwrap();
        let flag = self.chance.one_in(2);
        let fault = match self.chance.below(9) {
            0..=2 => Fault::Cut(bytes, flag),
            3 => Fault::Garbage,
            4 => Fault::Endless,
            5..=6 => Fault::Hang(self.chance.below(9_000)),
            7 => {
                let mut stage = self.shared.stage();
                stage.refuses = !stage.refuses;
                let refuses = stage.refuses;
                stage.note(format_args!("refuses connections: {refuses}"));
                return;
            }
            _ => {
                let seed = self.chance.draw();
                self.shared.stage().slow = Some(Chance::new(seed));
                self.shared.stage().note("HAProxy is slow");
                return;
            }
        };
        self.shared.stage().fault = Some((after, fault));
    }

    fn haproxy_fault(&mut self) {
        self.faulty = true;
        let mut stage = self.shared.stage();
        if self.chance.one_in(2) {
            let after = u32::try_from(self.chance.below(25)).unwrap();
            stage.fault = Some((after, Fault::Die));
        } else {
            stage.note("HAProxy is killed");
            stage.die();
        }
    }

    fn hapilot_fault(&mut self) {
        self.faulty = true;
        let after = u32::try_from(self.chance.below(25)).unwrap();
        let carried_out = self.chance.one_in(2);
        self.shared.stage().fault = Some((after, Fault::Kill(carried_out)));
    }

    fn server_names(&self) -> Vec<(String, String)> {
        let stage = self.shared.stage();
        let servers = stage.haproxy.iter().flat_map(crate::haproxy_model::Haproxy::servers);
        servers.map(|(backend, server)| (backend.name.clone(), server.name.clone())).collect()
    }

    fn is_checked(&self, backend: &str, server: &str) -> bool {
        let mut stage = self.shared.stage();
        let found = stage.haproxy.as_mut().and_then(|haproxy| haproxy.server_mut(backend, server));
        found.is_some_and(|server| server.is_checked())
    }

    fn hands(&mut self) {
        for _ in 0..=self.chance.below(2) {
            let line = self.hand();
            self.shared.stage().hand(&line);
        }
    }

    fn hand(&mut self) -> String {
        let servers = self.server_names();
        let backends: Vec<String> = {
            let stage = self.shared.stage();
            let all = stage.haproxy.iter().flat_map(|haproxy| &haproxy.backends);
            all.map(|backend| backend.name.clone()).filter(|name| name.starts_with("web:")).collect()
        };
        let chance = &mut self.chance;
        let dir = self.dir.to_str().unwrap();
        let address = format!("127.0.0.{}", 1 + chance.below(13));
        let map = *chance.pick(&["hosts.map", "names.map"]);
        let backend = if backends.is_empty() { "web:none".to_owned() } else { chance.pick(&backends).clone() };
        let (home, server) =
            if servers.is_empty() { (backend.clone(), "none".to_owned()) } else { chance.pick(&servers).clone() };
        // Who makes a server ready sees to its check. (hapilot does not look for servers
        // that a hand made ready before hapilot could enable their check.)
        let checked = self.is_checked(&home, &server);
        let chance = &mut self.chance;
        let state = if checked { *chance.pick(&["ready", "drain", "maint"]) } else { "maint" };
        let key = if map == "hosts.map" { *chance.pick(&HOSTS) } else { backend.as_str() };
        let value = if backends.is_empty() { "web:none" } else { chance.pick(&backends).as_str() };
        match chance.below(12) {
            0..=2 => format!("set server {home}/{server} state {state}"),
            3 => format!("set server {home}/{server} weight {}", chance.below(257)),
            4 => format!("set server {home}/{server} addr {address} port {}", farm::PORT),
            5 => format!("set server {home}/{server} health {}", chance.pick(&["up", "down"])),
            6 => format!("add server {backend}/zz-hand-{} {address}:{}", chance.below(3), farm::PORT),
            7 => format!("add map {dir}/maps/{map} {key} {value}"),
            8 => format!("set map {dir}/maps/{map} {key} {value}"),
            9 => format!("del map {dir}/maps/{map} {key}"),
            10 => format!("del server {home}/{server}"),
            _ => format!("add map {dir}/maps/hosts.map stray.example {value}"),
        }
    }

    /// Somebody asks hapilot: what it says must be true.
    async fn question(&mut self) -> Outcome {
        match self.chance.below(4) {
            0 => {
                if let Some(hapilot) = &self.hapilot {
                    hapilot.resync.notify_one();
                }
            }
            1 => {
                if let Some(hapilot) = &self.hapilot {
                    let _ = hapilot.admin.plan().await;
                }
            }
            _ => {
                if let Err(flaw) = self.is_well(true).await
                    && flaw.starts_with("DISHONEST")
                    && !self.shared.stage().tampered
                {
                    return Err(flaw);
                }
            }
        }
        self.look()
    }
}
