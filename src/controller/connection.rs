//! The connection to HAProxy: made, watched, lost.
//!
//! What lives here: when a connection is given up and when the next one is tried.
//! What it must not know: what is said over it (`reconcile`).

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::meanwhile::{GivenUp, Meanwhile, PATIENCE};
use super::{Controller, GOOD_CONNECTION, HEARTBEAT, Inputs};
use crate::haproxy_process::ProcessNews;
use crate::metrics::ErrorKind;
use crate::reconcile::Link;
use crate::runtime_api::{Client, ClientError};

/// A connection on its way. Apart from the loop: whoever takes it and says
/// nothing must not keep the loop from answering and ending.
pub(super) type Attempt = AbortOnDropHandle<Result<Client, ClientError>>;

impl Controller {
    pub(super) fn connected(&mut self, result: Result<Client, ClientError>) {
        match result {
            Ok(client) => {
                if self.is_news() {
                    info!(version = %client.version(), pid = client.pid(), "connected to HAProxy");
                }
                self.version = Some(client.version());
                self.haproxy.connected(&client);
                self.down.write(false);
                self.link = Some(Link::new(client));
                let now = Instant::now();
                self.connected_at = now;
                self.due.resync = now + self.config.resync;
                self.due.heartbeat = now + HEARTBEAT;
                self.wake = true;
                if self.listed {
                    // What was supposed while it was away may not be what it has.
                    self.files.changed(now, false);
                }
            }
            Err(error) => {
                self.due.connect = Instant::now() + self.connecting.next();
                // What can't be used by hapilot may well serve its visitors.
                if error.is_retryable() {
                    self.down.write(true);
                }
                if self.haproxy.failed(&error.to_string()) {
                    self.metrics.error(ErrorKind::Haproxy);
                    if error.is_retryable() {
                        info!(%error, "HAProxy does not answer yet; hapilot goes on trying");
                    } else {
                        error!(%error, "HAProxy can't be used as it is; hapilot goes on trying");
                    }
                }
            }
        }
    }

    pub(super) fn lost(&mut self, error: &str) {
        self.haproxy.failed(error);
        if let Some(link) = self.link.take() {
            self.metrics.error(ErrorKind::Haproxy);
            self.due.connect = Instant::now();
            if self.connected_at.elapsed() < GOOD_CONNECTION {
                self.short_lived = self.short_lived.saturating_add(1);
                self.due.connect += self.connecting.next();
            } else {
                self.short_lived = 0;
                self.connecting.reset();
            }
            if self.is_news() {
                warn!(error, "the connection to HAProxy is lost");
            }
            if link.is_fresh() {
                self.pool.clone_from(&link.observed().pool);
            }
        }
        self.unsettle();
        self.files.changed(Instant::now(), true);
        self.wake = true;
    }

    /// False while connections come and go and none can be used: that is said
    /// once.
    pub(super) fn is_news(&self) -> bool {
        self.trouble.is_none() && self.short_lived <= 1
    }

    pub(super) async fn heartbeat(&mut self, inputs: &mut Inputs) {
        self.due.heartbeat = Instant::now() + HEARTBEAT;
        let health = self.health(None);
        let Some(link) = self.link.as_mut() else { return };
        let (heard, asked) = (link.client().heard(), &mut self.asked);
        let meanwhile = Meanwhile { health, changes: false, awaited: false, heard, asked, inputs };
        match meanwhile.wait_for(link.client_mut().heartbeat()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => self.lost(&error.to_string()),
            Err(given_up) => self.given_up(given_up),
        }
    }

    /// A call to HAProxy was not waited for: the connection is of no use any more.
    pub(super) fn given_up(&mut self, why: GivenUp) {
        match why {
            // The loop ends; an open session would count as a request in flight.
            GivenUp::Ending => self.link = None,
            GivenUp::Silent => self.lost(&format!("HAProxy did not answer within {PATIENCE:?}")),
        }
    }

    pub(super) fn take_process(&mut self, news: ProcessNews) {
        self.running = matches!(news, ProcessNews::Running { .. });
        match news {
            ProcessNews::Running { pid, adopted } => {
                let how =
                    if adopted { "took over the HAProxy that runs already" } else { "HAProxy is started" };
                info!(pid, "{how}");
                self.attempt = None;
                self.due.connect = Instant::now();
            }
            ProcessNews::Ended(how) => {
                warn!(how, "HAProxy ended; it is started again");
                self.lost(&how);
            }
            ProcessNews::Failed(why) => {
                if self.haproxy.failed(&why) {
                    error!(error = why, "HAProxy can't be started; hapilot goes on trying");
                }
            }
        }
    }
}

/// The end of an attempt to connect; for ever without one.
pub(super) async fn attempted(attempt: &mut Option<Attempt>) -> Result<Client, ClientError> {
    let ended = match attempt {
        Some(running) => running.await,
        None => std::future::pending().await,
    };
    *attempt = None;
    match ended {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only the runtime's own end cancels it while it is held.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// Waits until the peer closes an idle connection; for ever without one.
pub(super) async fn closed(link: Option<&mut Link>) {
    match link {
        Some(link) => link.client_mut().closed().await,
        None => std::future::pending().await,
    }
}
