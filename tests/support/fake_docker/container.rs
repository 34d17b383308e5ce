//! One fake container, and the JSON that tells of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A container of the fake engine; made with the builder functions.
#[derive(Debug, Clone)]
pub struct FakeContainer {
    /// Chosen by the engine if it is `None`.
    pub id: Option<String>,
    /// Without the leading `/`.
    pub name: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// All variables, in the order of the process's environment.
    pub env: Vec<(String, String)>,
    /// IPv4 address (or nothing) by network.
    pub networks: BTreeMap<String, String>,
    /// Identifiers of networks, where they are not [`network_id`] of the name.
    pub network_ids: BTreeMap<String, String>,
    /// Published ports: `80/tcp`, the host's address, the host's port.
    pub published: Vec<(String, String, u16)>,
    /// Mounts: the host's path and the container's.
    pub mounts: Vec<(String, String)>,
    /// `80/tcp` and the like.
    pub exposed: Vec<String>,
    /// `starting`, `healthy`, `unhealthy`.
    pub health: Option<String>,
    /// `created`, `running`, `paused`, `restarting`, `exited`, `dead`.
    pub status: String,
    /// `default`, `host`, `none`, `container:<id>`, or a network.
    pub network_mode: String,
    /// Seconds since 1970.
    pub started_at: u64,
    /// Name of the stop signal and seconds until it is killed, where they are said.
    pub stop: Option<(String, i64)>,
}

impl FakeContainer {
    /// One that runs, on no network.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            id: None,
            name: name.into(),
            labels: BTreeMap::new(),
            env: vec![("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into())],
            networks: BTreeMap::new(),
            network_ids: BTreeMap::new(),
            published: Vec::new(),
            mounts: Vec::new(),
            exposed: Vec::new(),
            health: None,
            status: "running".into(),
            network_mode: "default".into(),
            started_at: 1_700_000_000,
            stop: None,
        }
    }

