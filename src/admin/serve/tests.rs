//! The server against a controller that gives prepared answers.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::admin::Ask;
use crate::admin::client::{AskError, Client};
use crate::report::{Counts, Docker, Hapilot, Haproxy, Health, Mode, PlanReport, PlannedStep, Status};
use crate::settings::{AdminAddress, admin_socket, dir};

type Change = fn(&mut Health);

struct Server {
    _temp: tempfile::TempDir,
    client: Client,
    socket: std::path::PathBuf,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn server(controller: impl FnOnce(mpsc::Receiver<Ask>) -> JoinHandle<()>) -> Server {
    let temp = tempfile::tempdir().unwrap();
    let dir = dir(temp.path().to_str().unwrap()).unwrap();
    let admin = AdminAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let listeners = Listeners::bind(&dir, Some(&admin)).await.unwrap();
    let address = listeners.tcp_address().unwrap();
    let (handle, questions) = AdminHandle::new();
    controller(questions);
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listeners, handle, Arc::default(), stop.clone()));
    let socket = admin_socket(&dir);
    Server { _temp: temp, client: Client::new(socket.clone()), socket, address, stop, task }
}

fn status(converged: bool) -> Status {
    Status {
        health: Health {
            converged,
            since: None,
            as_of: Some(1),
            as_of_age_seconds: Some(0),
            stale: vec![],
            hapilot: Hapilot { version: "0".into(), pid: 1, uptime_seconds: 0, mode: Mode::Spawn },
            docker: Docker { connected: true, ..Docker::default() },
            haproxy: Haproxy { connected: true, ..Haproxy::default() },
            counts: Counts::default(),
            error: None,
            role: None,
        },
        engines: vec![],
        hosts: vec![],
        rejected: vec![],
        blocked: vec![],
        waiting: vec![],
    }
}

fn plan() -> PlanReport {
    let step = PlannedStep { command: "del map hosts.map a".into(), reason: "nobody claims it".into() };
    PlanReport { steps: vec![step], ..PlanReport::default() }
}

fn answering(status: Status) -> impl FnOnce(mpsc::Receiver<Ask>) -> JoinHandle<()> {
    move |mut questions| {
        tokio::spawn(async move {
            while let Some(ask) = questions.recv().await {
                // Who asked may have gone away.
                let _ = match ask {
                    Ask::Health(answer) => answer.send(status.health.clone()).map_err(drop),
                    Ask::Status(answer) => answer.send(status.clone()).map_err(drop),
                    Ask::Plan(answer) => answer.send(plan()).map_err(drop),
                    Ask::Render(answer) => answer.send("global\n".into()).map_err(drop),
                };
            }
        })
    }
}

