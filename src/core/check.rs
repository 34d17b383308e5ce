//! How a container wants to be checked.
//!
//! What lives here: the labels `hapilot.check.*` as validated values, the class
//! that follows from them, and what the `checks` map says. What it must not
//! know: which containers share a host, and who decides among them (`desired`).
//!
//! Without a path HAProxy only connects. With one it asks by HTTP; the classes
//! read path and status from the `checks` map, by the backend's name, so that
//! both can differ per host and change at run time.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::claim::quoted;
use super::container::Container;
use super::duration;
use super::label::{CHECK_INTERVAL, CHECK_PATH, CHECK_STATUS};
use super::name::{ClassName, Host, MapWord, NameError};

/// The answer that a check wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Status {
    /// 200 to 399.
    Success,
    /// A hundred of them by its first digit, 1 to 5.
    Hundred(u8),
    /// This one, 100 to 599.
    Exactly(u16),
}

/// What is asked by HTTP, and which answer is wanted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HttpCheck {
    status: Status,
    path: MapWord,
}

impl HttpCheck {
    /// The class whose servers are checked so.
    #[must_use]
    pub fn class(&self) -> ClassName {
        match self.status {
            Status::Success => ClassName::web_http(),
            Status::Hundred(_) | Status::Exactly(_) => ClassName::web_status(),
        }
    }

    /// The value of the `checks` map for a host: `STATUS:HOST:/PATH`. The class
    /// `web-status` wants an answer that begins with the status; `web-http` does
    /// not read it. For `*.domain` the domain is asked for.
    #[must_use]
    pub fn word(&self, host: &Host) -> MapWord {
        let status = match self.status {
            Status::Success => "-".to_owned(),
            Status::Hundred(first) => first.to_string(),
            Status::Exactly(number) => number.to_string(),
        };
        MapWord::of_check(&status, host, &self.path)
    }
}

/// Longest path, in bytes: with the longest host it fits into a map's word.
const PATH_LIMIT: usize = MapWord::LIMIT - Host::LIMIT - "599::".len();
/// How often a check may be wanted: HAProxy may have thousands of servers.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);

