//! Canaries: health that means that work flows.

use std::time::Duration;

use serde_json::{Value, json};

use super::with;
use crate::harness::Harness;
use crate::harness::wait::{eventually, holds, within};

/// Covers X15: canaries come through where work flows, and their absence shows where executors only beat.
#[tokio::test]
async fn an_executor_that_beats_and_does_not_work_is_found_out() {
    let mut harness = Harness::start(with(&[("CANARY", "1s")])).await;
    let came = "hopyard_canaries_total{outcome=\"completed\",pool=\"default\"}";
    eventually("canaries come through", || async {
        let completed = harness.metric("ingest-1", came).await;
        holds(completed >= 2.0, completed.to_string())
    })
    .await;
    assert_eq!(harness.get("/health").await["components"]["canaries"]["status"], "ok");

    // Nobody stands behind this beat.
    let mut bus = harness.bus().await;
    let beat = json!({
        "kind": "executor", "id": "zombie-1", "host": "nowhere", "pool": "zombie", "slots": 4, "free": 4,
        "claimed_ms_ago": 0, "version": "0.0.0",
    });
    bus.publish("hopyard.beat.executor.zombie-1", beat.to_string().as_bytes()).await;
    let health = eventually("health shows it", || async {
        let health = harness.http("GET", "/health", Value::Null).await.json();
        if health["components"]["canaries"]["code"] == "canary_late" { Ok(health) } else { Err(health) }
    })
    .await;
    let text = health["components"]["canaries"]["text"].as_str().unwrap();
    assert!(text.contains("`zombie`") && !text.contains("`default`"), "{text}");
    assert!(harness.metric("ingest-1", "hopyard_canaries_total{outcome=\"late\",pool=\"zombie\"}").await >= 1.0);
    // Once the beats have stopped the pool is no longer asked for, and nothing waits in it.
    within(Duration::from_secs(60), "its canaries are taken back", || async {
        let runs = harness.get("/api/v1/namespaces/hopyard-canary/runs?status=pending").await;
        let waiting = runs["items"].as_array().unwrap().iter().filter(|run| run["pool"] == "zombie").count();
        let shown = harness.metric("ingest-1", "hopyard_canary_age_seconds{pool=\"zombie\"}").await;
        holds(waiting == 0 && shown == 0.0, format!("{waiting} {shown}"))
    })
    .await;
    harness.stop_service("ingest-1").await;
    harness.close().await;
}
