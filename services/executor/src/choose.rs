//! The best of several variants: its work takes the place of what the run's workspace held.
//!
//! Who has won is decided by the scheduler, and no code of a step runs here.

use hopyard_contract::message::{Grant, Outcome};
use hopyard_contract::plan::BestOfSpec;
use hopyard_contract::status::FailureCode;

use crate::Executor;
use crate::attempt::{Outputs, failed};
use crate::live::Attempt;
use crate::workspaces::Ready;

/// Puts the winner's work into the workspace of the run; outputs are its name, its commit and its score.
pub(crate) async fn take_over(
    executor: &Executor,
    grant: &Grant,
    live: &Attempt,
    ready: &Ready,
    spec: &BestOfSpec,
) -> Result<Outputs, Outcome> {
    let chosen = spec.chosen.as_ref().ok_or_else(|| failed(FailureCode::EngineError, "the order names no winner".to_owned()))?;
    live.relied_on(executor.settings.freeze_limit).await?;
    let taken = ready.take_over(grant, &chosen.work, &executor.blobs).await;
    taken.map_err(|error| failed(FailureCode::WorkspaceError, format!("{error:#}")))?;
    let known = [("winner", Some(chosen.name.to_string())), ("commit", Some(chosen.work.commit.clone())), ("score", chosen.score.clone())];
    Ok(known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
}
