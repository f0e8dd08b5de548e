//! Values of columns from and to the contract's types.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hopyard_contract::run::WorkspaceRow;
use hopyard_contract::{Name, RunId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};
use uuid::Uuid;

use crate::runs::Claimable;
use crate::{Error, Result};

/// Columns of [`Workspace`], in order.
macro_rules! workspace_columns {
    () => {
        "id, run_id, namespace, generation, executor, host, path, repo, session, status, created_at, removed_at, bytes"
    };
}
pub(super) use workspace_columns;

/// Whether a run waits for a slot that others hold. A scalar subquery stays a filter of one row: as a join it would read the
/// slots of all runs before the first step.
macro_rules! slot_taken {
    ($run:literal) => {
        concat!(
            "(SELECT coalesce(bool_or((SELECT count(*) FROM (SELECT 1 FROM hopyard_runs.run_slots h \
              WHERE h.key = w.key AND h.held LIMIT w.max) AS taken) >= w.max), false) FROM hopyard_runs.run_slots w WHERE w.run_id = ",
            $run,
            " AND NOT w.held)"
        )
    };
}
pub(super) use slot_taken;

/// Reads stored JSON.
pub(super) fn json<T: DeserializeOwned>(text: &str, what: &str, id: impl std::fmt::Display) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::Refused(format!("the stored {what} {id} does not fit its shape: {e}")))
}

/// Writes JSON to store.
pub(super) fn text<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Refused(format!("a value cannot be written as JSON: {e}")))
}

/// Reads a stored word: a name, a status.
pub(super) fn word<T: FromStr>(text: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| Error::Refused(format!("the stored word `{text}` does not fit: {e}")))
}

/// Reads an optional stored word.
pub(super) fn maybe<T: FromStr>(text: Option<String>) -> Result<Option<T>>
where
    T::Err: std::fmt::Display,
{
    text.map(|text| word(&text)).transpose()
}

/// A counter as a column; columns are copies, so one beyond the column's range stays at its end.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A counter from a column whose CHECK refuses negative numbers.
pub(super) fn counted(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A small counter from a column.
pub(super) fn small(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// UUIDs of runs.
pub(super) fn uuids(ids: &[RunId]) -> Vec<Uuid> {
    ids.iter().map(RunId::as_uuid).collect()
}

/// Runs of UUIDs.
pub(super) fn ids(uuids: Vec<Uuid>) -> Vec<RunId> {
    uuids.into_iter().map(RunId::from_uuid).collect()
}

/// A row of `workspaces`.
pub(super) struct Workspace {
    id: String,
    run_id: Uuid,
    namespace: String,
    generation: i64,
    executor: String,
    host: String,
    path: String,
    repo: Option<String>,
    session: Option<String>,
    status: String,
    created_at: DateTime<Utc>,
    removed_at: Option<DateTime<Utc>>,
    bytes: Option<i64>,
}

impl FromRow<'_, PgRow> for Workspace {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            run_id: row.try_get("run_id")?,
            namespace: row.try_get("namespace")?,
            generation: row.try_get("generation")?,
            executor: row.try_get("executor")?,
            host: row.try_get("host")?,
            path: row.try_get("path")?,
            repo: row.try_get("repo")?,
            session: row.try_get("session")?,
            status: row.try_get("status")?,
            created_at: row.try_get("created_at")?,
            removed_at: row.try_get("removed_at")?,
            bytes: row.try_get("bytes")?,
        })
    }
}

impl Workspace {
    /// The contract's form.
    pub(super) fn read(self) -> Result<WorkspaceRow> {
        Ok(WorkspaceRow {
            run_id: RunId::from_uuid(self.run_id),
            namespace: word(&self.namespace)?,
            generation: small(self.generation),
            executor: word(&self.executor)?,
            host: word(&self.host)?,
            path: self.path,
            repo: self.repo,
            session: maybe(self.session)?,
            status: word(&self.status)?,
            created_at: self.created_at,
            removed_at: self.removed_at,
            bytes: self.bytes.map(counted),
            id: self.id,
        })
    }

    /// The contract's form of many.
    pub(super) fn read_all(rows: Vec<Self>) -> Result<Vec<WorkspaceRow>> {
        rows.into_iter().map(Self::read).collect()
    }
}

/// A row of what could be claimed: pool, executor, steps, oldest.
pub(super) type ClaimableRow = (String, Option<String>, i64, i64);

/// The contract's form of what could be claimed.
pub(super) fn claimable(rows: Vec<ClaimableRow>) -> Result<Vec<Claimable>> {
    rows.into_iter()
        .map(|(pool, bound_to, count, waited)| {
            let waited = Duration::from_micros(counted(waited));
            Ok(Claimable { pool: word::<Name>(&pool)?, bound_to: maybe(bound_to)?, count: counted(count), waited })
        })
        .collect()
}
