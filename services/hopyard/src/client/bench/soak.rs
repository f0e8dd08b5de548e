//! `hopyard bench soak`: what a stack uses while it idles, and whether its memory grows with the runs that it has carried out.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use super::bulk::runs_per_s;
use super::control_plane::definition;
use super::figures::line;
use super::load::{self, Used};
use super::null_executor::NullExecutors;
use super::on_private_stack;
use crate::client::{Api, output};
use crate::dev::private::PrivateStack;

/// How to measure idleness and growth.
#[derive(Clone, Debug, Args)]
pub struct SoakArgs {
    /// Seconds for which the stack idles
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Runs that are carried out before memory is looked at again; 0 for none
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub runs: u32,
}

/// Time that a stack gets to come to rest.
const REST: Duration = Duration::from_secs(5);
/// Runs that wait at once at most: a door refuses more than 100,000.
const PORTION: u32 = 20_000;
/// A server of others, told apart.
const BUS: &str = "nats-server";

/// Measures on a private stack.
///
/// # Errors
/// When it does not start, or a run does not complete.
pub(super) async fn run(args: &SoakArgs) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    on_private_stack(dir.path(), &[], &[], async |stack| {
        let idle = idle(stack, Duration::from_secs(args.seconds)).await;
        let mut rows = vec![["soak", "memory", "CPU"].map(str::to_owned).to_vec()];
        let mut sum = (0.0, 0.0);
        for (service, used) in &idle {
            let percent = used.cpu_s / args.seconds as f64 * 100.0;
            output::data(&line("soak", &format!("{service}_idle_pss_mb"), used.pss_mb, "MB", None).to_string());
            output::data(&line("soak", &format!("{service}_idle_cpu_percent"), percent, "%", None).to_string());
            rows.push(vec![service.clone(), format!("{:.1} MB", used.pss_mb), format!("{percent:.2} % of a core")]);
            if service != BUS {
                sum = (sum.0 + used.pss_mb, sum.1 + percent);
            }
        }
        output::data(&line("soak", "idle_pss_mb", sum.0, "MB", None).to_string());
        output::data(&line("soak", "idle_cpu_percent", sum.1, "%", None).to_string());
        rows.push(vec![format!("all but {BUS}"), format!("{:.1} MB", sum.0), format!("{:.2} % of a core", sum.1)]);
        output::progress(output::align(&rows).trim_end());
        if args.runs == 0 {
            return Ok(());
        }
        grow(stack, args.runs).await
    })
    .await
}

/// What each service has, and spent in this time.
async fn idle(stack: &PrivateStack, time: Duration) -> std::collections::BTreeMap<String, Used> {
    tokio::time::sleep(REST).await;
    let before = load::of_stack(stack.pid());
    tokio::time::sleep(time).await;
    let after = load::of_stack(stack.pid());
    after.into_iter().map(|(service, used)| (service.clone(), used.since(before.get(&service).copied().unwrap_or_default()))).collect()
}

/// Memory after half of the runs and after all of them: what is filled once is full by then.
async fn grow(stack: &PrivateStack, runs: u32) -> Result<()> {
    let api = Api::new(&stack.at.url, None, None)?;
    let executors = NullExecutors::start(&stack.at.nats_url, 4).await?;
    let mut halves = Vec::new();
    for _ in 0..2 {
        let half = runs.div_ceil(2);
        for from in (0..half).step_by(PORTION as usize) {
            runs_per_s(&api, &definition(), (half - from).min(PORTION)).await?;
        }
        tokio::time::sleep(REST).await;
        halves.push(load::of_stack(stack.pid()));
    }
    executors.stop().await?;
    let mut rows = vec![["after runs", "half of them", "all of them"].map(str::to_owned).to_vec()];
    for (service, used) in &halves[1] {
        let before = halves[0].get(service).copied().unwrap_or_default().pss_mb;
        output::data(&line("soak", &format!("{service}_pss_mb"), used.pss_mb, "MB", Some(before)).to_string());
        rows.push(vec![service.clone(), format!("{before:.1} MB"), format!("{:.1} MB", used.pss_mb)]);
    }
    output::progress(output::align(&rows).trim_end());
    Ok(())
}
