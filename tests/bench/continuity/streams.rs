//! Upgraded connections that stay open, as websockets do, with a heartbeat.
//!
//! What lives here: opening them, one byte there and back twice a second, and
//! the count of those that were cut. What it must not know: what happens to
//! containers meanwhile.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between two beats of a stream.
const BEAT: Duration = Duration::from_millis(500);
/// A byte that isn't back by then makes the stream a dropped one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Streams that beat until they are closed.
pub(crate) struct Streams {
    runtime: Handle,
    tasks: JoinSet<Result<(), String>>,
    enough: CancellationToken,
    beats: Arc<AtomicU64>,
}

/// What became of them.
pub(crate) struct Beaten {
    /// Bytes that went there and came back.
    pub(crate) beats: u64,
    /// Why each dropped one was.
    pub(crate) dropped: Vec<String>,
}

impl Streams {
    /// Returns when all stand.
    pub(crate) fn open(runtime: &Handle, http: SocketAddr, host: &str, count: usize) -> Self {
        let (enough, beats) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        let request =
            format!("GET /beat HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        for _ in 0..count {
            let stream = runtime.block_on(upgrade(http, &request)).unwrap();
            tasks.spawn_on(beat(stream, enough.clone(), Arc::clone(&beats)), runtime);
        }
        Self { runtime: runtime.clone(), tasks, enough, beats }
    }

    /// Closes them, in order.
    pub(crate) fn close(self) -> Beaten {
        self.enough.cancel();
        let ends = self.runtime.block_on(self.tasks.join_all());
        let dropped = ends.into_iter().filter_map(Result::err).collect();
        Beaten { beats: self.beats.load(Ordering::Relaxed), dropped }
    }
}

async fn upgrade(http: SocketAddr, request: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(http).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.starts_with("HTTP/1.1 101 ") { Ok(stream) } else { Err(io::Error::other(head)) }
}

async fn beat(mut stream: TcpStream, enough: CancellationToken, beats: Arc<AtomicU64>) -> Result<(), String> {
    loop {
        // Also the moment before the end is looked at.
        let last = enough.is_cancelled();
        let there_and_back = async {
            stream.write_all(b"b").await?;
            stream.read_u8().await
        };
        match tokio::time::timeout(PATIENCE, there_and_back).await {
            Ok(Ok(b'b')) => beats.fetch_add(1, Ordering::Relaxed),
            Ok(Ok(other)) => return Err(format!("another byte came back: {other}")),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("a byte was not back within {PATIENCE:?}")),
        };
        if last {
            return Ok(());
        }
        tokio::select! {
            () = enough.cancelled() => {}
            () = tokio::time::sleep(BEAT) => {}
        }
    }
}
