//! The Docker side: an engine's events and answers → facts about containers.
//!
//! The only place that knows bollard. It must not know HAProxy, nor what a
//! label means.
//!
//! ```text
//! address ─► transport ─► client ──list, inspect──► convert ─► watch ─► Change
//!                            └──────events──► events (which to look at) ──┘
//! ```

pub mod address;
pub mod client;
pub mod convert;
pub mod engines;
pub mod error;
pub mod events;
pub mod watch;

mod array;
mod ending;
mod follow;
mod inventory;
mod lines;
mod networks;
mod signal;
mod swarm;
mod transport;

pub use address::{DockerAddress, TlsMaterial};
pub use client::{Deadlines, DockerClient, Engine};
pub use engines::EngineNews;
pub use error::DockerError;
pub use watch::{Change, WatchConfig, watch};
