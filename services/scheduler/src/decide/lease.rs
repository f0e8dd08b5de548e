//! Claims, renewals and pins: the right of one executor to one attempt.

use hopyard_contract::duration::Span;
use hopyard_contract::event::EventType;
use hopyard_contract::id::WorkspaceId;
use hopyard_contract::message::{LeaseState, Pin, PinReply, RenewAnswer, Renewal};
use hopyard_contract::plan::WorkspaceMode;
use hopyard_contract::run::{Attempt, WorkspaceRow, WorkspaceStatus};
use hopyard_contract::status::{AttemptStatus, PendingReason, StepStatus};
use hopyard_contract::{Name, Usage};
use serde_json::json;

use super::{Change, Effect, Lease, Reply};

impl Change {
    /// Leases a step, if it still can be claimed by this executor.
    pub(super) fn on_lease(&mut self, lease: &Lease) {
        self.reply = Reply::NotClaimable;
        self.purse = lease.purse;
        let Some(index) = self.step_index(lease.step.as_str()) else { return };
        let step = &self.state.steps[index];
        let claimable = step.status == StepStatus::Pending && step.claimable_at.is_some_and(|at| at <= self.now);
        let ours = step.bound_to.as_ref().is_none_or(|executor| *executor == lease.executor);
        if !claimable || !ours || self.state.run.kill.is_some() || self.state.run.status.is_final() {
            return;
        }
        if self.out_of_budget(index) {
            return;
        }
        for slot in &mut self.state.run.slots {
            slot.held = true;
        }
        let own_workspace = self.state.plan.workspace.mode != WorkspaceMode::None;
        if own_workspace && self.state.run.executor.is_none() {
            self.bind(lease);
        }
        let generation = if own_workspace { self.state.run.generation } else { 0 };
        let pays = super::budget::pays(&self.state, lease.step.as_str());
        let step = &mut self.state.steps[index];
        step.attempt += 1;
        step.claimable_at = None;
        step.pending_reason = Some(PendingReason::Starting);
        let n = step.attempt;
        self.state.attempts.push(Attempt {
            step: lease.step.clone(),
            n,
            status: AttemptStatus::Leased,
            paused: false,
            note: None,
            executor: lease.executor.clone(),
            host: lease.host.clone(),
            token: lease.token,
            claim_id: lease.claim_id,
            lease_until: self.now + lease.length.delta(),
            leased_at: self.now,
            announced: false,
            started_at: None,
            finished_at: None,
            pid: None,
            workspace: None,
            generation,
            exit_code: None,
            signal: None,
            failure_code: None,
            error: None,
            usage: Usage::default(),
            allowance_microusd: None,
            log_bytes: 0,
            log: None,
            record: None,
            snapshot: None,
        });
        if pays {
            self.allow(self.state.attempts.len() - 1);
        }
        self.list_variant(lease.step.as_str());
        self.progress();
        if let Some(grant) = super::grant::grant(&self.state, lease.step.as_str(), n, lease.length, self.purse.as_ref()) {
            self.reply = Reply::Granted(Box::new(grant));
        }
    }

    /// The run belongs to this executor as long as its workspace lives.
    fn bind(&mut self, lease: &Lease) {
        let run = &mut self.state.run;
        run.generation += 1;
        run.executor = Some(lease.executor.clone());
        run.host = Some(lease.host.clone());
        run.workspace = None;
        for step in self.state.steps.iter_mut().filter(|s| s.claimable_at.is_some()) {
            step.bound_to = Some(lease.executor.clone());
        }
        if let Some(row) = self.workspace_row(None) {
            self.effects.push(Effect::Workspace(Box::new(row)));
        }
        if self.state.run.generation == 1 {
            self.state.run.restore = lease.session_work.clone();
        }
        // A named session moves its one workspace from run to run: the row of the run before gives way. Directories of
        // sessions belong to one executor, so any other makes a new one from the kept work.
        if let Some(earlier) = &lease.session_workspace
            && earlier.run_id != self.state.run.id
        {
            let mut row = earlier.clone();
            let elsewhere = row.executor != lease.executor;
            row.status = if elsewhere { WorkspaceStatus::Reclaimable } else { WorkspaceStatus::Removed };
            row.removed_at = (!elsewhere).then_some(self.now);
            if elsewhere {
                let commit = lease.session_work.as_ref().map(|work| work.commit.clone());
                self.event(
                    EventType::WorkspaceSuperseded,
                    None,
                    None,
                    json!({"workspace": row.id, "executor": row.executor, "commit": commit,
                        "reason": "the executor that kept the session's workspace cannot be counted on",
                        "note": "files that git ignores are gone; the session goes on from its last kept commit"}),
                );
            }
            self.effects.push(Effect::Workspace(Box::new(row)));
        }
    }

