//! The process in a container, and a visitor who never has enough.
//!
//! What lives here: a small HTTP server and a client. What it must not know: who
//! stands between them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::{Scene, until, unused_address};

/// The process in a container: says its name; `/slow` after 1.5 s, `/stream`
/// for ever.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(name: &str) -> Self {
        let address = unused_address();
        let listener = TcpListener::bind(address).unwrap();
        let (name, over) = (name.to_owned(), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&over);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (stream, name) = (stream.unwrap(), name.clone());
                thread::spawn(move || answer(stream, &name));
            }
        });
        Self { address, over }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(stream: TcpStream, name: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut stream = stream;
    while let Some(Ok(request)) = lines.next() {
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let path = request.split(' ').nth(1).unwrap_or_default();
        if path == "/stream" {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while stream.write_all(b"1\r\n.\r\n").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        if path == "/slow" {
            thread::sleep(Duration::from_millis(1_500));
        }
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// A visitor whose answer never ends.
pub(crate) struct Streaming {
    seen: Arc<AtomicU64>,
    cut: Arc<AtomicBool>,
}

impl Streaming {
    pub(crate) fn start(scene: &Scene, host: &str) -> Self {
        let mut stream = TcpStream::connect(scene.http).unwrap();
        stream.write_all(format!("GET /stream HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        let (seen, cut) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let streaming = Self { seen: Arc::clone(&seen), cut: Arc::clone(&cut) };
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                seen.fetch_add(read as u64, Ordering::Relaxed);
            }
            cut.store(true, Ordering::Relaxed);
        });
        streaming.goes_on();
        streaming
    }

    /// It was never cut, and still more comes.
    pub(crate) fn goes_on(&self) {
        let seen = self.seen.load(Ordering::Relaxed);
        until("more of the stream", || {
            assert!(!self.cut.load(Ordering::Relaxed), "an established connection was cut");
            self.seen.load(Ordering::Relaxed) > seen + 300
        });
    }
}
