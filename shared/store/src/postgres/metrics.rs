//! The metrics service's side.

use async_trait::async_trait;
use serde_json::value::RawValue;

use super::{Postgres, failure, rows, scalar, statement};
use crate::Result;
use crate::metrics::MetricsStore;

#[async_trait]
impl MetricsStore for Postgres {
    async fn load(&self) -> Result<Option<serde_json::Value>> {
        let mut tx = self.read().await?;
        let text: Option<String> =
            scalar("SELECT state::text FROM hopyard_metrics.state WHERE id = 1").fetch_optional(&mut *tx).await.map_err(failure)?;
        text.map(|text| rows::json(&text, "state of the", "metrics service")).transpose()
    }

    async fn save(&self, version: i64, state: Box<RawValue>) -> Result<bool> {
        let mut tx = self.begin_write().await?;
        let sql = if version == 0 {
            "INSERT INTO hopyard_metrics.state (id, version, saved_at, state) VALUES (1, $1 + 1, clock_timestamp(), $2::text::json) ON CONFLICT (id) DO NOTHING"
        } else {
            "UPDATE hopyard_metrics.state SET version = version + 1, saved_at = clock_timestamp(), state = $2::text::json WHERE id = 1 AND version = $1"
        };
        let done = statement(sql).bind(version).bind(state.get()).execute(&mut *tx).await.map_err(failure)?;
        tx.commit().await.map_err(failure)?;
        Ok(done.rows_affected() == 1)
    }
}
