//! Counters, and their text for Prometheus.
//!
//! What lives here: what is counted, and the exposition format. What it must
//! not know: what a number means for anyone, and any text of a container:
//! every label value is from a fixed set in this file.
//!
//! Counting is one relaxed addition: no lock, no allocation. Gauges are not
//! kept here: they come from the controller's [`Health`] at the time of asking,
//! so they can't say that all is well when the controller has stopped.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::core::command::Command;
use crate::report::Health;
use crate::role::Role;

/// An enum whose variants are the values of one label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            const NAMES: [&str; [$($text),+].len()] = [$($text),+];
        }
    };
}

label! {
    /// How a command ended.
    Outcome {
        /// HAProxy answered with the success text of the command's class.
        Done = "done",
        /// A deletion that HAProxy doesn't allow yet; tried again later.
        Deferred = "deferred",
        /// HAProxy answered that it was so already: not as remembered.
        Stale = "stale",
        /// HAProxy answered with something else.
        Refused = "refused",
        /// No whole answer came: deadline, end of the connection.
        Unanswered = "unanswered",
    }
}

label! {
    /// A call to the Docker engine.
    DockerCall {
        /// Of all containers.
        List = "list",
        /// Of one container.
        Inspect = "inspect",
        /// Opening the stream.
        Events = "events",
        /// Anything else: ping, version, networks.
        Other = "other",
    }
}

label! {
    /// Where an error came from.
    ErrorKind {
        /// The Docker engine.
        Docker = "docker",
        /// The connection to HAProxy.
        Haproxy = "haproxy",
        /// A command that HAProxy refused.
        Command = "command",
        /// Writing or checking HAProxy's configuration.
        Configuration = "configuration",
    }
}

/// The values of the label `class`, in the order of [`class`].
const CLASSES: [&str; 16] = [
    "add_backend",
    "publish_backend",
    "unpublish_backend",
    "del_backend",
    "add_server",
    "enable_health",
    "set_server_state",
    "set_server_address",
    "set_server_weight",
    "shutdown_sessions",
    "del_server",
    "add_map",
    "set_map",
    "del_map",
    "del_map_entry",
    "set_server_health",
];

fn class(command: &Command) -> usize {
    match command {
        Command::AddBackend { .. } => 0,
        Command::PublishBackend { .. } => 1,
        Command::UnpublishBackend { .. } => 2,
        Command::DelBackend { .. } => 3,
        Command::AddServer { .. } => 4,
        Command::EnableHealth { .. } => 5,
        Command::SetServerState { .. } => 6,
        Command::SetServerAddress { .. } => 7,
        Command::SetServerWeight { .. } => 8,
        Command::ShutdownSessions { .. } => 9,
        Command::DelServer { .. } => 10,
        Command::AddMap { .. } => 11,
        Command::SetMap { .. } => 12,
        Command::DelMap { .. } => 13,
        Command::DelMapEntry { .. } => 14,
        Command::SetServerHealth { .. } => 15,
    }
}

/// Upper bounds of the histogram in microseconds, and as Prometheus wants them.
const BUCKETS: [(u64, &str); 11] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_000, "0.002"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (20_000, "0.02"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (200_000, "0.2"),
    (500_000, "0.5"),
    (1_000_000, "1"),
];

/// Everything that is counted. Shared by reference; one per process.
#[derive(Debug, Default)]
pub struct Metrics {
    turns: AtomicU64,
    resyncs: AtomicU64,
    commands: [[AtomicU64; Outcome::NAMES.len()]; CLASSES.len()],
    docker_calls: [AtomicU64; DockerCall::NAMES.len()],
    errors: [AtomicU64; ErrorKind::NAMES.len()],
    /// One per bucket, and one for what is slower than all of them.
    event_to_ack: [AtomicU64; BUCKETS.len() + 1],
    event_to_ack_micros: AtomicU64,
}

