//! The admin server on `<dir>/hapilot.sock`, and those who ask it.
//!
//! What lives here: the questions that the controller answers, and how long one
//! waits for it. What it must not know: how an answer is found.
//!
//! ```text
//!  hapilot status ──client──► socket ──serve──► AdminHandle ──Ask──► controller
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::report::{Health, PlanReport, Status};
use crate::role::ToldRole;

pub mod client;
pub mod listen;
pub mod serve;

/// A question for the controller. It answers between two turns, or at any await
/// of a turn, by sending once; dropping the sender counts as no answer.
#[derive(Debug)]
pub enum Ask {
    /// The head of the report: cheap, asked often (health checks, `/metrics`).
    Health(oneshot::Sender<Health>),
    /// The whole report.
    Status(oneshot::Sender<Status>),
    /// What would be sent now. Sends nothing.
    Plan(oneshot::Sender<PlanReport>),
    /// The start-up configuration for the present state.
    Render(oneshot::Sender<String>),
}

/// The controller did not answer in time, or is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the controller does not answer")]
pub struct Silent;

/// Questions that may wait for the controller. One that finds no room waits
/// within its own deadline.
const WAITING_QUESTIONS: usize = 64;

/// How the admin server asks the controller.
#[derive(Clone, Debug)]
pub struct AdminHandle {
    questions: mpsc::Sender<Ask>,
    /// No business of the controller: nothing that it does depends on it.
    role: Arc<Mutex<Option<ToldRole>>>,
}

impl AdminHandle {
    /// How long an answer may take.
    pub const DEADLINE: Duration = Duration::from_secs(2);
    /// How long the controller may be busy before it no longer counts as alive:
    /// longer, because a restart is a poor answer to a long turn.
    pub const LIVE_DEADLINE: Duration = Duration::from_secs(10);

    /// A handle, and the questions that come through it and its clones.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (questions, receiver) = mpsc::channel(WAITING_QUESTIONS);
        (Self { questions, role: Arc::default() }, receiver)
    }

    /// The head of the report, [sealed](Health::sealed).
    pub async fn health(&self) -> Result<Health, Silent> {
        let health = self.ask(Self::DEADLINE, Ask::Health).await?;
        Ok(Health { role: self.role(), ..health }.sealed())
    }

    /// The whole report, [sealed](Status::sealed).
    pub async fn status(&self) -> Result<Status, Silent> {
        let mut status = self.ask(Self::DEADLINE, Ask::Status).await?;
        status.health.role = self.role();
        Ok(status.sealed())
    }

    /// keepalived tells the role of this machine.
    pub fn tell(&self, told: ToldRole) {
        let before = self.held_role().replace(told);
        let before = before.map_or("none", |before| before.role.word());
        tracing::info!(role = told.role.word(), before, "keepalived tells the role of this machine");
    }

    /// The role that was told last.
    #[must_use]
    pub fn role(&self) -> Option<ToldRole> {
        *self.held_role()
    }

    fn held_role(&self) -> std::sync::MutexGuard<'_, Option<ToldRole>> {
        // A plain value can't be half written.
        self.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What would be sent now.
    pub async fn plan(&self) -> Result<PlanReport, Silent> {
        self.ask(Self::DEADLINE, Ask::Plan).await
    }

    /// The start-up configuration for the present state.
    pub async fn render(&self) -> Result<String, Silent> {
        self.ask(Self::DEADLINE, Ask::Render).await
    }

    /// Whether the controller's loop goes round at all.
    pub async fn live(&self) -> Result<(), Silent> {
        self.ask(Self::LIVE_DEADLINE, Ask::Health).await.map(drop)
    }

    async fn ask<T>(&self, deadline: Duration, ask: fn(oneshot::Sender<T>) -> Ask) -> Result<T, Silent> {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            self.questions.send(ask(answer)).await.map_err(|_| Silent)?;
            answered.await.map_err(|_| Silent)
        };
        tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(Silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_keeps_silent_is_noticed_in_time() {
        let (handle, questions) = AdminHandle::new();
        let begin = tokio::time::Instant::now();
        assert_eq!(handle.plan().await, Err(Silent));
        assert_eq!(begin.elapsed(), AdminHandle::DEADLINE);
        assert_eq!(handle.live().await, Err(Silent));
        assert_eq!(begin.elapsed(), AdminHandle::DEADLINE + AdminHandle::LIVE_DEADLINE);
        drop(questions);
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_is_gone_is_noticed_at_once() {
        let (handle, questions) = AdminHandle::new();
        drop(questions);
        let begin = tokio::time::Instant::now();
        assert_eq!(handle.render().await, Err(Silent));
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn an_answer_that_is_dropped_is_no_answer() {
        let (handle, mut questions) = AdminHandle::new();
        let controller = async {
            drop(questions.recv().await);
        };
        let (answer, ()) = tokio::join!(handle.render(), controller);
        assert_eq!(answer, Err(Silent));
    }
}
