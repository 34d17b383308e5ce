//! The Runtime API client and `observe` against real HAProxy, every version.
//!
//! What lives here: each command and query with the verdict it gets, and the
//! ways in which a socket can be the wrong one. What it must not know: plans.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use hapilot::core::command::{Check, Command, ServerRef};
use hapilot::core::name::{BackendName, ClassName, MapWord, ServerName};
use hapilot::core::state::{Admin, Backend, Making, Map, Observed, Server};
use hapilot::observe::{ObserveError, observe, observe_backend, removal_facts};
use hapilot::runtime_api::{Client, ClientError, Query, RuntimeApiAddress, Timeouts, Verdict};

#[path = "../support/haproxy.rs"]
mod haproxy;
use haproxy::{PATIENCE, POOL_CONFIG, TestHaproxy};

macro_rules! on_every_version {
    ($($test:ident),+ $(,)?) => {
        on_every_version!(@ haproxy_2_6 "2.6" $($test)+);
        on_every_version!(@ haproxy_3_0 "3.0" $($test)+);
        on_every_version!(@ haproxy_3_2 "3.2" $($test)+);
        on_every_version!(@ haproxy_3_4 "3.4" $($test)+);
    };
    (@ $module:ident $version:literal $($test:ident)+) => {
        mod $module {
            $(#[tokio::test]
            async fn $test() {
                super::$test($version).await;
            })+
        }
    };
}

on_every_version!(
    every_server_command_gets_its_verdict,
    every_map_command_gets_its_verdict,
    backends_at_run_time_are_for_3_4,
    servers_of_the_configuration_can_go,
    a_busy_server_is_deleted_later,
    the_state_is_observed,
    an_haproxy_without_the_maps_is_not_hapilots,
    thousands_of_commands_in_one_go,
    a_tcp_socket_is_as_good,
    a_socket_below_admin_is_refused,
    a_stopping_haproxy_is_noticed,
    a_killed_haproxy_is_noticed,
);

async fn connect(haproxy: &TestHaproxy) -> Client {
    let address = RuntimeApiAddress::Unix(haproxy.socket());
    let mut client = Client::connect(&address, Timeouts::default()).await.unwrap();
    assert_eq!(client.pid(), haproxy.pid());
    observe(&mut client, &[ClassName::web()]).await.unwrap();
    client
}

async fn pool(version: &str) -> (TestHaproxy, Client) {
    let haproxy = TestHaproxy::start(version, POOL_CONFIG);
    let client = connect(&haproxy).await;
    (haproxy, client)
}

async fn one(client: &mut Client, command: Command) -> Verdict {
    let mut verdicts = client.run([&command]).await.unwrap();
    assert_eq!(verdicts.len(), 1);
    verdicts.remove(0)
}

fn backend(name: &str) -> BackendName {
    BackendName::new(name).unwrap()
}

/// The servers of one backend, read anew.
async fn read_backend(client: &mut Client, name: &str) -> Result<Backend, ObserveError> {
    let mut observed = Observed::default();
    observe_backend(client, &backend(name), &mut observed).await?;
    Ok(observed.state.backends.remove(name).unwrap_or_default())
}

fn server(text: &str) -> ServerRef {
    let (b, s) = text.split_once('/').unwrap();
    ServerRef { backend: backend(b), server: ServerName::new(s).unwrap() }
}

fn add(client: &Client, text: &str, address: SocketAddr) -> Command {
    let pool_keywords = !client.capabilities().pools_by_default;
    Command::AddServer {
        server: server(text),
        address,
        weight: 3,
        check: Check::default(),
        slow_start_ms: None,
        pool_keywords,
    }
}

fn state(text: &str, admin: Admin) -> Command {
    Command::SetServerState { server: server(text), admin }
}

fn word(text: &str) -> MapWord {
    MapWord::new(text).unwrap()
}

fn already_so(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::AlreadySo(_))
}

