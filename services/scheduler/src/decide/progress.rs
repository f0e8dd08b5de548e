//! What follows from the states of the steps: which become claimable or are skipped, and what the run is.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use hopyard_contract::condition;
use hopyard_contract::event::EventType;
use hopyard_contract::plan::Work;
use hopyard_contract::run::{Kill, RunError, WorkspaceStatus};
use hopyard_contract::status::{FailureCode, PausedReason, PendingReason, RunStatus, StepStatus};
use hopyard_contract::submit::AfterPolicy;
use hopyard_contract::{Name, RunId};
use serde_json::json;

use super::scope::View;
use super::{Change, Effect};

impl Change {
    /// Opens and closes steps until nothing more follows, then sets the run's status.
    pub(super) fn progress(&mut self) {
        if self.state.run.status.is_final() {
            return;
        }
        if self.state.run.kill.is_some() {
            self.kill_waiting_steps();
        } else if self.gate().is_none() {
            while (0..self.state.steps.len()).any(|index| self.open_step(index)) {}
        }
        if self.state.steps.iter().all(|s| s.status.is_final()) {
            self.finish_run();
        } else {
            self.set_status();
        }
    }

    /// Why no step may start yet.
    fn gate(&self) -> Option<PendingReason> {
        let run = &self.state.run;
        if !run.after_open.is_empty() {
            Some(PendingReason::AwaitingDependencies)
        } else if run.start_at.is_some_and(|at| at > self.now) {
            Some(PendingReason::AwaitingSchedule)
        } else {
            None
        }
    }

    /// Takes note of runs that have ended since, and applies the policy for those that did not complete.
    pub(super) fn look_at_parents(&mut self, parents: &HashMap<RunId, RunStatus>) {
        let run = &mut self.state.run;
        if run.after_open.is_empty() || run.kill.is_some() {
            return;
        }
        run.after_open.retain(|id| parents.get(id).is_none_or(|status| !status.is_final()));
        let bad: Vec<RunId> =
            run.after.iter().copied().filter(|id| parents.get(id).is_some_and(|s| s.is_final() && *s != RunStatus::Completed)).collect();
        let Some(first) = bad.first() else { return };
        let failure = match run.after_policy {
            AfterPolicy::RunAnyway => return,
            AfterPolicy::Skip => None,
            AfterPolicy::Fail => Some(FailureCode::DependencyFailed),
        };
        run.after_open.clear();
        run.kill =
            Some(Kill { at: self.now, by: "hopyard".to_owned(), reason: Some("dependency_failed".to_owned()), force: false, failure });
        if failure.is_some() {
            run.error =
                Some(RunError { code: FailureCode::DependencyFailed, message: format!("the run {first} did not complete"), step: None });
        }
        self.event(EventType::RunKillRequested, None, None, json!({"by": "hopyard", "reason": "dependency_failed", "run_ids": bad}));
    }

    /// Makes a step claimable or skips it once everything it needs has ended; says whether anything changed.
    fn open_step(&mut self, index: usize) -> bool {
        let state = &self.state;
        let Some(step) = state.steps.get(index) else { return false };
        if step.status != StepStatus::Pending || step.pending_reason != Some(PendingReason::AwaitingDependencies) {
            return false;
        }
        let Some(spec) = state.plan.step(step.id.as_str()) else { return false };
        if !spec.needs.iter().filter_map(|n| state.step(n.as_str())).all(|s| s.status.is_final()) {
            return false;
        }
        if let Work::BestOf(best_of) = &spec.work {
            let best_of = best_of.clone();
            self.choose(index, &best_of);
            return true;
        }
        if self.state.run.replay && matches!(spec.work, Work::Deliver(_)) {
            let id = self.state.steps[index].id.clone();
            self.end_step(index, StepStatus::Skipped);
            self.event(EventType::StepSkipped, Some(&id), None, json!({"reason": "a replay delivers nothing"}));
            return true;
        }
        let view = View { state, step: Some(spec) };
        let text = spec.condition.clone().unwrap_or_else(|| "completed()".to_owned());
        // A condition without one of the three calls asks for its needs to be completed as well, as in every such language.
        let holds = match condition::parse(&text) {
            Ok(expr) => expr.holds(&view) && (expr.has_call() || condition::Scope::call(&view, condition::Call::Completed)),
            Err(_) => false,
        };
        let id = &self.state.steps[index].id;
        if holds && self.state.run.replay && spec.work.asks_models() && !self.state.run.recordings.contains_key(id) {
            let detail = format!("nothing was recorded of `{id}` in the run that this one plays, and a replay asks no model");
            self.fail_step(index, FailureCode::PlanError, &detail);
        } else if holds && matches!(spec.work, Work::Approval(_)) {
            self.ask_approval(index);
        } else if holds {
            self.make_claimable(index, PendingReason::AwaitingExecutor, self.now);
        } else {
            let id = self.state.steps[index].id.clone();
            self.end_step(index, StepStatus::Skipped);
            self.event(EventType::StepSkipped, Some(&id), None, json!({"if": text}));
        }
        true
    }

