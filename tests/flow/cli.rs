//! The command line, as a person meets it: help, refusals, answers and exit
//! codes. A server with prepared answers stands in for a running hapilot.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::path::Path;
use std::sync::Arc;

use assert_cmd::Command;
use hapilot::admin::listen::Listeners;
use hapilot::admin::{AdminHandle, Ask, serve};
use hapilot::cli::exit;
use hapilot::report::{
    Counts, Docker, Hapilot, Haproxy, Health, HostStatus, Mode, PlanReport, PlannedStep, Rejected,
    ServerState, ServerStatus, Status,
};
use hapilot::role::{self, Role};
use hapilot::settings;
use tokio_util::sync::CancellationToken;

type Change = fn(&mut Health);

/// The program, with nothing of this process's environment.
fn hapilot() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapilot"));
    command.env_clear();
    command
}

/// Exit code, stdout and stderr.
fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn help(arguments: &[&str]) -> String {
    let (code, text, errors) = outcome(hapilot().args(arguments));
    assert_eq!((code, errors.as_str()), (0, ""));
    text
}

#[test]
fn help_texts() {
    insta::assert_snapshot!("help", help(&["--help"]));
    for action in ["run", "status", "plan", "render", "check", "role", "leave"] {
        insta::assert_snapshot!(format!("help_{action}"), help(&[action, "--help"]));
    }
}

