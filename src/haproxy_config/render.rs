//! Template + settings + state → the text of every file.
//!
//! What lives here: the lines that are repeated (backends, servers, map
//! entries) and where they go in the template. What it must not know: files,
//! and any text that isn't of a validated type.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::core::command::Check;
use crate::core::desired::Scope;
use crate::core::name::{BackendName, ClassName, MapWord, ServerName};
use crate::core::state::{Admin, Backend, Map, Server, State};

use super::settings::{ConfigSettings, Identity, Peer, Peers, RuntimeSocket};

/// Backends of each class's pool that there are on every version.
const STICKY_POOL: usize = 100;

const TEMPLATE: &str = include_str!("../../haproxy/haproxy.cfg.tmpl");

/// The text of every file that HAProxy reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedConfig {
    /// `<dir>/haproxy.cfg`.
    pub haproxy_cfg: String,
    /// `<dir>/maps/…`, all of [`Map::ALL`], empty ones too: HAProxy doesn't
    /// start without them.
    pub maps: BTreeMap<Map, String>,
}

/// Writes down a state as HAProxy would have to read it at its start. A backend
/// whose name doesn't begin with one of the classes isn't hapilot's and is left
/// out; so is the pool's copy of a backend that is in use.
#[must_use]
pub fn render(settings: &ConfigSettings, state: &State) -> RenderedConfig {
    Renderer::default().render(settings, state, Scope::All)
}

/// Writes down one state after the other. A lone event changes one backend of
/// thousands, so what was written of the others is kept.
#[derive(Debug, Default)]
pub struct Renderer {
    /// Each backend's lines.
    written: BTreeMap<BackendName, Box<str>>,
    /// How long the whole text was.
    length: usize,
}

impl Renderer {
    /// As [`render`]; always with the same settings. `changed` is what may be
    /// another than at the last call.
    pub fn render(&mut self, settings: &ConfigSettings, state: &State, changed: Scope) -> RenderedConfig {
        match changed {
            Scope::All => {
                self.written.clear();
                for name in state.backends.keys() {
                    self.write_again(settings, state, name);
                }
            }
            Scope::Some { backends, .. } => {
                for name in &backends {
                    self.write_again(settings, state, name);
                }
            }
        }
        // A line more than the last time has room, too.
        let text = String::with_capacity(self.length + 2 * TEMPLATE.len());
        let rendered = rendered(settings, state, text, &self.written);
        self.length = rendered.haproxy_cfg.len();
        rendered
    }

    fn write_again(&mut self, settings: &ConfigSettings, state: &State, name: &BackendName) {
        self.written.remove(name);
        let written = state.backends.get(name).zip(class_of(settings, name));
        self.written
            .extend(written.map(|(backend, class)| (name.clone(), lines(name, class, backend).into())));
    }
}

fn rendered(
    settings: &ConfigSettings,
    state: &State,
    mut text: String,
    written: &BTreeMap<BackendName, Box<str>>,
) -> RenderedConfig {
    for line in TEMPLATE.lines() {
        match line {
            "@PRIVILEGES@" => settings.identity.iter().for_each(|identity| privileges(&mut text, *identity)),
            "@BACKENDS@" => written.values().for_each(|lines| text.push_str(lines)),
            "@STICKYPOOL@" => pool(&mut text, settings, state, 1..=STICKY_POOL.min(settings.pool_size)),
            "@POOL@" => pool(&mut text, settings, state, STICKY_POOL + 1..=settings.pool_size),
            "@LOCALPEER@" => settings.peers.iter().for_each(|peers| local_peer(&mut text, peers)),
            "@PEERSECTION@" => settings.peers.iter().for_each(|peers| peer_section(&mut text, peers)),
            _ => {
                text.push_str(&fill(line, settings));
                text.push('\n');
            }
        }
    }
    let maps = Map::ALL.into_iter().map(|map| (map, entries(state.maps.get(&map)))).collect();
    RenderedConfig { haproxy_cfg: text, maps }
}

fn fill(line: &str, settings: &ConfigSettings) -> String {
    if !line.contains('@') {
        return line.to_owned();
    }
    let socket = match &settings.runtime {
        RuntimeSocket::Unix(path) => format!("{path} mode 660"),
        RuntimeSocket::Tcp(address) => plain(*address),
    };
    line.replace("@DIR@", settings.dir.as_str())
        .replace("@HTTP@", &listener(settings.http))
        .replace("@SOCKET@", &socket)
        .replace("@PEERS@", if settings.peers.is_some() { " peers hapilot" } else { "" })
        .replace("@GRACE@", &format!("{}s", settings.grace.as_secs().max(1)))
}

