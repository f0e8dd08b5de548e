//! What is true of every run after every decision.

use chrono::TimeDelta;
use hopyard_contract::audit::{self, Moment};
use hopyard_contract::run::{Attempt, Run, RunState, StepState};
use hopyard_contract::status::{AttemptStatus, PausedReason, PendingReason};

use super::world::World;

/// Panics when a decision bent a rule.
pub(super) fn check(before: Option<&RunState>, world: &World) {
    audit(world);
    wakes(world);
    if let Some(before) = before.filter(|b| b.run.status.is_final()) {
        unchanged(before, &world.state);
    }
}

/// Whatever `hopyard audit` checks on a live system.
fn audit(world: &World) {
    // The tests look late on purpose, and set the clock back.
    let moment = Moment { now: world.now, overdue: TimeDelta::weeks(1), clock_set_back: TimeDelta::hours(1) };
    let violations = audit::run(&world.state, &world.events, &moment);
    assert!(violations.is_empty(), "{violations:#?}");
}

/// Something wakes every open run: a timer, an executor or another run.
fn wakes(world: &World) {
    let state = &world.state;
    if state.run.status.is_final() {
        assert_eq!(state.timer, None);
        return;
    }
    let paused = |reason| state.steps.iter().any(|s| s.paused_reason == Some(reason));
    let asked = [PausedReason::Approval, PausedReason::Question, PausedReason::Operator].into_iter().any(paused);
    let claimable = state.steps.iter().any(|s| s.pending_reason == Some(PendingReason::AwaitingExecutor));
    assert!(claimable || asked || state.timer.is_some() || !state.run.after_open.is_empty(), "nothing wakes the run: {state:#?}");
    let timer_by = |at| state.timer.is_some_and(|timer| timer <= at);
    let waits = |s: &&StepState| s.pending_reason == Some(PendingReason::RetryBackoff) || s.paused_reason == Some(PausedReason::UsageLimit);
    for step in state.steps.iter().filter(waits) {
        assert!(step.claimable_at.or(step.resume_at).is_some_and(timer_by), "the end of the wait of {} is watched", step.id);
    }
    for attempt in state.live().filter(|a| a.lease_until > world.now) {
        assert!(timer_by(attempt.lease_until), "the lease of {}.{} is watched", attempt.step, attempt.n);
    }
    if state.run.kill.is_none() {
        assert!(state.run.deadline.is_none_or(timer_by), "the time limit is watched");
    } else {
        assert!(state.live().next().is_some(), "a killed run is open only while something runs");
    }
}

/// Final is final: only what is told about lost attempts and money afterwards may be added.
fn unchanged(before: &RunState, after: &RunState) {
    let frozen = |run: &Run| Run { event_seq: 0, late_usage: None, ..run.clone() };
    assert_eq!(frozen(&before.run), frozen(&after.run), "a final run does not change");
    assert_eq!(before.steps, after.steps);
    assert_eq!(before.attempts.len(), after.attempts.len());
    let kept = |a: &Attempt| Attempt { snapshot: None, log: None, log_bytes: 0, ..a.clone() };
    for (a, b) in before.attempts.iter().zip(&after.attempts) {
        assert!(a == b || (a.status == AttemptStatus::Lost && kept(a) == kept(b)), "an attempt of a final run does not change");
    }
}
