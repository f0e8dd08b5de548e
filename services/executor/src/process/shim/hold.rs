//! How a tree is held still while its lease is overdue: from when, until when, and for how long in sum. Pure: the caller
//! brings the time and stops the processes.

use std::time::Duration;

use crate::process::spec::Lease;
use hopyard_runtime::clock::BootInstant;

/// Pause before the next look at a tree that is still: somebody from outside may have woken a part of it.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before the next try at a tree that is not still yet.
const AGAIN: Duration = Duration::from_millis(5);

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Stop whatever of the tree runs.
    Stop {
        /// Whether the tree ran until now.
        first: bool,
    },
    /// Let the tree go on, after this time.
    Release(Duration),
    /// The lease stays away, or the tree cannot be held: end it.
    GiveUp,
}

/// Whether and since when a tree is held still.
#[derive(Debug)]
pub(super) struct Hold {
    limit: Duration,
    since: Option<BootInstant>,
    spent: Duration,
    quiet: bool,
    look_at: BootInstant,
}

impl Hold {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: None, spent: Duration::ZERO, quiet: false, look_at: BootInstant::now() }
    }

    /// Whether the tree is held still.
    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// Since when the tree is held still.
    pub(super) fn since(&self) -> Option<BootInstant> {
        self.since
    }

    /// Longest time for which a tree is held still.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// For how long the tree was held still before; the present time is not among it.
    pub(super) fn spent(&self) -> Duration {
        self.spent
    }

    /// The tree goes on or has ended; for how long it was held still in sum.
    pub(super) fn end(&mut self, now: BootInstant) -> Duration {
        if let Some(since) = self.since.take() {
            self.spent += since.until(now);
        }
        self.spent
    }

    /// What is to be done; asked again until it says `None`.
    pub(super) fn next(&mut self, lease: Option<Lease>, now: BootInstant) -> Option<Turn> {
        let lease = lease?;
        let overdue = now >= lease.overdue_at();
        let Some(since) = self.since else {
            if !overdue {
                return None;
            }
            (self.since, self.quiet) = (Some(now), false);
            self.look_at = now;
            return Some(if self.limit.is_zero() { Turn::GiveUp } else { Turn::Stop { first: true } });
        };
        if !overdue {
            let before = self.spent;
            return Some(Turn::Release(self.end(now).saturating_sub(before)));
        }
        // What cannot be held still may not be there when the lease is over.
        if now >= since.after(self.limit) || (!self.quiet && now >= lease.hard_stop()) {
            return Some(Turn::GiveUp);
        }
        (now >= self.look_at).then_some(Turn::Stop { first: false })
    }

    /// The tree was looked at and what ran was stopped; `quiet` if nothing of it runs any more.
    pub(super) fn looked(&mut self, quiet: bool, now: BootInstant) {
        self.quiet = quiet;
        self.look_at = now.after(if quiet { LOOK } else { AGAIN });
    }

    /// When [`Self::next`] has something to say.
    pub(super) fn due_at(&self, lease: Option<Lease>) -> Option<BootInstant> {
        let lease = lease?;
        Some(match self.since {
            None => lease.overdue_at(),
            Some(since) => self.look_at.min(since.after(self.limit)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(600);

    fn lease(start: BootInstant, seconds: u64) -> Option<Lease> {
        Some(Lease { length_ms: 6_000, expires: start.after(Duration::from_secs(seconds)) })
    }

    #[test]
    fn a_tree_is_stopped_at_two_thirds_and_goes_on_with_a_renewal() {
        let start = BootInstant::now();
        let at = |seconds| start.after(Duration::from_secs(seconds));
        let mut hold = Hold::new(LIMIT);
        assert_eq!(hold.next(lease(start, 6), at(3)), None);
        assert_eq!(hold.due_at(lease(start, 6)), Some(at(4)));
        assert_eq!(hold.next(lease(start, 6), at(4)), Some(Turn::Stop { first: true }));
        hold.looked(true, at(4));
        assert_eq!(hold.next(lease(start, 6), at(4)), None);
        assert_eq!(hold.next(lease(start, 6), at(5)), Some(Turn::Stop { first: false }));
        hold.looked(true, at(5));
        // Long past its lease, and no less still for it.
        assert_eq!(hold.next(lease(start, 6), at(300)), Some(Turn::Stop { first: false }));
        hold.looked(true, at(300));
        assert_eq!(hold.next(lease(start, 310), at(304)), Some(Turn::Release(Duration::from_secs(300))));
        assert!(!hold.is_on());
        assert_eq!((hold.spent(), hold.next(lease(start, 310), at(304))), (Duration::from_secs(300), None));
    }

    #[test]
    fn times_of_holding_add_up() {
        let start = BootInstant::now();
        let at = |seconds| start.after(Duration::from_secs(seconds));
        let mut hold = Hold::new(LIMIT);
        for from in [4, 14] {
            assert_eq!(hold.next(lease(start, from + 2), at(from)), Some(Turn::Stop { first: true }));
            hold.looked(true, at(from));
            assert_eq!(hold.next(lease(start, from + 10), at(from + 3)), Some(Turn::Release(Duration::from_secs(3))));
        }
        assert_eq!(hold.spent(), Duration::from_secs(6));
    }

    #[test]
    fn a_lease_that_stays_away_is_given_up_at_the_limit() {
        let start = BootInstant::now();
        let mut hold = Hold::new(LIMIT);
        let from = start.after(Duration::from_secs(4));
        assert_eq!(hold.next(lease(start, 6), from), Some(Turn::Stop { first: true }));
        hold.looked(true, from.after(LIMIT));
        assert_eq!(hold.due_at(lease(start, 6)), Some(from.after(LIMIT)));
        assert_eq!(hold.next(lease(start, 6), from.after(LIMIT)), Some(Turn::GiveUp));
    }

    #[test]
    fn a_tree_that_cannot_be_held_is_given_up_before_its_lease_is_over() {
        let start = BootInstant::now();
        let at = |seconds| start.after(Duration::from_secs(seconds));
        let mut hold = Hold::new(LIMIT);
        assert_eq!(hold.next(lease(start, 6), at(4)), Some(Turn::Stop { first: true }));
        hold.looked(false, at(4));
        assert_eq!(hold.due_at(lease(start, 6)), Some(at(4).after(AGAIN)));
        assert_eq!(hold.next(lease(start, 6), at(5)), Some(Turn::GiveUp));
    }

    #[test]
    fn without_a_limit_nothing_is_held() {
        let start = BootInstant::now();
        let mut hold = Hold::new(Duration::ZERO);
        assert_eq!(hold.next(lease(start, 6), start.after(Duration::from_secs(4))), Some(Turn::GiveUp));
    }
}
