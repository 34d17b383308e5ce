//! Where the containers' addresses lead: one listener for all of 127.0.0.0/8.
//!
//! What lives here: the listener, and which address belongs to which container.
//! What it must not know: hosts and HAProxy.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use socket2::{Domain, Socket, Type};

/// Accepts every connection and closes it, which is what a health check of
/// HAProxy asks for. Answers until the process ends.
pub fn listen() -> u16 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).unwrap();
    // Ten thousand first checks come at once.
    socket.listen(4096).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    thread::spawn(move || while socket.accept().is_ok() {});
    port
}

/// The address of the `n`th container.
pub fn address(n: usize) -> Ipv4Addr {
    let [_, b, c, d] = u32::try_from(n + 1).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 64 + b, c, d)
}
