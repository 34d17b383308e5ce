//! The parts of a running hapilot, put together.
//!
//! What lives here: which part gets which channel, and in what order they end.
//! What it must not know: what any of them does.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::listen::{ListenError, Listeners};
use crate::admin::{AdminHandle, Ask, serve};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::shutdown::Signals;

/// hapilot had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The directory or an admin address can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The part that does the work is missing from this build.
    #[error("{0} is not built yet")]
    NotBuilt(&'static str),
}

/// Works until a signal ends it, or something that can't be mended.
///
/// The admin server is the first to begin and the last to end: it takes the
/// directory before anything is written there, and answers while HAProxy drains.
pub async fn run(settings: Settings, signals: Signals) -> Result<(), RunError> {
    let listeners = Listeners::bind(&settings.dir, settings.admin.as_ref()).await?;
    if let Some(address) = listeners.tcp_address() {
        tracing::info!(%address, "admin: listening");
    }
    let metrics = Arc::new(Metrics::default());
    let (handle, questions) = AdminHandle::new();
    let done = CancellationToken::new();
    let server = tokio::spawn(serve::serve(listeners, handle, metrics.clone(), done.clone()));
    let ended = controller(settings, metrics, questions, signals).await;
    done.cancel();
    // It can only fail by a panic, which tokio has printed.
    let _ = server.await;
    ended
}

/// The start-up configuration for settings alone, without any container.
pub fn render(_settings: &Settings) -> Result<String, RunError> {
    Err(RunError::NotBuilt("rendering without a running hapilot"))
}

/// Stands where `controller::run` comes.
#[expect(clippy::unused_async, reason = "the signature of what comes here")]
async fn controller(
    _settings: Settings,
    _metrics: Arc<Metrics>,
    _questions: mpsc::Receiver<Ask>,
    _signals: Signals,
) -> Result<(), RunError> {
    Err(RunError::NotBuilt("the controller"))
}
