//! The three doors: what each answers, that the answers are true, and that a repeat is no second run.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::api::{shell, step_of};
use crate::harness::wait::{eventually, holds};
use crate::harness::{Engine, Harness, Setup};

/// Covers A2, A5 and J2: without an executor a submission is taken, explains itself, and starts by itself.
async fn without_an_executor_a_run_waits_and_says_so(engine: Engine) {
    let mut harness = Harness::start(Setup { executors: 0, ..Setup::on(engine) }).await;
    let answer = harness.http("POST", "/api/v1/runs", shell("true")).await.expect(201);
    let body = answer.json();
    let run = body["run_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/api/v1/runs/{run}").as_str()));
    assert_eq!((&body["status"], &body["warnings"][0]["code"]), (&json!("accepted"), &json!("no_executor")), "{body}");
    assert!(body["warnings"][0]["message"].as_str().is_some_and(|m| m.contains("hopyard executor")), "{body}");
    let state = harness.run(&run).await;
    assert_eq!((&state["status"], &state["pending_reason"]), (&json!("pending"), &json!("awaiting_executor")));
    let told = harness.get(&format!("/api/v1/runs/{run}/explain")).await;
    assert_eq!((&told["reason"], &told["blockers"][0]["pool"]), (&json!("awaiting_executor"), &json!("default")), "{told:#}");
    assert!(told["text"].as_str().is_some_and(|t| t.contains("hopyard executor")), "{told:#}");
    let health = harness.http("GET", "/health", Value::Null).await.expect(503).json();
    assert_eq!((&health["status"], &health["components"]["pools"]["status"]), (&json!("degraded"), &json!("degraded")), "{health:#}");

    harness.add("executor-1", "executor", "host-1");
    harness.start_service("executor-1").await;
    harness.wait_completed(&run).await;
    eventually("the stack is healthy", || async {
        let answer = harness.http("GET", "/health", Value::Null).await;
        holds(answer.status == 200 && answer.json()["status"] == "ok", answer.text())
    })
    .await;
    harness.close().await;
}

#[tokio::test]
async fn without_an_executor_a_run_waits_and_says_so_on_sqlite() {
    without_an_executor_a_run_waits_and_says_so(Engine::Sqlite).await;
}

#[tokio::test]
async fn without_an_executor_a_run_waits_and_says_so_on_postgres() {
    without_an_executor_a_run_waits_and_says_so(Engine::Postgres).await;
}

