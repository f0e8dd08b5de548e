//! Bugs planted on purpose, one at a time: each has to be caught, or an invariant is missing.
//!
//! They sit at the seams: around the decision, in the store, and in the models of the other processes, where each asks
//! `World::has`.

pub(crate) mod decision;

use hopyard_store::runs::Writes;

macro_rules! bugs {
    ($($(#[$meta:meta])* $bug:ident = $text:literal,)+) => {
        /// One mutation of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug { $(#[doc = $text] $bug,)+ }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$bug,)+];

            /// What is wrong.
            pub const fn text(self) -> &'static str { match self { $(Self::$bug => $text,)+ } }
        }
    };
}

bugs! {
    // The decision.
    TokenIgnored = "a report counts whatever its lease token",
    StartedWithoutLease = "a started is believed after its lease is over",
    RunningAtLease = "a step is running as soon as it is leased",
    CompletionOverridesKill = "a run that was killed completes if its step does",
    KillForgotten = "a kill of a run with live attempts is answered and not written",
    KillNotInRenewal = "a renewal does not tell that the run was killed",
    ExpiryWithoutHealth = "leases are judged by a scheduler that has just come back",
    ExpiryEarly = "a lease is lost before it has run out",
    LeaseNotRaised = "a renewal is answered well and does not move the lease",
    LostNeverExpires = "a lease that ran out is never judged",
    AttemptNumberReused = "a lost attempt's number is given to the next one",
    UsageOverwritten = "a late usage report replaces a larger one",
    UsageNotSummed = "the usage of a lost attempt is left out of the run's",
    EventSkipped = "an event is numbered and not written",
    EventsAfterEnd = "a stale report after the end of a run writes an event",
    GenerationKept = "a run that moves to another executor keeps its workspace number",
    RetriesUncounted = "a failed attempt is not counted against the retries",
    LostCountsAsFailure = "a lost attempt is counted against the retries",
    SlotGivenEarly = "a slot is given back while an attempt of its run is live",
    BackoffIgnored = "a retry is claimable at once",
    TimerDropped = "a run asks for no look at the clock",
    FinishedTwice = "a repeated finished is decided again",
    ResultDropped = "a result that comes with a kill is dropped",
    StaleSaysOk = "a renewal of a lost attempt is answered well",
    // The transaction and the store.
    ClaimWithoutRowLock = "two transactions may have the same run",
    KeyCheckedWithoutLock = "an idempotency key is looked for, then written, and nobody waits in between",
    SlotCountedWithoutLock = "holders of a slot are counted, and nobody waits in between",
    CommitNotDurable = "a commit is answered before it is durable",
    OutboxRowDropped = "messages are published after the commit without a row of the outbox",
    OutboxNotSwept = "rows of the outbox that a dead scheduler left are never published",
    TimerNotStored = "a timer is decided and not stored",
    PokeNotStored = "the end of a run does not wake the runs that wait for it",
    SlotNotReleased = "the rows of a slot stay when their run ends",
    ReceiptNotStored = "a submission of the command stream gets no stored receipt",
    // The scheduler's loop.
    ReplyBeforeCommit = "requests are answered before the commit",
    NoLookAtClock = "the clock is never looked at",
    // The door.
    NewIdPerTry = "a submission that is handed over again gets another run id",
    CreatedOnTimeout = "a submission that nobody answered is called committed",
    AcceptedWithoutBus = "a submission that the bus did not take is called accepted",
    AliasForgotten = "an id that was answered while nobody decided is unknown once its key turns out to have made another run",
    AckOutlivesBus = "what a bus delivered before it was wiped is acknowledged to the message that has its sequence now",
    CommandAckedEarly = "a command is acknowledged before it is handed over",
    // The executor.
    AgeFromAnswer = "the age of a lease counts from the answer, not from the question",
    AgeFromLastTry = "the age of a lease counts from the last try of a claim, though the first may have been granted",
    NoFreeze = "a process goes on when its lease is not renewed",
    RefusalIgnored = "a process goes on when its renewal is refused",
    KillIgnored = "an executor does not end what it is told to end",
    StartsAfterKill = "an attempt whose run was killed while it was being made starts all the same",
    SnapshotSkipped = "an attempt that was killed keeps no snapshot",
    StartedBeforeProcess = "started is reported before there is a process",
    CompletedOnRecovery = "a restarted executor reports what it finds as completed",
    // The janitor.
    DeletesByAge = "workspaces go when they are old",
    DeletesBeforeSave = "a workspace goes before the work of its lost attempts is kept",
    DeletesKept = "a workspace goes although it has to be kept",
    NeverDeletes = "a workspace that may go stays",
    RemovalNotReported = "a removal is not reported",
}

/// What the bug makes of the writes of a transaction.
pub(crate) fn in_store(bug: Option<Bug>, writes: &mut Writes) {
    match bug {
        Some(Bug::OutboxRowDropped) => writes.outbox.clear(),
        Some(Bug::TimerNotStored) => writes.runs.iter_mut().for_each(|write| write.timer = None),
        Some(Bug::ReceiptNotStored) => writes.receipts.clear(),
        _ => {}
    }
}
