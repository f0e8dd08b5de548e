//! The simulated store's transaction: locks first, reads what is committed, writes in the instant of its commit.

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hopyard_contract::plan::Plan;
use hopyard_contract::run::{Kill, RunState, WorkspaceRow};
use hopyard_contract::status::RunStatus;
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use hopyard_store::runs::{ClaimQuery, KeyRow, RunTx, Spent, Writes};
use hopyard_store::{Error, Result};
use uuid::Uuid;

use super::apply::{self, Seen};
use super::locks::{Lock, Taken};
use super::tables::{DueKind, Tables};
use super::{Commit, Inner, SimStore, guards};
use crate::bugs::Bug;

/// An open transaction.
pub(super) struct Transaction {
    store: SimStore,
    id: u64,
    /// Pokes of the runs that were loaded, as they were at the first look.
    seen: Seen,
    written: Vec<(Writes, DateTime<Utc>)>,
    /// What this transaction sees once it has written.
    own: Option<Tables>,
    /// COMMIT of a failed transaction is a rollback.
    failed: bool,
}

impl Transaction {
    pub(super) fn new(store: SimStore, id: u64) -> Self {
        Self { store, id, seen: Seen::new(), written: Vec::new(), own: None, failed: false }
    }

    /// One statement reaches the server: it may be refused, and others may do something before it is answered.
    async fn step(&mut self) -> Result<()> {
        let entered = self.store.inner().statement(self.id);
        let pauses = entered.inspect_err(|_| self.failed = true)?;
        if pauses {
            pause().await;
            let still_open = {
                let mut inner = self.store.inner();
                let now = inner.clock;
                inner.locks.touch(self.id, now)
            };
            still_open.inspect_err(|_| self.failed = true)?;
        }
        Ok(())
    }

    async fn lock(&mut self, lock: Lock, shared: bool) -> Result<()> {
        let since = self.store.inner().clock;
        let (store, id) = (self.store.clone(), self.id);
        let taken = poll_fn(|_| {
            let mut inner = store.inner();
            let now = inner.clock;
            match inner.locks.take(id, &lock, shared, since, now) {
                Taken::Yes => Poll::Ready(Ok(())),
                Taken::NotYet => {
                    inner.count("lock_wait");
                    Poll::Pending
                }
                Taken::No(error) => {
                    inner.count("lock_refused");
                    Poll::Ready(Err(error))
                }
            }
        });
        taken.await.inspect_err(|_| self.failed = true)
    }

    /// Locks a run that nobody else has; this one holds a lock already, and waits for nobody.
    fn lock_free(&mut self, run: RunId) -> Result<()> {
        let mut inner = self.store.inner();
        let now = inner.clock;
        if inner.locks.try_take(self.id, &Lock::Run(run), now) {
            return Ok(());
        }
        inner.count("lock_refused");
        drop(inner);
        self.failed = true;
        Err(Error::Busy(format!("run {run}")))
    }

    /// Reads what is committed, and what this transaction has written.
    fn see<T>(&mut self, read: impl FnOnce(&Tables, &Inner) -> T) -> T {
        let inner = self.store.inner();
        if self.written.is_empty() {
            return read(&inner.tables, &inner);
        }
        let own = self.own.get_or_insert_with(|| {
            let mut own = inner.tables.clone();
            for (writes, at) in &self.written {
                apply::apply(&mut own, writes, &self.seen, *at, None);
            }
            own
        });
        read(own, &inner)
    }

    /// Keeps of a list what this transaction could lock at once.
    fn skip_locked<T>(&mut self, found: Vec<T>, limit: usize, run: impl Fn(&T) -> RunId) -> Vec<T> {
        let mut inner = self.store.inner();
        let now = inner.clock;
        let unlocked = inner.bug == Some(Bug::ClaimWithoutRowLock);
        let mut take = |item: &T| unlocked || inner.locks.try_take(self.id, &Lock::Run(run(item)), now);
        let mut kept = Vec::new();
        for item in found {
            if kept.len() == limit {
                break;
            }
            if take(&item) {
                kept.push(item);
            }
        }
        kept
    }
}

