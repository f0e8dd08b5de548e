//! Orders over `hopyard.ctl.<executor>`: quick and lossy; renewals and claims bring the same for certain.

use std::sync::Arc;

use hopyard_contract::message::Control;
use hopyard_contract::subject;

use crate::Executor;

/// Starts to listen for orders.
pub(crate) async fn start(executor: &Arc<Executor>) -> anyhow::Result<()> {
    let mut orders = executor.ctx.bus.subscribe(&subject::ctl(&executor.ctx.id)).await?;
    let (own, stop) = (executor.clone(), executor.ctx.tasks.stopping().clone());
    executor.ctx.tasks.spawn("control", async move {
        while let Some(Some(message)) = stop.run_until_cancelled(orders.next()).await {
            match serde_json::from_slice::<Control>(&message.body) {
                Ok(Control::Kill { run, order }) => own.live.kill_run(run, &order),
                Ok(Control::Ring) => own.reporter.ring(),
                Ok(Control::Drain) => own.ctx.tasks.draining().cancel(),
                Ok(Control::Settled { attempts }) => {
                    for attempt in attempts.iter().filter_map(|id| own.live.get(id)) {
                        attempt.settled();
                    }
                }
                // A word of a newer version: what it means comes by a renewal or a claim as well.
                Err(error) => tracing::info!(%error, "an order cannot be read"),
            }
        }
        Ok(())
    });
    Ok(())
}
