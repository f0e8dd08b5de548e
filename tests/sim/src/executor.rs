//! The executor's process: claims, renewals, orders, reports and recovery, by the rules of the real one.

mod attempt;
mod leases;
mod live;
mod shim;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use hopyard_contract::message::{Beat, Claim, Control, Hello, KillOrder, Report, Reports};
use hopyard_contract::{AttemptId, Name, RunId};
use hopyard_scheduler::request::{Answer, Request};

pub(crate) use self::attempt::REPEAT;
use self::live::Live;
use crate::bugs::Bug;
use crate::bus::{Body, CallError, StreamId};
use crate::clockwork::{First, MS, Mailbox, Micros, ProcessId, S, either};
use crate::host::Host;
use crate::world::World;

/// Claims without any ticket.
pub(crate) const EVERY: Micros = 30 * S;
/// A claim that nobody answers is repeated with the same id for this long.
pub(crate) const PATIENCE: Micros = 10 * S;
/// Most reports of one message.
const BATCH: usize = 64;
/// A kill of an unknown run is remembered this long.
const REMEMBERED: Micros = 60 * S;

/// One executor, from its start to its end.
struct Executor {
    world: Rc<World>,
    index: usize,
    process: ProcessId,
    name: Name,
    free: Cell<u32>,
    freed: Mailbox<()>,
    room: Mailbox<()>,
    ring: Mailbox<()>,
    reports: Mailbox<Report>,
    attempts: RefCell<BTreeMap<AttemptId, Rc<Live>>>,
    killed: RefCell<BTreeMap<RunId, (KillOrder, Micros)>>,
}

/// Starts an executor on its machine: leftovers of the one before are ended first.
pub(crate) fn start(world: &Rc<World>, index: usize) {
    let process = world.executors[index];
    world.clock.start(process);
    let own = Rc::new(Executor {
        world: world.clone(),
        index,
        process,
        name: world.executor_name(index),
        free: Cell::new(world.weather.slots),
        freed: Mailbox::default(),
        room: Mailbox::default(),
        ring: Mailbox::default(),
        reports: Mailbox::default(),
        attempts: RefCell::default(),
        killed: RefCell::default(),
    });
    own.recover();
    let orders = world.bus.hear_orders(process, own.name.as_str());
    let clock = &world.clock;
    let me = own.clone();
    clock.spawn(process, async move {
        while me.hello().await.is_err() {
            me.world.clock.sleep(300 * MS).await;
        }
        me.ring.send(());
    });
    let me = own.clone();
    clock.spawn(process, async move {
        loop {
            me.on_order(orders.recv().await);
        }
    });
    let me = own.clone();
    clock.spawn(process, async move { me.renew_for_ever().await });
    let me = own.clone();
    clock.spawn(process, async move { me.take_tickets().await });
    let me = own.clone();
    clock.spawn(process, async move { me.claim_for_ever().await });
    let me = own.clone();
    clock.spawn(process, async move { me.report_for_ever().await });
    clock.spawn(process, async move {
        loop {
            own.world.bus.beat(process, &own.beat());
            own.world.clock.sleep(5 * S).await;
        }
    });
}

impl Executor {
    fn host(&self) -> &Host {
        &self.world.hosts[self.index]
    }

    fn beat(&self) -> Beat {
        Beat {
            kind: "executor".to_owned(),
            id: self.name.clone(),
            host: self.host().name.clone(),
            pool: Some(Name::default_pool()),
            slots: self.world.weather.slots,
            free: self.free.get(),
            claimed_ms_ago: None,
            draining: false,
            version: String::new(),
            disk_free: 0,
            frozen: 0,
            outbox_ms: 0,
        }
    }

    async fn hello(&self) -> Result<(), CallError> {
        let workspaces = self.host().workspaces.borrow().values().map(|directory| directory.owner.clone()).collect();
        let hello = Hello {
            executor: self.name.clone(),
            incarnation: self.world.uuid(),
            host: self.host().name.clone(),
            pool: Name::default_pool(),
            slots: self.world.weather.slots,
            version: String::new(),
            workspaces,
            draining: false,
        };
        self.world.bus.call(self.process, Request::Hello(hello)).await.map(drop)
    }

