//! The Runtime API client against peers that misbehave.
//!
//! What lives here: replies that never end, connections that break half way,
//! sockets that lead elsewhere. What it must not know: real HAProxy
//! (`tests/real/runtime_api.rs`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::Duration;

use hapilot::core::command::{Command, ServerRef};
use hapilot::core::name::{BackendName, ServerName};
use hapilot::runtime_api::{Client, ClientError, Query, RuntimeApiAddress, Timeouts, Verdict};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;

/// What the peer does with a line.
enum Act {
    /// Answers this, as it is, without a prompt.
    Say(String),
    /// Answers this and closes.
    SayAndClose(&'static str),
    /// Reads on and says nothing.
    Nothing,
    /// Reads nothing any more, and keeps the connection.
    Stall,
}

fn info(pid: u32, stopping: u8) -> String {
    format!("Name: HAProxy\nPid: {pid}\nUptime_sec: 1\nStopping: {stopping}\nStart_time_sec: 5\n\n> ")
}

/// The greeting of a good HAProxy, then `then` with the number of each further
/// line.
fn greeting(line: &str, number: usize, then: impl Fn(usize) -> Act) -> Act {
    match (number, line) {
        (0, "prompt") => Act::Say("\n> ".into()),
        (1, "show version") => Act::Say("3.0.11-1\n\n> ".into()),
        (2, "show cli level") => Act::Say("admin\n\n> ".into()),
        (3, "show info") => Act::Say(info(77, 0)),
        (0..=3, line) => panic!("unexpected: {line}"),
        _ => then(number - 4),
    }
}

struct Peer {
    _dir: tempfile::TempDir,
    address: RuntimeApiAddress,
}

/// A peer that serves one connection.
fn peer(act: impl Fn(&str, usize) -> Act + Send + Sync + 'static) -> Peer {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("peer.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut number = 0;
        while let Ok(Some(line)) = lines.next_line().await {
            match act(&line, number) {
                Act::Say(text) => write.write_all(text.as_bytes()).await.unwrap(),
                Act::SayAndClose(text) => {
                    write.write_all(text.as_bytes()).await.unwrap();
                    return;
                }
                Act::Nothing => {}
                Act::Stall => std::future::pending().await,
            }
            number += 1;
        }
    });
    Peer { _dir: dir, address: RuntimeApiAddress::Unix(path) }
}

/// Deadlines in a test are only ever waited for with the clock at a stop.
fn timeouts() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(5),
        progress: Duration::from_secs(5),
        overall: Duration::from_secs(60),
    }
}

async fn connect(peer: &Peer) -> Result<Client, ClientError> {
    Client::connect(&peer.address, timeouts()).await
}

