//! What is true of every run after every decision.

use hopyard_contract::event::EventType;
use hopyard_contract::run::{Attempt, Run, RunState};
use hopyard_contract::status::{AttemptStatus, PendingReason, RunStatus, StepStatus};
use hopyard_contract::usage::Usage;

use super::world::World;

/// Panics when a decision bent a rule.
pub(super) fn check(before: Option<&RunState>, world: &World) {
    run(world);
    steps(&world.state);
    attempts(world);
    events(world);
    wakes(world);
    if let Some(before) = before.filter(|b| b.run.status.is_final()) {
        unchanged(before, &world.state);
    }
}

fn run(world: &World) {
    let RunState { run, steps, attempts, .. } = &world.state;
    assert_eq!(run.status.is_final(), steps.iter().all(|s| s.status.is_final()), "a run is over exactly when its steps are");
    assert_eq!(run.status == RunStatus::Running, steps.iter().any(|s| s.status == StepStatus::Running), "running while one step is");
    assert_eq!(run.status.is_final(), run.finished_at.is_some());
    assert_eq!(run.status == RunStatus::Pending, run.pending_reason.is_some(), "pending has a reason and nothing else does");
    assert_eq!(run.status == RunStatus::Failed, run.failure_code.is_some(), "failed has a code and nothing else does");
    if run.status == RunStatus::Failed {
        assert_eq!(run.failure_code, run.error.as_ref().map(|e| e.code), "one code");
    }
    assert_eq!(run.started_at.is_some(), attempts.iter().any(|a| a.started_at.is_some()), "started with its first process");
    let held = !run.status.is_final() && !attempts.is_empty();
    assert!(run.slots.iter().all(|s| s.held == held), "slots are held from the first lease to the end: {:?}", run.slots);
    let sum = attempts.iter().fold(Usage::default(), |sum, a| sum.plus(&a.usage));
    assert_eq!(run.usage, sum, "one ledger");
}

fn steps(state: &RunState) {
    for step in &state.steps {
        assert_eq!(step.status.is_final(), step.finished_at.is_some(), "{}", step.id);
        assert_eq!(step.status == StepStatus::Pending, step.pending_reason.is_some(), "{}", step.id);
        assert_eq!(step.status == StepStatus::Failed, step.failure_code.is_some(), "{}", step.id);
        let claimable = matches!(step.pending_reason, Some(PendingReason::AwaitingExecutor | PendingReason::RetryBackoff));
        assert_eq!(
            claimable,
            step.claimable_at.is_some(),
            "{} is claimable at {:?} as {:?}",
            step.id,
            step.claimable_at,
            step.pending_reason
        );
        let ours = || state.attempts.iter().filter(|a| a.step == step.id);
        assert!(ours().map(|a| a.n).eq(1..=step.attempt), "attempts of {} are numbered without gaps", step.id);
        let live: Vec<&Attempt> = ours().filter(|a| !a.status.is_final()).collect();
        assert!(live.len() <= 1, "{} has two live attempts", step.id);
        let expected = match (step.status, step.pending_reason) {
            (StepStatus::Running, _) => Some(AttemptStatus::Running),
            (StepStatus::Pending, Some(PendingReason::Starting)) => Some(AttemptStatus::Leased),
            _ => None,
        };
        assert_eq!(live.first().map(|a| a.status), expected, "{} is {} with {:?}", step.id, step.status, step.pending_reason);
        assert!(live.iter().all(|a| a.n == step.attempt), "only the last attempt of {} lives", step.id);
        assert_eq!(step.usage, ours().fold(Usage::default(), |sum, a| sum.plus(&a.usage)), "usage of {}", step.id);
    }
}

