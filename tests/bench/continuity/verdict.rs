//! Why requests failed, by HAProxy's own log, and whose fault it is.
//!
//! What lives here: a failed request's line in HAProxy's access log, and the rule
//! of what is inherently lost. What it must not know: the case.
//!
//! The rule: lost inherently is a request that isn't safe to repeat (POST) and
//! had been sent to a container that was being ended, which then cut it before
//! it answered. Whoever repeats it may do twice what it does. Everything else
//! could have been served by another container.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::visitors::Request;

/// So long after its end HAProxy may be told of a container's death.
const AFTERMATH: Duration = Duration::from_millis(500);

/// A container was being ended: from the order to the engine's answer.
pub(crate) struct Ending {
    /// Its short identifier.
    pub(crate) container: String,
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

/// What HAProxy wrote about one request.
struct Line<'a> {
    /// `service/server`.
    at: &'a str,
    /// `TR/Tw/Tc/Tr/Ta`.
    times: &'a str,
    status: &'a str,
    /// How the session ended: `SH--`.
    ended: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<(u64, Self)> {
        let (_, query) = line.rsplit_once("n=")?;
        let number = query.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        let mut words = line.split(' ').skip(3);
        let (at, times, status) = (words.next()?, words.next()?, words.next()?);
        let ended = words.nth(3)?;
        Some((number, Self { at, times, status, ended }))
    }

    /// HAProxy had a connection to the server, and the server ended it before it
    /// had answered.
    fn was_cut_by_server(&self) -> bool {
        let connected = self.times.split('/').nth(2).is_some_and(|time| time != "-1");
        connected && self.ended.starts_with("SH")
    }
}

/// Failed requests, each with what is known of it.
#[derive(Default)]
pub(crate) struct Verdict {
    /// Those that could have been served.
    pub(crate) failed: Vec<Failed>,
    /// Those that nobody could have served.
    pub(crate) lost: Vec<Failed>,
}

/// One of them.
pub(crate) struct Failed {
    pub(crate) due: Instant,
    pub(crate) text: String,
}

/// Judges what failed among `requests`; `log` is HAProxy's.
pub(crate) fn judge(requests: &[Request], endings: &[Ending], log: &Path) -> Verdict {
    let mut verdict = Verdict::default();
    if requests.iter().all(|request| request.failure.is_none()) {
        return verdict;
    }
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    let lines: HashMap<u64, Line<'_>> = text.lines().filter_map(Line::parse).collect();
    for request in requests {
        let Some(failure) = &request.failure else { continue };
        let line = lines.get(&request.number);
        let text = describe(request, failure, line);
        let list = if line.is_some_and(|line| inherently(request, line, endings)) {
            &mut verdict.lost
        } else {
            &mut verdict.failed
        };
        list.push(Failed { due: request.due, text });
    }
    verdict
}

fn inherently(request: &Request, line: &Line<'_>, endings: &[Ending]) -> bool {
    let end = request.due + request.took;
    let ending = endings.iter().any(|ending| {
        line.at.ends_with(&ending.container) && request.due <= ending.until && ending.from <= end + AFTERMATH
    });
    request.post && line.was_cut_by_server() && ending
}

fn describe(request: &Request, failure: &str, line: Option<&Line<'_>>) -> String {
    let method = if request.post { "POST" } else { "GET" };
    let kind = if request.slow { "slow " } else { "" };
    let over = if request.kept { "kept connection" } else { "new connection" };
    let took = request.took.as_secs_f64() * 1e3;
    let told = match line {
        Some(Line { at, times, status, ended }) => format!("HAProxy: {at} {times} {status} {ended}"),
        None => "HAProxy wrote nothing".to_owned(),
    };
    format!("n={} {kind}{method}, {over}, {took:.0} ms: {failure}; {told}", request.number)
}
