//! Every status on every surface: the API, lists, events, streams, the bus, the command line, the views of the store, metrics.

use std::collections::BTreeMap;

use hopyard_contract::status::RunStatus;
use serde_json::{Value, json};

use crate::harness::api::shell;
use crate::harness::http;
use crate::harness::postgres::rows;
use crate::harness::programs::run_beside;
use crate::harness::wait::{eventually, holds};
use crate::harness::{Engine, Harness, Setup};

/// Statuses that a run of shell steps can have; a pause needs an approval, a question or a budget.
const REACHED: [RunStatus; 5] = [RunStatus::Pending, RunStatus::Running, RunStatus::Completed, RunStatus::Failed, RunStatus::Killed];

/// Covers B1, B14, F7 and J10.
#[tokio::test]
async fn every_surface_tells_the_same_status() {
    let harness = Harness::start(Setup { metrics: true, ..Setup::on(Engine::Postgres) }).await;
    let mut runs: BTreeMap<&str, String> = BTreeMap::new();
    let mut elsewhere = shell("true");
    elsewhere["pool"] = json!("nobody");
    for (status, request) in [
        ("pending", elsewhere),
        ("running", shell("exec sleep 600")),
        ("completed", shell("true")),
        ("failed", shell("false")),
        ("killed", shell("exec sleep 600")),
    ] {
        runs.insert(status, harness.submit(request).await);
    }
    harness.wait_running(&runs["running"], "main").await;
    harness.wait_running(&runs["killed"], "main").await;
    harness.cancel(&runs["killed"], Value::Null).await.expect(202);
    for ended in ["completed", "failed", "killed"] {
        assert_eq!(harness.wait_final(&runs[ended]).await["status"], ended);
    }
    let (program, env) = harness.client();
    for status in REACHED.map(RunStatus::as_str) {
        let run = &runs[status];
        let detail = harness.run(run).await;
        assert_eq!(detail["status"], status);
        let list = harness.get(&format!("/api/v1/runs?status={status}")).await;
        assert_eq!(
            (list["items"].as_array().map(Vec::len), &list["items"][0]["id"], &list["items"][0]["status"]),
            (Some(1), &json!(run), &json!(status))
        );
        for field in ["failure_code", "started_at", "finished_at", "usage", "pending_reason"] {
            assert_eq!(list["items"][0].get(field), detail.get(field), "{status}: {field}");
        }
        let view = rows(&harness.store_url, &format!("select status, namespace from hopyard_runs.v_runs where id = '{run}'")).await;
        assert_eq!(view, [[status.to_owned(), "default".to_owned()]]);
        let args = ["runs", "list", "--status", status, "--json"].map(str::to_owned).to_vec();
        let printed = run_beside(program.clone(), args, harness.dir().to_owned(), env.clone()).await;
        let printed: Value = serde_json::from_slice(&printed.stdout).unwrap_or_else(|e| panic!("{e}: {printed:?}"));
        assert!(
            printed.to_string().contains(run.as_str()) && printed.to_string().contains(&format!("\"status\":\"{status}\"")),
            "{printed}"
        );
        let types = harness.event_types(run).await;
        if RunStatus::from_filter(status).is_some_and(RunStatus::is_final) {
            assert!(types.contains(&format!("run.{status}")), "{types:?}");
            let mut stream = harness.follow(run, None).await;
            let mut end = Value::Null;
            while let Some(frame) = stream.next().await {
                if frame.event == "end" {
                    end = frame.data;
                    break;
                }
            }
            assert_eq!(end, json!({ "status": status }));
        }
    }
    let told = rows(&harness.store_url, "select count(*) from hopyard_runs.v_events where type = 'run.accepted'").await;
    assert_eq!(told, [["5"]]);
    for ended in ["pending", "running"] {
        harness.cancel(&runs[ended], Value::Null).await.expect(202);
        harness.wait_final(&runs[ended]).await;
    }
    harness.close().await;
}

/// Covers J14: counters follow the events, and a restart of the metrics service loses and repeats none.
#[tokio::test]
async fn counters_survive_a_restart_of_the_metrics_service() {
    let mut harness = Harness::start(Setup { metrics: true, ..Setup::default() }).await;
    for script in ["true", "false", "true"] {
        harness.finish(shell(script)).await;
    }
    counted(&mut harness, 2, 1).await;
    harness.kill9("metrics").await;
    harness.finish(shell("true")).await;
    harness.start_service("metrics").await;
    counted(&mut harness, 3, 1).await;
    harness.close().await;
}

/// Waits until the counters of runs by status say so.
async fn counted(harness: &mut Harness, completed: u64, failed: u64) {
    let admin = harness.service("metrics").admin();
    eventually("the counters say so", || async move {
        let text = http::send(admin, "GET", "/metrics", &[], b"").await.map_err(|e| e.to_string())?.text();
        let sum = |status: &str| -> u64 {
            let ours = text.lines().filter(|l| l.starts_with("hopyard_runs_finished_total{") && l.contains(&format!("\"{status}\"")));
            ours.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
        };
        let told = (sum("completed"), sum("failed"));
        holds(
            told == (completed, failed),
            format!("{told:?} in\n{}", text.lines().filter(|l| l.contains("runs")).collect::<Vec<_>>().join("\n")),
        )
    })
    .await;
}
