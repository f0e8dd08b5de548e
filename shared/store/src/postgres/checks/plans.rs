//! Plans of the hot statements on tables of a few thousand rows: a plan that reads a whole table grows with the past.

use hopyard_contract::run::Run;
use hopyard_contract::status::RunStatus;
use hopyard_contract::{Name, RunId};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::sample::{Sample, ended, now};
use crate::postgres::reader::{self, listing};
use crate::postgres::write::{follow, parts};
use crate::postgres::{Postgres, Tx, runs, state, transaction};
use crate::read::RunFilter;
use crate::runs::RunWrite;

/// Tables that grow with the past or with the load.
const LARGE: [&str; 5] = ["runs", "steps", "attempts", "events", "due"];

type Statement<'q> = Query<'q, sqlx::Postgres, PgArguments>;

fn explain<'q>(sql: &str) -> Statement<'q> {
    sqlx::query(AssertSqlSafe(format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}"))).persistent(false)
}

/// Carries the statement out and judges its plan.
async fn check(tx: &mut Tx, name: &str, query: Statement<'_>) {
    let plan = plan(tx, name, query).await;
    for table in LARGE {
        assert!(!plan.contains(&format!("Seq Scan on {table} ")), "{name} reads all of {table}:\n{plan}");
    }
    assert!(!plan.contains("Rows Removed by Join Filter"), "{name} compares every row with every other:\n{plan}");
}

async fn plan(tx: &mut Tx, name: &str, query: Statement<'_>) -> String {
    let lines = query.fetch_all(&mut **tx).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    let plan: Vec<String> = lines.iter().map(|line| line.get::<String, _>(0)).collect();
    plan.join("\n")
}

/// Two thousand runs, most of them ended, with attempts.
async fn fill(store: &Postgres) -> (Sample, Vec<RunWrite>) {
    let sample = Sample::new(store).await;
    let at = now(store).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        let fresh: Vec<RunWrite> = (0..250).map(|_| sample.run(at)).collect();
        sample.insert(store, fresh.clone()).await;
        let (rest, done) = fresh.split_at(40);
        let mut ends: Vec<RunWrite> = done.iter().map(|write| ended(write, at)).collect();
        for end in &mut ends {
            let mut attempt = sample.attempt(at);
            attempt.status = hopyard_contract::status::AttemptStatus::Completed;
            attempt.finished_at = Some(at);
            end.attempts.push(attempt);
            end.timer = Some(Some(at + chrono::TimeDelta::hours(1)));
        }
        sample.insert(store, ends).await;
        open.extend_from_slice(rest);
    }
    sqlx::raw_sql("VACUUM (ANALYZE) hopyard_runs.runs, hopyard_runs.steps, hopyard_runs.attempts, hopyard_runs.events, hopyard_runs.due")
        .execute(&store.pool)
        .await
        .expect("the tables are vacuumed and analysed");
    (sample, open)
}

