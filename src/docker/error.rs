//! What can go wrong between us and an engine.
//!
//! What lives here: one error type and how bollard's errors become it. What it
//! must not know: what is done about an error.
//!
//! Texts that came from the engine are cut and escaped, so every message can
//! be logged as it is.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error as BollardError;

/// Longest piece of an engine's answer that is repeated in a message.
const SHOWN: usize = 200;

/// An engine that can't be reached, or an answer that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerError {
    /// The address (`DOCKER_HOST`, `--docker`) is not one.
    #[error("the Docker address {text:?} can't be used: {reason}")]
    Address {
        /// The address as it was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the TLS material is missing or unusable.
    #[error("the TLS file {} can't be used: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is at the socket's path.
    #[error(
        "no Docker engine at {address}: the socket does not exist; start the engine, mount its socket here, or \
         name another address with --docker"
    )]
    Absent {
        /// The engine's address.
        address: String,
    },
    /// The socket is there, but may not be opened by this user.
    #[error(
        "no permission to open {address}: run hapilot as a user of the socket's group (often `docker`) or as root"
    )]
    Permission {
        /// The engine's address.
        address: String,
    },
    /// The address does not answer: refused, no route, name unknown, TLS failed.
    #[error("the Docker engine at {address} does not answer: {reason}")]
    Unreachable {
        /// The engine's address.
        address: String,
        /// What the operating system or TLS said.
        reason: String,
    },
    /// The engine speaks no version of the API that we know.
    #[error("the Docker engine at {address} can't be used: {reason}")]
    Version {
        /// The engine's address.
        address: String,
        /// What it offers and what we need.
        reason: String,
    },
    /// The engine has no such object (status 404).
    #[error("{what}: Docker knows no such container")]
    NotFound {
        /// What was asked.
        what: String,
    },
    /// The engine refused or failed (any other status outside 200 to 299).
    #[error("{what}: Docker answered with status {status}: {message}")]
    Status {
        /// What was asked.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the engine says about it, cut and escaped.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("{what}: Docker's answer makes no sense: {reason}")]
    Garbage {
        /// What was asked.
        what: String,
        /// Where it departs from what was expected, cut and escaped.
        reason: String,
    },
    /// No complete answer came in time.
    #[error("{what}: no answer from Docker within {} ms", after.as_millis())]
    Timeout {
        /// What was asked.
        what: String,
        /// The deadline.
        after: Duration,
    },
    /// The connection ended before the answer did.
    #[error("{what}: the connection to Docker broke: {reason}")]
    Broken {
        /// What was asked.
        what: String,
        /// How it broke.
        reason: String,
    },
}

impl DockerError {
    /// True if the same request may succeed later without anyone changing
    /// hapilot's settings.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Address { .. } | Self::Tls { .. } | Self::NotFound { .. })
    }

    /// True if the engine said that the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// True if the engine does not do what was asked for anybody, or for us: a
    /// proxy before it may refuse.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Status { status: 401 | 403 | 405 | 501, .. })
    }

    /// True if the engine as a whole can't be talked to, so that asking for
    /// another container makes no sense.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Address { .. }
                | Self::Tls { .. }
                | Self::Absent { .. }
                | Self::Permission { .. }
                | Self::Unreachable { .. }
                | Self::Version { .. }
        )
    }

    /// An answer that departs from the API.
    pub(super) fn garbage(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Garbage { what: what.into(), reason: shown(&reason.to_string()) }
    }

    /// An answer with a status outside 200 to 299.
    pub(super) fn status(what: impl Into<String>, status: u16, message: &str) -> Self {
        let what = what.into();
        if status == 404 {
            Self::NotFound { what }
        } else {
            Self::Status { what, status, message: shown(message) }
        }
    }

    /// What hyper said about a request that got no answer.
    pub(super) fn transport(
        address: &str,
        what: impl Into<String>,
        error: &hyper_util::client::legacy::Error,
    ) -> Self {
        let reason = shown(&deepest(error));
        if !error.is_connect() {
            return Self::Broken { what: what.into(), reason };
        }
        let address = address.to_owned();
        match io_kind(error) {
            Some(io::ErrorKind::NotFound) => Self::Absent { address },
            Some(io::ErrorKind::PermissionDenied) => Self::Permission { address },
            _ => Self::Unreachable { address, reason },
        }
    }

    /// What bollard said about a request.
    pub(super) fn bollard(
        address: &str,
        what: impl Into<String>,
        deadline: Duration,
        error: &BollardError,
    ) -> Self {
        let what = what.into();
        match error {
            BollardError::DockerResponseServerError { status_code, message } => {
                Self::status(what, *status_code, message)
            }
            BollardError::JsonDataError { .. }
            | BollardError::JsonSerdeError { .. }
            | BollardError::StrParseError { .. } => Self::garbage(what, error),
            BollardError::RequestTimeoutError => Self::Timeout { what, after: deadline },
            BollardError::HyperLegacyError { err } => Self::transport(address, what, err),
            other => Self::Broken { what, reason: shown(&deepest(other)) },
        }
    }
}

/// A foreign text in a form that fits into one log line.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// The text of the innermost cause, which is the one that says something.
fn deepest(error: &dyn StdError) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The operating system's kind of error, if one is among the causes.
fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_and_escaped() {
        let text = format!("a\n\u{1b}[31m{}", "x".repeat(500));
        let shown = shown(&text);
        assert!(shown.starts_with("a\\n\\u{1b}[31m"), "{shown}");
        assert!(shown.ends_with('…') && shown.len() < 250);
    }

    #[test]
    fn a_404_is_told_from_other_failures() {
        assert!(DockerError::status("inspect", 404, "No such container").is_not_found());
        let failed = DockerError::status("inspect", 500, "out of\nmemory");
        assert!(!failed.is_not_found() && failed.is_retryable() && !failed.is_unreachable());
        assert_eq!(failed.to_string(), "inspect: Docker answered with status 500: out of\\nmemory");
    }
}
