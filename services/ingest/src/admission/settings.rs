//! The limits of admission, as they are set.

use std::time::Duration;

use anyhow::bail;
use hopyard_runtime::Config;

/// What the door takes, and up to what load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether submissions are taken at all.
    pub(super) intake: bool,
    /// Runs per second of one client; 0 for no limit.
    pub(super) rate: u32,
    /// Runs of one client at once.
    pub(super) burst: u32,
    /// Pending runs of a namespace; 0 for no limit.
    pub(super) pending_cap: u64,
    /// Age of a pool's oldest claimable step.
    pub(super) queue_age: Duration,
    /// Age of the oldest unpublished commit.
    pub(super) outbox_age: Duration,
    /// Wait for a connection to the store.
    pub(super) store_wait: Duration,
    /// Free bytes of a volume.
    pub(super) disk_reserve: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            intake: true,
            rate: 5_000,
            burst: 20_000,
            pending_cap: 100_000,
            queue_age: Duration::from_secs(6 * 3600),
            outbox_age: Duration::from_secs(60),
            store_wait: Duration::from_secs(1),
            disk_reserve: 512 << 20,
        }
    }
}

impl Settings {
    /// From the settings of the process.
    ///
    /// # Errors
    /// When a value is not valid; the error names the setting.
    pub fn read(config: &Config) -> anyhow::Result<Self> {
        let default = Self::default();
        let span = |name: &str, default: Duration| {
            let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
            config.span(name, default).map(|span| span.std())
        };
        let intake = match config.text("INTAKE", "on").as_str() {
            "on" => true,
            "off" => false,
            other => bail!("HOPYARD_INTAKE: `{other}` is neither on nor off"),
        };
        Ok(Self {
            intake,
            rate: config.parsed("SUBMIT_RATE", default.rate)?,
            burst: config.parsed("SUBMIT_BURST", default.burst)?,
            pending_cap: config.parsed("PENDING_CAP", default.pending_cap)?,
            queue_age: span("QUEUE_AGE", default.queue_age)?,
            outbox_age: span("OUTBOX_AGE", default.outbox_age)?,
            store_wait: span("STORE_WAIT", default.store_wait)?,
            disk_reserve: config.parsed("DISK_RESERVE", default.disk_reserve)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_table() {
        assert_eq!(Settings::read(&Config::default()).unwrap(), Settings::default());
        let default = Settings::default();
        let documented: Vec<String> = [
            ("SUBMIT_RATE", default.rate.to_string()),
            ("SUBMIT_BURST", default.burst.to_string()),
            ("PENDING_CAP", default.pending_cap.to_string()),
            ("DISK_RESERVE", default.disk_reserve.to_string()),
        ]
        .into_iter()
        .filter(|(name, value)| !hopyard_runtime::config::SETTINGS.iter().any(|s| s.name == *name && s.default == value))
        .map(|(name, _)| name.to_owned())
        .collect();
        assert!(documented.is_empty(), "the table says something else: {documented:?}");
    }
}
