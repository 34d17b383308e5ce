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

pub mod docker;
pub mod runtime_api;

pub mod haproxy_config;
pub mod haproxy_process;

pub mod apply;
pub mod observe;
pub mod reconcile;

pub mod controller;

pub mod admin;
pub mod backoff;
pub mod cli;
pub mod keepalived;
pub mod logging;
pub mod metrics;
pub mod report;
pub mod role;
pub mod run;
pub mod settings;
pub mod shutdown;
pub mod whereabouts;

pub use run::{RunError, check_haproxy, render, run};
