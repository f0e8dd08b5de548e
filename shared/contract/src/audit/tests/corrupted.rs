//! One corruption after another, each found by the check that is there for it, at the right place.

use chrono::TimeDelta;
use serde_json::json;

use super::samples::{at, completed, failed, killed, running, waiting};
use super::{Check, Sample, Violation};
use crate::event::EventType;
use crate::id::Name;
use crate::run::Kill;
use crate::status::{AttemptStatus, FailureCode, PendingReason, RunStatus, StepStatus};
use crate::usage::Usage;

/// Whether the check found something at this place.
fn finds(found: &[Violation], check: Check, step: Option<&str>, attempt: Option<u32>) -> bool {
    found.iter().any(|v| v.check == check && v.step.as_ref().map(Name::as_str) == step && v.attempt == attempt)
}

/// Every row is a corruption of a sound run.
macro_rules! found {
    ($($name:ident: $sample:ident, $change:expr => $check:ident $(at $step:literal $(. $n:literal)?)?;)+) => { $(
        #[test]
        fn $name() {
            let change: fn(&mut Sample) = $change;
            let found = $sample().broken(change);
            let (step, attempt): (Option<&str>, Option<u32>) = found!(@place $($step $(. $n)?)?);
            assert!(finds(&found, Check::$check, step, attempt), "{found:#?}");
        }
    )+ };
    (@place) => { (None, None) };
    (@place $step:literal) => { (Some($step), None) };
    (@place $step:literal . $n:literal) => { (Some($step), Some($n)) };
}

/// Takes the events of a type away and closes the gap.
fn without(s: &mut Sample, kind: EventType) {
    s.events.retain(|e| e.kind != kind);
    renumber(s);
}

fn renumber(s: &mut Sample) {
    let run = s.state.run.id;
    for (seq, event) in (1..).zip(&mut s.events) {
        (event.seq, event.id) = (seq, format!("{run}:{seq}"));
    }
    s.state.run.event_seq = s.events.len() as u64;
}

/// Writes an event of a type a second time, right behind the first.
fn twice(s: &mut Sample, kind: EventType) {
    let index = s.events.iter().position(|e| e.kind == kind).expect("an event of the type");
    let again = s.events[index].clone();
    s.events.insert(index + 1, again);
    renumber(s);
}

/// Puts the first event of a type to the end.
fn late(s: &mut Sample, kind: EventType) {
    let index = s.events.iter().position(|e| e.kind == kind).expect("an event of the type");
    let event = s.events.remove(index);
    s.events.push(event);
    renumber(s);
}

fn kill() -> Kill {
    Kill { at: at(0), by: "someone".to_owned(), reason: None, force: false, failure: None }
}

