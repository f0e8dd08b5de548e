//! Statuses agree: the run's with its steps', the steps' with their attempts'.

use super::{Check, Findings};
use crate::plan::Work;
use crate::run::{RunState, StepState};
use crate::status::{AttemptStatus, FailureCode, PausedReason, PendingReason, RunStatus, StepStatus};

pub(super) fn check(state: &RunState, found: &mut Findings) {
    plan(state, found);
    run(state, found);
    for step in &state.steps {
        self::step(state, step, found);
    }
}

fn plan(state: &RunState, found: &mut Findings) {
    let planned = state.plan.steps.iter().map(|s| &s.id);
    if !planned.eq(state.steps.iter().map(|s| &s.id)) {
        found.run(Check::StatusAgrees, "the run's steps are not those of its plan");
    }
    for attempt in state.attempts.iter().filter(|a| state.step(a.step.as_str()).is_none()) {
        found.attempt(Check::StatusAgrees, &attempt.step, attempt.n, "the attempt belongs to no step of the run");
    }
}

fn run(state: &RunState, found: &mut Findings) {
    let run = &state.run;
    let any = |status| state.steps.iter().any(|s| s.status == status);
    let over = state.steps.iter().all(|s| s.status.is_final());
    let mut wrong = |detail: String| found.run(Check::StatusAgrees, detail);
    if over != run.status.is_final() {
        let open = state.steps.iter().filter(|s| !s.status.is_final()).count();
        wrong(format!("the run is {} and {open} of its steps are open", run.status));
    } else if !over {
        let expected = match () {
            () if any(StepStatus::Running) => RunStatus::Running,
            () if any(StepStatus::Paused) => RunStatus::Paused,
            () => RunStatus::Pending,
        };
        if run.status != expected {
            wrong(format!("the run is {}, by its steps it is {expected}", run.status));
        }
    }
    // A variant that fails has lost against others.
    let failed = |s: &StepState| s.status == StepStatus::Failed && state.variant_of(s.id.as_str()).is_none();
    if run.status == RunStatus::Completed && state.steps.iter().any(failed) {
        wrong("the run is completed and one of its steps failed".to_owned());
    }
    if run.status.is_final() != run.finished_at.is_some() {
        wrong(format!("the run is {} and its end is {:?}", run.status, run.finished_at));
    }
    if (run.status == RunStatus::Pending) != run.pending_reason.is_some() {
        wrong(format!("the run is {} with the pending reason {}", run.status, word(run.pending_reason)));
    }
    if (run.status == RunStatus::Paused) != run.paused_reason.is_some() {
        wrong(format!("the run is {} with the paused reason {}", run.status, run.paused_reason.map_or("none", PausedReason::as_str)));
    }
    let code = run.failure_code;
    if (run.status == RunStatus::Failed) != code.is_some() || code.is_some_and(|c| run.error.as_ref().map(|e| e.code) != Some(c)) {
        wrong(format!("the run is {} with the code {code:?} and the error {:?}", run.status, run.error));
    }
    if run.started_at.is_some() != state.attempts.iter().any(|a| a.started_at.is_some()) {
        wrong(format!("the run's start is {:?}, which is not that of a process", run.started_at));
    }
    let holds = !run.status.is_final() && !state.attempts.is_empty();
    for slot in run.slots.iter().filter(|s| s.held != holds) {
        let held = if slot.held { "held" } else { "not held" };
        wrong(format!("the slot {} is {held} by a {} run with {} attempts", slot.key, run.status, state.attempts.len()));
    }
}

fn step(state: &RunState, step: &StepState, found: &mut Findings) {
    let mut wrong = |detail: String| found.step(Check::StatusAgrees, &step.id, detail);
    let status = step.status;
    if status.is_final() != step.finished_at.is_some() {
        wrong(format!("the step is {status} and its end is {:?}", step.finished_at));
    }
    if (status == StepStatus::Pending) != step.pending_reason.is_some() {
        wrong(format!("the step is {status} with the pending reason {}", word(step.pending_reason)));
    }
    if (status == StepStatus::Paused) != step.paused_reason.is_some() {
        wrong(format!("the step is {status} with the paused reason {}", step.paused_reason.map_or("none", PausedReason::as_str)));
    }
    if matches!(step.paused_reason, Some(PausedReason::UsageLimit | PausedReason::Budget)) != step.resume_at.is_some() {
        wrong(format!("the step is {status} and goes on at {:?}", step.resume_at));
    }
    if (status == StepStatus::Failed) != step.failure_code.is_some() {
        wrong(format!("the step is {status} with the code {:?}", step.failure_code));
    }
    let claimable =
        matches!(step.pending_reason, Some(PendingReason::AwaitingExecutor | PendingReason::RetryBackoff | PendingReason::AwaitingBudget));
    if claimable != step.claimable_at.is_some() {
        wrong(format!("the step waits for {} and is claimable from {:?}", word(step.pending_reason), step.claimable_at));
    }
    let last = state.attempts.iter().filter(|a| a.step == step.id).max_by_key(|a| a.n);
    let live = last.map(|a| a.status).filter(|s| !s.is_final());
    let expected = match (status, step.pending_reason) {
        (StepStatus::Running, _) => Some(AttemptStatus::Running),
        (StepStatus::Pending, Some(PendingReason::Starting)) => Some(AttemptStatus::Leased),
        _ => None,
    };
    if live != expected {
        let attempt = last.map_or("none", |a| a.status.as_str());
        wrong(format!("the step is {status} ({}) and its last attempt is {attempt}", word(step.pending_reason)));
    }
    let ended = last.map(|a| a.status).filter(|s| s.is_final());
    // An attempt that has asked did well, and its step goes on; a step without a process ends by an answer, or for want of one.
    let asked = last.is_some_and(|a| a.paused);
    let chooses = state.plan.step(step.id.as_str()).is_some_and(|spec| matches!(spec.work, Work::BestOf(_)));
    let fits = match status {
        StepStatus::Completed if last.is_none() => step.answer.as_ref().is_some_and(|answer| answer.approved),
        StepStatus::Completed => ended == Some(AttemptStatus::Completed),
        // Nothing was left to begin it with.
        StepStatus::Failed if step.failure_code == Some(FailureCode::BudgetExceeded) && ended.is_none() => live.is_none(),
        // None of its variants passes, so that there was nothing to go on with.
        StepStatus::Failed if chooses && step.failure_code == Some(FailureCode::DependencyFailed) => last.is_none(),
        // Nothing was recorded of it.
        StepStatus::Failed if state.run.replay && step.failure_code == Some(FailureCode::PlanError) => last.is_none(),
        StepStatus::Failed if asked || (last.is_none() && step.question.is_some()) => live.is_none(),
        StepStatus::Failed => matches!(ended, Some(AttemptStatus::Failed | AttemptStatus::Lost)),
        StepStatus::Skipped => last.is_none(),
        StepStatus::Killed | StepStatus::Pending => asked || ended != Some(AttemptStatus::Completed),
        StepStatus::Running | StepStatus::Paused => true,
    };
    if !fits {
        wrong(format!("the step is {status} and its last attempt is {}", last.map_or("none", |a| a.status.as_str())));
    }
}

fn word(reason: Option<PendingReason>) -> &'static str {
    reason.map_or("none", PendingReason::as_str)
}
