//! What executors and janitors report about attempts: fenced by run, step, attempt and lease token.

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::event::EventType;
use hopyard_contract::message::{Finished, Outcome, Started, WorkspaceSaved};
use hopyard_contract::run::{Attempt, BlobRef, WorkspaceRow, WorkspaceStatus};
use hopyard_contract::status::{AttemptStatus, FailureCode, PausedReason, PendingReason, StepStatus};
use hopyard_contract::usage::{Tokens, Usage};
use serde::Serialize;
use serde_json::json;

use super::{Change, Effect, PAUSE_LIMIT};

/// Longest pause for a provider's limit: those of a week are waited for, those of a month are not.
const LONGEST_PAUSE: TimeDelta = TimeDelta::days(8);

/// How an attempt got lost; `cause` of its event.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LostCause {
    /// Its lease ran out.
    LeaseEnded,
    /// Its executor found it dead.
    Reported,
    /// Its executor gave it back.
    HandedBack,
}

impl Change {
    /// A process runs: the only word that makes a step and its run `running`.
    pub(super) fn on_started(&mut self, started: &Started) {
        match self.attempt_index(&started.attempt, started.token) {
            Some(index) if self.state.attempts[index].status == AttemptStatus::Leased => {
                self.start(index, started.pid, &started.workspace, started.before.as_ref(), started.at);
                self.progress();
            }
            Some(index) if self.state.attempts[index].status == AttemptStatus::Running => {}
            _ => self.effects.push(Effect::Stale("started")),
        }
    }

    fn start(&mut self, index: usize, pid: u32, path: &str, before: Option<&String>, at: DateTime<Utc>) {
        self.announce(index);
        let now = self.now;
        let attempt = &mut self.state.attempts[index];
        // The executor's clock is for people; it never reaches outside of what the store's clock saw.
        let at = at.min(now).max(attempt.leased_at);
        attempt.status = AttemptStatus::Running;
        attempt.pid = Some(pid);
        attempt.workspace = Some(path.to_owned());
        attempt.started_at = Some(at);
        let (step_id, n, executor, host, generation) =
            (attempt.step.clone(), attempt.n, attempt.executor.clone(), attempt.host.clone(), attempt.generation);
        if let Some(step_index) = self.step_index(step_id.as_str()) {
            let step = &mut self.state.steps[step_index];
            step.status = StepStatus::Running;
            step.pending_reason = None;
            step.started_at.get_or_insert(at);
            if step.before.is_none() {
                step.before = before.cloned();
            }
        }
        let variant = self.state.variant_of(step_id.as_str()).cloned();
        let first = match &variant {
            None => self.state.run.workspace.is_none(),
            Some(_) => self.state.attempts_in(variant.as_ref()).filter(|a| a.workspace.is_some()).count() == 1,
        };
        if generation > 0 && first && generation == self.state.run.generation {
            if variant.is_none() {
                self.state.run.workspace = Some(path.to_owned());
            }
            if let Some(row) = self.workspace_row(variant.as_ref()) {
                self.effects.push(Effect::Workspace(Box::new(row)));
            }
            let data = json!({"generation": generation, "variant": variant, "path": path, "host": host, "executor": executor,
                "commit": self.state.run.commit});
            self.event(EventType::WorkspaceCreated, None, None, data);
        }
        self.event(
            EventType::AttemptRunning,
            Some(&step_id),
            Some(n),
            json!({"executor": executor, "host": host, "pid": pid, "workspace": path}),
        );
    }

    /// A lease alone makes no page: it is told with the next thing that happens to the attempt.
    pub(super) fn announce(&mut self, index: usize) {
        let attempt = &mut self.state.attempts[index];
        if std::mem::replace(&mut attempt.announced, true) {
            return;
        }
        let (step, n, executor, at) = (attempt.step.clone(), attempt.n, attempt.executor.clone(), attempt.leased_at);
        self.event(
            EventType::AttemptLeased,
            Some(&step),
            Some(n),
            json!({"executor": executor, "leased_at": hopyard_contract::time::format(at)}),
        );
    }

