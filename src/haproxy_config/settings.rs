//! What the operator decides about the start-up configuration.
//!
//! What lives here: values that were checked, so that `render` can't fail. What
//! it must not know: flags, variables, the file system.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::core::name::{ClassName, ServerName};

/// Why a setting can't stand in HAProxy's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// HAProxy would read it relative to a directory that hapilot doesn't know.
    #[error("the path {} must be absolute", .0.escape_debug())]
    Relative(String),
    /// A character that means something in HAProxy's configuration.
    #[error(
        "the path {} contains {}, but only letters, digits and any of . _ / + - may stand in it",
        .path.escape_debug(), .character.escape_debug()
    )]
    Character {
        /// The path offered.
        path: String,
        /// The first character that isn't allowed.
        character: char,
    },
    /// Longer than HAProxy takes.
    #[error("the path {path} has {length} bytes, HAProxy takes at most {limit}; choose a shorter directory")]
    TooLong {
        /// The path offered.
        path: String,
        /// Its bytes.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// An absolute path as HAProxy sees it: `[A-Za-z0-9._/+-]`, so that it needs no
/// quoting anywhere, 1 to 1,024 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigPath(String);

impl ConfigPath {
    /// Longest path, in bytes: a configuration line has 2,048.
    pub const LIMIT: usize = 1_024;

    /// Takes a text as a path; slashes at its end are dropped.
    pub fn new(text: &str) -> Result<Self, SettingsError> {
        let path = text.trim_end_matches('/');
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '+' | '-');
        if let Some(character) = path.chars().find(|&c| !allowed(c)) {
            return Err(SettingsError::Character { path: path.to_owned(), character });
        }
        if !path.starts_with('/') {
            return Err(SettingsError::Relative(text.to_owned()));
        }
        within(path, Self::LIMIT)?;
        Ok(Self(path.to_owned()))
    }

    /// The path itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn within(path: &str, limit: usize) -> Result<(), SettingsError> {
    if path.len() > limit {
        return Err(SettingsError::TooLong { path: path.to_owned(), length: path.len(), limit });
    }
    Ok(())
}

/// Where HAProxy listens for the Runtime API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeSocket {
    /// A unix socket. Made by [`RuntimeSocket::unix`], which knows the limit.
    Unix(ConfigPath),
    /// A TCP address. Whoever reaches it commands HAProxy.
    Tcp(SocketAddr),
}

impl RuntimeSocket {
    /// Longest path of a unix socket, in bytes: HAProxy binds it under a longer
    /// name first (recorded: 2.6 to 3.4 refuse 98).
    pub const UNIX_LIMIT: usize = 97;

    /// Takes a path as a unix socket.
    pub fn unix(path: ConfigPath) -> Result<Self, SettingsError> {
        within(path.as_str(), Self::UNIX_LIMIT)?;
        Ok(Self::Unix(path))
    }
}

/// Whom HAProxy becomes once its ports are bound. Only for an HAProxy that root
/// starts: any other refuses to start with this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User, by number (a name need not exist in HAProxy's image).
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
}

/// One HAProxy of two that share what they know of visitors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The same on both sides; in the alphabet of a server's name.
    pub name: ServerName,
    /// Where it listens for the other one.
    pub address: SocketAddr,
}

/// Both of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers {
    /// This one.
    pub own: Peer,
    /// Its partner.
    pub other: Peer,
}

/// Everything that decides the text of the configuration besides the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSettings {
    /// The directory as HAProxy sees it: `haproxy.cfg` and `maps/` lie in it.
    pub dir: ConfigPath,
    /// Where visitors come in.
    pub http: SocketAddr,
    /// Where hapilot comes in.
    pub runtime: RuntimeSocket,
    /// The classes, each a `defaults` section of the template.
    pub classes: Vec<ClassName>,
    /// Empty backends per class for HAProxy below 3.4, 0 to 10,000 or so; a
    /// thousand cost 10 MiB.
    pub pool_size: usize,
    /// The longest that a soft stop waits; whole seconds, at least one.
    pub grace: Duration,
    /// Whom HAProxy becomes after its start; `None` stays who started it.
    pub identity: Option<Identity>,
    /// With whom it shares what it knows of visitors.
    pub peers: Option<Peers>,
}

impl ConfigSettings {
    /// The usual values: all classes, a pool of 1,000, 30 seconds of grace.
    #[must_use]
    pub fn new(dir: ConfigPath, http: SocketAddr, runtime: RuntimeSocket) -> Self {
        Self {
            dir,
            http,
            runtime,
            classes: ClassName::all(),
            pool_size: 1_000,
            grace: Duration::from_secs(30),
            identity: None,
            peers: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_would_be_syntax_are_refused() {
        for (text, expected) in [
            ("run/hapilot", "the path run/hapilot must be absolute"),
            ("", "the path  must be absolute"),
            ("/", "the path / must be absolute"),
            (
                "/run/a b",
                "the path /run/a b contains  , but only letters, digits and any of . _ / + - may stand in it",
            ),
            (
                "/run/a\nb",
                "the path /run/a\\nb contains \\n, but only letters, digits and any of . _ / + - may stand in it",
            ),
        ] {
            assert_eq!(ConfigPath::new(text).unwrap_err().to_string(), expected);
        }
        for character in ['"', '\'', '\\', '#', ',', ')', '$', '%', '@', '\0', 'é', ';'] {
            let text = format!("/run/{character}");
            assert!(matches!(ConfigPath::new(&text), Err(SettingsError::Character { .. })), "{text:?}");
        }
        assert_eq!(ConfigPath::new("/run/hapilot//").unwrap().as_str(), "/run/hapilot");
    }

    #[test]
    fn a_long_unix_socket_is_refused() {
        let path = |n: usize| ConfigPath::new(&format!("/{}", "x".repeat(n - 1))).unwrap();
        assert!(RuntimeSocket::unix(path(97)).is_ok());
        assert!(matches!(RuntimeSocket::unix(path(98)), Err(SettingsError::TooLong { limit: 97, .. })));
    }
}
