//! Asking a running hapilot on its socket.
//!
//! What lives here: the exchange, and what each way of failing means to the
//! person who asked. What it must not know: how an answer is shown (`main`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::serve::ROLE_PATH;
use crate::report::{Health, PlanReport, Status};
use crate::role::Role;

/// For the whole exchange: longer than the server waits for its controller, so
/// that the server's own words arrive.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest answer that is read. A status of 10,000 servers has about 3 MB.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

/// No answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no answer from a running hapilot: nobody listens on {path}; is `hapilot run` running with this --dir?"
    )]
    Absent {
        /// The socket.
        path: PathBuf,
    },
    /// The socket can't be used.
    #[error("no answer from a running hapilot: can't connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It took too long.
    #[error("no answer from a running hapilot: nothing came from {path} within {waited:?}")]
    Slow {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The connection broke, or did not carry HTTP.
    #[error("no answer from a running hapilot: the connection to {path} broke")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered that it can't.
    #[error("the running hapilot can't answer: {0}")]
    Refused(String),
    /// The answer is not what this version expects.
    #[error("the answer of the running hapilot can't be read; is it another version?")]
    Foreign(#[source] serde_json::Error),
}

impl AskError {
    /// True if there is no hapilot at all, rather than one in trouble.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }
}

/// Asks the hapilot on a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
}

impl Client {
    /// For `<dir>/hapilot.sock`. Connects with each question.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, deadline: DEADLINE }
    }

    /// Waits so long for an answer, and no longer.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Tells the role of this machine in its pair.
    pub async fn tell(&self, role: Role) -> Result<(), AskError> {
        self.exchange(Method::PUT, &format!("{ROLE_PATH}{role}")).await.map(drop)
    }

    /// The head of the status; what `check` looks at. [Sealed](Health::sealed)
    /// again on this side.
    pub async fn health(&self) -> Result<Health, AskError> {
        self.json("/health").await.map(Health::sealed)
    }

    /// The whole status.
    pub async fn status(&self) -> Result<Status, AskError> {
        self.json("/status").await.map(Status::sealed)
    }

    /// What would be sent now.
    pub async fn plan(&self) -> Result<PlanReport, AskError> {
        self.json("/plan").await
    }

    /// The start-up configuration.
    pub async fn render(&self) -> Result<String, AskError> {
        let body = self.exchange(Method::GET, "/render").await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        let body = self.exchange(Method::GET, path).await?;
        serde_json::from_slice(&body).map_err(AskError::Foreign)
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<Bytes, AskError> {
        match tokio::time::timeout(self.deadline, exchange(&self.socket, method, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::Slow { path: self.socket.clone(), waited: self.deadline }),
        }
    }
}

async fn exchange(socket: &Path, method: Method, path: &str) -> Result<Bytes, AskError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::Absent { path: socket.to_owned() }
        }
        _ => AskError::Connect { path: socket.to_owned(), source },
    })?;
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| AskError::Broken {
        path: socket.to_owned(),
        source,
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(e.into()))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "hapilot")
        .body(Empty::<Bytes>::new())
        .map_err(|e| broken(e.into()))?;
    let ask = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await?.to_bytes();
        Ok((status, body))
    };
    // The connection must be driven while the answer is awaited; its own end
    // comes with the answer and says nothing more.
    let drive = async {
        let _ = connection.await;
        std::future::pending::<std::convert::Infallible>().await
    };
    let (status, body) = tokio::select! {
        answer = ask => answer.map_err(broken)?,
        never = drive => match never {},
    };
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(AskError::Refused(String::from_utf8_lossy(&body).trim_end().to_owned()))
    }
}
