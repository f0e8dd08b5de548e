//! Cancelling: whole trees end, what waits never starts, what has ended stays as it is.

use serde_json::{Value, json};

use crate::harness::api::{shell, step_of};
use crate::harness::leftovers::step_processes;
use crate::harness::wait::{eventually, holds};
use crate::harness::{Harness, Setup};

/// Covers E1, E6, E7 and X14: a daemon that left its session twice goes too, and so does what ignores TERM.
#[tokio::test]
async fn a_cancelled_run_leaves_no_process_behind() {
    let harness = Harness::start(Setup::default()).await;
    let ready = harness.dir().join("ready");
    let script = format!(
        "(setsid sh -c '(setsid sh -c \"trap : TERM INT HUP; touch {0}.daemon; while :; do sleep 1; done\" &) ; exit 0' &)\n\
         trap : TERM\nuntil [ -e {0}.daemon ]; do sleep 0.05; done\necho before\nwhile :; do sleep 1; done",
        ready.display()
    );
    let run = harness.submit(shell(&script)).await;
    harness.wait_running(&run, "main").await;
    let daemon = harness.dir().join("ready.daemon");
    eventually("the daemon lives", || async { holds(daemon.exists(), "no sign of it") }).await;
    eventually("the step goes on", || async {
        let log = harness.log_so_far(&run, "main").await;
        holds(log == "before\n", log)
    })
    .await;
    assert!(step_processes(harness.dir()).len() >= 3, "{:?}", step_processes(harness.dir()));

    let told = harness.cancel(&run, json!({ "reason": "no longer wanted" })).await.expect(202).json();
    assert!(told["kill_requested_at"].is_string(), "{told:#}");
    harness.cancel(&run, Value::Null).await;
    let state = harness.wait_final(&run).await;
    assert_eq!(
        (&state["status"], &state["kill_reason"], &state["killed_by"]),
        (&json!("killed"), &json!("no longer wanted"), &json!("api")),
        "{state:#}"
    );
    assert_eq!(
        (&step_of(&state, "main")["status"], &step_of(&state, "main")["attempts"][0]["status"]),
        (&json!("killed"), &json!("killed"))
    );
    assert_eq!(step_processes(harness.dir()), Vec::<String>::new());
    assert_eq!(harness.stdout(&run, "main").await, "before\n");
    let events = harness.events(&run).await;
    let asked = events.iter().find(|e| e["type"] == "run.kill_requested").expect("the order is in the record");
    assert_eq!((&asked["data"]["by"], &asked["data"]["reason"]), (&json!("api"), &json!("no longer wanted")), "{asked}");
    assert_eq!(events.iter().filter(|e| e["type"] == "run.killed").count(), 1);

    // Covers E3: what has ended is told apart, and does not change.
    let refused = harness.cancel(&run, Value::Null).await.problem(409, "already_final");
    assert_eq!((&refused["run"]["status"], refused["run_id"].as_str()), (&json!("killed"), Some(run.as_str())));
    assert_eq!(harness.run(&run).await, state);
    harness.close().await;
}

/// A forced cancel does not wait for the grace period.
#[tokio::test]
async fn a_forced_cancel_does_not_wait_for_grace() {
    let harness = Harness::start(Setup { grace: "60s", ..Setup::default() }).await;
    let run = harness.submit(shell("trap : TERM; echo up; while :; do sleep 1; done")).await;
    harness.wait_running(&run, "main").await;
    let begun = std::time::Instant::now();
    harness.cancel(&run, json!({ "force": true })).await.expect(202);
    let state = harness.wait_final(&run).await;
    assert_eq!(state["status"], "killed");
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    harness.close().await;
}

