//! The loop's look at the clock: runs with something due.

use std::time::Duration;

use hopyard_contract::Name;
use hopyard_runtime::clock::BootInstant;
use hopyard_store::Error as StoreError;
use hopyard_store::runs::RunTx;

use super::{Committer, Round};
use crate::decide::{Input, Tick};

/// Most runs of one look.
const LOOK: u32 = 200;
/// An executor that has been silent for this long is not counted on any more.
pub(super) const SILENT: Duration = Duration::from_secs(30);

impl Committer {
    /// Ticks every run that has something due.
    pub(super) async fn look_at_clock(&mut self, tx: &mut dyn RunTx, round: &mut Round) -> Result<(), StoreError> {
        let may_expire = self.may_judge();
        let due = tx.due(round.now, LOOK).await?;
        let unknown: Vec<_> = due
            .iter()
            .copied()
            .filter(|id| !round.states.contains_key(id))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        if !unknown.is_empty() {
            let loaded = tx.load(&unknown).await?;
            round.take(loaded);
        }
        for id in due {
            let Some(state) = round.state(id) else {
                round.writes.poked.push(id);
                continue;
            };
            let open = state.run.after_open.clone();
            let namespace = state.run.namespace.clone();
            let executor = state.run.executor.clone();
            let parents = if open.is_empty() { Default::default() } else { tx.statuses(&namespace, &state.run.after.clone()).await? };
            let unbind = executor.filter(|_| may_expire).and_then(|e| self.why_unbind(&e));
            round.decide(id, &Input::Tick(Tick { parents, may_expire, unbind }));
            round.writes.poked.push(id);
        }
        Ok(())
    }

    /// Leases are judged only after a whole lease of being connected and committing: before that, silence may be our own.
    pub(super) fn may_judge(&mut self) -> bool {
        let reconnects = self.bus.reconnects();
        if !self.bus.connected() || reconnects != self.reconnects {
            self.reconnects = reconnects;
            self.healthy_since = BootInstant::now();
        }
        self.healthy_since.elapsed() >= self.settings.lease.std()
    }

    /// Why a run should leave its executor.
    pub(super) fn why_unbind(&self, executor: &Name) -> Option<&'static str> {
        let known = self.executors.get(executor);
        if known.is_some_and(|k| k.draining) {
            return Some("the executor drains");
        }
        let heard = known.map(|k| k.seen.elapsed()).into_iter().chain(self.presence.age("executor", executor)).min();
        let silence = heard.unwrap_or_else(|| self.healthy_since.elapsed());
        (silence >= SILENT).then_some("the executor is silent")
    }
}
