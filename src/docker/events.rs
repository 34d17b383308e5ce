//! The event stream: which containers are to be looked at again.
//!
//! What lives here: one connection's stream, read at once whatever the rest of
//! the program does (an engine throws away events for a reader that lags by
//! 1,024 of them), and the pings that tell a quiet stream from a dead one.
//! What it must not know: what a container's state is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bollard::models::{EventMessage, EventMessageTypeEnum};
use futures_util::{Stream, StreamExt};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::client::DockerClient;
use super::error::DockerError;
use super::signal::{self, Signals};
use crate::core::container::ContainerId;

/// What the engine is asked to send: what can change a fact about a running
/// container, of types `container` and `network`; and `kill`, which changes
/// nothing that an inspect shows, but may announce that it will end.
const ACTIONS: [&str; 14] = [
    "kill",
    "start",
    "restart",
    "die",
    "stop",
    "destroy",
    "pause",
    "unpause",
    "rename",
    "update",
    "oom",
    "health_status",
    "connect",
    "disconnect",
];

/// A kind of filter, and what it lets through.
type Filter = (&'static str, Vec<&'static str>);

/// Why and since when a container is to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent: no state machine hides in them")]
pub(super) struct Touched {
    /// Arrival of the oldest event about it.
    pub(super) at: Instant,
    /// True if one of the events can be the first we hear of a running
    /// container. `die` and `connect` can't: a container that we don't know
    /// needs no look because of them.
    pub(super) may_begin: bool,
    /// False if all that happened is signals: no inspect shows them.
    pub(super) look: bool,
    /// A process of it began.
    pub(super) began: bool,
    /// It is paused, by what was said last.
    pub(super) paused: bool,
    /// The signals that its last process was sent.
    pub(super) signals: Signals,
    /// When its process ended, in seconds since 1970 by the engine's clock, if
    /// that is the last that was said of it.
    pub(super) died_at: Option<i64>,
}

/// One connection's events, gathered by container.
#[derive(Debug)]
pub(super) struct EventStream {
    inbox: Arc<Inbox>,
    _reader: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Inbox {
    content: Mutex<Content>,
    changed: Notify,
}

/// Bounded by the number of containers, not of events.
#[derive(Debug, Default)]
struct Content {
    touched: HashMap<ContainerId, Touched>,
    ended: Option<DockerError>,
}

impl Content {
    /// Adds an event; one that is about no container is passed over.
    fn add(&mut self, event: &EventMessage, at: Instant) {
        let Some((id, may_begin)) = subject(event) else { return };
        let action = event.action.as_deref().unwrap_or_default();
        let new = || Touched {
            at,
            may_begin,
            look: false,
            began: false,
            paused: false,
            signals: Signals::default(),
            died_at: None,
        };
        let touched = self.touched.entry(id).or_insert_with(new);
        touched.may_begin |= may_begin;
        match action {
            "kill" => touched.signals.merge(signals(event)),
            "die" => touched.died_at = event.time,
            "pause" => touched.paused = true,
            "unpause" => touched.paused = false,
            _ if may_begin => touched.died_at = None,
            _ => {}
        }
        if action == "start" {
            touched.began = true;
            touched.signals = Signals::default();
        }
        touched.look |= action != "kill";
    }
}

impl EventStream {
    /// Opens a stream that begins with the events since `since` by the
    /// engine's clock, and reads it until it ends or a ping of a quiet stream
    /// (after `quiet` without an event) fails.
    pub(super) fn open(client: DockerClient, since: SystemTime, quiet: Duration) -> Self {
        let inbox = Arc::new(Inbox::default());
        let events = client.events(&timestamp(since), &filters());
        let reader = tokio::spawn({
            let inbox = Arc::clone(&inbox);
            async move {
                let error = read(&client, events, quiet, &inbox).await;
                inbox.lock().ended = Some(error);
                inbox.changed.notify_one();
            }
        });
        Self { inbox, _reader: AbortOnDropHandle::new(reader) }
    }

    /// Waits until there is something to take.
    pub(super) async fn wait(&self) {
        loop {
            {
                let content = self.inbox.lock();
                if !content.touched.is_empty() || content.ended.is_some() {
                    return;
                }
            }
            self.inbox.changed.notified().await;
        }
    }

