//! The metrics service's side of an embedded store.

use async_trait::async_trait;
use chrono::Utc;
use rusqlite::{Connection, params};
use serde_json::value::RawValue;

use super::pool::Pool;
use super::rows::{decode, micros};
use super::statement::{execute, value};
use crate::Result;
use crate::metrics::MetricsStore;

/// The one document of the metrics service.
#[derive(Debug)]
pub(crate) struct Metrics {
    pool: Pool,
}

impl Metrics {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool }
    }
}

#[async_trait]
impl MetricsStore for Metrics {
    async fn load(&self) -> Result<Option<serde_json::Value>> {
        let state: Option<String> = self.pool.work(|connection| value(connection, "select state from state where id = 1", [])).await?;
        state.map(|text| decode("metrics state", &text)).transpose()
    }

    async fn save(&self, version: i64, state: Box<RawValue>) -> Result<bool> {
        let statement = if version == 0 {
            "insert into state (id, version, saved_at, state) values (1, ?1 + 1, ?2, ?3) on conflict (id) do nothing"
        } else {
            "update state set version = ?1 + 1, saved_at = ?2, state = ?3 where id = 1 and version = ?1"
        };
        let save = move |connection: &Connection| execute(connection, statement, params![version, micros(Utc::now()), state.get()]);
        Ok(self.pool.work(save).await? == 1)
    }
}
