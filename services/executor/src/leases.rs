//! Renewals: all attempts at once, every few seconds; what is no longer ours ends.

use std::sync::Arc;

use hopyard_contract::Usage;
use hopyard_contract::message::{LeaseState, Renew, RenewReply, Renewal};
use hopyard_contract::subject::Verb;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::rpc;

use crate::Executor;

/// Most attempts of one request.
const CHUNK: usize = 256;

/// Starts to renew.
pub(crate) fn start(executor: &Arc<Executor>) {
    let (own, stop) = (executor.clone(), executor.ctx.tasks.stopping().clone());
    executor.ctx.tasks.spawn("leases", async move {
        let mut pause = own.live.renew_every();
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let all_answered = own.renew_all().await;
            // Without an answer the next try comes soon: the lease goes on ageing.
            pause = if all_answered { own.live.renew_every() } else { own.live.renew_every() / 4 };
        }
        Ok(())
    });
}

impl Executor {
    async fn renew_all(&self) -> bool {
        let mut all_answered = true;
        let attempts = self.live.all();
        for chunk in attempts.chunks(CHUNK) {
            let leases =
                chunk.iter().map(|a| Renewal { attempt: a.id.clone(), token: a.token, usage: Usage::default(), log_bytes: 0 }).collect();
            let request = Renew { executor: self.ctx.id.clone(), leases };
            let sent = BootInstant::now();
            match rpc::call::<_, RenewReply>(&self.ctx.bus, Verb::Renew, &request).await {
                Ok(reply) => {
                    hopyard_runtime::failpoint!("executor.renew.answered");
                    let lease = self.live.lease();
                    for (attempt, answer) in chunk.iter().zip(reply.leases) {
                        match answer.state {
                            LeaseState::Ok => attempt.renewed(sent, lease),
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
