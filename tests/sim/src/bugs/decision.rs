//! Bugs around the decision: what goes in, or what comes out, is bent.

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::event::EventType;
use hopyard_contract::message::{LeaseState, Outcome};
use hopyard_contract::run::RunState;
use hopyard_contract::status::{AttemptStatus, PendingReason, RunStatus, StepStatus};
use hopyard_scheduler::decide::{self, Decision, Input, Reply};

use super::Bug;

/// The decision, with a bug in it.
pub(crate) fn decide(bug: Option<Bug>, state: &RunState, input: &Input, now: DateTime<Utc>) -> Decision {
    let Some(bug) = bug else { return decide::decide(state, input, now) };
    let (state, input, now) = before(bug, state, input, now);
    let mut decision = decide::decide(&state, &input, now);
    after(bug, &state, &input, now, &mut decision);
    decision
}

/// Bends what goes in.
fn before(bug: Bug, state: &RunState, input: &Input, now: DateTime<Utc>) -> (RunState, Input, DateTime<Utc>) {
    let (mut state, mut input, mut now) = (state.clone(), input.clone(), now);
    match (bug, &mut input) {
        (Bug::TokenIgnored, Input::Finished(finished)) => {
            let last = state.attempts.iter().filter(|a| a.step == finished.attempt.step).max_by_key(|a| a.n);
            if let Some(last) = last {
                (finished.attempt.n, finished.token) = (last.n, last.token);
            }
        }
        (Bug::StartedWithoutLease, Input::Started(started)) => {
            let lost = state.attempts.iter_mut().find(|a| a.token == started.token && a.status == AttemptStatus::Lost);
            if let Some(lost) = lost {
                (lost.status, lost.finished_at) = (AttemptStatus::Leased, None);
            }
        }
        (Bug::CompletionOverridesKill, Input::Finished(finished)) if finished.outcome == Outcome::Completed => state.run.kill = None,
        (Bug::ExpiryWithoutHealth, Input::Tick(tick)) => tick.may_expire = true,
        (Bug::LostNeverExpires, Input::Tick(tick)) => tick.may_expire = false,
        (Bug::ExpiryEarly, Input::Tick(tick)) if tick.may_expire => now += TimeDelta::milliseconds(2500),
        (Bug::AttemptNumberReused, Input::Lease(lease)) => {
            let index = state.attempts.iter().position(|a| a.step == lease.step && a.status == AttemptStatus::Lost);
            if let Some(index) = index {
                let n = state.attempts.remove(index).n;
                state.steps.iter_mut().filter(|s| s.id == lease.step).for_each(|s| s.attempt = n - 1);
            }
        }
        (Bug::FinishedTwice, Input::Finished(finished)) => {
            let again = state.attempts.iter_mut().find(|a| a.token == finished.token && a.status == AttemptStatus::Failed);
            if let Some(again) = again {
                (again.status, again.finished_at) = (AttemptStatus::Running, None);
            }
        }
        (Bug::ResultDropped, Input::Finished(finished)) if state.run.kill.is_some() => {
            (finished.result, finished.snapshot) = (None, None);
        }
        (Bug::GenerationKept, Input::Lease(_)) if state.run.executor.is_none() => {
            state.run.generation = state.run.generation.saturating_sub(1);
        }
        _ => {}
    }
    (state, input, now)
}

/// Bends what comes out.
fn after(bug: Bug, before: &RunState, input: &Input, now: DateTime<Utc>, decision: &mut Decision) {
    let next = &mut decision.next;
    match (bug, input) {
        (Bug::RunningAtLease, Input::Lease(lease)) if matches!(decision.reply, Reply::Granted(_)) => {
            for attempt in next.attempts.iter_mut().filter(|a| a.token == lease.token) {
                (attempt.status, attempt.started_at, attempt.pid) = (AttemptStatus::Running, Some(now), Some(1));
            }
            for step in next.steps.iter_mut().filter(|s| s.id == lease.step) {
                (step.status, step.pending_reason, step.started_at) = (StepStatus::Running, None, Some(now));
            }
            (next.run.status, next.run.pending_reason) = (RunStatus::Running, None);
            next.run.started_at.get_or_insert(now);
        }
        (Bug::KillForgotten, Input::Kill(_)) if before.live().next().is_some() => {
            (decision.next, decision.events) = (before.clone(), Vec::new());
        }
        (Bug::KillNotInRenewal, Input::Renew(..)) => {
            if let Reply::Renewed(answer) = &mut decision.reply {
                answer.kill = None;
            }
        }
        (Bug::StaleSaysOk, Input::Renew(..)) => {
            if let Reply::Renewed(answer) = &mut decision.reply {
                answer.state = LeaseState::Ok;
            }
        }
        (Bug::LeaseNotRaised, Input::Renew(..)) => {
            for (attempt, old) in next.attempts.iter_mut().zip(&before.attempts) {
                attempt.lease_until = old.lease_until;
            }
            next.timer = before.timer;
        }
        (Bug::UsageOverwritten, Input::Renew(renewal, ..)) => {
            for attempt in next.attempts.iter_mut().filter(|a| a.token == renewal.token && !a.status.is_final()) {
                attempt.usage = renewal.usage;
            }
        }
        (Bug::UsageNotSummed, Input::Finished(_)) if !before.run.status.is_final() => {
            let lost = next.attempts.iter().filter(|a| a.status == AttemptStatus::Lost);
            let cost: u64 = lost.filter_map(|a| a.usage.cost_microusd).sum();
            next.run.usage.cost_microusd = next.run.usage.cost_microusd.map(|sum| sum.saturating_sub(cost));
        }
        (Bug::EventSkipped, Input::Finished(_)) if decision.events.len() > 2 => {
            decision.events.remove(1);
        }
        (Bug::EventsAfterEnd, Input::Finished(finished)) if before.run.status.is_final() && decision.events.is_empty() => {
            next.run.event_seq += 1;
            let run = &next.run;
            decision.events.push(hopyard_contract::event::Event {
                v: 1,
                id: format!("{}:{}", run.id, run.event_seq),
                run_id: run.id,
                namespace: run.namespace.clone(),
                seq: run.event_seq,
                kind: EventType::AttemptLost,
                at: now,
                step: Some(finished.attempt.step.clone()),
                attempt: Some(finished.attempt.n),
                data: serde_json::Map::new(),
            });
        }
        (Bug::RetriesUncounted, Input::Finished(_)) => {
            for (step, old) in
                next.steps.iter_mut().zip(&before.steps).filter(|(step, _)| step.pending_reason == Some(PendingReason::RetryBackoff))
            {
                step.failures = old.failures;
            }
        }
        (Bug::LostCountsAsFailure, Input::Tick(_)) => {
            for (step, old) in
                next.steps.iter_mut().zip(&before.steps).filter(|(step, old)| step.lost + step.unstarted > old.lost + old.unstarted)
            {
                step.failures = old.failures + 1;
            }
        }
        (Bug::SlotGivenEarly, Input::Started(_)) => next.run.slots.iter_mut().for_each(|slot| slot.held = false),
        (Bug::BackoffIgnored, Input::Finished(_)) => {
            for step in next.steps.iter_mut().filter(|s| s.pending_reason == Some(PendingReason::RetryBackoff)) {
                (step.pending_reason, step.claimable_at) = (Some(PendingReason::AwaitingExecutor), Some(now));
            }
        }
        (Bug::TimerDropped, _) => next.timer = None,
        _ => {}
    }
}
