//! The scheduler's settings.

use anyhow::ensure;
use hopyard_contract::duration::Span;
use hopyard_runtime::Config;

/// Lengths that leases are made and judged by.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Length of a lease.
    pub lease: Span,
    /// Time between renewals.
    pub renew: Span,
}

impl Settings {
    /// From the settings of the process.
    ///
    /// # Errors
    /// When a value is not valid, or a lease holds fewer than three renewals.
    pub(crate) fn read(config: &Config) -> anyhow::Result<Self> {
        let settings = Self { lease: config.span("LEASE", 20_000)?, renew: config.span("RENEW", 5_000)? };
        ensure!(settings.renew.millis() * 3 <= settings.lease.millis(), "HOPYARD_LEASE has to be at least three times HOPYARD_RENEW");
        Ok(settings)
    }
}
