//! `hopyard bench latency`: one run at a time on an idle stack, from the submission to what a user sees of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::Args;
use hopyard_contract::repository::RepoSpec;
use hopyard_contract::view::RunView;
use serde_json::{Value, json};

use super::figures::{line, percentile};
use super::{Completed, WARM_UP, completed, on_private_stack, repository};
use crate::client::repository::resolve;
use crate::client::{Api, output};

/// How to measure latency.
#[derive(Clone, Debug, Args)]
pub struct LatencyArgs {
    /// Runs that are counted, after three that are not
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub runs: u32,
    /// Repository to work on, as for `hopyard run`
    #[arg(long, value_name = "URL|DIR")]
    pub repo: Option<String>,
    /// Pause between two runs, in ms
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub pause: u64,
}

/// Files of the sample repository.
const FILES: u32 = 100;

/// A figure: its name, and what it is of a run.
type Metric = (&'static str, fn(&Sample) -> f64);

/// Times of one run, in ms since its submission.
#[derive(Clone, Copy, Debug)]
struct Sample {
    accepted: f64,
    first_instruction: f64,
    completed: f64,
}

/// Measures against a server, or against a private stack if there is none.
///
/// # Errors
/// When the stack does not start, or a run does not complete.
pub(super) async fn run(server: Option<&Api>, args: &LatencyArgs) -> Result<()> {
    let given = match &args.repo {
        Some(repo) => Some(resolve(repo, None).await?),
        None => None,
    };
    if let Some(api) = server {
        return latency(api, args, "latency", given.as_ref()).await;
    }
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    let spec = match given {
        Some(spec) => spec,
        None => repository::sample(&dir.path().join("repository"), FILES).await?,
    };
    on_private_stack(dir.path(), &[], &[("HOPYARD_REPO_ALLOW", spec.url.clone())], async |stack| {
        let api = Api::new(&stack.at.url, None, None)?;
        latency(&api, args, "latency", None).await?;
        latency(&api, args, "latency_repository", Some(&spec)).await
    })
    .await
}

/// Milliseconds from submissions without a repository to their first instructions; sorted.
pub(super) async fn first_instructions(api: &Api, runs: u32) -> Result<Vec<f64>> {
    let body = submission(None);
    let mut values = Vec::new();
    for n in 0..WARM_UP + runs.max(1) {
        let sample = one(api, &body).await?;
        if n >= WARM_UP {
            values.push(sample.first_instruction);
        }
    }
    values.sort_by(f64::total_cmp);
    Ok(values)
}

async fn latency(api: &Api, args: &LatencyArgs, bench: &str, repo: Option<&RepoSpec>) -> Result<()> {
    let body = submission(repo);
    let mut samples = Vec::new();
    for n in 0..WARM_UP + args.runs.max(1) {
        let sample = one(api, &body).await?;
        if n >= WARM_UP {
            samples.push(sample);
        }
        tokio::time::sleep(Duration::from_millis(args.pause)).await;
    }
    let metrics: [Metric; 3] =
        [("accepted", |s| s.accepted), ("first_instruction", |s| s.first_instruction), ("completed", |s| s.completed)];
    let mut rows = vec![["metric", "p50", "p99", "runs"].map(str::to_owned).to_vec()];
    for (metric, value) in metrics {
        let mut values: Vec<f64> = samples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let (p50, p99) = (percentile(&values, 50), percentile(&values, 99));
        for (name, value) in [("p50", p50), ("p99", p99)] {
            output::data(&line(bench, &format!("{metric}_{name}_ms"), value, "ms", None).to_string());
        }
        rows.push(vec![format!("{bench} {metric}"), format!("{p50:.1} ms"), format!("{p99:.1} ms"), values.len().to_string()]);
    }
    output::progress(output::align(&rows).trim_end());
    Ok(())
}

fn submission(repo: Option<&RepoSpec>) -> Value {
    let mode = if repo.is_some() { "temporary" } else { "none" };
    // The clock is read by the step's own shell, so that the start of the shell counts and nothing after it does.
    let shell = "date +at=%s%N >> \"$HOPYARD_OUTPUT\"";
    let definition =
        json!({"version": 1, "name": "bench-latency", "workspace": {"mode": mode}, "steps": [{"id": "first", "shell": shell}]});
    let mut body = json!({"v": 1, "definition": definition});
    if let Some(repo) = repo {
        body["repo"] = json!(repo);
    }
    body
}

async fn one(api: &Api, body: &Value) -> Result<Sample> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let Completed { view, accepted, seen } = completed(api, body).await?;
    let at = first_instruction(&view).with_context(|| format!("run {} did not say when its step began", view.id))?;
    let millis = |d: Duration| d.as_secs_f64() * 1000.0;
    let first =
        at.checked_sub(wall).context("the step began before its submission: the server runs on another machine, or the clock was set")?;
    Ok(Sample { accepted: millis(accepted), first_instruction: millis(first), completed: millis(seen) })
}

fn first_instruction(run: &RunView) -> Option<Duration> {
    let nanos = run.steps.iter().flatten().find_map(|step| step.outputs.get("at"))?;
    Some(Duration::from_nanos(nanos.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_workflow_is_valid() {
        let body = submission(Some(&RepoSpec { url: "/r".into(), reference: None }));
        let definition = hopyard_definition::from_json(&body["definition"]).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(definition.plan.steps.len(), 1);
        assert_eq!(body["repo"]["url"], "/r");
    }
}
