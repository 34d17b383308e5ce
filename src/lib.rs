//! hapilot drives a running HAProxy from Docker events.
//!
//! ```text
//!  Docker engine ──events──► docker ──► core::claim, core::endpoint
//!                            (facts)            │
//!                                               ▼
//!                                        core::desired ─┐
//!                                                       ├─► core::diff ─► core::plan
//!  HAProxy ──show …──► observe ──► core::state observed ┘                     │
//!     ▲                                                                       ▼
//!     └───────────── runtime_api ◄───────────────────────────────────────── apply
//! ```
//!
//! `reconcile` takes one turn through this picture, `controller` decides when.

pub mod core;

pub mod backoff;
pub mod docker;
