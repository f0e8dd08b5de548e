//! `hopyard bench followers`: whether runs start later while many follow another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use hopyard_contract::RunId;
use reqwest::header::HeaderMap;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::figures::{line, percentile};
use super::latency::first_instructions;
use super::on_private_stack;
use crate::client::sse::{Signal, Subscription};
use crate::client::{Api, output};

/// How to measure followers.
#[derive(Clone, Debug, Args)]
pub struct FollowersArgs {
    /// Connections that follow one run
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub followers: u32,
    /// Runs whose start is measured, without and with followers
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub runs: u32,
}

/// How long all of them may take to hear something.
const HEARD_WITHIN: Duration = Duration::from_secs(60);
/// Ten lines a second, for as long as the bench lasts.
const TALKS: &str = "while :; do date; sleep 0.1; done";

/// Measures on a private stack.
///
/// # Errors
/// When it does not start, a run does not complete, or a follower hears nothing.
pub(super) async fn run(args: &FollowersArgs) -> Result<()> {
    hopyard_runtime::limits::raise_open_files();
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    let streams = [("HOPYARD_HTTP_STREAMS", (args.followers + 16).to_string())];
    on_private_stack(dir.path(), &[], &streams, async |stack| {
        let api = Api::new(&stack.at.url, None, None)?;
        let alone = first_instructions(&api, args.runs).await?;
        let run = talker(&api).await?;
        let (mut followers, heard) = follow_all(&api, run, args.followers).await?;
        let (before, start) = (heard.load(Ordering::Relaxed), Instant::now());
        let beside = first_instructions(&api, args.runs).await?;
        let lines = (heard.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
        followers.shutdown().await;
        api.post(&format!("/runs/{run}/cancel"), &json!({}), HeaderMap::new()).await?;
        report(args.followers, &alone, &beside, lines);
        Ok(())
    })
    .await
}

/// A run that says something again and again; it has begun.
async fn talker(api: &Api) -> Result<RunId> {
    let definition =
        json!({"version": 1, "name": "bench-talks", "workspace": {"mode": "none"}, "steps": [{"id": "talks", "shell": TALKS}]});
    let answer = api.post("/runs", &json!({"v": 1, "definition": definition}), HeaderMap::new()).await?;
    let run: RunId = output::field(&answer, "/run_id").parse().context("the server's answer names no run")?;
    let mut events = Subscription::new(api.clone(), format!("/runs/{run}/events"));
    loop {
        if let Signal::Frame(frame) = events.next().await?
            && frame.event == "attempt.running"
        {
            return Ok(run);
        }
    }
}

/// Opens the streams; each has heard something. Returns them and the number of pieces that they hear.
async fn follow_all(api: &Api, run: RunId, count: u32) -> Result<(JoinSet<Result<()>>, Arc<AtomicU64>)> {
    let path = format!("/runs/{run}/steps/talks/attempts/1/logs/stream");
    let heard = Arc::new(AtomicU64::new(0));
    let (ready, mut first) = mpsc::channel(1);
    let mut followers = JoinSet::new();
    for _ in 0..count {
        let mut stream = Subscription::new(api.clone(), path.clone());
        let (heard, ready) = (heard.clone(), ready.clone());
        followers.spawn(async move {
            let mut ready = Some(ready);
            loop {
                if matches!(stream.next().await?, Signal::Frame(_)) {
                    heard.fetch_add(1, Ordering::Relaxed);
                    if let Some(ready) = ready.take() {
                        ready.send(()).await?;
                    }
                }
            }
        });
    }
    drop(ready);
    let all = async {
        for n in 0..count {
            ensure!(first.recv().await.is_some(), "only {n} of {count} followers hear something");
        }
        Ok(())
    };
    tokio::time::timeout(HEARD_WITHIN, all).await.context("not all followers hear something")??;
    Ok((followers, heard))
}

fn report(followers: u32, alone: &[f64], beside: &[f64], lines: f64) {
    let mut rows = vec![["start of a run", "without followers", "with", "ratio"].map(str::to_owned).to_vec()];
    for percent in [50, 99] {
        let (alone, beside) = (percentile(alone, percent), percentile(beside, percent));
        output::data(&line("followers", &format!("first_instruction_without_p{percent}_ms"), alone, "ms", None).to_string());
        output::data(&line("followers", &format!("first_instruction_p{percent}_ms"), beside, "ms", Some(alone)).to_string());
        rows.push(vec![format!("p{percent}"), format!("{alone:.1} ms"), format!("{beside:.1} ms"), format!("{:.2}", beside / alone)]);
    }
    output::data(&line("followers", "heard_per_s", lines, "pieces/s", None).to_string());
    rows.push(vec![format!("{followers} followers hear"), String::new(), format!("{lines:.0} pieces a second"), String::new()]);
    output::progress(output::align(&rows).trim_end());
}
