//! The calls that we make to an engine, each with a deadline.
//!
//! What lives here: connecting, negotiating the API version, list, inspect,
//! ping. What it must not know: when a call is made, and what its answer is
//! used for.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::errors::Error as BollardError;
use bollard::models::{ContainerSummary, EventMessage, Network};
use bollard::query_parameters::InspectContainerOptions;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use bytes::Bytes;
use futures_util::stream::{self, Stream, TryStreamExt};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::Request;
use hyper::body::Incoming;

use super::address::DockerAddress;
use super::array::ArraySplitter;
use super::convert::{self, Listed};
use super::error::DockerError;
use super::lines::Lines;
use super::networks::Networks;
use super::transport::Transport;
use crate::core::container::{Container, ContainerId};

/// Running and paused containers: `{"status":["running","paused"]}`.
const LIST: &str = "/containers/json?filters=%7B%22status%22%3A%5B%22running%22%2C%22paused%22%5D%7D";
/// All networks, without who stands on them.
const NETWORKS: &str = "/networks";
/// How much is read of a body that is not taken apart while it arrives.
const SMALL_BODY: usize = 1 << 20;

/// How long each kind of call may take, answer included.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Connecting and asking for the version.
    pub connect: Duration,
    /// One ping.
    pub ping: Duration,
    /// One inspect.
    pub inspect: Duration,
    /// One list. A busy engine needs seconds for 10,000 containers.
    pub list: Duration,
    /// One list of networks: short, because an inspect may wait for it.
    pub networks: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            ping: Duration::from_secs(5),
            inspect: Duration::from_secs(5),
            list: Duration::from_secs(30),
            networks: Duration::from_secs(1),
        }
    }
}

/// What an engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Version of the API that is spoken with it: the lower of its newest and ours.
    pub api_version: String,
    /// Its own version, as text.
    pub engine_version: String,
}

/// A connection to one engine. Clones share it.
#[derive(Clone)]
pub struct DockerClient {
    docker: Docker,
    transport: Transport,
    address: String,
    deadlines: Deadlines,
    networks: Arc<Networks>,
}

impl DockerClient {
    /// Connects and negotiates the API version. `kept` is how many unused
    /// connections are kept open. Every kind of [`DockerError`] can occur,
    /// except [`DockerError::NotFound`].
    pub async fn connect(
        address: &DockerAddress,
        deadlines: Deadlines,
        kept: usize,
    ) -> Result<(Self, Engine), DockerError> {
        let transport = Transport::new(address, kept)?;
        let bollard_transport = transport.clone();
        let send = move |request: BollardRequest| {
            let transport = bollard_transport.clone();
            async move { transport.send(request).await.map_err(BollardError::from) }
        };
        // Bollard's own deadline covers the head of an answer only, in whole
        // seconds; ours are stricter.
        let longest = deadlines.list.max(deadlines.inspect).max(deadlines.connect).as_secs() + 1;
        let address = address.to_string();
        let docker = Docker::connect_with_custom_transport(
            send,
            Some(transport.base().to_owned()),
            longest,
            API_DEFAULT_VERSION,
        )
        .map_err(|error| DockerError::bollard(&address, "connect", deadlines.connect, &error))?;
        let client = Self { docker, transport, address, deadlines, networks: Arc::default() };
        let engine = client.negotiate().await?;
        client.transport.set_version(&engine.api_version);
        Ok((client, engine))
    }

    /// Asks whether the engine lives.
    pub async fn ping(&self) -> Result<(), DockerError> {
        self.call("ping", self.deadlines.ping, self.docker.ping()).await.map(drop)
    }

    /// The facts about one container, whatever its state.
    pub async fn inspect(&self, id: &ContainerId) -> Result<Container, DockerError> {
        let what = || format!("inspect of {id}");
        let call = self.docker.inspect_container(id.as_str(), None::<InspectContainerOptions>);
        let answer = self.call(what, self.deadlines.inspect, call).await?;
        let mut container =
            convert::container(answer).map_err(|error| DockerError::garbage(what(), error))?;
        self.learn_networks(&self.networks.unknown(&container, Instant::now())).await;
        self.networks.complete(&mut container);
        Ok(container)
    }

    /// Asks about all networks, so that not every inspect has to.
    pub(super) async fn learn_all_networks(&self) {
        self.ask_networks(NETWORKS.to_owned()).await;
    }

