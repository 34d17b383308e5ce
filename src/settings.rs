//! Text as typed → settings that the rest can rely on.
//!
//! What lives here: the meaning, range and alphabet of every flag, and the
//! wording of what is wrong with one. What it must not know: clap, the
//! environment, the file system.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{LogArgs, Values, defaults};
use crate::core::container::EngineName;

mod engines;
mod pair;
mod parse;

pub use pair::{
    CheckSettings, Interface, KeepalivedSettings, Peer, Preference, VirtualAddress, leave_timeout,
};
use parse::{Flag, flag};
pub use parse::{SafePath, SettingsError};

/// The longest path of a unix socket that Linux takes (`sun_path` without NUL).
pub const SOCKET_LIMIT: usize = 107;
/// The longest path of a socket that HAProxy makes: it binds `PATH.PID.tmp`
/// first, and a PID has up to seven digits.
pub const HAPROXY_SOCKET_LIMIT: usize = SOCKET_LIMIT - ".4194304.tmp".len();
/// The longest `--dir`: what is left when `/` and a file name of up to 14
/// bytes (`haproxy.sock`, `hapilot.sock`) follow.
pub const DIR_LIMIT: usize = HAPROXY_SOCKET_LIMIT - 15;
/// The file below `--dir` on which a running hapilot always answers.
pub const SOCKET_NAME: &str = "hapilot.sock";
/// HAProxy's socket below `--dir` where hapilot starts HAProxy.
pub const HAPROXY_SOCKET_NAME: &str = "admin.sock";

/// All that `run` and `render` need to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The engines to watch, at least one; their names differ.
    pub docker: Vec<EngineSettings>,
    /// Whose HAProxy.
    pub haproxy: HaproxyMode,
    /// Where HAProxy is.
    pub haproxy_container: HaproxyContainer,
    /// Where HAProxy listens for HTTP; the port is not 0.
    pub http: SocketAddr,
    /// Directory of all that hapilot writes, at most [`DIR_LIMIT`] bytes.
    pub dir: SafePath,
    /// A second admin address beside `<dir>/hapilot.sock`.
    pub admin: Option<AdminAddress>,
    /// Backends in the pool, 1 to 100,000.
    pub pool_size: usize,
    /// Each HAProxy of a pair, this one first.
    pub peers: Option<[Peer; 2]>,
    /// Between two resyncs, 1 s to 24 h.
    pub resync: Duration,
    /// For requests in flight at the end, 0 to 1 h.
    pub grace: Duration,
    /// For sessions of a server that left service, 0 to 24 h.
    pub session_limit: Duration,
    /// Prefer a container's IPv6 address.
    pub prefer_ipv6: bool,
}

/// One of the engines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineSettings {
    /// Its name, as given or made of its address.
    pub name: EngineName,
    /// Where it is.
    pub engine: DockerEngine,
    /// The address at which HAProxy reaches its host.
    pub address: Option<IpAddr>,
}

impl EngineSettings {
    /// True unless it may be the engine of the host on which HAProxy is: one that
    /// has an address of its own is another host's, and so is one of several that
    /// is reached over a network.
    #[must_use]
    pub fn is_elsewhere(&self, only: bool) -> bool {
        let near = match &self.engine {
            DockerEngine::Unix(_) => true,
            DockerEngine::Tcp { host, .. } | DockerEngine::Tls { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        };
        self.address.is_some() || !(near || only)
    }
}

/// A Docker engine and how to reach it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DockerEngine {
    /// Its unix socket.
    Unix(PathBuf),
    /// In plain text.
    Tcp {
        /// Name or address; an IPv6 address without brackets.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// TLS with a client certificate; the engine's certificate is verified.
    Tls {
        /// Name or address; an IPv6 address without brackets.
        host: String,
        /// 1 to 65535.
        port: u16,
        /// Holds `ca.pem`, `cert.pem` and `key.pem`.
        certificates: PathBuf,
    },
}

impl fmt::Display for DockerEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } | Self::Tls { host, port, .. } if host.contains(':') => {
                write!(f, "tcp://[{host}]:{port}")
            }
            Self::Tcp { host, port } | Self::Tls { host, port, .. } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

