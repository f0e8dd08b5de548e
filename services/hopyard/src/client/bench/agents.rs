//! `hopyard bench agents`: what it costs in time that an agent's models are asked through the gateway, and that an agent is a step.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Child;

use super::figures::{line, percentile};
use super::{Completed, WARM_UP, completed, on_private_stack};
use crate::client::{Api, output};
use crate::servers::{Launch, Spawner, Streams, end};

/// How to measure what steps of agents cost.
#[derive(Clone, Debug, Args)]
pub struct AgentsArgs {
    /// Calls of a model that are counted, each way
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub calls: u32,
    /// Agents that are counted, each way
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub runs: u32,
}

/// Calls that are not counted: connections are made, and pages touched.
const FIRST_CALLS: usize = 20;
/// Model of the calls; it has a price, as a budget could ask for one.
const MODEL: &str = "claude-sonnet-4-5";

/// What `fake-agent --time-calls` says.
#[derive(Debug, Deserialize)]
struct Told {
    calls_us: Vec<u64>,
}

/// Measures on a private stack with a provider of its own.
///
/// # Errors
/// When one of them does not start, or a run does not complete.
pub(super) async fn run(args: &AgentsArgs) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    let (mut provider, url) = provider().await?;
    let config = dir.path().join("hopyard.toml");
    let key = dir.path().join("key");
    std::fs::write(&key, "any\n")?;
    let table = format!("[providers.bench]\nwire = \"anthropic\"\nbase_url = \"{url}\"\nkey_from = \"file:{}\"\n", key.display());
    std::fs::write(&config, table)?;
    let settings = [("HOPYARD_CONFIG", config.display().to_string())];
    let measured = on_private_stack(dir.path(), &[], &settings, async |stack| {
        measure(&Api::new(&stack.at.url, None, None)?, &url, args, dir.path()).await
    })
    .await;
    end(&mut provider, Signal::SIGINT, Duration::from_secs(10)).await.context("cannot stop the provider")?;
    measured
}

async fn measure(api: &Api, url: &str, args: &AgentsArgs, dir: &Path) -> Result<()> {
    let calls = args.calls.max(1).to_string();
    let words = ["fake-agent", "--model", MODEL, "--time-calls", &calls];
    let direct = calls_of(&program_says(&words, &[("ANTHROPIC_BASE_URL", url), ("ANTHROPIC_API_KEY", "any")], dir).await?)?;
    let program = own_program()?;
    let command: Vec<&str> = std::iter::once(program.as_str()).chain(words).collect();
    let step = json!({"cli": "generic", "prompt": "x", "command": command, "model": format!("bench/{MODEL}")});
    let run = one(api, &step).await?.view.id;
    let log = api.bytes(&format!("/runs/{run}/steps/agent/attempts/1/logs"), &[("stream", "stdout".to_owned())]).await?.1;
    let through = calls_of(&log)?;
    report("call", "direct", "gateway", &direct, &through);

    // The same program bare, and as a step, by turns: both see the same machine.
    let script = dir.join("script.jsonl");
    std::fs::write(&script, "{\"say\": \"done\"}\n")?;
    let bare_words = ["fake-agent", "--script", &script.display().to_string()];
    let step = json!({"cli": "fake", "prompt": "x", "script": "{\"say\": \"done\"}", "gateway": "off"});
    let (mut bare, mut as_step) = (Vec::new(), Vec::new());
    for n in 0..WARM_UP + args.runs.max(1) {
        let start = Instant::now();
        program_says(&bare_words, &[], dir).await?;
        let took = start.elapsed();
        let step_took = one(api, &step).await?.seen;
        if n >= WARM_UP {
            bare.push(took.as_secs_f64() * 1000.0);
            as_step.push(step_took.as_secs_f64() * 1000.0);
        }
    }
    report("agent", "bare", "step", &sorted(bare), &sorted(as_step));
    Ok(())
}

/// Figures of both ways; what the second costs is told against the first.
fn report(what: &str, limit: &str, way: &str, base: &[f64], ours: &[f64]) {
    let mut rows = vec![["metric", limit, way, "more", "ratio"].map(str::to_owned).to_vec()];
    for percent in [50, 99] {
        let (base, ours) = (percentile(base, percent), percentile(ours, percent));
        let metric = |way: &str| format!("{what}_{way}_p{percent}_ms");
        output::data(&line("agents", &metric(limit), base, "ms", None).to_string());
        output::data(&line("agents", &metric(way), ours, "ms", Some(base)).to_string());
        let cells = [
            format!("agents {what} p{percent}"),
            format!("{base:.2} ms"),
            format!("{ours:.2} ms"),
            format!("{:.2} ms", ours - base),
            format!("{:.2}", ours / base),
        ];
        rows.push(cells.to_vec());
    }
    output::progress(output::align(&rows).trim_end());
}

/// A run of one agent step.
async fn one(api: &Api, agent: &Value) -> Result<Completed> {
    let definition =
        json!({"version": 1, "name": "bench-agents", "workspace": {"mode": "none"}, "steps": [{"id": "agent", "agent": agent}]});
    completed(api, &json!({"v": 1, "definition": definition})).await
}

/// Times of calls in ms, sorted, without the first ones.
fn calls_of(said: &[u8]) -> Result<Vec<f64>> {
    let told: Told = serde_json::from_slice(said).with_context(|| format!("`{}` are no times of calls", String::from_utf8_lossy(said)))?;
    ensure!(told.calls_us.len() > FIRST_CALLS, "there are too few calls to count any");
    Ok(sorted(told.calls_us[FIRST_CALLS..].iter().map(|us| *us as f64 / 1000.0).collect()))
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn own_program() -> Result<String> {
    Ok(std::env::current_exe().context("cannot find this executable")?.display().to_string())
}

/// What this program writes when it is started with these words.
async fn program_says(words: &[&str], env: &[(&str, &str)], dir: &Path) -> Result<Vec<u8>> {
    let mut launch = Launch::new(own_program()?).args(words).streams(Streams::Piped);
    launch.dir = Some(dir.to_owned());
    for (name, value) in env {
        launch = launch.env(*name, *value);
    }
    let output = Spawner::global().spawn(&launch).await?.wait_with_output().await?;
    ensure!(output.status.success(), "{words:?} ended {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// A provider that answers every call with a short text, and its address.
async fn provider() -> Result<(Child, String)> {
    let launch = Launch::new(own_program()?).args(["fake-provider"]).streams(Streams::Piped);
    let mut child = Spawner::global().spawn(&launch).await?;
    let mut lines = BufReader::new(child.stdout.take().context("the provider has no standard output")?).lines();
    let Some(line) = lines.next_line().await? else {
        let mut words = String::new();
        child.stderr.take().context("the provider has no standard error")?.read_to_string(&mut words).await?;
        bail!("the provider did not start: {words}");
    };
    let said: Value = serde_json::from_str(&line).with_context(|| format!("the provider said `{line}`"))?;
    Ok((child, output::field(&said, "/url")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_calls_are_not_counted() {
        let times: Vec<u64> = (0..30).map(|n| if n < FIRST_CALLS as u64 { 9_000_000 } else { 1500 + n }).rev().collect();
        let said = json!({"calls_us": times.into_iter().rev().collect::<Vec<_>>()}).to_string();
        let calls = calls_of(said.as_bytes()).unwrap();
        assert_eq!((calls.len(), calls[0], calls[9]), (10, 1.52, 1.529));
        assert!(calls_of(b"{\"calls_us\": [1]}").is_err());
    }
}
