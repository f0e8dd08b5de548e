//! The readers' side: short read-only transactions with one snapshot and a limit of 2 s.

pub(super) mod listing;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::run::{Run, RunState, Slot, WorkspaceRow, WorkspaceStatus};
use hopyard_contract::status::{PendingReason, RunStatus};
use hopyard_contract::submit::Receipt;
use hopyard_contract::usage::Tokens;
use hopyard_contract::view::WorkflowView;
use hopyard_contract::{Name, RunId, Usage};
use uuid::Uuid;

use super::rows::{Workspace, count, counted, json, slot_taken, small, word, workspace_columns};
use super::{Postgres, definitions, failure, scalar, select, state};
use crate::Result;
use crate::read::{Reader, RunFilter, UsageBy, UsageRow};
use crate::runs::{Claimable, ExecutorRow};

const RUN: &str = concat!(
    "SELECT data::text, ",
    slot_taken!("r.id"),
    " FROM hopyard_runs.runs r \
     WHERE id = coalesce((SELECT a.run_id FROM hopyard_runs.aliases a WHERE a.id = $1), $1) AND namespace = $2"
);
const EVENTS: &str = "SELECT e.run_id, e.page::text FROM hopyard_runs.events e \
     WHERE e.run_id = $1 AND EXISTS (SELECT 1 FROM hopyard_runs.runs r WHERE r.id = $1 AND r.namespace = $2) \
     AND e.first_seq >= coalesce((SELECT f.first_seq FROM hopyard_runs.events f WHERE f.run_id = $1 AND f.first_seq <= $3 + 1 \
     ORDER BY f.first_seq DESC LIMIT 1), 0) ORDER BY e.first_seq LIMIT $4";
const RECEIPT: &str = "SELECT data::text FROM hopyard_runs.receipts WHERE seq = $1 AND namespace = $2 ORDER BY time_ns DESC LIMIT 1";
const EXECUTORS: &str = "SELECT id, host, pool, slots, version, draining, seen_at FROM hopyard_runs.executors ORDER BY id";
const WORKSPACES: &str = concat!(
    "SELECT ",
    workspace_columns!(),
    " FROM hopyard_runs.workspaces WHERE namespace = $1 AND (status = $2 OR ($2 IS NULL AND status <> 'removed')) ORDER BY created_at DESC, id DESC LIMIT $3"
);
/// Sums of a bigint are numeric; one beyond a bigint stays at its end.
/// Sums by a column; a sum that nobody could hold is the largest that a number can.
macro_rules! usage {
    ($by:literal) => {
        concat!(
            "SELECT ",
            $by,
            ", count(*), \
     CASE WHEN count(cost_microusd) = count(*) THEN least(sum(cost_microusd), 9223372036854775807)::bigint END, \
     least(sum(tokens_input), 9223372036854775807)::bigint, least(sum(tokens_output), 9223372036854775807)::bigint, \
     least(sum(tokens_cache_read), 9223372036854775807)::bigint, least(sum(tokens_cache_write), 9223372036854775807)::bigint, \
     least(sum(turns), 9223372036854775807)::bigint, least(sum(tool_calls), 9223372036854775807)::bigint \
     FROM hopyard_runs.runs WHERE namespace = $1 AND id >= $2 AND id < $3 AND created_at >= $4 AND created_at < $5",
            " GROUP BY 1 ORDER BY 1"
        )
    };
}
pub(super) const USAGE: &str = usage!("workflow");
pub(super) const USAGE_OF_REPOSITORIES: &str = usage!("coalesce(repo_url, '')");
pub(super) const LIVE_COUNTS: &str = "SELECT namespace, status, count(*) FROM hopyard_runs.runs WHERE finished_at IS NULL GROUP BY namespace, status ORDER BY namespace, status";
const SCHEMA: &str = "SELECT t.tablename::text, (SELECT max(version) FROM hopyard_runs.migrations) FROM pg_catalog.pg_tables t \
     WHERE t.schemaname = 'hopyard_runs' AND t.tablename <> 'migrations' ORDER BY t.tablename::text COLLATE \"C\"";

