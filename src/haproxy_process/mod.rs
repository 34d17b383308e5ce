//! HAProxy as a process of this machine: found, started, watched, adopted,
//! stopped (`hapilot run` without a socket of another HAProxy).
//!
//! What lives here: one process at a time. What it must not know: what the
//! configuration says, and when a turn is taken.

mod adopt;
mod binary;
mod keeper;
mod process;
mod supervisor;

pub use binary::{BinaryError, HaproxyBinary};
pub use keeper::{ConfigQuestion, ProcessNews, keep};
pub use process::ExitReport;
pub use supervisor::{Configure, HowStopped, Launch, StartError, StopError, Supervisor};