#[test]
fn version() {
    assert_eq!(help(&["--version"]), concat!("hapilot ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn refused_values() {
    let mut seen = String::new();
    for arguments in [
        &["--docker", "ssh://host"][..],
        &["--docker", "unix:///a", "--docker", "unix:///a"],
        &["--docker", "tcp://host:0"],
        &["--docker", "tcp://host", "--docker-tls-verify"],
        &["--docker", "tcp://host", "--docker-cert-path", "/c"],
        &["--haproxy", "/a", "--runtime-api", "/b"],
        &["--runtime-api", "haproxy.sock"],
        &["--haproxy-container", "a b"],
        &["--http", "80"],
        &["--http", "0.0.0.0:70000"],
        &["--dir", "run"],
        &["--dir", "/run/a b"],
        &["--dir", "/run/a\nstats socket /x"],
        &[
            "--dir",
            "/run/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ],
        &["--admin", "localhost:9000"],
        &["--pool-size", "0"],
        &["--resync", "60"],
        &["--grace", "2h"],
        &["--prefer-ipv6=maybe"],
        &["--log-format", "xml"],
        &["--log-level", "loud"],
    ] {
        let (code, out, errors) = outcome(hapilot().arg("run").args(arguments));
        assert_eq!((code, out.as_str()), (i32::from(exit::USAGE), ""), "{arguments:?}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        seen += &errors;
    }
    insta::assert_snapshot!("refused_values", seen);
}

#[test]
fn a_variable_is_refused_like_its_flag() {
    for (variable, value) in [
        ("DOCKER_HOST", "x"),
        ("HAPILOT_HAPROXY", "/"),
        ("HAPILOT_RUNTIME_API", "x"),
        ("HAPILOT_HAPROXY_CONTAINER", "-"),
        ("HAPILOT_HTTP", "x"),
        ("HAPILOT_DIR", "x"),
        ("HAPILOT_ADMIN", "x"),
        ("HAPILOT_POOL_SIZE", "x"),
        ("HAPILOT_RESYNC", "x"),
        ("HAPILOT_GRACE", "x"),
        ("HAPILOT_PREFER_IPV6", "x"),
        ("HAPILOT_LOG_FORMAT", "x"),
        ("HAPILOT_LOG", "x"),
    ] {
        let (code, _, errors) = outcome(hapilot().arg("run").env(variable, value));
        assert_eq!(code, i32::from(exit::USAGE), "{variable}: {errors}");
        assert!(
            errors.starts_with("hapilot: --") && errors.contains(&format!("(or {variable})")),
            "{errors}"
        );
    }
}

#[test]
fn an_empty_variable_counts_as_not_given() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = hapilot();
    for variable in
        ["DOCKER_HOST", "HAPILOT_RUNTIME_API", "HAPILOT_HTTP", "HAPILOT_ADMIN", "HAPILOT_PREFER_IPV6"]
    {
        command.env(variable, "");
    }
    command.args(["render", "--haproxy", "/usr/sbin/haproxy", "--dir"]).arg(temp.path());
    let (code, _, errors) = outcome(&mut command);
    assert_ne!(code, i32::from(exit::USAGE), "{errors}");
}

#[test]
fn wrong_syntax() {
    for arguments in [&[][..], &["fly"], &["run", "--no-such-flag"], &["status", "--dir"]] {
        let (code, out, errors) = outcome(hapilot().args(arguments));
        assert_eq!((code, out.as_str()), (i32::from(exit::USAGE), ""), "{arguments:?}");
        assert!(errors.contains("--help"), "{errors}");
    }
}

#[test]
fn without_a_running_hapilot() {
    let temp = tempfile::tempdir().unwrap();
    for action in ["status", "plan", "check"] {
        let (code, out, errors) = outcome(hapilot().args([action, "--dir"]).arg(temp.path()));
        assert_eq!((code, out.as_str()), (i32::from(exit::HAPILOT_SILENT), ""), "{action}");
        let expected = format!(
            "hapilot: no answer from a running hapilot: nobody listens on {}/hapilot.sock; \
             is `hapilot run` running with this --dir?\n",
            temp.path().display()
        );
        assert_eq!(errors, expected);
    }
}

#[test]
fn a_second_hapilot_is_refused() {
    let stub = Stub::start(status());
    let (code, _, errors) = outcome(hapilot().args(["run", "--dir"]).arg(stub.dir()));
    assert_eq!(code, i32::from(exit::FAILED), "{errors}");
    assert!(errors.contains("another hapilot is running on --dir"), "{errors}");
}

#[test]
fn status_of_a_running_hapilot() {
    let stub = Stub::start(status());
    let (code, text, errors) = stub.ask(&["status"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    insta::assert_snapshot!("status", text);

    let (code, text, _) = stub.ask(&["status", "--json"]);
    assert_eq!(code, 0);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (pointer, expected) in [
        ("/converged", serde_json::json!(true)),
        ("/haproxy/version", "3.0.11".into()),
        ("/haproxy/pid", 123.into()),
        ("/haproxy/uptime_seconds", 60.into()),
        ("/hosts/0/host", "shop.example".into()),
        ("/hosts/0/backend", "web:pool:0000".into()),
        ("/hosts/0/servers/0/name", "shop-0123456789ab".into()),
        ("/hosts/0/servers/0/container", "shop".into()),
        ("/hosts/0/servers/0/address", "172.18.0.5:8080".into()),
        ("/hosts/0/servers/0/state", "up".into()),
        ("/hosts/0/servers/0/age_seconds", 200.into()),
        ("/rejected/0/container", "blog".into()),
        ("/rejected/0/key", "VIRTUAL_PORT".into()),
        ("/rejected/0/reason", "70000 is no port".into()),
        ("/blocked", serde_json::json!([])),
    ] {
        assert_eq!(json.pointer(pointer), Some(&expected), "{pointer}");
    }
}

#[test]
fn plan_and_configuration_of_a_running_hapilot() {
    let stub = Stub::start(status());
    let (code, text, _) = stub.ask(&["plan"]);
    assert_eq!(code, 0);
    assert_eq!(text, "1 command to send\n\n  del map hosts.map a\n      nobody claims it\n");
    let (_, text, _) = stub.ask(&["plan", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json.pointer("/steps/0/command"), Some(&"del map hosts.map a".into()));
    assert_eq!(stub.ask(&["render"]), (0, "global\n".to_owned(), String::new()));
    let (_, text, _) = stub.ask(&["render", "--json"]);
    assert_eq!(text, "{\n  \"configuration\": \"global\\n\"\n}\n");
}

#[test]
fn check_says_how_it_is() {
    let cases: [(Change, u8, &str); 5] = [
        (|_| {}, exit::WELL, "well\n"),
        (|h| h.converged = false, exit::FAILED, "not converged: changes are on their way\n"),
        (
            |h| {
                h.haproxy.connected = false;
                h.docker.connected = false;
            },
            exit::HAPROXY_SILENT,
            "HAProxy does not answer\n",
        ),
        (|h| h.docker.connected = false, exit::STALE, "stale: Docker does not answer\n"),
        (|h| h.as_of = None, exit::STALE, "stale: HAProxy has not been observed yet\n"),
    ];
    for (change, code, expected) in cases {
        let mut status = status();
        change(&mut status.health);
        let stub = Stub::start(status);
        assert_eq!(stub.ask(&["check"]), (i32::from(code), expected.to_owned(), String::new()));
        let (json_code, text, _) = stub.ask(&["check", "--json"]);
        assert_eq!(json_code, i32::from(code));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["converged"], code == exit::WELL, "{text}");
    }
}

#[test]
fn check_of_a_hapilot_whose_controller_is_gone() {
    let stub = Stub::with_controller(|questions| async { drop(questions) });
    let (code, out, errors) = stub.ask(&["check"]);
    assert_eq!((code, out.as_str()), (i32::from(exit::HAPILOT_SILENT), ""));
    assert_eq!(errors, "hapilot: the running hapilot can't answer: the controller does not answer\n");
}

#[test]
fn check_of_a_hapilot_that_hangs_ends_in_time() {
    let stub = Stub::with_controller(|questions| async move {
        let _held = questions;
        std::future::pending::<()>().await;
    });
    let begin = std::time::Instant::now();
    let (code, _, errors) = stub.ask(&["check", "--timeout", "300ms"]);
    assert_eq!(code, i32::from(exit::HAPILOT_SILENT));
    assert!(errors.contains("within 300ms"), "{errors}");
    // The server itself would have given up on its controller after two seconds.
    assert!(begin.elapsed() < AdminHandle::DEADLINE, "{:?}", begin.elapsed());
}

#[test]
fn check_of_haproxy_itself() {
    let temp = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str]| {
        outcome(hapilot().args(["check", "--haproxy", "--dir"]).arg(temp.path()).args(arguments))
    };
    let (code, text, errors) = check(&[]);
    assert_eq!((code, errors.as_str()), (i32::from(exit::HAPROXY_SILENT), ""));
    assert!(text.contains("admin.sock"), "{text}");
    let socket = temp.path().join("hangs.sock");
    let _hangs = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let begin = std::time::Instant::now();
    let (code, text, _) = check(&["--timeout", "200ms", "--json", "--runtime-api", socket.to_str().unwrap()]);
    assert_eq!(code, i32::from(exit::HAPROXY_SILENT));
    assert!(begin.elapsed() < std::time::Duration::from_secs(2), "{:?}", begin.elapsed());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["haproxy"]["connected"], false);
    let (code, _, errors) = check(&["--runtime-api", "x"]);
    assert_eq!(code, i32::from(exit::USAGE), "{errors}");
}

#[test]
fn check_of_the_servers_alone() {
    let cases: [(&[ServerState], bool, u8); 6] = [
        (&[ServerState::Up], true, exit::WELL),
        (&[ServerState::Down, ServerState::Up], true, exit::WELL),
        (&[ServerState::Down, ServerState::Maint], true, exit::UNREACHED),
        // Nobody is to be led there.
        (&[ServerState::Drain], true, exit::WELL),
        (&[], true, exit::WELL),
        // Who has no connection to HAProxy can't know.
        (&[ServerState::Down], false, exit::WELL),
    ];
    for (states, connected, expected) in cases {
        let mut status = status();
        let server = status.hosts[0].servers[0].clone();
        status.hosts[0].servers =
            states.iter().map(|&state| ServerStatus { state, ..server.clone() }).collect();
        status.health.haproxy.connected = connected;
        let stub = Stub::start(status);
        let (code, text, errors) = stub.ask(&["check", "--servers"]);
        assert_eq!((code, errors.as_str()), (i32::from(expected), ""), "{states:?}");
        assert_eq!(text.starts_with("HAProxy reaches none of its 1 servers"), expected == exit::UNREACHED);
    }
}

#[test]
fn leaving_waits_for_the_partner() {
    let temp = tempfile::tempdir().unwrap();
    let leave =
        |timeout: &str| outcome(hapilot().args(["leave", "--timeout", timeout, "--dir"]).arg(temp.path()));
    // Nobody was ever master here.
    assert_eq!(leave("0s"), (0, String::new(), String::new()));
    let weight = temp.path().join(hapilot::keepalived::WEIGHT_FILE);
    assert_eq!(std::fs::read_to_string(&weight).unwrap(), "-100\n");
    std::fs::write(&weight, "0\n").unwrap();
    role::keep(temp.path(), Role::Master).unwrap();
    let (code, _, errors) = leave("50ms");
    assert_eq!(code, i32::from(exit::FAILED));
    assert!(errors.contains("did not take the address"), "{errors}");
    // As keepalived would: the partner takes it when the priority has fallen.
    std::fs::write(&weight, "0\n").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while std::fs::read_to_string(&weight).unwrap() != "-100\n" {
                std::thread::yield_now();
            }
            role::keep(temp.path(), Role::Backup).unwrap();
        });
        assert_eq!(leave("30s"), (0, String::new(), String::new()));
    });
    let gone = temp.path().join("gone");
    let (code, _, errors) = outcome(hapilot().args(["leave", "--dir"]).arg(&gone));
    assert_eq!(code, i32::from(exit::FAILED));
    let expected =
        format!("can't write to {}, which should be the --dir of this machine's hapilot", gone.display());
    assert!(errors.contains(&expected), "{errors}");
}

