//! The rendered text: a snapshot, and the grammar of every line.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::collection::btree_map;
use proptest::prelude::*;

use crate::core::name::{BackendKey, Host};

use super::super::settings::ConfigPath;
use super::*;
use crate::core::state::Making;

fn settings(pool_size: usize) -> ConfigSettings {
    let runtime = RuntimeSocket::unix(ConfigPath::new("/run/hapilot/admin.sock").unwrap()).unwrap();
    let dir = ConfigPath::new("/run/hapilot").unwrap();
    ConfigSettings { pool_size, ..ConfigSettings::new(dir, "0.0.0.0:80".parse().unwrap(), runtime) }
}

fn server(address: &str, admin: Admin, weight: u16) -> Server {
    Server { address: address.parse().unwrap(), admin, weight, making: Making::default() }
}

fn word(text: &str) -> MapWord {
    MapWord::new(text).unwrap()
}

fn example() -> State {
    let own = BackendKey { class: ClassName::web(), host: Host::new("shop.example").unwrap() }.own_name();
    let lent = BackendName::pool(&ClassName::web(), 2);
    let name = |text| ServerName::new(text).unwrap();
    let shop = BTreeMap::from([
        (name("shop-1-0123456789ab"), server("172.18.0.2:8080", Admin::Ready, 1)),
        (name("shop-2-123456789abc"), server("172.18.0.3:8080", Admin::Maint, 10)),
        (name("shop-3-23456789abcd"), server("[fd00::4]:8080", Admin::Drain, 0)),
    ]);
    State {
        backends: BTreeMap::from([
            (own.clone(), Backend { servers: shop }),
            (lent.clone(), Backend::default()),
            (BackendName::new("hapilot:none").unwrap(), Backend::default()),
        ]),
        maps: BTreeMap::from([
            (
                Map::Hosts,
                BTreeMap::from([
                    (word("shop.example"), MapWord::from(&own)),
                    (word("*.wild.example"), MapWord::from(&lent)),
                ]),
            ),
            (Map::Names, BTreeMap::from([(MapWord::from(&lent), word("*.wild.example"))])),
        ]),
    }
}