    /// Lets executors claim a step from `at` on.
    pub(super) fn make_claimable(&mut self, index: usize, reason: PendingReason, at: DateTime<Utc>) {
        let bound = self.state.run.executor.clone();
        let step = &mut self.state.steps[index];
        step.status = StepStatus::Pending;
        step.pending_reason = Some(reason);
        step.paused_reason = None;
        step.resume_at = None;
        step.claimable_at = Some(at);
        step.queued_at = (reason == PendingReason::AwaitingExecutor).then(|| step.queued_at.unwrap_or(at));
        step.bound_to = bound;
        let (id, pool, attempt) = (step.id.clone(), step.pool.clone(), step.attempt + 1);
        if at <= self.now {
            self.ring(index);
            self.event(EventType::StepClaimable, Some(&id), None, json!({"pool": pool, "attempt": attempt}));
        }
    }

    /// Holds a step still, until then or until someone lets it go on.
    pub(super) fn pause(&mut self, index: usize, reason: PausedReason, until: Option<DateTime<Utc>>) {
        let step = &mut self.state.steps[index];
        step.status = StepStatus::Paused;
        step.pending_reason = None;
        step.paused_reason = Some(reason);
        step.claimable_at = None;
        step.resume_at = until;
        step.queued_at = None;
        let id = step.id.clone();
        let question = step.question.as_ref().filter(|_| matches!(reason, PausedReason::Approval | PausedReason::Question));
        let data = json!({"paused_reason": reason, "resume_at": until.map(hopyard_contract::time::format), "question": question});
        self.event(EventType::StepPaused, Some(&id), None, data);
    }

    /// Tells whoever may claim the step.
    pub(super) fn ring(&mut self, index: usize) {
        let step = &self.state.steps[index];
        self.effects.push(match &step.bound_to {
            Some(executor) => Effect::RingExecutor(executor.clone()),
            None => Effect::Ring(step.pool.clone()),
        });
    }

    /// Ends a step; the caller records the event.
    pub(super) fn end_step(&mut self, index: usize, status: StepStatus) {
        let step = &mut self.state.steps[index];
        step.status = status;
        step.pending_reason = None;
        step.paused_reason = None;
        step.resume_at = None;
        step.claimable_at = None;
        step.queued_at = None;
        step.finished_at = Some(self.now);
    }

    /// Ends a step badly; the first one to do so gives the run its code.
    pub(super) fn fail_step(&mut self, index: usize, code: FailureCode, message: &str) {
        self.end_step(index, StepStatus::Failed);
        let step = &mut self.state.steps[index];
        step.failure_code = Some(code);
        step.error = Some(message.to_owned());
        let id: Name = step.id.clone();
        // A variant that fails has lost, which is no failure of its run.
        if self.state.run.error.is_none() && self.state.variant_of(id.as_str()).is_none() {
            self.state.run.error = Some(RunError { code, message: message.to_owned(), step: Some(id.clone()) });
        }
        self.event(EventType::StepFailed, Some(&id), None, json!({"failure_code": code, "error": message}));
    }

    /// A cancelled run starts nothing any more.
    fn kill_waiting_steps(&mut self) {
        for index in 0..self.state.steps.len() {
            let step = &self.state.steps[index];
            let waits =
                matches!(step.status, StepStatus::Pending | StepStatus::Paused) && step.pending_reason != Some(PendingReason::Starting);
            if waits {
                let id = step.id.clone();
                self.end_step(index, StepStatus::Killed);
                self.event(EventType::StepKilled, Some(&id), None, json!({}));
            }
        }
    }

