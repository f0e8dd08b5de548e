//! Sound runs, as the scheduler would have written them.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Sample;
use crate::event::{Event, EventType};
use crate::id::{Name, RunId};
use crate::plan::Plan;
use crate::run::{Attempt, Kill, Run, RunError, RunState, StepState};
use crate::status::{AttemptStatus, FailureCode, PendingReason, RunStatus, StepStatus};
use crate::usage::Usage;

/// Seconds after the submission.
pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a small number")
}

fn cost(microusd: u64) -> Usage {
    Usage { cost_microusd: Some(microusd), ..Usage::default() }
}

/// A run of two steps at its beginning, with the event of its acceptance and that of the first step.
fn accepted() -> Sample {
    let plan: Plan = serde_json::from_value(json!({
        "v": 1, "name": "w",
        "steps": [{"id": "build", "shell": "make"}, {"id": "test", "needs": ["build"], "shell": "make test"}],
    }))
    .expect("a plan");
    let id = RunId::of_bus_message(1_800_000_000_000_000_000, 1, 0);
    let run: Run = serde_json::from_value(json!({
        "id": id, "namespace": "default", "workflow": "w", "definition_hash": "d", "plan_hash": "p", "status": "pending",
        "pending_reason": "awaiting_executor", "labels": {}, "inputs": {}, "priority": 1, "pool": "default", "after": [], "after_open": [],
        "after_policy": "skip", "slots": [{"key": "default/key/k", "limit": 1, "policy": "queue", "held": false}],
        "created_at": at(0), "usage": Usage::default(), "generation": 0, "event_seq": 0,
    }))
    .expect("a run");
    let steps = plan.steps.iter().map(|s| step(&s.id)).collect();
    let state = RunState { run, steps, attempts: Vec::new(), plan: Arc::new(plan), timer: None };
    let mut sample = Sample { state, events: Vec::new(), now: at(0) };
    sample.event(EventType::RunAccepted, None, None, json!({}));
    sample.claimable(0);
    sample
}

fn step(id: &Name) -> StepState {
    serde_json::from_value(json!({
        "id": id, "status": "pending", "pending_reason": "awaiting_dependencies", "pool": "default", "attempt": 0, "failures": 0, "lost": 0,
        "unstarted": 0, "outputs": {}, "usage": Usage::default(),
    }))
    .expect("a step")
}

impl Sample {
    fn event(&mut self, kind: EventType, step: Option<&Name>, attempt: Option<u32>, data: Value) {
        let run = &mut self.state.run;
        run.event_seq += 1;
        let Value::Object(data) = data else { panic!("data is an object") };
        self.events.push(Event {
            v: 1,
            id: format!("{}:{}", run.id, run.event_seq),
            run_id: run.id,
            namespace: run.namespace.clone(),
            seq: run.event_seq,
            kind,
            at: self.now,
            step: step.cloned(),
            attempt,
            data,
        });
    }

    fn id(&self, step: usize) -> Name {
        self.state.steps[step].id.clone()
    }

    fn claimable(&mut self, step: usize) {
        let now = self.now;
        let row = &mut self.state.steps[step];
        (row.status, row.pending_reason, row.claimable_at) = (StepStatus::Pending, Some(PendingReason::AwaitingExecutor), Some(now));
        let (id, next) = (row.id.clone(), row.attempt + 1);
        self.event(EventType::StepClaimable, Some(&id), None, json!({"attempt": next}));
        (self.state.run.status, self.state.run.pending_reason) = (RunStatus::Pending, Some(PendingReason::AwaitingExecutor));
        self.state.timer = None;
    }

    /// Leases a step; nothing is written about it yet.
    fn lease(&mut self, step: usize) {
        let (now, id) = (self.now, self.id(step));
        let row = &mut self.state.steps[step];
        row.attempt += 1;
        (row.pending_reason, row.claimable_at) = (Some(PendingReason::Starting), None);
        let n = row.attempt;
        let run = &mut self.state.run;
        run.pending_reason = Some(PendingReason::Starting);
        run.slots[0].held = true;
        (run.generation, run.executor, run.host) = (1, Some(Name::literal("e1")), Some(Name::literal("h1")));
        let until = now + TimeDelta::seconds(20);
        let attempt: Attempt = serde_json::from_value(json!({
            "step": id, "n": n, "status": "leased", "executor": "e1", "host": "h1", "token": Uuid::nil(), "claim_id": Uuid::nil(),
            "lease_until": until, "leased_at": now, "announced": false, "generation": 1, "usage": Usage::default(), "log_bytes": 0,
        }))
        .expect("an attempt");
        self.state.attempts.push(attempt);
        self.state.attempts.sort_by(|a, b| (&a.step, a.n).cmp(&(&b.step, b.n)));
        self.state.timer = Some(until);
    }

    fn last(&mut self, step: usize) -> &mut Attempt {
        let (id, n) = (self.id(step), self.state.steps[step].attempt);
        self.state.attempts.iter_mut().find(|a| a.step == id && a.n == n).expect("leased before")
    }

    fn start(&mut self, step: usize) {
        let (now, id, n) = (self.now, self.id(step), self.state.steps[step].attempt);
        let attempt = self.last(step);
        (attempt.announced, attempt.status, attempt.started_at) = (true, AttemptStatus::Running, Some(now));
        (attempt.pid, attempt.workspace) = (Some(7), Some("/w".to_owned()));
        let row = &mut self.state.steps[step];
        (row.status, row.pending_reason) = (StepStatus::Running, None);
        row.started_at.get_or_insert(now);
        self.event(EventType::AttemptLeased, Some(&id), Some(n), json!({}));
        self.event(EventType::AttemptRunning, Some(&id), Some(n), json!({}));
        let run = &mut self.state.run;
        (run.status, run.pending_reason) = (RunStatus::Running, None);
        if run.started_at.is_none() {
            run.started_at = Some(now);
            self.event(EventType::RunRunning, None, None, json!({}));
        }
    }

