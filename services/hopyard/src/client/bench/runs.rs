//! `hopyard bench runs`: how many shell runs a second go all the way, from the first submission to the last end.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Value, json};

use super::bulk::{BODY, runs_per_s};
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

/// Measures on a private stack.
///
/// # Errors
/// When it does not start, or a run does not complete.
pub(super) async fn run(args: &RunsArgs) -> Result<()> {
    let (one, two) = tokio::task::spawn_blocking(|| anyhow::Ok((spawns_per_s(1)?, spawns_per_s(2)?))).await??;
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    on_private_stack(dir.path(), &[], &[], async |stack| {
        let api = Api::new(&stack.at.url, None, None)?;
        runs_per_s(&api, &definition(), args.runs.min(BODY)).await?;
        let before = load::of_stack(stack.pid());
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            rounds.push(runs_per_s(&api, &definition(), args.runs).await?);
        }
        let after = load::of_stack(stack.pid());
        report(median(rounds), (one, two), &before, &after, f64::from(args.runs) * f64::from(args.rounds));
        Ok(())
    })
    .await
}

/// The smallest shell step that there is, and nothing around it.
fn definition() -> Value {
    json!({"version": 1, "name": "bench-runs", "workspace": {"mode": "none"}, "steps": [{"id": "only", "shell": "#!/bin/true\n"}]})
}

fn report(per_s: f64, (one, two): (f64, f64), before: &BTreeMap<String, Used>, after: &BTreeMap<String, Used>, runs: f64) {
    output::data(&line("runs", "spawn_1_thread_per_s", one, "processes/s", None).to_string());
    output::data(&line("runs", "spawn_2_threads_per_s", two, "processes/s", None).to_string());
    output::data(&line("runs", "shell_runs_per_s", per_s, "runs/s", Some(two)).to_string());
    let mut rows = vec![["runs", "figure"].map(str::to_owned).to_vec()];
    rows.push(vec!["shell runs".to_owned(), format!("{per_s:.0} a second, {:.2} of what two threads spawn ({two:.0})", per_s / two)]);
    for (service, used) in after {
        rows.push(used.since(before.get(service).copied().unwrap_or_default()).tell("runs", service, runs));
    }
    output::progress(output::align(&rows).trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_of_the_bench_is_a_program_alone() {
        assert!(hopyard_definition::from_json(&definition()).is_ok());
    }
}
