//! The scheduler's process: the real transaction, with the loop around it.

mod fleet;
mod follow_up;
mod outbox;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use chrono::{DateTime, Utc};
use hopyard_contract::message::{AcceptReply, RpcError, SubmissionItem};
use hopyard_contract::run::RunState;
use hopyard_contract::submit::Verdict;
use hopyard_scheduler::budgets::Budgets;
use hopyard_scheduler::decide::{Effect, Input};
use hopyard_scheduler::request::{Answer, Request};
use hopyard_scheduler::round::{Committed, Desk, fail_runs, transact};
use hopyard_store::Error;
use hopyard_store::runs::RunStore as _;

use self::fleet::Fleet;
use self::outbox::Outbox;
use crate::bugs::{self, Bug};
use crate::bus::{Body, Delivery, Heard, StreamId};
use crate::clockwork::{First, MS, Mailbox, Micros, ProcessId, S, either, poll_once};
use crate::world::World;

/// Most inputs of one transaction.
const BATCH: usize = 500;
/// Longest wait for the next look at the clock.
pub(crate) const LONGEST: Micros = 30 * S;

/// One scheduler.
struct Scheduler {
    world: Rc<World>,
    index: usize,
    process: ProcessId,
    inbox: Mailbox<Work>,
    outbox: Outbox,
    fleet: RefCell<Fleet>,
    /// Earliest timer that a transaction has set since the last look.
    earliest: Cell<Option<Micros>>,
    reread: Cell<bool>,
    wake_probe: Mailbox<()>,
}

/// One thing to be decided, and who asked.
struct Work {
    request: Rc<Request>,
    from: From,
}

enum From {
    Asker(Heard),
    Stream(Delivery),
}

/// Starts a scheduler.
pub(crate) fn start(world: &Rc<World>, index: usize) {
    let process = world.schedulers[index];
    world.clock.start(process);
    world.awake_since.borrow_mut().insert(process, world.now());
    let own = Rc::new(Scheduler {
        world: world.clone(),
        index,
        process,
        inbox: Mailbox::default(),
        outbox: Outbox::default(),
        fleet: RefCell::new(Fleet::new(world, process)),
        earliest: Cell::new(None),
        reread: Cell::new(false),
        wake_probe: Mailbox::default(),
    });
    let ears = world.bus.listen(process);
    let (me, clock) = (own.clone(), &world.clock);
    clock.spawn(process, async move {
        loop {
            let heard = ears.recv().await;
            me.inbox.send(Work { request: heard.request.clone(), from: From::Asker(heard) });
        }
    });
    let me = own.clone();
    clock.spawn(process, async move {
        loop {
            for delivery in me.world.bus.fetch(process, StreamId::Result, 256).await {
                let Body::Reports(reports) = &delivery.body else { continue };
                me.inbox.send(Work { request: Rc::new(Request::Reports((**reports).clone())), from: From::Stream(delivery) });
            }
        }
    });
    let me = own.clone();
    clock.spawn(process, async move { me.feel_for_ever().await });
    let me = own.clone();
    clock.spawn(process, async move { me.commit_for_ever().await });
    let me = own.clone();
    clock.spawn(process, async move { me.sweep_for_ever().await });
    clock.spawn(process, async move { own.probe_for_ever().await });
}

impl Scheduler {
    /// Feels the bus.
    async fn feel_for_ever(&self) {
        let pulse = self.fleet.borrow().pulse();
        loop {
            if self.world.bus.connected(self.process) {
                pulse.felt(self.world.now(), self.world.lease() / 3);
            }
            self.world.clock.sleep((self.world.lease() / 8).min(S)).await;
        }
    }

