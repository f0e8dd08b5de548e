//! What is said about time: leases that are respected, timers that are kept, nothing that nobody will ever look at.

use chrono::TimeDelta;
use serde_json::Value;

use super::{Check, Findings, Moment};
use crate::event::{Event, EventType};
use crate::run::{Attempt, RunState};
use crate::status::PendingReason;

pub(super) fn check(state: &RunState, events: &[Event], moment: &Moment, found: &mut Findings) {
    successors(state, moment, found);
    expiries(state, events, found);
    if !state.run.status.is_final() {
        leases(state, moment, found);
        woken(state, moment, found);
    }
}

/// No attempt is leased before the one before it was over, nor after a kill.
fn successors(state: &RunState, moment: &Moment, found: &mut Findings) {
    for attempt in &state.attempts {
        let earlier = attempt.n.checked_sub(1).and_then(|n| state.attempt(attempt.step.as_str(), n));
        if let Some(earlier) = earlier
            && let Some(ended) = earlier.finished_at.or(Some(earlier.lease_until))
            && attempt.leased_at + moment.clock_set_back < ended
        {
            let (leased, ended) = (crate::time::format(attempt.leased_at), crate::time::format(ended));
            found.attempt(
                Check::NoEarlyLease,
                &attempt.step,
                attempt.n,
                format!("it was leased at {leased}, the one before ended at {ended}"),
            );
        }
        if let Some(kill) = &state.run.kill
            && attempt.leased_at > kill.at + moment.clock_set_back
        {
            let (leased, killed) = (crate::time::format(attempt.leased_at), crate::time::format(kill.at));
            found.attempt(Check::KillWins, &attempt.step, attempt.n, format!("it was leased at {leased}, after the kill at {killed}"));
        }
    }
}

/// An attempt that was lost because its lease had ended was not lost before that.
fn expiries(state: &RunState, events: &[Event], found: &mut Findings) {
    for event in events.iter().filter(|e| e.kind == EventType::AttemptLost) {
        let expired = event.data.get("cause").and_then(Value::as_str) == Some("lease_ended");
        let attempt = event.step.as_ref().zip(event.attempt).and_then(|(step, n)| state.attempt(step.as_str(), n));
        if let Some(attempt) = attempt.filter(|a| expired && a.lease_until > event.at) {
            let (lost, lease) = (crate::time::format(event.at), crate::time::format(attempt.lease_until));
            found.attempt(Check::NoEarlyLease, &attempt.step, attempt.n, format!("it was given up at {lost}, its lease ran until {lease}"));
        }
    }
}

fn leases(state: &RunState, moment: &Moment, found: &mut Findings) {
    for attempt in state.live().filter(|a| moment.now - a.lease_until > moment.overdue) {
        let Attempt { step, n, status, executor, .. } = attempt;
        let lease = crate::time::format(attempt.lease_until);
        found.attempt(Check::LiveLease, step, *n, format!("it is {status} at {executor}, its lease ended at {lease}"));
    }
}

fn woken(state: &RunState, moment: &Moment, found: &mut Findings) {
    let run = &state.run;
    let claimable = state.steps.iter().any(|s| s.pending_reason == Some(PendingReason::AwaitingExecutor));
    if !claimable && state.timer.is_none() && run.after_open.is_empty() && run.paused_reason.is_none() {
        found.run(Check::Woken, format!("the run is {}, and nothing will ever look at it", run.status));
    }
    if let Some(timer) = state.timer.filter(|timer| moment.now - *timer > moment.overdue) {
        found.run(Check::Woken, format!("the run wanted to be looked at at {}", crate::time::format(timer)));
    }
    if run.kill.is_some() && state.live().next().is_none() {
        found.run(Check::Woken, "the run has been killed, nothing of it runs, and it is open");
    }
    for attempt in state.live() {
        let late = |timer| timer > attempt.lease_until + TimeDelta::seconds(1) && timer > moment.now + TimeDelta::seconds(1);
        if state.timer.is_none_or(late) {
            let timer = state.timer.map_or_else(|| "never".to_owned(), crate::time::format);
            found.attempt(Check::Woken, &attempt.step, attempt.n, format!("its lease is looked at {timer}"));
        }
    }
}