type Sums = (String, i64, Option<i64>, i64, i64, i64, i64, i64, i64);
type Executor = (String, String, String, i64, String, bool, DateTime<Utc>);

/// Says that a run waits for its slot, unless something else has to happen first. Nobody writes this down when it comes
/// about, since that would change every waiting run whenever a slot is taken.
fn await_slot(state: &mut RunState) {
    let waits = |reason: &Option<PendingReason>| matches!(reason, None | Some(PendingReason::AwaitingExecutor));
    if waits(&state.run.pending_reason) {
        state.run.pending_reason = Some(PendingReason::AwaitingSlot);
    }
    for step in state.steps.iter_mut().filter(|s| s.claimable_at.is_some() && waits(&s.pending_reason)) {
        step.pending_reason = Some(PendingReason::AwaitingSlot);
    }
}

#[async_trait]
impl Reader for Postgres {
    async fn run(&self, namespace: &Name, id: RunId) -> Result<Option<RunState>> {
        let mut tx = self.read().await?;
        let found: Option<(String, bool)> =
            select(RUN).bind(id.as_uuid()).bind(namespace.as_str()).fetch_optional(&mut *tx).await.map_err(failure)?;
        let Some((data, taken)) = found else { return Ok(None) };
        let (mut states, _) = state::states(&mut tx, &self.plans, vec![json(&data, "run", id)?]).await?;
        let mut state = states.pop();
        if let Some(state) = state.as_mut().filter(|state| taken && state.run.status == RunStatus::Pending) {
            await_slot(state);
        }
        Ok(state)
    }

    async fn runs(&self, namespace: &Name, filter: &RunFilter) -> Result<Vec<Run>> {
        let mut tx = self.read().await?;
        let mut query = listing::page(namespace, filter);
        let found: Vec<(Uuid, String)> = query.build_query_as().persistent(false).fetch_all(&mut *tx).await.map_err(failure)?;
        found.into_iter().map(|(id, data)| json(&data, "run", id)).collect()
    }

    async fn events(&self, namespace: &Name, id: RunId, after: u64, limit: u32) -> Result<Vec<Event>> {
        let mut tx = self.read().await?;
        let pages = select(EVENTS)
            .bind(id.as_uuid())
            .bind(namespace.as_str())
            .bind(count(after.min(u64::from(u32::MAX) << 20)))
            // The first page may end before the first event that is wanted.
            .bind(i64::from(limit) + 1)
            .fetch_all(&mut *tx)
            .await
            .map_err(failure)?;
        let mut events = state::events_of(pages)?;
        events.retain(|event| event.seq > after);
        events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(events)
    }

    async fn receipt(&self, namespace: &Name, seq: u64) -> Result<Option<Receipt>> {
        let mut tx = self.read().await?;
        let found: Option<String> =
            scalar(RECEIPT).bind(count(seq)).bind(namespace.as_str()).fetch_optional(&mut *tx).await.map_err(failure)?;
        found.map(|data| json(&data, "receipt", seq)).transpose()
    }

    async fn workflows(&self, namespace: &Name, after: Option<&Name>, limit: u32) -> Result<Vec<WorkflowView>> {
        let mut tx = self.read().await?;
        definitions::workflows(&mut tx, namespace, after, limit).await
    }

    async fn workflow(&self, namespace: &Name, name: &Name, version: Option<u32>) -> Result<Option<WorkflowView>> {
        let mut tx = self.read().await?;
        definitions::workflow(&mut tx, namespace, name, version).await
    }

    async fn workflow_versions(&self, namespace: &Name, name: &Name) -> Result<Vec<WorkflowView>> {
        let mut tx = self.read().await?;
        definitions::versions(&mut tx, namespace, name).await
    }

    async fn definition(&self, namespace: &Name, hash: &str) -> Result<Option<String>> {
        let mut tx = self.read().await?;
        definitions::source(&mut tx, namespace, hash).await
    }

