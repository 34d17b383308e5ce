//! HAProxy kept alive: the task that starts it, waits for its end, and starts it
//! again.
//!
//! What lives here: the task and what it reports. What it must not know: what a
//! start involves (`supervisor`), and what the configuration says: it asks the
//! controller, and HAProxy starts with the present state.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::haproxy_config::InstallError;

use super::{Configure, HowStopped, Launch, Supervisor};

/// Who starts HAProxy asks for the configuration to start with. The answer is its
/// path, once the files are the present state, or the reason why they are not.
pub type ConfigQuestion = oneshot::Sender<Result<PathBuf, InstallError>>;

/// What the process that is HAProxy did.
#[derive(Debug)]
pub enum ProcessNews {
    /// It answers.
    Running {
        /// Its process number.
        pid: u32,
        /// It was started by an earlier hapilot.
        adopted: bool,
    },
    /// It ended, and is being started again.
    Ended(String),
    /// It could not be started, and is tried again.
    Failed(String),
}

/// Between two attempts at the first start: at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Asks over a channel.
#[derive(Clone)]
struct Asking(mpsc::Sender<ConfigQuestion>);

impl Configure for Asking {
    fn configure(&self) -> Result<PathBuf, InstallError> {
        let (question, answer) = oneshot::channel();
        // Either fails only when hapilot is about to end.
        self.0.blocking_send(question).map_err(|_| InstallError::Ending)?;
        answer.blocking_recv().map_err(|_| InstallError::Ending)?
    }
}

/// Keeps HAProxy running until `stop` is cancelled, then stops it softly: what
/// is in flight after `grace` is cut.
pub async fn keep(
    launch: Launch,
    grace: Duration,
    configs: mpsc::Sender<ConfigQuestion>,
    news: mpsc::Sender<ProcessNews>,
    stop: CancellationToken,
) {
    let Some(mut supervisor) = first_start(launch, &Asking(configs), &news, &stop).await else { return };
    while !stop.is_cancelled() {
        let running = ProcessNews::Running { pid: supervisor.pid(), adopted: supervisor.is_adopted() };
        tell(&news, running).await;
        tokio::select! {
            () = stop.cancelled() => break,
            report = supervisor.wait_exit() => tell(&news, ProcessNews::Ended(report.to_string())).await,
        }
        loop {
            let pause = supervisor.pause();
            tokio::select! {
                // None runs: nothing is left to stop.
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            // A start is not broken off half way: HAProxy would be left to itself.
            match supervisor.start_again().await {
                Ok(()) => break,
                Err(error) => tell(&news, ProcessNews::Failed(error.to_string())).await,
            }
        }
    }
    info!(pid = supervisor.pid(), grace = ?grace, "stopping HAProxy softly");
    match supervisor.stop(grace).await {
        Ok((_, HowStopped::Softly)) => info!("HAProxy has ended; nothing was cut"),
        Ok((report, how)) => warn!(?how, %report, "HAProxy was ended; what was still in flight is cut"),
        Err(error) => error!(%error, "HAProxy goes on running"),
    }
}

async fn first_start(
    launch: Launch,
    configure: &Asking,
    news: &mpsc::Sender<ProcessNews>,
    stop: &CancellationToken,
) -> Option<Supervisor<Asking>> {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    while !stop.is_cancelled() {
        match Supervisor::start(launch.clone(), configure.clone()).await {
            Ok(supervisor) => return Some(supervisor),
            Err(error) => tell(news, ProcessNews::Failed(error.to_string())).await,
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
    None
}

async fn tell(to: &mpsc::Sender<ProcessNews>, news: ProcessNews) {
    // The receiver goes away only when hapilot ends: then nobody wants to know.
    let _ = to.send(news).await;
}
