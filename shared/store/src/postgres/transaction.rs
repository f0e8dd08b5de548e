//! The scheduler's transaction: it locks first, reads with younger snapshots, then writes.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hopyard_contract::plan::Plan;
use hopyard_contract::run::{Kill, Run, RunState, WorkspaceRow};
use hopyard_contract::status::RunStatus;
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::plans::Plans;
use super::rows::{self, Workspace, count, json, slot_taken, uuids, word, workspace_columns};
use super::{Tx, failure, scalar, select, state, statement, write};
use crate::runs::{ClaimQuery, KeyRow, RunTx, Spent, Writes};
use crate::{Error, Result};

/// Walks the index in the order of the answer; no guard names what the index already says of its steps.
pub(super) const CANDIDATES: &str = concat!(
    "SELECT s.run_id, s.id FROM hopyard_runs.steps s JOIN hopyard_runs.runs r ON r.id = s.run_id \
     WHERE s.pool = $1 AND s.claimable_at IS NOT NULL AND s.claimable_at <= $2 AND coalesce(s.queued_at, s.claimable_at) <= $2 AND (s.bound_to IS NULL OR s.bound_to = $3) AND NOT ",
    slot_taken!("s.run_id"),
    " ORDER BY s.priority DESC, coalesce(s.queued_at, s.claimable_at), s.run_id, s.idx LIMIT $4 FOR NO KEY UPDATE OF r SKIP LOCKED"
);
pub(super) const DUE: &str = "SELECT d.run_id FROM hopyard_runs.due d JOIN hopyard_runs.runs r ON r.id = d.run_id \
     WHERE d.at <= $1 ORDER BY d.at, d.run_id LIMIT $2 FOR NO KEY UPDATE OF r SKIP LOCKED";
pub(super) const CLAIMED: &str =
    "SELECT DISTINCT run_id FROM hopyard_runs.attempts WHERE claim_id = $1 AND finished_at IS NULL ORDER BY run_id";
pub(super) const KEYS: &str = "SELECT k.namespace, k.key, k.run_id, k.request_hash FROM unnest($1::text[], $2::text[]) AS asked(namespace, key) \
     JOIN hopyard_runs.keys k ON k.namespace = asked.namespace AND k.key = asked.key";
const TOMBSTONES: &str = "SELECT run_id, data::text FROM hopyard_runs.tombstones WHERE run_id = ANY($1)";
const RECEIPT: &str = "SELECT data::text FROM hopyard_runs.receipts WHERE seq = $1 AND time_ns = $2";
pub(super) const BOUND_RUNS: &str = "SELECT DISTINCT r.id FROM hopyard_runs.workspaces w \
     JOIN hopyard_runs.runs r ON r.id = w.run_id AND r.generation = w.generation \
     WHERE w.executor = $1 AND w.status = 'active' AND r.finished_at IS NULL ORDER BY r.id";
const SESSION: &str = concat!(
    "SELECT ",
    workspace_columns!(),
    " FROM hopyard_runs.workspaces WHERE namespace = $1 AND session = $2 AND status IN ('active', 'kept') AND repo IS NOT DISTINCT FROM $3 \
     ORDER BY created_at DESC, id DESC LIMIT 1"
);
const WORKSPACES: &str = concat!("SELECT ", workspace_columns!(), " FROM hopyard_runs.workspaces WHERE id = ANY($1) ORDER BY id");
/// Before a statement that walks an index in the order of its answer and stops early. A planner that expects few rows sorts them
/// instead: of a backlog that its statistics do not know of yet, all of it, at each claim.
pub(super) const IN_ORDER: &str = "SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off";
const IN_ANY_ORDER: &str = "SET LOCAL enable_sort TO DEFAULT; SET LOCAL enable_bitmapscan TO DEFAULT";
/// Sorted, so that none waits for another in a circle.
const LOCK: &str = "SELECT pg_advisory_xact_lock(h) FROM (SELECT DISTINCT hashtextextended(name, 0) AS h FROM unnest($1::text[]) AS name ORDER BY h) AS sorted";
pub(super) const BUDGETS: &str = "SELECT key, spent_microusd, open_microusd FROM hopyard_runs.budgets WHERE key = ANY($1)";
const ALIAS: &str = "SELECT run_id FROM hopyard_runs.aliases WHERE id = $1";
const TOMBSTONE_GATE: &str = "SELECT pg_advisory_xact_lock_shared(hashtextextended('hopyard.gate.tombstones', 0))";

/// What the transaction knows of a run since it loaded it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Number of its poke, if it had one.
    pub(super) poke: Option<i64>,
    /// Whether it had ended.
    pub(super) ended: bool,
}

/// An open transaction.
pub(super) struct RunTransaction {
    tx: Tx,
    plans: Arc<Plans>,
    /// What is known of the runs that were loaded.
    seen: HashMap<Uuid, Seen>,
    /// Whether it may hold a lock: then it must not wait for a run.
    holds: bool,
    /// COMMIT of a failed transaction is a rollback that reports success.
    failed: bool,
}