/// Covers E2 and C11: a run that waits is killed at once and is never started.
#[tokio::test]
async fn a_cancelled_pending_run_never_starts() {
    let mut harness = Harness::start(Setup { executors: 0, ..Setup::default() }).await;
    let touched = harness.dir().join("touched");
    let run = harness.submit(shell(&format!("touch {}", touched.display()))).await;
    let told = harness.cancel(&run, Value::Null).await.expect(202).json();
    assert_eq!(told["status"], "killed", "{told:#}");
    harness.add("executor-1", "executor", "host-1");
    harness.start_service("executor-1").await;
    // A run behind it in the queue shows that the executor has been past it.
    let next = harness.submit(shell("true")).await;
    harness.wait_completed(&next).await;
    let state = harness.run(&run).await;
    assert_eq!((&state["status"], step_of(&state, "main")["attempts"].as_array().map(Vec::len)), (&json!("killed"), Some(0)), "{state:#}");
    assert!(!touched.exists());
    harness.close().await;
}

/// A cancel that comes before its run is kept, and the run is born killed; an old unknown id is no run.
#[tokio::test]
async fn a_cancel_before_its_run_is_kept() {
    let mut harness = Harness::start(Setup::default()).await;
    harness.finish(shell("true")).await;
    harness.kill9("scheduler-1").await;
    let run = harness.http("POST", "/api/v1/runs", shell("true")).await.expect(202).json()["run_id"].as_str().unwrap().to_owned();
    let told = harness.cancel(&run, json!({ "reason": "changed my mind" })).await.expect(202).json();
    assert_eq!(told["status"], "pending", "{told:#}");
    harness.start_service("scheduler-1").await;
    eventually("the run comes in", || async {
        let answer = harness.http("GET", &format!("/api/v1/runs/{run}"), Value::Null).await;
        holds(answer.status == 200, answer.text())
    })
    .await;
    let young = hopyard_contract::RunId::mint().to_string();
    harness.cancel(&young, Value::Null).await.expect(202);
    // Version 7, of the year 2020.
    harness.cancel("01700000-0000-7000-8000-000000000001", Value::Null).await.problem(404, "unknown_run");
    // The order of a cancel and of its submission on the bus is not ours to choose: the run is killed, or had already begun to end.
    let state = harness.wait_final(&run).await;
    assert!(matches!(state["status"].as_str(), Some("killed" | "completed")), "{state:#}");
    harness.close().await;
}

/// A cancel over the bus has a receipt of its own.
#[tokio::test]
async fn a_cancel_over_the_bus_has_a_receipt() {
    let harness = Harness::start(Setup::default()).await;
    let run = harness.submit(shell("exec sleep 600")).await;
    harness.wait_running(&run, "main").await;
    let mut bus = harness.bus().await;
    bus.subscribe("hopyard.receipt.default.*").await;
    let body = json!({ "v": 1, "run_id": run, "reason": "over the bus" }).to_string();
    let seq = bus.store("hopyard.cmd.cancel.default", &[], body.as_bytes()).await;
    let receipt = bus.next_on(|s| s == format!("hopyard.receipt.default.{seq}")).await.json();
    assert_eq!(
        (&receipt["items"][0]["status"], receipt["items"][0]["run_id"].as_str()),
        (&json!("accepted"), Some(run.as_str())),
        "{receipt:#}"
    );
    assert_eq!(receipt["cancel"], true, "it is told from a submission's: {receipt:#}");
    let state = harness.wait_final(&run).await;
    assert_eq!((&state["status"], &state["kill_reason"]), (&json!("killed"), &json!("over the bus")));
    harness.close().await;
}

/// A cancel while the scheduler restarts is not lost.
#[tokio::test]
async fn a_cancel_survives_the_scheduler_being_away() {
    let mut harness = Harness::start(Setup { lease: "15s", renew: "1s", ..Setup::default() }).await;
    let run = harness.submit(shell("echo up; exec sleep 600")).await;
    harness.wait_running(&run, "main").await;
    harness.kill9("scheduler-1").await;
    let told = harness.cancel(&run, Value::Null).await.expect(202).json();
    assert_eq!((&told["committed"], &told["warnings"][0]["code"]), (&json!(false), &json!("scheduler_unavailable")), "{told:#}");
    harness.start_service("scheduler-1").await;
    let state = harness.wait_final(&run).await;
    assert_eq!(state["status"], "killed", "{state:#}");
    assert_eq!(step_of(&state, "main")["attempts"].as_array().map(Vec::len), Some(1), "{state:#}");
    harness.close().await;
}