    /// An attempt is over and its work is kept.
    pub(super) fn on_finished(&mut self, finished: &Finished) {
        let Some(index) = self.attempt_index(&finished.attempt, finished.token) else {
            self.effects.push(Effect::Stale("finished"));
            return;
        };
        let executor = self.state.attempts[index].executor.clone();
        match self.state.attempts[index].status {
            AttemptStatus::Leased | AttemptStatus::Running => {}
            AttemptStatus::Lost => {
                self.late_usage(index, &finished.usage);
                self.effects.push(Effect::Stale("finished"));
                return;
            }
            // A repeat: its answer got lost.
            AttemptStatus::Completed | AttemptStatus::Failed | AttemptStatus::Killed => {
                self.effects.push(Effect::Settled(executor, finished.attempt.clone()));
                return;
            }
        }
        if let (AttemptStatus::Leased, Some(pid)) = (self.state.attempts[index].status, finished.pid) {
            let path = finished.workspace.clone().unwrap_or_default();
            self.start(index, pid, &path, finished.before.as_ref(), finished.started_at.unwrap_or(self.now));
            self.mark_started();
        }
        self.announce(index);
        self.keep_facts(index, finished);
        self.effects.push(Effect::Settled(executor, finished.attempt.clone()));
        let Some(step_index) = self.step_index(finished.attempt.step.as_str()) else { return };
        match &finished.outcome {
            Outcome::Completed => self.complete(index, step_index, finished),
            Outcome::Failed { code, message } => self.fail(index, step_index, *code, message),
            Outcome::Limited { reason, until, message } => {
                self.limit(index, step_index, *reason, *until - finished.finished_at, message);
            }
            Outcome::Asked { question } => self.ask_question(index, step_index, question),
            Outcome::Killed if self.state.run.kill.is_some() => self.kill_attempt(index, step_index),
            // Ended without anybody having asked for it: the executor's own doing, so that it counts against nothing.
            Outcome::Killed | Outcome::HandedBack => self.hand_back(index, step_index),
            Outcome::Lost => self.lose(index, LostCause::Reported),
        }
        self.progress();
    }

    /// `finished` without `started` implies it: the run was running in between.
    fn mark_started(&mut self) {
        self.progress();
    }

    fn keep_facts(&mut self, index: usize, finished: &Finished) {
        let now = self.now;
        let attempt = &mut self.state.attempts[index];
        attempt.finished_at = Some(finished.finished_at.min(now).max(attempt.started_at.unwrap_or(attempt.leased_at)));
        attempt.exit_code = finished.exit_code;
        attempt.signal = finished.signal;
        attempt.usage = attempt.usage.settled_by(&finished.usage);
        attempt.log_bytes = finished.log_bytes;
        attempt.log = finished.log.clone();
        attempt.record = finished.record.clone();
        attempt.snapshot = finished.snapshot.clone();
        attempt.note = finished.note.clone();
        if let Some(result) = &finished.result {
            let variant = self.state.variant_of(finished.attempt.step.as_str()).is_some();
            match self.state.steps.iter_mut().find(|step| variant && step.id == finished.attempt.step) {
                Some(step) => step.result = Some(result.clone()),
                None => self.state.run.result = Some(result.clone()),
            }
        }
        self.sum_usage();
    }

    fn complete(&mut self, index: usize, step_index: usize, finished: &Finished) {
        self.state.attempts[index].status = AttemptStatus::Completed;
        self.attempt_event(EventType::AttemptCompleted, index);
        self.state.steps[step_index].outputs = finished.outputs.clone();
        self.end_step(step_index, StepStatus::Completed);
        let step = &self.state.steps[step_index];
        let (id, data) = (step.id.clone(), json!({"outputs": step.outputs, "usage": step.usage}));
        self.event(EventType::StepCompleted, Some(&id), None, data);
    }

    fn fail(&mut self, index: usize, step_index: usize, code: FailureCode, message: &str) {
        let attempt = &mut self.state.attempts[index];
        attempt.status = AttemptStatus::Failed;
        attempt.failure_code = Some(code);
        attempt.error = Some(message.to_owned());
        self.attempt_event(EventType::AttemptFailed, index);
        self.state.steps[step_index].failures += 1;
        if self.state.run.kill.is_some() {
            let id = self.state.steps[step_index].id.clone();
            self.end_step(step_index, StepStatus::Killed);
            self.event(EventType::StepKilled, Some(&id), None, json!({"failure_code": code}));
            return;
        }
        let failures = self.state.steps[step_index].failures;
        let retry = self.state.plan.step(self.state.steps[step_index].id.as_str()).and_then(|s| s.retry.clone());
        let asked = |on: &Option<Vec<FailureCode>>| on.as_ref().map_or_else(|| by_default(code), |codes| codes.contains(&code));
        let again = retry.filter(|r| failures < r.max_attempts && asked(&r.on) && may_retry(code));
        match again {
            Some(retry) => {
                let wait = retry.backoff.after(failures);
                let at = self.now + wait.delta();
                self.make_claimable(step_index, PendingReason::RetryBackoff, at);
                let id = self.state.steps[step_index].id.clone();
                self.event(EventType::StepRetrying, Some(&id), None, json!({"failure_code": code, "failures": failures, "max_attempts": retry.max_attempts, "at": hopyard_contract::time::format(at)}));
            }
            None => self.fail_step(step_index, code, message),
        }
    }