fn attempts(world: &World) {
    for attempt in &world.state.attempts {
        let count = |kinds: &[EventType]| {
            let about = |e: &&hopyard_contract::event::Event| e.step.as_ref() == Some(&attempt.step) && e.attempt == Some(attempt.n);
            world.events.iter().filter(about).filter(|e| kinds.contains(&e.kind)).count()
        };
        let what = format!("{}.{} is {}", attempt.step, attempt.n, attempt.status);
        let ended = usize::from(attempt.status.is_final());
        let end = match attempt.status {
            AttemptStatus::Leased | AttemptStatus::Running => None,
            AttemptStatus::Completed => Some(EventType::AttemptCompleted),
            AttemptStatus::Failed => Some(EventType::AttemptFailed),
            AttemptStatus::Killed => Some(EventType::AttemptKilled),
            AttemptStatus::Lost => Some(EventType::AttemptLost),
        };
        const ENDS: [EventType; 4] =
            [EventType::AttemptCompleted, EventType::AttemptFailed, EventType::AttemptKilled, EventType::AttemptLost];
        assert_eq!(count(&ENDS), ended, "{what}: exactly one end");
        assert!(end.is_none_or(|kind| count(&[kind]) == 1), "{what}: the end that it had");
        assert_eq!(count(&[EventType::AttemptRunning]), usize::from(attempt.started_at.is_some()), "{what}: started once");
        assert_eq!(count(&[EventType::AttemptLeased]), usize::from(attempt.announced), "{what}: announced once");
        assert!(attempt.announced || attempt.status == AttemptStatus::Leased, "{what}: announced with what happened");
        assert_eq!(attempt.finished_at.is_some(), attempt.status.is_final(), "{what}: end time");
        assert_eq!(attempt.pid.is_some(), attempt.started_at.is_some(), "{what}: a process id from its start on");
        let unwell = matches!(attempt.status, AttemptStatus::Failed | AttemptStatus::Killed | AttemptStatus::Lost);
        assert_eq!(attempt.error.is_some(), unwell, "{what}: a reason");
    }
}

fn events(world: &World) {
    let run = &world.state.run;
    assert_eq!(run.event_seq, world.events.len() as u64);
    for (index, event) in world.events.iter().enumerate() {
        assert_eq!(event.seq, index as u64 + 1, "events are dense");
        assert_eq!(event.id, format!("{}:{}", run.id, event.seq));
    }
    let finals: Vec<_> = world.events.iter().filter(|e| e.kind.is_final()).collect();
    assert_eq!(finals.len(), usize::from(run.status.is_final()), "exactly one final event");
    if let Some(last) = finals.first() {
        assert_eq!(last.kind.as_str(), format!("run.{}", run.status));
        let rest = &world.events[usize::try_from(last.seq).unwrap()..];
        assert!(rest.iter().all(|e| e.kind.as_str().starts_with("workspace.")), "only workspaces are heard of afterwards");
    }
    assert_eq!(world.count(EventType::RunRunning), usize::from(run.started_at.is_some()));
    for step in &world.state.steps {
        let ends = [EventType::StepCompleted, EventType::StepFailed, EventType::StepKilled, EventType::StepSkipped];
        let count = world.events.iter().filter(|e| e.step.as_ref() == Some(&step.id) && ends.contains(&e.kind)).count();
        assert_eq!(count, usize::from(step.status.is_final()), "{} ends once", step.id);
    }
}

/// Something wakes every open run: a timer, an executor or another run.
fn wakes(world: &World) {
    let state = &world.state;
    if state.run.status.is_final() {
        assert_eq!(state.timer, None);
        return;
    }
    let claimable = state.steps.iter().any(|s| s.pending_reason == Some(PendingReason::AwaitingExecutor));
    assert!(claimable || state.timer.is_some() || !state.run.after_open.is_empty(), "nothing wakes the run: {state:#?}");
    let timer_by = |at| state.timer.is_some_and(|timer| timer <= at);
    for step in state.steps.iter().filter(|s| s.pending_reason == Some(PendingReason::RetryBackoff)) {
        assert!(step.claimable_at.is_some_and(timer_by), "the backoff of {} is waited for", step.id);
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
