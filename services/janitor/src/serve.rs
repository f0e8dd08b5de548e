//! The running janitor: tickets as they come, a short pass every minute, a full one at start and every hour.

use std::collections::BTreeSet;
use std::time::Duration;

use hopyard_contract::message::GcTicket;
use hopyard_contract::topology;
use hopyard_runtime::Context;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::consume::{Consumer, Delivery};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::instruments;
use crate::policy::run_of;
use crate::scheduler::Scheduler;
use crate::settings::Settings;
use crate::sweep::{Scope, Sweeper};

/// Most tickets of one pass.
const BATCH: usize = 64;
/// Between passes; a disk with nothing to do costs a listing and a request.
const PASS: Duration = Duration::from_secs(60);
/// Between packings of the mirrors.
const MAINTAIN: Duration = Duration::from_secs(24 * 3600);
/// Until a pass without an answer is tried again.
const SOON: Duration = Duration::from_secs(5);
/// How long a round may take; a pass over much work takes its time.
const LATE: Duration = Duration::from_secs(300);
/// Until a ticket whose workspace could not be removed comes again.
const AGAIN: Duration = Duration::from_secs(60);

/// Starts to work.
pub(crate) fn start<S: Scheduler + 'static>(ctx: &Context, sweeper: Sweeper<S>, settings: &Settings) {
    instruments::show_all();
    let mut tickets = read_tickets(ctx);
    let sweep = settings.sweep;
    let own = ctx.clone();
    ctx.tasks.spawn("janitor", async move {
        let drain = own.tasks.draining().clone();
        let mut due = tokio::time::interval(sweep.min(PASS));
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut maintained = BootInstant::now();
        let mut swept: Option<BootInstant> = None;
        loop {
            own.readiness.tick("janitor", LATE);
            tokio::select! {
                () = drain.cancelled() => break,
                Some(batch) = tickets.recv() => on_tickets(&sweeper, batch, &drain).await,
                _ = due.tick() => {
                    let full = swept.is_none_or(|at| at.elapsed() >= sweep);
                    let began = BootInstant::now();
                    match on_due(&sweeper, full, &drain).await {
                        Ok(()) if full => swept = Some(began),
                        Ok(()) => {}
                        Err(error) => {
                            tracing::warn!(error = format!("{error:#}"), "nothing was removed; it is tried again soon");
                            due.reset_after(SOON);
                        }
                    }
                    if maintained.elapsed() > MAINTAIN {
                        maintained = BootInstant::now();
                        drain.run_until_cancelled(sweeper.maintain()).await;
                    }
                }
            }
        }
        // What was begun is finished; nothing else has to be.
        own.tasks.stopping().cancel();
        Ok(())
    });
}

/// Reads tickets in a task of its own, which no timer interrupts.
fn read_tickets(ctx: &Context) -> mpsc::Receiver<Vec<Delivery>> {
    let (batches, receiver) = mpsc::channel(1);
    let mut consumer = Consumer::new(ctx.bus.clone(), ctx.topology, topology::janitor(&ctx.host), BATCH);
    let drain = ctx.tasks.draining().clone();
    ctx.tasks.spawn_part("tickets", async move {
        while let Some(batch) = drain.run_until_cancelled(Box::pin(consumer.next())).await {
            // The other side is gone only when the process ends; the tickets come again.
            if batches.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    receiver
}

async fn on_tickets<S: Scheduler>(sweeper: &Sweeper<S>, batch: Vec<Delivery>, drain: &CancellationToken) {
    let mut asked: Vec<(Delivery, String)> = Vec::with_capacity(batch.len());
    for delivery in batch {
        match serde_json::from_slice::<GcTicket>(&delivery.body).map(|ticket| ticket.workspace) {
            Ok(id) if run_of(&id).is_some() => asked.push((delivery, id)),
            Ok(id) => {
                tracing::warn!(workspace = id, "a ticket names no workspace");
                delivery.ack().await;
            }
            Err(error) => {
                tracing::warn!(%error, sequence = delivery.sequence, "a ticket cannot be read");
                delivery.ack().await;
            }
        }
    }
    let ids: BTreeSet<String> = asked.iter().map(|(_, id)| id.clone()).collect();
    if ids.is_empty() {
        return;
    }
    hopyard_runtime::failpoint!("janitor.tickets.taken");
    let done = sweeper.pass(&Scope::Tickets(ids), drain).await;
    if let Err(error) = &done {
        tracing::warn!(error = format!("{error:#}"), "tickets have to wait");
    }
    for (delivery, id) in asked {
        // A ticket is a hint: what may not go yet is told again when it may.
        let failed = match &done {
            Ok(report) => report.failed.iter().any(|failure| failure.id == id),
            Err(_) => true,
        };
        if failed || drain.is_cancelled() {
            delivery.later(AGAIN).await;
        } else {
            delivery.ack().await;
            hopyard_runtime::failpoint!("janitor.tickets.acked");
        }
    }
}

async fn on_due<S: Scheduler>(sweeper: &Sweeper<S>, full: bool, drain: &CancellationToken) -> anyhow::Result<()> {
    let report = sweeper.pass(if full { &Scope::Full } else { &Scope::Short }, drain).await?;
    if full && report.failed.is_empty() && !drain.is_cancelled() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        instruments::last_success().with_label_values::<&str>(&[]).set(i64::try_from(now).unwrap_or(i64::MAX));
    }
    Ok(())
}
