//! The client: a checked connection to one HAProxy process.
//!
//! What lives here: what is asked once per connection, and the calls of the
//! rest of the program. What it must not know: order and reasons of commands
//! (`core::plan`), and what a state is (`observe`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use super::address::RuntimeApiAddress;
use super::connection::Connection;
pub use super::connection::{Timeouts, WINDOW};
use super::error::{ClientError, RunError};
use super::maps::MapPaths;
use super::parse::info::Info;
use super::parse::{self, ParseError};
use super::query::Query;
use super::reply::{Verdict, excerpt};
use crate::core::command::{Capabilities, Command, Version};

/// The level that hapilot needs.
const ADMIN: &str = "admin";

/// A session on the Runtime API of one HAProxy process. After an error, and
/// after a call whose future was dropped, every further call fails with
/// [`ClientError::Poisoned`]: drop it and connect anew.
pub struct Client {
    connection: Connection,
    version: Version,
    capabilities: Capabilities,
    info: Info,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.connection.address)
            .field("version", &self.version)
            .field("pid", &self.info.pid)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects and makes sure that this is an HAProxy that hapilot can drive:
    /// a worker's socket of level `admin`, a version that is new enough, a
    /// process that is not on its way out.
    pub async fn connect(address: &RuntimeApiAddress, timeouts: Timeouts) -> Result<Self, ClientError> {
        Self::meet(Connection::open(address, timeouts).await?).await
    }

    /// The same over a stream that stands already; the address is for messages
    /// only.
    pub async fn over(
        address: RuntimeApiAddress,
        stream: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
        timeouts: Timeouts,
    ) -> Result<Self, ClientError> {
        let (read, write) = tokio::io::split(stream);
        Self::meet(Connection::over(address, Box::new(read), Box::new(write), timeouts).await?).await
    }

    async fn meet(mut connection: Connection) -> Result<Self, ClientError> {
        let address = connection.address.clone();
        let version = read(&mut connection, &Query::ShowVersion, parse::version::parse).await?;
        let Some(capabilities) = Capabilities::of(version) else {
            return Err(ClientError::TooOld { address, version });
        };
        let level = connection.ask(&Query::ShowCliLevel).await?;
        if parse::cli_level::parse(&level) != Ok(ADMIN) {
            return Err(ClientError::NotAdmin { address, level: excerpt(&level) });
        }
        let info = read(&mut connection, &Query::ShowInfo, parse::info::parse).await?;
        if info.stopping {
            return Err(ClientError::Stopping { address, pid: info.pid });
        }
        Ok(Self { connection, version, capabilities, info })
    }

    /// Where it is connected to.
    #[must_use]
    pub fn address(&self) -> &RuntimeApiAddress {
        &self.connection.address
    }

    /// The version of HAProxy.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What that version can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// The process that answers.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.info.pid
    }

    /// A counter of HAProxy's replies on this connection: it tells one that is slow
    /// from one that hangs.
    #[must_use]
    pub fn heard(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.connection.heard)
    }

    /// How long that process ran already when the connection was made, to the
    /// second.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        Duration::from_secs(self.info.uptime_s.unwrap_or(0))
    }

    /// The paths of the maps, as far as they are known.
    #[must_use]
    pub fn map_paths(&self) -> &MapPaths {
        &self.connection.maps
    }

    /// Sets the paths of the maps; needed before a map is read or changed.
    pub fn set_map_paths(&mut self, maps: MapPaths) {
        self.connection.maps = maps;
    }

    /// Asks a question; the reply's bytes that are not UTF-8 are replaced.
    pub async fn ask(&mut self, query: &Query) -> Result<String, ClientError> {
        self.connection.ask(query).await
    }

    /// Sends commands in order, without waiting for one reply before the next
    /// command, and returns the verdict on each. A refusal stops nothing.
    pub async fn run<'a>(
        &mut self,
        commands: impl IntoIterator<Item = &'a Command>,
    ) -> Result<Vec<Verdict>, RunError> {
        let commands = commands.into_iter();
        let mut done = Vec::with_capacity(commands.size_hint().0);
        match self.run_each(commands, |verdict| done.push(verdict)).await {
            Ok(()) => Ok(done),
            Err(error) => Err(RunError { done, error }),
        }
    }

    /// The same for those who want each verdict as it comes. After an error `each`
    /// has had the verdicts on the first commands.
    pub async fn run_each<'a>(
        &mut self,
        commands: impl IntoIterator<Item = &'a Command>,
        each: impl FnMut(Verdict),
    ) -> Result<(), ClientError> {
        self.connection.run(commands.into_iter(), each).await
    }

    /// Makes sure that the process is still the one that was connected to, and
    /// stays. An open session outlives a reload: it then leads to the process
    /// that goes.
    pub async fn heartbeat(&mut self) -> Result<Info, ClientError> {
        let info = read(&mut self.connection, &Query::ShowInfo, parse::info::parse).await?;
        let address = || self.connection.address.clone();
        if info.pid != self.info.pid || info.start_time_s != self.info.start_time_s {
            return Err(ClientError::Replaced { address: address(), was: self.info.pid, now: info.pid });
        }
        if info.stopping {
            return Err(ClientError::Stopping { address: address(), pid: info.pid });
        }
        Ok(info)
    }

    /// Waits until HAProxy closes the connection, or until anything else makes
    /// it useless. May be dropped and called again at any time between calls.
    pub async fn closed(&mut self) {
        self.connection.closed().await;
    }

    /// The error for a reply that was read whole but is not understood.
    #[must_use]
    pub fn unparsable(&self, query: &Query, why: ParseError) -> ClientError {
        unparsable(&self.connection, query, why)
    }
}

/// Whoever makes connections to one HAProxy, again and again. The usual one is
/// the address of its Runtime API.
pub trait Connect: fmt::Debug + Send + Sync {
    /// One attempt.
    fn connect(&self) -> BoxFuture<'static, Result<Client, ClientError>>;
}

impl Connect for RuntimeApiAddress {
    fn connect(&self) -> BoxFuture<'static, Result<Client, ClientError>> {
        let address = self.clone();
        Box::pin(async move { Client::connect(&address, Timeouts::default()).await })
    }
}

async fn read<T>(
    connection: &mut Connection,
    query: &Query,
    parse: impl FnOnce(&str) -> Result<T, ParseError>,
) -> Result<T, ClientError> {
    let reply = connection.ask(query).await?;
    parse(&reply).map_err(|why| unparsable(connection, query, why))
}

fn unparsable(connection: &Connection, query: &Query, why: ParseError) -> ClientError {
    ClientError::Unparsable { address: connection.address.clone(), query: query.to_string(), why }
}
