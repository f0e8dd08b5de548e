//! Folds the events of all runs into exact counters, and reads the gauges of what is going on from the store.
//!
//! The path of an event: bus or database → `ledger`, which counts each event once → `checkpoint`, saved before the
//! message is acknowledged → `collector`, which shows the counters. This crate *never* writes the state of runs, never
//! counts by arithmetic on gauges, and nothing waits for it.

mod catalogue;
mod checkpoint;
mod collector;
mod gauges;
mod instruments;
mod lead;
mod ledger;
mod seen;
mod series;
mod standby;
mod totals;

pub use totals::Totals;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hopyard_contract::view::ComponentHealth;
use hopyard_runtime::{Context, presence};
use hopyard_store::Store;

use crate::checkpoint::Checkpoint;
use crate::lead::Ended;
use crate::series::Shown;

/// Starts the tasks of the metrics service.
///
/// # Errors
/// When the store cannot be opened or its schema is newer than this build.
pub async fn start(ctx: Context) -> anyhow::Result<()> {
    let loading = ComponentHealth::degraded("loading", "the counters are being loaded");
    ctx.readiness.set("counters", loading);
    let store = Store::open_migrated(&ctx.config.store_url(), Duration::from_secs(30)).await.context("the store cannot be opened")?;
    ctx.readiness.set("store", ComponentHealth::ok());
    let shown = Arc::new(Shown::default());
    collector::register(&shown)?;
    gauges::start(&ctx, store.reader())?;
    let own = ctx.clone();
    ctx.tasks.spawn("counters", async move {
        let done = count(&own, &store, &shown).await;
        // The counters are saved: nothing else has to be finished.
        own.tasks.stopping().cancel();
        done
    });
    let own = ctx.clone();
    presence::beat(&ctx.bus, &ctx.tasks, move || own.beat());
    Ok(())
}

/// Waits until no other instance counts, counts, and waits again when another one has taken over.
async fn count(ctx: &Context, store: &Store, shown: &Arc<Shown>) -> anyhow::Result<()> {
    let mut checkpoint = Checkpoint::new(store.metrics(), &ctx.id);
    let events = store.reader();
    let mut counted = false;
    loop {
        let Some(saved) = standby::wait(ctx, &mut checkpoint, counted).await else { return Ok(()) };
        counted = true;
        let ledger = ledger::Ledger::restore(shown.clone(), saved);
        match lead::run(ctx, &mut checkpoint, &events, ledger).await {
            Ended::Drained => return Ok(()),
            Ended::Superseded => {
                tracing::warn!("another instance counts now; this one shows the gauges and waits");
                shown.open(false);
            }
        }
    }
}
