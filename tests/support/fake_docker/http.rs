//! The fake engine's HTTP: connections, paths, answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use super::{FakeContainer, Fault, Shared, State, Subscriber, network_id, swarm};

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What the engine does with a request whose connection it closes.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed on purpose")
    }
}

impl std::error::Error for Closed {}

/// Accepts connections until it is aborted, which cuts them all.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { answer(&request, &shared).await }
            });
            // An error means that the client went away, or that we closed on purpose.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: &Request<Incoming>, shared: &Shared) -> Result<Answer, Closed> {
    let full_path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    {
        let mut state = shared.lock();
        if state.paths.len() < 1000 {
            state.paths.push(request.uri().to_string());
        }
    }
    let path = match full_path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/')) {
        Some((minor, rest)) => {
            let ours = shared.api_version.lock().unwrap().clone();
            let newest: u32 = ours.trim_start_matches("1.").parse().unwrap();
            if minor.parse().unwrap_or(u32::MAX) > newest {
                let text =
                    format!("client version 1.{minor} is too new. Maximum supported API version is {ours}");
                return Ok(refusal(StatusCode::BAD_REQUEST, &text));
            }
            rest
        }
        None => full_path.trim_start_matches('/'),
    };
    let calls = &shared.calls;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    match path {
        "_ping" => {
            count(&calls.ping);
            if shared.ping_hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(bytes_answer("text/plain", Bytes::from_static(b"OK")))
        }
        "version" => {
            count(&calls.version);
            let api = shared.api_version.lock().unwrap().clone();
            Ok(json_answer(&json!({"Version": "20.10.24-fake", "ApiVersion": api, "MinAPIVersion": "1.12",
                "Os": "linux", "Arch": "amd64"})))
        }
        "info" => {
            count(&calls.info);
            let state = shared.lock();
            Ok(json_answer(&json!({"ID": "FAKE", "Name": "fake", "Containers": state.entries.len(),
                "Swarm": swarm::info(&state)})))
        }
        "services" | "nodes" | "tasks" => {
            count(if path == "tasks" { &calls.tasks } else { &calls.book });
            let filters = parameter(query, "filters").unwrap_or_default();
            let filters: Value = serde_json::from_str(&filters).unwrap_or(Value::Null);
            let state = shared.lock();
            Ok(match swarm::answer(&state, path, &filters) {
                Ok(answer) => json_answer(&answer),
                Err((status, message)) => refusal(status, &message),
            })
        }
        "containers/json" => {
            count(&calls.list);
            let fault = shared.lock().list_fault;
            if let Some(fault) = fault {
                return fail(fault).await;
            }
            Ok(bytes_answer("application/json", list(&mut shared.lock(), query)))
        }
        "networks" => {
            count(&calls.networks);
            Ok(json_answer(&networks(&shared.lock(), query)))
        }
        "events" => {
            count(&calls.events);
            Ok(events(&mut shared.lock(), query))
        }
        _ => {
            let id = path.strip_prefix("containers/").and_then(|rest| rest.strip_suffix("/json"));
            let Some(id) = id else { return Ok(refusal(StatusCode::NOT_FOUND, "page not found")) };
            count(&calls.inspect);
            let fault = shared.lock().inspect_faults.get(id).copied();
            if let Some(fault) = fault {
                return fail(fault).await;
            }
            Ok(inspect(&mut shared.lock(), id))
        }
    }
}

async fn fail(fault: Fault) -> Result<Answer, Closed> {
    match fault {
        Fault::Status(status) => Ok(refusal(StatusCode::from_u16(status).unwrap(), "failed on purpose")),
        Fault::Garbage => Ok(bytes_answer("application/json", Bytes::from_static(b"<html>\x00\xff{{{"))),
        Fault::Empty => Ok(json_answer(&json!({}))),
        Fault::Hang => std::future::pending().await,
        Fault::Close => Err(Closed),
    }
}

