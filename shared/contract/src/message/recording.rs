//! What is recorded of an attempt that asked models, so that another run can play it without asking any.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Restore;
use crate::AttemptId;
use crate::id::Name;
use crate::plan::Work;
use crate::run::{Attempt, BlobRef, RunState, StepState};
use crate::status::{AttemptStatus, FailureCode};
use crate::usage::Usage;

/// Recordings of a run by step, each in the order of its attempts.
pub type Recordings = BTreeMap<Name, Vec<Recording>>;

/// One attempt as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recording {
    /// The attempt that was recorded.
    pub attempt: AttemptId,
    /// What its program wrote: its log as it is stored.
    pub log: BlobRef,
    /// The commits with what it changed, each against its parent, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Work that holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Restore>,
    /// Exit code of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<RecordedFailure>,
    /// What its step handed to others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// What it used; a run that plays it uses nothing.
    pub usage: Usage,
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordedFailure {
    /// Its code.
    pub code: FailureCode,
    /// In words.
    pub message: String,
}

/// What can be played of a run that has ended: the attempts of steps that ask models, each up to its own end.
///
/// One that a pause ended is no attempt of its own here, as a run that plays waits for nobody: what it changed is a change of the
/// next one. What a retry had thrown away is not made again.
pub fn recordings(state: &RunState) -> Recordings {
    let asks = |step: &&StepState| state.plan.step(step.id.as_str()).is_some_and(|spec| spec.work.asks_models());
    let all = state.steps.iter().filter(asks).map(|step| (step.id.clone(), of_step(state, step)));
    all.filter(|(_, recorded)| !recorded.is_empty()).collect()
}

fn of_step(state: &RunState, step: &StepState) -> Vec<Recording> {
    let spec = state.plan.step(step.id.as_str());
    let resumes = matches!(spec.map(|spec| &spec.work), Some(Work::Agent(agent)) if agent.resume);
    let attempts: Vec<&Attempt> = state.attempts.iter().filter(|attempt| attempt.step == step.id).collect();
    let mut seen: Vec<&str> = Vec::new();
    let mut changes = Vec::new();
    let mut recorded = Vec::new();
    for (at, attempt) in attempts.iter().enumerate() {
        // One that changed nothing ends at the commit that it began with.
        let began_with = |commit: &str| seen.contains(&commit) || (!attempt.paused && step.before.as_deref() == Some(commit));
        let went_on = attempt.paused || resumes || attempt.status == AttemptStatus::Completed;
        let thrown_away = !went_on && at + 1 < attempts.len();
        if let Some(commit) = attempt.snapshot.as_deref().filter(|commit| !began_with(commit) && !thrown_away) {
            changes.push(commit.to_owned());
        }
        seen.extend(attempt.snapshot.as_deref());
        let ended = matches!(attempt.status, AttemptStatus::Completed | AttemptStatus::Failed) && !attempt.paused;
        if let Some(log) = attempt.log.clone().filter(|_| ended) {
            recorded.push(recording(state, step, attempt, log, std::mem::take(&mut changes)));
        }
    }
    recorded
}

fn recording(state: &RunState, step: &StepState, attempt: &Attempt, log: BlobRef, changes: Vec<String>) -> Recording {
    // The bundle of the run's, or the variant's, last work holds every commit on the way to it.
    let work = step.result.as_ref().or(state.run.result.as_ref()).map(|work| state.run.restore_of(work));
    let completed = attempt.status == AttemptStatus::Completed;
    Recording {
        attempt: AttemptId { run: state.run.id, step: step.id.clone(), n: attempt.n },
        log,
        work: work.zip(changes.last()).map(|(work, commit)| Restore { commit: commit.clone(), ..work }),
        changes,
        exit_code: attempt.exit_code,
        failure: attempt.failure_code.map(|code| RecordedFailure { code, message: attempt.error.clone().unwrap_or_default() }),
        outputs: if completed { step.outputs.clone() } else { BTreeMap::new() },
        usage: attempt.usage,
    }
}