#[test]
fn a_role_is_told_and_kept() {
    let stub = Stub::start(status());
    assert_eq!(stub.ask(&["role", "master"]), (0, String::new(), String::new()));
    let (_, text, _) = stub.ask(&["status"]);
    assert!(text.starts_with("converged · master · "), "{text}");
    let kept = |dir: &Path| role::kept(dir).unwrap().map(|told| told.role);
    assert_eq!(kept(stub.dir()), Some(Role::Master));
    let (code, _, errors) = stub.ask(&["role", "king"]);
    assert_eq!(code, i32::from(exit::USAGE));
    assert_eq!(errors, "hapilot: a role is master, backup, fault or stop\n");

    // Without a running hapilot it waits for one.
    let temp = tempfile::tempdir().unwrap();
    let tell = |dir: &Path| outcome(hapilot().args(["role", "fault", "--dir"]).arg(dir));
    assert_eq!(tell(temp.path()), (0, String::new(), String::new()));
    assert_eq!(kept(temp.path()), Some(Role::Fault));
    let (code, _, errors) = tell(&temp.path().join("away"));
    assert_eq!(code, i32::from(exit::FAILED), "{errors}");
}

#[test]
fn keepalived_configuration() {
    let pair = ["--interface", "eth0", "--own-address", "10.0.0.11", "--peer-address", "10.0.0.12"];
    let render = |more: &[&str]| {
        let render = hapilot().args(["render", "--keepalived"]).args(pair).args(more).output().unwrap();
        (render.status.code(), String::from_utf8(render.stdout).unwrap())
    };
    let more = ["--role", "backup", "--virtual-address", "10.0.0.10/24", "--virtual-address", "10.0.0.9"];
    let (code, text) = render(&more);
    assert_eq!(code, Some(0));
    let program = format!("\"{} check --haproxy ", env!("CARGO_BIN_EXE_hapilot"));
    assert!(text.contains(&program) && text.contains("        10.0.0.9/32\n"), "{text}");
    assert_eq!(render(&more[..2]).0, Some(i32::from(exit::USAGE)));
    // Both addresses in one variable.
    let mut variables = hapilot();
    variables.args(["render", "--keepalived", "--role", "backup"]).args(pair);
    let (_, text_of_variables, _) =
        outcome(variables.env("HAPILOT_VIRTUAL_ADDRESS", "10.0.0.10/24,10.0.0.9"));
    assert_eq!(text_of_variables, text);
}