    /// Takes what has come. The error says that nothing more will come; it is
    /// given after everything that came before.
    pub(super) fn take(&self) -> Result<HashMap<ContainerId, Touched>, DockerError> {
        let mut content = self.inbox.lock();
        match &content.ended {
            Some(error) if content.touched.is_empty() => Err(error.clone()),
            _ => Ok(std::mem::take(&mut content.touched)),
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Content> {
        // Nothing in a critical section can leave the content half changed.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads events into the inbox; returns why that ended.
async fn read(
    client: &DockerClient,
    mut events: impl Stream<Item = Result<EventMessage, DockerError>> + Unpin,
    quiet: Duration,
    inbox: &Inbox,
) -> DockerError {
    loop {
        match tokio::time::timeout(quiet, events.next()).await {
            Ok(Some(Ok(event))) => {
                inbox.lock().add(&event, Instant::now());
                inbox.changed.notify_one();
            }
            Ok(Some(Err(error))) => {
                if matches!(error, DockerError::Garbage { .. }) {
                    tracing::warn!(%error, "Docker's event stream can't be read; connecting again");
                }
                return error;
            }
            Ok(None) => {
                return DockerError::Broken {
                    what: "events".into(),
                    reason: "the engine ended the stream".into(),
                };
            }
            Err(_) => {
                // Boxed: one such future waits for each engine.
                if let Err(error) = Box::pin(client.ping()).await {
                    return error;
                }
            }
        }
    }
}

/// The container that an event is about, and whether it can be the first we
/// hear of it; `None` for an event about something else.
fn subject(event: &EventMessage) -> Option<(ContainerId, bool)> {
    let actor = event.actor.as_ref()?;
    let action = event.action.as_deref()?;
    match event.typ? {
        EventMessageTypeEnum::CONTAINER => {
            let may_begin = !matches!(action, "kill" | "die" | "stop" | "destroy" | "oom");
            Some((ContainerId::new(actor.id.as_deref()?)?, may_begin))
        }
        // A container that joins a network before its start is announced by
        // `start`; one that runs is known.
        EventMessageTypeEnum::NETWORK => {
            let container = actor.attributes.as_ref()?.get("container")?;
            Some((ContainerId::new(container)?, false))
        }
        _ => None,
    }
}

/// The signal of a `kill` event, as a number or a name.
fn signals(event: &EventMessage) -> Signals {
    let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
    let text = attributes.and_then(|attributes| attributes.get("signal"));
    let mut signals = Signals::default();
    if let Some(number) = text.and_then(|text| signal::number(text)) {
        signals.add(number);
    }
    signals
}

fn filters() -> [Filter; 2] {
    [("type", vec!["container", "network"]), ("event", ACTIONS.to_vec())]
}

/// What a manager is asked to send.
pub(super) fn swarm_filters() -> [Filter; 1] {
    [("type", vec!["service", "node"])]
}

/// `seconds.nanoseconds`, as the engine wants `since`.
pub(super) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn subject_of(event: Value) -> Option<(String, bool)> {
        subject(&serde_json::from_value(event).unwrap()).map(|(id, begins)| (id.as_str().to_owned(), begins))
    }

    #[test]
    fn subjects() {
        let container = |action: &str| json!({"Type": "container", "Action": action, "Actor": {"ID": "c"}});
        assert_eq!(subject_of(container("start")), Some(("c".into(), true)));
        assert_eq!(subject_of(container("health_status: healthy")), Some(("c".into(), true)));
        assert_eq!(subject_of(container("die")), Some(("c".into(), false)));
        let network = json!({"Type": "network", "Action": "connect",
            "Actor": {"ID": "n", "Attributes": {"container": "c", "name": "bridge"}}});
        assert_eq!(subject_of(network), Some(("c".into(), false)));
    }

    #[test]
    fn events_about_nothing_are_passed_over() {
        for event in [
            json!({}),
            json!({"Type": "container", "Action": "start"}),
            json!({"Type": "container", "Action": "start", "Actor": {}}),
            json!({"Type": "container", "Action": "start", "Actor": {"ID": "a b"}}),
            json!({"Type": "container", "Actor": {"ID": "c"}}),
            json!({"Type": "network", "Action": "destroy", "Actor": {"ID": "n", "Attributes": {}}}),
            json!({"Type": "image", "Action": "pull", "Actor": {"ID": "c"}}),
        ] {
            assert_eq!(subject_of(event.clone()), None, "{event}");
        }
    }

    #[test]
    fn events_about_one_container_are_folded() {
        let (first, second) = (Instant::now(), Instant::now());
        let event = |action: &str| {
            let event = json!({"Type": "container", "Action": action, "time": 7, "Actor": {"ID": "c"}});
            serde_json::from_value(event).unwrap()
        };
        let folded = |actions: [&str; 2]| {
            let mut content = Content::default();
            content.add(&event(actions[0]), first);
            content.add(&event(actions[1]), second);
            assert_eq!(content.touched.len(), 1);
            let touched = content.touched.into_values().next().unwrap();
            (touched.at, touched.may_begin, touched.died_at)
        };
        assert_eq!(folded(["oom", "die"]), (first, false, Some(7)));
        assert_eq!(folded(["die", "start"]), (first, true, None));
        assert_eq!(folded(["start", "die"]), (first, true, Some(7)));
        assert_eq!(folded(["die", "stop"]), (first, false, Some(7)));
    }

    #[test]
    fn signals_ask_for_no_look_and_end_with_the_process_they_were_sent_to() {
        let mut content = Content::default();
        let mut tell = |action: &str, signal: &str| {
            let event = json!({"Type": "container", "Action": action, "time": 7,
                "Actor": {"ID": "c", "Attributes": {"signal": signal}}});
            content.add(&serde_json::from_value(event).unwrap(), Instant::now());
            content.touched[&ContainerId::new("c").unwrap()]
        };
        let touched = tell("kill", "1");
        assert!(!touched.look && !touched.may_begin && !touched.signals.end(15));
        let touched = tell("kill", "SIGTERM");
        assert!(!touched.look && touched.signals.end(15));
        let touched = tell("kill", "nonsense");
        assert!(!touched.look && touched.signals.end(15));
        let touched = tell("die", "");
        assert!(touched.look && touched.signals.end(15) && touched.died_at == Some(7));
        let touched = tell("start", "");
        assert!(touched.look && touched.signals.is_empty() && touched.died_at.is_none() && !touched.paused);
        assert!(tell("pause", "").paused && !tell("unpause", "").paused);
    }

    #[test]
    fn a_time_stamp_has_nine_digits() {
        assert_eq!(timestamp(UNIX_EPOCH + Duration::new(17, 5)), "17.000000005");
    }
}
