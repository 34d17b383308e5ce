//! Reports as text for people: aligned, one thing per line.
//!
//! What lives here: layout. What it must not know: where a report comes from;
//! so it escapes every text in it.

use std::fmt::{self, Display, Formatter, Write as _};

use super::{Docker, Haproxy, Health, Note, PlanReport, ServerState, Status, Verdict};
use crate::logging::needs_escape;

/// A text without the power to break a line or steer a terminal.
struct Printable<'a>(&'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if needs_escape(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// What a check saw, by HAProxy's name for it, where a person can do something about it.
fn in_words(check: &str) -> Option<&'static str> {
    Some(match check {
        "L4CON" => "can't connect",
        "L4TOUT" => "no connection in time",
        "L7TOUT" => "no answer in time",
        "L7RSP" => "no HTTP",
        "L7STS" => "wrong status",
        _ => return None,
    })
}

/// Seconds in the largest unit that fits: `59s`, `3m`, `26h`, `2d`.
struct Age(u64);

impl Display for Age {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ 0..60 => write!(f, "{seconds}s"),
            seconds @ 60..3_600 => write!(f, "{}m", seconds / 60),
            seconds @ 3_600..172_800 => write!(f, "{}h", seconds / 3_600),
            seconds => write!(f, "{}d", seconds / 86_400),
        }
    }
}

fn count(f: &mut Formatter<'_>, number: usize, one: &str, many: &str) -> fmt::Result {
    write!(f, "{number} {}", if number == 1 { one } else { many })
}

impl Display for ServerState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Drain => "drain",
            Self::Maint => "maint",
        })
    }
}

impl Display for Haproxy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("HAProxy")?;
        if let Some(version) = &self.version {
            write!(f, " {}", Printable(version))?;
        }
        if !self.connected {
            return f.write_str(" does not answer");
        }
        if let Some(pid) = self.pid {
            write!(f, " pid {pid}")?;
        }
        if let Some(uptime) = self.uptime_seconds {
            write!(f, " up {}", Age(uptime))?;
        }
        Ok(())
    }
}

impl Display for Docker {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Docker")?;
        if let Some(version) = &self.engine_version {
            write!(f, " {}", Printable(version))?;
        }
        f.write_str(if self.connected { " connected" } else { " does not answer" })
    }
}

/// One line.
impl Display for Health {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.converged, self.stale.is_empty()) {
            (true, true) => "converged",
            (_, false) => "STALE",
            (false, true) => "NOT CONVERGED",
        })?;
        if let Some(told) = self.role {
            write!(f, " · {}", told.role)?;
        }
        write!(f, " · {} · ", self.haproxy)?;
        count(f, self.counts.hosts, "host", "hosts")?;
        f.write_str(", ")?;
        count(f, self.counts.servers, "server", "servers")?;
        for (number, word) in [(self.counts.rejected, "rejected"), (self.counts.blocked, "blocked")] {
            if number > 0 {
                write!(f, ", {number} {word}")?;
            }
        }
        write!(f, " · {}", self.docker)
    }
}

/// One line, for `check`.
impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => writeln!(f, "well"),
            // The reason itself says that HAProxy does not answer.
            Self::HaproxySilent(reason) => writeln!(f, "{}", Printable(reason)),
            Self::Stale(reason) => writeln!(f, "stale: {}", Printable(reason)),
            Self::NotConverged(reason) => writeln!(f, "not converged: {}", Printable(reason)),
        }
    }
}

impl Health {
    /// What `hapilot check` says: one line. Hosts that are blocked make it no less
    /// well (see [`Health::converged`]), but are not passed over in silence.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        match (self.verdict(), self.counts.blocked) {
            (Verdict::Well, blocked @ 1..) => format!("well, but {blocked} blocked, see `hapilot status`\n"),
            (verdict, _) => verdict.to_string(),
        }
    }
}

/// Doubts and errors, one per line; nothing if there are none.
fn doubts(f: &mut Formatter<'_>, stale: &[String], error: Option<&str>) -> fmt::Result {
    for reason in stale {
        writeln!(f, "  stale: {}", Printable(reason))?;
    }
    if let Some(error) = error {
        writeln!(f, "  last error: {}", Printable(error))?;
    }
    Ok(())
}

