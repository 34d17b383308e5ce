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
    /// When each of them had come.
    pub times: Vec<Instant>,
    /// Why the rest was not answered. The connection is of no use any more.
    pub error: Option<ClientError>,
    /// From the first byte sent to the last reply.
    pub took: Duration,
}

/// Sends all steps of a plan, in order, and reads all replies.
pub async fn apply(client: &mut Client, plan: &Plan) -> Applied {
    let begin = Instant::now();
    let mut verdicts = Vec::with_capacity(plan.steps.len());
    let mut times = Vec::with_capacity(plan.steps.len());
    let each = |verdict| {
        verdicts.push(verdict);
        times.push(Instant::now());
    };
    let error = client.run_each(plan.steps.iter().map(|step| &step.command), each).await.err();
    let applied = Applied { verdicts, times, error, took: begin.elapsed() };
    tell(plan, &applied);
    applied
}

fn tell(plan: &Plan, applied: &Applied) {
    let took_ms = (applied.took.as_secs_f64() * 1e5).round() / 1e2;
    let loud = plan.steps.len() <= LOUD_STEPS;
    let mut told = plan.steps.iter().zip(&applied.verdicts).peekable();
    while let Some((step, verdict)) = told.next() {
        if *verdict != Verdict::Done {
            tell_failure(step, verdict);
            continue;
        }
        if !loud {
            debug!(command = %step.command, reason = %step.reason, "done");
            continue;
        }
        // All that was done to one server makes one line.
        let mut commands = step.command.to_string();
        while let Some((next, _)) = told.next_if(|(next, verdict)| {
            **verdict == Verdict::Done && next.reason == step.reason && same_server(step, next)
        }) {
            commands.push_str("; ");
            commands.push_str(&next.command.to_string());
        }
        info!(took_ms, "{}: {commands}", step.reason);
    }
    if !loud {
        info!(took_ms, "{} of {} commands are answered", applied.verdicts.len(), plan.steps.len());
    }
}

fn same_server(one: &Step, other: &Step) -> bool {
    one.command.server().is_some() && one.command.server() == other.command.server()
}

fn tell_failure(step: &Step, verdict: &Verdict) {
    let (command, reason) = (&step.command, step.reason);
    match verdict {
        Verdict::Done => {}
        Verdict::Deferred(answer) => debug!(%command, answer, "put off by HAProxy; tried again later"),
        Verdict::AlreadySo(answer) if is_clearing(command) => debug!(%command, answer, "was so already"),
        Verdict::AlreadySo(answer) => info!(%command, answer, "HAProxy was not as remembered; looking again"),
        Verdict::Refused(answer) => warn!(%command, %reason, answer, "refused by HAProxy"),
    }
}
