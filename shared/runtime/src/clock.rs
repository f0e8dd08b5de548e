//! The boot-time clock: goes on while the machine sleeps, so that the age of a lease is never underestimated.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// An instant of the boot-time clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// Now.
    pub fn now() -> Self {
        // Linux has had this clock since 2.6.39; elsewhere the monotonic one is the nearest.
        #[cfg(target_os = "linux")]
        let id = ClockId::CLOCK_BOOTTIME;
        #[cfg(not(target_os = "linux"))]
        let id = ClockId::CLOCK_MONOTONIC;
        let time = clock_gettime(id).expect("the clock exists on every supported system");
        Self(Duration::from(time))
    }

    /// Time since this instant.
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}
