//! The probe: rings again for what has been claimable for a while, so that a lost ticket costs a second and not a run.

use std::sync::Arc;
use std::time::Duration;

use hopyard_contract::message::{Control, GcTicket, MESSAGE_VERSION};
use hopyard_contract::run::WorkspaceStatus;
use hopyard_contract::subject;
use hopyard_runtime::Context;
use hopyard_runtime::bus::encode;
use hopyard_runtime::presence::Presence;
use hopyard_store::runs::RunStore;
use tokio::sync::Notify;

use crate::follow_up;

/// Between looks while something waits.
const BUSY: Duration = Duration::from_secs(1);
/// Between looks while nothing does.
const IDLE: Duration = Duration::from_secs(30);

/// What became claimable a moment ago has its ticket on the way.
const FRESH: Duration = Duration::from_millis(900);

/// Starts the probe.
pub(crate) fn start(ctx: &Context, store: Arc<dyn RunStore>, presence: Presence, wake: Arc<Notify>) {
    let (bus, stop, readiness) = (ctx.bus.clone(), ctx.tasks.stopping().clone(), ctx.readiness.clone());
    ctx.tasks.spawn("probe", async move {
        let mut rounds = 0u64;
        let mut pause = BUSY;
        loop {
            let slept = async {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    // Something became claimable: its ticket may get lost, so look again soon.
                    () = wake.notified(), if pause > BUSY => tokio::time::sleep(BUSY).await,
                }
            };
            if stop.run_until_cancelled(slept).await.is_none() {
                return Ok(());
            }
            rounds += 1;
            readiness.tick("probe", IDLE);
            let waiting = match store.claimable().await {
                Ok(waiting) => waiting,
                Err(error) => {
                    tracing::warn!(%error, "the probe could not read the store");
                    pause = BUSY;
                    continue;
                }
            };
            pause = if waiting.is_empty() && !recently_busy(&presence) { IDLE } else { BUSY };
            for entry in waiting {
                if entry.waited < FRESH {
                    continue;
                }
                match entry.bound_to {
                    Some(executor) => bus.tell(&subject::ctl(&executor), &Control::Ring).await,
                    None => follow_up::ring(&bus, &presence, &entry.pool, entry.count).await,
                }
            }
            hopyard_runtime::failpoint!("scheduler.probe.rang");
            // Workspaces that may go are told again now and then: a ticket may have been lost with the bus.
            if rounds.is_multiple_of(30) {
                for row in store.workspaces(None, WorkspaceStatus::Reclaimable, 200).await.unwrap_or_default() {
                    let ticket = GcTicket { v: MESSAGE_VERSION, host: row.host.clone(), workspace: row.id };
                    drop(bus.publish(&subject::gc(&row.host), None, None, encode(&ticket)).await);
                }
                if let Err(error) = store.retire().await {
                    tracing::warn!(%error, "old rows could not be retired");
                }
            }
        }
    });
}

/// While slots are in use, work may become claimable at any moment.
fn recently_busy(presence: &Presence) -> bool {
    presence.alive("executor", Duration::from_secs(15)).iter().any(|(beat, _)| beat.free < beat.slots)
}