/// The head and the body of an answer over TCP.
async fn raw(server: &Server, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

async fn get(server: &Server, path: &str) -> (String, String) {
    let (head, body) = raw(server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    (head.lines().next().unwrap().to_owned(), body)
}

#[tokio::test]
async fn every_path_answers() {
    let server = server(answering(status(true))).await;
    for (path, begins) in [
        ("/live", "alive"),
        ("/ready", "converged · "),
        ("/health", "{\"converged\":true"),
        ("/status", "{\"converged\":true"),
        ("/plan", "{\"steps\":[{\"command\":\"del map hosts.map a\""),
        ("/render", "global\n"),
        ("/metrics", "# HELP hapilot_build_info"),
        ("/", "/live"),
    ] {
        let (line, body) = get(&server, path).await;
        assert_eq!(line, "HTTP/1.1 200 OK", "{path}");
        assert!(body.starts_with(begins), "{path}: {body}");
    }
}

#[tokio::test]
async fn the_client_reads_what_the_server_writes() {
    let server = server(answering(status(true))).await;
    assert_eq!(server.client.status().await.unwrap(), status(true));
    assert_eq!(server.client.health().await.unwrap(), status(true).health);
    assert_eq!(server.client.plan().await.unwrap(), plan());
    assert_eq!(server.client.render().await.unwrap(), "global\n");
}

#[tokio::test]
async fn ready_needs_all_three() {
    let changes: [(Change, &str); 4] = [
        (|h| h.converged = false, "not ready: changes are on their way\n"),
        (|h| h.docker.connected = false, "not ready: Docker does not answer\n"),
        (|h| h.haproxy.connected = false, "not ready: HAProxy does not answer\n"),
        (|h| h.stale.push("old".into()), "not ready: old\n"),
    ];
    for (change, expected) in changes {
        let mut status = status(true);
        change(&mut status.health);
        let server = server(answering(status)).await;
        let (line, body) = get(&server, "/ready").await;
        assert_eq!((line.as_str(), body.as_str()), ("HTTP/1.1 503 Service Unavailable", expected));
        let (_, json) = get(&server, "/status").await;
        assert!(json.starts_with("{\"converged\":false"), "{json}");
        let (_, metrics) = get(&server, "/metrics").await;
        assert!(metrics.contains("\nhapilot_converged 0\n"), "{metrics}");
    }
}

#[tokio::test]
async fn what_is_not_offered_is_refused() {
    let server = server(answering(status(true))).await;
    let (line, body) = get(&server, "/nothing").await;
    assert_eq!(line, "HTTP/1.1 404 Not Found");
    assert!(body.contains("/metrics"), "{body}");
    let (head, _) = raw(&server, "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert!(head.contains("allow: GET, HEAD"), "{head}");
    let (head, body) = raw(&server, "HEAD /live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 6"), "{head}");
    assert_eq!(body, "");
    let endless = format!("GET /live HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(HEAD_LIMIT));
    let (head, _) = raw(&server, &endless).await;
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

#[tokio::test]
async fn the_role_is_told_on_the_own_socket_only() {
    let server = server(answering(status(true))).await;
    for role in [Role::Master, Role::Fault] {
        server.client.tell(role).await.unwrap();
        assert_eq!(server.client.health().await.unwrap().role.map(|told| told.role), Some(role));
        let told = server.client.status().await.unwrap().health.role;
        assert_eq!(told.map(|told| told.role), Some(role));
        let (_, metrics) = get(&server, "/metrics").await;
        for other in Role::ALL {
            let line = format!("\nhapilot_role{{role=\"{other}\"}} {}\n", u8::from(other == role));
            assert!(metrics.contains(&line), "{metrics}");
        }
    }
    let (head, _) = raw(&server, "PUT /role/master HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    let (line, _) = get(&server, "/role/master").await;
    assert_eq!(line, "HTTP/1.1 404 Not Found");
    assert_eq!(server.client.health().await.unwrap().role.map(|told| told.role), Some(Role::Fault));
}

#[tokio::test]
async fn a_controller_that_is_gone_is_reported() {
    let server = server(|questions| tokio::spawn(async { drop(questions) })).await;
    for path in ["/live", "/ready", "/health", "/status", "/plan", "/render"] {
        let (line, body) = get(&server, path).await;
        assert_eq!(line, "HTTP/1.1 503 Service Unavailable", "{path}");
        assert_eq!(body, "the controller does not answer\n", "{path}");
    }
    let (line, body) = get(&server, "/metrics").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    assert!(body.contains("\nhapilot_controller_answers 0\n"), "{body}");
    let refused = server.client.status().await.unwrap_err();
    assert!(
        matches!(&refused, AskError::Refused(reason) if reason == "the controller does not answer"),
        "{refused}"
    );
}

// The clock stands still while anything can be done and jumps to the next
// deadline when nothing can: the test takes no time.
#[tokio::test(start_paused = true)]
async fn a_client_that_stops_in_the_middle_is_cut_off() {
    let server = server(answering(status(true))).await;
    let begin = tokio::time::Instant::now();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nHost").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert!(begin.elapsed() < CONNECTION_DEADLINE, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn silent_clients_do_not_keep_others_out_of_the_other_socket() {
    let server = server(answering(status(true))).await;
    let mut silent = Vec::new();
    for _ in 0..PLACES {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(server.client.render().await.unwrap(), "global\n");
}

#[tokio::test]
async fn the_end_removes_the_socket() {
    let server = server(answering(status(true))).await;
    assert!(server.socket.exists());
    server.stop.cancel();
    server.task.await.unwrap();
    assert!(!server.socket.exists());
    assert!(server.client.status().await.unwrap_err().is_absent());
}
