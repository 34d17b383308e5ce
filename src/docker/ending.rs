//! An engine that ended: whether its containers ended with it.
//!
//! What lives here: what can be known of an engine that answers nobody. What it must
//! not know: what follows for the containers (`watch`).
//!
//! Without `live-restore` (Docker's default) an engine ends its containers when it is
//! stopped, and what a killed one left is ended by the next one, before that answers
//! anybody. The events of their deaths are lost with the connection, as measured with
//! 20.10 (one of four, or all); and the next engine may start them with each other's
//! addresses seconds before it can be asked. So it counts as their death when the engine
//! has taken its socket away, which only one that is stopped does, or when a next one
//! holds the socket and does not answer yet. An engine that merely crashed refuses
//! connections: its containers live on, and so do their servers.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::address::DockerAddress;
use super::client::DockerClient;
use super::error::DockerError;

/// An engine that runs answers a ping within milliseconds; one that is starting takes
/// at least about half a second.
const PROMPT: Duration = Duration::from_millis(500);
/// Between two looks at an engine that is away.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Whether an engine's containers end with it, asked in the background.
#[derive(Debug)]
pub(super) struct Mortality {
    ends: Arc<AtomicBool>,
    _asking: AbortOnDropHandle<()>,
}

impl Mortality {
    /// Asks an engine. One elsewhere, or one that does not tell, is taken to leave its
    /// containers alone: of its end nothing certain could be known.
    pub(super) fn ask(client: DockerClient, address: &DockerAddress) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let local = matches!(address, DockerAddress::Unix(_));
        let answer = Arc::clone(&ends);
        let asking = async move {
            if local && let Ok(info) = client.info().await {
                answer.store(end_with_it(&info), Ordering::Relaxed);
            }
        };
        // Boxed: a task that has ended keeps its own memory as long as its handle is kept.
        Self { ends, _asking: AbortOnDropHandle::new(tokio::spawn(Box::pin(asking))) }
    }

    /// The socket of the engine, if a session that ended like this may mean the end of
    /// its containers.
    pub(super) fn suspect<'a>(&self, error: &DockerError, address: &'a DockerAddress) -> Option<&'a Path> {
        match (error, address) {
            (
                DockerError::Broken { .. } | DockerError::Absent { .. } | DockerError::Unreachable { .. },
                DockerAddress::Unix(path),
            ) if self.ends.load(Ordering::Relaxed) => Some(path),
            _ => None,
        }
    }
}

/// From `/info`.
fn end_with_it(info: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Info {
        live_restore_enabled: Option<bool>,
    }
    serde_json::from_slice(info).is_ok_and(|info: Info| info.live_restore_enabled == Some(false))
}

/// What a socket tells of its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It answers.
    Answers,
    /// Its socket is there and nobody's: it was killed.
    Crashed,
    /// It was stopped, or another one is starting.
    Ended,
}

/// Looks at a socket once.
pub(super) async fn presence(socket: &Path) -> Presence {
    let mut stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::NotFound => return Presence::Ended,
        Err(_) => return Presence::Crashed,
    };
    let exchange = async {
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n").await?;
        stream.read_u8().await
    };
    match tokio::time::timeout(PROMPT, exchange).await {
        Ok(Ok(_)) => Presence::Answers,
        // It came to its end just now.
        Ok(Err(_)) => Presence::Crashed,
        Err(_silent) => Presence::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_engine_that_says_so_ends_its_containers() {
        assert!(end_with_it(br#"{"ID": "x", "LiveRestoreEnabled": false, "Swarm": {}}"#));
        for unsure in [&br#"{"LiveRestoreEnabled": true}"#[..], b"{}", b"[]", b"", b"\xff"] {
            assert!(!end_with_it(unsure));
        }
    }

    #[tokio::test]
    async fn what_a_socket_tells() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        assert_eq!(presence(&socket).await, Presence::Ended, "taken away");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(presence(&socket).await, Presence::Ended, "held by one that does not answer yet");
        let (answered, ()) = tokio::join!(presence(&socket), async {
            // The one before it has left.
            drop(listener.accept().await.unwrap());
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = stream.read(&mut [0; 256]).await.unwrap();
            assert!(asked > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        });
        assert_eq!(answered, Presence::Answers);
        drop(listener);
        assert_eq!(presence(&socket).await, Presence::Crashed);
    }
}
