//! `hopyard bench`: what this machine can do. Each bench measures what stands in its way in the same run, and tells its figures
//! beside that.

mod agents;
mod bulk;
mod control_plane;
mod figures;
mod followers;
mod latency;
mod limits;
mod load;
mod logs;
mod null_executor;
mod query;
mod repository;
mod runs;
mod soak;
mod stores;
mod workspaces;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use hopyard_contract::RunId;
use hopyard_contract::status::RunStatus;
use hopyard_contract::view::RunView;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::follow::{Want, follow};
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
    Latency(latency::LatencyArgs),
    /// Runs a second through doors, bus, scheduler and store, with an executor that answers at once
    #[command(
        after_help = "Example:\n  hopyard bench control-plane --store postgres --runs 50000\n\nOn a private stack, against how many messages a second the bus stores. PostgreSQL is found as the tests find it: HOPYARD_PG_BIN, or the newest of the machine."
    )]
    ControlPlane(control_plane::ControlPlaneArgs),
    /// Shell runs a second, from the first submission to the last end
    #[command(
        after_help = "Example:\n  hopyard bench runs --runs 5000 --rounds 5\n\nOn a private stack, against how many processes the machine starts in a second at best."
    )]
    Runs(runs::RunsArgs),
    /// Time until the files of a commit are in a workspace, and until it is given back
    #[command(
        after_help = "Example:\n  hopyard bench workspaces --files 100,5000,50000\n\nWithout any service, beside what git takes for a worktree of the same repository."
    )]
    Workspaces(workspaces::WorkspacesArgs),
    /// Time of lists, filters and single runs while the store has many finished runs
    #[command(
        after_help = "Example:\n  hopyard bench query --store postgres --runs 1000000\n\nOn a private stack, one request at a time over HTTP."
    )]
    Query(query::QueryArgs),
    /// Memory and CPU of an idle stack, and whether memory grows with the runs that it has carried out
    #[command(after_help = "Example:\n  hopyard bench soak --seconds 60 --runs 100000\n\nOn a private stack. Only Linux tells.")]
    Soak(soak::SoakArgs),
    /// How fast a step may write, how many lines a second reach a follower, and how late
    #[command(
        after_help = "Example:\n  hopyard bench logs --lines 1000000\n\nOn a private stack, against what goes through a pipe into a file."
    )]
    Logs(logs::LogsArgs),
    /// Whether runs start later while many follow another one
    #[command(
        after_help = "Example:\n  hopyard bench followers --followers 2000\n\nOn a private stack; the readers are on the same machine."
    )]
    Followers(followers::FollowersArgs),
    /// What the metering gateway adds to a call of a model, and a step to its agent
    #[command(
        after_help = "Example:\n  hopyard bench agents --calls 1000\n\nOn a private stack, with a provider of its own; each figure stands beside the one without Hopyard, measured in the same run."
    )]
    Agents(agents::AgentsArgs),
}

/// Runs that are not counted.
const WARM_UP: u32 = 3;

/// Measures; `server` is the one that was named, if any.
///
/// # Errors
/// When a stack does not start, or a run does not complete.
pub async fn run(server: Option<&Api>, command: &BenchCommand) -> Result<Exit> {
    match command {
        BenchCommand::Latency(args) => latency::run(server, args).await,
        BenchCommand::ControlPlane(args) => control_plane::run(args).await,
        BenchCommand::Runs(args) => runs::run(args).await,
        BenchCommand::Workspaces(args) => workspaces::run(args).await,
        BenchCommand::Query(args) => query::run(args).await,
        BenchCommand::Soak(args) => soak::run(args).await,
        BenchCommand::Logs(args) => logs::run(args).await,
        BenchCommand::Followers(args) => followers::run(args).await,
        BenchCommand::Agents(args) => agents::run(args).await,
    }?;
    Ok(Exit::Done)
}

/// Measures on a stack of one's own, which is gone afterwards.
async fn on_private_stack(
    dir: &Path,
    further: &[String],
    settings: &[(&str, String)],
    measure: impl AsyncFnOnce(&PrivateStack) -> Result<()>,
) -> Result<()> {
    let stack = PrivateStack::start(&dir.join("data"), further, settings).await?;
    let measured = tokio::select! {
        measured = measure(&stack) => measured,
        signal = tokio::signal::ctrl_c() => Err(signal.map_or_else(Into::into, |()| crate::exit::Failure::Interrupted.into())),
    };
    stack.stop().await?;
    measured
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