async fn every_server_command_gets_its_verdict(version: &str) {
    let (_haproxy, mut client) = pool(version).await;
    let v4: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let v6: SocketAddr = "[fd00::7]:8080".parse().unwrap();
    let (at, there) = (|| server("web:pool:0001/s.1:a_-"), "web:pool:0001/s.1:a_-");
    let good = [
        add(&client, there, v4),
        add(&client, "web:pool:0001/six", v6),
        Command::EnableHealth { server: at() },
        state(there, Admin::Ready),
        state(there, Admin::Ready),
        state(there, Admin::Drain),
        Command::SetServerWeight { server: at(), weight: 256 },
        Command::SetServerWeight { server: at(), weight: 0 },
        Command::SetServerAddress { server: at(), address: "127.0.0.1:10".parse().unwrap() },
        Command::SetServerAddress { server: at(), address: "127.0.0.2:10".parse().unwrap() },
        Command::SetServerAddress { server: at(), address: "127.0.0.2:10".parse().unwrap() },
        Command::SetServerAddress { server: at(), address: "127.0.0.1:9".parse().unwrap() },
        Command::SetServerAddress { server: at(), address: v6 },
        Command::ShutdownSessions { server: at() },
        state(there, Admin::Maint),
    ];
    let verdicts = client.run(&good).await.unwrap();
    for (command, verdict) in good.iter().zip(&verdicts) {
        assert_eq!(*verdict, Verdict::Done, "{command}");
    }

    let read = read_backend(&mut client, "web:pool:0001").await.unwrap();
    let wanted = Server { address: v6, admin: Admin::Maint, weight: 0, making: Making::default() };
    assert_eq!(read.servers["s.1:a_-"], wanted);
    assert_eq!(read.servers["six"].address, v6);
    assert_eq!(read.servers["six"].weight, 3);

    let again = add(&client, there, v4);
    let double = one(&mut client, again).await;
    assert!(already_so(&double), "{double:?}");
    let ready = [
        state("web:pool:0001/six", Admin::Ready),
        Command::DelServer { server: server("web:pool:0001/six") },
    ];
    let verdicts = client.run(&ready).await.unwrap();
    assert_eq!(verdicts[0], Verdict::Done);
    assert!(matches!(&verdicts[1], Verdict::Refused(text) if text.contains("maintenance")), "{verdicts:?}");
    assert_eq!(one(&mut client, Command::DelServer { server: at() }).await, Verdict::Done);

    for missing in [there, "web:nosuch/s"] {
        let at = || server(missing);
        for command in [
            Command::EnableHealth { server: at() },
            state(missing, Admin::Ready),
            state(missing, Admin::Maint),
            Command::SetServerWeight { server: at(), weight: 1 },
            Command::SetServerAddress { server: at(), address: v4 },
            Command::ShutdownSessions { server: at() },
            Command::DelServer { server: at() },
        ] {
            let verdict = one(&mut client, command.clone()).await;
            assert!(already_so(&verdict), "{command}: {verdict:?}");
        }
    }
    let astray = add(&client, "web:nosuch/s", v4);
    let verdict = one(&mut client, astray).await;
    assert!(already_so(&verdict), "{verdict:?}");
    let absurd =
        one(&mut client, Command::SetServerWeight { server: server("web:pool:0001/six"), weight: 999 });
    assert!(matches!(absurd.await, Verdict::Refused(_)));
    assert!(matches!(read_backend(&mut client, "web:nosuch").await, Err(ObserveError::NoBackend(_))));
}