impl RunTransaction {
    pub(super) fn new(tx: Tx, plans: Arc<Plans>) -> Self {
        Self { tx, plans, seen: HashMap::new(), holds: false, failed: false }
    }

    fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        self.failed |= result.is_err();
        result
    }

    async fn states(&mut self, runs: &'static str, ids: &[RunId]) -> Result<(Vec<RunState>, HashMap<Uuid, i64>)> {
        let found: Vec<(Uuid, String)> = select(runs).bind(uuids(ids)).fetch_all(&mut *self.tx).await.map_err(failure)?;
        let runs = found.into_iter().map(|(id, data)| json::<Run>(&data, "run", id)).collect::<Result<_>>()?;
        state::states(&mut self.tx, &self.plans, runs).await
    }

    async fn locked(&mut self, ids: &[RunId]) -> Result<Vec<RunState>> {
        let lock = if std::mem::replace(&mut self.holds, true) { state::LOCK_FREE_RUNS } else { state::LOCK_RUNS };
        let (states, pokes) = self.states(lock, ids).await?;
        for state in &states {
            let id = state.run.id.as_uuid();
            let poke = pokes.get(&id).copied();
            // The first look counts: what was decided may rest on it.
            self.seen.entry(id).or_insert(Seen { poke, ended: state.run.finished_at.is_some() });
        }
        Ok(states)
    }
}

/// Takes advisory locks of the transaction.
async fn lock(connection: &mut PgConnection, names: Vec<String>) -> Result<()> {
    statement(LOCK).bind(names).execute(connection).await.map_err(failure)?;
    Ok(())
}

async fn candidates(connection: &mut PgConnection, query: &ClaimQuery) -> Result<Vec<(RunId, Name)>> {
    sqlx::raw_sql(IN_ORDER).execute(&mut *connection).await.map_err(failure)?;
    let found: Vec<(Uuid, String)> = select(CANDIDATES)
        .bind(query.pool.as_str())
        .bind(query.now)
        .bind(query.executor.as_str())
        .bind(i64::from(query.limit))
        .fetch_all(&mut *connection)
        .await
        .map_err(failure)?;
    sqlx::raw_sql(IN_ANY_ORDER).execute(connection).await.map_err(failure)?;
    found.into_iter().map(|(run, step)| Ok((RunId::from_uuid(run), word(&step)?))).collect()
}

async fn due(connection: &mut PgConnection, now: DateTime<Utc>, limit: u32) -> Result<Vec<RunId>> {
    // A run has at most two rows.
    let found: Vec<Uuid> = scalar(DUE).bind(now).bind(i64::from(limit) * 2).fetch_all(connection).await.map_err(failure)?;
    let mut seen = std::collections::HashSet::new();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(found.into_iter().filter(|id| seen.insert(*id)).take(limit).map(RunId::from_uuid).collect())
}

async fn keys(connection: &mut PgConnection, keys: &[(Name, String)]) -> Result<HashMap<(Name, String), KeyRow>> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    // No namespace holds a `/`, so the joined names are as different as the pairs.
    lock(connection, keys.iter().map(|(namespace, key)| format!("hopyard.key/{namespace}/{key}")).collect()).await?;
    let namespaces: Vec<&str> = keys.iter().map(|(namespace, _)| namespace.as_str()).collect();
    let texts: Vec<&str> = keys.iter().map(|(_, key)| key.as_str()).collect();
    let found: Vec<(String, String, Uuid, String)> =
        select(KEYS).bind(namespaces).bind(texts).fetch_all(connection).await.map_err(failure)?;
    found
        .into_iter()
        .map(|(namespace, key, run, request_hash)| Ok(((word(&namespace)?, key), KeyRow { run: RunId::from_uuid(run), request_hash })))
        .collect()
}

async fn tombstones(connection: &mut PgConnection, ids: &[RunId], adds: bool) -> Result<HashMap<RunId, Kill>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    // Whoever writes a tombstone waits until the runs of everyone who looked for one are committed, and then sees them.
    let gate = if adds { write::TOMBSTONE_GATE } else { TOMBSTONE_GATE };
    statement(gate).execute(&mut *connection).await.map_err(failure)?;
    let found: Vec<(Uuid, String)> = select(TOMBSTONES).bind(uuids(ids)).fetch_all(connection).await.map_err(failure)?;
    found.into_iter().map(|(id, data)| Ok((RunId::from_uuid(id), json(&data, "tombstone of run", id)?))).collect()
}

async fn slot_holders(connection: &mut PgConnection, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    lock(connection, keys.iter().map(|key| format!("hopyard.slot/{key}")).collect()).await?;
    state::slot_holders(connection, keys).await
}

async fn budgets(connection: &mut PgConnection, keys: &[String]) -> Result<HashMap<String, Spent>> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    lock(connection, keys.iter().map(|key| format!("hopyard.budget/{key}")).collect()).await?;
    let found: Vec<(String, i64, i64)> = select(BUDGETS).bind(keys).fetch_all(connection).await.map_err(failure)?;
    Ok(found.into_iter().map(|(key, spent, open)| (key, Spent { spent, open })).collect())
}

