//! The parts of a running hapilot, put together.
//!
//! What lives here: which part gets which channel, and in what order they begin
//! and end. What it must not know: what any of them does.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::admin::listen::{ListenError, Listeners};
use crate::admin::{AdminHandle, Ask, serve};
use crate::backoff::Jitter;
use crate::controller::{Config, Controller, Inputs};
use crate::core::command::Check;
use crate::core::container::EngineName;
use crate::core::desired::{Clues, Desired, EngineHost, HaproxyPlace, Link};
use crate::core::name::ClassName;
use crate::core::state::State;
use crate::docker::engines::{concurrency, kept, watch_all};
use crate::docker::{DockerAddress, DockerError, TlsMaterial, WatchConfig};
use crate::haproxy_config::{self, ConfigPath, ConfigSettings, Identity, Peer, Peers, RuntimeSocket};
use crate::haproxy_process::{self, BinaryError, HaproxyBinary, Launch};
use crate::metrics::Metrics;
use crate::reconcile::Rules;
use crate::report::Mode;
use crate::role;
use crate::runtime_api::{Client, ClientError, RuntimeApiAddress, Timeouts};
use crate::settings::{
    DockerEngine, EngineSettings, HAPROXY_SOCKET_NAME, HaproxyContainer, HaproxyMode, RuntimeApi, Settings,
};
use crate::shutdown::Signals;
use crate::whereabouts::own_container;

/// Changes from Docker that may wait for the controller. A full channel slows
/// the reading of events down; nothing is lost.
const WAITING_CHANGES: usize = 256;

/// `nobody`, on every Linux.
const NOBODY: Identity = Identity { uid: 65_534, gid: 65_534 };

/// hapilot had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The directory or an admin address can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// There is no HAProxy that could be started.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// The engine's address or its certificates can't be used.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// A path or address can't stand in HAProxy's configuration.
    #[error("HAProxy's configuration can't be written")]
    Config(#[from] haproxy_config::SettingsError),
}

/// Works until a signal ends it, or something that can't be mended.
///
/// The admin server is the first to begin and the last to end: it takes the
/// directory before anything is written there, and answers while HAProxy drains.
pub async fn run(settings: Settings, signals: Signals) -> Result<(), RunError> {
    let listeners = Listeners::bind(&settings.dir, settings.admin.as_ref()).await?;
    if let Some(address) = listeners.tcp_address() {
        info!(%address, "admin: listening");
    }
    let metrics = Arc::new(Metrics::default());
    let (handle, questions) = AdminHandle::new();
    // Read after the socket is there: who comes too early for it has kept the role in the file before.
    match role::kept(settings.dir.as_ref()) {
        Ok(told) => told.into_iter().for_each(|told| handle.tell(told)),
        Err(error) => warn!(%error, "the role that was kept can't be read; keepalived will tell it again"),
    }
    let done = CancellationToken::new();
    let server = tokio::spawn(serve::serve(listeners, handle, metrics.clone(), done.clone()));
    let ended = drive(settings, metrics, questions, signals).await;
    done.cancel();
    // It can only fail by a panic, which tokio has printed.
    let _ = server.await;
    ended
}

/// Whether HAProxy answers on its socket and is not about to end; whether
/// hapilot runs is of no account.
pub async fn check_haproxy(socket: &RuntimeApi, timeout: Duration) -> Result<(), ClientError> {
    let address = address(socket);
    let timeouts = Timeouts { connect: timeout, progress: timeout, overall: timeout };
    match tokio::time::timeout(timeout, Client::connect(&address, timeouts)).await {
        Ok(connected) => connected.map(drop),
        Err(_) => Err(ClientError::Deadline { address, waited: timeout }),
    }
}

/// The start-up configuration for settings alone, without any container.
pub fn render(settings: &Settings) -> Result<String, RunError> {
    Ok(haproxy_config::render(&config_settings(settings)?, &State::default()).haproxy_cfg)
}

