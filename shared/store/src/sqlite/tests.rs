//! What only this engine has: files, the lock, the schema's words, views, and the plans of its statements.

use hopyard_contract::run::WorkspaceStatus;
use hopyard_contract::status::{AttemptStatus, FailureCode, PausedReason, PendingReason, RunStatus, StepStatus};
use hopyard_contract::{Name, RunId};
use rusqlite::Connection;
use tempfile::TempDir;

use super::statement::{execute, row, rows, value};
use super::{Sqlite, definitions, files, listing, reader, reading, runs, transaction, write};
use crate::read::{Reader, RunFilter};
use crate::runs::{RunStore, Writes};
use crate::{Error, Store};

async fn empty() -> (TempDir, Sqlite) {
    let directory = tempfile::tempdir().unwrap();
    let engine = Sqlite::open(directory.path().join("data").to_str().unwrap()).await.unwrap();
    (directory, engine)
}

async fn migrated() -> (TempDir, Sqlite) {
    let (directory, engine) = empty().await;
    engine.migrate().await.unwrap();
    (directory, engine)
}

/// A connection of the test's own, for reading.
fn reader(engine: &Sqlite) -> Connection {
    files::reading(&files::path(&engine.directory, "runs")).unwrap()
}

/// The same for writing.
fn writer(engine: &Sqlite) -> Connection {
    files::writing(&files::path(&engine.directory, "runs")).unwrap()
}

#[tokio::test]
async fn a_store_that_was_not_set_up_says_so() {
    let (_directory, engine) = empty().await;
    assert!(matches!(engine.runs().await, Err(Error::Schema(_))));
    let read = engine.reader().live_counts().await;
    assert!(matches!(read, Err(Error::Schema(_))), "{read:?}");
    let pending = engine.pending_migrations().await.unwrap();
    assert_eq!(pending.len(), super::schema::OWNERS.iter().map(|(_, migrator)| migrator.iter().count()).sum::<usize>());
    assert_eq!(pending[0], "runs 0001 runs");
    assert!(!engine.directory.exists(), "asking makes nothing");

    engine.migrate().await.unwrap();
    assert!(engine.pending_migrations().await.unwrap().is_empty());
    assert!(engine.reader().live_counts().await.unwrap().is_empty(), "the same reader works once the store is there");
    engine.runs().await.unwrap();
}

/// Covers I5: whoever reads while all connections are taken is told so, and does not hang.
#[tokio::test]
async fn a_read_that_gets_no_connection_ends_with_an_error() {
    let (_directory, engine) = migrated().await;
    let mut taken = Vec::new();
    for _ in 0..files::READERS {
        taken.push(engine.readers.turn().await.unwrap());
    }
    let reader = engine.reader();
    let (name, ids) = (Name::default_namespace(), [RunId::mint()]);
    let (workflows, statuses, claimable, outbox, wait) = tokio::join!(
        reader.workflows(&name, None, 1),
        reader.statuses(&name, &ids),
        reader.claimable(),
        reader.outbox_age_ms(),
        reader.wait()
    );
    let errors = [workflows.err(), statuses.err(), claimable.err(), outbox.err(), wait.err()];
    assert!(errors.iter().all(|error| matches!(error, Some(Error::Unavailable(_)))), "{errors:?}");
    drop(taken);
    reader.wait().await.unwrap();
}