    /// Ends the attempt of a step that is at work.
    fn end(&mut self, step: usize, status: AttemptStatus, code: Option<FailureCode>, used: u64) {
        let (now, id, n) = (self.now, self.id(step), self.state.steps[step].attempt);
        let attempt = self.last(step);
        (attempt.status, attempt.finished_at, attempt.failure_code, attempt.usage) = (status, Some(now), code, cost(used));
        attempt.error = (status != AttemptStatus::Completed).then(|| "why".to_owned());
        let row = &mut self.state.steps[step];
        row.usage = row.usage.plus(&cost(used));
        self.state.run.usage = self.state.run.usage.plus(&cost(used));
        let kind = match status {
            AttemptStatus::Completed => EventType::AttemptCompleted,
            AttemptStatus::Failed => EventType::AttemptFailed,
            AttemptStatus::Killed => EventType::AttemptKilled,
            _ => EventType::AttemptLost,
        };
        let data = if status == AttemptStatus::Lost { json!({"cause": "lease_ended"}) } else { json!({}) };
        self.event(kind, Some(&id), Some(n), data);
    }

    fn end_step(&mut self, step: usize, status: StepStatus, code: Option<FailureCode>) {
        let (now, id) = (self.now, self.id(step));
        let row = &mut self.state.steps[step];
        (row.status, row.pending_reason, row.claimable_at, row.finished_at, row.failure_code) = (status, None, None, Some(now), code);
        let kind = match status {
            StepStatus::Completed => EventType::StepCompleted,
            StepStatus::Failed => EventType::StepFailed,
            StepStatus::Killed => EventType::StepKilled,
            _ => EventType::StepSkipped,
        };
        self.event(kind, Some(&id), None, json!({}));
    }

    fn end_run(&mut self, status: RunStatus, code: Option<FailureCode>) {
        let run = &mut self.state.run;
        (run.status, run.pending_reason, run.finished_at, run.failure_code) = (status, None, Some(self.now), code);
        run.error = code.map(|code| RunError { code, message: "why".to_owned(), step: None });
        run.slots[0].held = false;
        self.state.timer = None;
        let mut data = json!({"status": status, "usage": run.usage});
        if let Some(code) = code {
            data["failure_code"] = json!(code);
        }
        let kind = match status {
            RunStatus::Completed => EventType::RunCompleted,
            RunStatus::Failed => EventType::RunFailed,
            _ => EventType::RunKilled,
        };
        self.event(kind, None, None, data);
        self.event(EventType::WorkspaceRemoved, None, None, json!({"generation": 1}));
    }

    fn later(&mut self, seconds: i64) {
        self.now += TimeDelta::seconds(seconds);
    }
}

/// Lost once, failed once, then well; every attempt used something.
pub(super) fn completed() -> Sample {
    let mut s = accepted();
    s.lease(0);
    s.start(0);
    s.later(21);
    s.end(0, AttemptStatus::Lost, Some(FailureCode::LostExecutor), 3);
    s.claimable(0);
    s.lease(0);
    s.start(0);
    s.later(1);
    s.end(0, AttemptStatus::Failed, Some(FailureCode::ExitCode), 5);
    let build = s.id(0);
    s.event(EventType::StepRetrying, Some(&build), None, json!({}));
    s.later(1);
    s.claimable(0);
    s.lease(0);
    s.start(0);
    s.later(1);
    s.end(0, AttemptStatus::Completed, None, 7);
    s.end_step(0, StepStatus::Completed, None);
    s.claimable(1);
    s.lease(1);
    s.start(1);
    s.later(1);
    s.end(1, AttemptStatus::Completed, None, 11);
    s.end_step(1, StepStatus::Completed, None);
    s.end_run(RunStatus::Completed, None);
    s
}

/// The first step failed, the second was skipped.
pub(super) fn failed() -> Sample {
    let mut s = accepted();
    s.lease(0);
    s.start(0);
    s.later(1);
    s.end(0, AttemptStatus::Failed, Some(FailureCode::ExitCode), 5);
    s.end_step(0, StepStatus::Failed, Some(FailureCode::ExitCode));
    s.end_step(1, StepStatus::Skipped, None);
    s.end_run(RunStatus::Failed, Some(FailureCode::ExitCode));
    s
}

/// Killed while the first step was at work.
pub(super) fn killed() -> Sample {
    let mut s = accepted();
    s.lease(0);
    s.start(0);
    s.later(1);
    s.state.run.kill = Some(Kill { at: s.now, by: "someone".to_owned(), reason: None, force: false, failure: None });
    s.event(EventType::RunKillRequested, None, None, json!({}));
    s.end_step(1, StepStatus::Killed, None);
    s.later(1);
    s.end(0, AttemptStatus::Killed, None, 2);
    s.end_step(0, StepStatus::Killed, None);
    s.end_run(RunStatus::Killed, None);
    s
}

/// The first step is at work.
pub(super) fn running() -> Sample {
    let mut s = accepted();
    s.lease(0);
    s.start(0);
    s.later(3);
    s
}

/// The first step waits for an executor.
pub(super) fn waiting() -> Sample {
    accepted()
}
