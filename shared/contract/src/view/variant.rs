//! How the variants of a step stand, as every surface shows them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Name;
use crate::plan::{Standing, Work};
use crate::run::{GitResult, RunState, StepState};
use crate::status::StepStatus;
use crate::usage::Usage;

/// One of the variants that a step chooses from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariantView {
    /// Its name.
    pub name: Name,
    /// The step of its agent.
    pub step: Name,
    /// The step of its check.
    pub check: Name,
    /// Whether its agent completed and its check holds.
    pub passes: bool,
    /// Whether the run went on with its work.
    pub chosen: bool,
    /// Its score, as its check wrote it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<String>,
    /// What its agent and its check used; in a replay, what they had used when they were recorded.
    pub usage: Usage,
    /// Its work: commit, branch and changed files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub git: Option<GitResult>,
}

impl VariantView {
    /// Those of a step that chooses; none of any other.
    pub(super) fn all(state: &RunState, step: &StepState) -> Vec<Self> {
        let Some(Work::BestOf(spec)) = state.plan.step(step.id.as_str()).map(|spec| &spec.work) else { return Vec::new() };
        let standings = spec.standings(&step.id, state);
        let winner = spec.winner(&standings).filter(|_| step.status == StepStatus::Completed).map(|winner| winner.name);
        let view = |standing: &Standing<'_>| Self {
            name: standing.name.clone(),
            step: standing.agent.id.clone(),
            check: standing.check.id.clone(),
            passes: standing.passes(),
            chosen: winner == Some(standing.name),
            score: standing.score.map(str::to_owned),
            usage: standing.usage,
            git: standing.agent.result.clone(),
        };
        standings.iter().map(view).collect()
    }
}