pub(super) async fn hot_statements_use_their_indexes(store: &Postgres) {
    let (sample, open) = fill(store).await;
    let at = now(store).await;
    let ids: Vec<Uuid> = open.iter().take(4).map(|write| write.run.id.as_uuid()).collect();
    let mut tx = store.begin_write().await.expect("a transaction begins");
    let pool = sample.pool.as_str();

    check(&mut tx, "load: runs", explain(state::LOCK_RUNS).bind(ids.clone())).await;
    check(&mut tx, "load: parts", explain(state::PARTS).bind(ids.clone())).await;
    check(&mut tx, "candidates", explain(transaction::CANDIDATES).bind(pool).bind(at).bind("executor").bind(16i64)).await;
    check(&mut tx, "claimable", explain(state::CLAIMABLE)).await;
    check(&mut tx, "due", explain(transaction::DUE).bind(at).bind(50i64)).await;
    check(&mut tx, "next due", explain(runs::NEXT_DUE)).await;
    check(&mut tx, "claimed", explain(transaction::CLAIMED).bind(Uuid::new_v4())).await;
    check(&mut tx, "bound runs", explain(transaction::BOUND_RUNS).bind("executor")).await;
    check(&mut tx, "events since", explain(state::EVENTS_SINCE).bind(at).bind(100i64)).await;
    check(&mut tx, "live counts", explain(reader::LIVE_COUNTS)).await;
    check(
        &mut tx,
        "delete due",
        explain(follow::DELETE_DUE).bind(ids.clone()).bind(vec!["timer"; ids.len()]).bind(vec![None::<i64>; ids.len()]),
    )
    .await;
    check(&mut tx, "upsert due", explain(follow::UPSERT_DUE).bind(ids.clone()).bind(vec!["poke"; ids.len()]).bind(vec![at; ids.len()]))
        .await;
    check(&mut tx, "end of parents", explain(follow::DELETE_AFTER).bind(ids.clone())).await;

    let changed: Vec<RunWrite> = open.iter().take(4).map(|write| ended(write, at)).collect();
    let changed_runs: Vec<&Run> = changed.iter().map(|write| &write.run).collect();
    check(&mut tx, "update runs", parts::bind_run(explain(parts::UPDATE_RUNS), &changed_runs).expect("runs are written as JSON")).await;
    let writes: Vec<&RunWrite> = changed.iter().collect();
    let rows = parts::step_rows(&writes);
    check(&mut tx, "update steps", parts::bind_steps(explain(parts::UPDATE_STEPS), &rows).expect("steps are written as JSON")).await;

    // A large batch may well read the whole of a small table, but never once per row.
    let all: Vec<RunWrite> = open.iter().map(|write| ended(write, at)).collect();
    let all_runs: Vec<&Run> = all.iter().map(|write| &write.run).collect();
    let batch =
        plan(&mut tx, "update of many runs", parts::bind_run(explain(parts::UPDATE_RUNS), &all_runs).expect("runs are written as JSON"))
            .await;
    assert!(!batch.contains("Rows Removed by Join Filter"), "a batch compares every row with every other:\n{batch}");

    let below = Some(RunId::mint());
    for (name, filter) in [
        ("list", RunFilter { below, ..RunFilter::default() }),
        ("list of a workflow", RunFilter { workflow: Some(Name::literal("sample")), ..RunFilter::default() }),
        ("list of live runs", RunFilter { statuses: vec![RunStatus::Pending, RunStatus::Running], ..RunFilter::default() }),
        ("list of failed runs", RunFilter { statuses: vec![RunStatus::Failed, RunStatus::Killed], ..RunFilter::default() }),
        ("list of completed runs", RunFilter { statuses: vec![RunStatus::Completed], ..RunFilter::default() }),
        ("list of a session", RunFilter { session: Some(Name::literal("none")), ..RunFilter::default() }),
        ("list of a repository", RunFilter { repo: Some("https://example.com/none.git".to_owned()), ..RunFilter::default() }),
        ("list by label", RunFilter { labels: vec![("team".to_owned(), "none".to_owned())], ..RunFilter::default() }),
    ] {
        let mut page = listing::page(&sample.namespace, &RunFilter { limit: 50, ..filter });
        let (sql, arguments) = (page.sql().as_str().to_owned(), page.build().persistent(false));
        let arguments = sqlx::Execute::take_arguments(&mut { arguments }).expect("parameters are encoded").unwrap_or_default();
        let sql = AssertSqlSafe(format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}"));
        check(&mut tx, name, sqlx::query_with(sql, arguments).persistent(false)).await;
    }
    tx.rollback().await.expect("nothing of it stays");
}

/// As if nobody had analysed the table since the runs came.
pub(super) async fn a_backlog_is_claimed_in_the_order_of_its_index(store: &Postgres) {
    let (sample, open) = fill(store).await;
    let at = now(store).await;
    let mut tx = store.begin_write().await.expect("a transaction begins");
    let forget = "DELETE FROM pg_catalog.pg_statistic WHERE starelid::regclass::text LIKE 'hopyard_runs.%'";
    sqlx::raw_sql(forget).execute(&mut *tx).await.expect("statistics are forgotten");
    let candidates = || explain(transaction::CANDIDATES).bind(sample.pool.as_str()).bind(at).bind("executor").bind(16i64);
    let ids: Vec<Uuid> = open.iter().map(|write| write.run.id.as_uuid()).collect();
    check(&mut tx, "load: parts of many", explain(state::PARTS).bind(ids)).await;
    let mut read = Vec::new();
    for settings in ["", transaction::IN_ORDER] {
        sqlx::raw_sql(settings).execute(&mut *tx).await.expect("the settings are made");
        read.push(plan(&mut tx, "candidates of a backlog", candidates()).await);
    }
    assert!(read[0].contains("Sort"), "the planner would not need the settings:\n{}", read[0]);
    assert!(!read[1].contains("Sort") && read[1].contains("Index Scan using steps_waiting"), "a claim sorts a backlog:\n{}", read[1]);
    tx.rollback().await.expect("nothing of it stays");
}
