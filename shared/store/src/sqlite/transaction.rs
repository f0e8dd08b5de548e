//! The scheduler's transaction: it holds the only writing connection, so its locks are nobody's concern.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hopyard_contract::plan::Plan;
use hopyard_contract::run::{Kill, RunState, WorkspaceRow};
use hopyard_contract::status::RunStatus;
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use sqlx::Sqlite;
use uuid::Uuid;

use super::fault::fault;
use super::reading;
use super::rows::{WorkspaceRecord, decode, encode, id_list, micros, signed, word};
use super::runs::Shared;
use super::write;
use crate::Result;
use crate::runs::{ClaimQuery, KeyRow, RunTx, Spent, Writes};

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
    pub(super) inner: sqlx::Transaction<'static, Sqlite>,
    pub(super) shared: Arc<Shared>,
    /// A clock mark that was written and takes effect with the commit.
    pub(super) mark: Option<i64>,
}

impl Transaction {
    pub(super) fn new(inner: sqlx::Transaction<'static, Sqlite>, shared: Arc<Shared>) -> Self {
        Self { inner, shared, mark: None }
    }
}

#[async_trait]
impl RunTx for Transaction {
    async fn now(&mut self) -> Result<DateTime<Utc>> {
        self.shared.clock.now()
    }

    async fn load(&mut self, ids: &[RunId]) -> Result<Vec<RunState>> {
        reading::states(&mut self.inner, &self.shared.plans, ids).await
    }

    async fn candidates(&mut self, query: &ClaimQuery) -> Result<Vec<(RunId, Name)>> {
        let rows: Vec<(Uuid, String)> = sqlx::query_as(CANDIDATES)
            .bind(query.pool.as_str())
            .bind(query.executor.as_str())
            .bind(micros(query.now))
            .bind(query.limit)
            .fetch_all(&mut *self.inner)
            .await
            .map_err(fault)?;
        rows.into_iter().map(|(run, step)| Ok((RunId::from_uuid(run), word(&step)?))).collect()
    }

    async fn due(&mut self, now: DateTime<Utc>, limit: u32) -> Result<Vec<RunId>> {
        // A run has at most two rows.
        let rows: Vec<Uuid> =
            sqlx::query_scalar(DUE).bind(micros(now)).bind(i64::from(limit) * 2).fetch_all(&mut *self.inner).await.map_err(fault)?;
        let mut seen = std::collections::HashSet::new();
        Ok(rows.into_iter().filter(|id| seen.insert(*id)).take(limit as usize).map(RunId::from_uuid).collect())
    }

    async fn claimed(&mut self, claim_id: Uuid) -> Result<Vec<RunId>> {
        let rows: Vec<Uuid> = sqlx::query_scalar(CLAIMED).bind(claim_id).fetch_all(&mut *self.inner).await.map_err(fault)?;
        Ok(rows.into_iter().map(RunId::from_uuid).collect())
    }

    async fn keys(&mut self, keys: &[(Name, String)]) -> Result<HashMap<(Name, String), KeyRow>> {
        let rows: Vec<(String, String, Uuid, String)> =
            sqlx::query_as(KEYS).bind(encode("idempotency keys", keys)?).fetch_all(&mut *self.inner).await.map_err(fault)?;
        rows.into_iter()
            .map(|(namespace, key, run, request_hash)| Ok(((word(&namespace)?, key), KeyRow { run: RunId::from_uuid(run), request_hash })))
            .collect()
    }

    async fn tombstones(&mut self, ids: &[RunId]) -> Result<HashMap<RunId, Kill>> {
        let rows: Vec<(Uuid, String)> = sqlx::query_as(TOMBSTONES).bind(id_list(ids)).fetch_all(&mut *self.inner).await.map_err(fault)?;
        rows.into_iter().map(|(id, data)| Ok((RunId::from_uuid(id), decode(format_args!("tombstone {id}"), &data)?))).collect()
    }

    async fn alias(&mut self, id: RunId) -> Result<Option<RunId>> {
        reading::alias(&mut self.inner, id).await
    }

    async fn statuses(&mut self, namespace: &Name, ids: &[RunId]) -> Result<HashMap<RunId, RunStatus>> {
        Ok(reading::statuses(&mut self.inner, namespace, ids).await?.into_iter().collect())
    }

    async fn slot_holders(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
        reading::slot_holders(&mut self.inner, keys).await
    }

    async fn slot_members(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
        reading::slot_members(&mut self.inner, keys).await
    }

    async fn budgets(&mut self, keys: &[String]) -> Result<HashMap<String, Spent>> {
        let rows: Vec<(String, i64, i64)> =
            sqlx::query_as(BUDGETS).bind(encode("budget keys", keys)?).fetch_all(&mut *self.inner).await.map_err(fault)?;
        Ok(rows.into_iter().map(|(key, spent, open)| (key, Spent { spent, open })).collect())
    }

    async fn plans(&mut self, hashes: &[String]) -> Result<HashMap<String, Arc<Plan>>> {
        self.shared.plans.get(&mut self.inner, hashes).await
    }

    async fn receipt(&mut self, seq: u64, time_ns: i64) -> Result<Option<Receipt>> {
        let data: Option<String> =
            sqlx::query_scalar(RECEIPT).bind(signed(seq)).bind(time_ns).fetch_optional(&mut *self.inner).await.map_err(fault)?;
        data.map(|data| decode(format_args!("receipt {seq}"), &data)).transpose()
    }

    async fn bound_runs(&mut self, executor: &Name) -> Result<Vec<RunId>> {
        let rows: Vec<Uuid> = sqlx::query_scalar(BOUND_RUNS).bind(executor.as_str()).fetch_all(&mut *self.inner).await.map_err(fault)?;
        Ok(rows.into_iter().map(RunId::from_uuid).collect())
    }

    async fn session_workspace(&mut self, namespace: &Name, repo: Option<&str>, session: &Name) -> Result<Option<WorkspaceRow>> {
        let row: Option<WorkspaceRecord> = sqlx::query_as(SESSION)
            .bind(namespace.as_str())
            .bind(session.as_str())
            .bind(repo)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(fault)?;
        row.map(WorkspaceRecord::read).transpose()
    }

    async fn workspaces(&mut self, ids: &[String]) -> Result<Vec<WorkspaceRow>> {
        let rows: Vec<WorkspaceRecord> =
            sqlx::query_as(WORKSPACES).bind(encode("workspace ids", ids)?).fetch_all(&mut *self.inner).await.map_err(fault)?;
        rows.into_iter().map(WorkspaceRecord::read).collect()
    }

    async fn write(&mut self, writes: &Writes) -> Result<()> {
        write::apply(self, writes).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.inner.commit().await.map_err(fault)?;
        if let Some(mark) = self.mark {
            self.shared.clock.marked(mark);
        }
        Ok(())
    }
}
