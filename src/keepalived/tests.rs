//! The text, and the arithmetic of its priorities.

use super::*;
use crate::cli::{KeepalivedArgs, Values};
use crate::settings::Settings;

fn rendered(change: impl FnOnce(&mut KeepalivedArgs)) -> String {
    let mut args = KeepalivedArgs {
        keepalived: true,
        interface: Some("eth0".into()),
        virtual_address: vec!["10.0.0.10/24".into()],
        own_address: Some("10.0.0.11".into()),
        peer_address: Some("10.0.0.12".into()),
        router_id: "51".into(),
        role: Some("master".into()),
        ..KeepalivedArgs::default()
    };
    change(&mut args);
    let settings = Settings::new(&Values::default()).unwrap();
    render(&KeepalivedSettings::new(&args, &settings, "/usr/bin/hapilot").unwrap())
}

fn number_after(text: &str, word: &str) -> i32 {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(word));
    line.unwrap_or_else(|| panic!("no `{word}` in\n{text}")).trim().parse().unwrap()
}

#[test]
fn a_master() {
    insta::assert_snapshot!(rendered(|_| {}));
}

#[test]
fn what_the_settings_change() {
    let text = rendered(|a| {
        a.role = Some("backup".into());
        a.virtual_address = vec!["fd00::10/64".into(), "10.0.0.10".into(), "10.0.0.9/24".into()];
        a.router_id = "7".into();
    });
    let block = "    virtual_ipaddress {\n        10.0.0.10/32\n        10.0.0.9/24\n    }\n";
    let other = "    virtual_ipaddress_excluded {\n        fd00::10/64\n    }\n";
    assert!(text.contains(block) && text.contains(other), "{text}");
    assert_eq!(number_after(&text, "virtual_router_id "), 7);
    assert!(!text.contains('@'), "{text}");
}

/// The rules of the issue, as arithmetic.
#[test]
fn a_check_that_fails_outweighs_the_roles_and_nothing_else() {
    let master = rendered(|_| {});
    let backup = rendered(|a| a.role = Some("backup".into()));
    let holder = rendered(|a| (a.role, a.nopreempt) = (None, Some("true".into())));
    let [m, b, h] = [&master, &backup, &holder].map(|text| number_after(text, "priority "));
    // The first weight is the file's, 0: a fault.
    assert_eq!(number_after(&master, "weight "), 0);
    let weights: Vec<i32> =
        master.lines().filter_map(|l| l.trim().strip_prefix("weight -")?.parse().ok()).collect();
    assert_eq!(weights, [30, 30], "{master}");
    let weight = weights[0];
    assert!(m > b, "both well: the master holds it");
    assert!(m - weight < b, "only the master is unwell: the backup takes it");
    assert!(m - weight > b - weight, "both are unwell: nothing changes hands");
    assert!(h - weight < h, "of two equals the one that is unwell gives it away");
    assert!(m + i32::from(LEAVING) < b - 2 * weight, "whoever leaves is the last to keep it");
    assert!(b + i32::from(LEAVING) - 2 * weight > 0, "0 would be the end of it");
    assert!(m < 255, "255 would be the address's owner");
    assert!(!holder.contains("\n    nopreempt"), "{holder}");
}
