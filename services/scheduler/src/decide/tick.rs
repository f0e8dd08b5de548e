//! What time brings: leases that ran out, backoffs that passed, limits, starts, lost executors.

use hopyard_contract::event::EventType;
use hopyard_contract::run::WorkspaceStatus;
use hopyard_contract::status::{AttemptStatus, FailureCode, PendingReason, StepStatus};
use serde_json::json;

use super::report::LostCause;
use super::{Change, Effect, LOST_LIMIT, Tick, UNSTARTED_LIMIT};

impl Change {
    /// Looks at everything that depends on the clock or on others.
    pub(super) fn on_tick(&mut self, tick: &Tick) {
        if self.state.run.status.is_final() {
            return;
        }
        self.look_at_parents(&tick.parents);
        if tick.may_expire {
            self.expire_leases();
        }
        if let Some(why) = tick.unbind {
            self.unbind(why);
        }
        if self.state.run.kill.is_none() && self.state.run.deadline.is_some_and(|at| at <= self.now) {
            self.on_deadline();
        }
        if self.state.run.kill.is_none() {
            self.end_waits();
            self.end_questions();
        }
        self.progress();
    }

    /// A step whose backoff or pause is over may be claimed again.
    fn end_waits(&mut self) {
        for index in 0..self.state.steps.len() {
            let step = &self.state.steps[index];
            let backoff = step.claimable_at.filter(|_| step.pending_reason == Some(PendingReason::RetryBackoff));
            let budget = step.claimable_at.filter(|_| step.pending_reason == Some(PendingReason::AwaitingBudget));
            if budget.is_some_and(|at| at <= self.now) {
                self.end_wait_for_budget(index);
            } else if backoff.or(step.resume_at).is_some_and(|at| at <= self.now) {
                self.make_claimable(index, PendingReason::AwaitingExecutor, self.now);
            }
        }
    }

    /// A step that waited for a new day is claimable again; its events know nothing of the wait.
    pub(super) fn end_wait_for_budget(&mut self, index: usize) {
        let step = &mut self.state.steps[index];
        (step.pending_reason, step.claimable_at) = (Some(PendingReason::AwaitingExecutor), Some(self.now));
        self.ring(index);
    }

    fn expire_leases(&mut self) {
        for index in 0..self.state.attempts.len() {
            let attempt = &self.state.attempts[index];
            if !attempt.status.is_final() && attempt.lease_until <= self.now {
                self.lose(index, LostCause::LeaseEnded);
            }
        }
    }

    /// The lease ran out, or its executor found the attempt dead: whatever still runs there counts no more.
    pub(super) fn lose(&mut self, index: usize, cause: LostCause) {
        self.announce(index);
        let now = self.now;
        let attempt = &mut self.state.attempts[index];
        let started = attempt.status == AttemptStatus::Running;
        attempt.status = AttemptStatus::Lost;
        attempt.finished_at.get_or_insert(now);
        attempt.failure_code = Some(FailureCode::LostExecutor);
        let message = format!("the executor {} went away or did not renew its lease in time", attempt.executor);
        attempt.error = Some(message.clone());
        let step_id = attempt.step.clone();
        self.lost_event(index, cause);
        let Some(step_index) = self.step_index(step_id.as_str()) else { return };
        let step = &mut self.state.steps[step_index];
        if started {
            step.lost += 1;
        } else {
            step.unstarted += 1;
        }
        let too_often = step.lost >= LOST_LIMIT || step.unstarted >= UNSTARTED_LIMIT;
        if self.state.run.kill.is_some() {
            self.end_step(step_index, StepStatus::Killed);
            self.event(EventType::StepKilled, Some(&step_id), None, json!({"failure_code": FailureCode::LostExecutor}));
        } else if too_often {
            self.fail_step(step_index, FailureCode::LostExecutor, &message);
        } else {
            self.make_claimable(step_index, PendingReason::AwaitingExecutor, self.now);
        }
    }

    /// The workspace cannot be counted on any more: the next claim makes another from the last kept work.
    fn unbind(&mut self, why: &str) {
        let Some(executor) = self.state.run.executor.clone() else { return };
        if self.state.live().any(|a| a.generation == self.state.run.generation) {
            return;
        }
        for mut row in self.workspace_rows() {
            row.status = WorkspaceStatus::Reclaimable;
            self.effects.push(Effect::Workspace(Box::new(row)));
        }
        let run = &mut self.state.run;
        let generation = run.generation;
        run.executor = None;
        run.host = None;
        run.workspace = None;
        self.event(
            EventType::WorkspaceSuperseded,
            None,
            None,
            json!({"generation": generation, "executor": executor, "reason": why, "note": "files that git ignores are gone; the next workspace starts from the last kept commit"}),
        );
        for index in 0..self.state.steps.len() {
            let step = &mut self.state.steps[index];
            if step.bound_to.take().is_some() && step.claimable_at.is_some_and(|at| at <= self.now) {
                self.ring(index);
            }
        }
    }
}
