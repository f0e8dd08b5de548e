//! The scheduler's transaction: it holds the only writing connection, so its locks are nobody's concern.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hopyard_contract::plan::Plan;
use hopyard_contract::run::{Kill, RunState, WorkspaceRow};
use hopyard_contract::status::RunStatus;
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use rusqlite::{Connection, params};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::pool::beside;
use super::reading;
use super::rows::{WorkspaceRecord, decode, encode, id_list, micros, signed, word};
use super::runs::Shared;
use super::statement::{execute, row, rows, value, values};
use super::write;
use crate::Result;
use crate::runs::{ClaimQuery, KeyRow, RunTx, RunWrite, Spent, Writes};

// Two ranges of one index, each already in order: steps of the pool, and those bound to the executor.
pub(super) const CANDIDATES: &str = "select run_id, id from ( \
       select * from (select run_id, idx, id, priority, coalesce(queued_at, claimable_at) as place from steps s \
         where pool = ?1 and bound_to is null and claimable_at is not null and claimable_at <= ?3 and coalesce(queued_at, claimable_at) <= ?3 \
         and not exists (select 1 from run_slots w where w.run_id = s.run_id and w.held = 0 \
                         and w.max <= (select count(*) from run_slots h where h.key = w.key and h.held = 1)) \
         order by priority desc, place, run_id, idx limit ?4) \
       union all \
       select * from (select run_id, idx, id, priority, coalesce(queued_at, claimable_at) as place from steps s \
         where pool = ?1 and bound_to = ?2 and claimable_at is not null and claimable_at <= ?3 and coalesce(queued_at, claimable_at) <= ?3 \
         and not exists (select 1 from run_slots w where w.run_id = s.run_id and w.held = 0 \
                         and w.max <= (select count(*) from run_slots h where h.key = w.key and h.held = 1)) \
         order by priority desc, place, run_id, idx limit ?4)) \
     order by priority desc, place, run_id, idx limit ?4";
pub(super) const DUE: &str = "select run_id from due where at <= ?1 order by at, run_id limit ?2";
pub(super) const CLAIMED: &str = "select distinct run_id from attempts where claim_id = ?1 and finished_at is null order by run_id";
pub(super) const KEYS: &str = "select k.namespace, k.key, k.run_id, k.request_hash from json_each(?1) asked \
     cross join keys k on k.namespace = json_extract(asked.value, '$[0]') and k.key = json_extract(asked.value, '$[1]')";
pub(super) const TOMBSTONES: &str = "select run_id, data from tombstones where run_id in (select unhex(value) from json_each(?1))";
pub(super) const BUDGETS: &str = "select key, spent_microusd, open_microusd from budgets where key in (select value from json_each(?1))";
pub(super) const RECEIPT: &str = "select data from receipts where seq = ?1 and time_ns = ?2";
pub(super) const BOUND_RUNS: &str = "select distinct r.id from workspaces w cross join runs r on r.id = w.run_id and r.generation = w.generation \
     where w.executor = ?1 and w.status = 'active' and r.finished_at is null order by r.id";
pub(super) const SESSION: &str = "select * from workspaces where namespace = ?1 and session = ?2 and status in ('active', 'kept') and repo is ?3 \
     order by created_at desc, id desc limit 1";
pub(super) const WORKSPACES: &str = "select * from workspaces where id in (select value from json_each(?1)) order by id";

/// An open transaction.
pub(super) struct Transaction {
    pub(super) connection: Writing,
    pub(super) shared: Arc<Shared>,
    /// A clock mark that was written and takes effect with the commit.
    pub(super) mark: Option<i64>,
    /// Runs that were written, without their events.
    written: Vec<RunWrite>,
}

/// The writing connection with an open transaction; dropping it rolls back what was not committed.
pub(super) struct Writing(OwnedMutexGuard<Connection>);

impl Deref for Writing {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // A full disk ends a transaction inside SQLite: then there is nothing to roll back.
        if !self.is_autocommit()
            && let Err(error) = execute(self, "rollback", [])
        {
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
    }
}

impl Transaction {
    /// Begins on the one writing connection, once that is free.
    pub(super) async fn begin(shared: Arc<Shared>) -> Result<Self> {
        let connection = Writing(shared.writer.clone().lock_owned().await);
        execute(&connection, "begin immediate", [])?;
        Ok(Self { connection, shared, mark: None, written: Vec::new() })
    }
}

#[async_trait]
impl RunTx for Transaction {
    async fn now(&mut self) -> Result<DateTime<Utc>> {
        self.shared.clock.now()
    }

    async fn load(&mut self, ids: &[RunId]) -> Result<Vec<RunState>> {
        let read = |ids: &[RunId]| reading::states(&self.connection, &self.shared.plans, ids);
        if !self.written.is_empty() {
            // Some of it is in the file only, and may never be committed.
            return read(ids);
        }
        let mut states = self.shared.states();
        let (known, unknown): (Vec<RunId>, Vec<RunId>) = ids.iter().partition(|id| states.get(**id).is_some());
        let mut found: Vec<RunState> = known.iter().filter_map(|id| states.get(*id).cloned()).collect();
        #[cfg(debug_assertions)]
        {
            found.sort_by_key(|state| state.run.id);
            found.dedup_by_key(|state| state.run.id);
            assert_eq!(found, read(&known)?, "what is kept in memory is what the file has");
        }
        let more = read(&unknown)?;
        states.keep(more.iter().cloned());
        found.extend(more);
        found.sort_by_key(|state| state.run.id);
        found.dedup_by_key(|state| state.run.id);
        Ok(found)
    }

