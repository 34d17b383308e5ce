//! `show …` → the state of HAProxy. Changes nothing.
//!
//! What lives here: which backends and map entries are hapilot's, and what
//! HAProxy's numbers mean. What it must not know: what the state should be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Serialize;
use tracing::warn;

use crate::core::command::ServerRef;
use crate::core::name::{BackendName, ClassName, MapWord, ServerName};
use crate::core::plan::RemovalFacts;
use crate::core::state::{Admin, Backend, Making, Map, Observed, Server};
use crate::runtime_api::maps::{MapPathError, MapPaths};
use crate::runtime_api::parse::map_entries::MapEntry;
use crate::runtime_api::parse::servers_state::ServerState;
use crate::runtime_api::parse::{self, ParseError};
use crate::runtime_api::{Client, ClientError, Query};

/// Where hosts lead whose backend HAProxy does not choose (`haproxy.cfg.tmpl`).
const DEFAULT_BACKEND: &str = "hapilot:none";

/// How a server fares; for the status only, no plan depends on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Operational {
    /// HAProxy takes it for alive. True also where nothing checks it.
    pub up: bool,
    /// HAProxy checks it.
    pub checked: bool,
    /// The result of the last check, as `show stat` names it (`L7OK`, `L4CON`);
    /// empty before the first.
    pub check: String,
    /// Seconds since it last went up, down, in or out of service.
    pub since_s: u32,
}

/// All that was read in one go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observation {
    /// What plans are made from.
    pub observed: Observed,
    /// How each of hapilot's servers fares.
    pub operational: BTreeMap<ServerRef, Operational>,
}

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The connection, or a reply.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// This HAProxy was not started with a configuration of hapilot's.
    #[error("{0}: HAProxy's configuration is not one that hapilot made; make one with `hapilot render`")]
    Maps(#[from] MapPathError),
    /// The backend has gone since it was last seen.
    #[error("HAProxy has no backend {0} any more")]
    NoBackend(BackendName),
}

impl ObserveError {
    /// True if a new connection may succeed with nothing changed by a person.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Client(error) => error.is_retryable(),
            Self::Maps(_) => false,
            Self::NoBackend(_) => true,
        }
    }
}

/// Reads backends, servers and maps. Hapilot's are the backends whose class is
/// one of `classes`, and all entries of its maps.
pub async fn observe(client: &mut Client, classes: &[ClassName]) -> Result<Observation, ObserveError> {
    let mut observation = Observation::default();
    let paths = {
        let reply = client.ask(&Query::ShowMaps).await?;
        let listed = understood(client, &Query::ShowMaps, parse::map_listing::parse(&reply))?;
        MapPaths::discover(&listed)?
    };
    client.set_map_paths(paths);

    let reply = client.ask(&Query::ShowBackends).await?;
    let names = understood(client, &Query::ShowBackends, parse::backends::parse(&reply))?;
    take_backends(&names, classes, &mut observation.observed);

    let query = Query::ShowServersState(None);
    let reply = client.ask(&query).await?;
    let servers = understood(client, &query, parse::servers_state::parse(&reply))?;
    take_servers(&servers, classes, &mut observation);

    let mut unpublished = BTreeSet::new();
    if client.capabilities().add_backend {
        let reply = client.ask(&Query::ShowStatBackends).await?;
        let rows = understood(client, &Query::ShowStatBackends, parse::stat::parse(&reply))?;
        let hidden = rows.into_iter().filter(|row| row.status.ends_with("(UNPUB)"));
        unpublished.extend(hidden.map(|row| row.proxy.into_owned()));
    }

    for map in Map::ALL {
        let query = Query::ShowMap(map);
        let reply = client.ask(&query).await?;
        let entries = understood(client, &query, parse::map_entries::parse(&reply))?;
        take_entries(map, &entries, &mut observation.observed);
    }
    pass_over(&unpublished, &mut observation.observed);
    Ok(observation)
}

