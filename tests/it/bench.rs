//! `hopyard bench`, a moment of each: figures are told under the names that the documents give them. How good they are is not
//! a test's concern.

use std::collections::BTreeMap;

use hopyard::servers::process_env;
use serde_json::Value;

use crate::harness::programs::run_beside;

/// Figures of a bench by their names.
async fn figures(args: &str) -> BTreeMap<String, f64> {
    let dir = tempfile::tempdir().unwrap();
    let args = std::iter::once("bench").chain(args.split(' ')).map(str::to_owned).collect();
    let servers = ["HOPYARD_NATS_SERVER", "HOPYARD_PG_BIN", "HOPYARD_TOOLS_DIR"];
    let env = servers.into_iter().filter_map(|name| Some((name.to_owned(), process_env(name)?))).collect();
    let output = run_beside(env!("CARGO_BIN_EXE_hopyard").into(), args, dir.path().to_owned(), env).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let figure = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        (format!("{}: {}", line["bench"].as_str().unwrap(), line["metric"].as_str().unwrap()), line["value"].as_f64().unwrap())
    };
    lines.lines().map(figure).collect()
}

async fn assert_told(args: &str, names: &[&str]) {
    let figures = figures(args).await;
    for name in names {
        assert!(figures.get(*name).is_some_and(|value| *value > 0.0), "{name} of {figures:?}");
    }
}

#[tokio::test]
async fn runs_and_their_latency_are_measured() {
    assert_told("runs --runs 10 --rounds 1", &["runs: shell_runs_per_s", "runs: spawn_2_threads_per_s", "runs: executor_peak_mb"]).await;
    let names = ["latency: first_instruction_p50_ms", "latency: first_instruction_p99_ms", "latency_repository: completed_p50_ms"];
    assert_told("latency --runs 2 --pause 1", &names).await;
}

#[tokio::test]
async fn the_control_plane_is_measured_on_both_engines() {
    for engine in ["sqlite", "postgres"] {
        let name = format!("control-plane: {engine}_runs_per_s");
        assert_told(&format!("control-plane --store {engine} --runs 40 --rounds 1 --executors 2"), &[&name]).await;
    }
}

#[tokio::test]
async fn reads_are_measured_over_copies_of_a_real_run() {
    for engine in ["sqlite", "postgres"] {
        let names =
            ["list_p99_ms", "list_status_p50_ms", "run_p50_ms", "explain_p50_ms", "runs"].map(|name| format!("query-{engine}: {name}"));
        assert_told(&format!("query --store {engine} --runs 1000 --requests 2"), &names.each_ref().map(String::as_str)).await;
    }
}

#[tokio::test]
async fn workspaces_and_a_stack_at_rest_are_measured() {
    let names = ["workspaces: plain_20_p50_ms", "workspaces: git_worktree_add_20_p50_ms", "workspaces: at_once_3_ms"];
    assert_told("workspaces --files 20 --rounds 1 --at-once 3", &names).await;
    assert_told("workspaces --files 600 --rounds 1 --at-once 1", &["workspaces: warm_600_p50_ms"]).await;
    if cfg!(target_os = "linux") {
        assert_told("soak --seconds 1 --runs 20", &["soak: idle_pss_mb", "soak: scheduler_pss_mb"]).await;
    }
}

#[tokio::test]
async fn logs_and_their_followers_are_measured() {
    let names = ["logs: spool_mb_per_s", "logs: follower_lines_per_s", "logs: paced_late_p99_ms"];
    assert_told("logs --lines 20000 --rounds 1", &names).await;
    assert_told("followers --followers 20 --runs 2", &["followers: first_instruction_p99_ms", "followers: heard_per_s"]).await;
}
