//! `hopyard bench query`: how long lists, filters and single runs take when the store has many finished runs.

use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;
use hopyard_contract::event::Event;
use hopyard_contract::run::RunState;
use hopyard_contract::status::{FailureCode, RunStatus};
use hopyard_contract::{Name, RunId};
use hopyard_store::Store;
use hopyard_store::runs::{RunWrite, Writes};

use super::bulk::runs_per_s;
use super::control_plane::definition;
use super::figures::{line, percentile};
use super::null_executor::NullExecutors;
use super::on_private_stack;
use super::stores::{BenchStore, Kind};
use crate::client::{Api, output};

/// How to measure reads.
#[derive(Clone, Debug, Args)]
pub struct QueryArgs {
    /// Store, a private one of this kind
    #[arg(long, value_enum, default_value = "sqlite")]
    pub store: Kind,
    /// Finished runs in the store
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    pub runs: u32,
    /// Requests of each kind
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub requests: u32,
}

/// Runs of a transaction.
const BATCH: u32 = 500;
/// Workflows, each with as many runs.
const WORKFLOWS: u32 = 50;
/// One of so many runs has failed.
const FAILED: u32 = 200;

/// Measures on a private stack.
///
/// # Errors
/// When it does not start, or a request fails.
pub(super) async fn run(args: &QueryArgs) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    let store = BenchStore::make(args.store, dir.path()).await?;
    let mut further = vec!["--executors".to_owned(), "0".to_owned()];
    further.extend(store.args());
    // A real run is what the others are copies of, so that they are stored as real ones are.
    on_private_stack(dir.path(), &further, &[], async |stack| {
        let executors = NullExecutors::start(&stack.at.nats_url, 1).await?;
        runs_per_s(&Api::new(&stack.at.url, None, None)?, &definition(), 1).await?;
        executors.stop().await
    })
    .await?;
    fill(store.url(), args.runs).await?;
    on_private_stack(dir.path(), &further, &[], async |stack| measure(&Api::new(&stack.at.url, None, None)?, args).await).await
}

/// Copies the one run that there is, with other names and ends.
async fn fill(url: &str, runs: u32) -> Result<()> {
    let store = Store::open(url).await?;
    let (reader, writer) = (store.reader(), store.runs().await?);
    let namespace = Name::default_namespace();
    let one = reader.runs(&namespace, &hopyard_store::read::RunFilter { limit: 1, ..Default::default() }).await?;
    let id = one.first().context("the store has no run to copy")?.id;
    let state = reader.run(&namespace, id).await?.context("the run to copy is gone")?;
    let events = reader.events(&namespace, id, 0, 1000).await?;
    let began = Instant::now();
    for from in (0..runs).step_by(BATCH as usize) {
        let mut tx = writer.begin().await?;
        let copies = (from..runs.min(from + BATCH)).map(|n| copy(&state, &events, n)).collect::<Result<_>>()?;
        tx.write(&Writes { runs: copies, ..Writes::default() }).await?;
        tx.commit().await?;
    }
    let took = began.elapsed().as_secs_f64();
    output::progress(&format!("{runs} finished runs were stored in {took:.1} s, {:.0} a second", f64::from(runs) / took));
    Ok(())
}

fn copy(state: &RunState, events: &[Event], n: u32) -> Result<RunWrite> {
    let id = RunId::mint();
    let mut run = state.run.clone();
    run.id = id;
    run.workflow = format!("workflow-{}", n % WORKFLOWS).parse()?;
    run.labels.insert("team".to_owned(), format!("team-{}", n % 10));
    if n.is_multiple_of(FAILED) {
        run.status = RunStatus::Failed;
        run.failure_code = Some(FailureCode::Timeout);
    }
    let attempts = state.attempts.clone();
    let steps = (0..).zip(state.steps.clone()).collect();
    let own = |event: &Event| Event { id: format!("{id}:{}", event.seq), run_id: id, ..event.clone() };
    Ok(RunWrite { new: true, run, steps, attempts, events: events.iter().map(own).collect(), timer: None })
}

async fn measure(api: &Api, args: &QueryArgs) -> Result<()> {
    let page = api.get("/runs", &[]).await?;
    let id = output::field(&page, "/items/20/id");
    let cursor = output::field(&page, "/next_cursor");
    let (from, to) = (output::field(&page, "/items/49/created_at"), output::field(&page, "/items/0/created_at"));
    let list = |query: &[(&'static str, &str)]| ("/runs".to_owned(), query.iter().map(|(k, v)| (*k, (*v).to_owned())).collect::<Vec<_>>());
    let kinds = [
        ("list", list(&[])),
        ("list_next_page", list(&[("cursor", &cursor)])),
        ("list_status", list(&[("status", "failed")])),
        ("list_workflow", list(&[("workflow", "workflow-7")])),
        ("list_workflow_and_status", list(&[("workflow", "workflow-7"), ("status", "completed")])),
        ("list_label", list(&[("label", "team=team-3")])),
        ("list_time_range", list(&[("created_after", &from), ("created_before", &to)])),
        ("run", (format!("/runs/{id}"), Vec::new())),
        ("explain", (format!("/runs/{id}/explain"), Vec::new())),
        ("events", (format!("/runs/{id}/events"), Vec::new())),
    ];
    let (bench, store) = ("query", args.store.text());
    let mut rows = vec![[bench, "p50", "p99"].map(str::to_owned).to_vec()];
    let mut slowest: f64 = 0.0;
    for (kind, (path, query)) in kinds {
        let mut took = Vec::new();
        for _ in 0..args.requests {
            let start = Instant::now();
            api.get(&path, &query).await?;
            took.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        took.sort_by(f64::total_cmp);
        let (p50, p99) = (percentile(&took, 50), percentile(&took, 99));
        if kind.starts_with("list") {
            slowest = slowest.max(p99);
        }
        for (name, value) in [("p50", p50), ("p99", p99)] {
            output::data(&line(&format!("{bench}-{store}"), &format!("{kind}_{name}_ms"), value, "ms", None).to_string());
        }
        rows.push(vec![kind.to_owned(), format!("{p50:.2} ms"), format!("{p99:.2} ms")]);
    }
    output::data(&line(&format!("{bench}-{store}"), "runs", f64::from(args.runs), "runs", None).to_string());
    output::data(&line(&format!("{bench}-{store}"), "list_p99_ms", slowest, "ms", None).to_string());
    output::progress(output::align(&rows).trim_end());
    Ok(())
}
