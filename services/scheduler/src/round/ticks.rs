//! The loop's look at the clock: runs with something due.

use hopyard_store::Error as StoreError;

use super::Round;
use crate::decide::{Input, Tick};

/// Most runs of one look.
const LOOK: u32 = 200;

impl Round<'_> {
    /// Ticks every run that has something due.
    pub(super) async fn look_at_clock(&mut self) -> Result<(), StoreError> {
        let may_expire = self.desk.outlook.may_judge();
        let due = self.tx.due(self.now, LOOK).await?;
        self.know(due.iter().copied()).await?;
        for id in due {
            self.writes.poked.push(id);
            let Some(run) = self.state(id).map(|s| &s.run) else { continue };
            let (namespace, after, executor) = (run.namespace.clone(), run.after.clone(), run.executor.clone());
            let parents = if run.after_open.is_empty() { Default::default() } else { self.tx.statuses(&namespace, &after).await? };
            let unbind = executor.filter(|_| may_expire).and_then(|e| self.desk.outlook.why_unbind(&e));
            self.decide(id, &Input::Tick(Tick { parents, may_expire, unbind }));
        }
        Ok(())
    }
}