/// A label that can't be read, and why.
pub(super) type Refusal = (&'static str, String);

/// What is to be asked; `None` if a connection is enough. What can't be read is
/// refused; a path that can't be leaves the container checked by connections.
pub(super) fn http_check(container: &Container, refuse: &mut dyn FnMut(Refusal)) -> Option<HttpCheck> {
    let status = match CHECK_STATUS.said_by(container) {
        None => Ok(Status::Success),
        Some((key, text)) => status(text).ok_or_else(|| {
            let reason = format!(
                "{} is not a status; write 204, 2xx or 200-399, until then it is 200-399",
                quoted(text)
            );
            (key, reason)
        }),
    };
    let said = CHECK_STATUS.said_by(container).is_some();
    let status = status.unwrap_or_else(|refusal| {
        refuse(refusal);
        Status::Success
    });
    let Some((key, path)) = CHECK_PATH.said_by(container) else {
        if said {
            let reason = "it goes with hapilot.check.path, which is not there; HAProxy only connects";
            refuse((CHECK_STATUS.key, reason.to_owned()));
        }
        return None;
    };
    match self::path(path) {
        Ok(path) => Some(HttpCheck { status, path }),
        Err(reason) => {
            refuse((key, format!("{}: {reason}; HAProxy only connects", quoted(path))));
            None
        }
    }
}

/// How often it is to be checked, in milliseconds; `None` as its class has it.
pub(super) fn interval(container: &Container, refuse: &mut dyn FnMut(Refusal)) -> Option<u32> {
    let (key, text) = CHECK_INTERVAL.said_by(container)?;
    let read = duration::milliseconds(text, &INTERVALS);
    if read.is_none() {
        let reason = format!("{} is not an interval; write 100ms to 1h, such as 2s", quoted(text));
        refuse((key, format!("{reason}; until then it is that of all")));
    }
    read
}

fn status(text: &str) -> Option<Status> {
    if text == "200-399" {
        return Some(Status::Success);
    }
    let digit = |byte: u8| (b'1'..=b'5').contains(&byte).then(|| byte - b'0');
    match *text.as_bytes() {
        [first, b'x' | b'X', b'x' | b'X'] => digit(first).map(Status::Hundred),
        [first, b, c] if b.is_ascii_digit() && c.is_ascii_digit() => {
            let number = u16::from(digit(first)?) * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
            Some(Status::Exactly(number))
        }
        _ => None,
    }
}

fn path(text: &str) -> Result<MapWord, NameError> {
    if !text.starts_with('/') {
        return Err(NameError::Structure("a path begins with `/`"));
    }
    if text.len() > PATH_LIMIT {
        return Err(NameError::TooLong { length: text.len(), limit: PATH_LIMIT });
    }
    MapWord::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::container::ContainerId;

    fn read(labels: &[(&str, &str)]) -> (Option<String>, Vec<Refusal>) {
        let container = Container::running(ContainerId::new("ff").expect("valid"), "shop");
        let container = labels.iter().fold(container, |c, (key, value)| c.with_label(key, value));
        let host = Host::new("*.a.example").expect("valid");
        let mut refused = Vec::new();
        let check = http_check(&container, &mut |refusal| refused.push(refusal));
        (check.map(|check| format!("{} {}", check.class(), check.word(&host))), refused)
    }

    #[test]
    fn path_and_status_choose_the_class_and_the_word() {
        let path = ("hapilot.check.path", "/health?a=1:2");
        let status = |text| [path, ("hapilot.check.status", text)];
        let cases: [(&[(&str, &str)], _); 5] = [
            (&[], None),
            (&[path], Some("web-http -:a.example:/health?a=1:2")),
            (&status("200-399"), Some("web-http -:a.example:/health?a=1:2")),
            (&status("2xx"), Some("web-status 2:a.example:/health?a=1:2")),
            (&status("204"), Some("web-status 204:a.example:/health?a=1:2")),
        ];
        for (labels, wanted) in cases {
            assert_eq!(read(labels), (wanted.map(str::to_owned), vec![]), "{labels:?}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_refused_and_never_taken() {
        for bad in [
            "",
            "health",
            "/a b",
            "/a\nset",
            "/a;b",
            "/\u{e9}",
            "/a\"",
            "/\0",
            &format!("/{}", "x".repeat(PATH_LIMIT)),
        ] {
            let (check, refused) = read(&[("hapilot.check.path", bad)]);
            assert_eq!((check, refused.len()), (None, 1), "{bad:?}");
            assert_eq!(refused[0].0, "hapilot.check.path");
        }
        for bad in ["", "99", "600", "0xx", "2x", "2000", "+20", "abc", "2\u{e9}"] {
            let (check, refused) = read(&[("hapilot.check.path", "/"), ("hapilot.check.status", bad)]);
            assert_eq!((check.as_deref(), refused.len()), (Some("web-http -:a.example:/"), 1), "{bad:?}");
        }
        assert_eq!(read(&[("hapilot.check.status", "204")]).1.len(), 1, "a status without a path");
    }

    #[test]
    fn an_interval_has_a_unit_and_a_range() {
        let read = |text: &str| {
            let container = Container::running(ContainerId::new("ff").expect("valid"), "shop")
                .with_label("hapilot.check.interval", text);
            let mut refused = 0;
            (interval(&container, &mut |_| refused += 1), refused)
        };
        for (text, wanted) in [("100ms", 100), ("2s", 2_000), ("1h", 3_600_000)] {
            assert_eq!(read(text), (Some(wanted), 0), "{text}");
        }
        for text in ["", "2", "99ms", "2h", "-1s", "1.5s", "s", "2s;"] {
            assert_eq!(read(text), (None, 1), "{text}");
        }
    }
}