async fn every_map_command_gets_its_verdict(version: &str) {
    let (_haproxy, mut client) = pool(version).await;
    let map = Map::Hosts;
    let add = |key, value| Command::AddMap { map, key: word(key), value: word(value) };
    let set = |key, value| Command::SetMap { map, key: word(key), value: word(value) };
    let del = |key| Command::DelMap { map, key: word(key) };
    let good = [
        add("a.example", "web:pool:0001"),
        add("*.b.example", "web:pool:0002"),
        set("a.example", "web:pool:0002"),
        add("gone.example", "x"),
        del("gone.example"),
        // A hand on the socket could do this; the first stays in force.
        add("*.b.example", "second"),
        Command::AddMap { map: Map::Names, key: word("web:pool:0002"), value: word("a.example") },
    ];
    for (command, verdict) in good.iter().zip(client.run(&good).await.unwrap()) {
        assert_eq!(verdict, Verdict::Done, "{command}");
    }
    for command in
        [set("no.example", "x"), del("no.example"), Command::DelMapEntry { map, reference: 0xdead }]
    {
        let verdict = one(&mut client, command.clone()).await;
        assert!(already_so(&verdict), "{command}: {verdict:?}");
    }

    let observed = observe(&mut client, &[ClassName::web()]).await.unwrap().observed;
    assert_eq!(observed.state.map_value(map, "*.b.example"), Some(&word("web:pool:0002")));
    let &[(Map::Hosts, reference)] = observed.stray_entries.as_slice() else {
        panic!("one stray entry was made: {:?}", observed.stray_entries);
    };
    assert_eq!(one(&mut client, Command::DelMapEntry { map, reference }).await, Verdict::Done);

    let observed = observe(&mut client, &[ClassName::web()]).await.unwrap().observed;
    assert_eq!(observed.stray_entries, []);
    let hosts: Vec<_> = observed.state.maps[&map].iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(hosts, [("*.b.example", "web:pool:0002"), ("a.example", "web:pool:0002")]);
    assert_eq!(observed.state.map_value(Map::Names, "web:pool:0002"), Some(&word("a.example")));
}

async fn backends_at_run_time_are_for_3_4(version: &str) {
    let (_haproxy, mut client) = pool(version).await;
    let name = || backend("web:shop.example");
    let make = Command::AddBackend { backend: name(), class: ClassName::web() };
    if !client.capabilities().add_backend {
        assert!(matches!(one(&mut client, make).await, Verdict::Refused(_)));
        return;
    }
    let there = "web:shop.example/s";
    let good = [
        make.clone(),
        add(&client, there, "127.0.0.1:9".parse().unwrap()),
        state(there, Admin::Ready),
        Command::PublishBackend { backend: name() },
        Command::PublishBackend { backend: name() },
    ];
    for (command, verdict) in good.iter().zip(client.run(&good).await.unwrap()) {
        assert_eq!(verdict, Verdict::Done, "{command}");
    }
    let double = one(&mut client, make).await;
    assert!(already_so(&double), "{double:?}");
    let foreign = Command::AddBackend { backend: backend("web:x"), class: ClassName::new("nosuch").unwrap() };
    assert!(matches!(one(&mut client, foreign).await, Verdict::Refused(_)));

    let del = || Command::DelBackend { backend: name() };
    let early = client.run(&[del(), Command::UnpublishBackend { backend: name() }, del()]).await.unwrap();
    assert!(matches!(&early[0], Verdict::Deferred(text) if text.contains("unpublished")), "{early:?}");
    assert_eq!(early[1], Verdict::Done);
    assert!(matches!(&early[2], Verdict::Deferred(text) if text.contains("without server")), "{early:?}");
    let good = [state(there, Admin::Maint), Command::DelServer { server: server(there) }, del()];
    for (command, verdict) in good.iter().zip(client.run(&good).await.unwrap()) {
        assert_eq!(verdict, Verdict::Done, "{command}");
    }
    for command in
        [del(), Command::PublishBackend { backend: name() }, Command::UnpublishBackend { backend: name() }]
    {
        let verdict = one(&mut client, command.clone()).await;
        assert!(already_so(&verdict), "{command}: {verdict:?}");
    }
    let pinned = one(&mut client, Command::DelBackend { backend: backend("nowhere") }).await;
    assert!(matches!(&pinned, Verdict::Refused(text) if text.contains("pointing to it")), "{pinned:?}");
}

