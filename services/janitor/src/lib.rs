//! Frees the disk of one host: workspaces of ended runs, orphans, spools, trash; keeps the work of lost attempts first.
//!
//! The path of a workspace: a ticket or a look at the disk → `scheduler` is asked what may go → `policy` decides →
//! `save` keeps what a lost attempt left → rename to the trash → delete → report. This crate *never* reaches the store,
//! touches a persistent workspace, removes anything that a scheduler wants to keep, or removes anything unasked.

mod disk;
mod instruments;
mod leftovers;
mod policy;
mod save;
mod scheduler;
mod serve;
mod settings;
mod sweep;

use anyhow::Context as _;
use hopyard_contract::message::Beat;
use hopyard_contract::view::ComponentHealth;
use hopyard_runtime::{Bus, Config, Context, presence};

pub use policy::{Action, Planned, Reason};
pub use sweep::{Failure, Removed, Report};

use crate::scheduler::OverBus;
use crate::settings::Settings;
use crate::sweep::{Scope, Sweeper};

/// What a single pass shall do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Only say what would be removed.
    pub dry_run: bool,
    /// Age after which a workspace that the store does not know is removed; the setting `MAX_AGE` if absent.
    pub max_age: Option<std::time::Duration>,
}

/// Starts the janitor's tasks.
///
/// # Errors
/// When git is missing or too old, the data directory cannot be written, or a setting is not valid.
pub async fn start(ctx: Context) -> anyhow::Result<()> {
    let settings = Settings::read(&ctx.config)?;
    let link = OverBus::new(ctx.bus.clone(), ctx.id.clone(), ctx.host.clone());
    let sweeper = Sweeper::open(&settings, ctx.host.clone(), link).await?;
    ctx.readiness.set("git", ComponentHealth::ok());
    serve::start(&ctx, sweeper, &settings);
    let (own, data_dir) = (ctx.clone(), settings.data_dir.clone());
    presence::beat(&ctx.bus, &ctx.tasks, move || Beat { disk_free: disk::free_bytes(&data_dir), ..own.beat() });
    Ok(())
}

/// One full pass over the disk of this host, for the command line; safe beside a running janitor.
///
/// # Errors
/// When no scheduler answers (then nothing is removed), git is missing, or the data directory cannot be read. Single
/// workspaces that could not be removed are in the report.
pub async fn once(bus: &Bus, config: &Config, options: Options) -> anyhow::Result<Report> {
    let mut settings = Settings::read(config)?;
    if let Some(max_age) = options.max_age {
        settings.max_age = max_age;
    }
    let host = config.host()?;
    let link = OverBus::new(bus.clone(), config.id("janitor")?, host.clone());
    let sweeper = Sweeper::open(&settings, host, link).await?;
    let scope = if options.dry_run { Scope::DryRun } else { Scope::Full };
    sweeper.pass(&scope, &tokio_util::sync::CancellationToken::new()).await.context("the pass ended early")
}
