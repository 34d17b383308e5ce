//! Answering on the admin sockets: HTTP/1.1, reading only, but for the role in a
//! pair, which is told on the own socket.
//!
//! What lives here: the paths, and the bounds on those who ask. What it must
//! not know: where an answer comes from (the handle asks the controller).
//!
//! Each connection carries one request: a client that is slow or silent costs
//! one of a bounded number of places, for a bounded time.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::listen::Listeners;
use super::{AdminHandle, Silent};
use crate::metrics::Metrics;
use crate::report::Verdict;
use crate::role::{Role, ToldRole};

/// Connections at a time on each socket.
const PLACES: usize = 64;
/// Bytes of a request's line and headers.
const HEAD_LIMIT: usize = 16 * 1024;
/// For a request's line and headers to arrive.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// For the whole exchange, the answer's way to the client included.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);
/// Before the next try when the kernel has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus, "Exposition formats".
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

const PATHS: &str = "\
/live     200 if hapilot's controller is alive
/ready    200 if HAProxy answers and everything is in place, else 503 and the reason
/health   the head of the status, JSON
/status   hosts, backends, servers, rejected, blocked; JSON
/metrics  for Prometheus
/plan     what would be sent to HAProxy now, JSON
/render   HAProxy's start-up configuration
";

/// Below this path keepalived's notification puts the role.
pub(super) const ROLE_PATH: &str = "/role/";

/// Where answers come from.
#[derive(Clone)]
struct Source {
    controller: AdminHandle,
    metrics: Arc<Metrics>,
    /// Who asks here may tell the role too: on `<dir>/hapilot.sock`, which only
    /// the owner and the group can open.
    may_tell: bool,
}

/// Answers on all sockets until `stop` is cancelled; then the sockets are
/// removed and the directory is free.
pub async fn serve(
    listeners: Listeners,
    controller: AdminHandle,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let source = Source { controller, metrics, may_tell: false };
    let own = Source { may_tell: true, ..source.clone() };
    // The own socket is the first.
    let sources = std::iter::once(&own).chain(std::iter::repeat(&source));
    let unix = listeners.unix.iter().zip(sources).map(|(socket, source)| accept(&socket.listener, source));
    let tcp = async {
        match &listeners.tcp {
            Some(listener) => accept(listener, &source).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = futures_util::future::join(futures_util::future::join_all(unix), tcp) => {}
    }
}

/// What both kinds of sockets can do.
trait Listener {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    async fn next(&self) -> io::Result<Self::Stream>;
}

impl Listener for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn next(&self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn next(&self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

async fn accept<L: Listener>(listener: &L, source: &Source) {
    let places = Arc::new(Semaphore::new(PLACES));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.next().await {
            Ok(stream) => {
                let source = source.clone();
                tokio::spawn(async move {
                    connection(stream, source).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin: can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, source: Source) {
    let service = service_fn(|request| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(respond(&request, &source).await) }
    });
    let exchange = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_DEADLINE, exchange).await {
        Ok(Ok(())) => {}
        // A client that goes away or talks nonsense is its own business.
        Ok(Err(error)) => tracing::debug!(%error, "admin: connection ended"),
        Err(_) => tracing::debug!("admin: connection was too slow"),
    }
}

type Answer = Response<Full<Bytes>>;

async fn respond(request: &Request<Incoming>, source: &Source) -> Answer {
    if request.method() == Method::PUT
        && source.may_tell
        && let Some(word) = request.uri().path().strip_prefix(ROLE_PATH)
    {
        return match word.parse::<Role>() {
            Ok(role) => {
                source.controller.tell(ToldRole::now(role));
                text(StatusCode::OK, format!("{role}\n"))
            }
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    let controller = &source.controller;
    let answered = match request.uri().path() {
        "/live" => controller.live().await.map(|()| text(StatusCode::OK, "alive\n")),
        "/ready" => controller.health().await.map(|health| match health.verdict() {
            Verdict::Well => text(StatusCode::OK, format!("{health}\n")),
            Verdict::HaproxySilent(reason) | Verdict::Stale(reason) | Verdict::NotConverged(reason) => {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"))
            }
        }),
        "/health" => controller.health().await.map(|health| json(&health)),
        "/status" => controller.status().await.map(|status| json(&status)),
        "/plan" => controller.plan().await.map(|plan| json(&plan)),
        "/render" => controller.render().await.map(|configuration| text(StatusCode::OK, configuration)),
        "/metrics" => {
            let health = controller.health().await.ok();
            Ok(answer(StatusCode::OK, EXPOSITION, source.metrics.render(health.as_ref())))
        }
        "/" => Ok(text(StatusCode::OK, PATHS)),
        _ => Ok(text(StatusCode::NOT_FOUND, format!("no such path; there are:\n{PATHS}"))),
    };
    answered.unwrap_or_else(|silent: Silent| text(StatusCode::SERVICE_UNAVAILABLE, format!("{silent}\n")))
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Health that was true a minute ago is of no use.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, TEXT, body)
}

fn json<T: Serialize>(report: &T) -> Answer {
    match serde_json::to_vec(report) {
        Ok(body) => answer(StatusCode::OK, JSON, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("can't write JSON: {error}\n")),
    }
}

#[cfg(test)]
mod tests;
