//! States of runs at work, as they were last committed: the scheduler's process is the only one that writes them.
//!
//! A run is decided three times or more from its submission to its end; without this, each time would read it from the file.
//! States are taken out before a commit and come back with it, while the writing connection is held: what is here is what
//! the file has, or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use hopyard_contract::RunId;
use hopyard_contract::plan::Plan;
use hopyard_contract::run::RunState;

use crate::runs::RunWrite;

/// Most states, some kilobytes each; a run beyond them is read from the file.
const KEPT: usize = 4096;

/// Whole states of runs that have not ended, by id.
#[derive(Debug, Default)]
pub(super) struct States(HashMap<RunId, RunState>);

impl States {
    /// The state of a run, if it is here.
    pub(super) fn get(&self, id: RunId) -> Option<&RunState> {
        self.0.get(&id)
    }

    /// Keeps states that the file has, as long as there is room and their runs go on.
    pub(super) fn keep(&mut self, states: impl IntoIterator<Item = RunState>) {
        for state in states.into_iter().filter(|state| !state.run.status.is_final()) {
            if self.0.len() < KEPT || self.0.contains_key(&state.run.id) {
                self.0.insert(state.run.id, state);
            }
        }
    }

    /// Takes a run out, and returns what a write makes of it; `plan` is that of a new one. Nothing for a run that was not here.
    pub(super) fn take(&mut self, write: RunWrite, plan: Option<Arc<Plan>>) -> Option<RunState> {
        let known = self.0.remove(&write.run.id);
        let RunWrite { new, run, steps, attempts, timer, .. } = write;
        let mut state = match (known, plan) {
            (Some(known), _) => known,
            (None, Some(plan)) if new => RunState { run: run.clone(), steps: Vec::new(), attempts: Vec::new(), plan, timer: None },
            (None, _) => return None,
        };
        state.run = run;
        for (place, step) in steps {
            match state.steps.get_mut(place as usize) {
                Some(known) => *known = step,
                None => state.steps.push(step),
            }
        }
        for attempt in attempts {
            match state.attempts.iter_mut().find(|known| known.step == attempt.step && known.n == attempt.n) {
                Some(known) => *known = attempt,
                None => state.attempts.push(attempt),
            }
        }
        // The order in which the file gives them.
        state.attempts.sort_by(|a, b| (a.step.as_str(), a.n).cmp(&(b.step.as_str(), b.n)));
        state.timer = timer.unwrap_or(state.timer);
        Some(state)
    }
}
