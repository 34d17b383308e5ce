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

/// Below `--dir`: what keepalived adds to the priority, `0` when it starts.
pub const WEIGHT_FILE: &str = "keepalived-weight";
/// What a machine writes there that wants to give the address away: less than
/// all checks that fail take from its partner.
pub const LEAVING: i16 = -100;

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
            "@PREEMPT@" if settings.preference == Preference::Master => text.push_str(
                "    # It waits so long before it takes the address again after it was unwell: no flapping.\n    \
                 preempt_delay 5\n\n",
            ),
            "@PREEMPT@" => text.push('\n'),
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
mod tests;
