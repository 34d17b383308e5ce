//! The start-up configuration: template → text → files → `haproxy -c`.
//!
//! What lives here: everything HAProxy reads when it starts. What it must not
//! know: containers, the Runtime API, and who starts HAProxy.

use std::time::Duration;

mod check;
mod render;
mod settings;
mod write;

pub(crate) use check::printable;
pub use check::{CheckError, check};
pub use render::{RenderedConfig, Renderer, render};
pub use settings::{ConfigPath, ConfigSettings, Identity, Peer, Peers, RuntimeSocket, SettingsError};
pub use write::{CONFIG_FILE, InstallError, MAPS_DIR, install};

/// For how long a server must have been out of service before no request can
/// still be waiting for its retry on it, which no counter shows: a good deal more
/// than the template's (retries + 1) × 2 × `timeout connect` = 4.2 s. (A retry is
/// put off by the lesser of `timeout connect` and one second: recorded, and
/// `back_handle_st_cer` in HAProxy's backend.c.)
pub const QUARANTINE: Duration = Duration::from_secs(8);
