//! One parser per kind of value, and the wording of every refusal.
//!
//! What lives here: the grammar of a value. What it must not know: which flags
//! there are, and their defaults (`settings`).

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SOCKET_LIMIT;

/// The two names of one setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flag {
    flag: &'static str,
    variable: &'static str,
}

pub(super) const fn flag(flag: &'static str, variable: &'static str) -> Flag {
    Flag { flag, variable }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (or {})", self.flag, self.variable)
    }
}

impl Flag {
    pub(super) fn refuse(self, value: &str, reason: impl Into<String>) -> SettingsError {
        SettingsError::Invalid { flag: self, value: shown(value), reason: reason.into() }
    }
}

/// A setting that can't be used. The text names the flag, its variable, the
/// value and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value is outside its grammar or range.
    #[error("{flag} can't be {value}: {reason}")]
    Invalid {
        /// Which one.
        flag: Flag,
        /// The value, quoted and cut so that it can be printed.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// Two settings exclude each other.
    #[error("{one} and {other} exclude each other: the first starts an HAProxy, the second attaches to one")]
    Conflict {
        /// The first.
        one: Flag,
        /// The second.
        other: Flag,
    },
    /// A setting needs another one.
    #[error("{flag} is set, so {missing} must be set too: {what}")]
    Missing {
        /// The one that is there.
        flag: Flag,
        /// The one that is not.
        missing: Flag,
        /// Its meaning.
        what: &'static str,
    },
    /// keepalived's configuration can't be made without it.
    #[error("{flag} is needed with --keepalived: {what}")]
    Needed {
        /// The one that is not there.
        flag: Flag,
        /// Its meaning.
        what: &'static str,
    },
}

/// Quoted, with control characters escaped, and cut to a readable length.
fn shown(value: &str) -> String {
    const LIMIT: usize = 120;
    if value.chars().count() <= LIMIT {
        return format!("{value:?}");
    }
    let head: String = value.chars().take(LIMIT).collect();
    format!("{head:?}… ({} bytes)", value.len())
}

/// An absolute path that may stand in HAProxy's configuration, in a Runtime API
/// command and in a converter's arguments as it is: letters, digits and
/// `/._-+@` only.
///
/// Blanks, quotes, `\`, `#` and `;` would end a word or a line there; `,` and
/// brackets would end an argument of `map_str(FILE)`, and `,` separates the
/// addresses of a `bind`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SafePath(String);

impl SafePath {
    pub(super) fn new(flag: Flag, text: &str, limit: usize) -> Result<Self, SettingsError> {
        if !text.starts_with('/') {
            return Err(flag.refuse(text, "it takes an absolute path, beginning with `/`"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '@');
        if let Some(c) = text.chars().find(|&c| !allowed(c)) {
            return Err(flag.refuse(
                text,
                format!(
                    "{c:?} is not allowed in it, because it stands in HAProxy's configuration; \
                     letters, digits and / . _ - + @ are"
                ),
            ));
        }
        let path = text.trim_end_matches('/');
        if path.is_empty() {
            return Err(flag.refuse(text, "it takes a path below `/`"));
        }
        if path.len() > limit {
            return Err(flag.refuse(
                text,
                format!("it has {} bytes, at most {limit} leave room for the names of sockets", path.len()),
            ));
        }
        Ok(Self(path.to_owned()))
    }

    /// The path, without a `/` at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A file below it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        Path::new(&self.0).join(name)
    }
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A socket that hapilot only connects to: any absolute path that Linux takes.
pub(super) fn socket_path(flag: Flag, value: &str, path: &str) -> Result<PathBuf, SettingsError> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(flag.refuse(value, "the path of the socket must be absolute, for example /run/x.sock"));
    }
    if path.len() > SOCKET_LIMIT {
        return Err(flag.refuse(
            value,
            format!("the path of the socket has {} bytes, Linux takes at most {SOCKET_LIMIT}", path.len()),
        ));
    }
    Ok(PathBuf::from(path))
}