#[tokio::test]
async fn many_may_migrate_at_once() {
    let (_directory, engine) = empty().await;
    tokio::try_join!(engine.migrate(), engine.migrate(), engine.migrate()).unwrap();
    assert!(engine.pending_migrations().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_newer_schema_is_refused_once_something_was_taken_away() {
    let (_directory, engine) = migrated().await;
    let writer = writer(&engine);
    let apply = |version: i64, name: &str| {
        let note = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (?1, ?2, true, x'00', 0)";
        execute(&writer, note, (version, name)).unwrap();
    };
    apply(9998, "more columns");
    engine.migrate().await.unwrap();
    assert_eq!(engine.pending_migrations().await.unwrap(), Vec::<String>::new());
    drop(engine.runs().await.unwrap());
    apply(9999, "contract old columns");
    for outcome in [engine.migrate().await, engine.pending_migrations().await.map(drop), engine.runs().await.map(drop)] {
        assert!(matches!(&outcome, Err(Error::Schema(text)) if text.contains("9999") && text.contains("newer")), "{outcome:?}");
    }
}

#[tokio::test]
async fn one_scheduler_at_a_time() {
    let (_directory, engine) = migrated().await;
    let first = engine.runs().await.unwrap();
    match engine.runs().await {
        Err(Error::Locked(path)) => assert!(path.ends_with("data/scheduler.lock"), "{path}"),
        other => panic!("{other:?}"),
    }
    // An open transaction is work of the first one, too.
    let open = first.begin().await.unwrap();
    drop(first);
    assert!(matches!(engine.runs().await, Err(Error::Locked(_))));
    drop(open);
    engine.runs().await.unwrap();
}

/// A full disk costs the transaction that met it, and none that comes once there is room again.
#[tokio::test]
async fn a_full_disk_ends_one_transaction_and_not_the_next() {
    let (_directory, engine) = migrated().await;
    let runs = engine.runs().await.unwrap();
    let limit = |pages: i64| runs.limit_pages(pages);
    let large = crate::runs::OutboxMessage {
        subject: "s".to_owned(),
        id: "i".to_owned(),
        kind: None,
        body: crate::runs::OutboxMessage::body(&"x".repeat(2 << 20)),
    };
    let writes = Writes { outbox: vec![large], outbox_id: 1, ..Writes::default() };
    limit(1).await;
    let mut transaction = runs.begin().await.unwrap();
    let full = transaction.write(&writes).await;
    assert!(matches!(&full, Err(Error::Unavailable(words)) if words.contains("full")), "{full:?}");
    drop(transaction);

    limit(1 << 20).await;
    let mut transaction = runs.begin().await.unwrap();
    transaction.write(&writes).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn urls_are_checked() {
    for url in ["sqlite:", "mysql://h/x", ""] {
        assert!(matches!(Store::open(url).await, Err(Error::Url(_))), "{url}");
    }
}

#[tokio::test]
async fn time_goes_on_after_a_restart() {
    let (_directory, engine) = migrated().await;
    let runs = engine.runs().await.unwrap();
    let mut tx = runs.begin().await.unwrap();
    let before = tx.now().await.unwrap();
    tx.write(&Writes::default()).await.unwrap();
    tx.commit().await.unwrap();
    let stored: i64 = value(&reader(&engine), "select high from clock", []).unwrap().unwrap();
    assert!(stored >= before.timestamp_micros(), "the first transaction stores the mark");
    drop(runs);

    let ahead = chrono::Utc::now() + chrono::TimeDelta::days(1);
    execute(&writer(&engine), "update clock set high = ?1", [ahead.timestamp_micros()]).unwrap();
    let runs = engine.runs().await.unwrap();
    let now = runs.begin().await.unwrap().now().await.unwrap();
    assert!(now.timestamp_micros() >= ahead.timestamp_micros(), "a wall clock that was set back does not turn back leases");
}

#[tokio::test]
async fn readers_cannot_write() {
    let (_directory, engine) = migrated().await;
    let outcome = engine.readers.read(|connection| execute(connection, "delete from runs", [])).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
}

/// The words of `column = 'a' or column = 'b' …` in a table's definition, behind what it begins with; in alphabetical order.
fn words(table: &str, begin: &str, column: &str) -> Vec<String> {
    let (_, rest) = table.split_once(&format!("{begin}{column} = ")).unwrap();
    let (list, _) = rest.split_once(')').unwrap();
    let parts = list.split(" or").map(|part| part.trim().trim_start_matches(&format!("{column} = ")));
    let mut words: Vec<String> = parts.map(|word| word.trim_matches('\'').to_owned()).collect();
    words.sort();
    words
}

#[tokio::test]
async fn the_words_of_the_schema_are_those_of_the_contract() {
    let (_directory, engine) = migrated().await;
    let file = reader(&engine);
    let table =
        |name: &str| value::<String>(&file, "select sql from sqlite_schema where type = 'table' and name = ?1", [name]).unwrap().unwrap();
    macro_rules! same {
        ($table:literal, $column:literal, $all:expr) => {
            let mut known: Vec<String> = $all.iter().map(|w| w.as_str().to_owned()).collect();
            known.sort();
            assert_eq!(words(&table($table), "check (", $column), known, "{}.{}", $table, $column);
        };
    }
    same!("runs", "status", RunStatus::ALL);
    same!("runs", "pending_reason", PendingReason::ALL);
    same!("runs", "paused_reason", PausedReason::ALL);
    same!("runs", "failure_code", FailureCode::ALL);
    same!("steps", "status", StepStatus::ALL);
    same!("attempts", "status", AttemptStatus::ALL);
    same!("workspaces", "status", WorkspaceStatus::ALL);

    // The constraints that tie times to an end name the final words again.
    macro_rules! finals {
        ($table:literal, $all:expr) => {
            let mut known: Vec<String> = $all.iter().filter(|s| s.is_final()).map(|s| s.as_str().to_owned()).collect();
            known.sort();
            assert_eq!(words(&table($table), "check ((", "status"), known, "{}", $table);
        };
    }
    finals!("runs", RunStatus::ALL);
    finals!("steps", StepStatus::ALL);
    finals!("attempts", AttemptStatus::ALL);
}

#[tokio::test]
async fn views_are_readable() {
    let (_directory, engine) = migrated().await;
    let store = Store::open(&format!("sqlite:{}", engine.directory.display())).await.unwrap();
    Box::pin(crate::conformance::run_all(&store)).await;
    let file = reader(&engine);
    let one = "select id, created_at from hopyard_runs where \"commit\" is not null limit 1";
    let (id, created_at): (String, String) = row(&file, one, []).unwrap().unwrap();
    let id: RunId = id.parse().unwrap();
    let at = hopyard_contract::time::parse(&created_at).unwrap();
    assert_eq!(at.timestamp_millis(), id.unix_millis());
    assert_eq!(hopyard_contract::time::format(at), created_at);
    for view in ["steps", "attempts", "events"] {
        let count = value::<i64>(&file, &format!("select count(*) from hopyard_{view} where run_id = ?1"), [id.to_string()]).unwrap();
        assert!(count > Some(0), "{view}");
    }
}

/// Statements that write a row.
const ROWS: [&str; 10] = [
    write::INSERT_RUN,
    write::UPDATE_RUN,
    write::MOVE_RUN,
    write::INSERT_STEP,
    write::UPDATE_STEP,
    write::UPSERT_ATTEMPT,
    write::INSERT_EVENTS,
    write::UPSERT_SLOT,
    write::UPSERT_DUE,
    write::UPSERT_WORKSPACE,
];

/// Steps of a plan that may read a whole index: each of these holds only what is at work now.
const SMALL: [&str; 3] = ["steps_waiting", "runs_live", "run_slots_held"];

fn explain(file: &Connection, sql: &str) -> Vec<String> {
    // A value for each place, or the driver objects.
    let nothing = vec![rusqlite::types::Null; file.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}")).parameter_count()];
    let lines: Vec<(i64, i64, i64, String)> =
        rows(file, &format!("explain query plan {sql}"), rusqlite::params_from_iter(nothing)).unwrap_or_else(|e| panic!("{sql}: {e}"));
    lines.into_iter().map(|line| line.3).collect()
}

fn assert_no_scan(file: &Connection, sql: &str) {
    for line in explain(file, sql) {
        let Some(scanned) = line.strip_prefix("SCAN ") else { continue };
        let table = scanned.split(' ').next().unwrap();
        // Lists that came with the statement, results of inner queries, one constant row, and tables with a row per machine.
        let known = ["json_each", "asked", "newest", "label", "CONSTANT", "executors"];
        let fine =
            known.contains(&table) || table.starts_with("(subquery") || SMALL.iter().any(|index| line.contains(&format!("INDEX {index}")));
        assert!(fine, "a full scan: {line}\n{sql}");
    }
}

#[tokio::test]
async fn no_hot_statement_scans_a_table() {
    let (_directory, engine) = migrated().await;
    let statements = [
        reading::RUNS,
        reading::STEPS,
        reading::ATTEMPTS,
        reading::TIMERS,
        reading::STATUSES,
        reading::HOLDERS,
        reading::MEMBERS,
        reading::CLAIMABLE,
        reading::EVENTS_SINCE,
        reading::WORKSPACES_OF_HOST,
        reading::WORKSPACES_OF_STATUS,
        reading::OUTBOX_AGE,
        definitions::PLANS,
        definitions::CURRENT,
        definitions::KNOWN,
        definitions::WORKFLOWS,
        definitions::WORKFLOW,
        definitions::VERSIONS,
        definitions::SOURCE,
        runs::NEXT_DUE,
        runs::OUTBOX,
        runs::RETIRE,
        transaction::CANDIDATES,
        transaction::DUE,
        transaction::CLAIMED,
        transaction::KEYS,
        transaction::TOMBSTONES,
        transaction::RECEIPT,
        transaction::BOUND_RUNS,
        transaction::SESSION,
        transaction::WORKSPACES,
        write::STATUS,
        write::POKE,
        write::CHILDREN,
        write::POKED,
        write::DROP_TIMER,
        write::DROP_SLOTS,
        write::DROP_CHILDREN,
        write::DROP_PARENTS,
        write::PUBLISHED,
        reader::TAKEN,
        reader::EVENTS,
        reader::RECEIPT,
        reader::EXECUTORS,
        reader::WORKSPACES,
        reader::USAGE,
        reader::LIVE_COUNTS,
    ];
    let file = reader(&engine);
    statements.into_iter().chain(ROWS).for_each(|sql| assert_no_scan(&file, sql));
}

/// A check that compares with a list of words makes a table of it, for every row that is written.
#[tokio::test]
async fn no_row_is_written_by_way_of_a_table_of_its_own() {
    let (_directory, engine) = migrated().await;
    let file = writer(&engine);
    for sql in ROWS {
        let nothing = vec![rusqlite::types::Null; file.prepare(sql).unwrap().parameter_count()];
        let steps = rows::<(i64, String)>(&file, &format!("explain {sql}"), rusqlite::params_from_iter(nothing)).unwrap();
        assert!(steps.len() > 5 && steps.iter().all(|(_, step)| step != "OpenEphemeral"), "{sql}");
    }
}

#[tokio::test]
async fn no_list_scans_or_sorts() {
    let (_directory, engine) = migrated().await;
    let file = reader(&engine);
    let name = Name::literal("x");
    let instant = chrono::Utc::now();
    let statuses =
        [vec![], vec![RunStatus::Failed], vec![RunStatus::Completed], vec![RunStatus::Failed, RunStatus::Running], RunStatus::ALL.to_vec()];
    // Every combination of the filters, one bit each.
    for bits in 0u32..64 {
        for statuses in &statuses {
            let on = |bit: u32| bits & (1 << bit) != 0;
            let filter = RunFilter {
                statuses: statuses.clone(),
                workflow: on(0).then(|| name.clone()),
                repo: on(1).then(|| "https://example.org/a.git".to_owned()),
                session: on(2).then(|| name.clone()),
                labels: if on(3) { vec![("k".to_owned(), "v".to_owned())] } else { Vec::new() },
                created_after: on(4).then_some(instant),
                created_before: on(4).then_some(instant),
                below: on(5).then(RunId::mint),
                limit: 50,
            };
            let sql = listing::page(&name, &filter).sql;
            assert_no_scan(&file, &sql);
            let plan = explain(&file, &sql);
            let sorted = plan.iter().filter(|line| line.contains("TEMP B-TREE")).count();
            assert!(sorted <= 1, "only the merged pages of several statuses may be sorted: {plan:?}\n{sql}");
            if statuses.len() < 2 {
                assert_eq!(sorted, 0, "{plan:?}\n{sql}");
            }
        }
    }
}

#[tokio::test]
async fn a_large_log_is_cut() {
    let (_directory, engine) = migrated().await;
    let runs = engine.runs().await.unwrap();
    runs.retire().await.unwrap();
    let wal = engine.directory.join("runs.db-wal");
    // A reader's open snapshot keeps automatic checkpoints from writing back, so the log grows.
    let file = reader(&engine);
    let snapshot = file.unchecked_transaction().unwrap();
    value::<i64>(&snapshot, "select high from clock", []).unwrap();
    let body = crate::runs::OutboxMessage::body(&"x".repeat(9 * 1024 * 1024));
    for id in 0..8 {
        let message = crate::runs::OutboxMessage { subject: "s".to_owned(), id: "i".to_owned(), kind: None, body: body.clone() };
        let mut tx = runs.begin().await.unwrap();
        tx.write(&Writes { outbox: vec![message], outbox_id: id, ..Writes::default() }).await.unwrap();
        tx.commit().await.unwrap();
    }
    let size = || std::fs::metadata(&wal).unwrap().len();
    assert!(size() > 64 * 1024 * 1024);
    drop(snapshot);
    runs.retire().await.unwrap();
    assert_eq!(size(), 0);
}
