//! Labels and environment of a container → what it claims, or why not.
//!
//! What lives here: the meaning of every label and variable. What it must not
//! know: the container's address (`endpoint`), other containers (`desired`).
//!
//! A label wins over the variable of the same meaning. A host that can't be
//! served takes nothing from the others of its list; a port that can't be read
//! takes all of them, since no guess about a port is better than a message.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use super::check::{self, HttpCheck};
use super::container::{Container, ContainerId};
use super::duration;
use super::label::{HOST, PORT, SLOW_START, WEIGHT, trimmed, unknown_labels};
use super::name::{ClassName, Host, NameError, ServerName};
use super::sticky::{self, Sticky};

/// One thing that a container asks for: a share of a host's load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The host.
    pub host: Host,
    /// The TCP port on which the container listens for it, 1 to 65535.
    pub port: u16,
    /// Its share of the load, 0 to 256; 1 if it says nothing.
    pub weight: u16,
}

/// One thing that can't be done as a container asked. All texts are safe to
/// print: control characters and characters outside ASCII are escaped, and
/// long values are cut.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Rejection {
    /// The container's name, made printable; at most [`Rejection::CONTAINER_LIMIT`].
    pub container: String,
    /// The container's identifier.
    pub id: ContainerId,
    /// The label, variable or fact at fault; at most [`Rejection::KEY_LIMIT`].
    pub key: String,
    /// Why, as a sentence without a full stop; at most [`Rejection::REASON_LIMIT`].
    pub reason: String,
}

impl Rejection {
    /// Longest name of a container, in characters.
    pub const CONTAINER_LIMIT: usize = 128;
    /// Longest key, in characters.
    pub const KEY_LIMIT: usize = 64;
    /// Longest reason, in characters.
    pub const REASON_LIMIT: usize = 300;

    /// Makes every text printable and cuts it to its limit.
    #[must_use]
    pub fn new(container: &Container, key: &str, reason: &str) -> Self {
        Self {
            container: printable(&container.name, Self::CONTAINER_LIMIT),
            id: container.id.clone(),
            key: printable(key, Self::KEY_LIMIT),
            reason: printable(reason, Self::REASON_LIMIT),
        }
    }
}

/// What a container wants for all that serve a host with it. Only one of them
/// can have its way: see [`super::desired`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// How HAProxy checks the servers; `None`: it only connects.
    pub check: Option<HttpCheck>,
    /// How visitors come back to the same container; `None`: they needn't.
    pub sticky: Option<Sticky>,
}

impl Policy {
    /// The class that can do that.
    #[must_use]
    pub fn class(&self) -> ClassName {
        self.check.as_ref().map_or_else(ClassName::web, HttpCheck::class)
    }
}

/// Everything a container asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claims {
    /// How its hosts are served.
    pub policy: Policy,
    /// Between two checks of it while it is up, milliseconds.
    pub inter_ms: Option<u32>,
    /// For how long its share of the load grows, milliseconds.
    pub slow_start_ms: Option<u32>,
    /// What can be served as far as the container alone decides, in the order
    /// of its list, each host once.
    pub claims: Vec<Claim>,
    /// What can't, and what was passed over.
    pub rejections: Vec<Rejection>,
}

/// Variables of nginx-proxy that would change what is served and that hapilot
/// does not read: said, lest someone who comes from there looks for long.
const PASSED_OVER: [&str; 4] = ["VIRTUAL_DEST", "VIRTUAL_HOST_MULTIPORTS", "VIRTUAL_PATH", "VIRTUAL_PROTO"];

/// Hosts that one container may list.
pub const HOSTS_LIMIT: usize = 100;
/// Bytes that one list of hosts may have: 100 hosts of full length and their
/// separators fit.
pub const HOSTS_TEXT_LIMIT: usize = 32 * 1024;
/// How long a slow start may take.
const SLOW_STARTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// The weight of a container that names none.
const DEFAULT_WEIGHT: u16 = 1;
/// The port of a container that names none and exposes none or several.
const DEFAULT_PORT: u16 = 80;
/// Characters of a container's text that are quoted in a reason.
const QUOTE_LIMIT: usize = 80;

/// What the container asks for. Nothing and no rejection for one that names no
/// host, except that a mistyped `hapilot.` label is always reported: it may be
/// the host.
#[must_use]
pub fn claims(container: &Container) -> Claims {
    let mut rejections = unknown_labels(container);
    let Some((key, list)) = HOST.said_by(container) else {
        return Claims { rejections, ..Claims::default() };
    };
    let mut reject = |key: &str, reason: &str| rejections.push(Rejection::new(container, key, reason));
    for name in PASSED_OVER.into_iter().filter(|&name| container.env.contains_key(name)) {
        reject(name, "hapilot does not read this variable; the container is served as if it were absent");
    }
    let weight = weight(container).unwrap_or_else(|reason| {
        reject(WEIGHT.key, &reason);
        DEFAULT_WEIGHT
    });
    let policy = Policy {
        check: check::http_check(container, &mut |(key, reason)| reject(key, &reason)),
        sticky: sticky::sticky(container, &mut |(key, reason)| reject(key, &reason)),
    };
    let inter_ms = check::interval(container, &mut |(key, reason)| reject(key, &reason));
    let slow_start_ms = slow_start(container).unwrap_or_else(|reason| {
        reject(SLOW_START.key, &reason);
        None
    });
    let port = port(container).map_err(|(key, reason)| reject(key, &reason)).ok();
    let hosts = hosts(list, |reason| reject(key, reason));
    let claims = match port {
        Some(port) => hosts.into_iter().map(|host| Claim { host, port, weight }).collect(),
        None => Vec::new(),
    };
    Claims { policy, inter_ms, slow_start_ms, claims, rejections }
}

