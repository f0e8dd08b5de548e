//! Runs the suite on the embedded engine; the integration tests run it on PostgreSQL as well.

use super::run_all;
use crate::Store;

#[tokio::test]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite:{}", directory.path().display())).await.unwrap();
    store.migrate().await.unwrap();
    Box::pin(run_all(&store)).await;
}
