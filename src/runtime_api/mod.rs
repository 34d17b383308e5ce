//! The wire between hapilot and HAProxy's Runtime API.
//!
//! ```text
//! Command, Query ──encode, query──► line ──┐
//!                                          │ client (socket, deadlines, pipelining)
//! Verdict ◄──reply──┐                      │
//! rows    ◄──parse──┴── reply text ◄─codec─┘
//! ```
//!
//! Only `connection` and `client` know sockets and the clock; everything else
//! turns bytes into values and back.

pub mod address;
pub mod client;
pub mod codec;
mod connection;
pub mod encode;
pub mod error;
pub mod maps;
pub mod parse;
pub mod query;
pub mod reply;

pub use address::RuntimeApiAddress;
pub use client::{Client, Connect, Timeouts};
pub use error::{ClientError, RunError};
pub use maps::{MapPath, MapPaths};
pub use query::Query;
pub use reply::Verdict;