fn commands(count: usize) -> Vec<Command> {
    let server =
        ServerRef { backend: BackendName::new("web:a").unwrap(), server: ServerName::new("s").unwrap() };
    vec![Command::EnableHealth { server }; count]
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_never_ends_is_a_deadline_after_what_was_done() {
    let peer = peer(|line, n| {
        greeting(line, n, |n| match n {
            0 | 1 => Act::Say("\n> ".into()),
            2 => Act::Say("half a reply\n>".into()),
            _ => Act::Nothing,
        })
    });
    let mut client = connect(&peer).await.unwrap();
    let failed = client.run(&commands(9)).await.unwrap_err();
    assert_eq!(failed.done, [Verdict::Done, Verdict::Done]);
    assert!(matches!(failed.error, ClientError::Deadline { waited, .. } if waited == timeouts().progress));
    assert!(failed.error.is_retryable());
    let next = client.ask(&Query::ShowInfo).await.unwrap_err();
    assert!(matches!(next, ClientError::Poisoned { .. }), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_is_a_deadline() {
    let peer = peer(|line, n| greeting(line, n, |_| Act::Nothing));
    let mut client = connect(&peer).await.unwrap();
    let error = client.ask(&Query::ShowBackends).await.unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error:?}");
    assert!(matches!(client.run(&commands(1)).await.unwrap_err().error, ClientError::Poisoned { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_is_a_deadline_and_no_deadlock() {
    let peer = peer(|line, n| greeting(line, n, |_| Act::Stall));
    let mut client = connect(&peer).await.unwrap();
    let failed = client.run(&commands(50_000)).await.unwrap_err();
    assert!(failed.done.is_empty());
    assert!(matches!(failed.error, ClientError::Deadline { .. }), "{failed:?}");
}

#[tokio::test]
async fn a_close_in_the_middle_of_a_reply_is_no_success() {
    for last in ["", "New serv", "\n", "\n>"] {
        let peer = peer(move |line, n| {
            greeting(line, n, |n| if n < 3 { Act::Say("\n> ".into()) } else { Act::SayAndClose(last) })
        });
        let mut client = connect(&peer).await.unwrap();
        let failed = client.run(&commands(4)).await.unwrap_err();
        assert_eq!(failed.done, vec![Verdict::Done; 3], "{last:?}");
        assert!(matches!(failed.error, ClientError::Closed { .. }), "{last:?}: {failed:?}");
    }
}

#[tokio::test]
async fn a_whole_reply_before_the_close_counts() {
    let peer = peer(|line, n| greeting(line, n, |_| Act::SayAndClose("No such server.\n\n> ")));
    let mut client = connect(&peer).await.unwrap();
    let verdicts = client.run(&commands(1)).await.unwrap();
    assert_eq!(verdicts, [Verdict::AlreadySo("No such server.".into())]);
    client.closed().await;
    assert!(matches!(client.heartbeat().await.unwrap_err(), ClientError::Poisoned { .. }));
}

#[tokio::test]
async fn a_reply_too_many_puts_the_connection_out_of_step() {
    let peer = peer(|line, n| greeting(line, n, |_| Act::Say("\n> surplus\n> ".into())));
    let mut client = connect(&peer).await.unwrap();
    assert_eq!(client.run(&commands(1)).await.unwrap(), [Verdict::Done]);
    client.closed().await;
    assert!(matches!(client.ask(&Query::ShowInfo).await.unwrap_err(), ClientError::Poisoned { .. }));
}

#[tokio::test]
async fn a_call_that_is_dropped_half_way_poisons() {
    let peer = peer(|line, n| greeting(line, n, |_| Act::Nothing));
    let mut client = connect(&peer).await.unwrap();
    let some = commands(1);
    tokio::select! {
        biased;
        _ = client.run(&some) => panic!("nothing was answered"),
        () = tokio::task::yield_now() => {}
    }
    assert!(matches!(client.heartbeat().await.unwrap_err(), ClientError::Poisoned { .. }));
}

#[tokio::test]
async fn another_or_a_stopping_process_is_noticed() {
    for (reply, stopping) in [(info(78, 0), false), (info(77, 1), true)] {
        let peer = peer(move |line, n| greeting(line, n, |_| Act::Say(reply.clone())));
        let mut client = connect(&peer).await.unwrap();
        let error = client.heartbeat().await.unwrap_err();
        let right = match &error {
            ClientError::Stopping { pid: 77, .. } => stopping,
            ClientError::Replaced { was: 77, now: 78, .. } => !stopping,
            _ => false,
        };
        assert!(right, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn sockets_that_lead_elsewhere_are_told_apart() {
    let mute = connect(&peer(|_, _| Act::Nothing)).await.unwrap_err();
    assert!(matches!(mute, ClientError::Mute { .. }), "{mute:?}");
    assert!(mute.to_string().contains("stats maxconn"), "{mute}");

    let master = connect(&peer(|_, _| Act::Say("\nmaster> ".into()))).await.unwrap_err();
    assert!(matches!(master, ClientError::NotRuntimeApi { master: true, .. }), "{master:?}");

    let shop = connect(&peer(|_, _| Act::Say("220 mail.example\n> ".into()))).await.unwrap_err();
    assert!(matches!(shop, ClientError::NotRuntimeApi { master: false, .. }), "{shop:?}");
    assert!(!shop.is_retryable());

    let gone = connect(&peer(|_, _| Act::SayAndClose(""))).await.unwrap_err();
    assert!(matches!(gone, ClientError::Closed { .. }), "{gone:?}");

    let replies = ["\n> ", "2.4.22-0+deb11u3\n\n> "];
    let old = connect(&peer(move |_, n| Act::Say(replies[n].into()))).await.unwrap_err();
    assert!(matches!(old, ClientError::TooOld { .. }), "{old:?}");
    assert!(old.to_string().contains("2.4.22") && old.to_string().contains("2.6.0"), "{old}");

    let replies = ["\n> ", "Unknown command.\n\n> "];
    let odd = connect(&peer(move |_, n| Act::Say(replies[n].into()))).await.unwrap_err();
    assert!(matches!(odd, ClientError::Unparsable { .. }), "{odd:?}");

    let replies = ["\n> ", "3.4.7\n\n> ", "admin\n\n> "];
    let bye = connect(&peer(move |_, n| Act::Say(replies.get(n).map_or(info(9, 1), |r| (*r).into()))))
        .await
        .unwrap_err();
    assert!(matches!(bye, ClientError::Stopping { pid: 9, .. }), "{bye:?}");
}

#[tokio::test]
async fn a_path_that_leads_nowhere_says_what_to_look_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("no.sock");
    let error = Client::connect(&RuntimeApiAddress::Unix(path.clone()), timeouts()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()) && text.contains("stats socket"), "{text}");
    assert!(error.is_retryable());
    let closed = RuntimeApiAddress::Tcp("127.0.0.1:1".into());
    let error = Client::connect(&closed, timeouts()).await.unwrap_err();
    assert!(error.to_string().contains("nobody listens"), "{error}");
}
