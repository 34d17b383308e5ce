//! A tiny HTTP/1.1 server to put behind `HAProxy`: the sample services of the demo and the
//! containers of the integration tests run it. It tells which container answered.
//!
//! | request | answer |
//! |---|---|
//! | `/slow?ms=N` | 200 after N milliseconds |
//! | `/stream` | 200, one line per second until either side closes |
//! | any with `Upgrade: echo` | 101, then every byte comes back until the client closes |
//! | `/health` | 200; 503 after `POST /health/fail`, 200 again after `POST /health/pass` |
//! | anything else | 200 at once |
//!
//! Every answer has the header `X-Backend` with the host name, and those of 200 have a text that
//! names the host name (a container's short id), the service, method, path and `Host`.
//!
//! | setting | meaning |
//! |---|---|
//! | `--listen`, `LISTEN` | address and port (default `0.0.0.0:8000`) |
//! | `PORT` | only the port |
//! | `NAME` | the name of the service (default `sample`) |
//! | `STARTUP_MS` | so long after the start nothing listens yet |
//! | `ON_TERM` | at SIGTERM: `graceful` (default) finishes the requests in flight, `exit` cuts them, `ignore` goes on |

#![expect(clippy::print_stderr, reason = "a program for tests: this is its log")]

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// After SIGTERM, for the first request of a connection that was just made.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// What SIGTERM does.
#[derive(Clone, Copy, PartialEq)]
enum OnTerm {
    Finish,
    Exit,
    Ignore,
}

/// What the server says of itself, and whether it claims to be well.
struct Backend {
    hostname: HeaderValue,
    name: String,
    healthy: AtomicBool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample-backend: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let listen = listen_address()?;
    let startup = Duration::from_millis(env("STARTUP_MS").map_or(Ok(0), |text| text.parse())?);
    let on_term = match env("ON_TERM").as_deref() {
        None | Some("graceful") => OnTerm::Finish,
        Some("exit") => OnTerm::Exit,
        Some("ignore") => OnTerm::Ignore,
        Some(other) => return Err(format!("ON_TERM is graceful, exit or ignore, not {other}").into()),
    };
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let backend = Arc::new(Backend {
        hostname: HeaderValue::from_str(hostname.trim())?,
        name: env("NAME").unwrap_or_else(|| "sample".to_owned()),
        healthy: AtomicBool::new(true),
    });
    // Before anything else: as a container's first process it would ignore SIGTERM.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut told_to_end = async || {
        loop {
            terminate.recv().await;
            if on_term != OnTerm::Ignore {
                return;
            }
        }
    };
    tokio::select! {
        () = tokio::time::sleep(startup) => {}
        () = told_to_end() => return Ok(()),
    }

    let listener =
        TcpListener::bind(&listen).await.map_err(|error| format!("can't listen on {listen}: {error}"))?;
    eprintln!("sample-backend: {} listens on {}", backend.name, listen);

    let (ends, connections) = (CancellationToken::new(), TaskTracker::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&backend), ends.clone()))),
                Err(error) => {
                    // Out of file descriptors, say: it passes.
                    eprintln!("sample-backend: accept: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
            () = told_to_end() => break,
        }
    }

    if on_term == OnTerm::Finish {
        // Whom the kernel has let in already is served, too.
        let listener = listener.into_std()?;
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true)?;
            let stream = TcpStream::from_std(stream)?;
            connections.spawn(serve(stream, Arc::clone(&backend), ends.clone()));
        }
        drop(listener);
        ends.cancel();
        connections.close();
        connections.wait().await;
    }
    Ok(())
}

/// One connection, until the client closes it or, when all `ends`, its request is answered.
async fn serve(stream: TcpStream, backend: Arc<Backend>, ends: CancellationToken) {
    let begun = CancellationToken::new();
    let begins = begun.clone();
    let service = service_fn(move |mut request| {
        begins.cancel();
        let backend = Arc::clone(&backend);
        async move { Ok::<_, Infallible>(answer(&backend, &mut request).await) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection.with_upgrades());
    // A connection that breaks is the client's affair.
    tokio::select! {
        _ = &mut connection => return,
        () = ends.cancelled() => {}
    }
    // Whoever was let in a moment ago may still ask, once. (hyper would close; Go's server waits, too.)
    tokio::select! {
        _ = &mut connection => return,
        () = begun.cancelled() => {}
        () = tokio::time::sleep(FIRST_REQUEST) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn answer(backend: &Backend, request: &mut Request<Incoming>) -> Response<Body> {
    if request.headers().get(UPGRADE).is_some_and(|wish| wish == "echo") {
        return switch_to_echo(backend, request);
    }
    let mut status = StatusCode::OK;
    let mut body = None;
    match (request.method(), request.uri().path()) {
        (_, "/slow") => tokio::time::sleep(slow_for(request.uri().query())).await,
        (_, "/stream") => body = Some(lines()),
        (&Method::POST, "/health/fail") => backend.healthy.store(false, Ordering::Relaxed),
        (&Method::POST, "/health/pass") => backend.healthy.store(true, Ordering::Relaxed),
        (_, "/health") if !backend.healthy.load(Ordering::Relaxed) => {
            status = StatusCode::SERVICE_UNAVAILABLE;
        }
        _ => {}
    }
    let body = body.unwrap_or_else(|| Full::from(describe(backend, request)).boxed_unsync());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("x-backend", backend.hostname.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Answers that from now on every byte comes back.
fn switch_to_echo(backend: &Backend, request: &mut Request<Incoming>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..read]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("x-backend", backend.hostname.clone());
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("echo"));
    response
}

fn describe(backend: &Backend, request: &Request<Incoming>) -> String {
    let host = request.headers().get(HOST).map_or(b"" as &[u8], HeaderValue::as_bytes);
    format!(
        "container: {}\nservice: {}\nrequest: {} {}\nhost: {}\n",
        String::from_utf8_lossy(backend.hostname.as_bytes()),
        backend.name,
        request.method(),
        request.uri().path(),
        String::from_utf8_lossy(host),
    )
}

fn slow_for(query: Option<&str>) -> Duration {
    let mut parts = query.unwrap_or_default().split('&');
    let milliseconds = parts.find_map(|part| part.strip_prefix("ms=")?.parse().ok());
    Duration::from_millis(milliseconds.unwrap_or(1000))
}

/// A line per second, until the client is gone.
fn lines() -> Body {
    let lines = stream::unfold(1_u64, |line| async move {
        if line > 1 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let text = Bytes::from(format!("line {line}\n"));
        Some((Ok(Frame::data(text)), line + 1))
    });
    StreamBody::new(lines).boxed_unsync()
}

fn listen_address() -> Result<String, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => Ok(env("LISTEN").unwrap_or_else(|| {
            let port = env("PORT").unwrap_or_else(|| "8000".to_owned());
            format!("0.0.0.0:{port}")
        })),
        [flag, address] if flag == "--listen" => Ok(address.clone()),
        _ => Err("usage: sample-backend [--listen ADDRESS:PORT]".into()),
    }
}

/// An environment variable; empty counts as absent.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