impl Metrics {
    /// A turn has been taken.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Relaxed);
    }

    /// Everything has been looked at anew without an event.
    pub fn resync(&self) {
        self.resyncs.fetch_add(1, Relaxed);
    }

    /// A command has ended.
    pub fn command(&self, command: &Command, outcome: Outcome) {
        if let Some(counter) = self.commands.get(class(command)).and_then(|c| c.get(outcome as usize)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// The engine has been called.
    pub fn docker_call(&self, call: DockerCall) {
        self.docker_calls[call as usize].fetch_add(1, Relaxed);
    }

    /// Something went wrong.
    pub fn error(&self, kind: ErrorKind) {
        self.errors[kind as usize].fetch_add(1, Relaxed);
    }

    /// From an event's arrival to HAProxy's acknowledgement of the last command
    /// that it led to.
    pub fn event_to_ack(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|&(bound, _)| bound < micros);
        self.event_to_ack[bucket].fetch_add(1, Relaxed);
        self.event_to_ack_micros.fetch_add(micros, Relaxed);
    }

    /// The text for Prometheus, format 0.0.4. `health` is `None` if the
    /// controller does not answer: then nothing is said to be well.
    #[must_use]
    pub fn render(&self, health: Option<&Health>) -> String {
        let mut out = String::with_capacity(8 * 1024);
        // Writing to a String can't fail.
        let _ = self.write(&mut out, health);
        out
    }

    fn write(&self, out: &mut String, health: Option<&Health>) -> fmt::Result {
        gauges(out, health)?;
        head(out, "turns_total", "counter", "Comparisons of what is with what should be.")?;
        writeln!(out, "hapilot_turns_total {}", self.turns.load(Relaxed))?;
        head(out, "resyncs_total", "counter", "Full looks without an event.")?;
        writeln!(out, "hapilot_resyncs_total {}", self.resyncs.load(Relaxed))?;

        head(out, "commands_total", "counter", "Runtime API commands by class and outcome.")?;
        for (class, outcomes) in CLASSES.iter().zip(&self.commands) {
            for (outcome, counter) in Outcome::NAMES.iter().zip(outcomes) {
                let value = counter.load(Relaxed);
                writeln!(out, "hapilot_commands_total{{class=\"{class}\",outcome=\"{outcome}\"}} {value}")?;
            }
        }
        labelled(
            out,
            "docker_calls_total",
            "Calls to the Docker engine.",
            &DockerCall::NAMES,
            &self.docker_calls,
        )?;
        labelled(out, "errors_total", "Errors by where they came from.", &ErrorKind::NAMES, &self.errors)?;
        self.histogram(out)
    }

    fn histogram(&self, out: &mut String) -> fmt::Result {
        let name = "event_to_ack_seconds";
        head(out, name, "histogram", "From an event's arrival to HAProxy's acknowledgement.")?;
        let mut sum = 0;
        let bounds = BUCKETS.iter().map(|&(_, text)| text).chain(["+Inf"]);
        for (bound, counter) in bounds.zip(&self.event_to_ack) {
            sum += counter.load(Relaxed);
            writeln!(out, "hapilot_{name}_bucket{{le=\"{bound}\"}} {sum}")?;
        }
        let micros = self.event_to_ack_micros.load(Relaxed);
        writeln!(out, "hapilot_{name}_sum {}.{:06}", micros / 1_000_000, micros % 1_000_000)?;
        writeln!(out, "hapilot_{name}_count {sum}")
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP hapilot_{name} {help}\n# TYPE hapilot_{name} {kind}")
}

fn labelled(out: &mut String, name: &str, help: &str, kinds: &[&str], counters: &[AtomicU64]) -> fmt::Result {
    head(out, name, "counter", help)?;
    for (kind, counter) in kinds.iter().zip(counters) {
        writeln!(out, "hapilot_{name}{{kind=\"{kind}\"}} {}", counter.load(Relaxed))?;
    }
    Ok(())
}

fn gauges(out: &mut String, health: Option<&Health>) -> fmt::Result {
    head(out, "build_info", "gauge", "Always 1; the version is its label.")?;
    writeln!(out, "hapilot_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))?;
    let health = health.cloned().map(Health::sealed);
    let is = |test: fn(&Health) -> bool| usize::from(health.as_ref().is_some_and(test));
    let flags = [
        ("controller_answers", "1 if the controller answers; else the gauges below are 0.", is(|_| true)),
        ("converged", "1 if HAProxy has what the containers ask for.", is(|h| h.converged)),
        ("docker_connected", "1 if the Docker engine answers.", is(|h| h.docker.connected)),
        ("haproxy_connected", "1 if HAProxy answers.", is(|h| h.haproxy.connected)),
    ];
    for (name, help, value) in flags {
        head(out, name, "gauge", help)?;
        writeln!(out, "hapilot_{name} {value}")?;
    }
    // A count that isn't known is left out, which Prometheus shows as a gap.
    let Some(health) = health else { return Ok(()) };
    let counts = [
        ("hosts", "Hosts that lead to a backend.", health.counts.hosts),
        ("servers", "Servers behind these hosts.", health.counts.servers),
        ("rejected", "Claims that can't be served.", health.counts.rejected),
        ("blocked", "Changes that can't be made at present.", health.counts.blocked),
    ];
    for (name, help, value) in counts {
        head(out, name, "gauge", help)?;
        writeln!(out, "hapilot_{name} {value}")?;
    }
    // Without keepalived there is no role.
    let Some(told) = health.role else { return Ok(()) };
    head(out, "role", "gauge", "1 for the role in a pair that keepalived told last.")?;
    for role in Role::ALL {
        writeln!(out, "hapilot_role{{role=\"{role}\"}} {}", usize::from(role == told.role))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::command::{Check, ServerRef};
    use crate::core::name::{BackendName, ClassName, MapWord, ServerName};
    use crate::core::state::{Admin, Map};
    use crate::report::{Counts, Docker, Hapilot, Haproxy, Mode};

    fn value<'a>(text: &'a str, series: &str) -> Option<&'a str> {
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
    }

    fn health() -> Health {
        Health {
            converged: true,
            since: None,
            as_of: Some(1),
            as_of_age_seconds: Some(0),
            stale: vec![],
            hapilot: Hapilot { version: String::new(), pid: 1, uptime_seconds: 1, mode: Mode::Attach },
            docker: Docker { connected: true, ..Docker::default() },
            haproxy: Haproxy { connected: true, ..Haproxy::default() },
            counts: Counts { hosts: 4, servers: 7, rejected: 2, blocked: 1 },
            error: None,
            role: None,
        }
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        metrics.turn();
        metrics.turn();
        metrics.resync();
        metrics.docker_call(DockerCall::Inspect);
        metrics.error(ErrorKind::Configuration);
        let key = MapWord::new("a.example").unwrap();
        metrics.command(&Command::DelMap { map: Map::Hosts, key }, Outcome::Refused);
        let text = metrics.render(Some(&health()));
        for (series, expected) in [
            ("hapilot_turns_total", "2"),
            ("hapilot_resyncs_total", "1"),
            ("hapilot_docker_calls_total{kind=\"inspect\"}", "1"),
            ("hapilot_docker_calls_total{kind=\"list\"}", "0"),
            ("hapilot_errors_total{kind=\"configuration\"}", "1"),
            ("hapilot_commands_total{class=\"del_map\",outcome=\"refused\"}", "1"),
            ("hapilot_commands_total{class=\"del_map_entry\",outcome=\"refused\"}", "0"),
            ("hapilot_converged", "1"),
            ("hapilot_servers", "7"),
        ] {
            assert_eq!(value(&text, series), Some(expected), "{series}");
        }
    }

    #[test]
    fn every_class_has_its_own_place() {
        let backend = BackendName::new("b").unwrap();
        let server = ServerRef { backend: backend.clone(), server: ServerName::new("s").unwrap() };
        let address = "127.0.0.1:80".parse().unwrap();
        let word = MapWord::new("w").unwrap();
        let map = Map::Hosts;
        let second = server.clone();
        let commands = [
            Command::AddBackend { backend: backend.clone(), class: ClassName::web() },
            Command::PublishBackend { backend: backend.clone() },
            Command::UnpublishBackend { backend: backend.clone() },
            Command::DelBackend { backend },
            Command::AddServer {
                server: server.clone(),
                address,
                weight: 1,
                check: Check::default(),
                slow_start_ms: None,
                pool_keywords: false,
            },
            Command::EnableHealth { server: server.clone() },
            Command::SetServerState { server: server.clone(), admin: Admin::Ready },
            Command::SetServerAddress { server: server.clone(), address },
            Command::SetServerWeight { server: server.clone(), weight: 1 },
            Command::ShutdownSessions { server: server.clone() },
            Command::DelServer { server },
            Command::AddMap { map, key: word.clone(), value: word.clone() },
            Command::SetMap { map, key: word.clone(), value: word.clone() },
            Command::DelMap { map, key: word },
            Command::DelMapEntry { map, reference: 1 },
            Command::SetServerHealth { server: second, up: true },
        ];
        assert_eq!(commands.len(), CLASSES.len());
        // The variant's own tag in JSON is the label: the two lists can't drift.
        for command in commands {
            let json = serde_json::to_value(&command).unwrap();
            assert_eq!(json["command"], CLASSES[class(&command)]);
        }
    }

    #[test]
    fn the_histogram_is_cumulative_and_bounds_belong_to_their_bucket() {
        let metrics = Metrics::default();
        for micros in [1, 500, 501, 1_000_000, 1_000_001] {
            metrics.event_to_ack(Duration::from_micros(micros));
        }
        let text = metrics.render(None);
        for (bound, expected) in [("0.0005", "2"), ("0.001", "3"), ("0.5", "3"), ("1", "4"), ("+Inf", "5")] {
            let series = format!("hapilot_event_to_ack_seconds_bucket{{le=\"{bound}\"}}");
            assert_eq!(value(&text, &series), Some(expected), "{bound}");
        }
        assert_eq!(value(&text, "hapilot_event_to_ack_seconds_sum"), Some("2.001003"));
        assert_eq!(value(&text, "hapilot_event_to_ack_seconds_count"), Some("5"));
    }

    #[test]
    fn a_silent_controller_is_not_well() {
        let text = Metrics::default().render(None);
        assert_eq!(value(&text, "hapilot_converged"), Some("0"));
        assert_eq!(value(&text, "hapilot_controller_answers"), Some("0"));
        assert_eq!(value(&text, "hapilot_hosts"), None);
        let mut cut_off = health();
        cut_off.docker.connected = false;
        let text = Metrics::default().render(Some(&cut_off));
        assert_eq!(value(&text, "hapilot_converged"), Some("0"));
    }

    #[test]
    fn every_series_is_described_once() {
        let text = Metrics::default().render(Some(&health()));
        let mut described = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(described.insert(rest.split(' ').next().unwrap()), "{line}");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let base =
                    ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
                assert!(described.contains(base), "{line}");
            }
        }
    }
}
