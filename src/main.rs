//! Arguments → tracing → runtime → exit code. Knows no Docker and no HAProxy.
fn main() {}