async fn servers_of_the_configuration_can_go(version: &str) {
    let (_haproxy, mut client) = pool(version).await;
    let there = "web:start.example/disabled";
    let admin = async |client: &mut Client| {
        let read = read_backend(client, "web:start.example").await.unwrap();
        read.servers.get("disabled").map(|server| server.admin)
    };
    assert_eq!(admin(&mut client).await, Some(Admin::Maint));
    assert_eq!(one(&mut client, state(there, Admin::Ready)).await, Verdict::Done);
    assert_eq!(admin(&mut client).await, Some(Admin::Ready), "the mark of the configuration is not maint");
    let commands = [state(there, Admin::Maint), Command::DelServer { server: server(there) }];
    assert_eq!(client.run(&commands).await.unwrap(), [Verdict::Done, Verdict::Done]);
    assert_eq!(admin(&mut client).await, None);
}

/// A container that reports each request and answers when it is told.
fn container() -> (SocketAddr, Receiver<()>, Sender<()>) {
    let listener = TcpListener::bind(haproxy::unused_address()).unwrap();
    let address = listener.local_addr().unwrap();
    let (arrived, arrivals) = channel();
    let (answer, answers) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            request.push(byte[0]);
        }
        let _ = arrived.send(());
        if answers.recv().is_ok() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
        }
    });
    (address, arrivals, answer)
}

