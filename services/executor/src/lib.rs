//! Claims attempts, makes workspaces, runs steps and hands the work back.
//!
//! The path of an attempt is `attempt`, one straight line: claim → workspace → run → snapshot → upload → exactly one
//! `finished`. This crate *never* reaches the store, decides what becomes of a run, or lets a process of a step outlive it.

mod agent;
mod asker;
mod attempt;
mod choose;
mod claims;
mod control;
mod deliver;
mod files;
mod gateway;
mod instruments;
mod json;
mod leases;
mod limit;
mod live;
mod llm;
mod logs;
mod metered;
mod prices;
pub mod process;
mod prompts;
mod providers;
mod recover;
mod replay;
mod reporter;
mod settings;
mod spools;
mod tool_use;
mod wire;
mod workspaces;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hopyard_blobs::Blobs;
use hopyard_contract::message::{Beat, Hello};
use hopyard_contract::view::ComponentHealth;
use hopyard_runtime::Context;
use hopyard_runtime::presence;
use hopyard_worktree::Mirrors;

pub use crate::llm::llm_main;
pub use crate::providers::{ProviderAnswer, ask_provider};
pub use crate::replay::replay_main;

use crate::live::{Live, Pace};
use crate::prices::Prices;
use crate::process::Nursery;
use crate::providers::Providers;
use crate::reporter::Reporter;
use crate::settings::Settings;
use crate::spools::Spools;
use crate::workspaces::Workspaces;

/// Everything that the parts of an executor share.
pub(crate) struct Executor {
    pub(crate) ctx: Context,
    pub(crate) settings: Settings,
    pub(crate) spools: Arc<Spools>,
    pub(crate) blobs: Blobs,
    pub(crate) live: Live,
    pub(crate) nursery: Nursery,
    pub(crate) prices: Arc<Prices>,
    pub(crate) providers: Providers,
    pub(crate) reporter: Reporter,
    pub(crate) workspaces: Workspaces,
    pub(crate) incarnation: uuid::Uuid,
}

/// Starts the executor's tasks.
///
/// # Errors
/// When git is missing or too old, a directory cannot be written, or a setting is not valid.
pub async fn start(ctx: Context) -> anyhow::Result<()> {
    let settings = Settings::read(&ctx.config, &ctx.id)?;
    for dir in [&settings.workspaces, &settings.sessions] {
        tokio::fs::create_dir_all(dir).await.with_context(|| format!("the directory {} cannot be made", dir.display()))?;
    }
    // An attempt has its directory for somewhat longer than its slot.
    let spools = Arc::new(Spools::open(settings.spool.clone(), settings.slots as usize * 2)?);
    let mirrors = Mirrors::open(settings.data_dir.clone(), settings.git.clone())?;
    let version = mirrors.check_git().await?;
    tracing::info!(git = %version, pool = settings.pool.as_str(), slots = settings.slots, "the executor can work");
    ctx.readiness.set("git", ComponentHealth::ok());
    let blobs = Blobs::open(&ctx.config.blobs())?;
    let prices = Arc::new(Prices::open(settings.prices.as_deref())?);
    let providers = Providers::open(&ctx.config.providers)?;
    let live = Live::new(settings.slots);
    let nursery = Nursery::new(settings.program.clone(), ctx.tasks.clone());
    let reporter = Reporter::start(&ctx);
    let workspaces = Workspaces::new(mirrors, &settings, ctx.bus.clone(), ctx.tasks.clone());
    let executor = Arc::new(Executor {
        settings,
        spools,
        blobs,
        live,
        nursery,
        prices,
        providers,
        reporter,
        workspaces,
        incarnation: uuid::Uuid::new_v4(),
        ctx,
    });
    recover::start(&executor).await?;
    control::start(&executor).await?;
    leases::start(&executor);
    claims::start(&executor).await?;
    let own = executor.clone();
    presence::beat(&executor.ctx.bus, &executor.ctx.tasks, move || own.beat());
    Ok(())
}

impl Executor {
    fn beat(&self) -> Beat {
        Beat {
            pool: Some(self.settings.pool.clone()),
            slots: self.settings.slots,
            free: self.live.free(),
            claimed_ms_ago: self.live.claimed_ago().map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            disk_free: self.settings.disk_free(),
            frozen: self.live.frozen(),
            ..self.ctx.beat()
        }
    }

    /// Says who this is; the answer holds the length of leases.
    pub(crate) async fn hello(&self) -> anyhow::Result<()> {
        let hello = Hello {
            executor: self.ctx.id.clone(),
            incarnation: self.incarnation,
            host: self.ctx.host.clone(),
            pool: self.settings.pool.clone(),
            slots: self.settings.slots,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workspaces: self.workspaces.on_disk().await?,
            draining: self.ctx.tasks.draining().is_cancelled(),
        };
        let reply: hopyard_contract::message::HelloReply =
            hopyard_runtime::rpc::call(&self.ctx.bus, hopyard_contract::subject::Verb::Hello, &hello).await?;
        hopyard_runtime::failpoint!("executor.hello.answered");
        self.live.set_pace(Pace { lease: Duration::from_millis(reply.lease_ms), renew: Duration::from_millis(reply.renew_ms) });
        Ok(())
    }
}
