//! Arrows between modules run one way only.
//!
//! What lives here: which module may name which, and how large a file may be.
//! What it must not know: what any of them does. It reads the text of the
//! sources, so it also sees what isn't compiled for this target.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests only")]

use std::collections::BTreeSet;
use std::path::Path;

/// Above this number of lines a file has two jobs.
const LINES: usize = 600;

/// Every module of the top level, and those of ours that it may name. A module
/// that isn't in here is a mistake too: whoever adds one says where it stands.
/// Written from below to above: each names only modules before it.
const ARROWS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("shutdown", &[]),
    ("role", &[]),
    ("backoff", &[]),
    ("whereabouts", &[]),
    ("runtime_api", &["core"]),
    ("docker", &["core", "backoff"]),
    ("haproxy_config", &["core"]),
    ("haproxy_process", &["core", "backoff", "haproxy_config"]),
    ("observe", &["core", "runtime_api"]),
    ("cli", &["core"]),
    ("settings", &["core", "cli"]),
    ("keepalived", &["settings"]),
    ("logging", &["settings"]),
    ("report", &["core", "logging", "role"]),
    ("metrics", &["core", "report", "role"]),
    ("apply", &["core", "runtime_api"]),
    ("reconcile", &["core", "runtime_api", "observe", "apply", "metrics"]),
    ("admin", &["core", "settings", "role", "report", "metrics", "shutdown"]),
    (
        "controller",
        &[
            "core",
            "shutdown",
            "backoff",
            "runtime_api",
            "docker",
            "haproxy_config",
            "haproxy_process",
            "keepalived",
            "observe",
            "report",
            "metrics",
            "reconcile",
            "admin",
        ],
    ),
];

/// These put everything together and may name everything.
const ABOVE_ALL: &[&str] = &["lib", "main", "run"];

/// Words that only files whose path begins so may name.
const CONFINED: &[(&str, &[&str])] = &[
    ("bollard::", &["docker/"]),
    ("backoff::", &["backoff.rs"]),
    ("nom::", &["runtime_api/parse", "runtime_api/version", "core/version"]),
    ("clap::", &["cli.rs", "cli/"]),
];

/// What the core may not name: it is pure.
const IMPURE: &[&str] = &[
    "tokio::",
    "tokio_util::",
    "futures_util::",
    "bollard::",
    "hyper::",
    "hyper_util::",
    "http_body_util::",
    "tempfile::",
    "rustix::",
    "tracing::",
    "tracing_subscriber::",
    "clap::",
    "nom::",
    "bytes::",
    "std::env",
    "std::fs",
    "std::io",
    "std::process",
    "std::thread",
    "std::sync::Mutex",
    "std::os",
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
];

/// One source: its path below `src`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The module of the top level that it belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules it lies below the crate: `core/name.rs` is 2 deep,
    /// `core/mod.rs` and `core.rs` are 1 deep.
    fn depth(&self) -> usize {
        let path = self.path.trim_end_matches(".rs");
        let path = path.trim_end_matches("/mod");
        match path {
            "lib" | "main" => 0,
            _ => path.split('/').count(),
        }
    }

    /// Unit tests in a file of their own may look further.
    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs")
    }

    /// The code without comments and without what stands in quotes.
    fn code(&self) -> String {
        let mut code = String::new();
        let mut rest = self.text.as_str();
        while let Some(c) = rest.chars().next() {
            let skipped = match c {
                '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
                '\'' if rest.starts_with("'\"'") => 3,
                '"' => quoted_length(rest),
                _ => 0,
            };
            if skipped == 0 {
                code.push(if c == '\n' { ' ' } else { c });
            }
            rest = &rest[skipped.max(c.len_utf8())..];
        }
        code
    }

    /// All code in one piece without blanks and line breaks, `use` trees
    /// spelled out: `std::{env,fs}` gives `std::env` and `std::fs`.
    fn spelled_out(&self) -> BTreeSet<String> {
        let code = self.code();
        let mut paths = BTreeSet::new();
        let words = |c: char| !(c.is_alphanumeric() || "_:{}, *".contains(c));
        for piece in code.split(words) {
            let mut prefixes: Vec<String> = vec![String::new()];
            let mut path = String::new();
            for c in piece.chars() {
                match c {
                    ' ' if path.ends_with(':') || path.is_empty() => {}
                    ' ' | ',' | '}' => {
                        paths.insert(format!("{}{path}", prefixes.last().unwrap()));
                        path.clear();
                        if c == '}' && prefixes.len() > 1 {
                            prefixes.pop();
                        }
                    }
                    '{' => {
                        let inside = format!("{}{path}", prefixes.last().unwrap());
                        // A block is no use tree.
                        prefixes.push(if path.ends_with("::") { inside } else { String::new() });
                        path.clear();
                    }
                    c => path.push(c),
                }
            }
            paths.insert(format!("{}{path}", prefixes.last().unwrap()));
        }
        paths
    }
}

