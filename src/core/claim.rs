//! Labels and environment of a container → what it claims, or why not.
//!
//! What lives here: the meaning of every label and variable. What it must not
//! know: the container's address (`endpoint`), other containers (`desired`).

use std::sync::Arc;

use serde::Serialize;

use super::container::{Container, ContainerId};
use super::name::BackendKey;

/// One thing that a container asks for: a share of a host's load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The host and class.
    pub key: BackendKey,
    /// The TCP port on which the container listens for it, 1 to 65535.
    pub port: u16,
    /// Its share of the load, 0 to 256; 1 if it says nothing.
    pub weight: u16,
}

/// One thing that can't be done as a container asked. All texts are safe to
/// print: control characters and characters outside ASCII are escaped, and
/// long values are cut.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Rejection {
    /// The container's name, made printable.
    pub container: String,
    /// The container's identifier.
    pub id: ContainerId,
    /// The label, variable or fact at fault.
    pub key: String,
    /// Why, as a sentence without a full stop.
    pub reason: String,
}

/// Everything a container asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claims {
    /// What can be served as far as the container alone decides.
    pub claims: Vec<Claim>,
    /// What can't.
    pub rejections: Vec<Rejection>,
}
