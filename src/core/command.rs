//! The Runtime API commands that change something, with validated arguments.
//!
//! What lives here: one variant per command class, and the capabilities that
//! differ between HAProxy's versions. What it must not know: bytes on the wire
//! (`runtime_api::encode`), success texts (`runtime_api::reply`), order (`plan`).

use std::net::SocketAddr;

use serde::Serialize;

use super::name::{BackendName, ClassName, MapWord, ServerName};
use super::state::{Admin, Map};

/// A server and the backend it stands in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct ServerRef {
    /// The backend.
    pub backend: BackendName,
    /// The server.
    pub server: ServerName,
}

impl std::fmt::Display for ServerRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.backend, self.server)
    }
}

/// How HAProxy itself checks a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// Between two checks of a server that is up, milliseconds (`inter`).
    pub inter_ms: u32,
    /// Between two checks while the state changes, milliseconds (`fastinter`).
    pub fastinter_ms: u32,
    /// Between two checks of a server that is down, milliseconds (`downinter`).
    pub downinter_ms: u32,
    /// So many failed checks in a row take a server down (`fall`).
    pub fall: u8,
}

impl Check {
    /// With a server's own interval, if it has one.
    #[must_use]
    pub fn every(self, inter_ms: Option<u32>) -> Self {
        Self { inter_ms: inter_ms.unwrap_or(self.inter_ms), ..self }
    }
}

/// A container that begins to listen is found within `downinter`. A server that
/// is alone with its visitors and does not listen yet stays in service for
/// `fall` checks, so nearly two seconds, in which their requests wait; no longer
/// than the class retries.
impl Default for Check {
    fn default() -> Self {
        Self { inter_ms: 5_000, fastinter_ms: 200, downinter_ms: 100, fall: 10 }
    }
}

/// One command that changes HAProxy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// `add backend NAME from CLASS` (3.4+). Unpublished at first.
    AddBackend {
        /// The new backend.
        backend: BackendName,
        /// The `defaults` section it is made from.
        class: ClassName,
    },
    /// `publish backend NAME` (3.4+): from now on rules may choose it.
    PublishBackend {
        /// The backend.
        backend: BackendName,
    },
    /// `unpublish backend NAME` (3.4+): rules pass it over.
    UnpublishBackend {
        /// The backend.
        backend: BackendName,
    },
    /// `del backend NAME` (3.4+). Refused while it has servers or users.
    DelBackend {
        /// The backend.
        backend: BackendName,
    },
    /// `add server B/S ADDRESS check …`. The new server is in maint.
    AddServer {
        /// Where and under what name.
        server: ServerRef,
        /// Where the container listens.
        address: SocketAddr,
        /// 0 to 256.
        weight: u16,
        /// HAProxy's own check.
        check: Check,
        /// Its share of the load grows for so long after it came up, milliseconds.
        slow_start_ms: Option<u32>,
        /// Give the keywords without which 2.6 keeps no connection to it open.
        pool_keywords: bool,
    },
    /// `enable health B/S`: without it a dynamic server's check never runs.
    EnableHealth {
        /// Which one.
        server: ServerRef,
    },
    /// `set server B/S health up|down`: what the checks have found until now is
    /// replaced; the next ones go on from there. Taken back by leaving maint.
    SetServerHealth {
        /// Which one.
        server: ServerRef,
        /// As if all checks had passed, or failed.
        up: bool,
    },
    /// `set server B/S state ready|drain|maint`.
    SetServerState {
        /// Which one.
        server: ServerRef,
        /// The new state.
        admin: Admin,
    },
    /// `set server B/S addr IP port PORT`.
    SetServerAddress {
        /// Which one.
        server: ServerRef,
        /// The new address.
        address: SocketAddr,
    },
    /// `set server B/S weight N`.
    SetServerWeight {
        /// Which one.
        server: ServerRef,
        /// 0 to 256.
        weight: u16,
    },
    /// `shutdown sessions server B/S`: cuts what is still open to it.
    ShutdownSessions {
        /// Which one.
        server: ServerRef,
    },
    /// `del server B/S`. Refused while it has connections.
    DelServer {
        /// Which one.
        server: ServerRef,
    },
    /// `add map F KEY VALUE`. The key must not be there yet.
    AddMap {
        /// Which map.
        map: Map,
        /// The new key.
        key: MapWord,
        /// Its value.
        value: MapWord,
    },
    /// `set map F KEY VALUE`. The key must be there.
    SetMap {
        /// Which map.
        map: Map,
        /// The key.
        key: MapWord,
        /// Its new value.
        value: MapWord,
    },
    /// `del map F KEY`.
    DelMap {
        /// Which map.
        map: Map,
        /// The key.
        key: MapWord,
    },
    /// `del map F #REF`: one of several entries under one key (only a hand on
    /// the socket makes these; the first of them is the one in force).
    DelMapEntry {
        /// Which map.
        map: Map,
        /// The entry's reference, as `show map` printed it after `0x`.
        reference: u64,
    },
}

