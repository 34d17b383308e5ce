//! A Docker engine of a test's own, which it may restart, kill, fill and put
//! into a swarm.
//!
//! What lives here: a `dockerd` with its own data, sockets, control groups and
//! network namespace; several of them joined by a network. What it must not
//! know: what is tested. Everything is gone when it is dropped; what a killed run
//! left is removed by the next one.
//!
//! Use it beside `engine.rs`: `#[path = "../support/private_engine.rs"] mod private_engine;`.
//!
//! ```ignore
//! let mut engine = PrivateEngine::start("faults", 1, &[]);
//! engine.load(SAMPLE);
//! engine.enter(); // this thread and all it starts: 127.0.0.1 is the engine's own
//! engine.docker().run(&["run", "--detach", SAMPLE]);
//! engine.kill();
//! engine.launch();
//! ```

#![allow(dead_code, reason = "each of the programs that include this uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests")]
#![allow(clippy::print_stderr, reason = "the log of what failed")]

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::engine::{Docker, eventually, kill, name_for, said};

/// From this version on the engine's identity lies with its data; before, all
/// engines of a machine share one unless told otherwise.
const IDENTITY_IN_DATA: u32 = 24;

/// A network namespace; gone when it is dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one in which nothing is up but 127.0.0.0/8; an earlier one of this
    /// name is removed.
    pub(crate) fn new(name: &str) -> Self {
        let namespace = Self { name: name.to_owned() };
        namespace.remove();
        ip(&["netns", "add", name]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        namespace
    }

    /// Its file.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that runs in it. Unlike `ip netns exec` this leaves /sys alone,
    /// where an engine needs its control groups.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    /// The calling thread, and every thread and process that it starts from now
    /// on, are in it.
    pub(crate) fn enter(&self) {
        let file = File::open(self.path()).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    fn remove(&self) {
        if self.path().exists() {
            ip(&["netns", "delete", &self.name]);
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.remove();
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("ip is missing: run `make setup`");
    said(&output).unwrap_or_else(|error| panic!("ip {}: {error}", arguments.join(" ")))
}

/// An engine; running unless it was told to end.
pub(crate) struct PrivateEngine {
    name: String,
    number: u8,
    dir: PathBuf,
    options: Vec<String>,
    docker: Docker,
    machines: Docker,
    daemon: Option<Child>,
    // Dropped after the engine's end.
    namespace: Namespace,
}

impl PrivateEngine {
    /// Starts one with an empty store, and waits until it answers.
    ///
    /// `purpose` is its name among the engines of this checkout; engines of one
    /// test differ in `number` (1 to 100), which decides their addresses:
    /// containers get 10.(100 + number).0.0/16. `options` are dockerd's own, such
    /// as `--live-restore`.
    pub(crate) fn start(purpose: &str, number: u8, options: &[&str]) -> Self {
        assert!((1..=100).contains(&number), "{number}");
        let name = name_for(&format!("{purpose}{number}"));
        let dir = std::env::temp_dir().join(&name);
        clear(&name, &dir);
        fs::create_dir(&dir).unwrap();
        let machines = Docker::find();
        let mut engine = Self {
            namespace: Namespace::new(&name),
            docker: machines.at(&dir.join("docker.sock")),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            daemon: None,
            name,
            number,
            dir,
            machines,
        };
        engine.launch();
        engine
    }

    /// Its docker command.
    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Its socket, as `DOCKER_HOST`.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Where its containers and its own process are.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// See [`Namespace::enter`]: only from there its containers can be reached.
    pub(crate) fn enter(&self) {
        self.namespace.enter();
    }

    /// Its address on the network of [`Wire`].
    pub(crate) fn wire_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.number)
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the engine runs").id()
    }

    /// Its log.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("log")).unwrap_or_default()).into_owned()
    }

    /// Copies an image from the machine's engine.
    pub(crate) fn load(&self, image: &str) {
        let mut save = self.machines.command(&["save", image]).stdout(Stdio::piped()).spawn().unwrap();
        let load = self.docker.command(&["load"]).stdin(save.stdout.take().unwrap()).output().unwrap();
        said(&load).unwrap_or_else(|error| panic!("{image} can't be loaded: {error}"));
        assert!(save.wait().unwrap().success(), "{image} can't be saved: run `make setup`");
    }

    /// Starts it, after its end, and waits until it answers.
    pub(crate) fn launch(&mut self) {
        self.begin();
        eventually("the engine answers", || {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "dockerd ended: {}", tail(&self.log()));
            self.docker.attempt(&["version"])
        });
    }

    /// Starts it, after its end.
    pub(crate) fn begin(&mut self) {
        assert!(self.daemon.is_none(), "the engine runs");
        // A killed one that nobody has reaped yet would be taken for one that runs.
        for stale in ["pid", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(self.dir.join(stale));
        }
        let config = match engine_version() {
            ..IDENTITY_IN_DATA => {
                format!("{{\"deprecated-key-path\": \"{}\"}}", self.dir.join("key.json").display())
            }
            _ => "{}".to_owned(),
        };
        fs::write(self.dir.join("daemon.json"), config).unwrap();
        let path = |what: &str| self.dir.join(what).display().to_string();
        let net = format!("10.{}", 100 + u16::from(self.number));
        let log = File::options().append(true).create(true).open(self.dir.join("log")).unwrap();
        let mut dockerd = self.namespace.command("dockerd");
        for (option, value) in [
            ("--config-file", path("daemon.json")),
            ("--data-root", path("data")),
            ("--exec-root", path("exec")),
            ("--pidfile", path("pid")),
            ("--host", self.address()),
            ("--bip", format!("{net}.0.1/24")),
            ("--default-address-pool", format!("base={net}.128.0/17,size=24")),
            ("--exec-opt", "native.cgroupdriver=cgroupfs".to_owned()),
            ("--cgroup-parent", format!("/{}", self.name)),
            // Should the machine's containerd serve this engine, too.
            ("--containerd-namespace", self.name.clone()),
            ("--containerd-plugins-namespace", format!("{}-plugins", self.name)),
        ] {
            dockerd.arg(option).arg(value);
        }
        dockerd.args(&self.options).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        self.daemon = Some(dockerd.spawn().unwrap());
    }

    /// Ends it as a service manager does: SIGTERM. Without `--live-restore` its
    /// containers end first.
    pub(crate) fn stop(&mut self) {
        kill("-TERM", self.pid());
        let mut daemon = self.daemon.take().unwrap();
        eventually("the engine ends", || {
            daemon.try_wait().unwrap().map(drop).ok_or_else(|| "it runs".to_owned())
        });
    }

    /// kill -9; its containers live on. Without `--live-restore` the next start
    /// ends them.
    pub(crate) fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("the engine runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// It neither answers nor ends (SIGSTOP).
    pub(crate) fn freeze(&self) {
        kill("-STOP", self.pid());
    }

    /// After [`Self::freeze`].
    pub(crate) fn thaw(&self) {
        kill("-CONT", self.pid());
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("==== containers of {}\n{:?}", self.name, self.docker.attempt(&["ps", "-a"]));
            eprintln!("==== log of {}\n{}", self.name, tail(&self.log()));
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        clear(&self.name, &self.dir);
    }
}

