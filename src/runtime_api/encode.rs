//! A command → its one line of bytes.
//!
//! What lives here: how each command is written. Every argument is of a type
//! whose alphabet holds no blank, no `;`, no backslash and no control byte, so
//! nothing is escaped and nothing can be broken out of. What it must not know:
//! sockets, replies, and why a command is sent.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::maps::MapPaths;
use crate::core::command::{Check, Command};
use crate::core::state::Map;

/// A request whose `txn.alone` is set (by the frontend: what isn't safe to
/// repeat) goes over a connection that no other request shares; the rest find no
/// name and share theirs.
const POOL: &str = " pool-conn-name var(txn.alone)\n";
/// The same on 2.6, where the name of a connection is its `sni`, also without
/// TLS (seen; 280 bytes of it stay when the server is deleted), and a server
/// added at run time pools nothing unless it is told to.
const OLD_POOL: &str = " sni var(txn.alone) pool-max-conn -1 pool-purge-delay 5s\n";

/// Longest line that every version reads, in bytes (recorded: at 16,384 bytes
/// 2.6 closes the connection without a word).
pub const LINE_LIMIT: usize = 14_000;

/// A map is to be changed whose path was never asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the path of the map {} is not known yet", .0.file_name())]
pub struct UnknownMap(pub Map);

/// Appends the command and a line feed. Leaves `out` as it was on an error.
pub fn encode(command: &Command, maps: &MapPaths, out: &mut String) -> Result<(), UnknownMap> {
    let path = match map_of(command) {
        Some(map) => maps.get(map).ok_or(UnknownMap(map))?.as_str(),
        None => "",
    };
    let begin = out.len();
    // Writing to a String can't fail.
    let _ = write_line(command, path, out);
    let line = out.get(begin..).unwrap_or_default();
    debug_assert!(is_one_command(line), "not one command: {line:?}");
    Ok(())
}

fn map_of(command: &Command) -> Option<Map> {
    match command {
        Command::AddMap { map, .. }
        | Command::SetMap { map, .. }
        | Command::DelMap { map, .. }
        | Command::DelMapEntry { map, .. } => Some(*map),
        _ => None,
    }
}

/// True for one line that HAProxy takes as one command.
#[must_use]
pub fn is_one_command(line: &str) -> bool {
    line.strip_suffix('\n').is_some_and(|text| {
        !text.is_empty() && !text.bytes().any(|b| b == b';' || b == b'\\' || b.is_ascii_control())
    }) && line.len() <= LINE_LIMIT
}

fn write_line(command: &Command, map: &str, out: &mut String) -> std::fmt::Result {
    match command {
        Command::AddBackend { backend, class } => writeln!(out, "add backend {backend} from {class}"),
        Command::PublishBackend { backend } => writeln!(out, "publish backend {backend}"),
        Command::UnpublishBackend { backend } => writeln!(out, "unpublish backend {backend}"),
        Command::DelBackend { backend } => writeln!(out, "del backend {backend}"),
        Command::AddServer { server, address, weight, check, slow_start_ms, pool_keywords } => {
            write!(out, "add server {server} ")?;
            // Not SocketAddr's own form: that one adds the scope of a link-local
            // address, which HAProxy doesn't know.
            match address.ip() {
                IpAddr::V4(ip) => write!(out, "{ip}:{}", address.port())?,
                IpAddr::V6(ip) => write!(out, "[{ip}]:{}", address.port())?,
            }
            write!(out, " weight {weight}")?;
            check_keywords(out, *check)?;
            if let Some(slow_start_ms) = slow_start_ms {
                write!(out, " slowstart {slow_start_ms}ms")?;
            }
            out.push_str(if *pool_keywords { OLD_POOL } else { POOL });
            Ok(())
        }
        Command::EnableHealth { server } => writeln!(out, "enable health {server}"),
        Command::SetServerHealth { server, up } => {
            writeln!(out, "set server {server} health {}", if *up { "up" } else { "down" })
        }
        Command::SetServerState { server, admin } => writeln!(out, "set server {server} state {admin}"),
        Command::SetServerAddress { server, address } => {
            writeln!(out, "set server {server} addr {} port {}", address.ip(), address.port())
        }
        Command::SetServerWeight { server, weight } => writeln!(out, "set server {server} weight {weight}"),
        Command::ShutdownSessions { server } => writeln!(out, "shutdown sessions server {server}"),
        Command::DelServer { server } => writeln!(out, "del server {server}"),
        Command::AddMap { key, value, .. } => writeln!(out, "add map {map} {key} {value}"),
        Command::SetMap { key, value, .. } => writeln!(out, "set map {map} {key} {value}"),
        Command::DelMap { key, .. } => writeln!(out, "del map {map} {key}"),
        Command::DelMapEntry { reference, .. } => writeln!(out, "del map {map} #{reference:#x}"),
    }
}

