//! The start-up configuration: template → text → files → `haproxy -c`.
//!
//! What lives here: everything HAProxy reads when it starts. What it must not
//! know: containers, the Runtime API, and who starts HAProxy.

mod check;
mod render;
mod settings;
mod write;

pub(crate) use check::printable;
pub use check::{CheckError, check};
pub use render::{RenderedConfig, render};
pub use settings::{ConfigPath, ConfigSettings, Identity, RuntimeSocket, SettingsError};
pub use write::{CONFIG_FILE, InstallError, MAPS_DIR, install};
