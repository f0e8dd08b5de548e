//! Both engines keep to one suite, and PostgreSQL to what only several schedulers can show.

use hopyard_store::{Store, conformance, postgres_checks};

use crate::harness::postgres::Postgres;

async fn migrated(url: &str) -> Store {
    let store = Store::open(url).await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(store.pending_migrations().await.unwrap(), Vec::<String>::new());
    store
}

/// Covers I10, B2.
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let store = migrated(&format!("sqlite:{}", dir.path().display())).await;
    Box::pin(conformance::run_all(&store)).await;
}

/// Covers I10, B2.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_conforms() {
    let server = Postgres::shared().await;
    let store = migrated(&server.database().await).await;
    Box::pin(conformance::run_all(&store)).await;
}

/// Covers C3.
#[tokio::test(flavor = "multi_thread")]
async fn several_schedulers_share_one_postgres() {
    let server = Postgres::shared().await;
    let url = server.database().await;
    migrated(&url).await;
    Box::pin(postgres_checks::run_all(&url)).await;
}
