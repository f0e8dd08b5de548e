//! What follows a commit: rings, orders to executors, publishing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hopyard_contract::message::{Control, GcTicket, MESSAGE_VERSION, Ticket};
use hopyard_contract::run::WorkspaceStatus;
use hopyard_contract::{AttemptId, Name, RunId, subject};
use hopyard_runtime::Bus;
use hopyard_runtime::bus::encode;
use hopyard_runtime::presence::Presence;
use hopyard_store::runs::OutboxMessage;

use crate::decide::Effect;
use crate::instruments;
use crate::outbox::Outbox;

/// Carries out effects once they are committed; everything here is a hint that may be lost.
#[derive(Clone)]
pub(crate) struct FollowUp {
    bus: Bus,
    presence: Presence,
    outbox: Outbox,
}

impl FollowUp {
    pub(crate) fn new(bus: Bus, presence: Presence, outbox: Outbox) -> Self {
        Self { bus, presence, outbox }
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Publishes a transaction's messages and carries out its effects. Says whether a slot was freed.
    pub(crate) async fn carry_out(&self, outbox_id: i64, messages: Vec<OutboxMessage>, effects: Vec<(RunId, Effect)>) -> bool {
        if !messages.is_empty() {
            self.outbox.publish(outbox_id, messages);
        }
        let mut pools: BTreeMap<Name, u32> = BTreeMap::new();
        let mut bound: BTreeSet<Name> = BTreeSet::new();
        let mut settled: BTreeMap<Name, Vec<AttemptId>> = BTreeMap::new();
        let mut slot_freed = false;
        for (run, effect) in effects {
            match effect {
                Effect::Ring(pool) => *pools.entry(pool).or_default() += 1,
                Effect::RingExecutor(executor) => {
                    bound.insert(executor);
                }
                Effect::Kill(executor, order) => self.bus.tell(&subject::ctl(&executor), &Control::Kill { run, order }).await,
                Effect::Settled(executor, attempt) => settled.entry(executor).or_default().push(attempt),
                Effect::Workspace(row) => {
                    if row.status == WorkspaceStatus::Reclaimable {
                        let ticket = GcTicket { v: MESSAGE_VERSION, host: row.host.clone(), workspace: row.id.clone() };
                        // Not awaited: the janitor also asks by itself.
                        drop(self.bus.publish(&subject::gc(&row.host), None, None, encode(&ticket)).await);
                    }
                }
                Effect::SlotFreed => slot_freed = true,
                Effect::Stale(kind) => instruments::stale().with_label_values(&[kind]).inc(),
            }
        }
        for (executor, attempts) in settled {
            self.bus.tell(&subject::ctl(&executor), &Control::Settled { attempts }).await;
        }
        for executor in bound {
            self.bus.tell(&subject::ctl(&executor), &Control::Ring).await;
        }
        for (pool, count) in pools {
            self.ring(&pool, u64::from(count)).await;
        }
        slot_freed
    }

    /// Sends at most as many tickets as free slots are known, at least one.
    pub(crate) async fn ring(&self, pool: &Name, claimable: u64) {
        ring(&self.bus, &self.presence, pool, claimable).await;
    }
}

/// Sends tickets to a pool: as many as there are claimable steps and, by the beats, free slots; at least 1, at most 64.
pub(crate) async fn ring(bus: &Bus, presence: &Presence, pool: &Name, claimable: u64) {
    let alive = presence.alive("executor", Duration::from_secs(15));
    let free: u64 =
        alive.iter().filter(|(beat, _)| beat.pool.as_ref() == Some(pool) && !beat.draining).map(|(beat, _)| u64::from(beat.free)).sum();
    let count = claimable.min(free.max(1)).min(64);
    instruments::tickets().with_label_values(&[pool.as_str()]).inc_by(count);
    let ticket = encode(&Ticket { v: MESSAGE_VERSION, pool: pool.clone() });
    for _ in 0..count {
        // The acknowledgement is not awaited: a lost ticket is rung again by the probe.
        drop(bus.publish(&subject::work(pool), None, None, ticket.clone()).await);
    }
}