found! {
    a_gap_in_the_events: completed, |s| drop(s.events.remove(3)) => EventsDense;
    a_number_that_was_written_twice: completed, |s| s.events[3].seq = 3 => EventsDense;
    a_last_event_that_the_run_does_not_know: completed, |s| s.state.run.event_seq -= 1 => EventsDense;
    a_missing_last_event: running, |s| drop(s.events.pop()) => EventsDense;
    an_event_of_another_run: running, |s| s.events[1].namespace = Name::literal("other") => EventsDense;
    a_run_without_events: waiting, |s| s.events.clear() => EventsDense;

    two_ends: completed, |s| twice(s, EventType::RunCompleted) => OneEnd;
    an_end_without_an_event: completed, |s| without(s, EventType::RunCompleted) => OneEnd;
    an_end_of_an_open_run: completed, |s| s.state.run.status = RunStatus::Pending => OneEnd;
    a_step_after_the_end: completed, |s| late(s, EventType::StepCompleted) => OneEnd;

    another_status_than_at_the_end: completed, |s| s.state.run.status = RunStatus::Killed => EndUnchanged;
    other_usage_than_at_the_end: completed, |s| s.state.run.usage.turns = 9 => EndUnchanged;
    another_time_than_at_the_end: completed, |s| s.state.run.finished_at = Some(at(999)) => EndUnchanged;
    another_code_than_at_the_end: failed, |s| s.state.run.failure_code = Some(FailureCode::Timeout) => EndUnchanged;

    a_run_that_started_unseen: running, |s| without(s, EventType::RunRunning) => LegalHistory;
    a_start_without_a_lease: running, |s| without(s, EventType::AttemptLeased) => LegalHistory at "build".1;
    a_lease_of_what_was_not_claimable: waiting, |s| {
        let mut leased = s.events[1].clone();
        (leased.kind, leased.step, leased.attempt) = (EventType::AttemptLeased, Some(Name::literal("test")), Some(1));
        s.events.push(leased);
        renumber(s);
    } => LegalHistory at "test".1;
    a_step_that_completed_twice: completed, |s| twice(s, EventType::StepCompleted) => LegalHistory at "build";
    a_step_that_completed_before_its_attempt: completed, |s| without(s, EventType::AttemptCompleted) => LegalHistory at "build";
    a_step_that_goes_on_after_the_kill: killed, |s| {
        let claimable = s.events[1].clone();
        let kill = s.events.iter().position(|e| e.kind == EventType::RunKillRequested).expect("the kill");
        s.events.insert(kill + 1, claimable);
        renumber(s);
    } => LegalHistory at "build";
    a_kill_that_nobody_asked_for: killed, |s| without(s, EventType::RunKillRequested) => LegalHistory at "test";
    an_end_with_open_steps: failed, |s| without(s, EventType::StepSkipped) => LegalHistory;
    another_status_than_by_the_events: running, |s| s.state.steps[0].status = StepStatus::Pending => LegalHistory at "build";
    another_end_of_an_attempt_than_by_the_events: completed, |s| s.state.attempts[0].status = AttemptStatus::Failed => LegalHistory at "build".1;
    an_attempt_that_is_not_recorded: running, |s| s.state.attempts.clear() => LegalHistory;
    a_first_event_that_is_no_acceptance: completed, |s| late(s, EventType::RunAccepted) => LegalHistory at "build";

    a_run_that_is_over_with_open_steps: completed, |s| s.state.steps[1].status = StepStatus::Pending => StatusAgrees;
    a_run_that_runs_without_a_running_step: waiting, |s| s.state.run.status = RunStatus::Running => StatusAgrees;
    a_pending_run_without_a_reason: waiting, |s| s.state.run.pending_reason = None => StatusAgrees;
    a_completed_run_with_a_failed_step: completed, |s| s.state.steps[0].status = StepStatus::Failed => StatusAgrees;
    a_failure_without_words: failed, |s| s.state.run.error = None => StatusAgrees;
    a_slot_that_was_never_given_back: completed, |s| s.state.run.slots[0].held = true => StatusAgrees;
    a_slot_that_a_working_run_does_not_hold: running, |s| s.state.run.slots[0].held = false => StatusAgrees;
    a_running_step_without_a_live_attempt: running, |s| s.state.attempts[0].status = AttemptStatus::Lost => StatusAgrees at "build";
    a_completed_step_whose_attempt_failed: completed, |s| s.state.attempts[3].status = AttemptStatus::Failed => StatusAgrees at "test";
    a_skipped_step_that_ran: completed, |s| s.state.steps[1].status = StepStatus::Skipped => StatusAgrees at "test";
    a_step_that_is_not_in_the_plan: waiting, |s| s.state.steps[1].id = Name::literal("other") => StatusAgrees;
    a_waiting_step_that_nobody_may_claim: waiting, |s| s.state.steps[0].claimable_at = None => StatusAgrees at "build";

    a_missing_attempt: completed, |s| drop(s.state.attempts.remove(1)) => AttemptsNumbered at "build";
    an_attempt_that_the_step_does_not_know: completed, |s| s.state.steps[0].attempt = 2 => AttemptsNumbered at "build";

    two_live_attempts: running, |s| {
        let mut second = s.state.attempts[0].clone();
        (second.n, s.state.steps[0].attempt) = (2, 2);
        s.state.attempts.push(second);
    } => OneLiveAttempt at "build";
    a_live_attempt_that_was_followed: completed, |s| s.state.attempts[0].status = AttemptStatus::Running => OneLiveAttempt at "build".1;

    an_attempt_that_ended_twice: completed, |s| twice(s, EventType::AttemptLost) => AttemptEndsOnce at "build".1;
    an_attempt_whose_end_was_not_told: completed, |s| without(s, EventType::AttemptLost) => AttemptEndsOnce at "build".1;
    an_attempt_that_started_twice: running, |s| twice(s, EventType::AttemptRunning) => AttemptEndsOnce at "build".1;
    an_end_without_a_reason: completed, |s| s.state.attempts[0].error = None => AttemptEndsOnce at "build".1;
    an_end_without_a_time: completed, |s| s.state.attempts[2].finished_at = None => AttemptEndsOnce at "build".3;
    a_failure_without_a_code: failed, |s| s.state.attempts[0].failure_code = None => AttemptEndsOnce at "build".1;

    a_lease_before_the_earlier_attempt_had_ended: completed, |s| s.state.attempts[1].leased_at = at(20) => NoEarlyLease at "build".2;
    a_lease_that_was_taken_away_early: completed, |s| s.state.attempts[0].lease_until = at(22) => NoEarlyLease at "build".1;

    a_running_attempt_whose_lease_has_ended: running, |s| s.now += TimeDelta::seconds(60) => LiveLease at "build".1;
    a_running_attempt_without_a_process: running, |s| s.state.attempts[0].pid = None => LiveLease at "build".1;
    a_running_attempt_without_a_workspace: running, |s| s.state.attempts[0].workspace = None => LiveLease at "build".1;

    a_workspace_of_two_executors: completed, |s| s.state.attempts[1].executor = Name::literal("e2") => OneWriter at "build".2;
    a_workspace_that_does_not_exist_yet: running, |s| s.state.attempts[0].generation = 2 => OneWriter at "build".1;
    a_run_bound_to_another_than_the_owner: running, |s| s.state.run.executor = Some(Name::literal("e2")) => OneWriter;

    a_run_that_is_not_the_sum_of_its_steps: completed, |s| s.state.run.usage = Usage::default() => UsageAddsUp;
    a_step_that_is_not_the_sum_of_its_attempts: running, |s| s.state.attempts[0].usage.turns = 1 => UsageAddsUp at "build";
    money_that_is_known_although_a_part_is_not: completed, |s| s.state.attempts[0].usage.cost_microusd = None => UsageAddsUp at "build";

    a_completed_run_with_a_kill: completed, |s| s.state.run.kill = Some(kill()) => KillWins;
    a_killed_run_without_a_kill: killed, |s| s.state.run.kill = None => KillWins;
    a_time_limit_that_ended_as_a_kill: killed, |s| {
        s.state.run.kill = Some(Kill { failure: Some(FailureCode::Timeout), ..kill() });
    } => KillWins;
    a_lease_after_the_kill: killed, |s| s.state.attempts[0].leased_at = at(2) => KillWins at "build".1;

    two_completed_attempts: completed, |s| s.state.attempts[1].status = AttemptStatus::Completed => EffectOnce at "build";
    an_attempt_after_the_completed_one: completed, |s| {
        s.state.attempts[2].status = AttemptStatus::Failed;
        s.state.attempts[1].status = AttemptStatus::Completed;
    } => EffectOnce at "build".2;

    a_run_that_nothing_wakes: waiting, |s| {
        s.state.steps[0].pending_reason = Some(PendingReason::RetryBackoff);
    } => Woken;
    a_timer_that_nobody_kept: waiting, |s| s.state.timer = Some(at(-60)) => Woken;
    a_lease_that_nobody_watches: running, |s| s.state.timer = Some(at(500)) => Woken at "build".1;
    a_killed_run_that_stays_open: waiting, |s| s.state.run.kill = Some(kill()) => Woken;
}

#[test]
fn events_may_be_planted_anywhere_and_are_missed_nowhere() {
    for sample in [completed(), failed(), killed(), running()] {
        for index in 0..sample.events.len() {
            let without = sample.clone().broken(|s| drop(s.events.remove(index)));
            assert!(!without.is_empty(), "event {} is missed", index + 1);
            // Workspaces may be heard of at any time; every other event belongs where it is.
            if sample.events[index].kind != EventType::WorkspaceRemoved {
                let twice = sample.clone().broken(|s| {
                    let again = s.events[index].clone();
                    s.events.insert(index, again);
                    renumber(s);
                });
                assert!(!twice.is_empty(), "event {} may stand there twice: {}", index + 1, json!(sample.events[index]));
            }
        }
    }
}
