//! What follows a commit — orders, rings, tickets — and the probe that rings again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hopyard_contract::message::Control;
use hopyard_contract::run::WorkspaceStatus;
use hopyard_contract::{AttemptId, Name, RunId};
use hopyard_scheduler::decide::Effect;
use hopyard_store::runs::RunStore as _;

use super::Scheduler;
use crate::bus::{Body, StreamId};
use crate::clockwork::{S, either};

impl Scheduler {
    /// Carries out effects; says whether a slot was freed.
    pub(super) fn carry_out(&self, effects: Vec<(RunId, Effect)>) -> bool {
        let bus = &self.world.bus;
        let (mut rings, mut bound, mut settled) = (0, BTreeSet::new(), BTreeMap::<Name, Vec<AttemptId>>::new());
        let mut slot_freed = false;
        for (run, effect) in effects {
            match effect {
                Effect::Ring(_) => rings += 1,
                Effect::RingExecutor(executor) => drop(bound.insert(executor)),
                Effect::Kill(executor, order) => bus.order(self.process, executor.as_str(), Control::Kill { run, order }),
                Effect::Settled(executor, attempt) => settled.entry(executor).or_default().push(attempt),
                Effect::Workspace(row) if row.status == WorkspaceStatus::Reclaimable => self.gc_ticket(&row.host, row.id.clone()),
                Effect::SlotFreed => slot_freed = true,
                Effect::Workspace(_) | Effect::Stale(_) => {}
            }
        }
        for (executor, attempts) in settled {
            bus.order(self.process, executor.as_str(), Control::Settled { attempts });
        }
        for executor in bound {
            bus.order(self.process, executor.as_str(), Control::Ring);
        }
        if rings > 0 {
            self.ring(rings);
        }
        slot_freed
    }

    fn gc_ticket(&self, host: &Name, workspace: String) {
        let index = self.world.hosts.iter().position(|known| known.name == *host);
        if let Some(index) = index {
            self.world.bus.hint(self.process, StreamId::Gc(index), Body::Gc(workspace));
        }
    }

    /// Sends as many tickets as there are claimable steps and free slots, at least one.
    pub(super) fn ring(&self, claimable: u64) {
        let free: u64 = self.fleet.borrow().slots(self.world.now()).map(|(free, _)| free).sum();
        for _ in 0..claimable.min(free.max(1)).min(64) {
            self.world.bus.hint(self.process, StreamId::Work, Body::Ticket);
        }
    }

    /// Rings again for what has been claimable for a while.
    pub(super) async fn probe_for_ever(&self) {
        let (world, clock) = (&self.world, &self.world.clock);
        let (mut rounds, mut pause) = (0u64, S);
        loop {
            if pause > S {
                either(clock.sleep(pause), async {
                    self.wake_probe.recv().await;
                    clock.sleep(S).await;
                })
                .await;
            } else {
                clock.sleep(pause).await;
            }
            self.wake_probe.clear();
            rounds += 1;
            let Ok(waiting) = world.store.claimable().await else {
                pause = S;
                continue;
            };
            let busy = self.fleet.borrow().slots(world.now()).any(|(free, slots)| free < slots);
            pause = if waiting.is_empty() && !busy { 30 * S } else { S };
            for entry in waiting {
                if entry.waited < Duration::from_millis(900) {
                    continue;
                }
                match entry.bound_to {
                    Some(executor) => world.bus.order(self.process, executor.as_str(), Control::Ring),
                    None => self.ring(entry.count),
                }
            }
            if rounds.is_multiple_of(30) {
                for row in world.store.workspaces(None, WorkspaceStatus::Reclaimable, 200).await.unwrap_or_default() {
                    self.gc_ticket(&row.host, row.id);
                }
                drop(world.store.retire().await);
            }
        }
    }
}