    /// A limit of its models ended the attempt: its step waits, and then goes on where it was, unless it has waited too often or
    /// would have to wait too long. The wait is counted from here: the executor's clock may be another one.
    fn limit(&mut self, index: usize, step_index: usize, reason: PausedReason, wait: TimeDelta, message: &str) {
        let (reason, code) = match reason {
            PausedReason::Budget => (reason, FailureCode::BudgetExceeded),
            _ => (PausedReason::UsageLimit, FailureCode::UsageLimitExhausted),
        };
        let had_a_turn = self.state.attempts[index].usage.turns > 0;
        let pauses = if had_a_turn { 1 } else { self.state.steps[step_index].pauses + 1 };
        let why_not = if pauses > PAUSE_LIMIT {
            Some(format!("the step was paused {PAUSE_LIMIT} times without a turn in between"))
        } else {
            (wait > LONGEST_PAUSE).then(|| "that is longer than a step is paused".to_owned())
        };
        let goes_on = why_not.is_none() && self.state.run.kill.is_none();
        let attempt = &mut self.state.attempts[index];
        attempt.status = AttemptStatus::Failed;
        attempt.failure_code = Some(code);
        attempt.error = Some(message.to_owned());
        self.attempt_event(EventType::AttemptFailed, index);
        let step = &mut self.state.steps[step_index];
        if goes_on {
            step.pauses = pauses;
            self.keep_for_later(index, step_index);
            self.pause(step_index, reason, Some(self.now + wait.max(TimeDelta::zero())));
            return;
        }
        step.failures += 1;
        let id = step.id.clone();
        match why_not.filter(|_| self.state.run.kill.is_none()) {
            Some(why_not) => self.fail_step(step_index, code, &format!("{message}; {why_not}")),
            None => {
                self.end_step(step_index, StepStatus::Killed);
                self.event(EventType::StepKilled, Some(&id), None, json!({"failure_code": code}));
            }
        }
    }

    /// What an attempt did before its step was paused is what later ones begin with, also when the very next one is lost.
    pub(super) fn keep_for_later(&mut self, index: usize, step_index: usize) {
        let attempt = &mut self.state.attempts[index];
        attempt.paused = true;
        if let Some(snapshot) = attempt.snapshot.clone() {
            self.state.steps[step_index].before = Some(snapshot);
        }
    }

    pub(super) fn kill_attempt(&mut self, index: usize, step_index: usize) {
        let kill = self.state.run.kill.as_ref();
        let reason = kill.map(|k| format!("killed by {}{}", k.by, k.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default()));
        let attempt = &mut self.state.attempts[index];
        attempt.status = AttemptStatus::Killed;
        attempt.error = reason;
        self.attempt_event(EventType::AttemptKilled, index);
        let id = self.state.steps[step_index].id.clone();
        self.end_step(step_index, StepStatus::Killed);
        self.event(EventType::StepKilled, Some(&id), None, json!({}));
    }

    fn hand_back(&mut self, index: usize, step_index: usize) {
        let attempt = &mut self.state.attempts[index];
        attempt.status = AttemptStatus::Lost;
        attempt.error = Some(format!("the executor {} gave the attempt back", attempt.executor));
        self.lost_event(index, LostCause::HandedBack);
        if self.state.run.kill.is_some() {
            let id = self.state.steps[step_index].id.clone();
            self.end_step(step_index, StepStatus::Killed);
            self.event(EventType::StepKilled, Some(&id), None, json!({}));
        } else {
            self.make_claimable(step_index, PendingReason::AwaitingExecutor, self.now);
        }
    }

    pub(super) fn attempt_event(&mut self, kind: EventType, index: usize) {
        self.event_of_attempt(kind, index, None);
    }

    /// The end of an attempt that nobody carries on.
    pub(super) fn lost_event(&mut self, index: usize, cause: LostCause) {
        self.event_of_attempt(EventType::AttemptLost, index, Some(cause));
    }

    fn event_of_attempt(&mut self, kind: EventType, index: usize, cause: Option<LostCause>) {
        let attempt = &self.state.attempts[index];
        let duration_ms = attempt.started_at.zip(attempt.finished_at).map(|(a, b)| (b - a).num_milliseconds().max(0));
        let data = json!({
            "executor": attempt.executor, "host": attempt.host, "exit_code": attempt.exit_code, "signal": attempt.signal, "failure_code": attempt.failure_code,
            "error": attempt.error, "usage": attempt.usage, "log_bytes": attempt.log_bytes, "snapshot": attempt.snapshot, "duration_ms": duration_ms,
            "cause": cause, "note": attempt.note,
        });
        let (step, n) = (attempt.step.clone(), attempt.n);
        self.event(kind, Some(&step), Some(n), data);
    }