    async fn commit_for_ever(&self) {
        let clock = &self.world.clock;
        let (mut look_at, mut wait) = (clock.now(), 0);
        loop {
            let left = (wait - (clock.now() - look_at)).max(0);
            let mut swept = false;
            let first = match either(self.inbox.recv(), either(clock.sleep(left), self.outbox.swept.recv())).await {
                First::Left(work) => Some(work),
                First::Right(First::Left(())) => None,
                First::Right(First::Right(())) => {
                    swept = true;
                    None
                }
            };
            self.fleet.borrow_mut().round_begins(&self.world, self.process);
            let mut batch: Vec<Work> = first.into_iter().collect();
            while batch.len() < BATCH
                && let Some(work) = self.inbox.try_recv()
            {
                batch.push(work);
            }
            let due = swept || clock.now() - look_at >= wait;
            self.commit(batch, due && !self.world.has(Bug::NoLookAtClock)).await;
            if due || self.reread.take() || clock.now() - look_at > S {
                wait = self.until_next_due().await;
                look_at = clock.now();
            } else if let Some(at) = self.earliest.take() {
                wait = wait.min((at - look_at).max(0));
            }
            if self.outbox.has_done() {
                wait = wait.min(clock.now() - look_at + 500 * MS);
            }
            self.fleet.borrow_mut().feel(&self.world, self.process);
        }
    }

    async fn until_next_due(&self) -> Micros {
        match self.world.store.next_due().await {
            Ok(Some(left)) => left.num_microseconds().unwrap_or_default().clamp(5 * MS, S),
            Ok(None) => LONGEST,
            Err(_) => 500 * MS,
        }
    }

    /// Commits a batch; what cannot be committed is halved until the culprit is alone.
    async fn commit(&self, batch: Vec<Work>, due: bool) {
        let mut open = vec![(batch, due)];
        while let Some((mut batch, due)) = open.pop() {
            for attempt in 0u32.. {
                match self.try_commit(&batch, due).await {
                    Ok(()) => break,
                    Err(error) if error.is_transient() => {
                        self.reply_early(&batch);
                        self.fleet.borrow_mut().broken(self.world.now());
                        if attempt >= 20 {
                            let unavailable = RpcError { code: "store_unavailable".to_owned(), detail: error.to_string() };
                            batch.iter().for_each(|work| self.refuse(work, &unavailable));
                            break;
                        }
                        self.world.clock.sleep((20 * MS) << attempt.min(5)).await;
                    }
                    Err(_) if batch.len() > 1 => {
                        let second = batch.split_off(batch.len() / 2);
                        open.push((second, due));
                        open.push((batch, false));
                        break;
                    }
                    Err(error) => {
                        self.world.checks.borrow_mut().refused(&self.world, &error, batch.first().map(|work| work.request.kind()));
                        self.set_aside(batch, &error).await;
                        break;
                    }
                }
            }
        }
    }

    async fn set_aside(&self, batch: Vec<Work>, error: &Error) {
        let Some(work) = batch.into_iter().next() else { return };
        match &work.from {
            From::Stream(delivery) => self.world.bus.ack(self.process, delivery),
            From::Asker(_) => self.refuse(&work, &RpcError { code: "engine_error".to_owned(), detail: error.to_string() }),
        }
        let committed = self.desk(async |desk| fail_runs(desk, &work.request, &error.to_string()).await).await;
        if let Ok(committed) = committed {
            self.follow(committed).await;
        }
    }