fn check_keywords(out: &mut String, check: Check) -> std::fmt::Result {
    let Check { inter_ms, fastinter_ms, downinter_ms, fall } = check;
    write!(
        out,
        " check inter {inter_ms}ms fastinter {fastinter_ms}ms downinter {downinter_ms}ms fall {fall} rise 1"
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use std::net::SocketAddr;

    use super::*;
    use crate::core::command::ServerRef;
    use crate::core::name::{BackendName, ClassName, MapWord, ServerName};
    use crate::core::state::Admin;
    use crate::runtime_api::maps::MapPath;

    pub(crate) fn maps() -> MapPaths {
        let mut maps = MapPaths::default();
        maps.set(Map::Hosts, MapPath::new("/d/maps/hosts.map").unwrap());
        maps.set(Map::Checks, MapPath::new("/d/maps/checks.map").unwrap());
        maps.set(Map::Sticky, MapPath::new("/d/maps/sticky.map").unwrap());
        maps.set(Map::Names, MapPath::new("/d/maps/names.map").unwrap());
        maps
    }

    pub(crate) fn line(command: &Command) -> String {
        let mut out = String::new();
        encode(command, &maps(), &mut out).unwrap();
        out
    }

    fn server() -> ServerRef {
        ServerRef {
            backend: BackendName::new("web:shop.example").unwrap(),
            server: ServerName::new("shop-1a2b").unwrap(),
        }
    }

    fn word(text: &str) -> MapWord {
        MapWord::new(text).unwrap()
    }

    #[test]
    fn every_command_is_written_as_the_manual_has_it() {
        let backend = server().backend;
        let check = Check::default();
        let add = |address: &str, pool_keywords: bool| Command::AddServer {
            server: server(),
            address: address.parse().unwrap(),
            weight: 256,
            check,
            slow_start_ms: pool_keywords.then_some(30_000),
            pool_keywords,
        };
        let map = Map::Hosts;
        for (command, wanted) in [
            (
                Command::AddBackend { backend: backend.clone(), class: ClassName::web() },
                "add backend web:shop.example from web",
            ),
            (Command::PublishBackend { backend: backend.clone() }, "publish backend web:shop.example"),
            (Command::UnpublishBackend { backend: backend.clone() }, "unpublish backend web:shop.example"),
            (Command::DelBackend { backend }, "del backend web:shop.example"),
            (
                add("10.0.0.7:80", false),
                "add server web:shop.example/shop-1a2b 10.0.0.7:80 weight 256 check inter 5000ms fastinter 200ms \
                 downinter 100ms fall 10 rise 1 pool-conn-name var(txn.alone)",
            ),
            (
                add("[fe80::7%3]:8080", true),
                "add server web:shop.example/shop-1a2b [fe80::7]:8080 weight 256 check inter 5000ms fastinter 200ms \
                 downinter 100ms fall 10 rise 1 slowstart 30000ms sni var(txn.alone) pool-max-conn -1 pool-purge-delay 5s",
            ),
            (Command::EnableHealth { server: server() }, "enable health web:shop.example/shop-1a2b"),
            (
                Command::SetServerHealth { server: server(), up: true },
                "set server web:shop.example/shop-1a2b health up",
            ),
            (
                Command::SetServerHealth { server: server(), up: false },
                "set server web:shop.example/shop-1a2b health down",
            ),
            (
                Command::SetServerState { server: server(), admin: Admin::Maint },
                "set server web:shop.example/shop-1a2b state maint",
            ),
            (
                Command::SetServerAddress { server: server(), address: "[fd00::1]:80".parse().unwrap() },
                "set server web:shop.example/shop-1a2b addr fd00::1 port 80",
            ),
            (
                Command::SetServerWeight { server: server(), weight: 3 },
                "set server web:shop.example/shop-1a2b weight 3",
            ),
            (
                Command::ShutdownSessions { server: server() },
                "shutdown sessions server web:shop.example/shop-1a2b",
            ),
            (Command::DelServer { server: server() }, "del server web:shop.example/shop-1a2b"),
            (
                Command::AddMap { map, key: word("*.shop.example"), value: word("web:x") },
                "add map /d/maps/hosts.map *.shop.example web:x",
            ),
            (Command::SetMap { map, key: word("a"), value: word("b") }, "set map /d/maps/hosts.map a b"),
            (Command::DelMap { map: Map::Names, key: word("a") }, "del map /d/maps/names.map a"),
            (
                Command::DelMapEntry { map, reference: 0x55_70_8a_04_cb_80 },
                "del map /d/maps/hosts.map #0x55708a04cb80",
            ),
        ] {
            assert_eq!(line(&command), format!("{wanted}\n"));
        }
    }

    #[test]
    fn a_map_without_a_path_is_an_error_and_writes_nothing() {
        let mut out = "before\n".to_owned();
        let command = Command::DelMap { map: Map::Names, key: word("a") };
        assert_eq!(encode(&command, &MapPaths::default(), &mut out), Err(UnknownMap(Map::Names)));
        assert_eq!(out, "before\n");
    }

    /// Whatever a hostile hand offers; what the constructors let through is what
    /// the encoder is given.
    fn offered() -> impl Strategy<Value = String> {
        prop_oneof![".{0,20}", "[A-Za-z0-9._:-]{1,40}", "[ -~]{1,12}", "[a;\\\\ \n\r\t\0#<>@'\"]{1,8}",]
    }

    fn any_command() -> impl Strategy<Value = (Command, usize)> {
        let server = (
            offered().prop_filter_map("not a name", |t| BackendName::new(&t).ok()),
            offered().prop_filter_map("not a name", |t| ServerName::new(&t).ok()),
        )
            .prop_map(|(backend, server)| ServerRef { backend, server });
        let word = || offered().prop_filter_map("not a word", |t| MapWord::new(&t).ok());
        let class = offered().prop_filter_map("not a class", |t| ClassName::new(&t).ok());
        let address: BoxedStrategy<SocketAddr> =
            (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from).boxed();
        (server, (word(), word(), class), address, any::<(u16, u32, u64, bool)>(), 0..16_u8).prop_map(
            |(server, (key, value, class), address, (weight, ms, reference, flag), choice)| {
                let backend = server.backend.clone();
                let map = if flag { Map::Hosts } else { Map::Names };
                let check = Check { inter_ms: ms, fastinter_ms: ms, downinter_ms: ms, fall: 3 };
                match choice {
                    0 => (Command::AddBackend { backend, class }, 5),
                    1 => (Command::PublishBackend { backend }, 3),
                    2 => (Command::UnpublishBackend { backend }, 3),
                    3 => (Command::DelBackend { backend }, 3),
                    4 => {
                        let words = if flag { 25 } else { 19 };
                        let (slow_start_ms, pool_keywords) = (flag.then_some(ms), flag);
                        let add = Command::AddServer {
                            server,
                            address,
                            weight,
                            check,
                            slow_start_ms,
                            pool_keywords,
                        };
                        (add, words)
                    }
                    5 => (Command::EnableHealth { server }, 3),
                    6 => (Command::SetServerState { server, admin: Admin::Drain }, 5),
                    7 => (Command::SetServerAddress { server, address }, 7),
                    8 => (Command::SetServerWeight { server, weight }, 5),
                    9 => (Command::ShutdownSessions { server }, 4),
                    10 => (Command::DelServer { server }, 3),
                    11 => (Command::AddMap { map, key, value }, 5),
                    12 => (Command::SetMap { map, key, value }, 5),
                    13 => (Command::DelMap { map, key }, 4),
                    14 => (Command::SetServerHealth { server, up: flag }, 5),
                    _ => (Command::DelMapEntry { map, reference }, 4),
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            max_global_rejects: 1_000_000,
            max_local_rejects: 1_000_000,
            ..ProptestConfig::with_cases(1_000)
        })]

        #[test]
        fn no_command_is_more_than_one_line_or_has_a_word_too_many((command, words) in any_command()) {
            let line = line(&command);
            prop_assert!(is_one_command(&line), "{:?}", line);
            prop_assert_eq!(line.trim_end().split(' ').count(), words, "{:?}", line);
            prop_assert!(line.trim_end().split(' ').all(|word| !word.is_empty()), "{:?}", line);
        }
    }
}
