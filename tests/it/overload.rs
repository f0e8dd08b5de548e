//! Overload: what is refused says so with a time to come back, and everything else stays open.

use hopyard_store::Store;
use serde_json::{Value, json};

use crate::harness::api::shell;
use crate::harness::http::Answer;
use crate::harness::wait::{eventually, holds};
use crate::harness::{Harness, Setup};

mod canaries;
mod flood;
mod followers;
mod readers;

fn with(settings: &[(&'static str, &str)]) -> Setup {
    Setup { settings: settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), ..Setup::default() }
}

/// A problem that tells its reader when to come back, in the header too.
#[track_caller]
fn passing(answer: Answer, status: u16, code: &str) -> Value {
    let seconds: u64 = answer.header("retry-after").and_then(|s| s.parse().ok()).expect("a time to come back");
    let problem = answer.problem(status, code);
    let ms = problem["retry_after_ms"].as_u64().expect("the same time in ms");
    assert_eq!(seconds, ms.div_ceil(1000), "{problem:#}");
    problem
}

async fn submit(harness: &Harness, request: Value) -> Answer {
    harness.http("POST", "/api/v1/runs", request).await
}

/// Covers A3, A4 and J4: intake that is off is refused at every door with the setting to change, and shows.
#[tokio::test]
async fn intake_that_is_off_says_which_setting_to_change() {
    let harness = Harness::start(with(&[("INTAKE", "off")])).await;
    let problem = passing(submit(&harness, shell("true")).await, 503, "intake_off");
    assert!(problem["detail"].as_str().unwrap().contains("HOPYARD_INTAKE"), "{problem:#}");

    let mut bus = harness.bus().await;
    let body = shell("true").to_string();
    let answer = bus.request("hopyard.api.submit.default", &[], body.as_bytes()).await.json();
    assert_eq!(answer["problem"]["code"], "intake_off", "{answer:#}");
    assert!(answer["problem"]["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{answer:#}");

    bus.subscribe("hopyard.receipt.>").await;
    let seq = bus.store("hopyard.cmd.submit.default", &[], body.as_bytes()).await;
    let receipt = bus.next_on(|subject| subject.starts_with("hopyard.receipt.")).await.json();
    assert_eq!((&receipt["items"][0]["status"], receipt["seq"].as_u64()), (&json!("rejected"), Some(seq)), "{receipt:#}");
    assert!(receipt["items"][0]["errors"][0]["detail"].as_str().unwrap().contains("HOPYARD_INTAKE"), "{receipt:#}");
    assert_eq!(harness.get(&format!("/api/v1/receipts/{seq}")).await["items"], receipt["items"], "it is stored");

    let health = harness.http("GET", "/health", Value::Null).await.expect(503).json();
    assert_eq!(health["components"]["intake"]["code"], "intake_off", "{health:#}");
    assert_eq!(harness.metric("ingest-1", "hopyard_intake_open").await, 0.0);
    assert_eq!(harness.metric("ingest-1", "hopyard_submissions_refused_total{code=\"intake_off\",door=\"http\"}").await, 1.0);
    assert_eq!(harness.get("/api/v1/runs").await["items"], json!([]), "reads are open, and nothing was taken");
    harness.close().await;
}

/// Covers A3: without any setting, intake is on and says so.
#[tokio::test]
async fn intake_is_on_by_default() {
    let harness = Harness::start(Setup::default()).await;
    assert_eq!(harness.metric("ingest-1", "hopyard_intake_open").await, 1.0);
    assert_eq!(harness.get("/health").await["components"]["intake"]["status"], "ok");
    harness.close().await;
}

/// A client that sends too fast is told when to come back; its reads and cancels, and other namespaces, are open.
#[tokio::test]
async fn a_client_that_is_too_fast_may_still_read_and_cancel() {
    let harness = Harness::start(with(&[("SUBMIT_RATE", "1"), ("SUBMIT_BURST", "3")])).await;
    let run = harness.submit(shell("echo up; while :; do sleep 1; done")).await;
    harness.wait_running(&run, "main").await;
    // A body of many counts as many.
    let body = json!({ "runs": [shell("true"), shell("true"), shell("true"), shell("true")] });
    let refused = passing(harness.http("POST", "/api/v1/runs/batch", body).await, 429, "rate_limited");
    assert!(refused["detail"].as_str().unwrap().contains("HOPYARD_SUBMIT_RATE"), "{refused:#}");
    harness.http("POST", "/api/v1/namespaces/other/runs", shell("true")).await.expect(201);
    assert_eq!(harness.run(&run).await["status"], "running");
    assert_eq!(harness.get("/health").await["status"], "ok");
    harness.cancel(&run, Value::Null).await.expect(202);
    assert_eq!(harness.wait_final(&run).await["status"], "killed");
    assert_eq!(harness.metric("ingest-1", "hopyard_submissions_refused_total{code=\"rate_limited\",door=\"http\"}").await, 1.0);
    harness.close().await;
}

/// A namespace with as many pending runs as it may have gets no more until one has gone; another one is not held up.
#[tokio::test]
async fn a_namespace_has_its_own_pending_cap() {
    let harness = Harness::start(Setup { executors: 0, ..with(&[("PENDING_CAP", "3")]) }).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(harness.submit(shell("true")).await);
    }
    let refused = passing(submit(&harness, shell("true")).await, 429, "queue_full");
    assert!(refused["detail"].as_str().unwrap().contains("HOPYARD_PENDING_CAP"), "{refused:#}");
    let other = harness.http("POST", "/api/v1/namespaces/other/runs", shell("true")).await.expect(201).json();
    harness.cancel(&runs[0], Value::Null).await.expect(202);
    eventually("there is room again", || async {
        let answer = submit(&harness, shell("true")).await;
        let told = answer.json();
        if answer.status == 201 { Ok(told["run_id"].as_str().unwrap().to_owned()) } else { Err(told) }
    })
    .await;
    for run in harness.get("/api/v1/runs?status=pending").await["items"].as_array().unwrap() {
        harness.cancel(run["id"].as_str().unwrap(), Value::Null).await.expect(202);
    }
    let path = format!("/api/v1/namespaces/other/runs/{}/cancel", other["run_id"].as_str().unwrap());
    harness.http("POST", &path, Value::Null).await.expect(202);
    harness.close().await;
}

/// A pool whose oldest step waits too long gets no more; one that nobody serves is not taken for a busy one (A2).
#[tokio::test]
async fn a_pool_that_is_behind_does_not_close_the_door_for_others() {
    let harness = Harness::start(Setup { slots: 1, ..with(&[("QUEUE_AGE", "50ms")]) }).await;
    let gate = harness.dir().join("gate");
    let first = harness.submit(shell(&format!("until [ -e {} ]; do sleep 0.05; done", gate.display()))).await;
    harness.wait_running(&first, "main").await;
    let second = harness.submit(shell("true")).await;
    let refused = eventually("the pool is found to be behind", || async {
        let answer = submit(&harness, shell("true")).await;
        // What is taken before the look has to end too.
        if answer.status == 503 { Ok(answer) } else { Err(answer.text()) }
    })
    .await;
    let problem = passing(refused, 503, "overloaded");
    assert!(problem["detail"].as_str().unwrap().contains("`default`"), "{problem:#}");
    let mut elsewhere = shell("true");
    elsewhere["pool"] = json!("unserved");
    let other = submit(&harness, elsewhere).await.expect(201).json();
    assert_eq!(other["warnings"][0]["code"], "no_executor", "{other:#}");
    let other = other["run_id"].as_str().unwrap().to_owned();
    let state = harness.run(&other).await;
    assert_eq!((&state["status"], &state["pending_reason"]), (&json!("pending"), &json!("awaiting_executor")));
    std::fs::write(&gate, "").unwrap();
    harness.wait_completed(&second).await;
    eventually("the pool has caught up", || async {
        let answer = submit(&harness, shell("true")).await;
        holds(answer.status == 201, answer.text())
    })
    .await;
    harness.cancel(&other, Value::Null).await.expect(202);
    harness.close().await;
}

/// While commits do not get to the bus, doors that answer at once refuse; reads, cancels and the stream are open.
#[tokio::test]
async fn an_old_outbox_sheds_submissions_and_the_stream_keeps_what_comes() {
    let mut harness = Harness::start(with(&[("OUTBOX_AGE", "2s")])).await;
    let run = harness.submit(shell("while :; do sleep 1; done")).await;
    // A row is there from one commit to the next, which deletes what was published: the scheduler has to stand still in between.
    let reader = Store::open(&harness.store_url).await.unwrap().reader();
    let mut tries = 0;
    loop {
        harness.submit(shell("true")).await;
        harness.freeze("scheduler-1");
        if reader.outbox_age_ms().await.unwrap() > 0 {
            break;
        }
        harness.thaw("scheduler-1");
        tries += 1;
        assert!(tries < 100, "the outbox is never seen with something in it");
    }
    let refused = eventually("the outbox is found to be old", || async {
        let answer = submit(&harness, shell("true")).await;
        if answer.json()["code"] == "overloaded" { Ok(answer) } else { Err(answer.text()) }
    })
    .await;
    let problem = passing(refused, 503, "overloaded");
    assert!(problem["detail"].as_str().unwrap().contains("HOPYARD_OUTBOX_AGE"), "{problem:#}");
    let mut bus = harness.bus().await;
    let body = shell("true").to_string();
    let answer = bus.request("hopyard.api.submit.default", &[], body.as_bytes()).await.json();
    assert_eq!((&answer["problem"]["code"], &answer["problem"]["status"]), (&json!("overloaded"), &json!(503)), "{answer:#}");
    assert!(answer["problem"]["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{answer:#}");
    let health = harness.http("GET", "/health", Value::Null).await.expect(503).json();
    assert_eq!(health["components"]["intake"]["code"], "overloaded", "{health:#}");
    assert!(harness.metric("ingest-1", "hopyard_submissions_refused_total{code=\"overloaded\",door=\"api\"}").await >= 1.0);

    assert_eq!(harness.run(&run).await["id"], run, "reads are open");
    let cancelled = harness.cancel(&run, Value::Null).await.expect(202).json();
    assert_eq!(cancelled["committed"], false, "the bus keeps the cancel: {cancelled:#}");
    bus.subscribe("hopyard.receipt.>").await;
    let seq = bus.store("hopyard.cmd.submit.default", &[], body.as_bytes()).await;

    harness.thaw("scheduler-1");
    let receipt = loop {
        let receipt = bus.next_on(|subject| subject.starts_with("hopyard.receipt.")).await.json();
        if receipt["seq"] == seq {
            break receipt;
        }
    };
    assert_eq!(receipt["items"][0]["status"], "accepted", "{receipt:#}");
    harness.wait_completed(receipt["items"][0]["run_id"].as_str().unwrap()).await;
    assert_eq!(harness.wait_final(&run).await["status"], "killed");
    eventually("submissions are taken again", || async {
        let answer = submit(&harness, shell("true")).await;
        holds(answer.status == 201, answer.text())
    })
    .await;
    harness.close().await;
}
