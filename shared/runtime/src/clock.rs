//! The boot-time clock: goes on while the machine sleeps, and is the same in every process of a host.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// An instant of the boot-time clock, in microseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootInstant(u64);

impl BootInstant {
    /// Now.
    pub fn now() -> Self {
        // Linux has had this clock since 2.6.39; elsewhere the monotonic one is the nearest.
        #[cfg(target_os = "linux")]
        let id = ClockId::CLOCK_BOOTTIME;
        #[cfg(not(target_os = "linux"))]
        let id = ClockId::CLOCK_MONOTONIC;
        let now = clock_gettime(id).expect("the clock exists on every supported system");
        Self(micros(Duration::from(now)))
    }

    /// Time since this instant.
    pub fn elapsed(self) -> Duration {
        self.until(Self::now())
    }

    /// The instant `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// The instant `span` earlier, not before boot.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }

    /// The time from here to `later`, zero if that is past.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0))
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
