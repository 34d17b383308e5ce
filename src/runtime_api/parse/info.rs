//! `show info`: `Name: value` lines, more of them in each version.
//!
//! What lives here: the few of them that tell one HAProxy process from another.
//! What it must not know: metrics.

use nom::bytes::complete::{tag, take_until1};
use nom::combinator::rest;
use nom::sequence::separated_pair;
use nom::{IResult, Parser as _};

use super::{ParseError, lines};

/// What tells a process, and whether it stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info {
    /// `Pid`
    pub pid: u32,
    /// `Stopping`: it is on its way out, a reload or a soft stop.
    pub stopping: bool,
    /// `Start_time_sec`, seconds since 1970; a pid alone may come again.
    pub start_time_s: Option<u64>,
    /// `Uptime_sec`, seconds.
    pub uptime_s: Option<u64>,
}

fn field(line: &str) -> IResult<&str, (&str, &str)> {
    separated_pair(take_until1(":"), tag(":"), rest).parse(line)
}

/// Reads the fields; `Name: HAProxy` and `Pid` must be among them.
pub fn parse(reply: &str) -> Result<Info, ParseError> {
    let (mut haproxy, mut pid, mut stopping) = (false, None, None);
    let (mut start_time_s, mut uptime_s) = (None, None);
    for (number, line) in lines(reply) {
        let Ok((_, (name, value))) = field(line) else {
            return Err(ParseError::new(number, "not `Name: value`", line));
        };
        let value = value.trim();
        let count =
            || value.parse::<u64>().map_err(|_| ParseError::new(number, "not a number", line)).map(Some);
        match name {
            "Name" => haproxy = value == "HAProxy",
            "Pid" => {
                pid = count()?.and_then(|n| u32::try_from(n).ok());
            }
            "Stopping" => stopping = count()?,
            "Start_time_sec" => start_time_s = count()?,
            "Uptime_sec" => uptime_s = count()?,
            _ => {}
        }
    }
    match (haproxy, pid, stopping) {
        (true, Some(pid), Some(stopping)) => {
            Ok(Info { pid, stopping: stopping != 0, start_time_s, uptime_s })
        }
        _ => Err(ParseError::new(1, "`Name: HAProxy`, `Pid` or `Stopping` is missing", reply)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: [&str; 4] = [
        include_str!("../../../tests/data/show-info-2.6.txt"),
        include_str!("../../../tests/data/show-info-3.0.txt"),
        include_str!("../../../tests/data/show-info-3.2.txt"),
        include_str!("../../../tests/data/show-info-3.4.txt"),
    ];

    #[test]
    fn every_version_tells_its_process() {
        for reply in RECORDED {
            let info = parse(reply).unwrap();
            assert!(info.pid > 1 && !info.stopping, "{info:?}");
            assert!(info.start_time_s > Some(1_700_000_000), "{info:?}");
            assert!(info.uptime_s.is_some(), "{info:?}");
            let stopping = parse(&reply.replace("\nStopping: 0\n", "\nStopping: 1\n")).unwrap();
            assert!(stopping.stopping);
        }
    }

    #[test]
    fn a_reply_without_a_process_is_refused() {
        for reply in ["", "Name: HAProxy\nStopping: 0\n", "Name: HAProxy\nPid: 5\n", "Pid: 5\nStopping: 0\n"]
        {
            assert!(parse(reply).is_err(), "{reply}");
        }
        assert!(parse("Name: HAProxy\nPid: many\nStopping: 0\n").is_err());
        assert!(parse("nonsense\n").is_err());
    }
}