fn notes(f: &mut Formatter<'_>, title: &str, notes: &[Note]) -> fmt::Result {
    if notes.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    for note in notes {
        writeln!(f, "  {}: {}", Printable(&note.what), Printable(&note.reason))?;
    }
    Ok(())
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.health)?;
        if let Some(place) = &self.health.haproxy.place {
            writeln!(f, "  {}", Printable(place))?;
        }
        if !self.health.stale.is_empty()
            && let Some(age) = self.health.as_of_age_seconds
        {
            writeln!(f, "  what follows was seen {} ago", Age(age))?;
        }
        doubts(f, &self.health.stale, self.health.error.as_deref())?;
        self.engines(f)?;
        self.hosts(f)?;
        if !self.rejected.is_empty() {
            writeln!(f, "\nRejected")?;
            for r in &self.rejected {
                let (container, key, reason) =
                    (Printable(&r.container), Printable(&r.key), Printable(&r.reason));
                writeln!(f, "  {container}  {key}: {reason}")?;
            }
        }
        notes(f, "Blocked", &self.blocked)?;
        notes(f, "Waiting", &self.waiting)
    }
}

impl Status {
    /// Several engines, each on its line.
    fn engines(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.engines.len() < 2 {
            return Ok(());
        }
        writeln!(f, "\nEngines")?;
        let width = self.engines.iter().map(|engine| engine.name.chars().count()).max().unwrap_or_default();
        for engine in &self.engines {
            let state = match (engine.connected, engine.listed) {
                (true, true) => "connected",
                (true, false) => "connected, has not listed its containers yet",
                (false, _) => "does not answer",
            };
            write!(f, "  {:width$}  {}  ", engine.name, Printable(&engine.url))?;
            count(f, engine.containers, "container", "containers")?;
            write!(f, "  {state}")?;
            if let Some(error) = &engine.error {
                write!(f, ": {}", Printable(error))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn hosts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let row = |server: &super::ServerStatus| {
            let state = match (&server.check, server.state) {
                // The check matters only where it keeps traffic away.
                (Some(check), ServerState::Down) => match in_words(check) {
                    Some(words) => format!("down ({}: {words})", Printable(check)),
                    None => format!("down ({})", Printable(check)),
                },
                (_, state) => state.to_string(),
            };
            [
                Printable(&server.name).to_string(),
                server.address.to_string(),
                state,
                Printable(server.container.as_deref().unwrap_or("(no container)")).to_string(),
                server.age_seconds.map(|age| Age(age).to_string()).unwrap_or_default(),
            ]
        };
        let hosts: Vec<_> =
            self.hosts.iter().map(|host| (host, host.servers.iter().map(row).collect::<Vec<_>>())).collect();
        let mut widths = [0; 5];
        for cells in hosts.iter().flat_map(|(_, rows)| rows) {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for (host, rows) in hosts {
            writeln!(f, "\n{} → {}", Printable(&host.host), Printable(&host.backend))?;
            if rows.is_empty() {
                writeln!(f, "  (no server)")?;
            }
            for cells in rows {
                let line = cells.iter().zip(widths).fold(String::new(), |mut line, (cell, width)| {
                    // Writing to a String can't fail.
                    let _ = write!(line, "  {cell:width$}");
                    line
                });
                writeln!(f, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }
}

impl Display for PlanReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.steps.len() {
            0 if self.stale.is_empty() => writeln!(f, "nothing to send")?,
            0 => writeln!(f, "nothing that could be sent now")?,
            number => {
                count(f, number, "command", "commands")?;
                writeln!(f, " to send")?;
            }
        }
        doubts(f, &self.stale, None)?;
        if !self.steps.is_empty() {
            writeln!(f)?;
        }
        for step in &self.steps {
            writeln!(f, "  {}", Printable(&step.command))?;
            writeln!(f, "      {}", Printable(&step.reason))?;
        }
        notes(f, "Blocked", &self.blocked)?;
        notes(f, "Waiting", &self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let shown: Vec<String> =
            [0, 59, 60, 3_599, 3_600, 172_799, 172_800].map(|age| Age(age).to_string()).into();
        assert_eq!(shown, ["0s", "59s", "1m", "59m", "1h", "47h", "2d"]);
    }
}