    /// The first attempt of a variant in a generation makes a workspace of its own.
    fn list_variant(&mut self, step: &str) {
        let variant = self.state.variant_of(step).cloned();
        if variant.is_some()
            && self.state.attempts_in(variant.as_ref()).count() == 1
            && let Some(row) = self.workspace_row(variant.as_ref())
        {
            self.effects.push(Effect::Workspace(Box::new(row)));
        }
    }

    /// The inventory rows of the run's current workspace and of those that its variants have to themselves.
    pub(super) fn workspace_rows(&self) -> Vec<WorkspaceRow> {
        let variants = self.state.plan.steps.iter().filter(|step| step.variant.as_ref() == Some(&step.id)).map(|step| &step.id);
        let used = variants.filter(|variant| self.state.attempts_in(Some(variant)).next().is_some()).map(Some);
        std::iter::once(None).chain(used).filter_map(|variant| self.workspace_row(variant)).collect()
    }

    /// The inventory row of the run's current workspace, or of that of a variant.
    pub(super) fn workspace_row(&self, variant: Option<&Name>) -> Option<WorkspaceRow> {
        let run = &self.state.run;
        let (Some(executor), Some(host)) = (&run.executor, &run.host) else { return None };
        let path = match variant {
            None => run.workspace.clone(),
            Some(_) => self.state.attempts_in(variant).find_map(|attempt| attempt.workspace.clone()),
        };
        Some(WorkspaceRow {
            id: WorkspaceId { run: run.id, generation: run.generation, variant: variant.cloned() }.to_string(),
            run_id: run.id,
            namespace: run.namespace.clone(),
            generation: run.generation,
            executor: executor.clone(),
            host: host.clone(),
            path: path.unwrap_or_default(),
            repo: run.repo.as_ref().map(|r| r.url.clone()),
            session: run.session.clone().filter(|_| self.state.plan.workspace.mode == WorkspaceMode::Persistent),
            status: WorkspaceStatus::Active,
            created_at: self.now,
            removed_at: None,
            bytes: None,
        })
    }

    /// Lets a lease go on and takes note of what was used so far.
    pub(super) fn on_renew(&mut self, renewal: &Renewal, length: Span) {
        let state = match self.attempt_index(&renewal.attempt, renewal.token) {
            None => LeaseState::Stale,
            Some(index) => match self.state.attempts[index].status {
                AttemptStatus::Leased | AttemptStatus::Running => {
                    let attempt = &mut self.state.attempts[index];
                    attempt.lease_until = self.now + length.delta();
                    attempt.usage = attempt.usage.max(&renewal.usage);
                    attempt.log_bytes = attempt.log_bytes.max(renewal.log_bytes);
                    self.sum_usage();
                    if self.state.attempts[index].allowance_microusd.is_some() {
                        self.allow(index);
                    }
                    LeaseState::Ok
                }
                AttemptStatus::Completed | AttemptStatus::Failed | AttemptStatus::Killed => LeaseState::Settled,
                AttemptStatus::Lost => {
                    self.late_usage(index, &renewal.usage);
                    LeaseState::Stale
                }
            },
        };
        if state == LeaseState::Stale {
            self.effects.push(Effect::Stale("renew"));
        }
        let kill = self.kill_order().filter(|_| state == LeaseState::Ok);
        let (step, n) = (renewal.attempt.step.as_str(), renewal.attempt.n);
        let allowance = super::budget::allowance(&self.state, step, n, self.purse.as_ref()).filter(|_| state == LeaseState::Ok);
        self.reply = Reply::Renewed(RenewAnswer { state, kill, allowance });
    }

    /// The first workspace says which commit the ref was; everyone gets the first answer.
    pub(super) fn on_pin(&mut self, pin: &Pin) {
        let live = self.attempt_index(&pin.attempt, pin.token).is_some_and(|i| !self.state.attempts[i].status.is_final());
        if !live {
            self.effects.push(Effect::Stale("pin"));
            self.reply = Reply::Pinned(PinReply::Stale);
            return;
        }
        let commit = self.state.run.commit.get_or_insert_with(|| pin.commit.clone()).clone();
        self.reply = Reply::Pinned(PinReply::Pinned(commit));
    }
}
