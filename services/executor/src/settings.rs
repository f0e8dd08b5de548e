//! The executor's settings and places on disk.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hopyard_contract::Name;
use hopyard_runtime::Config;
use hopyard_runtime::config::environment;
use hopyard_worktree::{Credential, Token, Warm};

/// Settings of one executor.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) pool: Name,
    pub(crate) slots: u32,
    pub(crate) grace: Duration,
    /// Longest time that an attempt is held still while its lease is overdue.
    pub(crate) freeze_limit: Duration,
    pub(crate) log_cap: u64,
    /// Processes of one step at once.
    pub(crate) step_processes: u64,
    /// `PATH` of steps.
    pub(crate) path: String,
    /// Table of prices that takes the place of the one that is built in.
    pub(crate) prices: Option<PathBuf>,
    /// This executable, which is also the shim and the fake agent.
    pub(crate) program: PathBuf,
    /// Mirrors and the trash, shared by the executors and the janitor of a host.
    pub(crate) data_dir: PathBuf,
    /// Temporary workspaces of this executor, as `<run>-g<k>`.
    pub(crate) workspaces: PathBuf,
    /// Persistent workspaces of this executor.
    pub(crate) sessions: PathBuf,
    /// Spools of this executor, as `<run>.<step>.<attempt>`.
    pub(crate) spool: PathBuf,
    pub(crate) git: hopyard_worktree::Settings,
    /// Checkouts that are made ahead.
    pub(crate) warm: Warm,
}

impl Settings {
    pub(crate) fn read(config: &Config, id: &Name) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let slots = config.parsed("SLOTS", u32::try_from(cores * 2).unwrap_or(2))?;
        ensure!((1..=1024).contains(&slots), "HOPYARD_SLOTS lies between 1 and 1024");
        let data_dir = std::path::absolute(config.data_dir()).context("the data directory has no absolute path")?;
        let path = environment("PATH").unwrap_or_else(|| crate::process::environment::DEFAULT_PATH.to_owned());
        let allow = config.text("REPO_ALLOW", "");
        let git = hopyard_worktree::Settings {
            fetch_interval: config.span("GIT_FETCH_INTERVAL", 10_000)?.std(),
            allow: allow.split(',').map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect(),
            credentials: credentials(&config.text("GIT_CREDENTIALS", ""))?,
            timeout: Duration::from_secs(600),
            search_path: path.clone().into(),
        };
        Ok(Self {
            pool: config.parsed("POOL", Name::default_pool())?,
            slots,
            grace: config.span("GRACE", 10_000)?.std(),
            freeze_limit: config.span("FREEZE_LIMIT", 600_000)?.std(),
            log_cap: config.parsed("LOG_CAP", 64 << 20)?,
            step_processes: config.parsed("STEP_PROCESSES", 4096)?,
            path: config.text("STEP_PATH", &path),
            prices: Some(config.text("PRICES", "")).filter(|file| !file.is_empty()).map(PathBuf::from),
            program: std::env::current_exe().context("the path of this executable is not known")?,
            workspaces: data_dir.join("workspaces").join(id.as_str()),
            sessions: data_dir.join("sessions").join(id.as_str()),
            spool: data_dir.join("spool").join(id.as_str()),
            data_dir,
            git,
            warm: Warm { trees: config.parsed("WARM", 2)?, bytes: config.parsed("WARM_BYTES", 10 << 30)? },
        })
    }

    /// Free bytes on the data volume; 0 when that is not known.
    pub(crate) fn disk_free(&self) -> u64 {
        nix::sys::statvfs::statvfs(&self.data_dir).map_or(0, |s| s.blocks_available().saturating_mul(s.fragment_size()))
    }
}

/// Reads `host=env:NAME` and `host=file:PATH`, separated by commas; `user@host` names another account than `git`.
fn credentials(text: &str) -> anyhow::Result<Vec<Credential>> {
    let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
    entries
        .map(|entry| {
            let (host, source) =
                entry.split_once('=').context("HOPYARD_GIT_CREDENTIALS: an entry is `host=env:NAME` or `host=file:PATH`")?;
            let (user, host) = host.split_once('@').unwrap_or(("git", host));
            let token = Token::parse(source, environment).with_context(|| format!("HOPYARD_GIT_CREDENTIALS: the token of {host}"))?;
            Ok(Credential { host: host.to_owned(), user: user.to_owned(), token })
        })
        .collect()
}
