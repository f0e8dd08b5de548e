//! Reads for an audit of the shared engine.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::run::{Run, WorkspaceRow};
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use uuid::Uuid;

use super::rows::{Workspace, count, counted, ids, json, uuids, word, workspace_columns};
use super::{Postgres, failure, scalar, select, state};
use crate::Result;
use crate::audit::{AuditReader, AuditedKey, CrowdedSlot, Histories, Overdue, Touch};

const RUNS_FROM: &str = "SELECT id FROM hopyard_runs.runs WHERE id >= $1 ORDER BY id LIMIT $2";
const OPEN_RUNS: &str = "SELECT id FROM hopyard_runs.runs WHERE finished_at IS NULL AND id >= $1 AND id < $2 ORDER BY id LIMIT $3";
const TOUCHED: &str = "SELECT at, run_id, first_seq FROM hopyard_runs.events WHERE (at, run_id, first_seq) > ($1, $2, $3) \
     ORDER BY at, run_id, first_seq LIMIT $4";
const RUNS: &str = "SELECT id, data::text, clock_timestamp() FROM hopyard_runs.runs WHERE id = ANY($1) ORDER BY id";
const PAGES: &str = "SELECT run_id, page::text FROM hopyard_runs.events WHERE run_id = ANY($1) ORDER BY run_id, first_seq";
// Columns are copies of parts of the documents, for filters and guards: a list and a single view must not differ.
const DIFFERING: &str = "SELECT id, 'run' FROM hopyard_runs.runs WHERE id = ANY($1) AND ( \
        namespace IS DISTINCT FROM data ->> 'namespace' OR workflow IS DISTINCT FROM data ->> 'workflow' \
        OR status IS DISTINCT FROM data ->> 'status' OR pending_reason IS DISTINCT FROM data ->> 'pending_reason' \
        OR failure_code IS DISTINCT FROM data ->> 'failure_code' OR event_seq IS DISTINCT FROM (data ->> 'event_seq')::bigint \
        OR generation IS DISTINCT FROM (data ->> 'generation')::bigint OR executor IS DISTINCT FROM data ->> 'executor' \
        OR cost_microusd IS DISTINCT FROM (data #>> '{usage,cost_microusd}')::bigint OR turns IS DISTINCT FROM (data #>> '{usage,turns}')::bigint \
        OR tokens_input IS DISTINCT FROM (data #>> '{usage,tokens,input}')::bigint \
        OR tokens_output IS DISTINCT FROM (data #>> '{usage,tokens,output}')::bigint \
        OR (finished_at IS NULL) <> (data ->> 'finished_at' IS NULL) OR (kill_requested_at IS NULL) <> (data ->> 'kill' IS NULL)) \
     UNION ALL SELECT run_id, 'step ' || id FROM hopyard_runs.steps WHERE run_id = ANY($1) AND ( \
        id IS DISTINCT FROM data ->> 'id' OR status IS DISTINCT FROM data ->> 'status' OR pool IS DISTINCT FROM data ->> 'pool' \
        OR bound_to IS DISTINCT FROM data ->> 'bound_to' OR (claimable_at IS NULL) <> (data ->> 'claimable_at' IS NULL)) \
     UNION ALL SELECT run_id, 'attempt ' || step || '.' || n FROM hopyard_runs.attempts WHERE run_id = ANY($1) AND ( \
        step IS DISTINCT FROM data ->> 'step' OR n IS DISTINCT FROM (data ->> 'n')::bigint OR status IS DISTINCT FROM data ->> 'status' \
        OR executor IS DISTINCT FROM data ->> 'executor' OR (finished_at IS NULL) <> (data ->> 'finished_at' IS NULL)) \
     UNION ALL SELECT id, 'slots' FROM hopyard_runs.runs r WHERE id = ANY($1) \
        AND (SELECT count(*) FROM hopyard_runs.run_slots w WHERE w.run_id = r.id AND w.held) \
            <> CASE WHEN finished_at IS NULL THEN \
                (SELECT count(*) FROM json_array_elements(r.data -> 'slots') s WHERE (s ->> 'held')::boolean) ELSE 0 END";
