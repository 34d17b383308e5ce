//! What isn't safe to repeat goes over a connection of its own.
//!
//! What lives here: which requests of one visitor reach a container over which
//! connection. What it must not know: how HAProxy is told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::daemon::{Scene, until, unused_address};

on_every_version!(of_a_server_that_joins, of_a_server_of_the_configuration);

/// The method of each request, with the number of its connection.
type Seen = Arc<Mutex<Vec<(usize, String)>>>;

/// A container's process that notes what comes over which connection, and keeps
/// it open unless it is told to close it.
fn noting() -> (SocketAddr, Seen) {
    let (address, seen) = (unused_address(), Seen::default());
    let (listener, notes) = (TcpListener::bind(address).unwrap(), Arc::clone(&seen));
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (stream, notes) = (stream.unwrap(), Arc::clone(&notes));
            thread::spawn(move || note(stream, number, &notes));
        }
    });
    (address, seen)
}

fn note(stream: TcpStream, number: usize, notes: &Seen) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut stream = stream;
    while let Some(Ok(request)) = lines.next() {
        let head: Vec<String> =
            lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let closes = head.iter().any(|line| line.eq_ignore_ascii_case("connection: close"));
        notes.lock().unwrap().push((number, request.split(' ').next().unwrap().to_owned()));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        if closes {
            return;
        }
    }
}

/// One visitor's requests, over one connection.
fn asks(http: SocketAddr, methods: &[&str]) {
    let mut stream = TcpStream::connect(http).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for method in methods {
        let request = format!("{method} / HTTP/1.1\r\nHost: one.example\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let status = lines.next().expect("an answer").unwrap();
        assert!(status.starts_with("HTTP/1.1 200 "), "{method}: {status}");
        for line in lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
            assert!(
                !line.eq_ignore_ascii_case("connection: close"),
                "the visitor's connection stays: {line}"
            );
        }
    }
}

fn shares_only_what_is_safe(scene: &Scene, seen: &Seen) {
    seen.lock().unwrap().clear();
    asks(scene.http, &["GET", "POST", "GET", "DELETE", "POST", "HEAD", "GET"]);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let over = |safe: bool| {
        let over = seen.iter().filter(|(_, method)| matches!(method.as_str(), "GET" | "HEAD") == safe);
        over.map(|(number, _)| *number).collect::<Vec<usize>>()
    };
    let (mut alone, mut shared) = (over(false), over(true));
    assert_eq!((shared.len(), alone.len()), (4, 3), "{seen:?}");
    shared.dedup();
    assert_eq!(shared.len(), 1, "one connection for all that may share it: {seen:?}");
    alone.extend(shared);
    alone.sort_unstable();
    alone.dedup();
    assert_eq!(alone.len(), 4, "each of the others has its own: {seen:?}");
}

fn of_a_server_that_joins(version: &str) {
    let scene = Scene::new();
    let _haproxy = scene.haproxy(version, &[]);
    let _hapilot = scene.attach(&[]);
    let (address, seen) = noting();
    scene.docker.run(scene.container("one", "one.example", address));
    until("served", || scene.visit("one.example").0 == 200);
    shares_only_what_is_safe(&scene, &seen);
}

fn of_a_server_of_the_configuration(version: &str) {
    let scene = Scene::new();
    let (address, seen) = noting();
    scene.docker.add(scene.container("one", "one.example", address));
    let _hapilot = scene.spawn(version, &[]);
    until("served", || scene.visit("one.example").0 == 200);
    shares_only_what_is_safe(&scene, &seen);
}
