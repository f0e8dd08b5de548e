//! Bad input: every class of it has a status, a code and a pointer, is told the same by every door, and leaves nothing behind.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::http;
use crate::harness::postgres::rows;
use crate::harness::{Engine, Harness, Setup};

mod definitions;
mod doors;
mod framing;
mod ids;
mod kept;
mod messages;
mod names;
mod numbers;
mod repositories;
mod requests;
mod syntax;
mod table;
mod times;
mod types;

use doors::Doors;
use table::Row;

/// The workflow that rows name.
const SAMPLE: &str = "version: 1
name: sample
inputs:
  n: {type: integer, default: 1}
  text: {type: string, default: ''}
  short: {type: string, maxLength: 8, default: ''}
  free: {type: object, default: {}, additionalProperties: {type: string}}
  any: {default: null}
workspace: {mode: none}
steps:
  - id: main
    shell: 'true'
";

fn table() -> Vec<Row> {
    [
        syntax::rows(),
        types::rows(),
        numbers::rows(),
        names::rows(),
        times::rows(),
        ids::rows(),
        repositories::rows(),
        definitions::rows(),
        requests::rows(),
        framing::rows(),
    ]
    .concat()
}

/// Covers A11, A19 and F9: the whole table on one stack; PostgreSQL, since it refuses more than SQLite does.
#[tokio::test]
async fn every_bad_input_has_its_exact_answer_and_leaves_nothing() {
    let mut harness = Harness::start(Setup { executors: 0, ..Setup::on(Engine::Postgres) }).await;
    harness.put_workflow("sample", SAMPLE).await.expect(201);
    let live = harness.submit(json!({ "workflow": "sample", "idempotency_key": "taken", "inputs": { "n": 2 } })).await;
    let ended = harness.submit(json!({ "workflow": "sample" })).await;
    harness.cancel(&ended, Value::Null).await.expect(202);
    let mut accepted = BTreeSet::from([live.clone(), ended.clone()]);
    accepted.extend(kept::check(&harness).await);

    let table = table();
    let mut doors = Doors::open(&harness, &live, &ended).await;
    let asking = async {
        for row in &table {
            doors.ask(row).await;
        }
        messages::ask(&mut doors, &live, &ended).await;
        doors.receipts().await
    };
    let (slow, (receipts, letters)) = tokio::join!(framing::slow(harness.api()), asking);
    let mut wrong = doors.wrong;
    wrong.extend(slow);
    wrong.extend(messages::requests(&mut harness.bus().await).await);
    let classes: BTreeSet<u8> = table.iter().map(|row| row.class).collect();
    println!(
        "{} inputs of {} classes, {} answers, {receipts} receipts, {letters} dead letters, {} wrong",
        table.len(),
        classes.len(),
        doors.answers,
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} answers are not as they should be:\n{}", wrong.len(), wrong.join("\n"));
    assert!(table.len() >= 400, "{} inputs", table.len());

    // Nothing half-written: the runs that were accepted and no others, a receipt for each command and for nothing else.
    let query = |what: &'static str| {
        let url = harness.store_url.clone();
        async move { rows(&url, what).await.into_iter().map(|row| row.join(" ")).collect::<BTreeSet<_>>() }
    };
    assert_eq!(query("select id from hopyard_runs.runs").await, accepted);
    assert_eq!(query("select distinct run_id from hopyard_runs.events").await, accepted);
    assert_eq!(query("select distinct run_id from hopyard_runs.steps").await, accepted);
    assert_eq!(query("select count(*) from hopyard_runs.receipts").await, BTreeSet::from([receipts.to_string()]));
    assert_eq!(query("select key from hopyard_runs.keys").await, BTreeSet::from(["taken".to_owned()]));
    assert_eq!(query("select distinct name from hopyard_runs.definitions").await, BTreeSet::from(["sample".to_owned()]));
    assert_eq!(query("select count(*) from hopyard_runs.tombstones").await, BTreeSet::from(["0".to_owned()]));

    for run in &accepted {
        harness.cancel(run, Value::Null).await;
    }
    for name in ["ingest-1", "scheduler-1"] {
        let words = harness.service(name).words();
        assert!(!words.contains("panicked"), "{name} has panicked");
        let admin = harness.service(name).admin();
        let metrics = http::send(admin, "GET", "/metrics", &[], b"").await.unwrap().expect(200).text();
        let errors: Vec<&str> =
            metrics.lines().filter(|line| line.starts_with("hopyard_http_requests_total") && line.contains("status=\"5")).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    harness.close().await;
}

/// Covers A19: definitions are refused with file, line and column, everything at once.
#[tokio::test]
async fn definitions_that_are_wrong_name_the_line() {
    let harness = Harness::start(Setup { executors: 0, ..Setup::default() }).await;
    let yaml = "version: 1\nname: wrong\nsteps:\n  - id: a\n    needs: [b]\n    shell: x\n  - id: b\n    needs: [a]\n    shel: y\n  - id: a\n    shell: z\n    timeout: soon\n";
    let told = harness.put_workflow("wrong", yaml).await.expect(422).json();
    let errors = told["errors"].as_array().unwrap();
    assert!(errors.len() >= 3, "{told:#}");
    assert!(
        errors.iter().all(|e| e["file"] == "wrong.yaml" && e["line"].as_u64().is_some_and(|l| l > 1) && e["column"].is_u64()),
        "{told:#}"
    );
    assert!(errors.iter().any(|e| e["code"] == "unknown_field" && e["line"] == 9), "{told:#}");
    let all = json!({ "workflow": "", "priority": 9, "pool": "a/b", "extra": 1 });
    let told = harness.http("POST", "/api/v1/runs", all).await.expect(422).json();
    let mut pointers: Vec<_> = told["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/extra", "/pool", "/priority", "/workflow"]);
    let asked = harness.http_with("GET", "/api/v1/version", &[("x-request-id", "abc-123")], Value::Null).await;
    assert_eq!(asked.header("x-request-id"), Some("abc-123"));
    harness.close().await;
}
