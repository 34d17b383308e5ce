//! A plan → the socket → an outcome per step.
//!
//! What lives here: sending, and saying what came of each step. What it must
//! not know: why a step is in the plan, and what to do about a refusal.

use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::core::plan::{Plan, Step, is_clearing};
use crate::runtime_api::{Client, ClientError, Verdict};

/// Above this number of steps the single ones are logged for debugging only.
const LOUD_STEPS: usize = 60;

/// What came of a plan.
#[derive(Debug)]
pub struct Applied {
    /// One verdict per step, as far as HAProxy answered; fewer than steps only
    /// if `error` is set.
    pub verdicts: Vec<Verdict>,
    /// Why the rest was not answered. The connection is of no use any more.
    pub error: Option<ClientError>,
    /// From the first byte sent to the last reply.
    pub took: Duration,
}

/// Sends all steps of a plan, in order, and reads all replies.
pub async fn apply(client: &mut Client, plan: &Plan) -> Applied {
    let begin = Instant::now();
    let (verdicts, error) = match client.run(plan.steps.iter().map(|step| &step.command)).await {
        Ok(verdicts) => (verdicts, None),
        Err(failed) => (failed.done, Some(failed.error)),
    };
    let applied = Applied { verdicts, error, took: begin.elapsed() };
    tell(plan, &applied);
    applied
}

fn tell(plan: &Plan, applied: &Applied) {
    let took_ms = applied.took.as_secs_f64() * 1e3;
    let loud = plan.steps.len() <= LOUD_STEPS;
    for (step, verdict) in plan.steps.iter().zip(&applied.verdicts) {
        tell_step(step, verdict, took_ms, loud);
    }
    if !loud {
        info!(
            commands = plan.steps.len(),
            answered = applied.verdicts.len(),
            took_ms = format_args!("{took_ms:.1}"),
            "a large plan was sent"
        );
    }
}

fn tell_step(step: &Step, verdict: &Verdict, took_ms: f64, loud: bool) {
    let (command, reason) = (&step.command, step.reason);
    let took_ms = format_args!("{took_ms:.2}");
    match verdict {
        Verdict::Done if loud => info!(%command, %reason, took_ms, "done"),
        Verdict::Done => debug!(%command, %reason, took_ms, "done"),
        Verdict::Deferred(answer) => debug!(%command, answer, "put off by HAProxy; tried again later"),
        Verdict::AlreadySo(answer) if is_clearing(command) => debug!(%command, answer, "was so already"),
        Verdict::AlreadySo(answer) => info!(%command, answer, "HAProxy was not as remembered; looking again"),
        Verdict::Refused(answer) => warn!(%command, %reason, answer, "refused by HAProxy"),
    }
}