    async fn look(&mut self, ids: &[RunId]) -> Result<Vec<RunState>> {
        self.load(ids).await
    }

    async fn candidates(&mut self, query: &ClaimQuery) -> Result<Vec<(RunId, Name)>> {
        let rows: Vec<(Uuid, String)> =
            rows(&self.connection, CANDIDATES, params![query.pool.as_str(), query.executor.as_str(), micros(query.now), query.limit])?;
        rows.into_iter().map(|(run, step)| Ok((RunId::from_uuid(run), word(&step)?))).collect()
    }

    async fn due(&mut self, now: DateTime<Utc>, limit: u32) -> Result<Vec<RunId>> {
        // A run has at most two rows.
        let rows: Vec<Uuid> = values(&self.connection, DUE, params![micros(now), i64::from(limit) * 2])?;
        let mut seen = std::collections::HashSet::new();
        Ok(rows.into_iter().filter(|id| seen.insert(*id)).take(limit as usize).map(RunId::from_uuid).collect())
    }

    async fn claimed(&mut self, claim_id: Uuid) -> Result<Vec<RunId>> {
        let rows: Vec<Uuid> = values(&self.connection, CLAIMED, params![claim_id])?;
        Ok(rows.into_iter().map(RunId::from_uuid).collect())
    }

    async fn keys(&mut self, keys: &[(Name, String)]) -> Result<HashMap<(Name, String), KeyRow>> {
        let rows: Vec<(String, String, Uuid, String)> = rows(&self.connection, KEYS, params![encode("idempotency keys", keys)?])?;
        rows.into_iter()
            .map(|(namespace, key, run, request_hash)| Ok(((word(&namespace)?, key), KeyRow { run: RunId::from_uuid(run), request_hash })))
            .collect()
    }

    async fn tombstones(&mut self, ids: &[RunId], _: bool) -> Result<HashMap<RunId, Kill>> {
        let rows: Vec<(Uuid, String)> = rows(&self.connection, TOMBSTONES, params![id_list(ids)])?;
        rows.into_iter().map(|(id, data)| Ok((RunId::from_uuid(id), decode(format_args!("tombstone {id}"), &data)?))).collect()
    }

    async fn alias(&mut self, id: RunId) -> Result<Option<RunId>> {
        reading::alias(&self.connection, id)
    }

    async fn statuses(&mut self, namespace: &Name, ids: &[RunId]) -> Result<HashMap<RunId, RunStatus>> {
        Ok(reading::statuses(&self.connection, namespace, ids)?.into_iter().collect())
    }

    async fn slot_holders(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
        reading::slot_holders(&self.connection, keys)
    }

    async fn slot_members(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
        reading::slot_members(&self.connection, keys)
    }

    async fn budgets(&mut self, keys: &[String]) -> Result<HashMap<String, Spent>> {
        let rows: Vec<(String, i64, i64)> = rows(&self.connection, BUDGETS, params![encode("budget keys", keys)?])?;
        Ok(rows.into_iter().map(|(key, spent, open)| (key, Spent { spent, open })).collect())
    }

    async fn plans(&mut self, hashes: &[String]) -> Result<HashMap<String, Arc<Plan>>> {
        self.shared.plans.get(&self.connection, hashes)
    }

    async fn receipt(&mut self, seq: u64, time_ns: i64) -> Result<Option<Receipt>> {
        let data: Option<String> = value(&self.connection, RECEIPT, params![signed(seq), time_ns])?;
        data.map(|data| decode(format_args!("receipt {seq}"), &data)).transpose()
    }

    async fn bound_runs(&mut self, executor: &Name) -> Result<Vec<RunId>> {
        let rows: Vec<Uuid> = values(&self.connection, BOUND_RUNS, params![executor.as_str()])?;
        Ok(rows.into_iter().map(RunId::from_uuid).collect())
    }

    async fn session_workspace(&mut self, namespace: &Name, repo: Option<&str>, session: &Name) -> Result<Option<WorkspaceRow>> {
        let row: Option<WorkspaceRecord> = row(&self.connection, SESSION, params![namespace.as_str(), session.as_str(), repo])?;
        row.map(WorkspaceRecord::read).transpose()
    }

    async fn workspaces(&mut self, ids: &[String]) -> Result<Vec<WorkspaceRow>> {
        let rows: Vec<WorkspaceRecord> = rows(&self.connection, WORKSPACES, params![encode("workspace ids", ids)?])?;
        rows.into_iter().map(WorkspaceRecord::read).collect()
    }

    async fn write(&mut self, writes: &Writes) -> Result<()> {
        write::apply(self, writes)?;
        self.written.extend(writes.runs.iter().map(|write| RunWrite {
            new: write.new,
            run: write.run.clone(),
            steps: write.steps.clone(),
            attempts: write.attempts.clone(),
            events: Vec::new(),
            timer: write.timer,
        }));
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { connection, shared, mark, written } = *self;
        // It waits for the disk.
        beside(move || {
            // Taken out first: after an error nobody knows what the file has.
            let mut states = shared.states();
            let next = written.into_iter().filter_map(|write| {
                let plan = shared.plans.kept(&write.run.plan_hash);
                states.take(write, plan)
            });
            let next: Vec<RunState> = next.collect();
            drop(states);
            execute(&connection, "commit", [])?;
            shared.states().keep(next);
            if let Some(mark) = mark {
                shared.clock.marked(mark);
            }
            Ok(())
        })
        .await
    }
}
