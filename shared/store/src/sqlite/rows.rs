//! Values as SQLite keeps them: times in microseconds, ids as bytes, documents as JSON text.

use std::fmt::Display;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use hopyard_contract::RunId;
use hopyard_contract::run::WorkspaceRow;
use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::runs::ExecutorRow;
use crate::{Error, Result};

/// Microseconds since 1970.
pub(super) fn micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}

/// The instant of a stored time.
pub(super) fn instant(micros: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| Error::Refused(format!("the stored time {micros} is no instant")))
}

/// A count as SQLite's signed integer; nothing countable reaches the limit.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A stored count.
pub(super) fn unsigned(count: i64) -> Result<u64> {
    u64::try_from(count).map_err(|_| Error::Refused(format!("the stored count {count} is negative")))
}

/// Writes a document.
pub(super) fn encode<T: Serialize + ?Sized>(what: &str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Refused(format!("{what} cannot be written as JSON: {e}")))
}

/// Reads a document.
pub(super) fn decode<T: DeserializeOwned>(what: impl Display, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::Refused(format!("the stored {what} does not fit its shape: {e}")))
}

/// Reads a name or a word of a vocabulary.
pub(super) fn word<T: FromStr>(text: &str) -> Result<T>
where
    T::Err: Display,
{
    text.parse().map_err(|e: T::Err| Error::Refused(format!("the stored word `{text}` does not fit: {e}")))
}

/// Ids as a JSON array of hex texts, for `unhex(value) … json_each(?)`.
pub(super) fn id_list(ids: &[RunId]) -> String {
    let mut list = String::with_capacity(2 + ids.len() * 35);
    list.push('[');
    for (i, id) in ids.iter().enumerate() {
        if i > 0 {
            list.push(',');
        }
        list.push('"');
        list.push_str(id.as_uuid().simple().encode_lower(&mut Uuid::encode_buffer()));
        list.push('"');
    }
    list.push(']');
    list
}

/// A row of `workspaces`.
pub(super) struct WorkspaceRecord {
    id: String,
    run_id: Uuid,
    namespace: String,
    generation: u32,
    executor: String,
    host: String,
    path: String,
    repo: Option<String>,
    session: Option<String>,
    status: String,
    created_at: i64,
    removed_at: Option<i64>,
    bytes: Option<i64>,
}

impl TryFrom<&Row<'_>> for WorkspaceRecord {
    type Error = rusqlite::Error;

    fn try_from(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            run_id: row.get("run_id")?,
            namespace: row.get("namespace")?,
            generation: row.get("generation")?,
            executor: row.get("executor")?,
            host: row.get("host")?,
            path: row.get("path")?,
            repo: row.get("repo")?,
            session: row.get("session")?,
            status: row.get("status")?,
            created_at: row.get("created_at")?,
            removed_at: row.get("removed_at")?,
            bytes: row.get("bytes")?,
        })
    }
}

impl WorkspaceRecord {
    /// The row in the contract's types.
    pub(super) fn read(self) -> Result<WorkspaceRow> {
        Ok(WorkspaceRow {
            status: word(&self.status)?,
            id: self.id,
            run_id: RunId::from_uuid(self.run_id),
            namespace: word(&self.namespace)?,
            generation: self.generation,
            executor: word(&self.executor)?,
            host: word(&self.host)?,
            path: self.path,
            repo: self.repo,
            session: self.session.as_deref().map(word).transpose()?,
            created_at: instant(self.created_at)?,
            removed_at: self.removed_at.map(instant).transpose()?,
            bytes: self.bytes.map(unsigned).transpose()?,
        })
    }
}

/// A row of `executors`.
pub(super) struct ExecutorRecord {
    id: String,
    host: String,
    pool: String,
    slots: u32,
    version: String,
    draining: bool,
    seen_at: i64,
}

impl TryFrom<&Row<'_>> for ExecutorRecord {
    type Error = rusqlite::Error;

    fn try_from(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            host: row.get("host")?,
            pool: row.get("pool")?,
            slots: row.get("slots")?,
            version: row.get("version")?,
            draining: row.get("draining")?,
            seen_at: row.get("seen_at")?,
        })
    }
}

impl ExecutorRecord {
    /// The row in the store's types.
    pub(super) fn read(self) -> Result<ExecutorRow> {
        Ok(ExecutorRow {
            id: word(&self.id)?,
            host: word(&self.host)?,
            pool: word(&self.pool)?,
            slots: self.slots,
            version: self.version,
            draining: self.draining,
            seen_at: instant(self.seen_at)?,
        })
    }
}
