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
    let policy = Policy { check: check::http_check(container, &mut |(key, reason)| reject(key, &reason)) };
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
mod tests {
    use super::*;

    fn bare() -> Container {
        Container::running(ContainerId::new("0123456789abcdef").expect("valid"), "shop-1")
    }

    fn hosts_of(claims: &Claims) -> Vec<&str> {
        claims.claims.iter().map(|claim| claim.host.as_str()).collect()
    }

    /// Key and reason of the only rejection.
    fn only_rejection(claims: &Claims) -> (&str, &str) {
        match &claims.rejections[..] {
            [only] => (&only.key, &only.reason),
            other => panic!("wanted one rejection, got {other:?}"),
        }
    }

    #[test]
    fn a_container_without_a_host_is_not_ours() {
        let port_only = bare().with_env("VIRTUAL_PORT", "x").with_label("hapilot.weight", "x");
        for container in [bare(), port_only] {
            assert_eq!(claims(&container), Claims::default());
        }
    }

    #[test]
    fn hosts_are_read_from_either_place_and_the_label_wins() {
        let cases: &[(Option<&str>, Option<&str>, &[&str])] = &[
            (None, Some("a.example"), &["a.example"]),
            (Some("a.example"), None, &["a.example"]),
            (Some("b.example"), Some("a.example"), &["b.example"]),
            (None, Some(" a.example ,\tb.example,"), &["a.example", "b.example"]),
            (None, Some(",,a.example, ,"), &["a.example"]),
            (None, Some("B.Example,a.example,b.example.,b.example"), &["b.example", "a.example"]),
            (None, Some("*.a.example,a.example"), &["*.a.example", "a.example"]),
            (
                None,
                Some("xn--mller-kva.example,under_score,localhost"),
                &["xn--mller-kva.example", "under_score", "localhost"],
            ),
        ];
        for (label, env, wanted) in cases {
            let mut container = bare();
            if let Some(label) = label {
                container = container.with_label("hapilot.host", label);
            }
            if let Some(env) = env {
                container = container.with_env("VIRTUAL_HOST", env);
            }
            let got = claims(&container);
            assert_eq!(hosts_of(&got), *wanted, "{label:?} {env:?}");
            assert_eq!(got.rejections, [], "{label:?} {env:?}");
        }
    }

    #[test]
    fn a_bad_host_is_rejected_with_its_reason_and_takes_no_other_with_it() {
        let long = "a".repeat(300);
        let long_label = format!("{}.example", "a".repeat(64));
        let cases = [
            ("two words.example", "it has a blank inside"),
            ("a\tb.example", "it has a blank inside"),
            ("a.example; shutdown", "it has a blank inside"),
            ("a.example;b.example", "the character `;` is not allowed in a host"),
            ("a.example\nshow info", "it contains a line break"),
            ("a.example\r", "it contains a line break"),
            ("a\0.example", "it contains a NUL character"),
            ("a\u{1b}[31m.example", "it contains a control character"),
            ("a\u{85}.example", "it contains a control character"),
            ("\"a.example\"", "quotes are not allowed"),
            ("'a.example'", "quotes are not allowed"),
            ("m\u{fc}ller.example", "punycode"),
            ("\u{202e}example", "punycode"),
            (&long, "it has 300 characters, at most 253 are allowed"),
            (&long_label, "more than 63 characters"),
            ("http://a.example", "without `http://`; the port goes into VIRTUAL_PORT"),
            ("https://a.example:8080/", "without `http://`; the port goes into VIRTUAL_PORT"),
            ("a.example:8080", "write only the host; the port goes into VIRTUAL_PORT or hapilot.port"),
            ("a.example/path", "without a path"),
            ("~^www\\..*$", "regular expressions are not read"),
            ("a$b.example", "the character `$` is not allowed"),
            ("a..example", "empty label"),
            (".example", "empty label"),
            ("-a.example", "begins or ends with `-`"),
            ("www.example.*", "`*` may only stand as the whole first label"),
            ("*", "`*` may only stand as the whole first label"),
        ];
        for (bad, why) in cases {
            for key in ["VIRTUAL_HOST", "hapilot.host"] {
                let list = format!("good.example,{bad},also.example");
                let container = match key {
                    "VIRTUAL_HOST" => bare().with_env(key, &list),
                    _ => bare().with_label(key, &list),
                };
                let got = claims(&container);
                assert_eq!(hosts_of(&got), ["good.example", "also.example"], "{bad:?}");
                let (got_key, reason) = only_rejection(&got);
                assert_eq!(got_key, key);
                assert!(reason.contains(why), "{bad:?}: {reason}");
                assert!(reason.starts_with(&quoted(bad)), "{bad:?}: {reason}");
            }
        }
    }