/// Covers A7 and A16: one key, one run, whoever asks and how often at once.
#[tokio::test]
async fn a_repeat_with_the_same_key_is_the_same_run() {
    let harness = Harness::start(Setup::default()).await;
    let key = [("Idempotency-Key", "release 1.2 / linux")];
    let first = harness.http_with("POST", "/api/v1/runs", &key, shell("true")).await.expect(201).json();
    let again = harness.http_with("POST", "/api/v1/runs", &key, shell("true")).await.expect(200).json();
    assert_eq!((&again["status"], &again["run_id"]), (&json!("duplicate"), &first["run_id"]));
    let in_body = |script: &str, key: &str| {
        let mut request = shell(script);
        request["idempotency_key"] = json!(key);
        request
    };
    let again = harness.http("POST", "/api/v1/runs", in_body("true", key[0].1)).await.expect(200).json();
    assert_eq!(again["run_id"], first["run_id"]);
    harness.http_with("POST", "/api/v1/runs", &key, shell("false")).await.problem(409, "idempotency_conflict");
    harness.http_with("POST", "/api/v1/runs", &key, in_body("true", "another")).await.expect(422);

    let asked = (0..100).map(|_| harness.http("POST", "/api/v1/runs", in_body("echo once", "parallel")));
    let answers = futures::future::join_all(asked).await;
    let created = answers.iter().filter(|a| a.status == 201).count();
    let repeated = answers.iter().filter(|a| a.status == 200).count();
    assert_eq!((created, repeated), (1, 99), "{:?}", answers.iter().map(|a| a.status).collect::<BTreeSet<_>>());
    let ids: BTreeSet<String> = answers.iter().map(|a| a.json()["run_id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let other = harness.http("POST", "/api/v1/namespaces/other/runs", in_body("true", "parallel")).await.expect(201).json();
    assert!(!ids.contains(&other["run_id"].to_string()), "a key belongs to its namespace");
    assert_eq!(harness.get("/api/v1/runs").await["items"].as_array().map(Vec::len), Some(2));
    harness.close().await;
}

/// Covers A8: one verdict per item, in order; the good ones run although others are refused.
#[tokio::test]
async fn a_batch_has_a_verdict_for_each_of_its_runs() {
    let harness = Harness::start(Setup::default()).await;
    let runs = json!({ "runs": [shell("echo 0"), { "workflow": "nowhere" }, shell("echo 2"), { "workflow": 7, "prio": 1 }] });
    let answer = harness.http("POST", "/api/v1/runs/batch", runs).await.expect(200).json();
    let status: Vec<_> = answer["items"].as_array().unwrap().iter().map(|i| i["status"].as_str().unwrap_or_default()).collect();
    assert_eq!(status, ["accepted", "rejected", "accepted", "rejected"], "{answer:#}");
    assert_eq!(answer["items"][1]["errors"][0]["code"], "unknown_workflow");
    let codes: BTreeSet<_> =
        answer["items"][3]["errors"].as_array().unwrap().iter().map(|e| (e["code"].as_str(), e["pointer"].as_str())).collect();
    assert_eq!(codes, BTreeSet::from([(Some("type"), Some("/workflow")), (Some("unknown_field"), Some("/prio"))]));
    for (place, text) in [(0, "0\n"), (2, "2\n")] {
        let run = answer["items"][place]["run_id"].as_str().unwrap();
        harness.wait_completed(run).await;
        assert_eq!(harness.stdout(run, "main").await, text);
    }
    let many = json!({ "runs": (0..100).map(|i| shell(&format!("exit $(({i} % 1))"))).collect::<Vec<_>>() });
    let answer = harness.http("POST", "/api/v1/runs/batch", many).await.expect(200).json();
    let ids: BTreeSet<String> = answer["items"].as_array().unwrap().iter().map(|i| i["run_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 100);
    for run in &ids {
        harness.wait_completed(run).await;
    }
    harness.http("POST", "/api/v1/runs/batch", json!({ "runs": [] })).await.problem(422, "length");
    harness.close().await;
}

/// Covers A21: a message on the bus is a submission, its sequence a receipt, and the verdict comes and stays.
#[tokio::test]
async fn a_message_on_the_bus_becomes_a_run_with_a_receipt() {
    let harness = Harness::start(Setup::default()).await;
    let mut bus = harness.bus().await;
    bus.subscribe("hopyard.receipt.default.*").await;
    bus.subscribe("hopyard.event.default.>").await;
    let body = json!({ "runs": [shell("echo over the bus"), { "workflow": "nowhere" }] }).to_string();
    let seq = bus.store("hopyard.cmd.submit.default", &[("Hopyard-Idempotency-Key", "by bus")], body.as_bytes()).await;
    let receipt = bus.next_on(|s| s == format!("hopyard.receipt.default.{seq}")).await.json();
    assert_eq!(
        (&receipt["v"], &receipt["id"], &receipt["seq"], &receipt["namespace"]),
        (&json!(1), &json!(seq.to_string()), &json!(seq), &json!("default"))
    );
    assert_eq!((&receipt["items"][0]["status"], &receipt["items"][1]["status"]), (&json!("accepted"), &json!("rejected")), "{receipt:#}");
    assert_eq!(receipt["items"][1]["errors"][0]["code"], "unknown_workflow");
    let run = receipt["items"][0]["run_id"].as_str().unwrap().to_owned();
    let kept = harness.get(&format!("/api/v1/receipts/{seq}")).await;
    assert_eq!(kept, receipt);

    // Anybody can follow the run with a plain subscription.
    let mut types = Vec::new();
    while !types.iter().any(|t| t == "run.completed") {
        let message = bus.next_on(|s| s == format!("hopyard.event.default.{run}")).await;
        let page = message.json();
        assert!(message.headers.contains("Hopyard-Type:"), "{}", message.headers);
        types.extend(page["events"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap().to_owned()));
    }
    assert_eq!(types[0], "run.accepted");
    assert_eq!(harness.stdout(&run, "main").await, "over the bus\n");

    let seq = bus.store("hopyard.cmd.submit.default", &[("Hopyard-Idempotency-Key", "by bus")], body.as_bytes()).await;
    let receipt = bus.next_on(|s| s == format!("hopyard.receipt.default.{seq}")).await.json();
    assert_eq!(
        (&receipt["items"][0]["status"], receipt["items"][0]["run_id"].as_str()),
        (&json!("duplicate"), Some(run.as_str())),
        "{receipt:#}"
    );

    for bad in [&b"{"[..], b"null", b"\xff", b"{\"workflow\":\"a\",\"workflow\":\"b\"}", b"{\"v\":2,\"workflow\":\"x\"}"] {
        let seq = bus.store("hopyard.cmd.submit.default", &[], bad).await;
        let receipt = bus.next_on(|s| s == format!("hopyard.receipt.default.{seq}")).await.json();
        assert_eq!(receipt["items"][0]["status"], "rejected", "{receipt:#}");
        assert!(receipt["items"][0]["errors"][0]["code"].is_string(), "{receipt:#}");
    }
    harness.http("GET", "/api/v1/receipts/99999999", Value::Null).await.expect(404);
    harness.close().await;
}

/// The third door answers at once, with verdicts or with a problem.
#[tokio::test]
async fn a_request_on_the_bus_is_answered_at_once() {
    let harness = Harness::start(Setup::default()).await;
    let mut bus = harness.bus().await;
    let answer = bus.request("hopyard.api.submit.default", &[], shell("true").to_string().as_bytes()).await.json();
    assert_eq!((&answer["v"], &answer["items"][0]["status"]), (&json!(1), &json!("accepted")), "{answer}");
    let run = answer["items"][0]["run_id"].as_str().unwrap().to_owned();
    let receipt = harness.get(&format!("/api/v1/receipts/{run}")).await;
    assert_eq!(receipt["items"][0]["run_id"], run);
    harness.wait_completed(&run).await;
    let refused = bus.request("hopyard.api.submit.default", &[], b"[1]").await.json();
    assert_eq!((&refused["v"], &refused["problem"]["code"]), (&json!(1), &json!("type")), "{refused}");
    let verdict = bus.request("hopyard.api.submit.default", &[], b"{\"workflow\":\"nowhere\"}").await.json();
    assert_eq!(verdict["items"][0]["errors"][0]["code"], "unknown_workflow", "{verdict}");
    harness.close().await;
}

/// Truth rule: with no scheduler the bus keeps the submission, the answer says so, and it is committed later, once.
#[tokio::test]
async fn without_a_scheduler_a_submission_is_kept_and_committed_later() {
    let mut harness = Harness::start(Setup::default()).await;
    let warm = harness.finish(shell("true")).await;
    assert_eq!(warm["status"], "completed");
    harness.kill9("scheduler-1").await;
    // The definition has been used before, so that the door needs no scheduler to know it.
    let mut request = shell("true");
    request["idempotency_key"] = json!("kept");
    let answer = harness.http("POST", "/api/v1/runs", request.clone()).await.expect(202).json();
    assert_eq!((&answer["committed"], &answer["warnings"][0]["code"]), (&json!(false), &json!("scheduler_unavailable")), "{answer}");
    let run = answer["run_id"].as_str().unwrap().to_owned();
    harness.http("GET", &format!("/api/v1/runs/{run}"), Value::Null).await.expect(404);
    harness.start_service("scheduler-1").await;
    eventually("the submission is committed", || async {
        let answer = harness.http("GET", &format!("/api/v1/runs/{run}"), Value::Null).await;
        holds(answer.status == 200, answer.text())
    })
    .await;
    harness.wait_completed(&run).await;
    let again = harness.http("POST", "/api/v1/runs", request).await.expect(200).json();
    assert_eq!(again["run_id"], run);
    harness.close().await;
}

/// With neither scheduler nor bus nothing is taken, and the answer says that.
#[tokio::test]
async fn without_scheduler_and_bus_nothing_is_taken() {
    let mut harness = Harness::start(Setup::default()).await;
    harness.finish(shell("true")).await;
    harness.nats.kill().await.unwrap();
    let refused = harness.http("POST", "/api/v1/runs", shell("true")).await;
    // Jittered, so that those who were refused together do not come back together.
    let wait: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).unwrap_or_default();
    assert!((1..=5).contains(&wait), "{wait}: {}", refused.text());
    let code = refused.json()["code"].as_str().unwrap_or_default().to_owned();
    assert!(code == "not_accepted" || code == "outcome_unknown", "{}", refused.text());
    refused.problem(503, &code);
    harness.nats.restart_same_port().await.unwrap();
    eventually("submissions are taken again", || async {
        let answer = harness.http("POST", "/api/v1/runs", shell("true")).await;
        holds(answer.status == 201, answer.text())
    })
    .await;
    harness.close().await;
}

/// A stored workflow runs by name, with inputs checked against what it declares.
#[tokio::test]
async fn a_stored_workflow_runs_by_name() {
    let harness = Harness::start(Setup::default()).await;
    let yaml = "version: 1\nname: greet\nworkspace: {mode: none}\ninputs: {who: {type: string}}\nsteps:\n  - id: main\n    shell: echo \"hello $WHO\"\n    env: {WHO: \"${{ inputs.who }}\"}\n";
    let stored = harness.put_workflow("greet", yaml).await.expect(201);
    let tag = stored.header("etag").expect("a workflow has a tag").to_owned();
    assert_eq!(harness.put_workflow("greet", yaml).await.expect(200).header("etag"), Some(tag.as_str()));
    let run = harness.submit(json!({ "workflow": "greet", "inputs": { "who": "you" } })).await;
    let state = harness.wait_completed(&run).await;
    assert_eq!(harness.stdout(&run, "main").await, "hello you\n");
    assert_eq!(step_of(&state, "main")["kind"], "shell");
    for (inputs, pointer) in
        [(json!({}), "/inputs/who"), (json!({ "who": 1 }), "/inputs/who"), (json!({ "who": "x", "whom": "y" }), "/inputs/whom")]
    {
        let refused = harness.http("POST", "/api/v1/runs", json!({ "workflow": "greet", "inputs": inputs })).await;
        assert_eq!((refused.status, refused.json()["pointer"].as_str()), (422, Some(pointer)), "{}", refused.text());
    }
    harness.http("POST", "/api/v1/runs", json!({ "workflow": "nowhere" })).await.problem(422, "unknown_workflow");
    let list = harness.get("/api/v1/workflows").await;
    assert_eq!((&list["items"][0]["name"], &list["items"][0]["version"]), (&json!("greet"), &json!(1)));
    harness.close().await;
}