    /// One ledger: a step's usage is the sum of its attempts', a run's the sum of its steps'.
    pub(super) fn sum_usage(&mut self) {
        let mut total = Usage::default();
        for step in &mut self.state.steps {
            step.usage = self.state.attempts.iter().filter(|a| a.step == step.id).fold(Usage::default(), |sum, a| sum.plus(&a.usage));
            total = total.plus(&step.usage);
        }
        if !self.state.run.status.is_final() {
            self.state.run.usage = total;
        }
    }

    /// Money is never refused: what a lost attempt used counts while the run is open, and apart afterwards.
    pub(super) fn late_usage(&mut self, index: usize, usage: &Usage) {
        let attempt = &mut self.state.attempts[index];
        let before = attempt.usage;
        let after = before.max(usage);
        if after == before {
            return;
        }
        if self.state.run.status.is_final() {
            let late = self.state.run.late_usage.get_or_insert_default();
            *late = late.max(&beyond(&after, &before));
        } else {
            attempt.usage = after;
            self.sum_usage();
        }
    }

    /// The janitor kept what a lost attempt left behind.
    pub(super) fn on_saved(&mut self, saved: &WorkspaceSaved) {
        let ours = saved.attempt.run == self.state.run.id;
        let lost = |a: &&Attempt| ours && a.n == saved.attempt.n && a.step == saved.attempt.step && a.status == AttemptStatus::Lost;
        let Some(index) = self.state.attempts.iter().position(|a| lost(&a)) else { return };
        self.late_usage(index, &saved.usage);
        let attempt = &mut self.state.attempts[index];
        // A repeat, or nothing to keep.
        if (attempt.snapshot.is_some() || saved.snapshot.is_none()) && (attempt.log.is_some() || saved.log.is_none()) {
            return;
        }
        attempt.snapshot = attempt.snapshot.take().or_else(|| saved.snapshot.clone());
        attempt.log = attempt.log.take().or_else(|| saved.log.clone());
        attempt.log_bytes = attempt.log_bytes.max(saved.log_bytes);
        let digest = |blob: &Option<BlobRef>| blob.as_ref().map(|b| b.digest.clone());
        let data = json!({"snapshot": saved.snapshot, "log": digest(&saved.log), "bundle": digest(&saved.bundle)});
        self.event(EventType::WorkspaceSaved, Some(&saved.attempt.step), Some(saved.attempt.n), data);
    }

    /// A workspace is gone.
    pub(super) fn on_removed(&mut self, row: &WorkspaceRow, reason: &str) {
        if row.status == WorkspaceStatus::Removed {
            return;
        }
        let mut gone = row.clone();
        gone.status = WorkspaceStatus::Removed;
        gone.removed_at = Some(self.now);
        self.event(
            EventType::WorkspaceRemoved,
            None,
            None,
            json!({"generation": gone.generation, "path": gone.path, "host": gone.host, "bytes": gone.bytes, "reason": reason}),
        );
        self.effects.push(Effect::Workspace(Box::new(gone)));
    }
}

/// What was used since: the earlier part is in the run's usage already. An unknown cost stays unknown.
fn beyond(after: &Usage, before: &Usage) -> Usage {
    let tokens = Tokens {
        input: after.tokens.input.saturating_sub(before.tokens.input),
        output: after.tokens.output.saturating_sub(before.tokens.output),
        cache_read: after.tokens.cache_read.saturating_sub(before.tokens.cache_read),
        cache_write: after.tokens.cache_write.saturating_sub(before.tokens.cache_write),
    };
    Usage {
        cost_microusd: after.cost_microusd.zip(before.cost_microusd).map(|(after, before)| after.saturating_sub(before)),
        tokens,
        turns: after.turns.saturating_sub(before.turns),
        tool_calls: after.tool_calls.saturating_sub(before.tool_calls),
    }
}

/// An absent repository or ref is as absent at the next try: it is tried again only where `on` names it.
fn by_default(code: FailureCode) -> bool {
    code != FailureCode::WorkspaceError
}

/// What a plan, a policy or a budget forbids does not get better by trying again.
fn may_retry(code: FailureCode) -> bool {
    !matches!(code, FailureCode::PolicyDenied | FailureCode::PlanError | FailureCode::BudgetExceeded)
}
