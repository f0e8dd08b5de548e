//! Renewals: all attempts at once, every few seconds; what is no longer ours ends.

use std::sync::Arc;
use std::time::Duration;

use hopyard_contract::message::{LeaseState, Renew, RenewReply, Renewal};
use hopyard_contract::subject::Verb;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::rpc;

use crate::Executor;
use crate::live::Pace;

/// Most attempts of one request.
const CHUNK: usize = 256;

/// Starts to renew.
pub(crate) fn start(executor: &Arc<Executor>) {
    let (own, stop) = (executor.clone(), executor.ctx.tasks.stopping().clone());
    let mut pace = executor.live.pace();
    executor.ctx.tasks.spawn("leases", async move {
        let mut all_answered = true;
        loop {
            let Pace { lease, renew } = *pace.borrow_and_update();
            // Without an answer the next try comes soon: the lease goes on ageing.
            let pause = if all_answered { renew } else { renew / 4 };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = wait(&own, pause) => all_answered = own.renew_all(lease).await,
                // What the scheduler says in its answer to hello counts at once: leases may be shorter than was thought.
                Ok(()) = pace.changed() => {}
            }
        }
    });
}

/// Until the next renewal is due, or is asked for.
async fn wait(executor: &Executor, pause: Duration) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = executor.live.wants_renewal() => {}
    }
}

impl Executor {
    async fn renew_all(&self, lease: Duration) -> bool {
        let mut all_answered = true;
        let attempts = self.live.all();
        for chunk in attempts.chunks(CHUNK) {
            let leases = chunk.iter().map(|attempt| {
                let (usage, log_bytes) = attempt.so_far();
                Renewal { attempt: attempt.id.clone(), token: attempt.token, usage, log_bytes }
            });
            let leases = leases.collect();
            let request = Renew { executor: self.ctx.id.clone(), leases };
            let sent = BootInstant::now();
            match rpc::call::<_, RenewReply>(&self.ctx.bus, Verb::Renew, &request).await {
                Ok(reply) => {
                    hopyard_runtime::failpoint!("executor.renew.answered");
                    for (attempt, answer) in chunk.iter().zip(reply.leases) {
                        match answer.state {
                            LeaseState::Ok => attempt.renewed(sent, lease, answer.allowance),
                            LeaseState::Stale => attempt.stale(),
                            LeaseState::Settled => attempt.settled(),
                        }
                        if let Some(order) = answer.kill {
                            attempt.kill(&order);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, attempts = chunk.len(), "leases could not be renewed");
                    all_answered = false;
                }
            }
        }
        all_answered
    }
}
