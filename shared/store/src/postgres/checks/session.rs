//! What the schema refuses, and what a connection keeps: nothing.

use std::collections::BTreeSet;

use hopyard_contract::status::{AttemptStatus, FailureCode, PausedReason, PendingReason, RunStatus, StepStatus};

use super::sample::{Sample, begin, now};
use crate::Error;
use crate::postgres::{Postgres, failure, scalar, select, statement};
use crate::runs::Writes;

/// Words between single quotes.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}

pub(super) async fn the_checks_know_the_statuses_of_the_contract(store: &Postgres) {
    let mut tx = store.read().await.expect("a read begins");
    let wanted: [(&str, &str, BTreeSet<String>); 6] = [
        ("runs", "status", RunStatus::ALL.iter().map(ToString::to_string).collect()),
        ("runs", "pending_reason", PendingReason::ALL.iter().map(ToString::to_string).collect()),
        ("runs", "paused_reason", PausedReason::ALL.iter().map(ToString::to_string).collect()),
        ("runs", "failure_code", FailureCode::ALL.iter().map(ToString::to_string).collect()),
        ("steps", "status", StepStatus::ALL.iter().map(ToString::to_string).collect()),
        ("attempts", "status", AttemptStatus::ALL.iter().map(ToString::to_string).collect()),
    ];
    for (table, column, words) in wanted {
        let sql = "SELECT pg_get_constraintdef(oid) FROM pg_constraint \
             WHERE conrelid = to_regclass('hopyard_runs.' || $1) AND conname = $1 || '_' || $2 || '_check'";
        let check: String = scalar(sql).bind(table).bind(column).fetch_one(&mut *tx).await.expect("the column has a CHECK of its own");
        assert_eq!(quoted(&check), words, "words of {table}.{column}");
    }
}

pub(super) async fn a_newer_schema_is_refused_once_something_was_taken_away(store: &Postgres) {
    for (version, name, fits) in [(9998_i64, "more columns", true), (9999, "contract old columns", false)] {
        statement("INSERT INTO hopyard_runs.migrations (version, name, checksum) VALUES ($1, $2, '')")
            .bind(version)
            .bind(name)
            .execute(&store.pool)
            .await
            .expect("a later build migrates");
        for outcome in [store.migrate().await, store.pending_migrations().await.map(drop)] {
            match outcome {
                Ok(()) => assert!(fits, "{name}"),
                Err(error) => assert!(!fits && matches!(&error, Error::Schema(text) if text.contains("9999")), "{name}: {error}"),
            }
        }
    }
    statement("DELETE FROM hopyard_runs.migrations WHERE version >= 9998").execute(&store.pool).await.expect("the rows go");
}

pub(super) async fn every_view_can_be_read(store: &Postgres) {
    let sample = Sample::new(store).await;
    let at = now(store).await;
    let mut write = sample.run(at);
    write.attempts.push(sample.attempt(at));
    let id = write.run.id.as_uuid();
    sample.insert(store, vec![write]).await;
    let mut tx = store.read().await.expect("a read begins");
    for sql in [
        "SELECT v::text FROM hopyard_runs.v_runs v WHERE id = $1",
        "SELECT v::text FROM hopyard_runs.v_steps v WHERE run_id = $1",
        "SELECT v::text FROM hopyard_runs.v_attempts v WHERE run_id = $1",
        "SELECT v::text FROM hopyard_runs.v_events v WHERE run_id = $1",
    ] {
        let rows: Vec<String> = scalar(sql).bind(id).fetch_all(&mut *tx).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(rows.len(), 1, "{sql}");
    }
}

pub(super) async fn a_failed_transaction_is_not_committed(store: &Postgres) {
    let sample = Sample::new(store).await;
    let run = sample.run(now(store).await);
    let id = run.run.id;
    let mut stray = sample.run(now(store).await);
    stray.run.status = RunStatus::Running;
    stray.run.pending_reason = None;
    let mut tx = begin(store).await;
    tx.write(&Writes { runs: vec![run], ..Writes::default() }).await.expect("the run is written");
    let refused = tx.write(&Writes { runs: vec![stray], ..Writes::default() }).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "a running run without a start is refused: {refused:?}");
    let committed = tx.commit().await;
    assert!(matches!(committed, Err(Error::Refused(_))), "a commit that would be a rollback is an error: {committed:?}");
    assert!(begin(store).await.load(&[id]).await.expect("the run is looked up").is_empty(), "nothing of it was committed");
}

pub(super) async fn a_lost_connection_is_replaced(one: &Postgres, two: &Postgres) {
    let mut tx = one.begin_write().await.expect("a transaction begins");
    let pid: i32 = scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.expect("the connection has a process");
    let mut other = two.read().await.expect("a read begins");
    let ended: bool = scalar("SELECT pg_terminate_backend($1, 2000)").bind(pid).fetch_one(&mut *other).await.expect("the process is ended");
    assert!(ended, "process {pid} has ended");
    let lost = scalar::<i32>("SELECT 1").fetch_one(&mut *tx).await.map_err(failure);
    assert!(matches!(lost, Err(Error::Unavailable(_))), "a lost connection is no fault of the statement: {lost:?}");
    drop(tx);
    now(one).await;
}

pub(super) async fn nothing_is_left_in_a_session(store: &Postgres) {
    let mut connections = Vec::new();
    while let Some(connection) = store.pool.try_acquire() {
        connections.push(connection);
    }
    assert!(!connections.is_empty(), "the checks have used connections");
    for connection in &mut connections {
        let prepared: i64 =
            scalar("SELECT count(*) FROM pg_prepared_statements").fetch_one(&mut **connection).await.expect("statements are counted");
        assert_eq!(prepared, 0, "a pooler may not know prepared statements");
        let locks: i64 = scalar("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'")
            .fetch_one(&mut **connection)
            .await
            .expect("locks are counted");
        assert_eq!(locks, 0, "an advisory lock outlives its transaction");
        let changed: Vec<(String, String)> = select("SELECT name, setting FROM pg_settings WHERE source = 'session'")
            .fetch_all(&mut **connection)
            .await
            .expect("settings are read");
        assert_eq!(changed, Vec::<(String, String)>::new(), "a setting outlives its transaction");
    }
}