    async fn learn_networks(&self, ids: &[String]) {
        // Identifiers are the engine's own words; others are not put into a path.
        let plain = |id: &&String| id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let quoted: Vec<String> = ids.iter().filter(plain).map(|id| format!("%22{id}%22")).collect();
        if !quoted.is_empty() {
            self.ask_networks(format!("{NETWORKS}?filters=%7B%22id%22%3A%5B{}%5D%7D", quoted.join("%2C")))
                .await;
        }
    }

    /// An engine that does not tell is no reason to do without its containers.
    async fn ask_networks(&self, path: String) {
        let each = |element: &[u8]| match serde_json::from_slice::<Network>(element) {
            Ok(network) => self.networks.told(&network),
            Err(error) => tracing::debug!(%error, "an element of the list of networks can't be read"),
        };
        let list = self.read_array("networks", &path, each);
        if let Err(error) = in_time("networks", self.deadlines.networks, list).await {
            tracing::debug!(engine = self.address, %error, "the engine does not tell about its networks");
        }
    }

    /// Calls `each` for every running or paused container, while the list
    /// arrives. An element that can't be read spoils no other: of it only the
    /// identifier is handed on, and not even that if it has none.
    pub async fn list(
        &self,
        mut each: impl FnMut(Result<Listed, Option<ContainerId>>),
    ) -> Result<(), DockerError> {
        let list = self.read_array("list", LIST, |element| each(read_element(element)));
        in_time("list", self.deadlines.list, list).await
    }

    /// The engine's events, unread: nothing is sent before the first poll.
    pub(super) fn events(
        &self,
        since: &str,
        filters: &[(&str, Vec<&str>)],
    ) -> impl Stream<Item = Result<EventMessage, DockerError>> + Send + Unpin + 'static {
        let path = format!("/events?since={since}&filters={}", encoded(filters));
        let client = self.clone();
        let begin = async move {
            // Boxed: what waits for events need not have the room for asking. Without
            // a deadline: who stands in front of an engine may answer with the first
            // event only. Whoever polls asks now and then whether the engine lives.
            let body = Box::pin(client.get("events", &path)).await?;
            Ok(stream::try_unfold((body, Lines::default()), next_event))
        };
        Box::pin(stream::once(begin).try_flatten())
    }

    async fn negotiate(&self) -> Result<Engine, DockerError> {
        let said = self.call("version", self.deadlines.connect, self.docker.version()).await?;
        let wrong = |reason: String| DockerError::Version { address: self.address.clone(), reason };
        let newest = said.api_version.unwrap_or_default();
        let ours = (API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version);
        let engines = version_number(&newest).ok_or_else(|| {
            wrong("it answers, but does not tell its API version: is this a Docker engine?".into())
        })?;
        let oldest = said.min_api_version.unwrap_or_default();
        if version_number(&oldest).is_some_and(|oldest| oldest > ours) {
            return Err(wrong(format!(
                "it speaks API {oldest} and later, hapilot speaks up to {API_DEFAULT_VERSION}"
            )));
        }
        let (major, minor) = engines.min(ours);
        Ok(Engine {
            api_version: format!("{major}.{minor}"),
            engine_version: super::error::shown(&said.version.unwrap_or_default()),
        })
    }

    /// Calls `each` with the text of every element of an array, while it arrives.
    async fn read_array(
        &self,
        what: &'static str,
        path: &str,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), DockerError> {
        let mut body = self.get(what, path).await?;
        let mut splitter = ArraySplitter::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|error| DockerError::Broken { what: what.into(), reason: error.to_string() })?;
            let Some(bytes) = frame.data_ref() else { continue };
            splitter.feed(bytes, &mut each).map_err(|error| DockerError::garbage(what, error))?;
        }
        splitter.finish().map_err(|error| DockerError::garbage(what, error))
    }

    /// The body of an answer of success.
    async fn get(&self, what: &'static str, path: &str) -> Result<Incoming, DockerError> {
        let request = Request::get(format!("{}{path}", self.transport.base()))
            .body(Either::Left(Full::default()))
            .map_err(|error| DockerError::garbage(what, error))?;
        let response = self
            .transport
            .send(request)
            .await
            .map_err(|error| DockerError::transport(&self.address, what, &error))?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let read = Limited::new(body, SMALL_BODY).collect().await.map(http_body_util::Collected::to_bytes);
        let text = read.unwrap_or_default();
        let said = serde_json::from_slice::<Complaint>(&text).map(|complaint| complaint.message);
        let said = said.unwrap_or_else(|_| String::from_utf8_lossy(&text).into_owned());
        Err(DockerError::status(what, head.status.as_u16(), &said))
    }

    /// What the engine says about itself, unread.
    pub(super) async fn info(&self) -> Result<Bytes, DockerError> {
        let broken = |reason: String| DockerError::Broken { what: "info".into(), reason };
        in_time("info", self.deadlines.inspect, async {
            let body = Limited::new(self.get("info", "/info").await?, SMALL_BODY);
            let body =
                body.collect().await.map_err(|error| broken(super::error::shown(&error.to_string())))?;
            Ok(body.to_bytes())
        })
        .await
    }

    /// Calls `each` with the text of every element that a manager tells of a
    /// kind (`services`, `nodes`, `tasks`) with these filters.
    pub(super) async fn swarm(
        &self,
        kind: &'static str,
        filters: &[(&str, Vec<&str>)],
        each: impl FnMut(&[u8]),
    ) -> Result<(), DockerError> {
        let path = match filters {
            [] => format!("/{kind}"),
            _ => format!("/{kind}?filters={}", encoded(filters)),
        };
        in_time(kind, self.deadlines.inspect, self.read_array(kind, &path, each)).await
    }

    async fn call<T>(
        &self,
        what: impl Named,
        after: Duration,
        call: impl Future<Output = Result<T, BollardError>>,
    ) -> Result<T, DockerError> {
        match tokio::time::timeout(after, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(DockerError::bollard(&self.address, what.name(), after, &error)),
            Err(_) => Err(DockerError::Timeout { what: what.name(), after }),
        }
    }
}

