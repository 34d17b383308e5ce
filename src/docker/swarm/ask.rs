//! What a manager is asked.
//!
//! What lives here: one call per question. What it must not know: when a
//! question is asked, and what follows from its answer.

use std::pin::Pin;
use std::time::Instant;

use super::super::client::DockerClient;
use super::super::error::{DockerError, shown};
use super::super::watch::WatchConfig;
use super::answer::{self, Node, Read, Role, Service, Task};
use super::roster::Roster;

/// Tasks are asked for by their services as long as these are not more than
/// this: a manager looks each of them up, and a list of all tasks costs it 20 µs
/// for each task.
const SERVICES_NAMED: usize = 50;
/// Connections that are kept open: one for questions, one for events.
const KEPT: usize = 2;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Who are you? (a connection of its own, so that a slow manager does not
    /// hold up its engine's containers)
    Connect,
    /// Do you manage a swarm?
    Role,
    /// All services.
    Services,
    /// All nodes.
    Nodes,
    /// The tasks that are to run, of the services that speak.
    Tasks,
    /// What became of tasks that are not to run any more.
    Missing,
}

/// What was answered.
pub(super) enum Answer {
    Connected(Box<DockerClient>),
    Role(Role),
    Services(Read<Service>),
    Nodes(Read<Node>),
    Tasks(Read<Task>),
    Missing(Read<Task>),
}

/// A question that is asked: when, and what came of it.
pub(super) type Asking =
    Pin<Box<dyn Future<Output = (Instant, Result<Answer, (Question, DockerError)>)> + Send>>;

/// Asks.
pub(super) fn ask(
    question: Question,
    client: Option<&DockerClient>,
    config: &WatchConfig,
    roster: &Roster,
) -> Asking {
    let asked = Instant::now();
    let Some(client) = client.cloned() else {
        let (address, deadlines) = (config.address.clone(), config.deadlines);
        return Box::pin(async move {
            let connected = DockerClient::connect(&address, deadlines, KEPT).await;
            let connected = connected.map(|(client, _)| Answer::Connected(client.into()));
            (asked, connected.map_err(|error| (Question::Connect, error)))
        });
    };
    let named: Vec<String> = match question {
        Question::Tasks => roster.speaking().map(|id| id.as_str().to_owned()).collect(),
        Question::Missing => roster.missing().iter().map(|id| id.as_str().to_owned()).collect(),
        _ => Vec::new(),
    };
    Box::pin(async move {
        let answer = put(question, &client, &named).await;
        (asked, answer.map_err(|error| (question, error)))
    })
}

async fn put(question: Question, client: &DockerClient, named: &[String]) -> Result<Answer, DockerError> {
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    match question {
        Question::Connect | Question::Role => {
            let info = client.info().await?;
            answer::role(&info).map(Answer::Role).map_err(|reason| DockerError::garbage("info", reason))
        }
        Question::Services => {
            let services =
                read(client, "services", &[], |element| answer::service(element).map(Some)).await?;
            Ok(Answer::Services(services))
        }
        Question::Nodes => {
            let nodes = read(client, "nodes", &[], |element| answer::node(element).map(Some)).await?;
            Ok(Answer::Nodes(nodes))
        }
        Question::Tasks if named.is_empty() => {
            Ok(Answer::Tasks(Read { all: Vec::new(), unreadable: Vec::new() }))
        }
        Question::Tasks => {
            let mut filters = vec![("desired-state", vec!["running"])];
            if named.len() <= SERVICES_NAMED {
                filters.push(("service", named));
            }
            Ok(Answer::Tasks(read(client, "tasks", &filters, answer::task).await?))
        }
        Question::Missing => {
            Ok(Answer::Missing(read(client, "tasks", &[("id", named)], answer::task).await?))
        }
    }
}

/// An element that can't be read spoils no other, as long as one can tell which
/// it is: what is not in the answer at all is taken for gone.
async fn read<T>(
    client: &DockerClient,
    kind: &'static str,
    filters: &[(&str, Vec<&str>)],
    convert: impl Fn(&[u8]) -> Result<Option<T>, String>,
) -> Result<Read<T>, DockerError> {
    let mut read = Read { all: Vec::new(), unreadable: Vec::new() };
    let mut nameless = None;
    client
        .swarm(kind, filters, |element| {
            match convert(element).map_err(|reason| (reason, answer::identifier(element))) {
                Ok(one) => read.all.extend(one),
                Err((reason, Some(id))) => {
                    let reason = shown(&reason);
                    tracing::warn!(
                        kind,
                        id = id.as_str(),
                        reason,
                        "can't be read; it stays as it was last known"
                    );
                    read.unreadable.push(id);
                }
                Err((reason, None)) => nameless = Some(reason),
            }
        })
        .await?;
    match nameless {
        Some(reason) => Err(DockerError::garbage(kind, shown(&reason))),
        None => Ok(read),
    }
}