    /// Does something with what transactions are made with.
    async fn desk<T>(&self, with: impl AsyncFnOnce(&Desk<'_>) -> T) -> T {
        let bug = self.world.bug;
        let decide = move |state: &RunState, input: &Input, now: DateTime<Utc>| bugs::decision::decide(bug, state, input, now);
        let outlook = self.fleet.borrow().sight();
        let desk = Desk {
            store: &self.world.store,
            settings: self.world.settings,
            budgets: &Budgets::default(),
            outlook: &outlook,
            decide: &decide,
        };
        self.persist(with(&desk)).await
    }

    /// Asks again and again: locks and pauses of the store wake nobody.
    async fn persist<F: Future>(&self, future: F) -> F::Output {
        let mut future = Box::pin(future);
        let pulse = self.fleet.borrow().pulse();
        loop {
            pulse.at(self.world.now());
            let polled = poll_once(future.as_mut());
            self.world.look_at_commits(self.index);
            match polled {
                std::task::Poll::Ready(output) => return output,
                std::task::Poll::Pending => self.world.clock.sleep(self.world.fate.between(200, 4 * MS)).await,
            }
        }
    }

    async fn try_commit(&self, batch: &[Work], due: bool) -> Result<(), Error> {
        let world = &self.world;
        let mut requests: Vec<&Request> = Vec::with_capacity(batch.len());
        {
            let mut fleet = self.fleet.borrow_mut();
            for work in batch {
                fleet.hear(&work.request, world.now());
                requests.push(&work.request);
            }
        }
        let published = self.outbox.take_done();
        let outcome = self.desk(async |desk| transact(desk, &requests, due, published.clone()).await).await;
        let mut committed = match outcome {
            Ok(committed) => committed,
            Err(error) => {
                self.outbox.put_back(published);
                world.note("commit_failed", self.index as u64, || format!("by scheduler {}: {error}", self.index));
                return Err(error);
            }
        };
        for fault in &committed.faults {
            world.checks.borrow_mut().fault(world, fault.run, &fault.detail);
        }
        let answers = std::mem::take(&mut committed.answers);
        let said = batch.iter().map(|work| &*work.request).zip(answers.iter().map(|answered| &answered.answer));
        world.checks.borrow_mut().answered(world, said, &committed.writes);
        for (work, answered) in batch.iter().zip(answers) {
            for fault in &answered.faults {
                world.checks.borrow_mut().fault(world, fault.run, &fault.detail);
            }
            self.settle(work, Some(answered.answer));
        }
        self.follow(committed).await;
        Ok(())
    }

    /// A planted bug: submissions are answered although their commit has failed.
    fn reply_early(&self, batch: &[Work]) {
        if !self.world.has(Bug::ReplyBeforeCommit) {
            return;
        }
        for work in batch {
            let Request::Accept(accept) = &*work.request else { continue };
            let verdict = |item: &SubmissionItem| match item {
                SubmissionItem::Run(new) => Verdict::accepted(new.run_id),
                SubmissionItem::Done(verdict) => verdict.clone(),
                SubmissionItem::Rejected(errors) => Verdict::rejected(errors.clone()),
            };
            let submissions = accept.submissions.iter().map(|submission| submission.items.iter().map(verdict).collect()).collect();
            self.settle(work, Some(Answer::Accept(AcceptReply { submissions })));
        }
    }

    fn settle(&self, work: &Work, answer: Option<Answer>) {
        match (&work.from, answer) {
            (From::Asker(heard), Some(answer)) => self.world.bus.answer(self.process, heard, Ok(answer)),
            (From::Asker(_), None) => {}
            (From::Stream(delivery), _) => self.world.bus.ack(self.process, delivery),
        }
    }

    fn refuse(&self, work: &Work, error: &RpcError) {
        match &work.from {
            From::Asker(heard) => self.world.bus.answer(self.process, heard, Err(error.clone())),
            From::Stream(delivery) => self.world.bus.again(self.process, delivery, 5 * S),
        }
    }

    /// Does what a commit leaves to be done.
    async fn follow(&self, committed: Committed) {
        let Committed { writes, effects, at, .. } = committed;
        let left = |timer: DateTime<Utc>| (timer - at).num_microseconds().unwrap_or_default().max(0);
        let timers = writes.runs.iter().filter_map(|write| write.timer.flatten()).map(|timer| self.world.now() + left(timer));
        self.earliest.set(self.earliest.get().into_iter().chain(timers).min());
        if writes.runs.iter().any(|write| write.run.status.is_final()) {
            self.reread.set(true);
        }
        let claimable = effects.iter().any(|(_, effect)| matches!(effect, Effect::Ring(_) | Effect::RingExecutor(_)));
        if !writes.outbox.is_empty() {
            self.publish(writes.outbox_id, writes.outbox);
        }
        let freed = self.carry_out(effects);
        if claimable || freed {
            self.wake_probe.send(());
        }
        if freed {
            for entry in self.world.store.claimable().await.unwrap_or_default() {
                if entry.bound_to.is_none() {
                    self.ring(entry.count);
                }
            }
        }
    }
}
