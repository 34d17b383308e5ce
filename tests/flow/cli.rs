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
    for action in ["run", "status", "plan", "render", "check"] {
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
        &["--docker", "unix:///a", "--docker", "unix:///b"],
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
        },
        hosts: vec![HostStatus {
            host: "shop.example".into(),
            backend: "web:pool:0000".into(),
            servers: vec![ServerStatus {
                name: "shop-0123456789ab".into(),
                container: Some("shop".into()),
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