#[test]
fn small_configuration() {
    let RenderedConfig { haproxy_cfg, maps } = render(&settings(3), &example());
    let mut text = haproxy_cfg;
    for (map, entries) in maps {
        let _ = write!(text, "\n==== maps/{} ====\n{entries}", map.file_name());
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_the_settings_change() {
    let settings = ConfigSettings {
        http: "[::]:8080".parse().unwrap(),
        runtime: RuntimeSocket::Tcp("127.0.0.1:9999".parse().unwrap()),
        grace: std::time::Duration::from_millis(100),
        identity: Some(Identity { uid: 99, gid: 98 }),
        ..settings(0)
    };
    let text = render(&settings, &State::default()).haproxy_cfg;
    for line in [
        "  bind [::]:8080 v4v6",
        "  stats socket 127.0.0.1:9999 level admin",
        "  hard-stop-after 1s",
        "  uid 99",
        "  gid 98",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn the_partner_is_told() {
    let peer = |name, address: &str| Peer {
        name: ServerName::new(name).unwrap(),
        address: address.parse().unwrap(),
    };
    let peers = Peers { own: peer("lb1", "10.0.0.11:1024"), other: peer("lb2", "[fd00::12]:1024") };
    let text = render(&ConfigSettings { peers: Some(peers), ..settings(0) }, &State::default()).haproxy_cfg;
    for line in [
        "  localpeer lb1",
        "peers hapilot",
        "  peer lb1 10.0.0.11:1024",
        "  peer lb2 [fd00::12]:1024",
        "  stick-table type binary len 20 size 100k expire 1h srvkey name peers hapilot",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    let alone = render(&settings(0), &State::default()).haproxy_cfg;
    assert!(!alone.contains("peer lb") && !alone.contains("localpeer") && !alone.contains(" peers hapilot"));
}

/// On 3.4 the first hundred stay for sticky hosts.
#[test]
fn the_pool_of_every_version_ends_where_the_rest_begins() {
    let text = render(&settings(102), &State::default()).haproxy_cfg;
    let (always, before) = text.split_once(".if !version_atleast(3.4)").unwrap();
    for class in ["web", "web-http", "web-status"] {
        let count = |text: &str| text.matches(&format!("backend {class}:pool:")).count();
        assert_eq!((count(always), count(before)), (100, 2), "{class}");
    }
}

#[test]
fn every_map_has_its_file() {
    let maps = render(&settings(1), &State::default()).maps;
    assert_eq!(maps.into_iter().collect::<Vec<_>>(), Map::ALL.map(|map| (map, String::new())));
}

#[test]
fn nothing_stays_unfilled() {
    let text = render(&settings(2), &example()).haproxy_cfg;
    for mark in [
        "@DIR@",
        "@HTTP@",
        "@SOCKET@",
        "@GRACE@",
        "@PRIVILEGES@",
        "@BACKENDS@",
        "@POOL@",
        "@STICKYPOOL@",
        "@PEERS@",
        "@PEERSECTION@",
        "@LOCALPEER@",
    ] {
        assert!(TEMPLATE.contains(mark) && !text.contains(mark), "{mark}");
    }
    assert_eq!(text.matches('@').count(), 0);
}

fn backend_name() -> impl Strategy<Value = BackendName> {
    prop_oneof![
        (1..20usize).prop_map(|index| BackendName::pool(&ClassName::web(), index)),
        "(web:|web-http:|web-status:|hapilot:|defaults|)[A-Za-z0-9._:-]{1,40}"
            .prop_map(|text| BackendName::new(&text).unwrap()),
    ]
}

fn any_server() -> impl Strategy<Value = Server> {
    let admin = prop_oneof![Just(Admin::Ready), Just(Admin::Drain), Just(Admin::Maint)];
    let making = any::<(bool, Option<u32>, Option<u32>)>();
    let making =
        making.prop_map(|(young, inter_ms, slow_start_ms)| Making { young, inter_ms, slow_start_ms });
    (any::<SocketAddr>(), admin, any::<u16>(), making).prop_map(|(address, admin, weight, making)| Server {
        address,
        admin,
        weight,
        making,
    })
}

fn any_word() -> impl Strategy<Value = MapWord> {
    prop_oneof![any::<String>(), "[!-~]{1,40}"]
        .prop_map(|text| MapWord::new(&text).unwrap_or_else(|_| word("fallback")))
}

fn any_state() -> impl Strategy<Value = State> {
    let server_name = "[A-Za-z0-9._:-]{1,40}".prop_map(|text| ServerName::new(&text).unwrap());
    let servers = btree_map(server_name, any_server(), 0..4).prop_map(|servers| Backend { servers });
    let entries = || btree_map(any_word(), any_word(), 0..6);
    (btree_map(backend_name(), servers, 0..6), entries(), entries(), entries()).prop_map(
        |(backends, hosts, checks, names)| {
            let sticky = checks.clone();
            let maps =
                [(Map::Hosts, hosts), (Map::Checks, checks), (Map::Sticky, sticky), (Map::Names, names)];
            State { backends, maps: BTreeMap::from(maps) }
        },
    )
}

/// Everything but `[a-zA-Z0-9._:-]` ends a name.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._:-".contains(c))
}

fn is_backend_line(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    matches!(words[..], ["backend", name, "from", class] if is_name(name)
        && ["web", "web-http", "web-status"].contains(&class)
        && name.starts_with(&format!("{class}:")))
}

/// What a backend of the pool has of its own.
fn is_pool_line(line: &str) -> bool {
    [
        "  use-server %[var(txn.cookie)] if { var(txn.cookie) -m found }",
        "  stick on var(txn.visitor) table hapilot:sticky",
    ]
    .contains(&line)
}

fn is_server_line(line: &str) -> bool {
    let Some(line) = line.strip_prefix("  server ") else { return false };
    let line = line.strip_suffix(" disabled").unwrap_or(line);
    // A time that a container chose is a number by now.
    let line = match line.split_once(" slowstart ") {
        Some((line, time)) if time.strip_suffix("ms").is_some_and(|n| n.parse::<u32>().is_ok()) => line,
        Some(_) => return false,
        None => line,
    };
    let Some(line) = line.strip_suffix("ms fastinter 200ms downinter 100ms fall 10 rise 1") else {
        return false;
    };
    let Some((line, inter)) = line.split_once(" check inter ") else { return false };
    let words: Vec<&str> = line.split(' ').collect();
    if inter.parse::<u32>().is_err() {
        return false;
    }
    matches!(words[..], [name, address, "weight", weight] if is_name(name)
        && address.parse::<SocketAddr>().is_ok()
        && !address.contains('%')
        && weight.parse::<u16>().is_ok_and(|weight| weight <= 256))
}

proptest! {
    #[test]
    fn no_state_makes_a_line_outside_the_grammar(state in any_state()) {
        let RenderedConfig { haproxy_cfg, maps } = render(&settings(5), &state);
        let empty = render(&settings(0), &State::default()).haproxy_cfg;
        let mut own_lines = empty.lines().peekable();
        let mut names = Vec::new();
        for line in haproxy_cfg.lines() {
            if own_lines.peek() == Some(&line) {
                own_lines.next();
            } else {
                prop_assert!(
                    is_backend_line(line) || is_server_line(line) || is_pool_line(line),
                    "{:?}",
                    line
                );
                names.extend(line.strip_prefix("backend ").map(str::to_owned));
            }
        }
        prop_assert_eq!(own_lines.next(), None);
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(names.len(), count, "a backend stands twice");
        for (map, text) in maps {
            let lines: Vec<&str> = text.split_terminator('\n').collect();
            prop_assert_eq!(lines.len(), state.maps[&map].len());
            for (line, (key, value)) in lines.into_iter().zip(&state.maps[&map]) {
                prop_assert_eq!(line.split_whitespace().collect::<Vec<_>>(), [key.as_str(), value.as_str()]);
                prop_assert!(!line.starts_with('#'));
            }
        }
    }
}

/// The quarantine is derived from the template's values: neither may change alone.
#[test]
fn the_quarantine_outlasts_every_retry() {
    let said = |word: &str| {
        let line = TEMPLATE.lines().find_map(|line| line.trim().strip_prefix(word));
        line.unwrap_or_else(|| panic!("the template says no `{word}`")).trim().to_owned()
    };
    let retries: u32 = said("retries ").parse().unwrap();
    let connect: u64 = said("timeout connect ").strip_suffix("ms").unwrap().parse().unwrap();
    let longest = (retries + 1) * 2 * Duration::from_millis(connect.min(1_000));
    assert!(crate::haproxy_config::QUARANTINE >= longest, "{longest:?}");
}

proptest! {
    /// What is kept of the state before never shows.
    #[test]
    fn one_state_after_the_other_is_written_as_each_alone(states in prop::collection::vec(any_state(), 1..5)) {
        let mut renderer = Renderer::default();
        let mut before = State::default();
        for state in states {
            let names: BTreeSet<_> = before.backends.keys().chain(state.backends.keys()).cloned().collect();
            let differs = |name: &BackendName| before.backends.get(name) != state.backends.get(name);
            let backends = names.into_iter().filter(differs).collect();
            let changed = Scope::Some { backends, hosts: BTreeSet::new() };
            prop_assert_eq!(renderer.render(&settings(2), &state, changed), render(&settings(2), &state));
            before = state;
        }
    }
}
