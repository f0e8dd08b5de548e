//! Locks of open transactions: exclusive and shared, with time-outs and circles told as the real engine tells them.

use std::collections::{BTreeMap, BTreeSet};

use hopyard_contract::{Name, RunId};
use hopyard_store::Error;

/// A waiter gives up after this long (`lock_timeout`), in microseconds.
const PATIENCE: i64 = 3_000_000;
/// A transaction that does nothing for this long is ended by the server (`idle_in_transaction_session_timeout`).
const IDLE: i64 = 5_000_000;

/// Something that a transaction may lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lock {
    /// A run row, or the place of one that is inserted.
    Run(RunId),
    /// Submitters of an idempotency key.
    Key(Name, String),
    /// A slot.
    Slot(String),
    /// Who looks for tombstones (shared) and who writes one.
    Tombstones,
}

/// What an attempt to lock came to.
#[derive(Debug)]
pub(super) enum Taken {
    Yes,
    NotYet,
    No(Error),
}

#[derive(Debug, Default)]
struct Open {
    used_at: i64,
    waits_for: BTreeSet<u64>,
    held: BTreeSet<Lock>,
}

/// All open transactions and what they hold.
#[derive(Debug, Default)]
pub(super) struct Locks {
    open: BTreeMap<u64, Open>,
    exclusive: BTreeMap<Lock, u64>,
    shared: BTreeMap<Lock, BTreeSet<u64>>,
}

impl Locks {
    pub(super) fn begin(&mut self, tx: u64, now: i64) {
        self.open.insert(tx, Open { used_at: now, ..Open::default() });
    }

    /// Whether the server still knows the transaction; notes that it was used.
    pub(super) fn touch(&mut self, tx: u64, now: i64) -> Result<(), Error> {
        let ended = || Error::Unavailable("the server has ended the transaction".to_owned());
        let open = self.open.get_mut(&tx).ok_or_else(ended)?;
        if now - open.used_at > IDLE && open.waits_for.is_empty() {
            self.end(tx);
            return Err(ended());
        }
        open.used_at = now;
        Ok(())
    }

    /// Takes a lock, or says what has to be done instead.
    pub(super) fn take(&mut self, tx: u64, lock: &Lock, shared: bool, since: i64, now: i64) -> Taken {
        self.end_idle(lock, now);
        let Some(open) = self.open.get_mut(&tx) else {
            return Taken::No(Error::Unavailable("the server has ended the transaction".to_owned()));
        };
        open.used_at = now;
        let mut blockers: BTreeSet<u64> = self.exclusive.get(lock).copied().into_iter().collect();
        if !shared {
            blockers.extend(self.shared.get(lock).into_iter().flatten());
        }
        blockers.remove(&tx);
        if blockers.is_empty() {
            open.waits_for.clear();
            open.held.insert(lock.clone());
            if shared {
                self.shared.entry(lock.clone()).or_default().insert(tx);
            } else {
                self.exclusive.insert(lock.clone(), tx);
            }
            return Taken::Yes;
        }
        open.waits_for = blockers;
        if self.waits_for_itself(tx) {
            return Taken::No(Error::Retry("two transactions wait for each other".to_owned()));
        }
        if now - since > PATIENCE {
            return Taken::No(Error::Busy("a lock was not had in time".to_owned()));
        }
        Taken::NotYet
    }

    /// Whether a transaction has anything locked.
    pub(super) fn holds(&self, tx: u64) -> bool {
        self.open.get(&tx).is_some_and(|open| !open.held.is_empty())
    }

    /// Takes a lock that nobody else has, or leaves it (`SKIP LOCKED`).
    pub(super) fn try_take(&mut self, tx: u64, lock: &Lock, now: i64) -> bool {
        self.end_idle(lock, now);
        if self.exclusive.get(lock).is_some_and(|owner| *owner != tx) {
            return false;
        }
        self.exclusive.insert(lock.clone(), tx);
        if let Some(open) = self.open.get_mut(&tx) {
            open.held.insert(lock.clone());
        }
        true
    }

    fn end_idle(&mut self, lock: &Lock, now: i64) {
        let owners = self.exclusive.get(lock).copied().into_iter().chain(self.shared.get(lock).into_iter().flatten().copied());
        let idle = |tx: &u64| self.open.get(tx).is_none_or(|open| open.waits_for.is_empty() && now - open.used_at > IDLE);
        for tx in owners.filter(idle).collect::<Vec<_>>() {
            self.end(tx);
        }
    }

    fn waits_for_itself(&self, tx: u64) -> bool {
        let mut seen = BTreeSet::new();
        let mut look_at: Vec<u64> = self.open.get(&tx).map(|open| open.waits_for.iter().copied().collect()).unwrap_or_default();
        while let Some(next) = look_at.pop() {
            if next == tx {
                return true;
            }
            if seen.insert(next) {
                look_at.extend(self.open.get(&next).into_iter().flat_map(|open| open.waits_for.iter().copied()));
            }
        }
        false
    }

    /// Ends a transaction and gives its locks back.
    pub(super) fn end(&mut self, tx: u64) {
        let Some(open) = self.open.remove(&tx) else { return };
        for lock in open.held {
            if self.exclusive.get(&lock) == Some(&tx) {
                self.exclusive.remove(&lock);
            }
            if let Some(holders) = self.shared.get_mut(&lock) {
                holders.remove(&tx);
            }
        }
    }

    /// The server went away: nothing is open any more.
    pub(super) fn end_all(&mut self) {
        *self = Self::default();
    }
}
