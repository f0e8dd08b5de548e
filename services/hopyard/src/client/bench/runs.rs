//! `hopyard bench runs`: how many shell runs a second go all the way, from the first submission to the last end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use hopyard_contract::view::RunView;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::figures::{line, median};
use super::limits::spawns_per_s;
use super::load::{self, Used};
use super::on_private_stack;
use crate::client::{Api, output};

/// How to measure runs.
#[derive(Clone, Debug, Args)]
pub struct RunsArgs {
    /// Runs of a round
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub runs: u32,
    /// Rounds that are counted, after one that is not; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
}

/// Runs of a body; the door takes no more.
const BODY: u32 = 500;
/// Name of the workflow that is measured.
const WORKFLOW: &str = "bench-runs";
/// Time between two looks at whether the few that ended after the last one have, too.
const LOOK: Duration = Duration::from_millis(20);

/// Measures on a private stack.
///
/// # Errors
/// When it does not start, or a run does not complete.
pub(super) async fn run(args: &RunsArgs) -> Result<()> {
    let (one, two) = tokio::task::spawn_blocking(|| anyhow::Ok((spawns_per_s(1)?, spawns_per_s(2)?))).await??;
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    on_private_stack(dir.path(), &[], async |stack| {
        let api = Api::new(&stack.at.url, None, None)?;
        round(&api, args.runs.min(BODY)).await?;
        let before = load::of_stack(stack.pid());
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            rounds.push(round(&api, args.runs).await?);
        }
        let after = load::of_stack(stack.pid());
        report(median(rounds), (one, two), &before, &after, f64::from(args.runs) * f64::from(args.rounds));
        Ok(())
    })
    .await
}

/// Runs a second of one round.
async fn round(api: &Api, runs: u32) -> Result<f64> {
    let definition =
        json!({"version": 1, "name": WORKFLOW, "workspace": {"mode": "none"}, "steps": [{"id": "only", "shell": "#!/bin/true\n"}]});
    let start = Instant::now();
    let (mut left, mut last) = (runs, String::new());
    while left > 0 {
        let count = left.min(BODY);
        let items: Vec<Value> = (0..count).map(|_| json!({"definition": definition})).collect();
        let answer = api.post("/runs/batch", &json!({"v": 1, "runs": items}), HeaderMap::new()).await?;
        let refused = answer["items"].as_array().into_iter().flatten().find(|item| item["status"] != "accepted");
        ensure!(refused.is_none(), "a run was not accepted: {}", refused.unwrap_or(&Value::Null));
        last = output::field(&answer, &format!("/items/{}/run_id", count - 1));
        left -= count;
    }
    // One request that waits, since many that look would be measured with the rest.
    let until_final = [("wait", "60s".to_owned()), ("until", "final".to_owned())];
    while !api.get_as::<RunView>(&format!("/runs/{last}"), &until_final).await?.status.is_final() {}
    while any(api, "pending").await? || any(api, "running").await? {
        tokio::time::sleep(LOOK).await;
    }
    let took = start.elapsed();
    ensure!(!any(api, "failed").await?, "a run of the bench failed: `hopyard doctor` may say why");
    Ok(f64::from(runs) / took.as_secs_f64())
}

/// Whether there is a run with this status.
async fn any(api: &Api, status: &str) -> Result<bool> {
    let query = [("workflow", WORKFLOW.to_owned()), ("status", status.to_owned()), ("limit", "1".to_owned())];
    let page = api.get("/runs", &query).await?;
    Ok(page["items"].as_array().is_some_and(|items| !items.is_empty()))
}

fn report(per_s: f64, (one, two): (f64, f64), before: &BTreeMap<String, Used>, after: &BTreeMap<String, Used>, runs: f64) {
    output::data(&line("runs", "spawn_1_thread_per_s", one, "processes/s", None).to_string());
    output::data(&line("runs", "spawn_2_threads_per_s", two, "processes/s", None).to_string());
    output::data(&line("runs", "shell_runs_per_s", per_s, "runs/s", Some(two)).to_string());
    let mut rows = vec![["runs", "figure"].map(str::to_owned).to_vec()];
    rows.push(vec!["shell runs".to_owned(), format!("{per_s:.0} a second, {:.2} of what two threads spawn ({two:.0})", per_s / two)]);
    for (service, used) in after {
        let spent = (used.cpu_s - before.get(service).copied().unwrap_or_default().cpu_s) / runs * 1000.0;
        output::data(&line("runs", &format!("{service}_cpu_ms_per_run"), spent, "ms", None).to_string());
        output::data(&line("runs", &format!("{service}_peak_mb"), used.peak_mb, "MB", None).to_string());
        rows.push(vec![service.clone(), format!("{spent:.3} ms of CPU a run, at most {:.1} MB", used.peak_mb)]);
    }
    output::progress(output::align(&rows).trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_of_the_bench_is_a_program_alone() {
        let definition =
            json!({"version": 1, "name": WORKFLOW, "workspace": {"mode": "none"}, "steps": [{"id": "only", "shell": "#!/bin/true\n"}]});
        assert!(hopyard_definition::from_json(&definition).is_ok());
    }
}
