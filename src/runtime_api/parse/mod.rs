//! Replies to `show …` → rows.
//!
//! What lives here: one parser per `show`. Columns are found by the name in the
//! header, because they differ between versions; columns that nobody needs are
//! passed over. What it must not know: sockets, and which rows are hapilot's.
//!
//! Rows borrow from the reply. Names in them are whatever stands in HAProxy;
//! `observe` decides which are names that hapilot can write.

pub mod backends;
pub mod cli_level;
pub mod info;
pub mod map_entries;
pub mod map_listing;
pub mod servers_conn;
pub mod servers_state;
pub mod stat;
mod table;
pub mod version;

use super::reply::excerpt;

/// A reply that is not of the known form. Such a reply is never half taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {reason}: `{text}`")]
pub struct ParseError {
    /// Of the reply, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
    /// The beginning of the line, escaped.
    pub text: String,
}

impl ParseError {
    /// An error at a line, counted from 1 on.
    pub(crate) fn new(line: usize, reason: &'static str, text: &str) -> Self {
        Self { line, reason, text: excerpt(text.lines().next().unwrap_or_default()) }
    }
}

/// The non-empty lines of a reply with their numbers, from 1 on.
fn lines(reply: &str) -> impl Iterator<Item = (usize, &str)> {
    reply.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(reply: &str) {
        let _ = version::parse(reply);
        let _ = cli_level::parse(reply);
        let _ = info::parse(reply);
        let _ = map_listing::parse(reply);
        let _ = map_entries::parse(reply);
        let _ = backends::parse(reply);
        let _ = servers_state::parse(reply);
        let _ = servers_conn::parse(reply);
        let _ = stat::parse(reply);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn garbage_is_never_a_panic(
            head in prop_oneof![
                Just(""),
                Just("1\n# be_name srv_name srv_addr srv_port srv_op_state srv_admin_state srv_uweight \
                     srv_time_since_last_change srv_check_status srv_check_state\n"),
                Just("# pxname,svname,qcur,scur,\n"),
                Just("# bkname/svname used_cur\n"),
                Just("# name\n"),
                Just("# id (file) description\n"),
                Just("Name: HAProxy\nPid: "),
                Just("0x55"),
            ],
            tail in "[ -~\n\"é,0-9]{0,200}",
        ) {
            feed(&format!("{head}{tail}"));
        }
    }
}