/// Lets others go first, once.
async fn pause() {
    let mut paused = false;
    poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

#[async_trait]
impl RunTx for Transaction {
    async fn now(&mut self) -> Result<DateTime<Utc>> {
        self.step().await?;
        Ok(self.store.inner().now())
    }

    async fn load(&mut self, ids: &[RunId]) -> Result<Vec<RunState>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.step().await?;
        let mut ids = ids.to_vec();
        ids.sort();
        ids.dedup();
        let unlocked = self.store.inner().bug == Some(Bug::ClaimWithoutRowLock);
        let waits = !self.store.inner().locks.holds(self.id);
        for id in ids.iter().filter(|_| !unlocked) {
            if self.see(|tables, _| tables.runs.contains_key(id)) {
                if waits {
                    self.lock(Lock::Run(*id), false).await?;
                } else {
                    self.lock_free(*id)?;
                }
            }
        }
        let found: Vec<(RunState, Option<u64>)> = self.see(|tables, _| {
            let known = ids.iter().filter_map(|id| tables.state(*id).transpose());
            known
                .map(|state| {
                    state.map(|state| (tables.due.get(&(state.run.id, DueKind::Poke)).map(|due| due.n), state)).map(|(n, s)| (s, n))
                })
                .collect::<Result<_>>()
        })?;
        for (state, poke) in &found {
            self.seen.entry(state.run.id).or_insert(*poke);
        }
        Ok(found.into_iter().map(|(state, _)| state).collect())
    }

    async fn look(&mut self, ids: &[RunId]) -> Result<Vec<RunState>> {
        self.step().await?;
        let ids: BTreeSet<RunId> = ids.iter().copied().collect();
        self.see(|tables, _| ids.iter().filter_map(|id| tables.state(*id).transpose()).collect())
    }

    async fn candidates(&mut self, query: &ClaimQuery) -> Result<Vec<(RunId, Name)>> {
        // The snapshot of the statement: what is locked afterwards may have changed since, and the caller looks again.
        let found = self.see(|tables, _| tables.candidates(query));
        self.step().await?;
        Ok(self.skip_locked(found, query.limit as usize, |(run, _)| *run))
    }

    async fn due(&mut self, now: DateTime<Utc>, limit: u32) -> Result<Vec<RunId>> {
        let found = self.see(|tables, _| tables.due_runs(now));
        self.step().await?;
        Ok(self.skip_locked(found, limit as usize, |run| *run))
    }

    async fn claimed(&mut self, claim_id: Uuid) -> Result<Vec<RunId>> {
        self.step().await?;
        Ok(self.see(|tables, _| {
            let open = tables
                .runs
                .values()
                .filter(|record| record.run.finished_at.is_none() || record.attempts.iter().any(|a| a.finished_at.is_none()));
            let ours = open.filter(|record| record.attempts.iter().any(|a| a.claim_id == claim_id && a.finished_at.is_none()));
            ours.map(|record| record.run.id).collect()
        }))
    }

    async fn keys(&mut self, keys: &[(Name, String)]) -> Result<HashMap<(Name, String), KeyRow>> {
        self.step().await?;
        let mut sorted = keys.to_vec();
        sorted.sort();
        sorted.dedup();
        if self.store.inner().bug != Some(Bug::KeyCheckedWithoutLock) {
            for (namespace, key) in sorted {
                self.lock(Lock::Key(namespace, key), false).await?;
            }
        }
        Ok(self.see(|tables, _| keys.iter().filter_map(|key| Some((key.clone(), tables.keys.get(key)?.clone()))).collect()))
    }

    async fn tombstones(&mut self, ids: &[RunId], adds: bool) -> Result<HashMap<RunId, Kill>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        self.step().await?;
        self.lock(Lock::Tombstones, !adds).await?;
        Ok(self.see(|tables, _| ids.iter().filter_map(|id| Some((*id, tables.tombstones.get(id)?.1.clone()))).collect()))
    }

    async fn alias(&mut self, id: RunId) -> Result<Option<RunId>> {
        self.step().await?;
        Ok(self.see(|tables, _| tables.aliases.get(&id).copied()))
    }

    async fn statuses(&mut self, namespace: &Name, ids: &[RunId]) -> Result<HashMap<RunId, RunStatus>> {
        self.step().await?;
        Ok(self.see(|tables, _| {
            let known = ids.iter().filter_map(|id| tables.runs.get(id)).map(|record| &record.run);
            known.filter(|run| run.namespace == *namespace).map(|run| (run.id, run.status)).collect()
        }))
    }

    async fn slot_holders(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
        self.lock_slots(keys).await?;
        Ok(self.see(|tables, _| tables.members(keys, true)))
    }

    async fn slot_members(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
        self.lock_slots(keys).await?;
        Ok(self.see(|tables, _| tables.members(keys, false)))
    }

    async fn budgets(&mut self, keys: &[String]) -> Result<HashMap<String, Spent>> {
        self.lock_slots(keys).await?;
        Ok(self.see(|tables, _| keys.iter().filter_map(|key| Some((key.clone(), *tables.budgets.get(key)?))).collect()))
    }

    async fn plans(&mut self, hashes: &[String]) -> Result<HashMap<String, Arc<Plan>>> {
        self.step().await?;
        Ok(self.see(|tables, _| hashes.iter().filter_map(|hash| Some((hash.clone(), tables.plans.get(hash)?.clone()))).collect()))
    }

    async fn receipt(&mut self, seq: u64, time_ns: i64) -> Result<Option<Receipt>> {
        self.step().await?;
        Ok(self.see(|tables, _| tables.receipts.get(&(seq, time_ns)).cloned()))
    }

    async fn bound_runs(&mut self, executor: &Name) -> Result<Vec<RunId>> {
        self.step().await?;
        Ok(self.see(|tables, _| tables.bound_runs(executor)))
    }

    async fn session_workspace(&mut self, namespace: &Name, repo: Option<&str>, session: &Name) -> Result<Option<WorkspaceRow>> {
        self.step().await?;
        Ok(self.see(|tables, _| tables.session_workspace(namespace, repo, session)))
    }

    async fn workspaces(&mut self, ids: &[String]) -> Result<Vec<WorkspaceRow>> {
        self.step().await?;
        let mut sorted = ids.to_vec();
        sorted.sort();
        sorted.dedup();
        Ok(self.see(|tables, _| sorted.iter().filter_map(|id| tables.workspaces.get(id).cloned()).collect()))
    }

    async fn write(&mut self, writes: &Writes) -> Result<()> {
        self.step().await?;
        let bug = self.store.inner().bug;
        let mut runs: Vec<(RunId, bool)> = writes.runs.iter().map(|write| (write.run.id, write.new)).collect();
        runs.sort();
        for (id, _) in runs.iter().filter(|_| bug != Some(Bug::ClaimWithoutRowLock)) {
            self.lock(Lock::Run(*id), false).await?;
        }
        let mut keys: Vec<&(Name, String, KeyRow)> = writes.keys.iter().collect();
        keys.sort_by_key(|(namespace, key, _)| (namespace, key));
        for (namespace, key, _) in keys.iter().filter(|_| bug != Some(Bug::KeyCheckedWithoutLock)) {
            self.lock(Lock::Key(namespace.clone(), key.clone()), false).await?;
        }
        if !writes.tombstones.is_empty() {
            self.lock(Lock::Tombstones, false).await?;
        }
        let refused = self.see(|tables, _| {
            let taken = |id: &RunId| Error::Retry(format!("another transaction has inserted {id}"));
            if let Some((id, _)) = runs.iter().find(|(id, new)| *new && tables.runs.contains_key(id)) {
                return Err(taken(id));
            }
            let known = |(namespace, key, _): &&&(Name, String, KeyRow)| tables.keys.contains_key(&(namespace.clone(), key.clone()));
            if let Some((_, _, row)) = keys.iter().filter(|_| bug != Some(Bug::KeyCheckedWithoutLock)).find(known) {
                return Err(taken(&row.run));
            }
            if let Some((id, _)) = writes.tombstones.iter().find(|(id, _)| tables.runs.contains_key(id) || tables.aliases.contains_key(id))
            {
                return Err(Error::Retry(format!("run {id} was accepted while its tombstone was written")));
            }
            if bug == Some(Bug::ClaimWithoutRowLock) { Ok(()) } else { guards::check(tables, writes) }
        });
        refused.inspect_err(|_| self.failed = true)?;
        let at = self.store.inner().now();
        self.own = None;
        self.written.push((writes.clone(), at));
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        if self.failed {
            return Err(Error::Refused("a transaction in which something failed cannot be committed".to_owned()));
        }
        self.step().await?;
        let fate = self.store.inner().fate_of_commit();
        if fate == Commit::LostBefore {
            return Err(Error::Unavailable("the connection was lost".to_owned()));
        }
        let written = std::mem::take(&mut self.written);
        let pauses = self.store.inner().commit(self.id, written, &self.seen)?;
        if pauses {
            // The commit has happened; its answer is on its way.
            pause().await;
        }
        if fate == Commit::AnswerLost {
            return Err(Error::Unavailable("the connection was lost during the commit".to_owned()));
        }
        Ok(())
    }
}

impl Transaction {
    async fn lock_slots(&mut self, keys: &[String]) -> Result<()> {
        self.step().await?;
        let mut keys = keys.to_vec();
        keys.sort();
        keys.dedup();
        if self.store.inner().bug == Some(Bug::SlotCountedWithoutLock) {
            return Ok(());
        }
        for key in keys {
            self.lock(Lock::Slot(key), false).await?;
        }
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.store.inner().locks.end(self.id);
    }
}
