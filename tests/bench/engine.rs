//! How long after a container's start a visitor reaches it, with the machine's
//! Docker engine and real `HAProxy`.
//!
//! What lives here: the clock starts when the engine's start call returns and
//! stops at the first 200 through `HAProxy`. Beside it stand the container alone
//! (asked at its own address) and the cheapest possible reload: one list, one
//! small file, `haproxy -sf`.
//!
//! `cargo bench --bench engine [VERSION…]`; needs root, `make setup`'s images
//! and `HAProxy` versions. Not run by `cargo test`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark")]
#![allow(clippy::print_stdout, reason = "its result")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

#[path = "../support/engine.rs"]
mod engine;
#[path = "../support/engine_api.rs"]
mod engine_api;

use engine_api::{ENGINE, address, call, inspect, remove, start};

use engine::{SAMPLE, Share, eventually, free_port, get, haproxy_pid, kill, not_served, served};

/// Containers measured in each case.
const SAMPLES: usize = 30;
/// A container that isn't reached by then makes the benchmark fail.
const LIMIT: Duration = Duration::from_secs(20);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let chosen: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let versions = if chosen.is_empty() { vec!["3.0", "3.4"] } else { chosen };

    let bench = Bench { share: Share::new("bench"), events: Events::listen() };
    println!(
        "From the return of the engine's start call to the first 200, {SAMPLES} containers each, in ms."
    );
    println!("event: the engine's start event has arrived; news: hapilot has inspected the container;");
    println!("ack: HAProxy has acknowledged hapilot's last command for it.");
    println!("All from the same return; below zero is before it. (n): so many have it.\n");
    println!(
        "{:<32} {:>7} {:>7} {:>7}   {:>12} {:>12} {:>12}",
        "", "p50", "p95", "max", "event", "news", "ack"
    );
    bench.alone().print("the container alone");
    for version in versions {
        let hapilot = Hapilot::start(version, &bench.share);
        for (case, name) in [
            (Case::Host, "new host"),
            (Case::Replica, "added replica"),
            (Case::Busy, "new host, another starts"),
        ] {
            bench.through(hapilot.http, case, Some(&hapilot)).print(&format!("{version}, {name}"));
        }
    }
    let reload = Reload::start(&bench.share);
    bench.through(reload.http, Case::Host, None).print("reload, new host");
}

/// What happens in a sample.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    /// A container with a host of its own starts.
    Host,
    /// One more container for a host starts.
    Replica,
    /// As `Host`, just after the start of another.
    Busy,
}

struct Bench {
    share: Share,
    events: Events,
}

impl Bench {
    fn create(&self, name: &str, host: &str) -> String {
        let name = self.share.named(name);
        let (mark, share) =
            self.share.mark().split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
        let body = json!({
            "Image": SAMPLE,
            "Env": [format!("VIRTUAL_HOST={host}"), "VIRTUAL_PORT=8000"],
            "Labels": { mark: share },
        });
        engine_api::create(&name, &body)
    }

    /// Without anything between.
    fn alone(&self) -> Times {
        let mut times = Times::default();
        for _ in 0..SAMPLES {
            let id = self.create("alone", "alone.example");
            let returned = start(&id);
            let address = address(&inspect(&id));
            let first = first_200(address, "alone.example", "", returned);
            times.first.push(first);
            times.event.extend(self.events.arrival(&id, returned));
            remove(&id);
        }
        times
    }

    fn through(&self, http: SocketAddr, case: Case, hapilot: Option<&Hapilot>) -> Times {
        let mut times = Times::default();
        let base = self.create("base", "replica.example");
        if case == Case::Replica {
            start(&base);
            served(http, "replica.example");
        }
        for index in 0..SAMPLES {
            let host = match case {
                Case::Replica => "replica.example".to_owned(),
                Case::Host | Case::Busy => format!("h{index}.example"),
            };
            let id = self.create("sample", &host);
            let other = self.create("other", "other.example");
            if case == Case::Busy {
                start(&other);
            }
            let (returned, at) = (start(&id), micros_of_day());
            let wanted = if case == Case::Replica { &id[..12] } else { "" };
            times.first.push(first_200(http, &host, wanted, returned));
            times.event.extend(self.events.arrival(&id, returned));
            if let Some(hapilot) = hapilot {
                let (news, ack) = hapilot.log_of(&id);
                times.news.extend(news.map(|then| since(at, then)));
                times.ack.extend(ack.map(|then| since(at, then)));
            }
            remove(&id);
            remove(&other);
            if case == Case::Replica {
                eventually("only the first replica answers", || {
                    let answers = [(); 2].map(|()| get(http, &host, "/").map(|answer| answer.backend));
                    let gone = answers.iter().flatten().all(|backend| *backend == base[..12]);
                    gone.then_some(()).ok_or_else(|| format!("{answers:?}"))
                });
            } else if hapilot.is_some() {
                not_served(http, &host);
            }
        }
        remove(&base);
        times
    }
}