/// Reads the servers of one backend into what is known already.
pub async fn observe_backend(
    client: &mut Client,
    backend: &BackendName,
    observed: &mut Observed,
) -> Result<(), ObserveError> {
    let reply = ask_backend(client, Query::ShowServersState(Some(backend.clone())), backend).await?;
    let query = Query::ShowServersState(Some(backend.clone()));
    let rows = understood(client, &query, parse::servers_state::parse(&reply))?;
    let mut servers = BTreeMap::new();
    observed.down.retain(|at| at.backend != *backend);
    for row in &rows {
        let Some(name) = server_name(row) else { continue };
        if is_down(row) {
            observed.down.insert(ServerRef { backend: backend.clone(), server: name.clone() });
        }
        servers.insert(name, server(row));
    }
    // An empty backend of the pool is not in use.
    if servers.is_empty() && backend.is_pool() {
        observed.state.backends.remove(backend);
    } else {
        observed.state.backends.insert(backend.clone(), Backend { servers });
    }
    Ok(())
}

/// Reads what must be known of servers of a backend that are to be deleted;
/// their connections only if these count.
pub async fn removal_facts(
    client: &mut Client,
    backend: &BackendName,
    count: bool,
) -> Result<BTreeMap<ServerName, RemovalFacts>, ObserveError> {
    let query = || Query::ShowServersState(Some(backend.clone()));
    let reply = ask_backend(client, query(), backend).await?;
    let mut facts: BTreeMap<ServerName, RemovalFacts> =
        understood(client, &query(), parse::servers_state::parse(&reply))?
            .iter()
            .filter_map(|row| {
                Some((server_name(row)?, RemovalFacts { unchanged_s: row.unchanged_s, busy: 0 }))
            })
            .collect();
    if !count {
        return Ok(facts);
    }

    let query = || Query::ShowStatServers(Some(backend.clone()));
    let reply = ask_backend(client, query(), backend).await?;
    for row in understood(client, &query(), parse::stat::parse(&reply))? {
        if let Some(fact) = facts.get_mut(&*row.server) {
            fact.busy = fact.busy.saturating_add(row.sessions).saturating_add(row.queued);
        }
    }

    let query = || Query::ShowServersConn(Some(backend.clone()));
    let reply = ask_backend(client, query(), backend).await?;
    for row in understood(client, &query(), parse::servers_conn::parse(&reply))? {
        if let Some(fact) = facts.get_mut(row.server) {
            fact.busy = fact.busy.saturating_add(row.used);
        }
    }
    Ok(facts)
}

/// Asks about one backend; that there is no such backend is an error of its own.
async fn ask_backend(
    client: &mut Client,
    query: Query,
    backend: &BackendName,
) -> Result<String, ObserveError> {
    let reply = client.ask(&query).await?;
    match reply.trim() {
        "Can't find backend." | "No such proxy." => Err(ObserveError::NoBackend(backend.clone())),
        _ => Ok(reply),
    }
}

fn understood<T>(client: &Client, query: &Query, parsed: Result<T, ParseError>) -> Result<T, ObserveError> {
    parsed.map_err(|why| client.unparsable(query, why).into())
}

/// A backend of ours, by its name alone.
fn own_backend(name: &str, classes: &[ClassName]) -> Option<BackendName> {
    let name = BackendName::new(name).ok()?;
    let class = name.class()?;
    classes.iter().any(|own| own.as_str() == class).then_some(name)
}

fn take_backends(names: &[&str], classes: &[ClassName], observed: &mut Observed) {
    for name in names.iter().filter_map(|name| own_backend(name, classes)) {
        if name.is_pool() {
            observed.pool.insert(name);
        } else {
            observed.state.backends.entry(name).or_default();
        }
    }
}

fn take_servers(rows: &[ServerState<'_>], classes: &[ClassName], observation: &mut Observation) {
    // The rows of a backend follow one another.
    let mut last: Option<(&str, Option<BackendName>)> = None;
    for row in rows {
        let own = match &last {
            Some((name, own)) if *name == row.backend => own.clone(),
            _ => own_backend(row.backend, classes),
        };
        last = Some((row.backend, own.clone()));
        let Some(backend) = own else { continue };
        let Some(name) = server_name(row) else { continue };
        let observed = &mut observation.observed;
        observed.state.backends.entry(backend.clone()).or_default().servers.insert(name.clone(), server(row));
        let at = ServerRef { backend, server: name };
        if is_down(row) {
            observed.down.insert(at.clone());
        }
        observation.operational.insert(at, operational(row));
    }
}

/// A name that can't be written can't be removed either: only a hand on the
/// configuration makes one (longer than hapilot's bound).
fn server_name(row: &ServerState<'_>) -> Option<ServerName> {
    match ServerName::new(row.server) {
        Ok(name) => Some(name),
        Err(error) => {
            warn!(backend = ?row.backend, server = ?row.server, %error, "a server is passed over for its name");
            None
        }
    }
}

fn server(row: &ServerState<'_>) -> Server {
    // `-`, a name or a socket's path: no container has that, so it stands as
    // an address that no container can have.
    let address = match row.address.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, row.port),
        Err(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
    };
    Server { address, admin: admin(row.admin), weight: row.weight, making: Making::default() }
}

