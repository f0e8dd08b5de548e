//! Attempts: numbered, at most one alive, ended once, completed once, each workspace with one executor.

use std::collections::BTreeMap;

use super::{Check, Findings};
use crate::event::{Event, EventType};
use crate::id::Name;
use crate::run::{Attempt, RunState, StepState};
use crate::status::AttemptStatus;

const ENDS: [EventType; 4] = [EventType::AttemptCompleted, EventType::AttemptFailed, EventType::AttemptKilled, EventType::AttemptLost];

pub(super) fn check(state: &RunState, events: &[Event], found: &mut Findings) {
    for step in &state.steps {
        self::step(state, step, found);
    }
    for attempt in &state.attempts {
        ends_once(attempt, events, found);
        if attempt.status == AttemptStatus::Running && (attempt.pid.is_none() || attempt.workspace.is_none()) {
            let (pid, path) = (attempt.pid, &attempt.workspace);
            found.attempt(Check::LiveLease, &attempt.step, attempt.n, format!("it is running with the process {pid:?} in {path:?}"));
        }
    }
    one_writer(state, found);
}

fn step(state: &RunState, step: &StepState, found: &mut Findings) {
    let ours: Vec<&Attempt> = state.attempts.iter().filter(|a| a.step == step.id).collect();
    if !ours.iter().map(|a| a.n).eq(1..=step.attempt) {
        let numbers: Vec<String> = ours.iter().map(|a| a.n.to_string()).collect();
        found.step(Check::AttemptsNumbered, &step.id, format!("the step is at attempt {} and has [{}]", step.attempt, numbers.join(", ")));
    }
    let live: Vec<&&Attempt> = ours.iter().filter(|a| !a.status.is_final()).collect();
    if live.len() > 1 {
        let list: Vec<String> = live.iter().map(|a| format!("{} at {}", a.n, a.executor)).collect();
        found.step(Check::OneLiveAttempt, &step.id, format!("{} attempts live: {}", live.len(), list.join(", ")));
    }
    for attempt in live.iter().filter(|a| a.n != step.attempt) {
        found.attempt(Check::OneLiveAttempt, &step.id, attempt.n, format!("it lives and attempt {} has followed", step.attempt));
    }
    let completed: Vec<u32> = ours.iter().filter(|a| a.status == AttemptStatus::Completed && !a.paused).map(|a| a.n).collect();
    if completed.len() > 1 {
        found.step(Check::EffectOnce, &step.id, format!("the attempts {completed:?} are completed"));
    }
    for n in completed.into_iter().filter(|n| *n < step.attempt) {
        found.attempt(Check::EffectOnce, &step.id, n, format!("it completed and attempt {} has followed", step.attempt));
    }
}

fn ends_once(attempt: &Attempt, events: &[Event], found: &mut Findings) {
    let about = |e: &&Event| e.step.as_ref() == Some(&attempt.step) && e.attempt == Some(attempt.n);
    let count = |kinds: &[EventType]| events.iter().filter(about).filter(|e| kinds.contains(&e.kind)).count();
    let mut wrong = |detail: String| found.attempt(Check::AttemptEndsOnce, &attempt.step, attempt.n, detail);
    let status = attempt.status;
    let (starts, ends) = (count(&[EventType::AttemptRunning]), count(&ENDS));
    if ends != usize::from(status.is_final()) {
        wrong(format!("it is {status} and has {ends} ends"));
    }
    if starts != usize::from(attempt.started_at.is_some()) {
        wrong(format!("its start is {:?} and it has {starts} events of a start", attempt.started_at));
    }
    if status.is_final() != attempt.finished_at.is_some() {
        wrong(format!("it is {status} and its end is {:?}", attempt.finished_at));
    }
    let unwell = matches!(status, AttemptStatus::Failed | AttemptStatus::Killed | AttemptStatus::Lost);
    if unwell && attempt.error.is_none() {
        wrong(format!("it is {status} without a reason"));
    }
    if status == AttemptStatus::Failed && attempt.failure_code.is_none() {
        wrong("it failed without a code".to_owned());
    }
}

/// All attempts in one workspace are one executor's: nobody else ever wrote there.
fn one_writer(state: &RunState, found: &mut Findings) {
    let mut owners: BTreeMap<u32, (&Name, &Name)> = BTreeMap::new();
    for attempt in state.attempts.iter().filter(|a| a.generation > 0) {
        let own = (&attempt.executor, &attempt.host);
        let owner = *owners.entry(attempt.generation).or_insert(own);
        if owner != own {
            let detail = format!("it was at {}, its workspace g{} belongs to {}", attempt.executor, attempt.generation, owner.0);
            found.attempt(Check::OneWriter, &attempt.step, attempt.n, detail);
        }
        if attempt.generation > state.run.generation {
            let detail = format!("it is in workspace g{} of a run at g{}", attempt.generation, state.run.generation);
            found.attempt(Check::OneWriter, &attempt.step, attempt.n, detail);
        }
    }
    let run = &state.run;
    if let (Some((owner, _)), Some(bound)) = (owners.get(&run.generation), &run.executor)
        && *owner != bound
    {
        found.run(Check::OneWriter, format!("the run is bound to {bound}, its workspace g{} belongs to {owner}", run.generation));
    }
}
