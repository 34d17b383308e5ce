//! What tests with the machine's Docker engine share.
//!
//! What lives here: the docker command, a share of the engine that is removed
//! when it is dropped, a small HTTP client, and waiting for a condition. What it
//! must not know: what is tested.

#![allow(dead_code, reason = "each of the programs that include this uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests")]
#![allow(clippy::print_stderr, reason = "the logs of what failed")]

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The sample service, made by `make setup`.
pub(crate) const SAMPLE: &str = "hapilot-sample:local";
/// Marks all that is made here; the value is the share's name.
const MARK: &str = "test.hapilot";
/// Generous: a condition that holds at all holds long before.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);
/// For one answer over HTTP or on a socket.
const ANSWER: Duration = Duration::from_secs(10);

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A real HAProxy, fetched by `make setup`.
pub(crate) fn haproxy(version: &str) -> PathBuf {
    let trees =
        std::env::var_os("HAPILOT_TEST_HAPROXY").map_or_else(|| root().join("target/haproxy"), PathBuf::from);
    let path = trees.join(version).join("haproxy");
    assert!(path.exists(), "{} is missing: run `make setup`", path.display());
    path
}

/// The same in every run of this checkout, and in none of another one: what an
/// earlier run left is found by it.
pub(crate) fn name_for(purpose: &str) -> String {
    let mut checkout = DefaultHasher::new();
    root().hash(&mut checkout);
    format!("hapilot-{purpose}-{:08x}", checkout.finish() & 0xffff_ffff)
}

/// Looks again and again until the probe finds what it wants.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match probe() {
            Ok(found) => return found,
            Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(reason) => panic!("{what}: not within {} s; at last: {reason}", PATIENCE.as_secs()),
        }
    }
}

/// A port of 127.0.0.1 that nothing listens on, below those that the kernel
/// gives to clients: it stays free while its owner restarts.
pub(crate) fn free_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    (first..32_000)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("no port is free")
}

// ---- the docker command ----

/// A docker command that the engine answers.
#[derive(Clone)]
pub(crate) struct Docker {
    client: PathBuf,
    /// Where the engine listens; `None`: where the client thinks.
    host: Option<String>,
}

impl Docker {
    /// The first on the PATH that works: a client may be too new for the engine.
    pub(crate) fn find() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places: Vec<PathBuf> =
            std::env::split_paths(&path).map(|place| place.join("docker")).collect();
        places.push("/usr/bin/docker".into());
        let works = |client: &PathBuf| {
            let mut version = Command::new(client);
            version.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
            version.status().is_ok_and(|status| status.success())
        };
        let client = places.into_iter().find(works);
        let client = client.expect("no Docker engine answers: run `make setup`");
        let docker = Self { client, host: None };
        let image = docker.attempt(&["image", "inspect", SAMPLE]);
        assert!(image.is_ok(), "the image {SAMPLE} is missing: run `make setup`");
        docker
    }

    /// The same client for another engine, at a socket.
    pub(crate) fn at(&self, socket: &Path) -> Self {
        Self { client: self.client.clone(), host: Some(format!("unix://{}", socket.display())) }
    }

    /// The command, to be given arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.args(arguments).stdin(Stdio::null());
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_TLS_VERIFY");
        }
        command
    }

    /// What it prints, without the blanks at the end; its complaint if it fails.
    pub(crate) fn attempt(&self, arguments: &[&str]) -> Result<String, String> {
        said(&self.command(arguments).output().unwrap())
    }

    /// What it prints; it must not fail.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.attempt(arguments).unwrap_or_else(|error| panic!("docker {}: {error}", arguments.join(" ")))
    }

    /// One fact about a container, by a Go template.
    pub(crate) fn inspect(&self, container: &str, template: &str) -> String {
        self.run(&["inspect", "--type", "container", "--format", template, container])
    }
}

/// What a program printed, or why it failed.
pub(crate) fn said(output: &Output) -> Result<String, String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{}: {}{}", output.status, out.trim(), err.trim()))
}

/// All on the engine that carries this name as its mark. What an earlier run
/// left is removed first, and everything when this is dropped.
pub(crate) struct Share {
    /// The engine.
    pub(crate) docker: Docker,
    /// Name of the mark, and first part of all other names; the same in every
    /// run of this checkout and in none of another one.
    pub(crate) name: String,
}

impl Share {
    /// Nothing carries the mark afterwards.
    pub(crate) fn new(purpose: &str) -> Self {
        Self::on(Docker::find(), purpose)
    }

    /// As [`Self::new`], on an engine of its own.
    pub(crate) fn on(docker: Docker, purpose: &str) -> Self {
        let share = Self { docker, name: name_for(purpose) };
        share.clear();
        share
    }

    /// `MARK=name`.
    pub(crate) fn mark(&self) -> String {
        format!("{MARK}={}", self.name)
    }

    /// A name within this share.
    pub(crate) fn named(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }

    /// Makes a network.
    pub(crate) fn network(&self, what: &str) -> String {
        let name = self.named(what);
        self.docker.run(&["network", "create", "--label", &self.mark(), &name]);
        name
    }

    /// Starts a sample service that listens on port 8000 and asks for a host;
    /// returns its name.
    pub(crate) fn serve(&self, what: &str, network: &str, host: &str) -> String {
        let name = self.named(what);
        self.docker.run(&[
            "run",
            "--detach",
            "--name",
            &name,
            "--label",
            &self.mark(),
            "--network",
            network,
            "--env",
            &format!("VIRTUAL_HOST={host}"),
            "--env",
            "VIRTUAL_PORT=8000",
            SAMPLE,
        ]);
        name
    }