/// `srv_admin_state` (management.txt, `show servers state`). Whether the maint
/// or the drain was set, inherited from a tracked server (0x02, 0x10) or comes
/// from name resolution (0x20) is the same to a visitor. 0x04 only says that
/// the configuration had it disabled at the start: it stays when the server is
/// enabled.
fn admin(bits: u32) -> Admin {
    const MAINT: u32 = 0x01 | 0x02 | 0x20;
    const DRAIN: u32 = 0x08 | 0x10;
    if bits & MAINT != 0 {
        Admin::Maint
    } else if bits & DRAIN != 0 {
        Admin::Drain
    } else {
        Admin::Ready
    }
}

/// `srv_op_state` of a server that takes nothing.
const STOPPED: u8 = 0;

/// Nobody took it out of service, and yet it takes nothing.
fn is_down(row: &ServerState<'_>) -> bool {
    row.operational == STOPPED && admin(row.admin) != Admin::Maint
}

fn operational(row: &ServerState<'_>) -> Operational {
    /// `srv_check_state`: the check is enabled.
    const CHECK_ENABLED: u32 = 0x04;
    Operational {
        up: row.operational != STOPPED,
        checked: row.check_state & CHECK_ENABLED != 0,
        check: check_name(row.check_status).to_owned(),
        since_s: row.unchanged_s,
    }
}

/// `srv_check_status` by the names of `show stat` (enum `healthcheck_status`,
/// the same in 2.6 to 3.4; recorded: 8 is L4CON and 15 is L7OK in all of them).
fn check_name(status: u32) -> &'static str {
    match status {
        1 => "INI",
        4 => "HANA",
        5 => "SOCKERR",
        6 => "L4OK",
        7 => "L4TOUT",
        8 => "L4CON",
        9 => "L6OK",
        10 => "L6TOUT",
        11 => "L6RSP",
        12 => "L7TOUT",
        13 => "L7RSP",
        15 => "L7OK",
        16 => "L7OKC",
        17 => "L7STS",
        18 => "PROCERR",
        19 => "PROCTOUT",
        20 => "PROCOK",
        _ => "",
    }
}