/// The name under which the container stands in its backends:
/// `<name>-<short id>`, at most 64 bytes. Characters that HAProxy does not
/// permit become `_`. It differs from the name of another container as long as
/// their identifiers differ in the first twelve characters.
#[must_use]
pub fn server_name(container: &Container) -> ServerName {
    let name = if container.name.is_empty() { "unnamed" } else { &container.name };
    ServerName::labelled(name, container.id.short())
}

/// The short identifier in a name that [`server_name`] gave: what follows the
/// last `-`. A server that somebody else named may give any text or `None`.
#[must_use]
pub fn id_of_server(server: &ServerName) -> Option<&str> {
    server.id_part()
}

/// A text of unknown origin as at most `limit` printable ASCII characters:
/// others are escaped as Rust writes them (`\n`, `\u{e9}`), and what is too long
/// ends in `...`.
#[must_use]
pub fn printable(text: &str, limit: usize) -> String {
    let mut out = String::new();
    // Up to where the text stays if it turns out too long.
    let mut kept = 0;
    for c in text.chars() {
        if c == ' ' || c.is_ascii_graphic() {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
        if out.len() > limit {
            out.truncate(kept);
            out.push_str("...".get(..limit.min(3)).unwrap_or_default());
            return out;
        }
        if out.len() + 3 <= limit {
            kept = out.len();
        }
    }
    out
}

/// A text of unknown origin in backticks, short enough for a reason.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", printable(text, QUOTE_LIMIT))
}

/// The hosts of a list, each once, in its order.
fn hosts(list: &str, mut reject: impl FnMut(&str)) -> Vec<Host> {
    if list.len() > HOSTS_TEXT_LIMIT {
        reject(&format!(
            "it has {} bytes, at most {HOSTS_TEXT_LIMIT} are read; none of it is served",
            list.len()
        ));
        return Vec::new();
    }
    let items = || list.split(',').map(trimmed).filter(|item| !item.is_empty());
    match items().count() {
        0 => reject("it is empty; write a host, or leave it out"),
        1..=HOSTS_LIMIT => {}
        count => reject(&format!(
            "it lists {count} hosts, at most {HOSTS_LIMIT} are read; the last {} are not served",
            count - HOSTS_LIMIT
        )),
    }
    let mut seen = BTreeSet::new();
    let mut hosts = Vec::new();
    for item in items().take(HOSTS_LIMIT) {
        match host(item) {
            Ok(host) if seen.insert(host.clone()) => hosts.push(host),
            Ok(_) => {}
            Err(reason) => reject(&format!("{}: {reason}", quoted(item))),
        }
    }
    hosts
}

/// One host, or what is wrong with it. What people often write gets an answer
/// that says what to write instead.
fn host(item: &str) -> Result<Host, String> {
    Host::new(item).map_err(|error| {
        let control = item.chars().find(|c| c.is_control() && *c != '\t');
        let hint = match control {
            Some('\0') => "it contains a NUL character",
            Some('\n' | '\r') => "it contains a line break",
            Some(_) => "it contains a control character",
            None if item.starts_with('~') => {
                "regular expressions are not read; write each host, or `*.example.org`"
            }
            None if item.contains("://") => {
                "write only the host, without `http://`; the port goes into VIRTUAL_PORT or hapilot.port"
            }
            None if item.contains('/') => "write only the host, without a path",
            None if item.contains([' ', '\t']) => {
                "it has a blank inside; several hosts are separated by commas"
            }
            None if item.contains(';') => {
                "the character `;` is not allowed in a host; several hosts are separated by commas"
            }
            None if item.contains(['"', '\'']) => "quotes are not allowed in a host; write it without them",
            None if item.contains(':') => {
                "write only the host; the port goes into VIRTUAL_PORT or hapilot.port"
            }
            None => {
                return match error {
                    NameError::Character(c) => format!("the character `{c}` is not allowed in a host"),
                    other => other.to_string(),
                };
            }
        };
        hint.to_owned()
    })
}

/// The port, or the key at fault and why.
fn port(container: &Container) -> Result<u16, (&'static str, String)> {
    let Some((key, text)) = PORT.said_by(container) else {
        return Ok(match container.exposed_ports[..] {
            [only] if only != 0 => only,
            _ => DEFAULT_PORT,
        });
    };
    number(text).filter(|&port| port != 0).ok_or_else(|| {
        let what = if text.is_empty() {
            "it is empty".to_owned()
        } else {
            format!("{} is not a port", quoted(text))
        };
        (key, format!("{what}; write a number from 1 to 65535, until then none of its hosts is served"))
    })
}

fn weight(container: &Container) -> Result<u16, String> {
    let Some((_, text)) = WEIGHT.said_by(container) else { return Ok(DEFAULT_WEIGHT) };
    number(text).filter(|&weight| weight <= 256).ok_or_else(|| {
        format!(
            "{} is not a weight; write a number from 0 to 256, until then it is {DEFAULT_WEIGHT}",
            quoted(text)
        )
    })
}

fn slow_start(container: &Container) -> Result<Option<u32>, String> {
    let Some((_, text)) = SLOW_START.said_by(container) else { return Ok(None) };
    duration::milliseconds(text, &SLOW_STARTS).map(Some).ok_or_else(|| {
        format!("{} is not a time; write 1s to 1h, until then it has its full share at once", quoted(text))
    })
}

/// Decimal digits only: `parse` alone takes `+80` too.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
