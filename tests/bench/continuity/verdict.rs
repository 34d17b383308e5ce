//! Why requests failed, by HAProxy's own log, and whose fault it is.
//!
//! What lives here: a failed request's line in HAProxy's access log, and the rule
//! of what is inherently lost. What it must not know: the case.
//!
//! The rule: lost inherently is a request that isn't safe to repeat (POST) and
//! had been sent to a container that was being ended, which then cut it before
//! it answered. Whoever repeats it may do twice what it does. Everything else
//! could have been served by another container.
//!
//! Of such a request HAProxy logs 502 and `SH`, but only if it was the first one
//! of its visitor's connection. Of a later one it logs nothing and closes the
//! connection without an answer, on which it is the visitor who decides whether
//! to ask again (`abort_keep_alive` in its `http_ana.c`; seen on 3.0).

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::visitors::{CUT, Request};

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
    /// `ac/fc/bc/sc/rc`: connections at that moment, and attempts.
    counts: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<(u64, Self)> {
        let (_, query) = line.rsplit_once("n=")?;
        let number = query.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        let mut words = line.split(' ').skip(3);
        let (at, times, status) = (words.next()?, words.next()?, words.next()?);
        let (ended, counts) = (words.nth(3)?, words.next()?);
        Some((number, Self { at, times, status, ended, counts }))
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
        let text = describe(request, failure, line, endings);
        let list = if request.post && was_cut_by_the_end(request, failure, line, endings) {
            &mut verdict.lost
        } else {
            &mut verdict.failed
        };
        list.push(Failed { due: request.due, text });
    }
    verdict
}

/// The request was under way to a container when that was ended.
fn was_cut_by_the_end(request: &Request, failure: &str, line: Option<&Line<'_>>, endings: &[Ending]) -> bool {
    let over = request.due + request.took;
    let meanwhile = |ending: &&Ending| {
        ending.from <= over && request.due <= ending.until && over <= ending.until + AFTERMATH
    };
    let mut ended = endings.iter().filter(meanwhile);
    match line {
        Some(line) => line.was_cut_by_server() && ended.any(|ending| line.at.ends_with(&ending.container)),
        None => request.kept && failure == CUT && ended.next().is_some(),
    }
}

fn describe(request: &Request, failure: &str, line: Option<&Line<'_>>, endings: &[Ending]) -> String {
    let method = if request.post { "POST" } else { "GET" };
    let kind = if request.slow { "slow " } else { "" };
    let over = if request.kept { "kept connection" } else { "new connection" };
    let took = request.took.as_secs_f64() * 1e3;
    let told = match line {
        Some(Line { at, times, status, ended, counts }) => {
            format!("HAProxy: {at} {times} {status} {ended} {counts}")
        }
        None => "HAProxy wrote nothing".to_owned(),
    };
    let last =
        endings.iter().filter(|ending| ending.from <= request.due + request.took).max_by_key(|e| e.from);
    let when = last.map_or(String::new(), |ending| {
        let after = (request.due + request.took).saturating_duration_since(ending.from);
        format!(", {:.1} ms after the order to end {}", after.as_secs_f64() * 1e3, ending.container)
    });
    format!("n={} {kind}{method}, {over}, {took:.1} ms: {failure}{when}; {told}", request.number)
}
