//! `cancel_older`: a run that is accepted ends the older ones of its concurrency key, in the same transaction.

use std::collections::BTreeSet;

use hopyard_contract::RunId;
use hopyard_contract::plan::ConcurrencyPolicy;
use hopyard_contract::run::RunState;
use hopyard_store::Error as StoreError;

use super::Round;
use crate::decide::{Input, KillAsk};

impl Round<'_> {
    /// Ends what the runs in `born` supersede; they were made by this transaction, in this order.
    ///
    /// The older runs are found by key and therefore locked after the slots; where another transaction has one of them, this
    /// one begins anew and locks it first.
    pub(super) async fn supersede(&mut self, born: &[RunId]) -> Result<(), StoreError> {
        let keys = born.iter().filter_map(|id| self.state(*id)).filter_map(cancelling_key).map(str::to_owned);
        let keys: Vec<String> = keys.collect::<BTreeSet<_>>().into_iter().collect();
        if keys.is_empty() {
            return Ok(());
        }
        let members = self.tx.slot_members(&keys).await?;
        self.know(members.into_values().flatten()).await?;
        for (index, id) in born.iter().enumerate() {
            self.supersede_by(*id, &born[index..]);
        }
        Ok(())
    }

    /// Ends the others of a newcomer's key; those in `later` come after it.
    fn supersede_by(&mut self, newcomer: RunId, later: &[RunId]) {
        let Some(state) = self.state(newcomer) else { return };
        let Some(key) = cancelling_key(state) else { return };
        let shares = |s: &&RunState| open(s) && !later.contains(&s.run.id) && s.run.slots.iter().any(|slot| slot.key == key);
        let (older, newer): (Vec<&RunState>, Vec<&RunState>) =
            self.states.values().map(|l| &l.after).filter(shares).partition(|s| s.run.created_at <= state.run.created_at);
        // A submission that was held up on its way may be older than what is there: then it is the one to go.
        let newest = newer.into_iter().filter(|s| cancelling_key(s) == Some(key)).map(|s| s.run.id).max();
        let older: Vec<RunId> = older.into_iter().map(|s| s.run.id).collect();
        for id in older {
            self.end_for(id, newcomer);
        }
        if let Some(newest) = newest {
            self.end_for(newcomer, newest);
        }
    }

    fn end_for(&mut self, id: RunId, by: RunId) {
        let ask = KillAsk { by: "hopyard".to_owned(), reason: Some(format!("superseded by run {by}")), force: false };
        self.decide(id, &Input::Kill(ask));
    }
}

fn open(state: &RunState) -> bool {
    !state.run.status.is_final() && state.run.kill.is_none()
}

/// The key whose older runs an open run cancels.
fn cancelling_key(state: &RunState) -> Option<&str> {
    let slot = state.run.slots.iter().find(|slot| slot.policy == ConcurrencyPolicy::CancelOlder)?;
    open(state).then_some(slot.key.as_str())
}

#[cfg(test)]
mod tests;
