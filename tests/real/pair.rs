//! Two load balancers under keepalived (compose/pair.yml), on the machine's Docker
//! engine.
//!
//! What lives here: that a failover works, that each hapilot knows its role, and
//! that both `HAProxy`s have the same; and that systemd and keepalived take the
//! files that are theirs. How long anything takes is `make bench-pair`'s.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::path::Path;
use std::process::{Command, Stdio};

#[path = "../support/engine.rs"]
mod engine;
#[path = "../support/pair.rs"]
mod pair;

use engine::{Docker, eventually, get, kill, name_for, root, served};
use pair::{Pair, Side};

/// Third number of the network.
const NETWORK: u8 = 248;

#[test]
fn one_of_two_always_serves() {
    let pair = Pair::up(&name_for("pair"), NETWORK);
    let address = pair.virtual_address();
    for host in ["shop.example", "api.example"] {
        assert_eq!(served(address, host).status, 200);
    }
    pair.sides_are_equal();
    a_planned_switch_refuses_nobody(&pair);
    let back_to = get(address, "cart.example", "/").unwrap().backend;
    haproxy_dies(&pair, &back_to);
    hapilot_dies(&pair);
}

fn a_planned_switch_refuses_nobody(pair: &Pair) {
    let address = pair.virtual_address();
    let keepalived = pair.container(Side::One, "keepalived");
    let mut stop = pair.docker.command(&["stop", "--time", "12", &keepalived]);
    let mut stop = stop.stdout(Stdio::null()).spawn().unwrap();
    let (mut answers, mut cut) = (0, 0);
    while stop.try_wait().unwrap().is_none() {
        match get(address, "api.example", "/") {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{answer:?}");
                answers += 1;
            }
            // One that stood at the switch may be cut, none may be turned away.
            Err(error) => {
                let refused = [std::io::ErrorKind::ConnectionRefused, std::io::ErrorKind::TimedOut]
                    .contains(&error.kind());
                assert!(!refused, "after {answers} answers: {error}");
                cut += 1;
            }
        }
    }
    assert!(answers > 0 && cut <= 1, "{answers} answers, {cut} cut");
    pair.has_role(Side::One, "stop");
    pair.has_role(Side::Two, "master");
    pair.docker.run(&["start", &keepalived]);
    pair.is_well();
}

/// A sticky visitor is led to the same container by the other one.
fn haproxy_dies(pair: &Pair, back_to: &str) {
    kill("-KILL", pair.pid(Side::One, "haproxy"));
    pair.has_role(Side::Two, "master");
    for _ in 0..4 {
        assert_eq!(served(pair.virtual_address(), "cart.example").backend, back_to);
    }
    // The engine starts it again; the address comes back when it is well.
    pair.is_well();
    pair.sides_are_equal();
}

/// It is told its role although it was not there when keepalived said it.
fn hapilot_dies(pair: &Pair) {
    let hapilot = pair.container(Side::One, "hapilot");
    pair.docker.run(&["kill", &hapilot]);
    assert_eq!(get(pair.virtual_address(), "shop.example", "/").unwrap().status, 200);
    pair.has_role(Side::Two, "master");
    pair.docker.run(&["start", &hapilot]);
    eventually("hapilot knows its role again", || {
        let status = pair.status(Side::One)?;
        let known = ["backup", "master"].map(|role| status["role"]["role"] == role).contains(&true);
        known.then_some(()).ok_or_else(|| status.to_string())
    });
    let metrics = get(pair.address(12, 9100), "hapilot", "/metrics").unwrap().body;
    assert!(metrics.contains("\nhapilot_role{role=\"master\"} "), "{metrics}");
}

#[test]
fn keepalived_accepts_its_configuration() {
    let docker = Docker::find();
    for (own, peer, addresses) in [
        ("10.0.0.11", "10.0.0.12", "10.0.0.10/24,fd00::10/64"),
        ("fd00::11", "fd00::12", "fe80::10/64,fd00::10/64,10.0.0.10"),
    ] {
        for role in ["HAPILOT_ROLE=master", "HAPILOT_ROLE=backup", "HAPILOT_NOPREEMPT=1"] {
            let variables = [
                role.to_owned(),
                "HAPILOT_INTERFACE=eth0".to_owned(),
                format!("HAPILOT_VIRTUAL_ADDRESS={addresses}"),
                format!("HAPILOT_OWN_ADDRESS={own}"),
                format!("HAPILOT_PEER_ADDRESS={peer}"),
            ];
            let mut arguments = vec!["run", "--rm", "--entrypoint", "sh"];
            for variable in &variables {
                arguments.extend(["--env", variable]);
            }
            let check =
                "mkdir -p /run/hapilot; hapilot render --keepalived >/k.conf; keepalived -t -f /k.conf 2>&1";
            arguments.extend(["hapilot-keepalived:local", "-ec", check]);
            // It says nothing if nothing is wrong.
            assert_eq!(docker.attempt(&arguments), Ok(String::new()), "{variables:?}");
        }
    }
}

#[test]
fn systemd_understands_the_units() {
    let systemd = Command::new("systemd-analyze").arg("--version").output();
    if !systemd.is_ok_and(|output| output.status.success()) {
        eprintln!("no systemd-analyze on this machine: the units were not checked");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let units = root().join("compose/systemd");
    let copy = |name: &str| {
        let text = std::fs::read_to_string(units.join(name)).unwrap();
        let place = temp.path().join(name);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        // The program has to be there.
        std::fs::write(place, text.replace("/usr/local/bin/hapilot", env!("CARGO_BIN_EXE_hapilot"))).unwrap();
    };
    copy("hapilot.service");
    copy("keepalived.service.d/hapilot.conf");
    // Debian's, as far as the drop-in goes.
    let keepalived = "[Service]\nType=notify\nExecStart=/bin/true\n";
    std::fs::write(temp.path().join("keepalived.service"), keepalived).unwrap();
    let verify = |unit: &Path| {
        let mut verify = Command::new("systemd-analyze");
        let output = verify.args(["verify", "--man=no"]).arg(unit).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for unit in ["hapilot.service", "keepalived.service"] {
        assert_eq!(verify(&temp.path().join(unit)), (true, String::new()), "{unit}");
    }
}
