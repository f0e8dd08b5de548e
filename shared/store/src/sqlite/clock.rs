//! The clock that leases are judged by: the wall clock at start, carried on by the boot-time clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use nix::time::{ClockId, clock_gettime};

use super::rows::{instant, micros};
use crate::{Error, Result};

/// How far the stored mark may be behind, in microseconds.
const MARK_EVERY: i64 = 1_000_000;

/// A clock that never goes back: not when the wall clock is set, not over a restart, and that counts suspended time.
#[derive(Debug)]
pub(super) struct Clock {
    /// Microseconds since 1970 at start.
    start: i64,
    /// Boot-time clock at start.
    boot: Duration,
    /// The stored high-water mark, in microseconds.
    mark: AtomicI64,
}

impl Clock {
    /// Starts at the wall clock, or at the stored mark if that is later.
    pub(super) fn start(mark: i64) -> Result<Self> {
        Ok(Self { start: micros(Utc::now()).max(mark), boot: boot_time()?, mark: AtomicI64::new(mark) })
    }

    /// Now, in whole microseconds.
    pub(super) fn now(&self) -> Result<DateTime<Utc>> {
        let elapsed = boot_time()?.saturating_sub(self.boot);
        instant(self.start.saturating_add(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Whether the mark is due to be stored.
    pub(super) fn mark_is_old(&self, now: DateTime<Utc>) -> bool {
        micros(now) - self.mark.load(Ordering::Relaxed) >= MARK_EVERY
    }

    /// The mark has been committed.
    pub(super) fn marked(&self, at: i64) {
        self.mark.fetch_max(at, Ordering::Relaxed);
    }
}

fn boot_time() -> Result<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .map_err(|e| Error::Unavailable(format!("cannot read the boot-time clock: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_starts_at_a_later_mark_and_never_goes_back() {
        let ahead = micros(Utc::now()) + 3_600_000_000;
        let clock = Clock::start(ahead).unwrap();
        let first = clock.now().unwrap();
        let second = clock.now().unwrap();
        assert!(micros(first) >= ahead, "a restart with a wall clock that was set back keeps the mark");
        assert!(second >= first);
        assert_eq!(first.timestamp_subsec_nanos() % 1000, 0, "whole microseconds");
    }

    #[test]
    fn the_mark_is_stored_at_most_every_second() {
        let clock = Clock::start(0).unwrap();
        let now = clock.now().unwrap();
        assert!(clock.mark_is_old(now));
        clock.marked(micros(now));
        assert!(!clock.mark_is_old(now + chrono::TimeDelta::milliseconds(999)));
        assert!(clock.mark_is_old(now + chrono::TimeDelta::milliseconds(1000)));
    }
}
