//! Faults that are planted into the store, one at a time: the races have to find each.

use chrono::{DateTime, Utc};
use hopyard_contract::run::RunState;
use hopyard_contract::status::{PendingReason, StepStatus};
use hopyard_scheduler::decide::{Decision, Input, decide};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Nothing.
    Nothing,
    /// Candidates come from a look that was over before the runs are locked, and the decision trusts them.
    TrustedCandidates,
    /// The clock is read once, before other runs are locked.
    EarlyClock,
    /// Runs are locked, but what is answered was read before the lock was had: what one statement with a subquery does.
    StaleLoad,
    /// Runs are read and not locked.
    UnlockedLoad,
    /// A key is looked up and, if it is new, inserted, without a lock in between; a conflict is passed over.
    UnlockedKeys,
    /// Holders of a slot are read without its lock.
    UnlockedSlots,
    /// Runs that share a key are read without its lock.
    UnlockedMembers,
    /// Tombstones are read without the gate that their writers wait at, and written without a look at the runs.
    UngatedTombstones,
    /// The answer comes, the commit does not.
    LostCommit,
    /// What is to be published is not written with the rest.
    LostOutbox,
    /// A repeated claim is taken for a new one.
    ForgottenClaims,
    /// A redelivered submission is taken for a new one.
    ForgottenReceipts,
}

impl Plant {
    /// The decision that goes with it.
    pub fn decide(self, state: &RunState, input: &Input, now: DateTime<Utc>) -> Decision {
        match input {
            Input::Lease(lease) if self == Self::TrustedCandidates => {
                let mut trusted = state.clone();
                for step in trusted.steps.iter_mut().filter(|step| step.id == lease.step) {
                    step.status = StepStatus::Pending;
                    step.pending_reason = Some(PendingReason::AwaitingExecutor);
                    step.claimable_at = Some(now);
                    step.bound_to = None;
                }
                decide(&trusted, input, now)
            }
            _ => decide(state, input, now),
        }
    }
}