    /// Running while at least one step is; else paused; else pending with the reason nearest to a start.
    fn set_status(&mut self) {
        let steps = &self.state.steps;
        let status = if steps.iter().any(|s| s.status == StepStatus::Running) {
            RunStatus::Running
        } else if steps.iter().any(|s| s.status == StepStatus::Paused) {
            RunStatus::Paused
        } else {
            RunStatus::Pending
        };
        let reason = || {
            const NEAREST_FIRST: [PendingReason; 7] = [
                PendingReason::Starting,
                PendingReason::AwaitingWorkspace,
                PendingReason::AwaitingExecutor,
                PendingReason::AwaitingSlot,
                PendingReason::RetryBackoff,
                PendingReason::AwaitingBudget,
                PendingReason::AwaitingDependencies,
            ];
            let has = |reason: &PendingReason| steps.iter().any(|s| s.status == StepStatus::Pending && s.pending_reason == Some(*reason));
            self.gate().or_else(|| NEAREST_FIRST.into_iter().find(has))
        };
        let pending_reason = if status == RunStatus::Pending { reason() } else { None };
        let paused_reason = if status == RunStatus::Paused { steps.iter().find_map(|s| s.paused_reason) } else { None };
        let before = self.state.run.status;
        let run = &mut self.state.run;
        run.status = status;
        run.pending_reason = pending_reason;
        run.paused_reason = paused_reason;
        if before == RunStatus::Paused && status != RunStatus::Paused {
            let data = json!({"by": self.resumed_by.take()});
            self.event(EventType::RunResumed, None, None, data);
        }
        let run = &mut self.state.run;
        match (before, status) {
            (RunStatus::Running, RunStatus::Running) | (RunStatus::Paused, RunStatus::Paused) | (_, RunStatus::Pending) => {}
            (_, RunStatus::Running) => {
                let first = run.started_at.is_none();
                if first {
                    run.started_at = Some(self.now);
                    run.deadline = run.budget.as_ref().and_then(|b| b.time).map(|time| self.now + time.delta());
                    self.event(EventType::RunRunning, None, None, json!({}));
                }
            }
            (_, RunStatus::Paused) => {
                let resume_at = self.state.steps.iter().filter_map(|s| s.resume_at).min();
                let data = json!({"paused_reason": paused_reason, "resume_at": resume_at.map(hopyard_contract::time::format)});
                self.event(EventType::RunPaused, None, None, data);
            }
            (_, RunStatus::Completed | RunStatus::Failed | RunStatus::Killed) => {}
        }
    }

    /// Everything has ended: one commit holds status, usage, result and time.
    fn finish_run(&mut self) {
        let failed = self.state.steps.iter().any(|s| s.status == StepStatus::Failed && self.state.variant_of(s.id.as_str()).is_none());
        let run = &mut self.state.run;
        // A kill that was committed before this moment wins over a good end; the result is kept either way.
        run.status = match &run.kill {
            Some(Kill { failure: None, .. }) => RunStatus::Killed,
            Some(Kill { failure: Some(code), reason, .. }) => {
                let message = reason.clone().unwrap_or_default();
                // A step that failed before gives the code: the first failure counts.
                run.error.get_or_insert(RunError { code: *code, message, step: None });
                RunStatus::Failed
            }
            None if failed => RunStatus::Failed,
            None => RunStatus::Completed,
        };
        match run.status {
            RunStatus::Failed => run.failure_code = run.error.as_ref().map(|e| e.code),
            _ => run.error = None,
        }
        run.pending_reason = None;
        run.paused_reason = None;
        run.finished_at = Some(self.now);
        run.deadline = None;
        let freed = run.slots.iter().any(|slot| slot.held);
        run.slots.iter_mut().for_each(|slot| slot.held = false);
        let duration_ms = run.started_at.map(|at| (self.now - at).num_milliseconds().max(0));
        let kind = match run.status {
            RunStatus::Completed => EventType::RunCompleted,
            RunStatus::Killed => EventType::RunKilled,
            _ => EventType::RunFailed,
        };
        let data = json!({
            "status": run.status, "failure_code": run.failure_code, "usage": run.usage, "duration_ms": duration_ms, "workflow": run.workflow,
            "repo": run.repo.as_ref().map(|r| r.url.clone()), "branch": run.result.as_ref().map(|r| r.branch.clone()),
            "killed_by": run.kill.as_ref().filter(|k| k.failure.is_none()).map(|k| k.by.clone()),
            "kill_reason": run.kill.as_ref().filter(|k| k.failure.is_none()).and_then(|k| k.reason.clone()),
        });
        self.event(kind, None, None, data);
        if freed {
            self.effects.push(Effect::SlotFreed);
        }
        self.release_workspaces();
    }

    /// The run needs its workspaces no more: a persistent one is kept, others may be removed.
    fn release_workspaces(&mut self) {
        for mut row in self.workspace_rows() {
            row.status = if row.session.is_some() { WorkspaceStatus::Kept } else { WorkspaceStatus::Reclaimable };
            self.effects.push(Effect::Workspace(Box::new(row)));
        }
    }
}