/// How long a text in quotes is, which begins here; with its quotes.
fn quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The modules of ours that a file names.
fn ours(source: &Source) -> BTreeSet<String> {
    let up = "super::".repeat(source.depth());
    let mut found = BTreeSet::new();
    for path in source.spelled_out() {
        let rest = ["crate::", "hapilot::"].iter().find_map(|prefix| path.strip_prefix(prefix));
        let rest = rest.or_else(|| path.strip_prefix(&up).filter(|_| source.depth() > 0));
        if let Some(name) = rest.and_then(|rest| rest.split("::").next()) {
            // Further `super`s would be a path of inner modules (tests).
            if !matches!(name, "" | "self" | "super" | "*") {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

/// What is wrong with a file.
fn faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let path = &source.path;
    let module = source.module();
    if !source.text.starts_with("//!") {
        faults.push(format!("{path} doesn't open with `//!`: what lives there, and what it must not know"));
    }
    let lines = source.text.lines().count();
    if lines > LINES {
        faults.push(format!("{path} has {lines} lines, above {LINES} it has two jobs"));
    }
    if !ABOVE_ALL.contains(&module) && !source.is_test() {
        match ARROWS.iter().find(|(name, _)| *name == module) {
            None => faults.push(format!("{path}: say in ARROWS where module `{module}` stands")),
            Some((_, below)) => {
                for name in ours(source) {
                    let top = ARROWS.iter().any(|(other, _)| *other == name) || ABOVE_ALL.contains(&&*name);
                    if top && name != module && !below.contains(&&*name) {
                        faults.push(format!("{path}: `{module}` names `{name}`, which is not below it"));
                    }
                }
            }
        }
    }
    let spelled = source.spelled_out();
    let names = |word: &str| {
        let begins = |path: &str| match word.strip_suffix("::") {
            // A crate stands at the beginning of a path.
            Some(_) => path.starts_with(word),
            None if word.contains("::") => path == word || path.starts_with(&format!("{word}::")),
            None => path.split("::").any(|part| part == word),
        };
        spelled.iter().any(|path| begins(path.trim_start_matches("::")))
    };
    for (word, homes) in CONFINED {
        if names(word) && !homes.iter().any(|home| path.starts_with(home)) {
            faults.push(format!("{path} names `{word}`, which only {homes:?} may"));
        }
    }
    if module == "core" {
        for word in IMPURE.iter().filter(|word| names(word)) {
            faults.push(format!("{path}: the core is pure and may not name `{word}`"));
        }
    }
    faults
}

fn sources(folder: &Path, below: &str, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            sources(&entry.path(), &format!("{below}{name}/"), found);
        } else if Path::new(&name).extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            found.push(Source { path: format!("{below}{name}"), text });
        }
    }
}

#[test]
fn every_arrow_runs_the_right_way() {
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut all);
    assert!(all.iter().any(|source| source.path == "core/plan.rs"), "the sources were not found");
    let mut faults: Vec<String> = all.iter().flat_map(faults).collect();
    faults.sort();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_itself_has_no_arrow_upwards() {
    for (at, (name, below)) in ARROWS.iter().enumerate() {
        for other in *below {
            assert!(ARROWS[..at].iter().any(|(lower, _)| lower == other), "{name} → {other}");
        }
    }
}