/// A network between engines: each has [`PrivateEngine::wire_address`] on it.
pub(crate) struct Wire {
    switch: Namespace,
}

impl Wire {
    /// Joins engines that differ in their numbers.
    pub(crate) fn between(engines: &[&PrivateEngine]) -> Self {
        let first = engines.first().expect("somebody to join");
        let name = format!("{}-wire", first.name);
        let switch = Namespace::new(&name);
        ip(&["-n", &name, "link", "add", "switch", "type", "bridge"]);
        ip(&["-n", &name, "link", "set", "switch", "up"]);
        for engine in engines {
            let (here, there) = (format!("port{}", engine.number), &engine.namespace.name);
            ip(&["-n", &name, "link", "add", &here, "type", "veth", "peer", "name", "wire", "netns", there]);
            ip(&["-n", &name, "link", "set", &here, "master", "switch", "up"]);
            let address = format!("{}/24", engine.wire_address());
            ip(&["-n", there, "address", "add", &address, "dev", "wire"]);
            ip(&["-n", there, "link", "set", "wire", "up"]);
        }
        Self { switch }
    }

    /// Cuts one engine off, or joins it again.
    pub(crate) fn set(&self, engine: &PrivateEngine, up: bool) {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &self.switch.name, "link", "set", &format!("port{}", engine.number), state]);
    }
}

/// The major version of the program that is installed.
fn engine_version() -> u32 {
    let output =
        Command::new("dockerd").arg("--version").output().expect("dockerd is missing: run `make setup`");
    let text = said(&output).unwrap();
    let version = text.split_whitespace().nth(2).and_then(|version| version.split('.').next()?.parse().ok());
    version.unwrap_or_else(|| panic!("{text}"))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Nothing of this name is left: processes, mounts, control groups, files.
fn clear(name: &str, dir: &Path) {
    eventually("the end of all of an engine's processes", || {
        let all = processes(name);
        for pid in &all {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        if all.is_empty() { Ok(()) } else { Err(format!("{all:?}")) }
    });
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    for at in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(at).starts_with(dir) {
            let _ = Command::new("umount").args(["--lazy", at]).stderr(Stdio::null()).status();
        }
    }
    let groups = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(groups).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([groups.to_owned()]) {
        remove_group(&hierarchy.join(name));
    }
    if dir.exists()
        && let Err(error) = fs::remove_dir_all(dir)
    {
        eprintln!("{} can't be removed: {error}", dir.display());
    }
}

/// The engine's own processes carry its name in their arguments, those of its
/// containers in their control group.
fn processes(name: &str) -> Vec<u32> {
    let programs = ["dockerd", "containerd", "containerd-shim-runc-v2", "containerd-shim", "docker-proxy"];
    let group = format!("/{name}/");
    let belongs = |pid: &u32| {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let (line, groups) = (read("cmdline"), read("cgroup"));
        let (line, groups) = (String::from_utf8_lossy(&line), String::from_utf8_lossy(&groups));
        let program = line.split('\0').next().and_then(|path| path.rsplit('/').next());
        let ours = programs.contains(&program.unwrap_or_default()) && line.contains(name);
        // A zombie has no command line, and nobody needs to kill it.
        !line.is_empty() && (groups.contains(&group) || ours)
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(belongs).collect()
}

fn remove_group(path: &Path) {
    for below in fs::read_dir(path).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&below.path());
        }
    }
    let _ = fs::remove_dir(path);
}