fn status() -> Status {
    Status {
        health: Health {
            converged: true,
            since: Some(1_700_000_000),
            as_of: Some(1_700_000_100),
            as_of_age_seconds: Some(1),
            stale: vec![],
            hapilot: Hapilot { version: "0.1.0".into(), pid: 7, uptime_seconds: 100, mode: Mode::Spawn },
            docker: Docker { connected: true, ..Docker::default() },
            haproxy: Haproxy {
                connected: true,
                place: None,
                version: Some("3.0.11".into()),
                pid: Some(123),
                uptime_seconds: Some(60),
                error: None,
            },
            counts: Counts::default(),
            error: None,
            role: None,
        },
        engines: vec![],
        hosts: vec![HostStatus {
            host: "shop.example".into(),
            backend: "web:pool:0000".into(),
            servers: vec![ServerStatus {
                name: "shop-0123456789ab".into(),
                container: Some("shop".into()),
                engine: None,
                address: "172.18.0.5:8080".parse().unwrap(),
                state: ServerState::Up,
                check: None,
                age_seconds: Some(200),
            }],
        }],
        rejected: vec![Rejected {
            container: "blog".into(),
            key: "VIRTUAL_PORT".into(),
            reason: "70000 is no port".into(),
        }],
        blocked: vec![],
        waiting: vec![],
    }
}