/// An element for each container that the filter (or its absence) lets through.
fn list(state: &mut State, query: &str) -> Bytes {
    let filters = parameter(query, "filters").unwrap_or_default();
    let filters: Value = serde_json::from_str(&filters).unwrap_or(Value::Null);
    let all = parameter(query, "all").is_some_and(|all| all == "1" || all == "true");
    let wanted = strings(&filters["status"]);
    let mut body = BytesMut::from(&b"["[..]);
    for entry in state.entries.values_mut() {
        let status = &entry.container.status;
        let shown = if wanted.is_empty() {
            all || matches!(status.as_str(), "running" | "paused" | "restarting")
        } else {
            wanted.contains(status)
        };
        if shown {
            if body.len() > 1 {
                body.extend_from_slice(b",");
            }
            let container = &entry.container;
            body.extend_from_slice(entry.listed.get_or_insert_with(|| container.listed().to_string().into()));
        }
    }
    body.extend_from_slice(b"]\n");
    body.freeze()
}

/// The networks that containers stand on, or those of them that are asked for.
fn networks(state: &State, query: &str) -> Value {
    let filters = parameter(query, "filters").unwrap_or_default();
    let filters: Value = serde_json::from_str(&filters).unwrap_or(Value::Null);
    let wanted = strings(&filters["id"]);
    let mut networks = BTreeMap::new();
    for FakeContainer { networks: names, network_ids, .. } in state.entries.values().map(|e| &e.container) {
        for name in names.keys() {
            let id = network_ids.get(name).cloned().unwrap_or_else(|| network_id(name));
            if wanted.is_empty() || wanted.contains(&id) {
                networks.entry(id).or_insert_with(|| name.clone());
            }
        }
    }
    let shown = |(id, name): (String, String)| {
        let (driver, internal) = state.networks.get(&id).cloned().unwrap_or(("bridge".into(), false));
        let scope = if driver == "overlay" { "swarm" } else { "local" };
        json!({"Name": name, "Id": id, "Driver": driver, "Scope": scope, "Internal": internal})
    };
    networks.into_iter().map(shown).collect()
}

fn inspect(state: &mut State, id: &str) -> Answer {
    let number = state.by_id.get(id).copied();
    match number.and_then(|number| state.entries.get_mut(&number)) {
        Some(entry) => {
            let container = &entry.container;
            let body = entry.inspected.get_or_insert_with(|| container.inspected().to_string().into());
            bytes_answer("application/json", body.clone())
        }
        None => refusal(StatusCode::NOT_FOUND, &format!("No such container: {id}")),
    }
}

/// A stream: kept events since `since` first, then those to come.
fn events(state: &mut State, query: &str) -> Answer {
    let filters = parameter(query, "filters").unwrap_or_default();
    let filters: Value = serde_json::from_str(&filters).unwrap_or(Value::Null);
    let (sender, receiver) = unbounded_channel();
    let subscriber =
        Subscriber { types: strings(&filters["type"]), actions: strings(&filters["event"]), lines: sender };
    if let Some(since) = parameter(query, "since") {
        let (seconds, fraction) = since.split_once('.').unwrap_or((&since, "0"));
        let nanos: u128 = format!("{fraction:0<9}").parse().unwrap();
        let since = seconds.parse::<u128>().unwrap() * 1_000_000_000 + nanos;
        for event in state.events.iter().filter(|event| event.time_nano >= since && subscriber.wants(event)) {
            subscriber.lines.send(event.line.clone()).unwrap();
        }
    }
    state.subscribers.push(subscriber);
    let body = EventBody(receiver).boxed();
    Response::builder().header("Content-Type", "application/json").body(body).unwrap()
}

/// Lines as they come, in chunks; ends when the sender is dropped.
struct EventBody(UnboundedReceiver<Bytes>);

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

fn bytes_answer(kind: &str, body: Bytes) -> Answer {
    Response::builder().header("Content-Type", kind).body(Full::new(body).boxed()).unwrap()
}

fn json_answer(body: &Value) -> Answer {
    bytes_answer("application/json", body.to_string().into())
}

fn refusal(status: StatusCode, message: &str) -> Answer {
    let mut answer = json_answer(&json!({ "message": message }));
    *answer.status_mut() = status;
    answer
}

/// Filters are `{"key":["value"]}` or, from older clients, `{"key":{"value":true}}`.
pub(super) fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect(),
        Value::Object(values) => values.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// A parameter of a query, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}
