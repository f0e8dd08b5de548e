//! `hopyard bench control-plane`: how many runs of one step a second go through doors, bus, scheduler and store, each kept with
//! its history, when executors answer at once.

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Value, json};

use super::bulk::{BODY, runs_per_s};
use super::figures::{line, median};
use super::limits::stored_per_s;
use super::load;
use super::null_executor::NullExecutors;
use super::on_private_stack;
use super::stores::{BenchStore, Kind};
use crate::client::{Api, output};

/// How to measure the control plane.
#[derive(Clone, Debug, Args)]
pub struct ControlPlaneArgs {
    /// Store, a private one of this kind
    #[arg(long, value_enum, default_value = "sqlite")]
    pub store: Kind,
    /// Runs of a round
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub runs: u32,
    /// Rounds that are counted, after one that is not; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Executors that answer at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub executors: u32,
}

/// Measures on a private stack.
///
/// # Errors
/// When it does not start, or a run does not complete.
pub(super) async fn run(args: &ControlPlaneArgs) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    let store = BenchStore::make(args.store, dir.path()).await?;
    let mut further = vec!["--executors".to_owned(), "0".to_owned()];
    further.extend(store.args());
    on_private_stack(dir.path(), &further, &[], async |stack| {
        let api = Api::new(&stack.at.url, None, None)?;
        let stored = stored_per_s(&stack.at.nats_url).await?;
        let executors = NullExecutors::start(&stack.at.nats_url, args.executors).await?;
        let definition = definition();
        runs_per_s(&api, &definition, args.runs.min(BODY * 4)).await?;
        let before = load::of_stack(stack.pid());
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            rounds.push(runs_per_s(&api, &definition, args.runs).await?);
        }
        let after = load::of_stack(stack.pid());
        executors.stop().await?;
        let (store, per_s) = (args.store.text(), median(rounds));
        let bench = "control-plane";
        output::data(&line(bench, "bus_stored_per_s", stored, "messages/s", None).to_string());
        output::data(&line(bench, &format!("{store}_runs_per_s"), per_s, "runs/s", Some(stored)).to_string());
        let mut rows = vec![vec![bench.to_owned(), "figure".to_owned()]];
        let told = format!("{per_s:.0} a second, {:.3} of what the bus stores ({stored:.0} messages a second)", per_s / stored);
        rows.push(vec![format!("runs on {store}"), told]);
        let runs = f64::from(args.runs) * f64::from(args.rounds);
        for (service, used) in after {
            rows.push(used.since(before.get(&service).copied().unwrap_or_default()).tell(&format!("{bench}-{store}"), &service, runs));
        }
        output::progress(output::align(&rows).trim_end());
        Ok(())
    })
    .await
}

/// One step without a workspace; what it would do is never done.
pub(super) fn definition() -> Value {
    json!({"version": 1, "name": "bench-control-plane", "workspace": {"mode": "none"}, "steps": [{"id": "only", "shell": "true"}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_workflow_is_valid() {
        let definition = hopyard_definition::from_json(&definition()).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(definition.plan.steps.len(), 1);
    }
}
