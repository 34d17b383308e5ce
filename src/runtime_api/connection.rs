//! One connection to the Runtime API: lines out, replies in, in step.
//!
//! What lives here: the socket, deadlines and pipelining. What it must not
//! know: versions, and what a reply says (only `reply::classify` does).
//!
//! Writing and reading go on at the same time: a client that only writes is
//! stopped by HAProxy, which waits for its replies to be read (recorded: after
//! about 1,650 commands on 2.6). At most [`WINDOW`] commands are on their way.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::codec::FramedRead;

use super::address::RuntimeApiAddress;
use super::codec::Codec;
use super::encode::encode;
use super::error::ClientError;
use super::maps::MapPaths;
use super::query::Query;
use super::reply::{Verdict, classify, excerpt};
use crate::core::command::Command;

/// Commands without a reply at any time. All versions take as many.
pub const WINDOW: usize = 256;

/// First size of the buffer of replies, bytes.
const READ_BUFFER: usize = 64 * 1024;

/// How long HAProxy may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Until the connection stands, and again until HAProxy greets.
    pub connect: Duration,
    /// From one reply to the next.
    pub progress: Duration,
    /// For a whole sequence of commands.
    pub overall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            progress: Duration::from_secs(5),
            overall: Duration::from_secs(120),
        }
    }
}

pub(super) type Reader = Box<dyn AsyncRead + Send + Sync + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// The connection.
pub(super) struct Connection {
    pub(super) address: RuntimeApiAddress,
    pub(super) maps: MapPaths,
    /// How many replies have come.
    pub(super) heard: Arc<AtomicU64>,
    read: FramedRead<Reader, Codec>,
    write: Writer,
    timeouts: Timeouts,
    /// Every command has had its reply. False from the beginning of a call
    /// until its good end, so also after a call that was given up.
    in_step: bool,
    /// Lines on their way out; kept for its memory.
    out: String,
}

