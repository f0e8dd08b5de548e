//! The scheduler's side outside of its transactions.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::Name;
use hopyard_contract::event::Event;
use hopyard_contract::message::{PutDefinition, PutDefinitionReply};
use hopyard_contract::run::{WorkspaceRow, WorkspaceStatus};

use super::rows::{Workspace, json, workspace_columns};
use super::transaction::RunTransaction;
use super::{Postgres, definitions, failure, scalar, select, state, statement};
use crate::Result;
use crate::runs::{Claimable, OutboxRow, RunStore, RunTx};

pub(super) const NEXT_DUE: &str = "SELECT (extract(epoch FROM min(at) - clock_timestamp()) * 1000000)::bigint FROM hopyard_runs.due";
pub(super) const OUTBOX: &str = "SELECT id, at, messages::text FROM hopyard_runs.outbox \
     WHERE at <= clock_timestamp() - $1::bigint * interval '1 millisecond' ORDER BY at, id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED";
const WORKSPACES_OF_HOST: &str = concat!(
    "SELECT ",
    workspace_columns!(),
    " FROM hopyard_runs.workspaces WHERE host = $1 AND status = $2 ORDER BY created_at, id LIMIT $3"
);
const WORKSPACES_OF_STATUS: &str =
    concat!("SELECT ", workspace_columns!(), " FROM hopyard_runs.workspaces WHERE status = $1 ORDER BY created_at, id LIMIT $2");
/// Small steps: what is left over goes with the next call.
const RETIRE_TOMBSTONES: &str = "DELETE FROM hopyard_runs.tombstones WHERE run_id IN (SELECT run_id FROM hopyard_runs.tombstones \
     WHERE at < clock_timestamp() - interval '1 day' ORDER BY at LIMIT 1000 FOR UPDATE SKIP LOCKED)";
/// Longest age that an interval can hold here: a hundred years.
const LONGEST_AGE_MS: u64 = 100 * 366 * 24 * 3600 * 1000;

#[async_trait]
impl RunStore for Postgres {
    async fn begin(&self) -> Result<Box<dyn RunTx>> {
        Ok(Box::new(RunTransaction::new(self.begin_write().await?, Arc::clone(&self.plans))))
    }

    async fn next_due(&self) -> Result<Option<TimeDelta>> {
        let mut tx = self.read().await?;
        let micros: Option<i64> = scalar(NEXT_DUE).fetch_one(&mut *tx).await.map_err(failure)?;
        Ok(micros.map(TimeDelta::microseconds))
    }

    async fn claimable(&self) -> Result<Vec<Claimable>> {
        let mut tx = self.read().await?;
        state::claimable(&mut tx).await
    }

    async fn outbox(&self, age_ms: u64, limit: u32) -> Result<Vec<OutboxRow>> {
        let mut tx = self.begin_write().await?;
        let age = i64::try_from(age_ms.min(LONGEST_AGE_MS)).unwrap_or(i64::MAX);
        let found: Vec<(i64, DateTime<Utc>, String)> =
            select(OUTBOX).bind(age).bind(i64::from(limit)).fetch_all(&mut *tx).await.map_err(failure)?;
        tx.commit().await.map_err(failure)?;
        found.into_iter().map(|(id, at, messages)| Ok(OutboxRow { id, at, messages: json(&messages, "outbox row", id)? })).collect()
    }

    async fn outbox_age_ms(&self) -> Result<u64> {
        let mut tx = self.read().await?;
        state::outbox_age_ms(&mut tx).await
    }

    async fn put_definition(&self, put: &PutDefinition) -> Result<PutDefinitionReply> {
        let mut tx = self.begin_write().await?;
        let reply = definitions::put(&mut tx, put).await?;
        tx.commit().await.map_err(failure)?;
        Ok(reply)
    }

    async fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>> {
        let mut tx = self.read().await?;
        let mut events = state::events_since(&mut tx, since, limit).await?;
        events.sort_by_key(|event| (event.run_id, event.seq));
        Ok(events)
    }

    async fn workspaces(&self, host: Option<&Name>, status: WorkspaceStatus, limit: u32) -> Result<Vec<WorkspaceRow>> {
        let mut tx = self.read().await?;
        let query = match host {
            Some(host) => select(WORKSPACES_OF_HOST).bind(host.as_str()).bind(status.as_str()),
            None => select(WORKSPACES_OF_STATUS).bind(status.as_str()),
        };
        Workspace::read_all(query.bind(i64::from(limit)).fetch_all(&mut *tx).await.map_err(failure)?)
    }

    async fn retire(&self) -> Result<()> {
        let mut tx = self.begin_write().await?;
        statement(RETIRE_TOMBSTONES).execute(&mut *tx).await.map_err(failure)?;
        tx.commit().await.map_err(failure)
    }
}