/// Whose HAProxy it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HaproxyMode {
    /// hapilot starts it and ends it.
    Spawn {
        /// The program; a name without `/` is looked up in PATH.
        program: PathBuf,
    },
    /// It runs elsewhere and goes on when hapilot ends.
    Attach {
        /// Its admin socket.
        socket: RuntimeApi,
    },
}

/// In which container HAProxy is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HaproxyContainer {
    /// That is to be found out.
    Detect,
    /// In none: on the host.
    Host,
    /// In the one with this name or identifier.
    Named(String),
}

/// The address of a Runtime API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuntimeApi {
    /// A unix socket of level admin.
    Unix(PathBuf),
    /// A TCP address of level admin.
    Tcp {
        /// Name or address; an IPv6 address without brackets.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
}

impl fmt::Display for RuntimeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

/// Where the admin server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminAddress {
    /// A TCP address; port 0 lets the kernel choose (for tests).
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(SafePath),
}

/// How to log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// For people or for programs.
    pub format: LogFormat,
    /// A filter in the syntax of tracing's `EnvFilter`.
    pub filter: String,
}

/// The shape of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per event.
    Json,
}

const DOCKER: Flag = flag("--docker", "DOCKER_HOST");
const TLS: Flag = flag("--docker-tls-verify", "DOCKER_TLS_VERIFY");
const CERTIFICATES: Flag = flag("--docker-cert-path", "DOCKER_CERT_PATH");
const HAPROXY: Flag = flag("--haproxy", "HAPILOT_HAPROXY");
const RUNTIME_API: Flag = flag("--runtime-api", "HAPILOT_RUNTIME_API");
const CONTAINER: Flag = flag("--haproxy-container", "HAPILOT_HAPROXY_CONTAINER");
const HTTP: Flag = flag("--http", "HAPILOT_HTTP");
const DIR: Flag = flag("--dir", "HAPILOT_DIR");
const ADMIN: Flag = flag("--admin", "HAPILOT_ADMIN");
const POOL_SIZE: Flag = flag("--pool-size", "HAPILOT_POOL_SIZE");
const RESYNC: Flag = flag("--resync", "HAPILOT_RESYNC");
const GRACE: Flag = flag("--grace", "HAPILOT_GRACE");
const SESSION_LIMIT: Flag = flag("--session-limit", "HAPILOT_SESSION_LIMIT");
const PREFER_IPV6: Flag = flag("--prefer-ipv6", "HAPILOT_PREFER_IPV6");
const LOG_FORMAT: Flag = flag("--log-format", "HAPILOT_LOG_FORMAT");
const LOG_LEVEL: Flag = flag("--log-level", "HAPILOT_LOG");

impl Settings {
    /// Validates what was typed. The first thing that is wrong is the error.
    pub fn new(values: &Values) -> Result<Self, SettingsError> {
        Ok(Self {
            docker: engines::engines(values)?,
            haproxy: haproxy(values)?,
            haproxy_container: match given(values.haproxy_container.as_ref()) {
                None => HaproxyContainer::Detect,
                Some("host") => HaproxyContainer::Host,
                Some(name) => HaproxyContainer::Named(parse::container(CONTAINER, name)?),
            },
            http: parse::listen_address(HTTP, or(&values.http, defaults::HTTP))?,
            dir: dir(&values.dir)?,
            admin: given(values.admin.as_ref()).map(admin).transpose()?,
            pool_size: parse::number(POOL_SIZE, or(&values.pool_size, defaults::POOL_SIZE), 1, 100_000)?,
            peers: pair::peers(values.own_peer.as_ref(), values.peer.as_ref())?,
            resync: parse::duration(
                RESYNC,
                or(&values.resync, defaults::RESYNC),
                Duration::from_secs(1),
                Duration::from_secs(24 * 3600),
                "1s to 24h",
            )?,
            grace: parse::duration(
                GRACE,
                or(&values.grace, defaults::GRACE),
                Duration::ZERO,
                Duration::from_secs(3600),
                "0s to 1h",
            )?,
            session_limit: parse::duration(
                SESSION_LIMIT,
                or(&values.session_limit, defaults::SESSION_LIMIT),
                Duration::ZERO,
                Duration::from_secs(24 * 3600),
                "0s to 24h",
            )?,
            prefer_ipv6: parse::boolean(PREFER_IPV6, or_none(values.prefer_ipv6.as_ref(), "false"))?,
        })
    }
}