async fn a_busy_server_is_deleted_later(version: &str) {
    let (haproxy, mut client) = pool(version).await;
    let (address, arrivals, answer) = container();
    let there = "web:pool:0001/busy";
    let lend = Command::AddMap { map: Map::Hosts, key: word("busy.example"), value: word("web:pool:0001") };
    let commands = [add(&client, there, address), state(there, Admin::Ready), lend];
    assert_eq!(client.run(&commands).await.unwrap(), vec![Verdict::Done; 3]);

    let mut visitor = TcpStream::connect(haproxy.http).unwrap();
    visitor.set_read_timeout(Some(PATIENCE)).unwrap();
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: busy.example\r\nConnection: close\r\n\r\n").unwrap();
    arrivals.recv_timeout(PATIENCE).unwrap();

    let del = || Command::DelServer { server: server(there) };
    let verdicts = client.run(&[state(there, Admin::Maint), del()]).await.unwrap();
    assert_eq!(verdicts[0], Verdict::Done);
    assert!(matches!(&verdicts[1], Verdict::Deferred(_)), "{verdicts:?}");
    let name = backend("web:pool:0001");
    let facts = removal_facts(&mut client, &name, true).await.unwrap();
    assert!(facts["busy"].busy >= 1, "{facts:?}");

    answer.send(()).unwrap();
    let mut reply = String::new();
    visitor.read_to_string(&mut reply).unwrap();
    assert!(reply.ends_with("whole"), "maint must not cut a request: {reply}");

    // The way of 2.6, which is right everywhere: wait until nothing is on the
    // server, let its idle connections go, delete.
    let deadline = std::time::Instant::now() + PATIENCE;
    while removal_facts(&mut client, &name, true).await.unwrap()["busy"].busy > 0 {
        assert!(std::time::Instant::now() < deadline, "never idle");
    }
    let discard = "127.0.0.1:9".parse().unwrap();
    let purge = Command::SetServerAddress { server: server(there), address: discard };
    assert_eq!(one(&mut client, purge).await, Verdict::Done);
    loop {
        match one(&mut client, del()).await {
            Verdict::Done => break,
            Verdict::Deferred(_) => assert!(std::time::Instant::now() < deadline, "never deletable"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(removal_facts(&mut client, &name, true).await.unwrap().len(), 0);
}

async fn the_state_is_observed(version: &str) {
    let (haproxy, mut client) = pool(version).await;
    let before = observe(&mut client, &[ClassName::web()]).await.unwrap();
    let names: Vec<&str> = before.observed.state.backends.keys().map(BackendName::as_str).collect();
    assert_eq!(names, ["web:start.example"]);
    let pool: Vec<&str> = before.observed.pool.iter().map(BackendName::as_str).collect();
    assert_eq!(pool, ["web:pool:0001", "web:pool:0002"]);
    assert!(before.observed.state.maps.is_empty());

    // A server whose check passes: the frontend itself takes connections.
    let up = "web:pool:0002/up";
    let commands = [
        add(&client, up, haproxy.http),
        Command::EnableHealth { server: server(up) },
        state(up, Admin::Ready),
        add(&client, "web:pool:0002/out", haproxy.http),
    ];
    assert_eq!(client.run(&commands).await.unwrap(), vec![Verdict::Done; 4]);
    let deadline = std::time::Instant::now() + PATIENCE;
    let seen = loop {
        let seen = observe(&mut client, &[ClassName::web()]).await.unwrap();
        if seen.operational[&server(up)].check == "L4OK" {
            break seen;
        }
        assert!(std::time::Instant::now() < deadline, "{seen:?}");
    };
    assert!(seen.operational[&server(up)].up && seen.operational[&server(up)].checked);
    let out = &seen.operational[&server("web:pool:0002/out")];
    assert!(!out.up && !out.checked);
    assert!(seen.observed.state.backends.contains_key("web:pool:0002"));
    assert!(!seen.observed.state.backends.contains_key("web:pool:0001"), "free");
    assert_eq!(observe(&mut client, &[]).await.unwrap().observed.state.backends.len(), 0);

    for query in [
        Query::ShowVersion,
        Query::ShowInfo,
        Query::ShowCliLevel,
        Query::ShowMaps,
        Query::ShowMap(Map::Names),
        Query::ShowBackends,
        Query::ShowServersState(None),
        Query::ShowServersConn(None),
        Query::ShowServersConn(Some(backend("web:pool:0002"))),
        Query::ShowStatServers(None),
        Query::ShowStatServers(Some(backend("web:pool:0002"))),
    ] {
        let reply = client.ask(&query).await.unwrap();
        assert!(!reply.contains("Unknown command") && !reply.contains("such"), "{query}: {reply}");
    }
    let reply = client.ask(&Query::ShowStatServers(None)).await.unwrap();
    let rows = hapilot::runtime_api::parse::stat::parse(&reply).unwrap();
    assert!(rows.iter().any(|row| row.proxy == "web:pool:0002" && row.server == "up"), "{reply}");
}

async fn an_haproxy_without_the_maps_is_not_hapilots(version: &str) {
    let config = POOL_CONFIG.replace("names.map", "other.map");
    let config = config.replace("var(txn.be),map_str(@DIR@/maps/other.map)", "str(x)");
    let haproxy = TestHaproxy::start(version, &config);
    let address = RuntimeApiAddress::Unix(haproxy.socket());
    let mut client = Client::connect(&address, Timeouts::default()).await.unwrap();
    let error = observe(&mut client, &[ClassName::web()]).await.unwrap_err();
    assert!(matches!(error, ObserveError::Maps(_)) && !error.is_retryable(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("names.map") && text.contains("hapilot render"), "{text}");
    // The connection itself is good.
    client.heartbeat().await.unwrap();
    let blind = client.run([&Command::DelMap { map: Map::Hosts, key: word("a") }]).await.unwrap_err();
    assert!(matches!(blind.error, ClientError::UnknownMap(Map::Hosts)), "{blind:?}");
}

async fn thousands_of_commands_in_one_go(version: &str) {
    let (haproxy, mut client) = pool(version).await;
    let commands: Vec<Command> = (0..5_000)
        .map(|n| match n % 5 {
            // A reply of several kilobytes each: the answer has to be read while
            // the rest is being written.
            0 => Command::AddBackend {
                backend: backend(&format!("other:{n}")),
                class: ClassName::new("no").unwrap(),
            },
            _ => Command::AddMap {
                map: Map::Hosts,
                key: word(&format!("{n}.example")),
                value: word(&"x".repeat(512)),
            },
        })
        .collect();
    let verdicts = client.run(&commands).await.unwrap();
    assert_eq!(verdicts.len(), 5_000);
    for (n, verdict) in verdicts.iter().enumerate() {
        match n % 5 {
            0 => assert!(matches!(verdict, Verdict::Refused(_)), "{n}: {verdict:?}"),
            _ => assert_eq!(*verdict, Verdict::Done, "{n}"),
        }
    }
    let observed = observe(&mut client, &[ClassName::web()]).await.unwrap().observed;
    assert_eq!(observed.state.maps[&Map::Hosts].len(), 4_000);
    assert_eq!(client.run(&[]).await.unwrap(), []);
    assert_eq!(client.heartbeat().await.unwrap().pid, haproxy.pid());
}

async fn a_tcp_socket_is_as_good(version: &str) {
    let config = format!("  stats socket ipv4@@TCP@ level admin\n{POOL_CONFIG}");
    let haproxy = TestHaproxy::start(version, &config);
    let address: RuntimeApiAddress = format!("tcp:{}", haproxy.tcp).parse().unwrap();
    let mut client = Client::connect(&address, Timeouts::default()).await.unwrap();
    assert_eq!(client.pid(), haproxy.pid());
    observe(&mut client, &[ClassName::web()]).await.unwrap();
    let command = Command::AddMap { map: Map::Hosts, key: word("a"), value: word("b") };
    assert_eq!(one(&mut client, command).await, Verdict::Done);
}

async fn a_socket_below_admin_is_refused(version: &str) {
    let config = format!(
        "  stats socket @DIR@/user.sock level user\n  stats socket @DIR@/operator.sock level operator\n{POOL_CONFIG}"
    );
    let haproxy = TestHaproxy::start(version, &config);
    for level in ["user", "operator"] {
        let address = RuntimeApiAddress::Unix(haproxy.dir().join(format!("{level}.sock")));
        let error = Client::connect(&address, Timeouts::default()).await.unwrap_err();
        assert!(matches!(&error, ClientError::NotAdmin { level: told, .. } if told == level), "{error:?}");
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("level admin"), "{error}");
    }
}

async fn a_stopping_haproxy_is_noticed(version: &str) {
    let (haproxy, mut client) = pool(version).await;
    let address = RuntimeApiAddress::Unix(haproxy.socket());
    client.heartbeat().await.unwrap();
    haproxy.stop_softly();
    let deadline = std::time::Instant::now() + PATIENCE;
    let error = loop {
        match client.heartbeat().await {
            Ok(_) => assert!(std::time::Instant::now() < deadline, "it never stops"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::Stopping { .. }), "{error:?}");
    assert!(error.is_retryable());
    // And nobody new is let in: it is stopping, or not listening any more.
    let late = Client::connect(&address, Timeouts::default()).await.unwrap_err();
    assert!(matches!(late, ClientError::Stopping { .. } | ClientError::Connect { .. }), "{late:?}");
}

async fn a_killed_haproxy_is_noticed(version: &str) {
    let (mut haproxy, mut client) = pool(version).await;
    let address = RuntimeApiAddress::Unix(haproxy.socket());
    haproxy.kill();
    tokio::time::timeout(PATIENCE, client.closed()).await.unwrap();
    let error = client.heartbeat().await.unwrap_err();
    assert!(matches!(error, ClientError::Poisoned { .. }), "{error:?}");
    // The file of the socket is still there, but nobody listens.
    let error = Client::connect(&address, Timeouts::default()).await.unwrap_err();
    assert!(error.to_string().contains("HAProxy has ended"), "{error}");
    assert!(error.is_retryable());
}