    /// With this identifier instead of one that the engine chooses.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.into());
        self
    }

    /// With a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// With an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// On a network, with an IPv4 address in 127.0.0.0/8 or an empty text.
    pub fn network(mut self, name: &str, ip: &str) -> Self {
        self.networks.insert(name.into(), ip.into());
        self
    }

    /// On a network of a swarm: its identifier is the same on every engine.
    pub fn overlay(mut self, name: &str, id: &str, ip: &str) -> Self {
        self.network_ids.insert(name.into(), id.into());
        self.network(name, ip)
    }

    /// With a TCP port that is published at an address (or `0.0.0.0`) of the host.
    pub fn publish(mut self, port: u16, host: &str, host_port: u16) -> Self {
        self.published.push((format!("{port}/tcp"), host.into(), host_port));
        self
    }

    /// With a directory of the host.
    pub fn mount(mut self, source: &str, destination: &str) -> Self {
        self.mounts.push((source.into(), destination.into()));
        self
    }

    /// With an exposed TCP port.
    pub fn expose(mut self, port: u16) -> Self {
        self.exposed.push(format!("{port}/tcp"));
        self
    }

    /// With a health check that has come to this result.
    pub fn health(mut self, status: &str) -> Self {
        self.health = Some(status.into());
        self
    }

    /// In this state.
    pub fn status(mut self, status: &str) -> Self {
        self.status = status.into();
        self
    }

    /// With this network mode.
    pub fn network_mode(mut self, mode: &str) -> Self {
        self.network_mode = mode.into();
        self
    }

    /// Stopped with this signal; killed so many seconds later.
    pub fn stop(mut self, signal: &str, timeout: i64) -> Self {
        self.stop = Some((signal.into(), timeout));
        self
    }

    /// Running, as Docker's flag has it: a paused container runs, too.
    fn has_process(&self) -> bool {
        matches!(self.status.as_str(), "running" | "paused" | "restarting")
    }

    fn endpoints(&self) -> Value {
        let endpoint = |name: &String, ip: &String| {
            let ip = if self.has_process() { ip.as_str() } else { "" };
            let id = self.network_ids.get(name).cloned().unwrap_or_else(|| network_id(name));
            json!({
                "IPAMConfig": null, "Links": null, "Aliases": null,
                "NetworkID": id,
                "EndpointID": "6c1668113bc25961dd819e62b98efc5cb78e970692acd7ce4e1e6168556567ef",
                "Gateway": "127.0.0.1", "IPAddress": ip, "IPPrefixLen": 16, "IPv6Gateway": "",
                "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "MacAddress": "02:42:ac:11:00:02",
                "DriverOpts": null,
            })
        };
        self.networks
            .iter()
            .map(|(name, ip)| (name.clone(), endpoint(name, ip)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn ports(&self) -> Value {
        let mut ports: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (port, host, host_port) in self.published.iter().filter(|_| self.has_process()) {
            let binding = json!({"HostIp": host, "HostPort": host_port.to_string()});
            ports.entry(port).or_default().push(binding);
        }
        json!(ports)
    }

    /// Its element of a list.
    pub fn listed(&self) -> Value {
        let mut sentence = "Up 3 minutes".to_owned();
        match (self.status.as_str(), self.health.as_deref()) {
            ("paused", _) => sentence.push_str(" (Paused)"),
            ("running", Some("starting")) => sentence.push_str(" (health: starting)"),
            ("running", Some(health)) => sentence = format!("{sentence} ({health})"),
            ("running", None) => {}
            _ => sentence = "Exited (0) 3 minutes ago".into(),
        }
        json!({
            "Id": self.id, "Names": [format!("/{}", self.name)], "Image": "fake:latest",
            "ImageID": "sha256:139ce751f62a093d22cd0d9f932348ff50b87f1b4ac60c8d42fe0da66412a76b",
            "Command": "serve", "Created": self.started_at, "Ports": [], "Labels": self.labels,
            "State": self.status, "Status": sentence, "HostConfig": {"NetworkMode": self.network_mode},
            "NetworkSettings": {"Networks": self.endpoints()}, "Mounts": [],
        })
    }

    /// The answer to its inspect, as large as a real one.
    pub fn inspected(&self) -> Value {
        let mut answer: Value =
            serde_json::from_str(include_str!("../../data/docker/inspect-20.10.json")).unwrap();
        let running = self.has_process();
        answer["Id"] = json!(self.id);
        answer["Name"] = json!(format!("/{}", self.name));
        answer["State"] = json!({
            "Status": self.status, "Running": running, "Paused": self.status == "paused",
            "Restarting": self.status == "restarting", "OOMKilled": false, "Dead": self.status == "dead",
            "Pid": if running { 4711 } else { 0 }, "ExitCode": 0, "Error": "",
            "StartedAt": if self.status == "created" { "0001-01-01T00:00:00Z".into() } else { rfc3339(self.started_at) },
            "FinishedAt": "0001-01-01T00:00:00Z",
        });
        if let Some(health) = &self.health {
            answer["State"]["Health"] = json!({"Status": health, "FailingStreak": 0, "Log": []});
        }
        answer["HostConfig"]["NetworkMode"] = json!(self.network_mode);
        let exposed: serde_json::Map<_, _> =
            self.exposed.iter().map(|port| (port.clone(), json!({}))).collect();
        let env: Vec<String> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        answer["Config"]["ExposedPorts"] = if exposed.is_empty() { Value::Null } else { exposed.into() };
        answer["Config"]["Env"] = json!(env);
        answer["Config"]["Labels"] = json!(self.labels);
        if let Some((signal, timeout)) = &self.stop {
            answer["Config"]["StopSignal"] = json!(signal);
            answer["Config"]["StopTimeout"] = json!(timeout);
        }
        answer["NetworkSettings"]["Networks"] = self.endpoints();
        answer["NetworkSettings"]["Ports"] = self.ports();
        let mount = |(source, destination): &(String, String)| {
            json!({"Type": "bind", "Source": source, "Destination": destination, "Mode": "", "RW": true,
                "Propagation": "rprivate"})
        };
        answer["Mounts"] = self.mounts.iter().map(mount).collect();
        answer
    }
}

/// The identifier of an engine's own network.
pub fn network_id(name: &str) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap();
    let mut text: String = name.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    text.truncate(64);
    format!("{text:0<64}")
}

/// Seconds since 1970 as Docker writes a time.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (1970, days);
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.000000001Z", month + 1, day + 1)
}