async fn drive(
    settings: Settings,
    metrics: Arc<Metrics>,
    asks: mpsc::Receiver<Ask>,
    signals: Signals,
) -> Result<(), RunError> {
    let config = config_settings(&settings)?;
    let runtime_api = runtime_api(&settings);
    let binary = match &settings.haproxy {
        HaproxyMode::Spawn { program } => Some(HaproxyBinary::find(program).await?),
        HaproxyMode::Attach { .. } => None,
    };
    let (changes_in, docker) = mpsc::channel(WAITING_CHANGES);
    let watch_stop = CancellationToken::new();
    let relist = Arc::new(Notify::new());
    let watching = watches(&settings)?;
    let engines: BTreeMap<EngineName, String> =
        watching.iter().map(|(name, watch)| (name.clone(), watch.address.to_string())).collect();
    if let [(_, only)] = &watching[..] {
        debug!(engine = %only.address, "watching Docker");
    } else {
        info!(engines = watching.len(), "watching several engines");
    }
    let watcher = tokio::spawn(watch_all(watching, changes_in, Arc::clone(&relist), watch_stop.clone()));

    let (news_in, process) = mpsc::channel(16);
    let (config_questions, configs) = mpsc::channel(1);
    let keeper_stop = CancellationToken::new();
    let version = binary.as_ref().map(|binary| binary.version);
    let checker = binary.as_ref().map(|binary| binary.path.clone());
    let keeper = binary.map(|binary| {
        let launch = Launch { binary, socket: settings.dir.join(HAPROXY_SOCKET_NAME) };
        let grace = settings.grace;
        tokio::spawn(haproxy_process::keep(launch, grace, config_questions, news_in, keeper_stop.clone()))
    });

    let rules = Rules {
        classes: config.classes.clone(),
        check: Check::default(),
        quarantine: haproxy_config::QUARANTINE,
        session_limit: settings.session_limit,
    };
    let controller_config = Config {
        mode: if keeper.is_some() { Mode::Spawn } else { Mode::Attach },
        runtime_api: Arc::new(runtime_api),
        engines,
        jitter: Jitter::default(),
        rules,
        config,
        dir: PathBuf::from(settings.dir.as_str()),
        version,
        checker,
        resync: settings.resync,
    };
    let desired =
        Desired::new(haproxy_place(&settings), settings.prefer_ipv6).with_engines(engine_hosts(&settings));
    let (resync, stop) = (signals.resync.clone(), signals.stop.clone());
    let inputs = Inputs { docker, asks, process, configs, resync, relist, stop };
    Controller::new(controller_config, desired, metrics).run(inputs).await;

    watch_stop.cancel();
    keeper_stop.cancel();
    if let Some(keeper) = keeper {
        // It can only fail by a panic, which tokio has printed.
        let _ = keeper.await;
    } else {
        info!("hapilot ends; HAProxy goes on serving");
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), watcher).await;
    Ok(())
}

fn haproxy_place(settings: &Settings) -> HaproxyPlace {
    match &settings.haproxy_container {
        HaproxyContainer::Host => HaproxyPlace::Host,
        HaproxyContainer::Named(name) => HaproxyPlace::Container(name.clone()),
        HaproxyContainer::Detect => {
            let link = match &settings.haproxy {
                HaproxyMode::Spawn { .. } => Link::Child,
                HaproxyMode::Attach { socket: RuntimeApi::Unix(path) } => Link::Socket(real_path(path)),
                HaproxyMode::Attach { socket: RuntimeApi::Tcp { .. } } => Link::Tcp,
            };
            HaproxyPlace::Detect(Clues { own: own_container(), link })
        }
    }
}

/// A socket's path without symbolic links on the way (`/var/run`), as mounts name
/// it. The socket itself need not be there yet.
fn real_path(socket: &Path) -> String {
    let real = socket.parent().and_then(|dir| dir.canonicalize().ok()).zip(socket.file_name());
    let real = real.map_or_else(|| socket.to_owned(), |(dir, name)| dir.join(name));
    real.to_string_lossy().into_owned()
}

