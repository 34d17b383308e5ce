//! The next step of a history.
//!
//! What lives here: the choice among events, faults, hands and questions. What it
//! must not know: what should come of it.

use std::time::Duration;

use hapilot::core::container::{Health, RunState};
use hapilot::docker::Change;

use super::{Outcome, Play, Visit};
use crate::chance::Chance;
use crate::engine::{HOSTS, PLACES, Real};
use crate::farm;
use crate::stage::Fault;

/// Who is called well answers.
fn be(real: &mut Real, health: Option<Health>, now: u64) {
    real.container.health = health;
    if matches!(health, None | Some(Health::Healthy)) {
        real.listens_from = real.listens_from.min(now);
    }
}

impl Play<'_> {
    pub(super) async fn step(&mut self) -> Outcome {
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
            if happened {
                format!("place {place}: {what}")
            } else {
                format!("place {place}: nobody to {what}")
            }
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
                let health = *chance.pick(&[
                    None,
                    Some(Health::Starting),
                    Some(Health::Healthy),
                    Some(Health::Unhealthy),
                ]);
                done(self.engine.change(place, |real| be(real, health, now)), &format!("be {health:?}"))
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
                let rename =
                    |real: &mut Real| real.container.name = format!("{}x", real.container.name).into();
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
        // A websocket may stay for hours.
        let longest = if self.chance.one_in(4) { 10_000_000 } else { 20_000 };
        let (time, turn) = (self.chance.below(longest), self.chance.draw());
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
        match self.chance.below(5) {
            0 => stage.reload(self.dir),
            1..=2 => {
                let after = u32::try_from(self.chance.below(25)).unwrap();
                stage.fault = Some((after, Fault::Die));
            }
            _ => {
                stage.note("HAProxy is killed");
                stage.die();
            }
        }
    }

    fn hapilot_fault(&mut self) {
        self.faulty = true;
        let after = u32::try_from(self.chance.below(25)).unwrap();
        let carried_out = self.chance.one_in(2);
        self.shared.stage().fault = Some((after, Fault::Kill(carried_out)));
    }

    pub(super) fn server_names(&self) -> Vec<(String, String)> {
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
        let backend =
            if backends.is_empty() { "web:none".to_owned() } else { chance.pick(&backends).clone() };
        let (home, server) = if servers.is_empty() {
            (backend.clone(), "none".to_owned())
        } else {
            chance.pick(&servers).clone()
        };
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
