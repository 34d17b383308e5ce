//! What a report says, to programs and to people.

use super::*;

type Change = fn(&mut Health);

fn health() -> Health {
    Health {
        converged: true,
        since: Some(1_700_000_000),
        as_of: Some(1_700_000_100),
        as_of_age_seconds: Some(12),
        stale: vec![],
        hapilot: Hapilot { version: "0.1.0".into(), pid: 7, uptime_seconds: 100, mode: Mode::Spawn },
        docker: Docker { connected: true, engine_version: Some("27.1.2".into()), error: None },
        haproxy: Haproxy {
            connected: true,
            place: None,
            version: Some("3.0.11".into()),
            pid: Some(123),
            uptime_seconds: Some(11_000),
            error: None,
        },
        counts: Counts::default(),
        error: None,
        role: None,
    }
}

fn server(name: &str, address: &str, state: ServerState, age: Option<u64>) -> ServerStatus {
    ServerStatus {
        engine: None,
        name: format!("{name}-0123456789ab"),
        container: Some(name.into()),
        address: address.parse().unwrap(),
        state,
        check: Some("L4CON".into()),
        age_seconds: age,
    }
}

fn status() -> Status {
    Status {
        health: health(),
        engines: vec![],
        hosts: vec![
            HostStatus { host: "empty.example".into(), backend: "web:pool:0001".into(), servers: vec![] },
            HostStatus {
                host: "shop.example".into(),
                backend: "web:pool:0000".into(),
                servers: vec![
                    server("shop-1", "172.18.0.5:8080", ServerState::Up, Some(200)),
                    server("shop-22", "[fd00::5]:80", ServerState::Down, Some(5)),
                    ServerStatus {
                        container: None,
                        engine: None,
                        ..server("old", "10.0.0.1:80", ServerState::Drain, None)
                    },
                ],
            },
        ],
        rejected: vec![Rejected {
            container: "blog\n\u{1b}[31m".into(),
            key: "VIRTUAL_PORT".into(),
            reason: "70000 is not a port: 1 to 65535".into(),
        }],
        blocked: vec![Note { what: "new.example".into(), reason: "the pool is exhausted".into() }],
        waiting: vec![Note { what: "web:pool:0000/old".into(), reason: "3 sessions are still open".into() }],
    }
    .sealed()
}

#[test]
fn status_for_people() {
    insta::assert_snapshot!("status_for_people", status());
}

#[test]
fn status_for_programs() {
    let json = serde_json::to_string_pretty(&status()).unwrap();
    insta::assert_snapshot!("status_for_programs", json);
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status());
}

#[test]
fn a_stale_report_for_people() {
    let mut status = status();
    status.hosts.truncate(1);
    status.rejected.clear();
    status.blocked.clear();
    status.waiting.clear();
    status.health.docker =
        Docker { connected: false, error: Some("connection refused".into()), ..status.health.docker };
    insta::assert_snapshot!("stale_status", status.sealed());
}

#[test]
fn plans_for_people() {
    let plan = PlanReport {
        steps: vec![PlannedStep {
            command: "set server web:pool:0000/old-0123456789ab state maint".into(),
            reason: "its container is gone".into(),
        }],
        blocked: vec![Note { what: "new.example".into(), reason: "the pool is exhausted".into() }],
        ..PlanReport::default()
    };
    insta::assert_snapshot!("plan", plan);
    insta::assert_snapshot!("empty_plan", PlanReport::default());
}

#[test]
fn who_is_cut_off_is_never_well() {
    assert_eq!(health().verdict(), Verdict::Well);
    let changes: [(Change, Verdict); 6] = [
        (
            |h| h.docker = Docker { error: Some("gone".into()), ..Docker::default() },
            Verdict::Stale("Docker does not answer: gone".into()),
        ),
        (|h| h.haproxy.connected = false, Verdict::HaproxySilent("HAProxy does not answer".into())),
        (|h| h.as_of = None, Verdict::Stale("HAProxy has not been observed yet".into())),
        (
            |h| h.stale.push("the last turn was long ago".into()),
            Verdict::Stale("the last turn was long ago".into()),
        ),
        (|h| h.converged = false, Verdict::NotConverged("changes are on their way".into())),
        (
            |h| {
                h.converged = false;
                h.counts.blocked = 2;
            },
            Verdict::NotConverged("2 blocked, see `hapilot status`".into()),
        ),
    ];
    for (change, expected) in changes {
        let mut health = health();
        change(&mut health);
        assert_eq!(health.verdict(), expected);
        let sealed = health.sealed();
        assert!(!sealed.converged);
        assert_eq!(sealed.clone().sealed(), sealed);
    }
}

#[test]
fn a_blocked_host_is_said_and_no_failure() {
    let mut health = health();
    assert_eq!(health.in_a_line(), "well\n");
    health.counts.blocked = 2;
    assert_eq!(health.verdict(), Verdict::Well);
    assert_eq!(health.in_a_line(), "well, but 2 blocked, see `hapilot status`\n");
    health.converged = false;
    assert_eq!(health.in_a_line(), "not converged: 2 blocked, see `hapilot status`\n");
}

#[test]
fn one_word_for_a_server() {
    assert_eq!(ServerState::of(Admin::Ready, true), ServerState::Up);
    assert_eq!(ServerState::of(Admin::Ready, false), ServerState::Down);
    assert_eq!(ServerState::of(Admin::Drain, true), ServerState::Drain);
    assert_eq!(ServerState::of(Admin::Maint, true), ServerState::Maint);
}
