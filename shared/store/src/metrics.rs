//! Owner `metrics`: checkpoint and rollups of the metrics service.

use async_trait::async_trait;
use serde_json::value::RawValue;

use crate::Result;

/// The metrics service's side of the store.
#[async_trait]
pub trait MetricsStore: Send + Sync {
    /// The last saved state, as the service wrote it.
    async fn load(&self) -> Result<Option<serde_json::Value>>;

    /// Replaces the saved state, if it is still at `version` (0 for none); it is at `version + 1` then, a number that the
    /// service keeps in its own state. Returns whether it was replaced.
    async fn save(&self, version: i64, state: Box<RawValue>) -> Result<bool>;
}