#[test]
fn an_arrow_that_runs_the_wrong_way_is_found() {
    // (path, text after the opening line, a part of the complaint)
    let bad = [
        ("core/plan.rs", "use crate::runtime_api::Client;", "`core` names `runtime_api`"),
        ("core/plan.rs", "use super::super::docker::convert;", "`core` names `docker`"),
        ("core/mod.rs", "use super::docker::convert;", "`core` names `docker`"),
        ("core/plan.rs", "use crate::{\n    core::name,\n    apply::apply,\n};", "`core` names `apply`"),
        ("core/plan.rs", "fn f() { crate::metrics::count(); }", "`core` names `metrics`"),
        ("docker/mod.rs", "use hapilot::reconcile::Turn;", "`docker` names `reconcile`"),
        ("observe.rs", "use super::controller::Controller;", "`observe` names `controller`"),
        ("core/a.rs", "use std::time::{Duration, Instant};", "`Instant`"),
        ("core/a.rs", "use std::time::SystemTime as Clock;", "`SystemTime`"),
        ("core/a.rs", "use std::{collections::BTreeMap, env};", "`std::env`"),
        ("core/a.rs", "use std::{fs::File};", "`std::fs`"),
        ("core/a.rs", "fn f() { let _ = std::net::TcpStream::connect(x); }", "`TcpStream`"),
        ("core/a.rs", "fn f() { tracing::info!(\"x\"); }", "`tracing::`"),
        ("core/a.rs", "#[tokio::test]\nasync fn f() {}", "`tokio::`"),
        ("reconcile.rs", "use bollard::Docker;", "`bollard::`"),
        ("controller/mod.rs", "use ::backoff::ExponentialBackoff;", "`backoff::`"),
        ("runtime_api/codec.rs", "use nom::bytes::complete::tag;", "`nom::`"),
        ("settings.rs", "use clap::Parser;", "`clap::`"),
        (
            "core/a.rs",
            "const A: char = '\"'; use crate::docker::B; const C: &str = \"\\\"\";",
            "names `docker`",
        ),
        ("helper.rs", "", "say in ARROWS"),
        ("core/long.rs", &"fn f() {}\n".repeat(LINES), "has two jobs"),
    ];
    for (path, text, complaint) in bad {
        let source = Source { path: path.to_owned(), text: format!("//! A sample.\n{text}\n") };
        let found = faults(&source);
        assert!(found.iter().any(|fault| fault.contains(complaint)), "{path} with {text:?}: {found:?}");
    }
    let undocumented = Source { path: "core/a.rs".to_owned(), text: "use std::fmt;\n".to_owned() };
    assert!(faults(&undocumented)[0].contains("doesn't open with"));
}

#[test]
fn what_is_allowed_is_not_complained_about() {
    let good = [
        ("core/plan.rs", "use std::net::{IpAddr, SocketAddr};\nuse std::time::Duration;"),
        ("core/plan.rs", "use super::diff::Change;\nuse crate::core::name::{BackendName, Host};"),
        ("core/plan.rs", "// use crate::docker::Inventory;\n/// As `tokio::time` would."),
        ("core/plan.rs", "mod tests {\n    use super::super::name::Host;\n    use super::*;\n}"),
        (
            "apply.rs",
            "use std::time::Instant;\nuse crate::core::plan::Plan;\nuse crate::runtime_api::Client;",
        ),
        ("docker/client.rs", "use bollard::Docker;\nuse crate::backoff::Backoff;\nuse super::events;"),
        ("backoff.rs", "use backoff::ExponentialBackoff;"),
        ("controller/mod.rs", "use crate::backoff::Backoff;\nuse crate::reconcile::Reconcile;"),
        ("main.rs", "use hapilot::run;"),
        ("settings.rs", "const FILTER: &str = \"info,hapilot::docker=debug\"; // crate::docker"),
        ("core/name/tests.rs", "use crate::runtime_api::encode;"),
    ];
    for (path, text) in good {
        let source = Source { path: path.to_owned(), text: format!("//! A sample.\n{text}\n") };
        assert_eq!(faults(&source), Vec::<String>::new(), "{path} with {text:?}");
    }
}
