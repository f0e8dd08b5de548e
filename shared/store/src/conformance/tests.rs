//! Runs the suite on the engines at hand.

use super::run_all;
use crate::Store;

#[tokio::test]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite:{}", directory.path().display())).await.unwrap();
    store.migrate().await.unwrap();
    Box::pin(run_all(&store)).await;
}

#[tokio::test]
async fn postgres_conforms_when_a_server_is_named() {
    #[expect(clippy::disallowed_methods, reason = "the test harness names its private server in the environment")]
    let url = std::env::var("HOPYARD_TEST_POSTGRES_URL");
    let Ok(url) = url else {
        println!("HOPYARD_TEST_POSTGRES_URL names no server: only the embedded engine was tested here");
        return;
    };
    let store = Store::open(&url).await.unwrap();
    store.migrate().await.unwrap();
    assert!(store.pending_migrations().await.unwrap().is_empty());
    Box::pin(run_all(&store)).await;
}
