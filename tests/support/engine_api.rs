//! The machine's Docker engine, asked over its socket.
//!
//! What lives here: the calls that change containers, without the docker
//! command's own start-up time. What it must not know: what is tested.

#![allow(dead_code, reason = "each of the programs that include this uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests")]

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::Value;

/// Where it listens.
pub(crate) const ENGINE: &str = "/var/run/docker.sock";

/// Its answer; anything but success is a panic.
pub(crate) fn call(method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = UnixStream::connect(ENGINE).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_default();
    assert!(head.get(9..10) == Some("2"), "{method} {path}: {reply}");
    serde_json::from_str(body).unwrap_or(Value::Null)
}

/// Makes a container and returns its identifier.
pub(crate) fn create(name: &str, body: &Value) -> String {
    let created = call("POST", &format!("/containers/create?name={name}"), body);
    created["Id"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned()
}

/// `start`, `stop?t=10`, `kill?signal=KILL`, `pause`, …
pub(crate) fn act(id: &str, action: &str) {
    call("POST", &format!("/containers/{id}/{action}"), &Value::Null);
}

/// Starts a container; returns when the call returned.
pub(crate) fn start(id: &str) -> Instant {
    act(id, "start");
    Instant::now()
}

/// All about a container.
pub(crate) fn inspect(id: &str) -> Value {
    call("GET", &format!("/containers/{id}/json"), &Value::Null)
}

/// Ends it, if it runs, and removes it.
pub(crate) fn remove(id: &str) {
    call("DELETE", &format!("/containers/{id}?force=1"), &Value::Null);
}

/// Where a sample service on the default bridge listens.
pub(crate) fn address(inspected: &Value) -> SocketAddr {
    let ip = inspected["NetworkSettings"]["IPAddress"].as_str().unwrap();
    SocketAddr::new(ip.parse().unwrap(), 8000)
}