    fn clear(&self) {
        let filter = format!("label={}", self.mark());
        let lists: [(&[&str], &[&str]); 3] = [
            (&["ps", "-aq"], &["rm", "-f", "-v"]),
            (&["network", "ls", "-q"], &["network", "rm"]),
            (&["volume", "ls", "-q"], &["volume", "rm"]),
        ];
        for (list, remove) in lists {
            let found = self.docker.attempt(&[list, &["--filter", &filter]].concat()).unwrap_or_default();
            let found: Vec<&str> = found.lines().collect();
            if !found.is_empty()
                && let Err(error) = self.docker.attempt(&[remove, &found[..]].concat())
            {
                eprintln!("can't be removed: {error}");
            }
        }
    }

    /// What there is, and the last lines of each container's log.
    fn print_logs(&self) {
        let filter = format!("label={}", self.mark());
        let all = self.docker.attempt(&["ps", "-a", "--filter", &filter]).unwrap_or_default();
        eprintln!("==== containers\n{all}");
        let names = self.docker.attempt(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        for name in names.unwrap_or_default().lines() {
            let logs = self.docker.command(&["logs", name]).output().unwrap();
            let text = [logs.stdout, logs.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            // Of HAProxy's, only what went wrong.
            let lines: Vec<&str> = text.lines().filter(|line| !line.contains(" 200 ")).collect();
            let last = &lines[lines.len().saturating_sub(150)..];
            eprintln!("==== log of {name}\n{}", last.join("\n"));
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        self.clear();
    }
}

// ---- HTTP ----

/// An answer to a GET.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 200, say.
    pub(crate) status: u16,
    /// Who answered: the header `X-Backend`, empty without.
    pub(crate) backend: String,
    /// Its text.
    pub(crate) body: String,
}

impl Answer {
    fn parse(reply: &str) -> io::Result<Self> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("not a whole answer: {reply:?}"));
        let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(bad)?;
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
        let header = |wanted: &str| {
            head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
            })
        };
        let length = header("content-length").and_then(|length| length.parse().ok());
        if length.is_some_and(|length: usize| body.len() != length) {
            return Err(bad());
        }
        Ok(Self { status, backend: header("x-backend").unwrap_or_default(), body: body.to_owned() })
    }
}

/// A GET over a connection of its own. An error is: no whole answer.
pub(crate) fn get(address: SocketAddr, host: &str, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Answer::parse(&reply)
}

/// Waits for a 200.
pub(crate) fn served(address: SocketAddr, host: &str) -> Answer {
    eventually(&format!("{host} is served"), || match get(address, host, "/") {
        Ok(answer) if answer.status == 200 => Ok(answer),
        other => Err(format!("{other:?}")),
    })
}

/// Waits for a 404.
pub(crate) fn not_served(address: SocketAddr, host: &str) {
    eventually(&format!("{host} is no more"), || match get(address, host, "/") {
        Ok(answer) if answer.status == 404 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Asks each host over and over until it is answered at all: the first answer
/// to each must be a 200.
pub(crate) fn first_answers_are_200(address: SocketAddr, hosts: &[&str]) {
    for host in hosts {
        let answer = eventually(&format!("an answer to {host}"), || {
            get(address, host, "/").map_err(|e| e.to_string())
        });
        assert_eq!(answer.status, 200, "the first answer to {host}: {answer:?}");
    }
}

/// Somebody who asks for a host all the time, and wants nothing but 200.
pub(crate) struct Visitor {
    leave: Arc<AtomicBool>,
    asking: JoinHandle<(usize, Vec<String>)>,
}

impl Visitor {
    /// Begins to ask.
    pub(crate) fn of(address: SocketAddr, host: &'static str) -> Self {
        let leave = Arc::new(AtomicBool::new(false));
        let left = Arc::clone(&leave);
        let begin = Instant::now();
        let asking = std::thread::spawn(move || {
            let (mut asked, mut noticed) = (0, Vec::new());
            while !left.load(Ordering::Relaxed) {
                asked += 1;
                match get(address, host, "/") {
                    Ok(answer) if answer.status == 200 => {}
                    other => noticed.push(format!("{host} after {:.3?}: {other:?}", begin.elapsed())),
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            (asked, noticed)
        });
        Self { leave, asking }
    }

    /// Ends it; nothing must have been noticed.
    pub(crate) fn noticed_nothing(self) {
        self.leave.store(true, Ordering::Relaxed);
        let (asked, noticed) = self.asking.join().unwrap();
        let some = &noticed[..noticed.len().min(10)];
        assert!(asked > 0 && noticed.is_empty(), "{} of {asked}: {some:#?}", noticed.len());
    }
}

// ---- HAProxy ----

/// HAProxy's answer to one command, over a session of its own.
pub(crate) fn runtime_api(socket: &Path, command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply.trim_end().to_owned())
}

/// The process that listens on an admin socket.
pub(crate) fn haproxy_pid(socket: &Path) -> io::Result<u32> {
    let info = runtime_api(socket, "show info")?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid: ")?.parse().ok());
    pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, info))
}

/// Sends a signal to a process that this test started.
pub(crate) fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill {signal} {pid}: {status}");
}
