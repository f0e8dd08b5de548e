//! The choice among variants that were tried at once.

use hopyard_contract::Name;
use hopyard_contract::event::EventType;
use hopyard_contract::plan::{BestOfSpec, Chosen, Standing};
use hopyard_contract::run::RunState;
use hopyard_contract::status::{FailureCode, PendingReason, StepStatus};
use serde_json::json;

use super::Change;

impl Change {
    /// All variants have ended: lets an executor go on with the work of the best, if one passes.
    pub(super) fn choose(&mut self, index: usize, spec: &BestOfSpec) {
        let id = self.state.steps[index].id.clone();
        let standings = spec.standings(&id, &self.state);
        if standings.iter().all(|standing| standing.agent.status == StepStatus::Skipped) {
            self.end_step(index, StepStatus::Skipped);
            self.event(EventType::StepSkipped, Some(&id), None, json!({}));
        } else if spec.winner(&standings).is_some() {
            self.make_claimable(index, PendingReason::AwaitingExecutor, self.now);
        } else {
            let whys: Vec<String> = standings.iter().map(why_not).collect();
            self.fail_step(index, FailureCode::DependencyFailed, &format!("no variant passes: {}", whys.join("; ")));
        }
    }
}

/// Why a variant does not pass, in words.
fn why_not(standing: &Standing<'_>) -> String {
    let ended = [standing.agent, standing.check].into_iter().find(|step| step.status != StepStatus::Completed);
    let Some(step) = ended else { return format!("{} passes", standing.name) };
    let code = step.failure_code.map_or_else(|| step.status.as_str(), |code| code.as_str());
    let detail = step.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
    format!("{}: {} ended as {code}{detail}", standing.name, step.id)
}

/// The variant that a step goes on with.
pub(super) fn chosen(state: &RunState, of: &Name, spec: &BestOfSpec) -> Option<Chosen> {
    let standings = spec.standings(of, state);
    let winner = spec.winner(&standings)?;
    let work = state.run.restore_of(winner.agent.result.as_ref()?);
    Some(Chosen { name: winner.name.clone(), work, score: winner.score.map(str::to_owned) })
}