    #[test]
    fn an_empty_list_is_said() {
        for empty in ["", " ", ",", " , ,\t"] {
            let got = claims(&bare().with_env("VIRTUAL_HOST", empty));
            assert_eq!(got.claims, [], "{empty:?}");
            assert!(only_rejection(&got).1.starts_with("it is empty"), "{empty:?}");
        }
        // The label wins even so.
        let got = claims(&bare().with_env("VIRTUAL_HOST", "a.example").with_label("hapilot.host", ""));
        assert_eq!(hosts_of(&got), Vec::<&str>::new());
        assert_eq!(only_rejection(&got).0, "hapilot.host");
    }

    #[test]
    fn a_list_has_its_limits() {
        let list = |n: usize| (0..n).map(|i| format!("h{i}.example")).collect::<Vec<_>>().join(",");
        assert_eq!(claims(&bare().with_env("VIRTUAL_HOST", &list(HOSTS_LIMIT))).rejections, []);
        let got = claims(&bare().with_env("VIRTUAL_HOST", &list(HOSTS_LIMIT + 7)));
        assert_eq!(hosts_of(&got).len(), HOSTS_LIMIT);
        assert_eq!(
            only_rejection(&got).1,
            "it lists 107 hosts, at most 100 are read; the last 7 are not served"
        );
        let huge = list(100_000);
        let got = claims(&bare().with_label("hapilot.host", &huge));
        assert_eq!(got.claims, []);
        assert!(only_rejection(&got).1.starts_with(&format!("it has {} bytes", huge.len())));
        // A full list of the longest hosts fits.
        let longest = format!("{0}.{0}.{0}", "a".repeat(63));
        let all = (0..HOSTS_LIMIT).map(|i| format!("{i:0>61}.{longest}")).collect::<Vec<_>>().join(",");
        let got = claims(&bare().with_env("VIRTUAL_HOST", &all));
        assert_eq!((got.claims.len(), got.rejections.len()), (HOSTS_LIMIT, 0));
    }

    #[test]
    fn the_port_is_the_one_said_else_the_only_exposed_else_80() {
        let cases = [
            (None, None, &[][..], 80),
            (None, None, &[3000], 3000),
            (None, None, &[443, 8080], 80),
            (None, None, &[0], 80),
            (None, Some("8080"), &[3000], 8080),
            (Some("1"), Some("8080"), &[3000], 1),
            (Some(" 65535 "), None, &[], 65535),
            (Some("9000"), Some("abc"), &[], 9000),
        ];
        for (label, env, exposed, wanted) in cases {
            let mut container = bare().with_env("VIRTUAL_HOST", "a.example");
            container.exposed_ports = exposed.to_vec();
            if let Some(label) = label {
                container = container.with_label("hapilot.port", label);
            }
            if let Some(env) = env {
                container = container.with_env("VIRTUAL_PORT", env);
            }
            let got = claims(&container);
            assert_eq!(got.rejections, []);
            assert_eq!(got.claims[0].port, wanted, "{label:?} {env:?} {exposed:?}");
        }
    }

    #[test]
    fn a_bad_port_rejects_every_claim_of_the_container() {
        for bad in
            ["0", "70000", "65536", "abc", "", "+80", "-1", "80 80", "80/tcp", "8\n0", "\u{0663}", "1e3"]
        {
            for key in ["VIRTUAL_PORT", "hapilot.port"] {
                let container = bare().with_env("VIRTUAL_HOST", "a.example,b.example");
                let container = match key {
                    "VIRTUAL_PORT" => container.with_env(key, bad),
                    _ => container.with_label(key, bad),
                };
                let got = claims(&container);
                assert_eq!(got.claims, [], "{bad:?}");
                let (got_key, reason) = only_rejection(&got);
                assert_eq!(got_key, key);
                assert!(reason.contains("write a number from 1 to 65535"), "{reason}");
            }
        }
        // What is wrong besides is said too.
        let got = claims(&bare().with_env("VIRTUAL_HOST", "a b").with_env("VIRTUAL_PORT", "x"));
        let keys: Vec<&str> = got.rejections.iter().map(|rejection| &*rejection.key).collect();
        assert_eq!(keys, ["VIRTUAL_PORT", "VIRTUAL_HOST"]);
    }

