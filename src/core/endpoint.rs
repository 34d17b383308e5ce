//! Which of a container's addresses HAProxy can reach.
//!
//! What lives here: the rule, in its order. What it must not know: ports and
//! hosts (`claim`).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::claim::Rejection;
use super::container::Container;

/// From where HAProxy looks at the containers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vantage {
    /// HAProxy runs on the engine's host (or in host network mode): it reaches
    /// every local network of a container.
    Host,
    /// HAProxy runs in a container that stands on these networks.
    Networks(BTreeSet<Arc<str>>),
}