fn take_entries(map: Map, entries: &[MapEntry<'_>], observed: &mut Observed) {
    let mut taken: BTreeMap<MapWord, MapWord> = BTreeMap::new();
    let mut keys: BTreeSet<&str> = BTreeSet::new();
    for entry in entries {
        // Also behind an odd value, the first entry under a key is the one in
        // force, and a second one is stray.
        let first = keys.insert(entry.key);
        match (first, MapWord::new(entry.key), MapWord::new(entry.value)) {
            (true, Ok(key), Ok(value)) => {
                taken.insert(key, value);
            }
            _ => observed.stray_entries.push((map, entry.reference)),
        }
    }
    if !taken.is_empty() {
        observed.state.maps.insert(map, taken);
    }
}

/// HAProxy passes over a backend that isn't published (a plan that was cut off before
/// `publish backend`, or a hand): a host that should lead there leads to the default
/// backend, so that is what the state says, and the next plan points it back.
fn pass_over(unpublished: &BTreeSet<String>, observed: &mut Observed) {
    let Ok(default) = MapWord::new(DEFAULT_BACKEND) else { return };
    for home in observed.state.maps.get_mut(&Map::Hosts).into_iter().flat_map(BTreeMap::values_mut) {
        if unpublished.contains(home.as_str()) {
            *home = default.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<ClassName> {
        vec![ClassName::web()]
    }

    fn row<'a>(backend: &'a str, server: &'a str) -> ServerState<'a> {
        ServerState {
            backend,
            server,
            address: "10.0.0.7",
            port: 80,
            operational: 2,
            admin: 0,
            weight: 1,
            unchanged_s: 4,
            check_status: 15,
            check_state: 6,
        }
    }

    fn read(names: &[&str], rows: &[ServerState<'_>]) -> Observation {
        let mut observation = Observation::default();
        take_backends(names, &classes(), &mut observation.observed);
        take_servers(rows, &classes(), &mut observation);
        observation
    }

    #[test]
    fn only_backends_of_our_classes_are_ours() {
        let names = ["fallback", "web:a", "web:pool:0001", "web:pool:0002", "other:b", "webx:c", "web"];
        let rows = [row("other:b", "s"), row("web:pool:0002", "s"), row("fallback", "s"), row("web:a", "t")];
        let Observation { observed, operational } = read(&names, &rows);
        let ours: Vec<&str> = observed.state.backends.keys().map(BackendName::as_str).collect();
        assert_eq!(ours, ["web:a", "web:pool:0002"], "an empty backend of the pool is not in use");
        let pool: Vec<&str> = observed.pool.iter().map(BackendName::as_str).collect();
        assert_eq!(pool, ["web:pool:0001", "web:pool:0002"]);
        let servers: Vec<String> = operational.keys().map(ToString::to_string).collect();
        assert_eq!(servers, ["web:a/t", "web:pool:0002/s"]);
        assert!(
            read(&["web:a"], &[]).observed.state.backends.contains_key("web:a"),
            "empty but made for a host"
        );
    }

    #[test]
    fn the_numbers_of_a_server_are_understood() {
        for (bits, wanted) in [
            (0x00, Admin::Ready),
            (0x01, Admin::Maint),
            (0x02, Admin::Maint),
            (0x20, Admin::Maint),
            (0x09, Admin::Maint),
            (0x08, Admin::Drain),
            (0x10, Admin::Drain),
            (0x04, Admin::Ready),
            (0x40, Admin::Ready),
        ] {
            assert_eq!(admin(bits), wanted, "{bits:#x}");
        }
        for (address, wanted) in [
            ("10.0.0.7", "10.0.0.7:80"),
            ("fd00::1", "[fd00::1]:80"),
            ("-", "0.0.0.0:0"),
            ("/run/x", "0.0.0.0:0"),
        ] {
            let server = server(&ServerState { address, ..row("web:a", "s") });
            assert_eq!(server.address, wanted.parse().unwrap(), "{address}");
        }
        let fares = operational(&row("web:a", "s"));
        assert_eq!(fares, Operational { up: true, checked: true, check: "L7OK".into(), since_s: 4 });
        let down =
            operational(&ServerState { operational: 0, check_state: 2, check_status: 8, ..row("b", "s") });
        assert_eq!(down, Operational { up: false, checked: false, check: "L4CON".into(), since_s: 4 });
    }

    #[test]
    fn second_and_odd_entries_of_a_map_are_stray() {
        let entries = parse::map_entries::parse(
            "0x1 a x\n0x2 a y\n0x3 b two words\n0x4 b z\n0x5 c \n0x6 d;e v\n0x7 *.f v\n",
        )
        .unwrap();
        let mut observed = Observed::default();
        take_entries(Map::Hosts, &entries, &mut observed);
        let pairs: Vec<(&str, &str)> =
            observed.state.maps[&Map::Hosts].iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("*.f", "v"), ("a", "x")]);
        let strays: Vec<u64> = observed.stray_entries.iter().map(|(_, reference)| *reference).collect();
        assert_eq!(strays, [2, 3, 4, 5, 6]);
        take_entries(Map::Names, &[], &mut observed);
        assert!(!observed.state.maps.contains_key(&Map::Names));
    }

    #[test]
    fn a_host_of_an_unpublished_backend_leads_nowhere() {
        let entries = parse::map_entries::parse("0x1 a web:a\n0x2 b web:b\n").unwrap();
        let mut observed = Observed::default();
        take_entries(Map::Hosts, &entries, &mut observed);
        pass_over(&BTreeSet::from(["web:b".to_owned(), "web:c".to_owned()]), &mut observed);
        let pairs: Vec<(&str, &str)> =
            observed.state.maps[&Map::Hosts].iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("a", "web:a"), ("b", "hapilot:none")]);
    }

    #[test]
    fn a_missing_map_says_what_to_do() {
        let text = ObserveError::from(MapPathError::Missing(Map::Names)).to_string();
        assert!(text.contains("maps/names.map") && text.contains("hapilot render"), "{text}");
    }
}
