//! Runs the suite on the embedded engine; the integration tests run it on PostgreSQL as well.

use hopyard_contract::Name;

use super::{run_all, samples};
use crate::Store;

#[tokio::test]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite:{}", directory.path().display())).await.unwrap();
    store.migrate().await.unwrap();
    Box::pin(run_all(&store)).await;
}

/// PostgreSQL's guard tells `null`, which rows of earlier builds have, from what is absent.
#[test]
fn what_guards_compare_is_written_also_when_there_is_none() {
    let run = serde_json::to_value(samples::run(&Name::default_namespace(), &Name::default_pool(), "hash")).unwrap();
    for compared in ["status", "finished_at", "usage", "result", "error"] {
        assert!(run.get(compared).is_some(), "{compared} is not in {run}");
    }
    assert!(run.get("commit").is_none(), "{run}");
}