async fn slot_members(connection: &mut PgConnection, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    lock(connection, keys.iter().map(|key| format!("hopyard.slot/{key}")).collect()).await?;
    state::slot_members(connection, keys).await
}

#[async_trait]
impl RunTx for RunTransaction {
    async fn now(&mut self) -> Result<DateTime<Utc>> {
        let now = scalar("SELECT clock_timestamp()").fetch_one(&mut *self.tx).await.map_err(failure);
        self.note(now)
    }

    async fn load(&mut self, ids: &[RunId]) -> Result<Vec<RunState>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let states = self.locked(ids).await;
        self.note(states)
    }

    async fn look(&mut self, ids: &[RunId]) -> Result<Vec<RunState>> {
        let states = self.states(state::RUNS, ids).await.map(|(states, _)| states);
        self.note(states)
    }

    async fn candidates(&mut self, query: &ClaimQuery) -> Result<Vec<(RunId, Name)>> {
        self.holds = true;
        let found = candidates(&mut self.tx, query).await;
        self.note(found)
    }

    async fn due(&mut self, now: DateTime<Utc>, limit: u32) -> Result<Vec<RunId>> {
        self.holds = true;
        let found = due(&mut self.tx, now, limit).await;
        self.note(found)
    }

    async fn claimed(&mut self, claim_id: Uuid) -> Result<Vec<RunId>> {
        let found = scalar(CLAIMED).bind(claim_id).fetch_all(&mut *self.tx).await.map_err(failure).map(rows::ids);
        self.note(found)
    }

    async fn keys(&mut self, asked: &[(Name, String)]) -> Result<HashMap<(Name, String), KeyRow>> {
        self.holds = true;
        let found = keys(&mut self.tx, asked).await;
        self.note(found)
    }

    async fn tombstones(&mut self, ids: &[RunId], adds: bool) -> Result<HashMap<RunId, Kill>> {
        self.holds = true;
        let found = tombstones(&mut self.tx, ids, adds).await;
        self.note(found)
    }

    async fn alias(&mut self, id: RunId) -> Result<Option<RunId>> {
        let found = scalar(ALIAS).bind(id.as_uuid()).fetch_optional(&mut *self.tx).await.map_err(failure);
        self.note(found.map(|run: Option<Uuid>| run.map(RunId::from_uuid)))
    }

    async fn statuses(&mut self, namespace: &Name, ids: &[RunId]) -> Result<HashMap<RunId, RunStatus>> {
        let found = state::statuses(&mut self.tx, namespace, ids).await.map(|found| found.into_iter().collect());
        self.note(found)
    }

    async fn slot_holders(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
        self.holds = true;
        let found = slot_holders(&mut self.tx, keys).await;
        self.note(found)
    }

    async fn slot_members(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
        self.holds = true;
        let found = slot_members(&mut self.tx, keys).await;
        self.note(found)
    }

    async fn budgets(&mut self, keys: &[String]) -> Result<HashMap<String, Spent>> {
        self.holds = true;
        let found = budgets(&mut self.tx, keys).await;
        self.note(found)
    }

    async fn plans(&mut self, hashes: &[String]) -> Result<HashMap<String, Arc<Plan>>> {
        let hashes: Vec<&str> = hashes.iter().map(String::as_str).collect();
        let found = self.plans.get(&mut self.tx, &hashes).await;
        self.note(found)
    }

    async fn receipt(&mut self, seq: u64, time_ns: i64) -> Result<Option<Receipt>> {
        let found: Result<Option<String>> =
            scalar(RECEIPT).bind(count(seq)).bind(time_ns).fetch_optional(&mut *self.tx).await.map_err(failure);
        let receipt = found.and_then(|text| text.map(|text| json(&text, "receipt", seq)).transpose());
        self.note(receipt)
    }

    async fn bound_runs(&mut self, executor: &Name) -> Result<Vec<RunId>> {
        let found = scalar(BOUND_RUNS).bind(executor.as_str()).fetch_all(&mut *self.tx).await.map_err(failure).map(rows::ids);
        self.note(found)
    }

    async fn session_workspace(&mut self, namespace: &Name, repo: Option<&str>, session: &Name) -> Result<Option<WorkspaceRow>> {
        let found: Result<Option<Workspace>> =
            select(SESSION).bind(namespace.as_str()).bind(session.as_str()).bind(repo).fetch_optional(&mut *self.tx).await.map_err(failure);
        let row = found.and_then(|row| row.map(Workspace::read).transpose());
        self.note(row)
    }

    async fn workspaces(&mut self, ids: &[String]) -> Result<Vec<WorkspaceRow>> {
        let found = select(WORKSPACES).bind(ids.to_vec()).fetch_all(&mut *self.tx).await.map_err(failure).and_then(Workspace::read_all);
        self.note(found)
    }

    async fn write(&mut self, writes: &Writes) -> Result<()> {
        let done = write::apply(&mut self.tx, &self.seen, writes).await;
        self.note(done)
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        if self.failed {
            return Err(Error::Refused("a transaction in which something failed cannot be committed".to_owned()));
        }
        self.tx.commit().await.map_err(failure)
    }
}
