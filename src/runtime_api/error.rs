//! What can go wrong between hapilot and the Runtime API.
//!
//! What lives here: one variant per cause, each saying what to do about it.
//! What it must not know: whether somebody tries again.

use std::io;
use std::time::Duration;

use super::address::RuntimeApiAddress;
use super::codec::CodecError;
use super::parse::ParseError;
use super::reply::Verdict;
use crate::core::command::{OLDEST, Version};
use crate::core::state::Map;

/// Why HAProxy can't be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection came about.
    #[error("no connection to HAProxy's Runtime API at {address}: {source}{}", hint(source, address))]
    Connect {
        /// Where it was tried.
        address: RuntimeApiAddress,
        /// What the system said.
        source: io::Error,
    },
    /// Connected, but HAProxy did not greet in time.
    #[error(
        "HAProxy's Runtime API at {address} takes the connection but says nothing for {waited:?}: too many sessions are \
         open on it (`stats maxconn`), or something else listens there"
    )]
    Mute {
        /// Where.
        address: RuntimeApiAddress,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The greeting is not that of a worker's Runtime API.
    #[error(
        "what listens at {address} is not the Runtime API of an HAProxy worker{}: it answered `{answer}`",
        if *master { " but the master's CLI; name a `stats socket` instead" } else { "" }
    )]
    NotRuntimeApi {
        /// Where.
        address: RuntimeApiAddress,
        /// It is the socket of `haproxy -W -S`.
        master: bool,
        /// The beginning of what it said, escaped.
        answer: String,
    },
    /// The socket gives less than the level `admin`.
    #[error(
        "the Runtime API at {address} has the level `{level}`; hapilot needs `stats socket … level admin` in HAProxy's \
         configuration"
    )]
    NotAdmin {
        /// Where.
        address: RuntimeApiAddress,
        /// What `show cli level` said, escaped.
        level: String,
    },
    /// HAProxy is older than hapilot can drive.
    #[error("HAProxy {version} at {address} is too old: hapilot needs {OLDEST} or later")]
    TooOld {
        /// Where.
        address: RuntimeApiAddress,
        /// Its version.
        version: Version,
    },
    /// This HAProxy is on its way out (a reload or a stop): commands to it would
    /// succeed into the void.
    #[error("the HAProxy at {address} (pid {pid}) is stopping")]
    Stopping {
        /// Where.
        address: RuntimeApiAddress,
        /// Its process.
        pid: u32,
    },
    /// The connection leads to another process than before.
    #[error("the HAProxy at {address} was replaced: pid {was} became {now}")]
    Replaced {
        /// Where.
        address: RuntimeApiAddress,
        /// The process at the time of the connection.
        was: u32,
        /// The process now.
        now: u32,
    },
    /// No reply, or not all of them, in time.
    #[error("HAProxy at {address} did not answer within {waited:?}")]
    Deadline {
        /// Where.
        address: RuntimeApiAddress,
        /// The bound that was broken.
        waited: Duration,
    },
    /// HAProxy closed the connection before it had answered.
    #[error(
        "HAProxy at {address} closed the connection before it had answered; it stopped, or `stats timeout` is short"
    )]
    Closed {
        /// Where.
        address: RuntimeApiAddress,
    },
    /// The socket failed.
    #[error("the connection to HAProxy at {address} broke: {source}")]
    Io {
        /// Where.
        address: RuntimeApiAddress,
        /// What the system said.
        source: io::Error,
    },
    /// A reply has no end within the bound.
    #[error("HAProxy at {address} sent a reply of more than {} bytes", super::codec::REPLY_LIMIT)]
    ReplyTooLong {
        /// Where.
        address: RuntimeApiAddress,
    },
    /// A reply that is not of the known form.
    #[error("the reply of HAProxy at {address} to `{query}` is not understood: {why}")]
    Unparsable {
        /// Where.
        address: RuntimeApiAddress,
        /// What was asked.
        query: String,
        /// Which part of it.
        why: ParseError,
    },
    /// A map was to be read or changed before its path was asked for.
    #[error("the path of the map {} was not asked for yet", .0.file_name())]
    UnknownMap(Map),
    /// The connection failed before, or a call on it was given up half way:
    /// replies could be taken for those of other commands.
    #[error("the connection to HAProxy at {address} is out of step and has to be made anew")]
    Poisoned {
        /// Where.
        address: RuntimeApiAddress,
    },
}

impl ClientError {
    /// True if a new connection may succeed with nothing changed by a person.
    /// A missing socket counts as that: HAProxy may be on its way up.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            Self::NotRuntimeApi { .. }
            | Self::NotAdmin { .. }
            | Self::TooOld { .. }
            | Self::Unparsable { .. }
            | Self::UnknownMap(_) => false,
            Self::Mute { .. }
            | Self::Stopping { .. }
            | Self::Replaced { .. }
            | Self::Deadline { .. }
            | Self::Closed { .. }
            | Self::Io { .. }
            | Self::ReplyTooLong { .. }
            | Self::Poisoned { .. } => true,
        }
    }

    /// The error of the codec, with the address.
    pub(super) fn from_codec(error: CodecError, address: &RuntimeApiAddress) -> Self {
        let address = address.clone();
        match error {
            CodecError::ReplyTooLong => Self::ReplyTooLong { address },
            CodecError::Closed => Self::Closed { address },
            CodecError::Io(source) => Self::from_io(source, &address),
        }
    }

    /// The error of the socket, with the address. A connection that the other
    /// side closed is [`ClientError::Closed`], whatever the system calls it.
    pub(super) fn from_io(source: io::Error, address: &RuntimeApiAddress) -> Self {
        let address = address.clone();
        match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                Self::Closed { address }
            }
            _ => Self::Io { address, source },
        }
    }
}

/// What a person can do about a failed connection.
fn hint(error: &io::Error, address: &RuntimeApiAddress) -> &'static str {
    let unix = address.path().is_some();
    match error.kind() {
        io::ErrorKind::NotFound if unix => {
            "; is the path right (`stats socket` in HAProxy's configuration), and is HAProxy running?"
        }
        io::ErrorKind::PermissionDenied => {
            "; hapilot's user may not open the socket: see `mode`, `user` and `group` of `stats socket`"
        }
        io::ErrorKind::ConnectionRefused if unix => {
            "; the socket's file is there but nobody listens: HAProxy has ended"
        }
        io::ErrorKind::ConnectionRefused => "; nobody listens there: is HAProxy running, is the port right?",
        _ => "",
    }
}

/// Why a sequence of commands was not answered to its end.
#[derive(Debug, thiserror::Error)]
#[error("{} commands were answered, then: {error}", done.len())]
pub struct RunError {
    /// The verdicts on the first commands, in order. Later ones may have been
    /// carried out as well: nobody knows.
    pub done: Vec<Verdict>,
    /// What ended it.
    #[source]
    pub error: ClientError,
}
