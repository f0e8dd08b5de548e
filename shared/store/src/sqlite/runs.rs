//! The scheduler's side of an embedded store: one writing connection, and reads beside it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::Name;
use hopyard_contract::event::Event;
use hopyard_contract::message::{PutDefinition, PutDefinitionReply};
use hopyard_contract::run::{WorkspaceRow, WorkspaceStatus};
use rusqlite::{Connection, params};
use tokio::sync::Mutex;

use super::clock::Clock;
use super::definitions::{self, Plans};
use super::pool::{Pool, beside};
use super::rows::{decode, instant, micros};
use super::statement::{execute, rows, value};
use super::states::States;
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
    /// One at a time: a transaction holds it to its end.
    pub(super) writer: Arc<Mutex<Connection>>,
    pub(super) readers: Pool,
    pub(super) plans: Arc<Plans>,
    pub(super) clock: Clock,
    states: std::sync::Mutex<States>,
    wal: PathBuf,
    /// Held, never read: dropping it lets the next scheduler in.
    _lock: File,
}

impl Shared {
    /// States of runs at work; looked at by whoever holds the writing connection.
    pub(super) fn states(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs {
    /// Takes the directory's lock and opens its one writing connection.
    pub(super) async fn open(directory: &Path, readers: Pool, plans: Arc<Plans>) -> Result<Self> {
        let directory = directory.to_owned();
        let shared = beside(move || {
            schema::require(&directory, "runs")?;
            files::refuse_network(&directory)?;
            let lock = files::lock_scheduler(&directory)?;
            let writer = files::writing(&files::path(&directory, "runs"))?;
            let mark: Option<i64> = value(&writer, "select high from clock where id = 1", [])?;
            let clock = Clock::start(mark.unwrap_or_default())?;
            let wal = directory.join("runs.db-wal");
            Ok(Shared { writer: Arc::new(Mutex::new(writer)), readers, plans, clock, states: Default::default(), wal, _lock: lock })
        });
        Ok(Self { shared: Arc::new(shared.await?) })
    }

    /// Lets the file have no more pages than this, or than it has.
    #[cfg(test)]
    pub(super) async fn limit_pages(&self, pages: i64) {
        value::<i64>(&*self.shared.writer.lock().await, &format!("pragma max_page_count = {pages}"), []).unwrap();
    }

    async fn cut_wal(&self) -> Result<()> {
        // The file is gone when nobody has written yet.
        let size = std::fs::metadata(&self.shared.wal).map_or(0, |m| m.len());
        if size <= LARGE_WAL {
            return Ok(());
        }
        let writer = self.shared.writer.clone().lock_owned().await;
        let busy = beside(move || value::<i64>(&writer, "pragma wal_checkpoint(truncate)", [])).await?;
        if busy == Some(0) {
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
        Ok(Box::new(Transaction::begin(Arc::clone(&self.shared)).await?))
    }

    async fn next_due(&self) -> Result<Option<TimeDelta>> {
        // Asked between transactions, and answered from the first page of an index.
        let at: Option<i64> = value(&*self.shared.writer.lock().await, NEXT_DUE, [])?.flatten();
        let now = micros(self.shared.clock.now()?);
        Ok(at.map(|at| TimeDelta::microseconds(at.saturating_sub(now))))
    }

    async fn claimable(&self) -> Result<Vec<Claimable>> {
        let now = self.shared.clock.now()?;
        self.shared.readers.work(move |connection| reading::claimable(connection, now)).await
    }

    async fn outbox(&self, age_ms: u64, limit: u32) -> Result<Vec<OutboxRow>> {
        let age = i64::try_from(age_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        let before = micros(self.shared.clock.now()?).saturating_sub(age);
        let rows: Vec<(i64, i64, String)> =
            self.shared.readers.work(move |connection| rows(connection, OUTBOX, params![before, limit])).await?;
        let read = |(id, at, messages): (i64, i64, String)| {
            Ok(OutboxRow { id, at: instant(at)?, messages: decode(format_args!("outbox row {id}"), &messages)? })
        };
        rows.into_iter().map(read).collect()
    }

    async fn outbox_age_ms(&self) -> Result<u64> {
        let now = self.shared.clock.now()?;
        self.shared.readers.work(move |connection| reading::outbox_age_ms(connection, now)).await
    }

    async fn put_definition(&self, put: &PutDefinition) -> Result<PutDefinitionReply> {
        let transaction = Box::new(Transaction::begin(Arc::clone(&self.shared)).await?);
        let reply = definitions::put(&transaction.connection, put, micros(self.shared.clock.now()?))?;
        transaction.commit().await?;
        Ok(reply)
    }

    async fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>> {
        let mut events = self.shared.readers.work(move |connection| reading::events_since(connection, since, limit)).await?;
        events.sort_by_key(|e| (e.run_id, e.seq));
        Ok(events)
    }

    async fn workspaces(&self, host: Option<&Name>, status: WorkspaceStatus, limit: u32) -> Result<Vec<WorkspaceRow>> {
        let host = host.cloned();
        self.shared.readers.work(move |connection| reading::workspaces(connection, host.as_ref(), status, limit)).await
    }

    async fn retire(&self) -> Result<()> {
        let before = micros(self.shared.clock.now()?) - TOMBSTONE_LIFE;
        let writer = self.shared.writer.clone().lock_owned().await;
        beside(move || execute(&writer, RETIRE, params![before])).await?;
        self.cut_wal().await
    }
}
