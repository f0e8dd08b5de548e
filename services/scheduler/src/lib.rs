//! The only writer of the state of runs: a group-commit loop over a pure decision.
//!
//! The path of an input: `ears` hear it (requests, reports) → `commit` takes whatever waits → `round` locks and loads the
//! runs that are touched, `decide` says what becomes of them, one transaction writes everything → `follow_up` rings and
//! publishes. This crate *never* runs a step, touches a workspace or trusts an executor's clock.

pub mod budgets;
mod commit;
pub mod decide;
mod ears;
pub mod fleet;
mod follow_up;
mod inbox;
mod instruments;
mod outbox;
mod probe;
mod pulse;
mod reports;
pub mod request;
pub mod round;
pub mod settings;

use std::time::Duration;

use anyhow::Context as _;
use hopyard_contract::message::Beat;
use hopyard_contract::view::ComponentHealth;
use hopyard_runtime::Context;
use hopyard_runtime::presence::{self, Presence};
use hopyard_store::Store;

use crate::budgets::Budgets;
use crate::settings::Settings;

/// Starts the scheduler's tasks.
///
/// # Errors
/// When the store is locked by another scheduler, or a setting is not valid.
pub async fn start(ctx: Context) -> anyhow::Result<()> {
    let settings = Settings::read(&ctx.config)?;
    let store = Store::open_migrated(&ctx.config.store_url(), Duration::from_secs(30)).await.context("the store cannot be opened")?;
    let runs = store.runs().await?;
    ctx.readiness.set("store", ComponentHealth::ok());
    let presence = Presence::watch(&ctx.bus, &ctx.tasks);
    let (inbox, works) = inbox::channel();
    let outbox = outbox::Outbox::start(&ctx, runs.clone());
    let follow_up = follow_up::FollowUp::new(ctx.bus.clone(), presence.clone(), outbox.clone());
    let wake_probe =
        commit::start(&ctx, runs.clone(), presence.clone(), follow_up, works, settings, Budgets::new(ctx.config.budgets.clone()));
    ears::start(&ctx, runs.clone(), inbox, outbox.clone()).await?;
    probe::start(&ctx, runs, presence, wake_probe);
    let own = ctx.clone();
    presence::beat(&ctx.bus, &ctx.tasks, move || Beat { outbox_ms: outbox.age_ms(), ..own.beat() });
    Ok(())
}
