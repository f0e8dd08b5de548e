//! Renewals: all attempts at once, every few seconds.

use std::rc::Rc;

use hopyard_contract::Usage;
use hopyard_contract::message::{LeaseState, Renew, Renewal};
use hopyard_scheduler::request::{Answer, Request};

use super::Executor;
use super::live::Live;
use crate::bugs::Bug;

impl Executor {
    pub(super) async fn renew_for_ever(&self) {
        let every = i64::try_from(self.world.settings.renew.millis()).unwrap_or_default() * 1000;
        let mut pause = every;
        loop {
            self.world.clock.sleep(pause).await;
            // Without an answer the next try comes soon: the lease goes on ageing.
            pause = if self.renew_all().await { every } else { every / 4 };
        }
    }

    async fn renew_all(&self) -> bool {
        let world = &self.world;
        let attempts: Vec<Rc<Live>> = self.attempts.borrow().values().cloned().collect();
        if attempts.is_empty() {
            return true;
        }
        let leases = attempts
            .iter()
            .map(|live| Renewal { attempt: live.id.clone(), token: live.token, usage: used(live.used.get()), log_bytes: 0 })
            .collect();
        let sent = world.now();
        let Ok(Answer::Renew(reply)) = world.bus.call(self.process, Request::Renew(Renew { executor: self.name.clone(), leases })).await
        else {
            return false;
        };
        let sent = if world.has(Bug::AgeFromAnswer) { world.now() } else { sent };
        for (live, answer) in attempts.iter().zip(reply.leases) {
            match answer.state {
                LeaseState::Ok => live.renewed(world, sent),
                LeaseState::Stale => live.stale(world),
                LeaseState::Settled => live.settled(),
            }
            if let Some(order) = answer.kill {
                live.kill(world, &order);
            }
        }
        true
    }
}

/// A usage that costs this much.
pub(super) fn used(cost: u64) -> Usage {
    Usage { cost_microusd: Some(cost), turns: cost / 10, ..Usage::default() }
}
