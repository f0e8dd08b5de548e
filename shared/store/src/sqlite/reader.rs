//! The readers' side of an embedded store, in any process: connections that cannot write.

use std::sync::Arc;
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
use rusqlite::{Connection, params_from_iter};

use super::definitions::{self, Plans};
use super::listing::{self, Query};
use super::pool::Pool;
use super::reading;
use super::rows::{ExecutorRecord, WorkspaceRecord, decode, micros, signed, unsigned, word};
use super::statement::{rows, value, values};
use crate::Result;
use crate::read::{Reader, RunFilter, UsageBy, UsageRow};
use crate::runs::{Claimable, ExecutorRow};

// Keys of a run's slots that others hold to the limit.
pub(super) const TAKEN: &str = "select w.key from run_slots w where w.run_id = ?1 and w.held = 0 \
     and w.max <= (select count(*) from run_slots h where h.key = w.key and h.held = 1) limit 1";
pub(super) const EVENTS: &str = "select page from events where run_id = ?1 and exists (select 1 from runs where id = ?1 and namespace = ?2) \
     and first_seq >= coalesce((select first_seq from events where run_id = ?1 and first_seq <= ?3 + 1 order by first_seq desc limit 1), 0) \
     order by first_seq limit ?4";
pub(super) const RECEIPT: &str = "select data from receipts where seq = ?1 and namespace = ?2 order by time_ns desc limit 1";
pub(super) const EXECUTORS: &str = "select * from executors order by id";
pub(super) const WORKSPACES: &str = "select * from workspaces where namespace = ?1 and (status = ?2 or (?2 is null and status <> 'removed')) \
     order by created_at desc, id desc limit ?3";
/// Sums by a column.
macro_rules! usage {
    ($by:literal) => {
        concat!(
            "select ",
            $by,
            ", count(*), case when count(cost_microusd) = count(*) then sum(cost_microusd) end, sum(tokens_input), \
     sum(tokens_output), sum(tokens_cache_read), sum(tokens_cache_write), sum(turns), sum(tool_calls) \
     from runs indexed by runs_by_namespace where namespace = ?1 and id >= ?2 and id < ?3 and created_at >= ?4 and created_at < ?5",
            " group by 1 order by 1"
        )
    };
}
pub(super) const USAGE: &str = usage!("workflow");
pub(super) const USAGE_OF_REPOSITORIES: &str = usage!("coalesce(repo_url, '')");
pub(super) const LIVE_COUNTS: &str =
    "select namespace, status, count(*) from runs where finished_at is null group by namespace, status order by namespace, status";
pub(super) const SCHEMA: &str = "select t.name, v.version from sqlite_schema t cross join (select max(version) as version from _sqlx_migrations) v \
     where t.type = 'table' and t.name not like 'sqlite\\_%' escape '\\' and t.name <> '_sqlx_migrations' order by t.name";

type Sums = (String, i64, Option<i64>, i64, i64, i64, i64, i64, i64);

/// Reads of other services.
#[derive(Debug)]
pub(crate) struct Reads {
    pool: Pool,
    plans: Arc<Plans>,
}

impl Reads {
    pub(super) fn new(pool: Pool, plans: Arc<Plans>) -> Self {
        Self { pool, plans }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn plans(&self) -> &Arc<Plans> {
        &self.plans
    }
}

/// A run as the readers see it.
fn state(connection: &Connection, plans: &Plans, namespace: &Name, id: RunId) -> Result<Option<RunState>> {
    let id = reading::alias(connection, id)?.unwrap_or(id);
    let found = reading::states(connection, plans, &[id])?.pop();
    let Some(mut state) = found.filter(|s| s.run.namespace == *namespace) else { return Ok(None) };
    if state.run.status == RunStatus::Pending
        && state.run.slots.iter().any(|s| !s.held)
        && value::<String>(connection, TAKEN, [id.as_uuid()])?.is_some()
    {
        await_slot(&mut state);
    }
    Ok(Some(state))
}

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
impl Reader for Reads {
    async fn run(&self, namespace: &Name, id: RunId) -> Result<Option<RunState>> {
        let (plans, namespace) = (self.plans.clone(), namespace.clone());
        self.pool.snapshot(move |connection| state(connection, &plans, &namespace, id)).await
    }

    async fn runs(&self, namespace: &Name, filter: &RunFilter) -> Result<Vec<Run>> {
        let Query { sql, values: params } = listing::page(namespace, filter);
        let rows: Vec<String> = self.pool.read(move |connection| values(connection, &sql, params_from_iter(params))).await?;
        rows.iter().map(|data| decode("run", data)).collect()
    }

    async fn events(&self, namespace: &Name, id: RunId, after: u64, limit: u32) -> Result<Vec<Event>> {
        let params = (id.as_uuid(), namespace.to_string(), signed(after), limit);
        let pages: Vec<String> = self.pool.read(move |connection| values(connection, EVENTS, params)).await?;
        let mut events = Vec::new();
        for page in pages {
            let page: Vec<Event> = decode(format_args!("page of events of run {id}"), &page)?;
            events.extend(page.into_iter().filter(|e| e.seq > after));
        }
        events.truncate(limit as usize);
        Ok(events)
    }