/// The real admin server before a controller with prepared answers.
struct Stub {
    temp: tempfile::TempDir,
    /// Ends both when it is dropped.
    _runtime: tokio::runtime::Runtime,
}

impl Stub {
    fn start(status: Status) -> Self {
        Self::with_controller(|mut questions| async move {
            while let Some(ask) = questions.recv().await {
                let answered = match ask {
                    Ask::Health(answer) => answer.send(status.health.clone()).is_ok(),
                    Ask::Status(answer) => answer.send(status.clone()).is_ok(),
                    Ask::Plan(answer) => answer.send(plan()).is_ok(),
                    Ask::Render(answer) => answer.send("global\n".into()).is_ok(),
                };
                assert!(answered, "nobody waited for the answer");
            }
        })
    }

    fn with_controller<F: Future<Output = ()> + Send + 'static>(
        controller: impl FnOnce(tokio::sync::mpsc::Receiver<Ask>) -> F,
    ) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = settings::dir(temp.path().to_str().unwrap()).unwrap();
        let (handle, questions) = AdminHandle::new();
        let listeners = runtime.block_on(Listeners::bind(&dir, None)).unwrap();
        runtime.spawn(serve::serve(listeners, handle, Arc::default(), CancellationToken::new()));
        runtime.spawn(controller(questions));
        Self { temp, _runtime: runtime }
    }

    fn dir(&self) -> &Path {
        self.temp.path()
    }

    fn ask(&self, arguments: &[&str]) -> (i32, String, String) {
        outcome(hapilot().args(arguments).arg("--dir").arg(self.dir()))
    }
}

fn plan() -> PlanReport {
    let step = PlannedStep { command: "del map hosts.map a".into(), reason: "nobody claims it".into() };
    PlanReport { steps: vec![step], ..PlanReport::default() }
}
