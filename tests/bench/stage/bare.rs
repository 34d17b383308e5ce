//! The bare writer: nothing but the lines, down the same kind of socket.
//!
//! What lives here: the baseline. What it must not know: hapilot.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Pushes `text`, which is `count` lines, while a second thread reads the
/// replies. Timed from the first byte to the last reply; connecting isn't.
pub fn push(socket: &Path, text: &str, count: usize) -> Duration {
    let mut socket = UnixStream::connect(socket).unwrap();
    let mut reader = socket.try_clone().unwrap();
    socket.write_all(b"prompt\n").unwrap();
    prompts(&mut reader, 1);
    let begin = Instant::now();
    let replies = thread::spawn(move || prompts(&mut reader, count));
    socket.write_all(text.as_bytes()).unwrap();
    replies.join().unwrap();
    begin.elapsed()
}

/// Reads as many prompts: each ends a reply.
fn prompts(socket: &mut UnixStream, count: usize) {
    let mut buffer = vec![0; 64 * 1024];
    let (mut seen, mut last) = (0, 0);
    while seen < count {
        let length = socket.read(&mut buffer).unwrap();
        assert!(length > 0, "HAProxy closed the connection");
        for &byte in &buffer[..length] {
            seen += usize::from(last == b'>' && byte == b' ');
            last = byte;
        }
    }
}