impl LogSettings {
    /// Validates what was typed.
    pub fn new(args: &LogArgs) -> Result<Self, SettingsError> {
        let format = match or(&args.log_format, defaults::LOG_FORMAT) {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => return Err(LOG_FORMAT.refuse(other, "it takes text or json")),
        };
        let filter = or(&args.log_level, defaults::LOG_LEVEL);
        parse::log_filter(LOG_LEVEL, filter)?;
        Ok(Self { format, filter: filter.to_owned() })
    }
}

/// Validates the `--dir` of a subcommand that asks a running hapilot.
pub fn dir(text: &str) -> Result<SafePath, SettingsError> {
    SafePath::new(DIR, or(text, defaults::DIR), DIR_LIMIT)
}

/// Where the hapilot of this directory answers.
#[must_use]
pub fn admin_socket(dir: &SafePath) -> PathBuf {
    dir.join(SOCKET_NAME)
}

fn haproxy(values: &Values) -> Result<HaproxyMode, SettingsError> {
    match (given(values.haproxy.as_ref()), given(values.runtime_api.as_ref())) {
        (Some(_), Some(_)) => Err(SettingsError::Conflict { one: HAPROXY, other: RUNTIME_API }),
        (program, None) => {
            let program = program.unwrap_or(defaults::HAPROXY);
            if program.contains('\0') || program.ends_with('/') {
                return Err(HAPROXY.refuse(program, "it takes the path or the name of a program"));
            }
            Ok(HaproxyMode::Spawn { program: PathBuf::from(program) })
        }
        (None, Some(text)) => Ok(HaproxyMode::Attach { socket: runtime_api(text)? }),
    }
}

fn runtime_api(text: &str) -> Result<RuntimeApi, SettingsError> {
    let path = text.strip_prefix("unix:").map_or(text, |path| path.strip_prefix("//").unwrap_or(path));
    if path.starts_with('/') {
        return Ok(RuntimeApi::Unix(parse::socket_path(RUNTIME_API, text, path)?));
    }
    let address = text.strip_prefix("tcp:").map_or(text, |a| a.strip_prefix("//").unwrap_or(a));
    let (host, port) = parse::host_port(RUNTIME_API, text, address, None)?;
    Ok(RuntimeApi::Tcp { host, port })
}

fn admin(text: &str) -> Result<AdminAddress, SettingsError> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        // The socket is made as PATH.new and then moved into place.
        return Ok(AdminAddress::Unix(SafePath::new(ADMIN, path, SOCKET_LIMIT - ".new".len())?));
    }
    text.parse().map(AdminAddress::Tcp).map_err(|_| {
        ADMIN.refuse(
            text,
            "it takes ADDRESS:PORT or unix:/PATH, for example 127.0.0.1:9000 or unix:/run/a.sock",
        )
    })
}

/// An empty value counts as not given: compose files pass on variables that are
/// not set as empty ones.
fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|text| !text.is_empty())
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn or_none<'a>(value: Option<&'a String>, default: &'a str) -> &'a str {
    given(value).unwrap_or(default)
}

impl AsRef<Path> for SafePath {
    fn as_ref(&self) -> &Path {
        Path::new(self.as_str())
    }
}
#[cfg(test)]
mod tests;
