//! The settings of a pair: what keepalived's configuration and its checks need.
//!
//! What lives here: meaning, range and alphabet of these flags, as in
//! `settings`. What it must not know: the configuration's text (`keepalived`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::parse::{self, Flag, SafePath, SettingsError, flag};
use super::{
    HAPROXY_SOCKET_NAME, HaproxyMode, RUNTIME_API, RuntimeApi, SOCKET_LIMIT, Settings, dir, given, or,
    runtime_api,
};
use crate::cli::{CheckArgs, KeepalivedArgs, LeaveArgs, defaults};
use crate::core::name::ServerName;

const INTERFACE: Flag = flag("--interface", "HAPILOT_INTERFACE");
const VIRTUAL: Flag = flag("--virtual-address", "HAPILOT_VIRTUAL_ADDRESS");
const OWN: Flag = flag("--own-address", "HAPILOT_OWN_ADDRESS");
const PEER: Flag = flag("--peer-address", "HAPILOT_PEER_ADDRESS");
const ROUTER_ID: Flag = flag("--router-id", "HAPILOT_ROUTER_ID");
const ROLE: Flag = flag("--role", "HAPILOT_ROLE");
const NOPREEMPT: Flag = flag("--nopreempt", "HAPILOT_NOPREEMPT");
const OWN_PEER: Flag = flag("--own-peer", "HAPILOT_OWN_PEER");
const OTHER_PEER: Flag = flag("--peer", "HAPILOT_PEER");
const PROGRAM: Flag = flag("--hapilot", "HAPILOT_PROGRAM");
const TIMEOUT: Flag = flag("--timeout", "HAPILOT_CHECK_TIMEOUT");
const LEAVE_TIMEOUT: Flag = flag("--timeout", "HAPILOT_LEAVE_TIMEOUT");

/// Virtual addresses of one pair: an advertisement that names more doesn't fit
/// every network.
const VIRTUAL_LIMIT: usize = 20;
/// Bytes of hapilot's own path: with its arguments it stands on one line.
const PROGRAM_LIMIT: usize = 255;

/// All that `render --keepalived` needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeepalivedSettings {
    /// Carries the virtual addresses.
    pub interface: Interface,
    /// At least one, at most 20, each once; none is one of the pair's own, and one
    /// at least is of their family.
    pub virtual_addresses: Vec<VirtualAddress>,
    /// This machine's own address.
    pub own: IpAddr,
    /// The partner's; another one of the same family.
    pub peer: IpAddr,
    /// `virtual_router_id`, 1 to 255.
    pub router_id: u8,
    /// Who should hold the address.
    pub preference: Preference,
    /// hapilot itself, which keepalived calls.
    pub program: SafePath,
    /// The directory of the hapilot that runs.
    pub dir: SafePath,
    /// HAProxy's socket: a path, or `tcp:HOST:PORT`. In the alphabet of a
    /// [`SafePath`], with `:`, `[` and `]`.
    pub runtime_api: String,
}

/// Which of the two machines should hold the address while both are well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preference {
    /// This one.
    Master,
    /// The other one.
    Backup,
    /// Whoever holds it.
    Holder,
}