    async fn receipt(&self, namespace: &Name, seq: u64) -> Result<Option<Receipt>> {
        let params = (signed(seq), namespace.to_string());
        let data: Option<String> = self.pool.read(move |connection| value(connection, RECEIPT, params)).await?;
        data.map(|data| decode(format_args!("receipt {seq}"), &data)).transpose()
    }

    async fn workflows(&self, namespace: &Name, after: Option<&Name>, limit: u32) -> Result<Vec<WorkflowView>> {
        let (namespace, after) = (namespace.clone(), after.cloned());
        self.pool.read(move |connection| definitions::workflows(connection, &namespace, after.as_ref(), limit)).await
    }

    async fn workflow(&self, namespace: &Name, name: &Name, version: Option<u32>) -> Result<Option<WorkflowView>> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.pool.read(move |connection| definitions::workflow(connection, &namespace, &name, version)).await
    }

    async fn workflow_versions(&self, namespace: &Name, name: &Name) -> Result<Vec<WorkflowView>> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.pool.read(move |connection| definitions::versions(connection, &namespace, &name)).await
    }

    async fn definition(&self, namespace: &Name, hash: &str) -> Result<Option<String>> {
        let (namespace, hash) = (namespace.clone(), hash.to_owned());
        self.pool.read(move |connection| definitions::source(connection, &namespace, &hash)).await
    }

    async fn executors(&self) -> Result<Vec<ExecutorRow>> {
        let rows: Vec<ExecutorRecord> = self.pool.read(|connection| rows(connection, EXECUTORS, [])).await?;
        rows.into_iter().map(ExecutorRecord::read).collect()
    }

    async fn workspaces(&self, namespace: &Name, status: Option<WorkspaceStatus>, limit: u32) -> Result<Vec<WorkspaceRow>> {
        let params = (namespace.to_string(), status.map(WorkspaceStatus::as_str), limit);
        let rows: Vec<WorkspaceRecord> = self.pool.read(move |connection| rows(connection, WORKSPACES, params)).await?;
        rows.into_iter().map(WorkspaceRecord::read).collect()
    }

    async fn usage(&self, namespace: &Name, from: DateTime<Utc>, to: DateTime<Utc>, by: UsageBy) -> Result<Vec<UsageRow>> {
        let params = (namespace.to_string(), RunId::floor_of(from).as_uuid(), listing::ceiling(to).as_uuid(), micros(from), micros(to));
        let rows: Vec<Sums> = self
            .pool
            .read(move |connection| rows(connection, if by == UsageBy::Workflow { USAGE } else { USAGE_OF_REPOSITORIES }, params))
            .await?;
        let read = |(name, runs, cost, input, output, cache_read, cache_write, turns, tool_calls): Sums| {
            let tokens = Tokens {
                input: unsigned(input)?,
                output: unsigned(output)?,
                cache_read: unsigned(cache_read)?,
                cache_write: unsigned(cache_write)?,
            };
            let usage = Usage {
                cost_microusd: cost.map(unsigned).transpose()?,
                tokens,
                turns: unsigned(turns)?,
                tool_calls: unsigned(tool_calls)?,
            };
            Ok(UsageRow { name, runs: unsigned(runs)?, usage })
        };
        rows.into_iter().map(read).collect()
    }

    async fn slot_holders(&self, slot: &Slot) -> Result<Vec<RunId>> {
        let key = slot.key.clone();
        let read = move |connection: &Connection| reading::slot_holders(connection, std::slice::from_ref(&key));
        Ok(self.pool.read(read).await?.remove(&slot.key).unwrap_or_default())
    }

    async fn statuses(&self, namespace: &Name, ids: &[RunId]) -> Result<Vec<(RunId, RunStatus)>> {
        let (namespace, ids) = (namespace.clone(), ids.to_owned());
        self.pool.read(move |connection| reading::statuses(connection, &namespace, &ids)).await
    }

    async fn claimable(&self) -> Result<Vec<Claimable>> {
        self.pool.read(move |connection| reading::claimable(connection, Utc::now())).await
    }

    async fn live_counts(&self) -> Result<Vec<(Name, RunStatus, u64)>> {
        let rows: Vec<(String, String, i64)> = self.pool.read(|connection| rows(connection, LIVE_COUNTS, [])).await?;
        rows.into_iter().map(|(namespace, status, count)| Ok((word(&namespace)?, word(&status)?, unsigned(count)?))).collect()
    }

    async fn outbox_age_ms(&self) -> Result<u64> {
        self.pool.read(move |connection| reading::outbox_age_ms(connection, Utc::now())).await
    }

    async fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>> {
        self.pool.read(move |connection| reading::events_since(connection, since, limit)).await
    }

    async fn wait(&self) -> Result<Duration> {
        let began = Instant::now();
        self.pool.read(|_| Ok(())).await?;
        Ok(began.elapsed())
    }

    async fn schema(&self) -> Result<Vec<(String, i64)>> {
        self.pool.read(|connection| rows(connection, SCHEMA, [])).await
    }
}
