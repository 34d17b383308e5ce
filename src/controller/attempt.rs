//! Waiting for what may not be there: an attempt to connect, a connection.
//!
//! What lives here: two ends for the controller's `select!`. What it must not
//! know: what follows from them.

use tokio_util::task::AbortOnDropHandle;

use crate::reconcile::Link;
use crate::runtime_api::{Client, ClientError};

/// A connection on its way.
pub(super) type Attempt = AbortOnDropHandle<Result<Client, ClientError>>;

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