/// The name of a network interface: 1 to 15 of `[A-Za-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface(String);

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// 1 to 32, or to 128.
    pub prefix: u8,
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl KeepalivedSettings {
    /// Validates what was typed. The first thing that is wrong is the error.
    /// `program` is this very program's path, for where none is given.
    pub fn new(args: &KeepalivedArgs, settings: &Settings, program: &str) -> Result<Self, SettingsError> {
        let needed = |value: Option<&String>, flag, what| {
            given(value).map(str::to_owned).ok_or(SettingsError::Needed { flag, what })
        };
        let text = needed(args.interface.as_ref(), INTERFACE, "what carries the virtual address")?;
        let interface = interface(&text)?;
        let own = needed(args.own_address.as_ref(), OWN, "this machine's address on the interface")?;
        let own = own_address(OWN, &own)?;
        let text = needed(args.peer_address.as_ref(), PEER, "the other machine's address")?;
        let peer = own_address(PEER, &text)?;
        if own == peer {
            return Err(PEER.refuse(&text, "it is this machine's own address"));
        }
        if own.is_ipv4() != peer.is_ipv4() {
            return Err(PEER.refuse(&text, "both machines need addresses of one family, IPv4 or IPv6"));
        }
        let virtual_addresses = virtual_addresses(&args.virtual_address, own, peer)?;
        let router_id = parse::number(ROUTER_ID, or(&args.router_id, defaults::ROUTER_ID), 1, 255)?;
        let nopreempt = given(args.nopreempt.as_ref()).unwrap_or("false");
        let preference = match (given(args.role.as_ref()), parse::boolean(NOPREEMPT, nopreempt)?) {
            (None, true) => Preference::Holder,
            (Some("master"), false) => Preference::Master,
            (Some("backup"), false) => Preference::Backup,
            (Some("master" | "backup"), true) => {
                return Err(NOPREEMPT.refuse(nopreempt, "it takes the place of --role, on both machines"));
            }
            (Some(other), _) => return Err(ROLE.refuse(other, "it takes master or backup")),
            (None, false) => {
                let what = "master here and backup on the other machine, or --nopreempt on both";
                return Err(SettingsError::Needed { flag: ROLE, what });
            }
        };
        // In range by `number`.
        let router_id = u8::try_from(router_id).unwrap_or(u8::MAX);
        let program = given(args.hapilot.as_ref()).unwrap_or(program);
        let program = SafePath::new(PROGRAM, program, PROGRAM_LIMIT)?;
        let dir = settings.dir.clone();
        let runtime_api = haproxy_socket(settings)?;
        Ok(Self { interface, virtual_addresses, own, peer, router_id, preference, program, dir, runtime_api })
    }
}

/// Where HAProxy answers, fit to stand in a quoted word.
fn haproxy_socket(settings: &Settings) -> Result<String, SettingsError> {
    match &settings.haproxy {
        HaproxyMode::Spawn { .. } => Ok(settings.dir.join(HAPROXY_SOCKET_NAME).display().to_string()),
        HaproxyMode::Attach { socket: RuntimeApi::Unix(path) } => {
            SafePath::new(RUNTIME_API, &path.to_string_lossy(), SOCKET_LIMIT).map(|path| path.to_string())
        }
        // Letters, digits and `.-_:` by its own grammar.
        HaproxyMode::Attach { socket: socket @ RuntimeApi::Tcp { .. } } => Ok(socket.to_string()),
    }
}

fn interface(text: &str) -> Result<Interface, SettingsError> {
    let fine = (1..=15).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if fine {
        Ok(Interface(text.to_owned()))
    } else {
        Err(INTERFACE.refuse(text, "it takes an interface's name: 1 to 15 letters, digits and . _ -"))
    }
}

/// An address that a machine can have for itself. Without a scope: `IpAddr`
/// takes none.
fn own_address(flag: Flag, text: &str) -> Result<IpAddr, SettingsError> {
    let usable = |address: &IpAddr| {
        let broadcast = matches!(address, IpAddr::V4(ip) if ip.is_broadcast());
        !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
    };
    text.parse().ok().filter(usable).ok_or_else(|| {
        flag.refuse(
            text,
            "it takes an address of a machine, for example 10.0.0.11 or fd00::11 (an address, not a name)",
        )
    })
}

fn virtual_addresses(
    texts: &[String],
    own: IpAddr,
    peer: IpAddr,
) -> Result<Vec<VirtualAddress>, SettingsError> {
    let mut found: Vec<VirtualAddress> = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let (address, prefix) = text.split_once('/').map_or((&**text, None), |(a, p)| (a, Some(p)));
        let address = own_address(VIRTUAL, address)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => parse::number(VIRTUAL, prefix, 1, longest)?,
            None => longest,
        };
        if address == own || address == peer {
            return Err(VIRTUAL.refuse(text, "it is the own address of one of the two machines"));
        }
        if found.iter().any(|other| other.address == address) {
            return Err(VIRTUAL.refuse(text, "it is given twice"));
        }
        if found.len() == VIRTUAL_LIMIT {
            return Err(VIRTUAL.refuse(text, format!("it may be given {VIRTUAL_LIMIT} times")));
        }
        // In range by `number`.
        found.push(VirtualAddress { address, prefix: u8::try_from(prefix).unwrap_or(u8::MAX) });
    }
    if found.is_empty() {
        return Err(SettingsError::Needed { flag: VIRTUAL, what: "the address that visitors use" });
    }
    if found.iter().all(|one| one.address.is_ipv4() != own.is_ipv4()) {
        let shown = texts.join(",");
        return Err(VIRTUAL.refuse(&shown, "one of them must be of the family (IPv4, IPv6) of --own-address"));
    }
    Ok(found)
}