    #[test]
    fn a_bad_weight_is_reported_and_the_default_serves() {
        let of = |weight: &str| {
            claims(&bare().with_env("VIRTUAL_HOST", "a.example").with_label("hapilot.weight", weight))
        };
        for (good, wanted) in [("0", 0), ("256", 256), (" 7 ", 7)] {
            let got = of(good);
            assert_eq!((got.claims[0].weight, got.rejections.len()), (wanted, 0), "{good:?}");
        }
        for bad in ["257", "-1", "+1", "", "heavy", "99999999999999999999"] {
            let got = of(bad);
            assert_eq!(got.claims[0].weight, 1, "{bad:?}");
            let (key, reason) = only_rejection(&got);
            assert_eq!(key, "hapilot.weight");
            assert!(reason.contains("write a number from 0 to 256, until then it is 1"), "{reason}");
        }
    }

    #[test]
    fn an_unknown_label_is_reported_and_stops_nothing() {
        let cases = [
            ("hapilot.hosts", "it is not a label that hapilot knows; did you mean `hapilot.host`?"),
            ("hapilot.Port", "it is not a label that hapilot knows; did you mean `hapilot.port`?"),
            ("hapilot.netwrok", "it is not a label that hapilot knows; did you mean `hapilot.network`?"),
            (
                "hapilot.colour",
                "it is not a label that hapilot knows; \
                 it knows hapilot.check.interval, \
                 hapilot.check.path, hapilot.check.status, hapilot.haproxy, hapilot.host, hapilot.network, hapilot.port, \
                 hapilot.slowstart, hapilot.weight",
            ),
        ];
        for (key, reason) in cases {
            let container = bare().with_label(key, "x");
            assert_eq!(only_rejection(&claims(&container)), (key, reason));
            let got = claims(&container.with_env("VIRTUAL_HOST", "a.example"));
            assert_eq!(hosts_of(&got), ["a.example"]);
            assert_eq!(only_rejection(&got), (key, reason));
        }
        // A label of somebody else is none of our business.
        assert_eq!(claims(&bare().with_label("traefik.enable", "true")), Claims::default());
    }

    #[test]
    fn variables_of_nginx_proxy_that_are_not_read_are_named() {
        let container = bare().with_env("VIRTUAL_PATH", "/api").with_env("VIRTUAL_ENV", "/opt/venv");
        assert_eq!(claims(&container), Claims::default());
        let got = claims(&container.with_env("VIRTUAL_HOST", "a.example"));
        assert_eq!(hosts_of(&got), ["a.example"]);
        assert_eq!(only_rejection(&got).0, "VIRTUAL_PATH");
    }

    #[test]
    fn a_rejection_is_printable_and_bounded() {
        let container = Container::running(bare().id, &"\u{1b}\n\u{e9}".repeat(1000));
        let wild = "\0\u{10ffff}".repeat(1000);
        let got = Rejection::new(&container, &wild, &wild);
        for (text, limit) in [(&got.container, 128), (&got.key, 64), (&got.reason, 300)] {
            assert!(text.len() <= limit && text.ends_with("..."), "{text}");
            assert!(text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{text}");
        }
        assert!(got.container.starts_with("\\u{1b}\\n\\u{e9}"), "{}", got.container);
    }

    #[test]
    fn printable_cuts_only_what_is_too_long() {
        let cases = [
            ("abcde", 5, "abcde"),
            ("abcdef", 5, "ab..."),
            ("a\n", 3, "a\\n"),
            ("ab\n", 3, "..."),
            ("abcd", 2, ".."),
            ("", 0, ""),
            ("a", 0, ""),
        ];
        for (text, limit, wanted) in cases {
            assert_eq!(printable(text, limit), wanted, "{text:?} {limit}");
        }
    }

    #[test]
    fn a_server_is_named_after_its_container() {
        let cases = [
            ("shop-1", "0123456789abcdef", "shop-1-0123456789ab", "0123456789ab"),
            ("", "0123456789abcdef", "unnamed-0123456789ab", "0123456789ab"),
            ("a b;\n\u{e9}/c", "ff", "a_b____c-ff", "ff"),
            ("x", "a-b-c", "x-a_b_c", "a_b_c"),
        ];
        for (name, id, wanted, short) in cases {
            let server = server_name(&Container::running(ContainerId::new(id).expect("valid"), name));
            assert_eq!(server.as_str(), wanted);
            assert_eq!(id_of_server(&server), Some(short));
        }
        let long = Container::running(bare().id, &"n".repeat(300));
        assert_eq!(server_name(&long).as_str(), format!("{}-0123456789ab", "n".repeat(51)));
        for foreign in ["plain", "a-", "-a"] {
            assert_eq!(id_of_server(&ServerName::new(foreign).expect("valid")), None);
        }
    }
}
