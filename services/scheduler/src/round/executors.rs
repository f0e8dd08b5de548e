//! What executors and janitors ask: claims, hellos and what may be removed.

use std::collections::{BTreeSet, HashSet};

use hopyard_contract::id::WorkspaceId;
use hopyard_contract::message::{Claim, ClaimReply, Grant, Hello, HelloReply, ReclaimOrder, WorkspacesQuery, WorkspacesReply};
use hopyard_contract::run::{Attempt, Run, WorkspaceRow, WorkspaceStatus};
use hopyard_contract::status::AttemptStatus;
use hopyard_contract::{AttemptId, Name, RunId};
use hopyard_store::Error as StoreError;
use hopyard_store::runs::{ClaimQuery, ExecutorRow};
use uuid::Uuid;

use super::Round;
use super::sessions::Session;
use crate::decide::{Effect, Input, Lease, Reply, Tick, grant, pays};

/// Most grants of one claim.
const MAX_GRANTS: u32 = 64;
/// A claim looks no further than this for something it may have.
const MOST_CANDIDATES: u32 = 1000;

/// What a claim made of a candidate.
enum Leased {
    Granted(Box<Grant>),
    /// It waits for the executor that keeps the workspace of its session.
    LeftTo(Name),
    No,
}

impl Round<'_> {
    /// Leases claimable steps, best first, as many as the executor has free slots.
    pub(super) async fn on_claim(&mut self, claim: &Claim) -> Result<ClaimReply, StoreError> {
        if let Some(repeated) = self.repeated_claim(claim).await? {
            return Ok(repeated);
        }
        let free = claim.free.min(MAX_GRANTS);
        // What earlier claims of this transaction took still looks claimable to the store, and one more tells whether there is more.
        let taken = u32::try_from(self.states.values().map(|l| l.after.live().count()).sum::<usize>()).unwrap_or(u32::MAX);
        let mut query = ClaimQuery {
            pool: claim.pool.clone(),
            executor: claim.executor.clone(),
            limit: free.saturating_add(1).saturating_add(taken.min(500)),
            now: self.now,
        };
        let may_judge = self.desk.outlook.may_judge();
        let mut reply = ClaimReply { grants: Vec::new(), more: false };
        let mut seen = HashSet::new();
        loop {
            let candidates = self.tx.candidates(&query).await?;
            let all = candidates.len() < query.limit as usize;
            self.know(candidates.iter().map(|(id, _)| *id)).await?;
            self.lock_slots(&candidates).await?;
            self.know_budgets(candidates.iter().filter(|(run, step)| self.pays(*run, step)).map(|(run, _)| *run).collect::<Vec<_>>())
                .await?;
            let mut left_to_others = false;
            for (run, step) in candidates {
                if !seen.insert((run, step.clone())) {
                    continue;
                }
                if reply.grants.len() >= free as usize {
                    reply.more = true;
                    break;
                }
                match self.lease_one(claim, run, step, may_judge).await? {
                    Leased::Granted(grant) => reply.grants.push(*grant),
                    Leased::LeftTo(executor) => {
                        left_to_others = true;
                        self.effects.push((run, Effect::RingExecutor(executor)));
                    }
                    Leased::No => {}
                }
            }
            // What is left to other executors must not hide what this one may have.
            if reply.more || all || !left_to_others || query.limit >= MOST_CANDIDATES {
                return Ok(reply);
            }
            query.limit = query.limit.saturating_mul(4);
        }
    }

    /// A claim whose answer was lost gets the same attempts again, as far as they are still leased.
    async fn repeated_claim(&mut self, claim: &Claim) -> Result<Option<ClaimReply>, StoreError> {
        let runs = self.tx.claimed(claim.claim_id).await?;
        self.know(runs.iter().copied()).await?;
        let states = self.states.values().map(|l| &l.after);
        let grants: Vec<Grant> = states
            .flat_map(|state| {
                state
                    .live()
                    .filter(|a| a.claim_id == claim.claim_id && a.executor == claim.executor)
                    .filter_map(|a| grant::grant(state, a.step.as_str(), a.n, self.desk.settings.lease, None))
            })
            .collect();
        Ok((!runs.is_empty() || !grants.is_empty()).then_some(ClaimReply { grants, more: true }))
    }

    pub(super) fn pays(&self, run: RunId, step: &Name) -> bool {
        self.state(run).is_some_and(|state| pays(state, step.as_str()))
    }

    async fn lock_slots(&mut self, candidates: &[(RunId, Name)]) -> Result<(), StoreError> {
        let mut keys: BTreeSet<String> = BTreeSet::new();
        for (run, _) in candidates {
            if let Some(state) = self.state(*run) {
                keys.extend(state.run.slots.iter().filter(|s| !s.held).map(|s| s.key.clone()));
            }
        }
        let keys: Vec<String> = keys.into_iter().filter(|key| !self.slots.contains_key(key)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let mut holders = self.tx.slot_holders(&keys).await?;
        for key in keys {
            let mut held: BTreeSet<RunId> = holders.remove(&key).unwrap_or_default().into_iter().collect();
            // Runs that ended in this very transaction have given theirs back.
            held.retain(|id| self.state(*id).is_none_or(|s| !s.run.status.is_final()));
            self.slots.insert(key, held);
        }
        Ok(())
    }

    async fn lease_one(&mut self, claim: &Claim, run: RunId, step: Name, may_judge: bool) -> Result<Leased, StoreError> {
        let Some(state) = self.state(run) else { return Ok(Leased::No) };
        let free = state.run.slots.iter().all(|slot| {
            slot.held || self.slots.get(&slot.key).is_none_or(|holders| holders.contains(&run) || holders.len() < slot.limit as usize)
        });
        if !free {
            return Ok(Leased::No);
        }
        let keys: Vec<String> = state.run.slots.iter().filter(|s| !s.held).map(|s| s.key.clone()).collect();
        let (session_workspace, session_work) = match self.session(claim, run, may_judge).await? {
            Session::None => (None, None),
            Session::At(executor) => return Ok(Leased::LeftTo(executor)),
            Session::Continues(row, work) => (Some(*row), work),
        };
        let lease = Lease {
            step,
            executor: claim.executor.clone(),
            host: claim.host.clone(),
            token: Uuid::new_v4(),
            claim_id: claim.claim_id,
            length: self.desk.settings.lease,
            session_workspace,
            session_work,
            purse: self.purse(run),
        };
        match self.decide(run, &Input::Lease(Box::new(lease))) {
            Some(Reply::Granted(grant)) => {
                for key in keys {
                    self.slots.entry(key).or_default().insert(run);
                }
                Ok(Leased::Granted(grant))
            }
            _ => Ok(Leased::No),
        }
    }

    /// An executor says who it is; runs whose workspace it no longer has are moved elsewhere.
    pub(super) async fn on_hello(&mut self, hello: &Hello) -> Result<HelloReply, StoreError> {
        self.writes.executors.retain(|e| e.id != hello.executor);
        self.writes.executors.push(ExecutorRow {
            id: hello.executor.clone(),
            host: hello.host.clone(),
            pool: hello.pool.clone(),
            slots: hello.slots,
            version: hello.version.clone(),
            draining: hello.draining,
            seen_at: self.now,
        });
        let bound = self.tx.bound_runs(&hello.executor).await?;
        self.know(bound.iter().copied()).await?;
        let own = |run: &Run| WorkspaceId { run: run.id, generation: run.generation, variant: None }.to_string();
        let there: HashSet<&str> = hello.workspaces.iter().map(String::as_str).collect();
        for id in bound {
            let lacks = self.state(id).is_some_and(|s| s.run.workspace.is_some() && !there.contains(own(&s.run).as_str()));
            if lacks {
                self.decide(id, &Input::Tick(Tick { unbind: Some("the executor no longer has the workspace"), ..Tick::default() }));
            }
        }
        Ok(HelloReply { lease_ms: self.desk.settings.lease.millis(), renew_ms: self.desk.settings.renew.millis() })
    }

    /// A janitor asks what of a host's disk may go.
    pub(super) async fn on_workspaces(&mut self, query: &WorkspacesQuery) -> Result<WorkspacesReply, StoreError> {
        let mut reply = WorkspacesReply { reclaimable: Vec::new(), keep: Vec::new(), unknown: Vec::new(), missing: Vec::new() };
        let rows = self.tx.workspaces(&query.found).await?;
        for id in &query.found {
            match rows.iter().find(|row| row.id == *id) {
                None => reply.unknown.push(id.clone()),
                Some(row) if row.status == WorkspaceStatus::Active || row.status == WorkspaceStatus::Kept => reply.keep.push(id.clone()),
                Some(row) => {
                    let order = self.reclaim_order(row).await?;
                    match order {
                        Some(order) => reply.reclaimable.push(order),
                        None => reply.keep.push(id.clone()),
                    }
                }
            }
        }
        if !query.only_found {
            reply.missing = self.missing(query).await?;
        }
        Ok(reply)
    }

    /// A workspace goes only when nothing of the run lives in it and its work is kept. One that may go is never lived in again,
    /// so that committed data is enough.
    async fn reclaim_order(&mut self, row: &WorkspaceRow) -> Result<Option<ReclaimOrder>, StoreError> {
        let Ok(id) = row.id.parse::<WorkspaceId>() else { return Ok(None) };
        self.see([id.run]).await?;
        let Some(state) = self.seen(id.run) else { return Ok(None) };
        let in_it = |a: &&Attempt| a.generation == id.generation && state.variant_of(a.step.as_str()) == id.variant.as_ref();
        let ours = || state.attempts.iter().filter(in_it);
        if ours().any(|a| !a.status.is_final()) {
            return Ok(None);
        }
        // Also those of which no start was heard: the word may have been lost with its executor, and the work is there.
        let lost = ours().filter(|a| a.status == AttemptStatus::Lost && a.snapshot.is_none());
        let lost = lost.map(|a| AttemptId { run: row.run_id, step: a.step.clone(), n: a.n }).collect();
        Ok(Some(ReclaimOrder { id: row.id.clone(), url: row.repo.clone(), lost }))
    }
}
