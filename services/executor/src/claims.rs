//! Claims: when a ticket, a ring, a freed slot or the clock says so, ask for as many attempts as there are free slots.

use std::sync::Arc;
use std::time::Duration;

use hopyard_contract::message::{Claim, ClaimReply};
use hopyard_contract::subject::Verb;
use hopyard_contract::topology;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::consume::Consumer;
use hopyard_runtime::rpc::{self, CallError};
use uuid::Uuid;

use crate::{Executor, attempt, instruments};

/// Claims without any ticket: a lost one costs at most this.
const EVERY: Duration = Duration::from_secs(30);
/// A claim that nobody answers is repeated with the same id for this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts to claim.
pub(crate) async fn start(executor: &Arc<Executor>) -> anyhow::Result<()> {
    let mut tickets = Consumer::new(executor.ctx.bus.clone(), executor.ctx.topology, topology::executors(&executor.settings.pool), 1);
    tickets.ensure().await?;
    let (own, drain) = (executor.clone(), executor.ctx.tasks.draining().clone());
    executor.ctx.tasks.spawn("tickets", async move {
        let mut free = own.live.watch_free();
        let heard = async {
            // A ticket is only taken with room for what it announces, so that it does not sit here while another is idle.
            while free.wait_for(|free| *free > 0).await.is_ok() {
                tickets.one().await.ack().await;
                own.reporter.ring();
            }
        };
        drain.run_until_cancelled(heard).await;
        Ok(())
    });
    let own = executor.clone();
    executor.ctx.tasks.spawn("claims", async move {
        let drain = own.ctx.tasks.draining().clone();
        drain.run_until_cancelled(own.claim_forever()).await;
        own.drain().await;
        Ok(())
    });
    Ok(())
}

impl Executor {
    async fn claim_forever(self: &Arc<Self>) {
        let mut free = self.live.watch_free();
        let mut reconnects = self.ctx.bus.watch_reconnects();
        let mut more = true;
        loop {
            if !more {
                let rung = self.reporter.rung();
                tokio::select! {
                    () = rung => {}
                    () = tokio::time::sleep(EVERY) => {}
                    // Rings may have been missed, and the schedulers may have lost sight of this executor.
                    _ = reconnects.changed() => self.say_hello_again().await,
                }
            }
            if free.wait_for(|free| *free > 0).await.is_err() {
                return;
            }
            more = self.claim().await;
        }
    }

    async fn say_hello_again(&self) {
        if let Err(error) = self.hello().await {
            tracing::warn!(error = format!("{error:#}"), "hello was not answered");
        }
    }

    /// One claim, repeated until it is answered; says whether there is more.
    async fn claim(self: &Arc<Self>) -> bool {
        let claim = Claim {
            claim_id: Uuid::new_v4(),
            executor: self.ctx.id.clone(),
            host: self.ctx.host.clone(),
            pool: self.settings.pool.clone(),
            free: self.live.free(),
        };
        // The first try may have been granted and its answer lost: repeats get the same leases, which are as old as that.
        let began = BootInstant::now();
        loop {
            hopyard_runtime::failpoint!("executor.claim.before_rpc");
            match rpc::call::<_, ClaimReply>(&self.ctx.bus, Verb::Claim, &claim).await {
                Ok(reply) => {
                    hopyard_runtime::failpoint!("executor.claim.answered");
                    self.live.note_claim();
                    instruments::claims().with_label_values(&[if reply.grants.is_empty() { "empty" } else { "granted" }]).inc();
                    for grant in reply.grants {
                        if let Some(live) = self.live.enter(&grant, began) {
                            attempt::start(self, grant, live);
                        }
                    }
                    return reply.more;
                }
                Err(error) if began.elapsed() > PATIENCE => {
                    instruments::claims().with_label_values(&["unanswered"]).inc();
                    tracing::warn!(%error, "a claim was given up; what it leased runs out");
                    return false;
                }
                Err(CallError::Nobody) => tokio::time::sleep(Duration::from_millis(250)).await,
                Err(CallError::Refused(error)) => {
                    tracing::info!(code = error.code, detail = error.detail, "a claim was refused");
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Err(error) => tracing::info!(%error, "a claim is repeated"),
            }
        }
    }

    /// Finishes what finishes soon, gives the rest back, and leaves when everything is settled.
    async fn drain(self: &Arc<Self>) {
        if let Err(error) = self.hello().await {
            tracing::info!(error = format!("{error:#}"), "the drain could not be announced");
        }
        let all_settled = async {
            while !self.live.all().is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::pin!(all_settled);
        if tokio::time::timeout(self.settings.grace, &mut all_settled).await.is_err() {
            for live in self.live.all() {
                live.hand_back();
            }
            if tokio::time::timeout(self.settings.grace * 2 + Duration::from_secs(10), &mut all_settled).await.is_err() {
                tracing::warn!(attempts = self.live.all().len(), "some results are not settled; the next start publishes them again");
            }
        }
        self.ctx.tasks.stopping().cancel();
    }
}