fn plain(at: SocketAddr) -> String {
    let mut text = String::new();
    address(&mut text, at);
    text
}

/// Without the scope that [`SocketAddr`] prints for link-local addresses.
fn address(text: &mut String, at: SocketAddr) {
    let _ = match at.ip() {
        IpAddr::V4(ip) => write!(text, "{ip}:{}", at.port()),
        IpAddr::V6(ip) => write!(text, "[{ip}]:{}", at.port()),
    };
}

fn listener(address: SocketAddr) -> String {
    // `[::]` is meant as everywhere; whether it takes IPv4 too is otherwise the machine's setting.
    let everywhere = address.is_ipv6() && address.ip().is_unspecified();
    format!("{}{}", plain(address), if everywhere { " v4v6" } else { "" })
}

fn privileges(text: &mut String, Identity { uid, gid }: Identity) {
    let _ = writeln!(text, "  # Nobody needs to be root once the ports are bound.\n  uid {uid}\n  gid {gid}");
}

fn local_peer(text: &mut String, peers: &Peers) {
    let _ = writeln!(text, "  localpeer {}", peers.own.name);
}

fn peer_section(text: &mut String, peers: &Peers) {
    text.push_str("# The two of a pair tell each other their entries.\npeers hapilot\n");
    for Peer { name, address } in [&peers.own, &peers.other] {
        let _ = writeln!(text, "  peer {name} {}", plain(*address));
    }
    text.push('\n');
}

fn class_of<'a>(settings: &'a ConfigSettings, name: &BackendName) -> Option<&'a ClassName> {
    settings.classes.iter().find(|class| name.class() == Some(class.as_str()))
}

fn lines(name: &BackendName, class: &ClassName, facts: &Backend) -> String {
    let mut text = String::new();
    backend(&mut text, name, class);
    for (server, facts) in &facts.servers {
        server_line(&mut text, server, facts);
    }
    text
}

/// The parameters are those that `runtime_api` gives with `add server`, but for
/// 2.6's pool keywords, which servers of the configuration have by default. `disabled` also
/// for drain: after a start no session is bound to the server, so both mean "no
/// traffic", and the next turn's `set server … state drain` starts its checks.
/// Weight 0 would do the same, but would have to be mended before its state.
fn server_line(text: &mut String, name: &ServerName, server: &Server) {
    text.push_str("  server ");
    text.push_str(name.as_str());
    text.push(' ');
    address(text, server.address);
    let Check { inter_ms, fastinter_ms, downinter_ms, fall } = Check::default().every(server.making.inter_ms);
    let _ = write!(
        text,
        " weight {} check inter {inter_ms}ms fastinter {fastinter_ms}ms downinter {downinter_ms}ms fall {fall} rise 1",
        server.weight.min(256)
    );
    if let Some(slow_start_ms) = server.making.slow_start_ms {
        let _ = write!(text, " slowstart {slow_start_ms}ms");
    }
    text.push_str(match server.admin {
        Admin::Ready => "\n",
        Admin::Drain | Admin::Maint => " disabled\n",
    });
}

/// Of a backend of the pool the visitors may come back to the same server; a
/// `defaults` section can't have these two rules.
fn backend(text: &mut String, name: &BackendName, class: &ClassName) {
    for part in ["backend ", name.as_str(), " from ", class.as_str(), "\n"] {
        text.push_str(part);
    }
    if name.is_pool() {
        text.push_str(
            "  use-server %[var(txn.cookie)] if { var(txn.cookie) -m found }\n  \
             stick on var(txn.visitor) table hapilot:sticky\n",
        );
    }
}

fn pool(text: &mut String, settings: &ConfigSettings, state: &State, indices: RangeInclusive<usize>) {
    for class in &settings.classes {
        for name in indices.clone().map(|index| BackendName::pool(class, index)) {
            if !state.backends.contains_key(&name) {
                backend(text, &name, class);
            }
        }
    }
}

fn entries(entries: Option<&BTreeMap<MapWord, MapWord>>) -> String {
    let mut text = String::new();
    for (key, value) in entries.into_iter().flatten() {
        for part in [key.as_str(), " ", value.as_str(), "\n"] {
            text.push_str(part);
        }
    }
    text
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
