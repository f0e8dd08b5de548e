//! `hopyard bench`: what this machine can do. `latency` is one run at a time on an idle stack, from the submission to what a user
//! sees of it.

mod agents;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use hopyard_contract::RunId;
use hopyard_contract::repository::RepoSpec;
use hopyard_contract::status::RunStatus;
use hopyard_contract::view::RunView;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::follow::{Want, follow};
use super::repository::{git, resolve};
use super::{Api, output};
use crate::dev::private::PrivateStack;
use crate::exit::Exit;

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Time from a submission to its acceptance, its first instruction and its visible end
    #[command(
        after_help = "Example:\n  hopyard bench latency --runs 100\n  hopyard --url http://127.0.0.1:8733 bench latency --repo .\n\nWithout a server it starts a private one and measures with and without a repository of 100 files.\nThe server must run on this machine: both sides of a difference are read from one clock."
    )]
    Latency(LatencyArgs),
    /// What the metering gateway adds to a call of a model, and a step to its agent
    #[command(
        after_help = "Example:\n  hopyard bench agents --calls 1000\n\nOn a private stack, with a provider of its own; each figure stands beside the one without Hopyard, measured in the same run."
    )]
    Agents(agents::AgentsArgs),
}

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

const WARM_UP: u32 = 3;
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
pub async fn run(server: Option<&Api>, command: &BenchCommand) -> Result<Exit> {
    let args = match command {
        BenchCommand::Agents(args) => return agents::run(args).await.map(|()| Exit::Done),
        BenchCommand::Latency(args) => args,
    };
    let given = match &args.repo {
        Some(repo) => Some(resolve(repo, None).await?),
        None => None,
    };
    if let Some(api) = server {
        latency(api, args, "latency", given.as_ref()).await?;
        return Ok(Exit::Done);
    }
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    let spec = match given {
        Some(spec) => spec,
        None => sample_repository(&dir.path().join("repository")).await?,
    };
    let stack = PrivateStack::start(&dir.path().join("data"), &[("HOPYARD_REPO_ALLOW", spec.url.clone())]).await?;
    let measured = tokio::select! {
        measured = async {
            let api = Api::new(&stack.at.url, None, None)?;
            latency(&api, args, "latency", None).await?;
            latency(&api, args, "latency_repository", Some(&spec)).await
        } => measured,
        signal = tokio::signal::ctrl_c() => Err(signal.map_or_else(Into::into, |()| crate::exit::Failure::Interrupted.into())),
    };
    stack.stop().await?;
    measured?;
    Ok(Exit::Done)
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
    let metrics: [Metric; 3] = [
        ("submit_to_accepted", |s| s.accepted),
        ("submit_to_first_instruction", |s| s.first_instruction),
        ("submit_to_completed", |s| s.completed),
    ];
    let mut rows = vec![["metric", "p50", "p99", "runs"].map(str::to_owned).to_vec()];
    for (metric, value) in metrics {
        let mut values: Vec<f64> = samples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let (p50, p99) = (percentile(&values, 50), percentile(&values, 99));
        for (name, value) in [("p50", p50), ("p99", p99)] {
            output::data(&line(bench, &format!("{metric}_{name}"), value, None).to_string());
        }
        rows.push(vec![format!("{bench} {metric}"), format!("{p50:.1} ms"), format!("{p99:.1} ms"), values.len().to_string()]);
    }
    output::progress(output::align(&rows).trim_end());
    Ok(())
}

/// One figure in ms, and what it stands beside, if it is measured against something.
fn line(bench: &str, metric: &str, value: f64, limit: Option<f64>) -> Value {
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let ratio = limit.map(|limit| round(value / limit));
    json!({"bench": bench, "metric": metric, "value": round(value), "unit": "ms", "limit": limit.map(round), "ratio": ratio})
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

/// A run that completed, and how long after its submission it was accepted and its end was seen.
struct Completed {
    view: RunView,
    accepted: Duration,
    seen: Duration,
}

/// Submits a run and follows it to its end.
async fn completed(api: &Api, body: &Value) -> Result<Completed> {
    let start = Instant::now();
    let answer = api.post("/runs", body, HeaderMap::new()).await?;
    let accepted = start.elapsed();
    let run: RunId = output::field(&answer, "/run_id").parse().context("the server's answer names no run")?;
    let mut seen = None;
    let view = follow(api, run, Want { logs: false }, |item| {
        if let super::follow::Item::Event(event) = item
            && event.kind.is_final()
        {
            seen.get_or_insert_with(|| start.elapsed());
        }
    })
    .await?;
    if view.status != RunStatus::Completed {
        bail!("run {run} ended {}: {}", view.status, view.error.map(|e| e.message).unwrap_or_default());
    }
    Ok(Completed { view, accepted, seen: seen.unwrap_or_else(|| start.elapsed()) })
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

/// The smallest value that `percent` of the sorted values do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// A repository of 100 files in ten folders.
async fn sample_repository(dir: &Path) -> Result<RepoSpec> {
    let dir: PathBuf = dir.to_owned();
    for n in 0..FILES {
        let folder = dir.join(format!("folder-{}", n % 10));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("file-{n}.txt")), format!("line of file {n}\n").repeat(40))?;
    }
    git(&dir, &["init", "--quiet"]).await?;
    git(&dir, &["add", "."]).await?;
    git(&dir, &["-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "--quiet", "-m", "100 files"]).await?;
    let dir = dir.canonicalize()?;
    resolve(&dir.display().to_string(), None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (100.0, 198.0));
        assert_eq!((percentile(&[7.0], 50), percentile(&[7.0], 99)), (7.0, 7.0));
        assert_eq!(
            line("latency", "x_p50", 1.23456, None).to_string(),
            r#"{"bench":"latency","limit":null,"metric":"x_p50","ratio":null,"unit":"ms","value":1.235}"#
        );
    }

    #[test]
    fn the_measured_workflow_is_valid() {
        let body = submission(Some(&RepoSpec { url: "/r".into(), reference: None }));
        let definition = hopyard_definition::from_json(&body["definition"]).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(definition.plan.steps.len(), 1);
        assert_eq!(body["repo"]["url"], "/r");
    }

    #[tokio::test]
    async fn the_sample_repository_has_a_hundred_files() {
        let dir = tempfile::tempdir().unwrap();
        let spec = sample_repository(&dir.path().join("r")).await.unwrap();
        let files = git(Path::new(&spec.url), &["ls-tree", "-r", "--name-only", "HEAD"]).await.unwrap();
        assert_eq!(files.lines().count(), 100);
    }
}
