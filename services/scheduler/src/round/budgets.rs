//! What is left of the budgets that runs share, while a transaction spends of them.

use std::collections::BTreeSet;

use hopyard_contract::run::RunState;
use hopyard_contract::{Name, RunId};
use hopyard_store::Error as StoreError;
use hopyard_store::runs::Spent;

use super::Round;
use crate::budgets::{Budgets, Shared};
use crate::decide::{Purse, outstanding};

impl Round<'_> {
    /// Locks and loads the shared budgets of runs that are loaded.
    pub(super) async fn know_budgets(&mut self, runs: impl IntoIterator<Item = RunId>) -> Result<(), StoreError> {
        if self.desk.budgets.is_empty() {
            return Ok(());
        }
        let shared: Vec<Shared> = runs.into_iter().filter_map(|id| self.state(id)).flat_map(|state| self.shared_by(state)).collect();
        self.lock_budgets(shared).await
    }

    /// Locks and loads shared budgets, those that are loaded already left out.
    pub(super) async fn lock_budgets(&mut self, shared: impl IntoIterator<Item = Shared>) -> Result<(), StoreError> {
        let keys: BTreeSet<String> = shared.into_iter().map(|shared| shared.key).filter(|key| !self.budgets.contains_key(key)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = keys.into_iter().collect();
        let mut found = self.tx.budgets(&keys).await?;
        for key in keys {
            let stored = found.remove(&key).unwrap_or_default();
            // What this transaction has spent before it looked counts too.
            let own = self.writes.budgets.get(&key).copied().unwrap_or_default();
            self.budgets.insert(key, Spent { spent: stored.spent + own.spent, open: stored.open + own.open });
        }
        Ok(())
    }

    fn shared_by(&self, state: &RunState) -> Vec<Shared> {
        let run = &state.run;
        self.desk.budgets.of(&run.namespace, &run.workflow, run.repo.as_ref().map(|repo| repo.url.as_str()), self.now)
    }

    /// What a run may take of the budgets that it shares; `None` without any.
    pub(super) fn purse(&self, run: RunId) -> Option<Purse> {
        if self.desk.budgets.is_empty() {
            return None;
        }
        self.tightest(self.shared_by(self.state(run)?))
    }

    /// As [`Round::purse`], for a run that is not there yet.
    pub(super) fn purse_of(&self, namespace: &Name, workflow: &Name, repository: Option<&str>) -> Option<Purse> {
        self.tightest(self.desk.budgets.of(namespace, workflow, repository, self.now))
    }

    /// The one of which least is left decides.
    fn tightest(&self, shared: Vec<Shared>) -> Option<Purse> {
        let unsigned = |amount: i64| u64::try_from(amount).unwrap_or_default();
        let purse = |shared: &Shared| {
            let known = self.budgets.get(&shared.key).copied().unwrap_or_default();
            let left = shared.limit.saturating_sub(unsigned(known.spent));
            let free = left.saturating_sub(unsigned(known.open));
            Purse { left, free, limit: shared.limit, scope: shared.scope, until: Budgets::next_day(self.now) }
        };
        shared.iter().map(purse).min_by_key(|purse| (purse.left, purse.free))
    }

    /// Takes note of what a decision spent of shared budgets.
    pub(super) fn spend(&mut self, before: Option<&RunState>, after: &RunState) {
        if self.desk.budgets.is_empty() {
            return;
        }
        let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        // By attempts: where one has a cost that nobody knows, what is known of the others still counts, and nothing is given back.
        let spent = |state: &RunState| {
            let late = state.run.late_usage.and_then(|late| late.cost_microusd);
            let known = state.attempts.iter().filter_map(|attempt| attempt.usage.cost_microusd).chain(late);
            signed(known.fold(0, u64::saturating_add))
        };
        let more = Spent {
            spent: (spent(after) - before.map_or(0, spent)).max(0),
            open: signed(outstanding(after)) - before.map_or(0, |before| signed(outstanding(before))),
        };
        if more == Spent::default() {
            return;
        }
        for shared in self.shared_by(after) {
            for known in [self.budgets.get_mut(&shared.key), Some(self.writes.budgets.entry(shared.key).or_default())].into_iter().flatten()
            {
                *known = Spent { spent: known.spent + more.spent, open: known.open + more.open };
            }
        }
    }
}