/// Milliseconds after the return of the start call; `event` may be before it.
#[derive(Default)]
struct Times {
    first: Vec<f64>,
    event: Vec<f64>,
    news: Vec<f64>,
    ack: Vec<f64>,
}

impl Times {
    fn print(mut self, name: &str) {
        self.first.sort_by(f64::total_cmp);
        let middle = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            if times.is_empty() { "-".to_owned() } else { format!("{:.1} ({})", of(times, 50), times.len()) }
        };
        println!(
            "{name:<32} {:>7.1} {:>7.1} {:>7.1}   {:>12} {:>12} {:>12}",
            of(&self.first, 50),
            of(&self.first, 95),
            of(&self.first, 100),
            middle(&mut self.event),
            middle(&mut self.news),
            middle(&mut self.ack),
        );
    }
}

/// A percentile of sorted values, the nearest rank.
fn of(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)]
}

/// Asks as fast as it can; milliseconds until a 200 (of a certain container).
fn first_200(address: SocketAddr, host: &str, wanted: &str, since: Instant) -> f64 {
    loop {
        let answer = get(address, host, "/");
        let passed = since.elapsed();
        if answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.backend.starts_with(wanted)) {
            return passed.as_secs_f64() * 1e3;
        }
        assert!(passed < LIMIT, "{host} is not reached: {answer:?}");
    }
}

// ---- the engine ----

/// When the start event of each container arrived.
struct Events(Arc<Mutex<HashMap<String, Instant>>>);

impl Events {
    fn listen() -> Self {
        let arrivals = Arc::new(Mutex::new(HashMap::new()));
        let taken = Arc::clone(&arrivals);
        let stream = start_events();
        std::thread::spawn(move || {
            for id in stream {
                taken.lock().unwrap().insert(id, Instant::now());
            }
        });
        Self(arrivals)
    }

    /// In milliseconds after an instant, or before it.
    fn arrival(&self, id: &str, returned: Instant) -> Option<f64> {
        let arrived = *self.0.lock().unwrap().get(id)?;
        let after = arrived.saturating_duration_since(returned).as_secs_f64();
        let before = returned.saturating_duration_since(arrived).as_secs_f64();
        Some((after - before) * 1e3)
    }
}

/// Identifiers of containers as they start.
fn start_events() -> impl Iterator<Item = String> {
    let filters = "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%5D%7D";
    let mut stream = UnixStream::connect(ENGINE).unwrap();
    let request = format!("GET /events?filters={filters} HTTP/1.0\r\nHost: docker\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter_map(|line| {
        let event: Value = serde_json::from_str(&line).ok()?;
        event["id"].as_str().map(str::to_owned)
    })
}

// ---- hapilot ----

/// hapilot on the host with an `HAProxy` as its child.
struct Hapilot {
    dir: PathBuf,
    http: SocketAddr,
    process: Child,
}