/// `HOST:PORT` or `[IPV6]:PORT`; the port may be missing if there is a default.
pub(super) fn host_port(
    flag: Flag,
    value: &str,
    address: &str,
    default_port: Option<u16>,
) -> Result<(String, u16), SettingsError> {
    let refuse = |what: &str| flag.refuse(value, what);
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) =
            rest.split_once(']').ok_or_else(|| refuse("`]` is missing after the IPv6 address"))?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(refuse("between `[` and `]` must stand an IPv6 address"));
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(refuse("after `]` only a port may follow")),
        }
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.len() > 253 || !host.chars().all(name) {
        return Err(refuse(
            "it takes HOST:PORT, the host being a name, an IPv4 address or an [IPv6 address]",
        ));
    }
    let port = match (port, default_port) {
        (None, Some(port)) => port,
        (None, None) => return Err(refuse("the port is missing: it takes /PATH or tcp:HOST:PORT")),
        (Some(text), _) => decimal(text)
            .and_then(|number| u16::try_from(number).ok())
            .filter(|&port| port != 0)
            .ok_or_else(|| refuse("the port must be a number from 1 to 65535"))?,
    };
    Ok((host.to_owned(), port))
}

/// `ADDRESS:PORT` to listen on; the port is not 0.
pub(super) fn listen_address(flag: Flag, text: &str) -> Result<SocketAddr, SettingsError> {
    // A scope identifier (`fe80::1%eth0`) is not taken by HAProxy's `bind`.
    let address = text.parse::<SocketAddr>().ok().filter(|a| a.port() != 0 && !text.contains('%'));
    address.ok_or_else(|| {
        flag.refuse(
            text,
            "it takes an address and a port from 1 to 65535, for example 0.0.0.0:80 or [::]:80 \
             (an address, not a name)",
        )
    })
}

/// The name or identifier of a container, as Docker allows it.
pub(super) fn container(flag: Flag, text: &str) -> Result<String, SettingsError> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let fine = name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if fine {
        Ok(name.to_owned())
    } else {
        Err(flag.refuse(
            text,
            "it takes a container's name or id: letters, digits and _ . - (first a letter or digit)",
        ))
    }
}

/// A whole number within a range.
pub(super) fn number(flag: Flag, text: &str, least: usize, most: usize) -> Result<usize, SettingsError> {
    decimal(text)
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| flag.refuse(text, format!("it takes a number from {least} to {most}")))
}

/// Digits only: `parse` alone would take `+5`.
fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A whole number with its unit: `500ms`, `30s`, `2m`, `1h`.
pub(super) fn duration(
    flag: Flag,
    text: &str,
    least: Duration,
    most: Duration,
    range: &str,
) -> Result<Duration, SettingsError> {
    let value = crate::core::duration::parse(text).filter(|value| (least..=most).contains(value));
    value.ok_or_else(|| {
        flag.refuse(
            text,
            format!("it takes a number with its unit (ms, s, m, h), {range}, for example 500ms or 30s"),
        )
    })
}

/// Yes or no.
pub(super) fn boolean(flag: Flag, text: &str) -> Result<bool, SettingsError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(flag.refuse(text, "it takes true or false")),
    }
}

/// Levels and `MODULE=LEVEL`, comma separated. tracing would take a misspelt
/// level as the name of a module, and then log nothing.
pub(super) fn log_filter(flag: Flag, text: &str) -> Result<(), SettingsError> {
    let level = |word: &str| {
        matches!(word.to_ascii_lowercase().as_str(), "error" | "warn" | "info" | "debug" | "trace" | "off")
    };
    let fine = text.split(',').all(|part| match part.rsplit_once('=') {
        Some((module, word)) => !module.is_empty() && level(word),
        None => level(part),
    });
    if fine {
        Ok(())
    } else {
        Err(flag.refuse(
            text,
            "it takes error, warn, info, debug, trace or off, also per module: info,hapilot::docker=debug",
        ))
    }
}