/// One HAProxy of a pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// 1 to 64 of `[A-Za-z0-9._-]`.
    pub name: ServerName,
    /// Where it listens for the other one.
    pub address: SocketAddr,
}

/// Both or none, with two names and two addresses.
pub(super) fn peers(
    own: Option<&String>,
    other: Option<&String>,
) -> Result<Option<[Peer; 2]>, SettingsError> {
    let missing = |flag, missing, what| Err(SettingsError::Missing { flag, missing, what });
    match (given(own), given(other)) {
        (None, None) => Ok(None),
        (Some(_), None) => missing(OWN_PEER, OTHER_PEER, "the other machine of the pair"),
        (None, Some(_)) => missing(OTHER_PEER, OWN_PEER, "this machine, as NAME=ADDR:PORT"),
        (Some(own), Some(text)) => {
            let (own, other) = (peer(OWN_PEER, own)?, peer(OTHER_PEER, text)?);
            if own.name == other.name || own.address == other.address {
                return Err(OTHER_PEER.refuse(text, "both machines need a name and an address of their own"));
            }
            Ok(Some([own, other]))
        }
    }
}

fn peer(flag: Flag, text: &str) -> Result<Peer, SettingsError> {
    let shape = "it takes NAME=ADDR:PORT, for example lb1=10.0.0.11:1024";
    let (name, address) = text.split_once('=').ok_or_else(|| flag.refuse(text, shape))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name = Some(name).filter(|name| name.len() <= 64 && name.chars().all(plain));
    let name = name
        .and_then(|name| ServerName::new(name).ok())
        .ok_or_else(|| flag.refuse(text, "the name takes 1 to 64 letters, digits and . _ -"))?;
    let address = parse::listen_address(flag, address)?;
    if address.ip().is_unspecified() {
        return Err(
            flag.refuse(text, "the other machine must be able to reach it: 0.0.0.0 is no address of one")
        );
    }
    Ok(Peer { name, address })
}

/// All that `check` needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckSettings {
    /// Directory of the running hapilot.
    pub dir: SafePath,
    /// HAProxy's socket, where HAProxy itself is to be asked.
    pub haproxy: Option<RuntimeApi>,
    /// For the whole check, 50 ms to 60 s.
    pub timeout: Duration,
}

impl CheckSettings {
    /// Validates what was typed.
    pub fn new(args: &CheckArgs) -> Result<Self, SettingsError> {
        let dir = dir(&args.dir)?;
        let own = || RuntimeApi::Unix(dir.join(HAPROXY_SOCKET_NAME));
        let haproxy = match given(args.runtime_api.as_ref()) {
            _ if !args.haproxy => None,
            Some(text) => Some(runtime_api(text)?),
            None => Some(own()),
        };
        let timeout = parse::duration(
            TIMEOUT,
            or(&args.timeout, defaults::CHECK_TIMEOUT),
            Duration::from_millis(50),
            Duration::from_secs(60),
            "50ms to 60s",
        )?;
        Ok(Self { dir, haproxy, timeout })
    }
}

/// How long `leave` waits for the partner, 0 s to 10 min.
pub fn leave_timeout(args: &LeaveArgs) -> Result<Duration, SettingsError> {
    parse::duration(
        LEAVE_TIMEOUT,
        or(&args.timeout, defaults::LEAVE_TIMEOUT),
        Duration::ZERO,
        Duration::from_secs(600),
        "0s to 10m",
    )
}

#[cfg(test)]
#[path = "pair_tests.rs"]
mod tests;
