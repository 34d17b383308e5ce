//! keepalived's configuration for one machine of a pair.
//!
//! What lives here: template + settings → text, the priorities, and the name of
//! the file that keepalived watches. What it must not know: who starts
//! keepalived, and what hapilot answers to it (`report`).

use std::fmt::Write as _;

use crate::settings::{KeepalivedSettings, Preference, VirtualAddress};

const TEMPLATE: &str = include_str!("../compose/keepalived.conf.tmpl");

/// Below `--dir`: `1` while HAProxy does not answer hapilot, else `0`. keepalived
/// reads it whenever it is written.
pub const HAPROXY_DOWN_FILE: &str = "haproxy-down";

/// Priorities near the top: a backup that is told of the master's end waits for
/// (256 - priority) / 256 of an advertisement (RFC 9568, 6.1), here 9 ms.
const MASTER: u8 = 250;
/// Nearer to [`MASTER`] than the weight of a check that fails.
const BACKUP: u8 = 245;

/// Writes it down. Every word comes from a validated type.
#[must_use]
pub fn render(settings: &KeepalivedSettings) -> String {
    // One instance advertises in one family; addresses of the other one go with it.
    let (virtual_addresses, excluded): (Vec<_>, Vec<_>) =
        settings.virtual_addresses.iter().partition(|v| v.address.is_ipv4() == settings.own.is_ipv4());
    let mut text = String::with_capacity(TEMPLATE.len() + 512);
    for line in TEMPLATE.lines() {
        match line {
            "@PRIORITY@" => priority(&mut text, settings.preference),
            "@VIRTUAL@" => addresses(&mut text, &virtual_addresses),
            "@EXCLUDED@" if excluded.is_empty() => {}
            "@EXCLUDED@" => {
                text.push_str("    # The other family's, which don't fit into an advertisement.\n");
                text.push_str("    virtual_ipaddress_excluded {\n");
                addresses(&mut text, &excluded);
                text.push_str("    }\n");
            }
            line => {
                text.push_str(&fill(line, settings));
                text.push('\n');
            }
        }
    }
    text
}

fn priority(text: &mut String, preference: Preference) {
    let (why, priority) = match preference {
        Preference::Master => {
            ("Higher than the partner's: it holds the address whenever it is well.", MASTER)
        }
        Preference::Backup => {
            ("Lower than the partner's: it holds the address while the partner is not well.", BACKUP)
        }
        Preference::Holder => (
            "The same on both machines: nobody takes the address from one that is well. Not `nopreempt`, with\n    \
             # which one that is not well would keep it too.",
            MASTER,
        ),
    };
    let _ = writeln!(text, "    # {why}\n    priority {priority}");
}

fn addresses(text: &mut String, addresses: &[&VirtualAddress]) {
    for address in addresses {
        let _ = writeln!(text, "        {address}");
    }
}

fn fill(line: &str, settings: &KeepalivedSettings) -> String {
    if !line.contains('@') {
        return line.to_owned();
    }
    line.replace("@HAPILOT@", settings.program.as_str())
        .replace("@SOCKET@", &settings.runtime_api)
        .replace("@DIR@", settings.dir.as_str())
        .replace("@INTERFACE@", &settings.interface.to_string())
        .replace("@ROUTER_ID@", &settings.router_id.to_string())
        .replace("@OWN@", &settings.own.to_string())
        .replace("@PEER@", &settings.peer.to_string())
}

#[cfg(test)]
mod tests {
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
        let weight: i32 =
            master.lines().find_map(|l| l.trim().strip_prefix("weight -")?.parse().ok()).unwrap();
        assert!(m > b, "both well: the master holds it");
        assert!(m - weight < b, "only the master is unwell: the backup takes it");
        assert!(m - weight > b - weight, "both are unwell: nothing changes hands");
        assert!(h - weight < h, "of two equals the one that is unwell gives it away");
        assert!(m < 255 && b - weight > 0, "255 would be the address's owner");
        assert!(!holder.contains("\n    nopreempt"), "{holder}");
    }
}
