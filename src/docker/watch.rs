//! One engine's inventory, kept up to date and told as changes.
//!
//! What lives here: the settings, the changes, and sessions one after the
//! other. What it must not know: what the containers are for.
//!
//! A session is one connection: note the time, open the event stream, list,
//! inspect all, tell them in one `Snapshot`; from then on `follow`.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::address::DockerAddress;
use super::client::{Deadlines, DockerClient};
use super::ending::{self, Mortality, Presence};
use super::error::DockerError;
use super::events::EventStream;
use super::follow::Following;
use super::inventory::Inventory;
use super::swarm::Swarm;
use crate::backoff::Backoff;
use crate::core::container::{Container, ContainerId, RunState};

/// Changes that may wait for what the swarm adds to them.
const WAITING: usize = 16;

/// An engine that has waited so long for its turn is read all the same: others may
/// hang, or be far away.
const TURN_PATIENCE: Duration = Duration::from_secs(2);

/// How an engine is watched.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// Where the engine is.
    pub address: DockerAddress,
    /// How long calls may take.
    pub deadlines: Deadlines,
    /// Between two comparisons with a full list; a tenth is added or taken off.
    pub resync: Duration,
    /// After so long without an event the engine is pinged.
    pub quiet: Duration,
    /// How many inspects may run at once, at least 1.
    pub concurrency: usize,
    /// How many connections are kept open while nothing is asked. At the beginning
    /// of a session so many inspects run at once, at least 1.
    pub kept: usize,
    /// First wait after a failure; it doubles.
    pub backoff_floor: Duration,
    /// Longest wait after a failure.
    pub backoff_ceiling: Duration,
    /// A container that lives on so long after its stop timeout has survived its
    /// stop signal, and is taken back.
    pub survival: Duration,
    /// Whose turn it is to be read, where there are several engines.
    pub turns: Arc<Semaphore>,
    /// Whoever rings has everything listed and compared now.
    pub relist: Arc<Notify>,
}

impl WatchConfig {
    /// The usual values for an engine.
    #[must_use]
    pub fn new(address: DockerAddress) -> Self {
        Self {
            address,
            deadlines: Deadlines::default(),
            resync: Duration::from_secs(60),
            quiet: Duration::from_secs(10),
            concurrency: 16,
            kept: 16,
            backoff_floor: Duration::from_millis(100),
            backoff_ceiling: Duration::from_secs(10),
            survival: Duration::from_secs(2),
            turns: Arc::new(Semaphore::new(1)),
            relist: Arc::default(),
        }
    }
}

/// What is new about an engine or its containers. Only containers that run or
/// are paused are told; one that stops is `gone`.
#[derive(Debug, Clone)]
pub enum Change {
    /// The connection stands; a `Snapshot` follows at once.
    Connected {
        /// Version of the API that is spoken.
        api_version: String,
        /// The engine's own version.
        engine_version: String,
    },
    /// These are all, but for those in `unreadable`, of which the last known
    /// facts (if any) stay in force.
    Snapshot {
        /// All that could be read.
        containers: Vec<Container>,
        /// Those that could not be read, each with the reason. An `Update`
        /// follows when that changes.
        unreadable: Vec<(ContainerId, String)>,
        /// When the last of them was read.
        at: Instant,
    },
    /// Some have changed.
    Update {
        /// Their facts now.
        changed: Vec<Container>,
        /// Those that were told to end, or were paused, just now: nothing else is
        /// known of them yet.
        /// Comes after `changed`, if one is in both, and before `gone`.
        stopping: Vec<ContainerId>,
        /// Those that no longer run.
        gone: Vec<ContainerId>,
        /// Those that can't be read, each with the reason; their last known
        /// facts stay in force. One that is `changed` or `gone` later is
        /// unreadable no more.
        unreadable: Vec<(ContainerId, String)>,
        /// Arrival of the oldest event that led to this.
        event_at: Instant,
        /// When the last of them was read.
        inspected_at: Instant,
    },
    /// The engine manages a swarm, and can't tell about the tasks on other nodes
    /// (the error says why), or can again. Their last known facts stay in force;
    /// its own containers are told as ever.
    Swarm {
        /// What is wrong; `None` if nothing is any more.
        error: Option<String>,
    },
    /// The connection is lost or can't be made; told once until `Connected`.
    Disconnected {
        /// Why.
        error: String,
    },
}

/// Keeps one engine's inventory and tells its changes until `shutdown` is
/// cancelled or nobody listens to `out` any more. Never gives up.
pub async fn watch(config: WatchConfig, out: mpsc::Sender<Change>, shutdown: CancellationToken) {
    let inventory = Inventory::new(config.backoff_floor, config.backoff_ceiling, config.survival);
    let (told, changes) = mpsc::channel(WAITING);
    let bell = Arc::clone(&config.relist);
    let bells: [Arc<Notify>; 2] = Default::default();
    let [here, elsewhere] =
        bells.each_ref().map(|bell| WatchConfig { relist: Arc::clone(bell), ..config.clone() });
    let swarm = Swarm::new(elsewhere, out);
    let watch = Watch { config: here, out: told, inventory, connected: false, mortality: None };
    let ring = async {
        loop {
            bell.notified().await;
            for bell in &bells {
                bell.notify_one();
            }
        }
    };
    let any = async {
        tokio::select! {
            () = watch.run() => {}
            () = swarm.run(changes) => {}
            () = ring => {}
        }
    };
    shutdown.run_until_cancelled(Box::pin(any)).await;
}

