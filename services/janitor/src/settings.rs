//! The janitor's settings.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use hopyard_runtime::Config;
use hopyard_runtime::config::environment;

/// Settings of one janitor.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What the executors of this host write to.
    pub(crate) data_dir: PathBuf,
    /// Blob store.
    pub(crate) blobs: String,
    /// Age after which what the store does not know is removed.
    pub(crate) max_age: Duration,
    /// Between full passes.
    pub(crate) sweep: Duration,
    pub(crate) git: hopyard_worktree::Settings,
}

impl Settings {
    /// From the settings of the process.
    ///
    /// # Errors
    /// When a duration is not valid.
    pub(crate) fn read(config: &Config) -> anyhow::Result<Self> {
        let mut git = hopyard_worktree::Settings::default();
        if let Some(path) = environment("PATH") {
            git.search_path = path.into();
        }
        Ok(Self {
            // Spelled as executors spell it: mirrors know their workspaces by path.
            data_dir: std::path::absolute(config.data_dir()).context("the data directory has no absolute path")?,
            blobs: config.blobs(),
            max_age: config.span("MAX_AGE", 48 * 3_600_000)?.std(),
            sweep: config.span("SWEEP", 3_600_000)?.std(),
            git,
        })
    }
}