    async fn executors(&self) -> Result<Vec<ExecutorRow>> {
        let mut tx = self.read().await?;
        let found: Vec<Executor> = select(EXECUTORS).fetch_all(&mut *tx).await.map_err(failure)?;
        let read = |(id, host, pool, slots, version, draining, seen_at): Executor| {
            Ok(ExecutorRow { id: word(&id)?, host: word(&host)?, pool: word(&pool)?, slots: small(slots), version, draining, seen_at })
        };
        found.into_iter().map(read).collect()
    }

    async fn workspaces(&self, namespace: &Name, status: Option<WorkspaceStatus>, limit: u32) -> Result<Vec<WorkspaceRow>> {
        let mut tx = self.read().await?;
        let query = select(WORKSPACES).bind(namespace.as_str()).bind(status.map(WorkspaceStatus::as_str)).bind(i64::from(limit));
        Workspace::read_all(query.fetch_all(&mut *tx).await.map_err(failure)?)
    }

    async fn usage(&self, namespace: &Name, from: DateTime<Utc>, to: DateTime<Utc>, by: UsageBy) -> Result<Vec<UsageRow>> {
        let mut tx = self.read().await?;
        let found: Vec<Sums> = select(if by == UsageBy::Workflow { USAGE } else { USAGE_OF_REPOSITORIES })
            .bind(namespace.as_str())
            .bind(RunId::floor_of(from).as_uuid())
            .bind(listing::ceiling(to).as_uuid())
            .bind(from)
            .bind(to)
            .fetch_all(&mut *tx)
            .await
            .map_err(failure)?;
        let read = |(name, runs, cost, input, output, cache_read, cache_write, turns, tool_calls): Sums| {
            let tokens = Tokens {
                input: counted(input),
                output: counted(output),
                cache_read: counted(cache_read),
                cache_write: counted(cache_write),
            };
            let usage = Usage { cost_microusd: cost.map(counted), tokens, turns: counted(turns), tool_calls: counted(tool_calls) };
            Ok(UsageRow { name, runs: counted(runs), usage })
        };
        found.into_iter().map(read).collect()
    }

    async fn slot_holders(&self, slot: &Slot) -> Result<Vec<RunId>> {
        let mut tx = self.read().await?;
        let mut holders = state::slot_holders(&mut tx, std::slice::from_ref(&slot.key)).await?;
        Ok(holders.remove(&slot.key).unwrap_or_default())
    }

    async fn statuses(&self, namespace: &Name, ids: &[RunId]) -> Result<Vec<(RunId, RunStatus)>> {
        let mut tx = self.read().await?;
        state::statuses(&mut tx, namespace, ids).await
    }

    async fn claimable(&self) -> Result<Vec<Claimable>> {
        let mut tx = self.read().await?;
        state::claimable(&mut tx).await
    }

    async fn live_counts(&self) -> Result<Vec<(Name, RunStatus, u64)>> {
        let mut tx = self.read().await?;
        let found: Vec<(String, String, i64)> = select(LIVE_COUNTS).fetch_all(&mut *tx).await.map_err(failure)?;
        found.into_iter().map(|(namespace, status, number)| Ok((word(&namespace)?, word(&status)?, counted(number)))).collect()
    }

    async fn outbox_age_ms(&self) -> Result<u64> {
        let mut tx = self.read().await?;
        state::outbox_age_ms(&mut tx).await
    }

    async fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>> {
        let mut tx = self.read().await?;
        state::events_since(&mut tx, since, limit).await
    }

    async fn wait(&self) -> Result<Duration> {
        let began = Instant::now();
        self.pool.acquire().await.map_err(failure)?;
        Ok(began.elapsed())
    }

    async fn schema(&self) -> Result<Vec<(String, i64)>> {
        let mut tx = self.read().await?;
        select(SCHEMA).fetch_all(&mut *tx).await.map_err(failure)
    }
}