impl Hapilot {
    fn start(version: &str, share: &Share) -> Self {
        let dir = directory(share);
        let http: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let process = Command::new(env!("CARGO_BIN_EXE_hapilot"))
            .args(["run", "--log-format", "json", "--log-level", "info,hapilot::controller=debug"])
            .args(["--http", &http.to_string(), "--dir"])
            .arg(&dir)
            .arg("--haproxy")
            .arg(engine::haproxy(version))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("log")).unwrap())
            .spawn();
        let hapilot = Self { dir, http, process: process.unwrap() };
        eventually("hapilot is converged", || {
            let mut check = Command::new(env!("CARGO_BIN_EXE_hapilot"));
            let output = check.arg("check").arg("--dir").arg(&hapilot.dir).output().unwrap();
            engine::said(&output)
        });
        hapilot
    }

    /// When it first had news of a container, and when the last command for it
    /// was done: microseconds of the day, by its log.
    fn log_of(&self, id: &str) -> (Option<i64>, Option<i64>) {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap();
        let short = &id[..12];
        let (mut news, mut ack) = (None, None);
        for line in log.lines().filter(|line| line.contains(short)) {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let at = line["timestamp"].as_str().and_then(micros_in);
            match line["message"].as_str() {
                Some("news from Docker") => news = news.or(at),
                Some("done") => ack = at,
                _ => {}
            }
        }
        (news, ack)
    }
}

impl Drop for Hapilot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        remove_haproxy(&self.dir);
    }
}

fn directory(share: &Share) -> PathBuf {
    let dir = Path::new("/tmp").join(&share.name);
    remove_haproxy(&dir);
    std::fs::create_dir(&dir).unwrap();
    dir
}

fn remove_haproxy(dir: &Path) {
    if let Ok(pid) = haproxy_pid(&dir.join("admin.sock")) {
        kill("-KILL", pid);
    }
    if dir.exists() {
        std::fs::remove_dir_all(dir).unwrap();
    }
}

fn micros_of_day() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros() % 86_400_000_000).unwrap()
}

/// The time of day in `2026-01-31T12:34:56.123456Z`.
fn micros_in(timestamp: &str) -> Option<i64> {
    let time = timestamp.split_once('T')?.1.trim_end_matches('Z');
    let mut parts = time.split([':', '.']).map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds, micros) = (parts.next()??, parts.next()??, parts.next()??, parts.next()??);
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of one day")]
fn since(then: i64, at: i64) -> f64 {
    (at - then) as f64 / 1e3
}

// ---- the baseline ----

/// At each start event: list the containers, write a configuration, reload.
struct Reload {
    dir: PathBuf,
    http: SocketAddr,
}

impl Reload {
    fn start(share: &Share) -> Self {
        let dir = directory(share);
        let http: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let (program, place) = (engine::haproxy("3.0"), dir.clone());
        let events = start_events();
        reload(&program, &dir, http);
        std::thread::spawn(move || {
            for _ in events {
                // Ended, with its directory, while this thread still listens.
                if !place.exists() {
                    return;
                }
                reload(&program, &place, http);
            }
        });
        Self { dir, http }
    }
}

impl Drop for Reload {
    fn drop(&mut self) {
        remove_haproxy(&self.dir);
    }
}

fn reload(program: &Path, dir: &Path, http: SocketAddr) {
    let show = dir.display();
    let mut config = format!(
        "global\n stats socket {show}/admin.sock level admin\n hard-stop-after 2s\n\
         defaults\n mode http\n timeout connect 1s\n timeout client 60s\n timeout server 60s\n\
         frontend http\n bind {http}\n http-request return status 404 if !{{ req.hdr(host) -m found }}\n \
         use_backend %[req.hdr(host)]\n default_backend none\n\
         backend none\n http-request return status 404\n"
    );
    let filter = "%7B%22label%22%3A%5B%22test.hapilot%22%5D%7D";
    let listed = call("GET", &format!("/containers/json?filters={filter}"), &Value::Null);
    for container in listed.as_array().unwrap() {
        let inspected = inspect(container["Id"].as_str().unwrap());
        let mut variables = inspected["Config"]["Env"].as_array().unwrap().iter().filter_map(Value::as_str);
        let host = variables.find_map(|variable| variable.strip_prefix("VIRTUAL_HOST="));
        if let Some(host) = host {
            let _ = writeln!(config, "backend {host}\n server s {}", address(&inspected));
        }
    }
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    let pids = std::fs::read_to_string(dir.join("pid")).unwrap_or_default();
    let mut haproxy = Command::new(program);
    haproxy.arg("-D").arg("-f").arg(&file).arg("-p").arg(dir.join("pid"));
    if !pids.trim().is_empty() {
        haproxy.arg("-sf").args(pids.split_whitespace());
    }
    let output = haproxy.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
