//! One server of the model: its states, its check, its connections.
//!
//! What lives here: `srv_update_status`, `set_server_check_status` and
//! `srv_getinter` of HAProxy's sources, as far as they show. What it must not
//! know: the text of commands.

use std::net::SocketAddr;

use super::{Network, Release};

/// `srv_admin_state`.
pub const FORCED_MAINT: u32 = 0x01;
/// The configuration had it disabled.
pub const CONFIGURED_MAINT: u32 = 0x04;
pub const FORCED_DRAIN: u32 = 0x08;

/// `srv_check_state`.
const CONFIGURED: u32 = 0x02;
const ENABLED: u32 = 0x04;
const PAUSED: u32 = 0x08;

/// `srv_check_status`.
const INI: u32 = 1;
const L4OK: u32 = 6;
const L4CON: u32 = 8;

/// HAProxy's own check of a server; times in milliseconds.
#[derive(Clone, Debug)]
pub struct Check {
    pub inter: u64,
    pub fastinter: Option<u64>,
    pub downinter: Option<u64>,
    pub rise: u32,
    pub fall: u32,
    pub(super) status: u32,
    pub(super) result: u32,
    pub(super) health: u32,
    pub(super) next: u64,
}

impl Check {
    pub fn new() -> Self {
        Self {
            inter: 2_000,
            fastinter: None,
            downinter: None,
            rise: 2,
            fall: 3,
            status: INI,
            result: 0,
            health: 0,
            next: 0,
        }
    }

    fn best(&self) -> u32 {
        self.rise + self.fall - 1
    }
}

#[derive(Clone, Debug)]
pub struct Server {
    pub id: u32,
    pub name: String,
    pub address: SocketAddr,
    /// `srv_admin_state`.
    pub admin: u32,
    /// `srv_op_state`: 0 stopped, 2 running.
    pub operational: u32,
    pub weight: u32,
    pub initial_weight: u32,
    /// When its state changed last.
    pub changed: u64,
    pub check: Option<Check>,
    /// `srv_check_state`.
    pub check_state: u32,
    /// Requests and upgraded connections on it now.
    pub sessions: u32,
    /// Connections that are kept for later ones; on 2.6 they forbid a deletion.
    pub idle: u32,
    pub release: Release,
}

impl Server {
    /// What `check` among its keywords makes of it.
    pub(super) fn checked_by(&mut self, check: Check) {
        self.check = Some(check);
        self.check_state |= CONFIGURED;
    }

    /// As `add server` makes it.
    pub fn new(release: Release, id: u32, name: &str, address: SocketAddr, now: u64) -> Self {
        Self {
            id,
            name: name.to_owned(),
            address,
            admin: FORCED_MAINT,
            operational: 0,
            weight: 1,
            initial_weight: 1,
            changed: now,
            check: None,
            check_state: 0,
            sessions: 0,
            idle: 0,
            release,
        }
    }

    pub fn is_maint(&self) -> bool {
        self.admin & FORCED_MAINT != 0
    }

    pub fn is_drain(&self) -> bool {
        !self.is_maint() && self.admin & FORCED_DRAIN != 0
    }

    /// It is given new visitors.
    pub fn takes_traffic(&self) -> bool {
        self.admin & (FORCED_MAINT | FORCED_DRAIN) == 0 && self.operational != 0 && self.weight > 0
    }

    pub fn is_checked(&self) -> bool {
        self.check_state & ENABLED != 0
    }

    /// `enable health`; false without a check.
    pub(super) fn enable_health(&mut self) -> bool {
        if self.check.is_some() {
            self.check_state |= ENABLED;
        }
        self.check.is_some()
    }

    /// As a start with `check` in the configuration leaves it.
    pub(super) fn configured(&mut self, disabled: bool, now: u64) {
        self.enable_health();
        self.leave_maint(now);
        if disabled {
            self.set_state("maint", now);
            self.admin |= CONFIGURED_MAINT;
            self.check_state |= PAUSED;
        }
    }

    /// `set server … state`; false for a word that is none.
    pub(super) fn set_state(&mut self, state: &str, now: u64) -> bool {
        match state {
            "ready" => {
                self.admin &= !FORCED_DRAIN;
                self.leave_maint(now);
            }
            "drain" => {
                if !self.is_maint() && self.admin & FORCED_DRAIN == 0 && self.release == Release::V2_6 {
                    self.changed = now;
                }
                self.admin |= FORCED_DRAIN;
                self.leave_maint(now);
            }
            "maint" => {
                self.admin &= !FORCED_DRAIN;
                self.enter_maint(now);
            }
            _ => return false,
        }
        true
    }

    fn enter_maint(&mut self, now: u64) {
        if self.is_maint() {
            return;
        }
        self.admin |= FORCED_MAINT;
        self.operational = 0;
        self.changed = now;
        if self.release != Release::V2_6 {
            self.idle = 0;
        }
        if self.is_checked() {
            self.check_state |= PAUSED;
        }
        if let Some(check) = &mut self.check {
            check.health = 0;
        }
    }

    fn leave_maint(&mut self, now: u64) {
        if !self.is_maint() {
            return;
        }
        self.admin &= !FORCED_MAINT;
        self.operational = 2;
        self.changed = now;
        if self.check_state & ENABLED != 0
            && let Some(check) = &mut self.check
        {
            self.check_state &= !PAUSED;
            // It may serve at once; the first failed check takes it out.
            check.health = check.rise;
        }
    }

    /// `set server … health`; false for a word that is none.
    pub(super) fn set_health(&mut self, health: &str, now: u64) -> bool {
        let up = match health {
            "up" => true,
            "down" => false,
            _ => return false,
        };
        if let Some(check) = &mut self.check {
            check.health = if up { check.best() } else { 0 };
        }
        self.turn(up, now);
        true
    }

    fn turn(&mut self, up: bool, now: u64) {
        let operational = if up { 2 } else { 0 };
        if !self.is_maint() && self.operational != operational {
            self.operational = operational;
            self.changed = now;
        }
    }

    pub(super) fn set_address(&mut self, address: SocketAddr) {
        if self.address != address {
            self.address = address;
            self.idle = 0;
        }
    }

    /// When its check is due.
    pub(super) fn next_check(&self) -> Option<u64> {
        self.check.as_ref().map(|check| check.next)
    }

    /// Makes the check if it is due.
    pub(super) fn check(&mut self, now: u64, network: &impl Network) {
        let (address, stopped) = (self.address, self.operational == 0);
        let runs = self.check_state & (ENABLED | PAUSED) == ENABLED;
        let Some(check) = &mut self.check else { return };
        if check.next > now {
            return;
        }
        let mut verdict = None;
        if runs {
            let passed = network.listens(address);
            if passed {
                (check.status, check.result) = (L4OK, 3);
                if check.health < check.best() {
                    check.health += 1;
                    if check.health >= check.rise {
                        check.health = check.best();
                    }
                }
            } else {
                (check.status, check.result) = (L4CON, 2);
                if check.health >= check.rise {
                    check.health -= 1;
                    if check.health < check.rise {
                        check.health = 0;
                    }
                } else {
                    check.health = 0;
                }
            }
            verdict = Some(check.health >= check.rise);
        }
        let stopped = verdict.map_or(stopped, |up| !up);
        let pause = if check.health == check.best() {
            check.inter
        } else if stopped && check.health == 0 {
            check.downinter.unwrap_or(check.inter)
        } else {
            check.fastinter.unwrap_or(check.inter)
        };
        check.next = now + pause.max(1);
        if let Some(up) = verdict {
            self.turn(up, now);
        }
    }
}
