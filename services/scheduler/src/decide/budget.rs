//! Budgets: what attempts may spend, handed out in slices, so that a budget is kept before it is spent and not noticed after.
//!
//! Every attempt of an agent has an allowance, a sum that it may spend in all. What is allowed and not yet spent is never more
//! than what the run has left, over all its attempts together. A call's price is known only after it, so that each stream of
//! calls can pass its allowance by one call, and no further.

use hopyard_contract::event::EventType;
use hopyard_contract::message::{Allowance, SharedBudget};
use hopyard_contract::run::RunState;
use hopyard_contract::status::{FailureCode, PendingReason};
use serde_json::json;

use super::{Change, Purse};

/// Parts of a budget that are handed out at once: parallel steps share it, and few renewals are needed for it.
const SLICES: u64 = 8;
/// Part of a budget, in hundredths, at which its run says so.
const WARNED_AT: u64 = 80;

/// Whether a step spends money: it asks models, and does not play what was recorded of them.
pub(crate) fn pays(state: &RunState, step: &str) -> bool {
    !state.run.replay && state.plan.step(step).is_some_and(|spec| spec.work.asks_models())
}

/// What a run has left of its money; `None` without a limit.
fn left(state: &RunState) -> Option<u64> {
    let limit = state.run.budget.as_ref()?.cost_microusd?;
    // What has no price cannot be counted; the executor asks no model without one for a run that has a budget.
    Some(limit.saturating_sub(state.run.usage.cost_microusd.unwrap_or_default()))
}

/// What live attempts may spend and have not spent.
pub(crate) fn outstanding(state: &RunState) -> u64 {
    let open = |allowed: Option<u64>, spent: Option<u64>| allowed.unwrap_or_default().saturating_sub(spent.unwrap_or_default());
    state.live().map(|attempt| open(attempt.allowance_microusd, attempt.usage.cost_microusd)).fold(0, u64::saturating_add)
}

/// What an attempt may spend as it stands; `None` without a limit.
pub(super) fn allowance(state: &RunState, step: &str, n: u32, purse: Option<&Purse>) -> Option<Allowance> {
    let microusd = state.attempt(step, n)?.allowance_microusd?;
    let own_is_spent = left(state) == Some(0);
    let shared =
        purse.filter(|purse| purse.left == 0 && !own_is_spent).map(|purse| SharedBudget { scope: purse.scope, until: purse.until });
    Some(Allowance { microusd, spent: own_is_spent || shared.is_some(), shared })
}

/// Turns that a run has left; `None` without a limit.
pub(super) fn turns_left(state: &RunState) -> Option<u64> {
    Some(state.run.budget.as_ref()?.turns?.saturating_sub(state.run.usage.turns))
}

impl Change {
    /// Hands an attempt its next slice, if it has used the last one and there is one.
    pub(super) fn allow(&mut self, index: usize) {
        let own = left(&self.state).zip(self.state.run.budget.as_ref().and_then(|budget| budget.cost_microusd));
        let own_free = own.map(|(left, limit)| (left.saturating_sub(outstanding(&self.state)), limit));
        let shared = self.purse.map(|purse| (purse.free, purse.limit));
        let both = || own_free.into_iter().chain(shared);
        let (Some(free), Some(limit)) = (both().map(|(free, _)| free).min(), both().map(|(_, limit)| limit).min()) else { return };
        let slice = (limit / SLICES).max(1);
        let attempt = &mut self.state.attempts[index];
        let spent = attempt.usage.cost_microusd.unwrap_or_default();
        let allowed = attempt.allowance_microusd.unwrap_or_default();
        let open = allowed.saturating_sub(spent);
        // What was spent beyond the allowance is gone already: the new one begins above it.
        let more = slice.saturating_sub(open).min(free);
        attempt.allowance_microusd = Some(allowed.max(spent).saturating_add(more));
        if let Some((left, limit)) = own {
            self.warn(limit, left);
        }
    }

    /// Says once that most of the budget is spent.
    fn warn(&mut self, limit: u64, left: u64) {
        let spent = limit.saturating_sub(left);
        let most = u128::from(spent) * 100 >= u128::from(limit) * u128::from(WARNED_AT);
        if most && !std::mem::replace(&mut self.state.run.budget_warned, true) {
            let data = json!({ "budget_microusd": limit, "spent_microusd": spent, "percent": WARNED_AT });
            self.event(EventType::RunBudgetWarned, None, None, data);
        }
    }

    /// Ends a step that asks models and has nothing left to spend before it begins, or has it wait for the next day of a budget
    /// that its run shares; whether it did either.
    pub(super) fn out_of_budget(&mut self, index: usize) -> bool {
        let step = &self.state.steps[index];
        let pays = pays(&self.state, step.id.as_str());
        if let Some(purse) = self.purse.filter(|purse| purse.left == 0 && pays) {
            let step = &mut self.state.steps[index];
            (step.pending_reason, step.claimable_at) = (Some(PendingReason::AwaitingBudget), Some(purse.until));
            self.progress();
            return true;
        }
        let spent = match (left(&self.state), turns_left(&self.state)) {
            (Some(0), _) => "money",
            (_, Some(0)) => "turns",
            _ => return false,
        };
        if !pays {
            return false;
        }
        let message = format!("the run had spent the {spent} of its budget before this step began; what was done before is kept");
        self.fail_step(index, FailureCode::BudgetExceeded, &message);
        self.progress();
        true
    }
}