/// The next event of a body of them, one in each line, and what is needed for the
/// one after it; `None` at the end of the body.
async fn next_event(
    (mut body, mut lines): (Incoming, Lines),
) -> Result<Option<(EventMessage, (Incoming, Lines))>, DockerError> {
    let garbage = |error: &dyn std::fmt::Display| DockerError::garbage("events", error);
    loop {
        if let Some(line) = lines.next().map_err(|error| garbage(&error))? {
            let event = serde_json::from_slice(&line).map_err(|error| garbage(&error))?;
            return Ok(Some((event, (body, lines))));
        }
        match body.frame().await {
            Some(Ok(frame)) => lines.feed(frame.data_ref().map_or(&[], |bytes| &bytes[..])),
            Some(Err(error)) => {
                return Err(DockerError::Broken { what: "events".into(), reason: error.to_string() });
            }
            None => return Ok(None),
        }
    }
}

/// One element of a list, or at least its identifier.
fn read_element(element: &[u8]) -> Result<Listed, Option<ContainerId>> {
    #[derive(serde::Deserialize)]
    struct OnlyId {
        #[serde(rename = "Id")]
        id: String,
    }
    let read = serde_json::from_slice::<ContainerSummary>(element)
        .map_err(|error| super::error::shown(&error.to_string()))
        .and_then(|summary| convert::listed(summary).map_err(|error| error.to_string()));
    read.map_err(|error| {
        tracing::warn!(error, "an element of Docker's list can't be read");
        serde_json::from_slice::<OnlyId>(element).ok().and_then(|element| ContainerId::new(&element.id))
    })
}

/// The body of an answer of failure.
#[derive(serde::Deserialize)]
struct Complaint {
    message: String,
}

/// What `call` comes to within this time.
async fn in_time<T>(
    what: &str,
    after: Duration,
    call: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, DockerError> {
    match tokio::time::timeout(after, call).await {
        Ok(result) => result,
        Err(_) => Err(DockerError::Timeout { what: what.into(), after }),
    }
}

/// Filters as a part of a query.
fn encoded(filters: &[(&str, Vec<&str>)]) -> String {
    let filters: HashMap<&str, &Vec<&str>> = filters.iter().map(|(key, values)| (*key, values)).collect();
    let json = serde_json::to_string(&filters).unwrap_or_default();
    let mut text = String::with_capacity(json.len() * 2);
    for byte in json.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            text.push(char::from(byte));
        } else {
            // Writing to a text never fails.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// A call's name, built only if an error needs it.
trait Named {
    fn name(self) -> String;
}

impl Named for &str {
    fn name(self) -> String {
        self.to_owned()
    }
}

impl<F: FnOnce() -> String> Named for F {
    fn name(self) -> String {
        self()
    }
}

fn version_number(text: &str) -> Option<(usize, usize)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