impl Connection {
    /// Connects, and switches to the framing by prompts.
    pub(super) async fn open(address: &RuntimeApiAddress, timeouts: Timeouts) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { address: address.clone(), source };
        let (read, write) = match timeout(timeouts.connect, halves(address)).await {
            Ok(halves) => halves.map_err(failed)?,
            Err(elapsed) => return Err(failed(elapsed.into())),
        };
        Self::over(address.clone(), read, write, timeouts).await
    }

    /// Takes a stream that stands, and switches to the framing by prompts.
    pub(super) async fn over(
        address: RuntimeApiAddress,
        read: Reader,
        write: Writer,
        timeouts: Timeouts,
    ) -> Result<Self, ClientError> {
        let mut connection = Self {
            address,
            maps: MapPaths::default(),
            heard: Arc::default(),
            read: FramedRead::with_capacity(read, Codec::default(), READ_BUFFER),
            write,
            timeouts,
            in_step: false,
            out: String::new(),
        };
        connection.greet().await?;
        connection.in_step = true;
        Ok(connection)
    }

    /// Sends `prompt`, whose reply is an empty one. It toggles: never twice.
    async fn greet(&mut self) -> Result<(), ClientError> {
        self.out.push_str("prompt\n");
        let waited = self.timeouts.connect;
        let address = self.address.clone();
        match self.exchange(Instant::now() + waited).await {
            None => {
                let seen = String::from_utf8_lossy(self.read.read_buffer());
                if seen.is_empty() {
                    return Err(ClientError::Mute { address, waited });
                }
                let master = seen.contains("master> ");
                Err(ClientError::NotRuntimeApi { address, master, answer: excerpt(&seen) })
            }
            Some(reply) => match reply? {
                reply if reply.is_empty() => Ok(()),
                reply => {
                    let answer = excerpt(&String::from_utf8_lossy(&reply));
                    Err(ClientError::NotRuntimeApi { address, master: false, answer })
                }
            },
        }
    }

    /// Writes what is in `out`, reads one reply; `None` if that takes too long.
    async fn exchange(&mut self, until: Instant) -> Option<Result<Bytes, ClientError>> {
        let address = &self.address;
        let talk = async {
            let wrote = self.write.write_all(self.out.as_bytes()).await;
            wrote.map_err(|source| ClientError::from_io(source, address))?;
            match self.read.next().await {
                Some(Ok(reply)) => Ok(reply),
                Some(Err(error)) => Err(ClientError::from_codec(error, address)),
                None => Err(ClientError::Closed { address: address.clone() }),
            }
        };
        timeout_at(until, talk).await.ok()
    }

    /// Asks one question.
    pub(super) async fn ask(&mut self, query: &Query) -> Result<String, ClientError> {
        self.begin()?;
        if let Err(unknown) = query.encode(&self.maps, &mut self.out) {
            // Nothing was sent.
            self.in_step = true;
            return Err(ClientError::UnknownMap(unknown.0));
        }
        let waited = self.timeouts.progress;
        match self.exchange(Instant::now() + waited).await {
            Some(reply) => {
                let reply = reply?;
                self.heard.fetch_add(1, Ordering::Relaxed);
                self.in_step = true;
                Ok(String::from_utf8_lossy(&reply).into_owned())
            }
            None => Err(ClientError::Deadline { address: self.address.clone(), waited }),
        }
    }

    /// Sends commands and gives the verdict on each to `each`, in order, as it comes.
    pub(super) async fn run<'a>(
        &mut self,
        mut commands: impl Iterator<Item = &'a Command>,
        mut each: impl FnMut(Verdict),
    ) -> Result<(), ClientError> {
        self.begin()?;
        let Self { address, maps, heard, read, write, timeouts, out, .. } = self;
        let mut flight: VecDeque<&Command> = VecDeque::with_capacity(WINDOW);
        let mut written = 0;
        let mut more = true;
        let start = Instant::now();
        let mut last = start;
        let mut alarm = pin!(sleep_until(start + timeouts.progress.min(timeouts.overall)));
        loop {
            // Refilled by halves: many commands per system call, and HAProxy
            // still has some to go on with.
            if more && written == out.len() && flight.len() <= WINDOW / 2 {
                out.clear();
                written = 0;
                while flight.len() < WINDOW {
                    let Some(command) = commands.next() else {
                        more = false;
                        break;
                    };
                    encode(command, maps, out).map_err(|unknown| ClientError::UnknownMap(unknown.0))?;
                    flight.push_back(command);
                }
            }
            if flight.is_empty() {
                break;
            }
            let unwritten = out.as_bytes().get(written..).unwrap_or_default();
            tokio::select! {
                biased;
                reply = read.next() => {
                    let reply = match reply {
                        Some(Ok(reply)) => reply,
                        Some(Err(error)) => return Err(ClientError::from_codec(error, address)),
                        None => return Err(ClientError::Closed { address: address.clone() }),
                    };
                    if let Some(command) = flight.pop_front() {
                        each(classify(command, &reply));
                    }
                    last = Instant::now();
                    heard.fetch_add(1, Ordering::Relaxed);
                }
                wrote = write.write(unwritten), if !unwritten.is_empty() => {
                    match wrote {
                        Ok(0) => return Err(ClientError::Closed { address: address.clone() }),
                        Ok(count) => written += count,
                        Err(source) => return Err(ClientError::from_io(source, address)),
                    }
                }
                () = alarm.as_mut() => {
                    let now = Instant::now();
                    for (since, waited) in [(last, timeouts.progress), (start, timeouts.overall)] {
                        if now >= since + waited {
                            return Err(ClientError::Deadline { address: address.clone(), waited });
                        }
                    }
                    alarm.as_mut().reset((last + timeouts.progress).min(start + timeouts.overall));
                }
            }
        }
        self.in_step = true;
        Ok(())
    }

    /// Waits until nothing can be asked any more: between two calls there is
    /// nothing to be read, so whatever comes is the end.
    pub(super) async fn closed(&mut self) {
        if self.in_step {
            self.read.next().await;
            self.in_step = false;
        }
    }

    /// Begins a call: no reply may be left over from an earlier one.
    fn begin(&mut self) -> Result<(), ClientError> {
        if !std::mem::take(&mut self.in_step) || !self.read.read_buffer().is_empty() {
            return Err(ClientError::Poisoned { address: self.address.clone() });
        }
        self.out.clear();
        Ok(())
    }
}

/// Connects; the two directions can then be used at the same time.
async fn halves(address: &RuntimeApiAddress) -> std::io::Result<(Reader, Writer)> {
    match address {
        RuntimeApiAddress::Unix(path) => {
            let (read, write) = UnixStream::connect(path).await?.into_split();
            Ok((Box::new(read), Box::new(write)))
        }
        RuntimeApiAddress::Tcp(host) => {
            let stream = TcpStream::connect(host.as_str()).await?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            Ok((Box::new(read), Box::new(write)))
        }
    }
}