const KEYS: &str = "SELECT namespace, key, run_id, EXISTS (SELECT 1 FROM hopyard_runs.runs r WHERE r.id = k.run_id AND r.namespace = k.namespace) \
     FROM hopyard_runs.keys k WHERE (namespace, key) > ($1, $2) ORDER BY namespace, key LIMIT $3";
const RECEIPTS: &str =
    "SELECT data::text, time_ns FROM hopyard_runs.receipts WHERE (seq, time_ns) > ($1, $2) ORDER BY seq, time_ns LIMIT $3";
const RECEIPT_NUMBERS: &str = "SELECT DISTINCT seq FROM hopyard_runs.receipts WHERE seq >= $1 AND seq <= $2 AND time_ns >= $3 ORDER BY seq";
const FIRST_RECEIPT: &str = "SELECT seq FROM hopyard_runs.receipts WHERE time_ns >= $1 ORDER BY seq LIMIT 1";
const OVERDUE: &str = "SELECT run_id, kind, at FROM hopyard_runs.due WHERE at < $1 ORDER BY at, run_id LIMIT $2";
const CROWDED: &str =
    "SELECT key, count(*), max(max) FROM hopyard_runs.run_slots WHERE held GROUP BY key HAVING count(*) > max(max) ORDER BY key LIMIT $1";
const INVENTORY: &str =
    concat!("SELECT ", workspace_columns!(), " FROM hopyard_runs.workspaces WHERE id > $1 AND status <> 'removed' ORDER BY id LIMIT $2");
const INVENTORY_OF: &str = concat!("SELECT ", workspace_columns!(), " FROM hopyard_runs.workspaces WHERE id = ANY($1) ORDER BY id");

#[async_trait]
impl AuditReader for Postgres {
    async fn runs_from(&self, from: RunId, limit: u32) -> Result<Vec<RunId>> {
        let mut tx = self.read().await?;
        Ok(ids(scalar(RUNS_FROM).bind(from.as_uuid()).bind(i64::from(limit)).fetch_all(&mut *tx).await.map_err(failure)?))
    }

    async fn open_runs(&self, from: RunId, to: RunId, limit: u32) -> Result<Vec<RunId>> {
        let mut tx = self.read().await?;
        let query = scalar(OPEN_RUNS).bind(from.as_uuid()).bind(to.as_uuid()).bind(i64::from(limit));
        Ok(ids(query.fetch_all(&mut *tx).await.map_err(failure)?))
    }

    async fn touched(&self, behind: &Touch, limit: u32) -> Result<Vec<Touch>> {
        let mut tx = self.read().await?;
        let query = select(TOUCHED).bind(behind.at).bind(behind.run.as_uuid()).bind(count(behind.first_seq)).bind(i64::from(limit));
        let found: Vec<(DateTime<Utc>, Uuid, i64)> = query.fetch_all(&mut *tx).await.map_err(failure)?;
        Ok(found.into_iter().map(|(at, run, first)| Touch { at, run: RunId::from_uuid(run), first_seq: counted(first) }).collect())
    }

    async fn histories(&self, wanted: &[RunId]) -> Result<Histories> {
        let mut tx = self.read().await?;
        let list = uuids(wanted);
        let found: Vec<(Uuid, String, DateTime<Utc>)> = select(RUNS).bind(&list).fetch_all(&mut *tx).await.map_err(failure)?;
        let now = found.iter().map(|(.., at)| *at).max().unwrap_or_else(Utc::now);
        let runs: Vec<Run> = found.iter().map(|(id, data, _)| json(data, "run", id)).collect::<Result<_>>()?;
        let (states, _) = state::states(&mut tx, &self.plans, runs).await?;
        let pages: Vec<(Uuid, String)> = select(PAGES).bind(&list).fetch_all(&mut *tx).await.map_err(failure)?;
        let mut events: HashMap<RunId, Vec<Event>> = HashMap::with_capacity(states.len());
        for (id, page) in pages {
            let mut page: Vec<Event> = json(&page, "page of events of run", id)?;
            events.entry(RunId::from_uuid(id)).or_default().append(&mut page);
        }
        let differing: Vec<(Uuid, String)> = select(DIFFERING).bind(&list).fetch_all(&mut *tx).await.map_err(failure)?;
        let with_events = |state: hopyard_contract::run::RunState| {
            let events = events.remove(&state.run.id).unwrap_or_default();
            (state, events)
        };
        Ok(Histories {
            now,
            runs: states.into_iter().map(with_events).collect(),
            differing: differing.into_iter().map(|(id, row)| (RunId::from_uuid(id), row)).collect(),
        })
    }