impl Command {
    /// The server it is about, if it is about one.
    #[must_use]
    pub fn server(&self) -> Option<&ServerRef> {
        match self {
            Self::AddServer { server, .. }
            | Self::EnableHealth { server }
            | Self::SetServerHealth { server, .. }
            | Self::SetServerState { server, .. }
            | Self::SetServerAddress { server, .. }
            | Self::SetServerWeight { server, .. }
            | Self::ShutdownSessions { server }
            | Self::DelServer { server } => Some(server),
            _ => None,
        }
    }

    /// The backend it is about, if it is about one.
    #[must_use]
    pub fn backend(&self) -> Option<&BackendName> {
        match self {
            Self::AddBackend { backend, .. }
            | Self::PublishBackend { backend }
            | Self::UnpublishBackend { backend }
            | Self::DelBackend { backend } => Some(backend),
            _ => self.server().map(|server| &server.backend),
        }
    }

    /// What it is about: a server, a backend, or a key of a map.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::AddMap { key, .. } | Self::SetMap { key, .. } | Self::DelMap { key, .. } => key.to_string(),
            Self::DelMapEntry { map, reference } => format!("{} #{reference:#x}", map.file_name()),
            _ => match (self.server(), self.backend()) {
                (Some(server), _) => server.to_string(),
                (None, backend) => backend.map(ToString::to_string).unwrap_or_default(),
            },
        }
    }
}

/// As in the manual, with the map's file name for its path; good for logs.
impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AddBackend { backend, class } => write!(f, "add backend {backend} from {class}"),
            Self::PublishBackend { backend } => write!(f, "publish backend {backend}"),
            Self::UnpublishBackend { backend } => write!(f, "unpublish backend {backend}"),
            Self::DelBackend { backend } => write!(f, "del backend {backend}"),
            Self::AddServer { server, address, weight, .. } => {
                write!(f, "add server {server} {address} weight {weight}")
            }
            Self::EnableHealth { server } => write!(f, "enable health {server}"),
            Self::SetServerHealth { server, up } => {
                write!(f, "set server {server} health {}", if *up { "up" } else { "down" })
            }
            Self::SetServerState { server, admin } => write!(f, "set server {server} state {admin}"),
            Self::SetServerAddress { server, address } => {
                write!(f, "set server {server} addr {} port {}", address.ip(), address.port())
            }
            Self::SetServerWeight { server, weight } => write!(f, "set server {server} weight {weight}"),
            Self::ShutdownSessions { server } => write!(f, "shutdown sessions server {server}"),
            Self::DelServer { server } => write!(f, "del server {server}"),
            Self::AddMap { map, key, value } => write!(f, "add map {} {key} {value}", map.file_name()),
            Self::SetMap { map, key, value } => write!(f, "set map {} {key} {value}", map.file_name()),
            Self::DelMap { map, key } => write!(f, "del map {} {key}", map.file_name()),
            Self::DelMapEntry { map, reference } => write!(f, "del map {} #{reference:#x}", map.file_name()),
        }
    }
}

/// What one HAProxy can do. Read once per connection from `show version`; `plan`
/// asks it, nobody compares versions elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Capabilities {
    /// `add backend` exists: backends are made at run time under their own
    /// names. Without it a host takes a backend of the pool.
    pub add_backend: bool,
    /// `del server` is safe right after `maint`. Without it (2.6: use after
    /// free in redispatch) deletion follows the slow sequence.
    pub prompt_deletion: bool,
    /// Dynamic servers keep idle connections by themselves. Without it (2.6)
    /// `pool-max-conn -1 pool-purge-delay 5s` must be given.
    pub pools_by_default: bool,
}

/// HAProxy's version, from `show version` or `haproxy -v`: `3.0.11`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// 3 of 3.0.11.
    pub major: u16,
    /// 0 of 3.0.11.
    pub minor: u16,
    /// 11 of 3.0.11; 0 for a development version.
    pub patch: u16,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The oldest version that hapilot drives: the first long-lived one in which
/// `add server` takes health checks.
pub const OLDEST: Version = Version { major: 2, minor: 6, patch: 0 };

impl Capabilities {
    /// What every version can do: good to assume while the version is not known.
    pub const LEAST: Self = Self { add_backend: false, prompt_deletion: false, pools_by_default: false };

    /// The table of differences; `None` for a version older than [`OLDEST`].
    #[must_use]
    pub fn of(version: Version) -> Option<Self> {
        if version < OLDEST {
            return None;
        }
        let from = |major, minor| version >= Version { major, minor, patch: 0 };
        Some(Self { add_backend: from(3, 4), prompt_deletion: from(3, 0), pools_by_default: from(3, 0) })
    }
}
