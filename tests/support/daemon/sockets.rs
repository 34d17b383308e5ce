//! Sockets that stand between hapilot and HAProxy, or in HAProxy's place.
//!
//! What lives here: passing on, cutting, made-up answers. What it must not know:
//! what is said.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::signal;

/// A socket between hapilot and HAProxy: counts what passes, and can cut.
pub(crate) struct Between {
    pub(crate) path: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    /// Bytes towards HAProxy that may still pass; negative: no bound.
    allowance: Mutex<Option<usize>>,
    /// All lines that passed towards HAProxy.
    passed: Mutex<Vec<u8>>,
    was_cut: AtomicBool,
    on_cut: Mutex<Option<u32>>,
    /// How replies pass: so many bytes at a time, and a pause after each.
    pace: Mutex<Option<(usize, Duration)>>,
}

impl Between {
    pub(crate) fn start(path: PathBuf, to: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let shared = Arc::new(Shared {
            allowance: Mutex::new(None),
            passed: Mutex::new(Vec::new()),
            was_cut: AtomicBool::new(false),
            on_cut: Mutex::new(None),
            pace: Mutex::new(None),
        });
        let inner = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(there) = UnixStream::connect(&to) else { continue };
                let (here, shared) = (stream.unwrap(), Arc::clone(&inner));
                let (mut from, mut back) = (there.try_clone().unwrap(), here.try_clone().unwrap());
                let pacing = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut buffer = [0; 8_192];
                    loop {
                        let pace = *pacing.pace.lock().unwrap();
                        let most = pace.map_or(buffer.len(), |(bytes, _)| bytes);
                        let Ok(read @ 1..) = from.read(&mut buffer[..most]) else { break };
                        if back.write_all(&buffer[..read]).is_err() {
                            break;
                        }
                        if let Some((_, pause)) = pace {
                            thread::sleep(pause);
                        }
                    }
                    let _ = back.shutdown(std::net::Shutdown::Both);
                });
                thread::spawn(move || shared.forward(here, there));
            }
        });
        Self { path, shared }
    }

    /// After so many more bytes the connection is cut, once; `kill` is killed
    /// at that moment.
    pub(crate) fn cut_after(&self, bytes: usize, kill: Option<u32>) {
        self.shared.was_cut.store(false, Ordering::Relaxed);
        *self.shared.on_cut.lock().unwrap() = kill;
        *self.shared.allowance.lock().unwrap() = Some(bytes);
    }

    /// From now on replies come in pieces of so many bytes, with a pause after each.
    pub(crate) fn slow_down(&self, bytes: usize, pause: Duration) {
        *self.shared.pace.lock().unwrap() = Some((bytes, pause));
    }

    pub(crate) fn uncut(&self) {
        *self.shared.allowance.lock().unwrap() = None;
    }

    pub(crate) fn was_cut(&self) -> bool {
        self.shared.was_cut.load(Ordering::Relaxed)
    }

    /// Takes what has passed towards HAProxy since the last call.
    pub(crate) fn passed(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.shared.passed.lock().unwrap())).unwrap()
    }

    /// As [`Self::passed`]: only what changes anything.
    pub(crate) fn commands(&self) -> Vec<String> {
        let changes = |line: &&str| !line.starts_with("show ") && *line != "prompt" && !line.is_empty();
        self.passed().lines().filter(changes).map(str::to_owned).collect()
    }
}

impl Shared {
    fn forward(&self, mut here: UnixStream, mut there: UnixStream) {
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = here.read(&mut buffer) {
            let mut allowance = self.allowance.lock().unwrap();
            let pass = allowance.map_or(read, |left| left.min(read));
            self.passed.lock().unwrap().extend_from_slice(&buffer[..pass]);
            if there.write_all(&buffer[..pass]).is_err() {
                break;
            }
            if let Some(left) = allowance.as_mut() {
                *left -= pass;
                if *left == 0 {
                    *allowance = None;
                    drop(allowance);
                    if let Some(pid) = self.on_cut.lock().unwrap().take() {
                        signal(pid, "KILL");
                    }
                    let _ = here.shutdown(std::net::Shutdown::Both);
                    let _ = there.shutdown(std::net::Shutdown::Both);
                    self.was_cut.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
        let _ = there.shutdown(std::net::Shutdown::Both);
    }
}

/// A socket at which a made-up Runtime API answers: `answer` gets a line and
/// the connection; false closes it.
pub(crate) fn fake_runtime_api(
    path: &Path,
    answer: impl Fn(&str, &mut UnixStream) -> bool + Send + Sync + 'static,
) -> Arc<AtomicU64> {
    let listener = UnixListener::bind(path).unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let (count, answer) = (Arc::clone(&connections), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::Relaxed);
            let (mut stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                for line in lines.map_while(Result::ok) {
                    if !answer(&line, &mut stream) {
                        break;
                    }
                }
                let _ = stream.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    connections
}

/// A good answer to the questions that every connection begins with.
pub(crate) fn greeting(line: &str) -> Option<&'static str> {
    match line {
        "prompt" => Some("\n> "),
        "show version" => Some("3.0.11-1\n\n> "),
        "show cli level" => Some("admin\n\n> "),
        "show info" => Some("Name: HAProxy\nPid: 77\nUptime_sec: 1\nStopping: 0\nStart_time_sec: 5\n\n> "),
        _ => None,
    }
}