/// Why a session ended.
pub(super) enum End {
    /// The receiver of the changes is gone.
    NobodyListens,
    /// The connection is.
    Lost(DockerError),
}

impl From<DockerError> for End {
    fn from(error: DockerError) -> Self {
        Self::Lost(error)
    }
}

/// The state that outlives a connection.
pub(super) struct Watch {
    pub(super) config: WatchConfig,
    out: mpsc::Sender<Change>,
    pub(super) inventory: Inventory,
    /// What was told last.
    connected: bool,
    /// Whether the containers end with the engine of the last session.
    mortality: Option<Mortality>,
}

impl Watch {
    async fn run(mut self) {
        let mut backoff = Backoff::new(self.config.backoff_floor, self.config.backoff_ceiling);
        let mut told = false;
        loop {
            let began = Instant::now();
            let error = match self.session().await {
                Ok(never) => match never {},
                Err(End::NobodyListens) => return,
                Err(End::Lost(error)) => error,
            };
            if self.connected || !told {
                tracing::warn!(engine = %self.config.address, %error, "not connected to Docker; trying again");
                let lost = Change::Disconnected { error: error.to_string() };
                if self.out.send(lost).await.is_err() {
                    return;
                }
                (self.connected, told) = (false, true);
            }
            let mortality = self.mortality.take();
            let suspect = mortality
                .and_then(|mortality| mortality.suspect(&error, &self.config.address).map(Path::to_owned));
            if let Some(socket) = suspect
                && self.await_the_end(&socket).await.is_err()
            {
                return;
            }
            // A session that ends soon after it began does not count as success,
            // lest an engine that answers with garbage is asked in a tight loop.
            if began.elapsed() > self.config.backoff_ceiling {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Waits until an engine that is away answers, or until it is certain that its
    /// containers have ended with it, and tells that.
    async fn await_the_end(&mut self, socket: &Path) -> Result<(), End> {
        loop {
            match ending::presence(socket).await {
                Presence::Answers => return Ok(()),
                Presence::Crashed => tokio::time::sleep(ending::LOOK).await,
                Presence::Ended => break,
            }
        }
        let event_at = Instant::now();
        let gone: Vec<ContainerId> = self.inventory.ids().cloned().collect();
        if gone.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            engine = %self.config.address,
            containers = gone.len(),
            "the engine ended, and its containers with it"
        );
        for id in &gone {
            self.inventory.missing(id);
        }
        let (changed, stopping, unreadable) = Default::default();
        self.tell(Change::Update { changed, stopping, gone, unreadable, event_at, inspected_at: event_at })
            .await
    }

    async fn session(&mut self) -> Result<Infallible, End> {
        let config = &self.config;
        // Boxed, as the two below: a session lasts, what it begins with does not.
        let (client, engine) =
            Box::pin(DockerClient::connect(&config.address, config.deadlines, config.kept)).await?;
        let since = SystemTime::now();
        let events = EventStream::open(client.clone(), since, config.quiet);
        let turns = Arc::clone(&config.turns);
        let turn = tokio::time::timeout(TURN_PATIENCE, turns.acquire()).await;
        Box::pin(client.learn_all_networks()).await;
        let (containers, unreadable) = Box::pin(self.read_all(&client)).await?;
        tracing::info!(
            engine = %self.config.address,
            version = engine.engine_version,
            api = engine.api_version,
            containers = containers.len(),
            unreadable = unreadable.len(),
            "connected to Docker"
        );
        self.tell(Change::Connected {
            api_version: engine.api_version,
            engine_version: engine.engine_version,
        })
        .await?;
        self.connected = true;
        self.mortality = Some(Mortality::ask(client.clone(), &self.config.address));
        self.tell(Change::Snapshot { containers, unreadable, at: Instant::now() }).await?;
        drop(turn);
        Following::new(self, client, events).run().await
    }

    /// Lists and inspects all, and those known from before: a list that can't
    /// be read in part must not make a container vanish.
    async fn read_all(
        &mut self,
        client: &DockerClient,
    ) -> Result<(Vec<Container>, Vec<(ContainerId, String)>), End> {
        let mut ids: HashSet<ContainerId> = self.inventory.ids().cloned().collect();
        client.list(|listed| ids.extend(listed.map_or_else(|id| id, |listed| Some(listed.id)))).await?;
        let length = ids.len();
        let mut reads = futures_util::stream::iter(ids)
            .map(|id| async move { (client.inspect(&id).await, id) })
            .buffer_unordered(self.config.kept.max(1));
        let mut containers = Vec::with_capacity(length);
        let mut unreadable = Vec::new();
        while let Some((result, id)) = reads.next().await {
            match result {
                Ok(mut container) => {
                    self.inventory.mark(&mut container);
                    self.inventory.note(&container);
                    if container.run != RunState::Stopped {
                        containers.push(container);
                    }
                }
                Err(error) if error.is_not_found() => {
                    self.inventory.missing(&id);
                }
                Err(error) if error.is_unreachable() => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(container = %id, %error, "the container can't be read");
                    self.inventory.failed(&id, error.to_string(), Instant::now());
                    unreadable.push((id, error.to_string()));
                }
            }
        }
        Ok((containers, unreadable))
    }

    pub(super) async fn tell(&self, change: Change) -> Result<(), End> {
        self.out.send(change).await.map_err(|_| End::NobodyListens)
    }
}
