//! The scheduler's side of an embedded store: one writing connection, and reads beside it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::Name;
use hopyard_contract::event::Event;
use hopyard_contract::message::{PutDefinition, PutDefinitionReply};
use hopyard_contract::run::{WorkspaceRow, WorkspaceStatus};
use sqlx::SqlitePool;

use super::clock::Clock;
use super::definitions::{self, Plans};
use super::fault::fault;
use super::rows::{decode, instant, micros};
use super::transaction::Transaction;
use super::{files, reading, schema};
use crate::Result;
use crate::runs::{Claimable, OutboxRow, RunStore, RunTx};

/// A write-ahead log above this size is written back and cut.
const LARGE_WAL: u64 = 64 * 1024 * 1024;
/// How long a kill request for an unknown run is kept, in microseconds.
const TOMBSTONE_LIFE: i64 = 24 * 3600 * 1_000_000;

pub(super) const NEXT_DUE: &str = "select min(at) from due";
pub(super) const OUTBOX: &str = "select id, at, messages from outbox where at <= ?1 order by at, id limit ?2";
pub(super) const RETIRE: &str =
    "delete from tombstones where run_id in (select run_id from tombstones where at < ?1 order by at limit 1000)";

/// The only writer of the scheduler's file, in this process and on this machine.
#[derive(Debug)]
pub(crate) struct Runs {
    shared: Arc<Shared>,
}

/// What a store and its transactions have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    pub(super) plans: Arc<Plans>,
    pub(super) clock: Clock,
    wal: PathBuf,
    /// Held, never read: dropping it lets the next scheduler in.
    _lock: File,
}

impl Runs {
    /// Takes the directory's lock and opens its one writing connection.
    pub(super) async fn open(directory: &Path, readers: SqlitePool, plans: Arc<Plans>) -> Result<Self> {
        schema::require(directory, "runs").await?;
        files::refuse_network(directory)?;
        let lock = files::lock_scheduler(directory)?;
        let writer = files::writer(directory).await?;
        let mark: i64 = sqlx::query_scalar("select high from clock where id = 1").fetch_one(&writer).await.map_err(fault)?;
        let wal = directory.join("runs.db-wal");
        Ok(Self { shared: Arc::new(Shared { writer, readers, plans, clock: Clock::start(mark)?, wal, _lock: lock }) })
    }

    async fn cut_wal(&self) -> Result<()> {
        // The file is gone when nobody has written yet.
        let size = std::fs::metadata(&self.shared.wal).map_or(0, |m| m.len());
        if size <= LARGE_WAL {
            return Ok(());
        }
        let (busy, _, _): (i64, i64, i64) =
            sqlx::query_as("pragma wal_checkpoint(truncate)").fetch_one(&self.shared.writer).await.map_err(fault)?;
        if busy == 0 {
            tracing::info!(bytes = size, "the write-ahead log was large and has been cut");
        } else {
            tracing::warn!(bytes = size, "the write-ahead log is large and a reader keeps it from being cut");
        }
        Ok(())
    }
}

#[async_trait]
impl RunStore for Runs {
    async fn begin(&self) -> Result<Box<dyn RunTx>> {
        let transaction = self.shared.writer.begin_with("begin immediate").await.map_err(fault)?;
        Ok(Box::new(Transaction::new(transaction, Arc::clone(&self.shared))))
    }

    async fn next_due(&self) -> Result<Option<TimeDelta>> {
        let at: Option<i64> = sqlx::query_scalar(NEXT_DUE).fetch_one(&self.shared.readers).await.map_err(fault)?;
        let now = micros(self.shared.clock.now()?);
        Ok(at.map(|at| TimeDelta::microseconds(at.saturating_sub(now))))
    }

    async fn claimable(&self) -> Result<Vec<Claimable>> {
        let now = self.shared.clock.now()?;
        let mut connection = self.shared.readers.acquire().await.map_err(fault)?;
        reading::claimable(&mut connection, now).await
    }

    async fn outbox(&self, age_ms: u64, limit: u32) -> Result<Vec<OutboxRow>> {
        let age = i64::try_from(age_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        let before = micros(self.shared.clock.now()?).saturating_sub(age);
        let rows: Vec<(i64, i64, String)> =
            sqlx::query_as(OUTBOX).bind(before).bind(limit).fetch_all(&self.shared.readers).await.map_err(fault)?;
        let read = |(id, at, messages): (i64, i64, String)| {
            Ok(OutboxRow { id, at: instant(at)?, messages: decode(format_args!("outbox row {id}"), &messages)? })
        };
        rows.into_iter().map(read).collect()
    }

    async fn outbox_age_ms(&self) -> Result<u64> {
        let now = self.shared.clock.now()?;
        let mut connection = self.shared.readers.acquire().await.map_err(fault)?;
        reading::outbox_age_ms(&mut connection, now).await
    }

    async fn put_definition(&self, put: &PutDefinition) -> Result<PutDefinitionReply> {
        let mut transaction = self.shared.writer.begin_with("begin immediate").await.map_err(fault)?;
        let reply = definitions::put(&mut transaction, put, micros(self.shared.clock.now()?)).await?;
        transaction.commit().await.map_err(fault)?;
        Ok(reply)
    }

    async fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>> {
        let mut connection = self.shared.readers.acquire().await.map_err(fault)?;
        let mut events = reading::events_since(&mut connection, since, limit).await?;
        events.sort_by_key(|e| (e.run_id, e.seq));
        Ok(events)
    }

    async fn workspaces(&self, host: Option<&Name>, status: WorkspaceStatus, limit: u32) -> Result<Vec<WorkspaceRow>> {
        let mut connection = self.shared.readers.acquire().await.map_err(fault)?;
        reading::workspaces(&mut connection, host, status, limit).await
    }

    async fn retire(&self) -> Result<()> {
        let before = micros(self.shared.clock.now()?) - TOMBSTONE_LIFE;
        sqlx::query(RETIRE).bind(before).execute(&self.shared.writer).await.map_err(fault)?;
        self.cut_wal().await
    }
}
