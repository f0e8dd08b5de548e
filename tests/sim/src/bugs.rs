//! Bugs planted on purpose: each has to be caught, or an invariant is missing.

use hopyard_store::runs::Writes;

/// One mutation of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// The store lets two transactions have the same run.
    ClaimWithoutRowLock,
    /// An idempotency key is looked for and then written, and nobody waits in between.
    KeyCheckedWithoutLock,
    /// Holders of a slot are counted, and nobody waits in between.
    SlotCountedWithoutLock,
    /// A commit is answered before it is durable.
    CommitNotDurable,
    /// The outbox row is not written with its transaction.
    OutboxRowDropped,
}

/// What the bug makes of the writes of a transaction.
pub(crate) fn in_store(bug: Option<Bug>, writes: &mut Writes) {
    if bug == Some(Bug::OutboxRowDropped) {
        writes.outbox.clear();
    }
}