    fn on_order(&self, order: Control) {
        match order {
            Control::Kill { run, order } => {
                self.killed.borrow_mut().insert(run, (order.clone(), self.world.now()));
                let attempts: Vec<_> = self.attempts.borrow().values().filter(|live| live.id.run == run).cloned().collect();
                attempts.iter().for_each(|live| live.kill(&self.world, &order));
            }
            Control::Ring => self.ring.send(()),
            Control::Settled { attempts } => {
                for id in attempts {
                    if let Some(live) = self.attempts.borrow().get(&id) {
                        live.settled();
                    }
                }
            }
            Control::Drain => {}
        }
    }

    /// A kill of the run that came before its attempt.
    fn kill_of(&self, run: RunId) -> Option<KillOrder> {
        let now = self.world.now();
        self.killed.borrow().get(&run).filter(|(_, at)| now - at < REMEMBERED).map(|(order, _)| order.clone())
    }

    async fn take_tickets(&self) {
        loop {
            while self.free.get() == 0 {
                self.room.recv().await;
            }
            for ticket in self.world.bus.fetch(self.process, StreamId::Work, 1).await {
                self.world.bus.ack(self.process, &ticket);
                self.ring.send(());
            }
        }
    }

    async fn claim_for_ever(self: &Rc<Self>) {
        let clock = &self.world.clock;
        let mut reconnects = self.world.bus.reconnects(self.process);
        let mut more = true;
        loop {
            if !more {
                // A reconnect is noticed within a second, and all rings that wait are one.
                let until = clock.now() + EVERY;
                while clock.now() < until {
                    if let First::Left(()) = either(self.ring.recv(), clock.sleep((until - clock.now()).min(S))).await {
                        break;
                    }
                    let now = self.world.bus.reconnects(self.process);
                    if now != reconnects && self.world.bus.connected(self.process) {
                        reconnects = now;
                        drop(self.hello().await);
                        break;
                    }
                }
                self.ring.clear();
            }
            while self.free.get() == 0 {
                self.freed.recv().await;
            }
            more = self.claim().await;
        }
    }

    /// One claim, repeated until it is answered; says whether there is more.
    async fn claim(self: &Rc<Self>) -> bool {
        let world = &self.world;
        let claim = Claim {
            claim_id: world.uuid(),
            executor: self.name.clone(),
            host: self.host().name.clone(),
            pool: Name::default_pool(),
            free: self.free.get(),
        };
        let began = world.now();
        loop {
            // Repeats get the leases of the first try, which are as old as that.
            let sent = if world.has(Bug::AgeFromLastTry) { world.now() } else { began };
            match world.bus.call(self.process, Request::Claim(claim.clone())).await {
                Ok(Answer::Claim(reply)) => {
                    let sent = if world.has(Bug::AgeFromAnswer) { world.now() } else { sent };
                    for grant in reply.grants {
                        if let Some(live) = self.enter(&grant, sent) {
                            self.carry_out(grant, live);
                        }
                    }
                    return reply.more;
                }
                Ok(_) => return false,
                Err(_) if world.now() - began > PATIENCE => return false,
                Err(CallError::Nobody | CallError::Refused) => world.clock.sleep(250 * MS).await,
                Err(CallError::Unknown) => {}
            }
        }
    }

    /// Publishes reports in order, each until the stream has it.
    async fn report_for_ever(&self) {
        loop {
            let mut reports = vec![self.reports.recv().await];
            while reports.len() < BATCH
                && let Some(report) = self.reports.try_recv()
            {
                reports.push(report);
            }
            let body = Rc::new(Reports { v: 1, from: self.name.clone(), reports });
            let mut pause = 50 * MS;
            while self.world.bus.publish(self.process, StreamId::Result, Body::Reports(body.clone())).await.is_err() {
                self.world.clock.sleep(pause).await;
                pause = (pause * 2).min(5 * S);
            }
        }
    }
}
