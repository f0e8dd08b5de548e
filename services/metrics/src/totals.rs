//! The saved counters as sums, for whoever compares them with the database.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::catalogue;
use crate::checkpoint;
use crate::series::Series;

/// The counters of a saved state.
#[derive(Debug)]
pub struct Totals(Series);

impl Totals {
    /// Reads what the service has saved.
    ///
    /// # Errors
    /// When it is of another version.
    pub fn read(state: &Value) -> anyhow::Result<Self> {
        Ok(Self(checkpoint::series_of(state).context("the counters cannot be read")?))
    }

    /// Sum of the counter of this name, restricted to one value of a label if given.
    ///
    /// # Errors
    /// When there is no such counter or label.
    pub fn sum(&self, metric: &str, only: Option<(&str, &str)>) -> anyhow::Result<u64> {
        let metric = catalogue::counted(metric).with_context(|| format!("no metric is called {metric}"))?;
        if let Some((label, _)) = only {
            ensure!(metric.labels.contains(&label), "{} has no label {label}", metric.name);
        }
        Ok(self.0.sum(metric, only))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalogue::RUNS_FINISHED;
    use crate::checkpoint::Checkpoint;
    use crate::ledger::{Ledger, Saved};

    #[tokio::test]
    async fn sums_are_those_of_what_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let store = hopyard_store::Store::open(&format!("sqlite:{}", dir.path().display())).await.unwrap();
        store.migrate().await.unwrap();
        let ledger = Ledger::restore(Arc::default(), Saved::default());
        for (status, workflow, code, count) in
            [("failed", "fix", "exit_code", 3), ("failed", "deploy", "timeout", 4), ("killed", "fix", "", 5)]
        {
            ledger.shown().series().add(&RUNS_FINISHED, &[status, workflow, code], count);
        }
        let mut checkpoint = Checkpoint::new(store.metrics(), &hopyard_contract::Name::literal("m"));
        assert!(checkpoint.save(&ledger, true).await.unwrap());
        let totals = Totals::read(&store.metrics().load().await.unwrap().unwrap()).unwrap();
        assert_eq!(totals.sum(RUNS_FINISHED.name, None).unwrap(), 12);
        assert_eq!(totals.sum(RUNS_FINISHED.name, Some(("status", "failed"))).unwrap(), 7);
        assert_eq!(totals.sum(RUNS_FINISHED.name, Some(("status", "completed"))).unwrap(), 0);
        assert!(totals.sum(RUNS_FINISHED.name, Some(("colour", "red"))).is_err());
        assert!(Totals::read(&serde_json::json!({"v": 99})).is_err());
    }
}
