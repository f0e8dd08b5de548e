//! The subcommands of the five services: flags become settings, and the service runs until it is told to stop.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use hopyard_runtime::{Config, service};

/// One service of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Service {
    /// The door: HTTP API, event streams, submissions over the bus
    Ingest,
    /// The only writer of run state
    Scheduler,
    /// Runs attempts of steps in workspaces
    Executor,
    /// Folds events into counters
    Metrics,
    /// Frees workspaces and mirrors of its host
    Janitor,
}

/// Settings that all services take as flags; each stands above `HOPYARD_*` and `hopyard.toml`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServiceFlags {
    /// Address of the API (ingest)
    #[arg(long, value_name = "ADDR")]
    pub http_addr: Option<String>,
    /// Address of /metrics, /livez and /readyz
    #[arg(long, value_name = "ADDR")]
    pub admin_addr: Option<String>,
    /// Bus
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,
    /// Store: sqlite:DIRECTORY or postgres://… (ingest, scheduler, metrics)
    #[arg(long, value_name = "URL")]
    pub store_url: Option<String>,
    /// Directory for everything the service keeps on disk
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory or URL of the blob store
    #[arg(long, value_name = "URL")]
    pub blobs: Option<String>,
    /// Name of this process
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Name of this host
    #[arg(long, value_name = "NAME")]
    pub host_id: Option<String>,
    /// Pool (executor)
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// Most attempts at once (executor)
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// Prefixes of repository URLs that may be used, separated by commas (executor)
    #[arg(long, value_name = "LIST")]
    pub repo_allow: Option<String>,
    /// Age after which an unknown workspace is removed (janitor)
    #[arg(long, value_name = "DURATION")]
    pub max_age: Option<String>,
    /// manage or verify the streams
    #[arg(long, value_name = "MODE")]
    pub topology: Option<String>,
    /// Filter of the service's own log
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

impl ServiceFlags {
    /// The flags as settings.
    pub fn settings(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("HTTP_ADDR", self.http_addr.clone()),
            ("ADMIN_ADDR", self.admin_addr.clone()),
            ("NATS_URL", self.nats_url.clone()),
            ("STORE_URL", self.store_url.clone()),
            ("DATA_DIR", self.data_dir.as_ref().map(|dir| dir.display().to_string())),
            ("BLOBS", self.blobs.clone()),
            ("ID", self.id.clone()),
            ("HOST_ID", self.host_id.clone()),
            ("POOL", self.pool.clone()),
            ("SLOTS", self.slots.map(|n| n.to_string())),
            ("REPO_ALLOW", self.repo_allow.clone()),
            ("MAX_AGE", self.max_age.clone()),
            ("TOPOLOGY", self.topology.clone()),
            ("LOG", self.log.clone()),
        ]
    }
}

/// Runs a service until it is told to stop.
///
/// # Errors
/// When a setting is not valid, or the service's set-up or one of its tasks fails.
pub fn run(kind: Service, flags: &ServiceFlags) -> anyhow::Result<()> {
    let config = Config::load(&flags.settings())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the service's threads")?;
    let ended = runtime.block_on(async {
        match kind {
            Service::Ingest => service::run("ingest", config, hopyard_ingest::start).await,
            Service::Scheduler => service::run("scheduler", config, hopyard_scheduler::start).await,
            Service::Executor => service::run("executor", config, hopyard_executor::start).await,
            Service::Metrics => service::run("metrics", config, hopyard_metrics::start).await,
            Service::Janitor => service::run("janitor", config, hopyard_janitor::start).await,
        }
    });
    // Whatever still blocks a thread now is not waited for.
    runtime.shutdown_background();
    ended
}
