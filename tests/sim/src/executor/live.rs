//! A live attempt: its lease, how it stands with the schedulers, and its process.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hopyard_contract::AttemptId;
use hopyard_contract::message::{Grant, KillOrder};
use uuid::Uuid;

use super::Executor;
use crate::bugs::Bug;
use crate::clockwork::{Mailbox, Micros, S};
use crate::host::{Control, StepProcess};
use crate::world::World;

/// One live attempt.
pub(super) struct Live {
    pub(super) id: AttemptId,
    pub(super) token: Uuid,
    /// When the last answered claim or renewal was sent.
    renewed: Cell<Micros>,
    lease: Cell<Micros>,
    pub(super) process: RefCell<Option<Rc<StepProcess>>>,
    pub(super) kill: RefCell<Option<KillOrder>>,
    pub(super) stale: Cell<bool>,
    pub(super) settled: Cell<bool>,
    /// How it stands has changed.
    pub(super) changed: Mailbox<()>,
    /// What it has used so far.
    pub(super) used: Cell<u64>,
}

impl Executor {
    /// Takes a slot for a grant whose claim was sent at `sent`; `None` when the attempt is here already.
    pub(super) fn enter(&self, grant: &Grant, sent: Micros) -> Option<Rc<Live>> {
        let mut attempts = self.attempts.borrow_mut();
        if attempts.contains_key(&grant.attempt) {
            return None;
        }
        let live = Rc::new(Live {
            id: grant.attempt.clone(),
            token: grant.token,
            renewed: Cell::new(sent),
            lease: Cell::new(i64::try_from(grant.lease_ms).unwrap_or_default() * 1000),
            process: RefCell::default(),
            kill: RefCell::new(self.kill_of(grant.attempt.run)),
            stale: Cell::new(false),
            settled: Cell::new(false),
            changed: Mailbox::default(),
            used: Cell::new(0),
        });
        attempts.insert(grant.attempt.clone(), live.clone());
        self.free.set(self.free.get().saturating_sub(1));
        self.note_full();
        Some(live)
    }

    /// The tree is gone: its slot is free, though the attempt stays until it is settled.
    pub(super) fn free_slot(&self) {
        self.note_full();
        self.free.set(self.free.get() + 1);
        self.freed.send(());
        self.room.send(());
        self.ring.send(());
    }

    fn note_full(&self) {
        if self.free.get() == 0 {
            self.world.checks.borrow_mut().full_until = self.world.now();
        }
    }

    pub(super) fn leave(&self, id: &AttemptId) {
        self.attempts.borrow_mut().remove(id);
    }
}

impl Live {
    /// What is left of the lease.
    pub(super) fn left(&self, world: &World) -> Micros {
        (self.lease.get() - (world.now() - self.renewed.get())).max(0)
    }

    /// The process runs: what came before is told at once.
    pub(super) fn attach(&self, world: &World, process: &Rc<StepProcess>) {
        process.control.send(Control::Renew(self.left(world)));
        *self.process.borrow_mut() = Some(process.clone());
        let kill = self.kill.borrow().as_ref().map(|order| order.force);
        if let Some(force) = kill.or(self.stale.get().then_some(true)).filter(|_| !world.has(Bug::StartsAfterKill)) {
            process.control.send(Control::Kill { force });
        }
    }

    /// A renewal that was sent at `sent` was answered well.
    pub(super) fn renewed(&self, world: &World, sent: Micros) {
        self.renewed.set(sent);
        self.lease.set(world.lease());
        if let Some(process) = &*self.process.borrow() {
            process.control.send(Control::Renew(self.left(world)));
        }
    }

    pub(super) fn kill(&self, world: &Rc<World>, order: &KillOrder) {
        self.has_to_end(world, "I6 what is told to end ends");
        *self.kill.borrow_mut() = Some(order.clone());
        if world.has(Bug::KillIgnored) {
            return;
        }
        if let Some(process) = &*self.process.borrow() {
            process.control.send(Control::Kill { force: order.force });
        }
    }

    /// Its process, if it has one, is gone when its grace is over.
    fn has_to_end(&self, world: &Rc<World>, invariant: &'static str) {
        let Some(process) = self.process.borrow().clone() else { return };
        let own = world.clone();
        world.clock.later(S, move || {
            let goes_on = own.hosts.iter().any(|host| host.processes.borrow().contains_key(&process.attempt));
            own.checks.borrow_mut().hold(&own, !goes_on, invariant, || process.attempt.to_string());
        });
    }

    /// The lease is over.
    pub(super) fn stale(&self, world: &Rc<World>) {
        self.has_to_end(world, "I2 what is refused ends");
        self.stale.set(true);
        self.changed.send(());
        if let Some(process) = &*self.process.borrow()
            && !world.has(Bug::RefusalIgnored)
        {
            process.control.send(Control::Kill { force: true });
        }
    }

    pub(super) fn settled(&self) {
        self.settled.set(true);
        self.changed.send(());
    }
}
