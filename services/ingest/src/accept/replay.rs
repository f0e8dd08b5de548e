//! Replays: what was recorded of a run that has ended, for one that plays it.

use hopyard_contract::message::{Recordings, recordings};
use hopyard_contract::repository::RepoSpec;
use hopyard_contract::run::RunState;
use hopyard_contract::{FieldError, Name, RunId};

use super::definition::Unresolved;
use crate::door::Door;

/// What was recorded of the run that a request names.
///
/// # Errors
/// When there is no such run, or nothing of it that could be played; when the store is away.
pub(super) async fn recorded_of(door: &Door, namespace: &Name, run: RunId) -> Result<Recordings, Unresolved> {
    let state = door.reader.run(namespace, run).await.map_err(|error| Unresolved::Unavailable(error.into()))?;
    let unknown = || Unresolved::Invalid(vec![FieldError::new("unknown_run", "/rerun_of", format!("there is no run {run}"))]);
    recorded(&state.ok_or_else(unknown)?).map_err(Unresolved::Invalid)
}

/// What was recorded of a run.
///
/// # Errors
/// While it has not ended, and when none of its steps asked a model.
pub fn recorded(state: &RunState) -> Result<Recordings, Vec<FieldError>> {
    let refuse = |code, detail| Err(vec![FieldError::new(code, "/rerun_of", detail)]);
    if !state.run.status.is_final() {
        return refuse("not_final", format!("the run {} is {}; it is recorded when it has ended", state.run.id, state.run.status));
    }
    let recorded = recordings(state);
    if recorded.is_empty() {
        return refuse("nothing_recorded", format!("no step of the run {} asked a model, so that there is nothing to play", state.run.id));
    }
    Ok(recorded)
}

/// The repository at the commit that the recorded run had: its changes are made again on those files.
pub fn pinned(repo: Option<RepoSpec>, commit: Option<String>) -> Option<RepoSpec> {
    repo.map(|repo| RepoSpec { reference: commit.or(repo.reference), ..repo })
}