    async fn keys(&self, behind: Option<(&Name, &str)>, limit: u32) -> Result<Vec<AuditedKey>> {
        let mut tx = self.read().await?;
        let (namespace, key) = behind.map_or(("", ""), |(namespace, key)| (namespace.as_str(), key));
        let query = select(KEYS).bind(namespace).bind(key).bind(i64::from(limit));
        let found: Vec<(String, String, Uuid, bool)> = query.fetch_all(&mut *tx).await.map_err(failure)?;
        let read = |(namespace, key, run, known): (String, String, Uuid, bool)| {
            Ok(AuditedKey { namespace: word(&namespace)?, key, run: RunId::from_uuid(run), known })
        };
        found.into_iter().map(read).collect()
    }

    async fn receipts(&self, behind: (u64, i64), limit: u32) -> Result<Vec<(Receipt, i64)>> {
        let mut tx = self.read().await?;
        let query = select(RECEIPTS).bind(count(behind.0)).bind(behind.1).bind(i64::from(limit));
        let found: Vec<(String, i64)> = query.fetch_all(&mut *tx).await.map_err(failure)?;
        found.into_iter().map(|(data, time)| Ok((json(&data, "receipt at", time)?, time))).collect()
    }

    async fn receipt_numbers(&self, from: u64, to: u64, since_ns: i64) -> Result<Vec<u64>> {
        let mut tx = self.read().await?;
        let query = scalar(RECEIPT_NUMBERS).bind(count(from)).bind(count(to)).bind(since_ns);
        let found: Vec<i64> = query.fetch_all(&mut *tx).await.map_err(failure)?;
        Ok(found.into_iter().map(counted).collect())
    }

    async fn first_receipt(&self, since_ns: i64) -> Result<Option<u64>> {
        let mut tx = self.read().await?;
        let first: Option<i64> = scalar(FIRST_RECEIPT).bind(since_ns).fetch_optional(&mut *tx).await.map_err(failure)?;
        Ok(first.map(counted))
    }

    async fn overdue(&self, before: DateTime<Utc>, limit: u32) -> Result<Vec<Overdue>> {
        let mut tx = self.read().await?;
        let query = select(OVERDUE).bind(before).bind(i64::from(limit));
        let found: Vec<(Uuid, String, DateTime<Utc>)> = query.fetch_all(&mut *tx).await.map_err(failure)?;
        Ok(found.into_iter().map(|(run, kind, at)| Overdue { run: RunId::from_uuid(run), kind, at }).collect())
    }

    async fn crowded_slots(&self, limit: u32) -> Result<Vec<CrowdedSlot>> {
        let mut tx = self.read().await?;
        let found: Vec<(String, i64, i64)> = select(CROWDED).bind(i64::from(limit)).fetch_all(&mut *tx).await.map_err(failure)?;
        Ok(found.into_iter().map(|(key, holders, limit)| CrowdedSlot { key, holders: counted(holders), limit: counted(limit) }).collect())
    }

    async fn inventory(&self, behind: &str, limit: u32) -> Result<Vec<WorkspaceRow>> {
        let mut tx = self.read().await?;
        let query = select(INVENTORY).bind(behind.to_owned()).bind(i64::from(limit));
        Workspace::read_all(query.fetch_all(&mut *tx).await.map_err(failure)?)
    }

    async fn inventory_of(&self, wanted: &[String]) -> Result<Vec<WorkspaceRow>> {
        let mut tx = self.read().await?;
        Workspace::read_all(select(INVENTORY_OF).bind(wanted.to_vec()).fetch_all(&mut *tx).await.map_err(failure)?)
    }
}