/// How each engine is watched.
fn watches(settings: &Settings) -> Result<Vec<(EngineName, WatchConfig)>, DockerError> {
    let engines = settings.docker.len();
    let (concurrency, kept) = (concurrency(engines), kept(engines));
    let watch = |engine: &EngineSettings| {
        let address = docker_address(&engine.engine)?;
        let usual = WatchConfig::new(address);
        Ok((engine.name.clone(), WatchConfig { resync: settings.resync, concurrency, kept, ..usual }))
    };
    settings.docker.iter().map(watch).collect()
}

fn engine_hosts(settings: &Settings) -> BTreeMap<EngineName, EngineHost> {
    let only = settings.docker.len() == 1;
    let host = |engine: &EngineSettings| EngineHost {
        elsewhere: engine.is_elsewhere(only),
        advertised: engine.address,
    };
    settings.docker.iter().map(|engine| (engine.name.clone(), host(engine))).collect()
}

fn docker_address(engine: &DockerEngine) -> Result<DockerAddress, DockerError> {
    let tls = match engine {
        DockerEngine::Tls { certificates, .. } => Some(TlsMaterial::new(certificates)?),
        DockerEngine::Unix(_) | DockerEngine::Tcp { .. } => None,
    };
    DockerAddress::parse(&engine.to_string(), tls)
}

fn runtime_api(settings: &Settings) -> RuntimeApiAddress {
    match &settings.haproxy {
        HaproxyMode::Spawn { .. } => RuntimeApiAddress::Unix(settings.dir.join(HAPROXY_SOCKET_NAME)),
        HaproxyMode::Attach { socket } => address(socket),
    }
}

fn address(socket: &RuntimeApi) -> RuntimeApiAddress {
    match socket {
        RuntimeApi::Unix(path) => RuntimeApiAddress::Unix(path.clone()),
        RuntimeApi::Tcp { host, port } if host.contains(':') => {
            RuntimeApiAddress::Tcp(format!("[{host}]:{port}"))
        }
        RuntimeApi::Tcp { host, port } => RuntimeApiAddress::Tcp(format!("{host}:{port}")),
    }
}

fn config_settings(settings: &Settings) -> Result<ConfigSettings, RunError> {
    let dir = ConfigPath::new(settings.dir.as_str())?;
    let socket = match &settings.haproxy {
        HaproxyMode::Spawn { .. } => {
            RuntimeSocket::unix(ConfigPath::new(&settings.dir.join(HAPROXY_SOCKET_NAME).to_string_lossy())?)?
        }
        HaproxyMode::Attach { socket: RuntimeApi::Unix(path) } => {
            RuntimeSocket::unix(ConfigPath::new(&path.to_string_lossy())?)?
        }
        // A name is how hapilot reaches HAProxy, not where HAProxy listens.
        HaproxyMode::Attach { socket: RuntimeApi::Tcp { host, port } } => {
            let address = host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            RuntimeSocket::Tcp(SocketAddr::new(address, *port))
        }
    };
    let mut config = ConfigSettings::new(dir, settings.http, socket);
    config.classes = ClassName::all();
    config.pool_size = settings.pool_size;
    config.peers = settings.peers.clone().map(|peers| {
        let [own, other] = peers.map(|peer| Peer { name: peer.name, address: peer.address });
        Peers { own, other }
    });
    config.grace = settings.grace.max(Duration::from_secs(1));
    // Only an HAProxy that root starts can change its identity, and any other
    // refuses to start when told to; of one elsewhere nothing is known.
    let spawned = matches!(settings.haproxy, HaproxyMode::Spawn { .. });
    config.identity = (spawned && rustix::process::geteuid().is_root()).then_some(NOBODY);
    Ok(config)
}
