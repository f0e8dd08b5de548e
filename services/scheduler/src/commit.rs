//! The group-commit loop: whatever waits becomes one transaction; answers and effects follow the commit.

use std::sync::Arc;
use std::time::Duration;

use hopyard_contract::message::RpcError;
use hopyard_contract::submit::VerdictStatus;
use hopyard_runtime::Context;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::presence::Presence;
use hopyard_store::Error as StoreError;
use hopyard_store::runs::RunStore;
use tokio::sync::{Notify, mpsc};

use crate::budgets::Budgets;
use crate::decide::{Effect, decide};
use crate::fleet::Fleet;
use crate::follow_up::FollowUp;
use crate::inbox::{From, Work};
use crate::instruments;
use crate::pulse::Pulse;
use crate::request::{Answer, Request};
use crate::round::{Answered, Committed, Desk, fail_runs, transact};
use crate::settings::Settings;

/// Most inputs of one transaction.
const BATCH: usize = 500;
/// Longest wait for the next look at the clock.
const LONGEST: Duration = Duration::from_secs(30);
/// Longest wait for a transaction that deletes published rows of the outbox.
const CLEAN: Duration = Duration::from_millis(500);

/// Starts the loop.
pub(crate) fn start(
    ctx: &Context,
    store: Arc<dyn RunStore>,
    presence: Presence,
    follow_up: FollowUp,
    works: mpsc::Receiver<Work>,
    settings: Settings,
    budgets: Budgets,
) -> Arc<Notify> {
    let wake_probe = Arc::new(Notify::new());
    let committer = Committer {
        store,
        bus: ctx.bus.clone(),
        fleet: Fleet::new(presence, Pulse::start(ctx, settings.lease.std())),
        follow_up,
        settings,
        budgets,
        earliest: None,
        reread: false,
        wake_probe: wake_probe.clone(),
    };
    let (stop, readiness) = (ctx.tasks.stopping().clone(), ctx.readiness.clone());
    ctx.tasks.spawn("commit", async move {
        committer.run(works, &readiness).await;
        stop.cancel();
        Ok(())
    });
    wake_probe
}

struct Committer {
    store: Arc<dyn RunStore>,
    bus: hopyard_runtime::Bus,
    fleet: Fleet,
    follow_up: FollowUp,
    settings: Settings,
    budgets: Budgets,
    /// Earliest timer that a transaction has set since the last look.
    earliest: Option<BootInstant>,
    /// Whether the next due time has to be read again.
    reread: bool,
    wake_probe: Arc<Notify>,
}

impl Committer {
    async fn run(mut self, mut works: mpsc::Receiver<Work>, readiness: &hopyard_runtime::admin::Readiness) {
        let mut look_at = BootInstant::now();
        let mut wait = Duration::ZERO;
        loop {
            readiness.tick("commit", LONGEST);
            let mut swept = false;
            let first = tokio::select! {
                biased;
                // Once the ears are closed and everything they heard is answered, another scheduler, or none, takes over.
                work = works.recv() => match work { Some(work) => Some(work), None => return },
                () = tokio::time::sleep(wait.saturating_sub(look_at.elapsed())) => None,
                () = self.follow_up.outbox().swept() => {
                    swept = true;
                    None
                }
            };
            self.fleet.pulse.round_begins();
            let mut batch: Vec<Work> = first.into_iter().collect();
            while batch.len() < BATCH
                && let Ok(work) = works.try_recv()
            {
                batch.push(work);
            }
            let due = swept || look_at.elapsed() >= wait;
            self.commit(batch, due).await;
            if due || std::mem::take(&mut self.reread) || look_at.elapsed() > Duration::from_secs(1) {
                wait = self.until_next_due().await;
                look_at = BootInstant::now();
            } else if let Some(at) = self.earliest.take() {
                // A new timer may lie before the one that is waited for.
                wait = wait.min(look_at.until(at));
            }
            if self.follow_up.outbox().has_done() {
                wait = wait.min(look_at.elapsed() + CLEAN);
            }
            self.fleet.pulse.round_ends();
        }
    }

    /// Time until something is due: re-read after each look, every second while anything is leased, else every 30 s.
    async fn until_next_due(&self) -> Duration {
        match self.store.next_due().await {
            Ok(Some(left)) => left.to_std().unwrap_or_default().clamp(Duration::from_millis(5), Duration::from_secs(1)),
            Ok(None) => LONGEST,
            Err(error) => {
                tracing::warn!(%error, "the next due time could not be read");
                Duration::from_millis(500)
            }
        }
    }

    /// Commits a batch; connection losses are retried, and a batch that cannot be committed is halved until the culprit is alone.
    async fn commit(&mut self, batch: Vec<Work>, due: bool) {
        let mut open = vec![(batch, due)];
        while let Some((batch, due)) = open.pop() {
            for attempt in 0u32.. {
                match self.try_commit(&batch, due).await {
                    Ok(()) => break,
                    Err(error) if error.is_transient() => {
                        self.fleet.pulse.broken("a commit failed");
                        instruments::commits().with_label_values(&["retried"]).inc();
                        tracing::warn!(%error, attempt, inputs = batch.len(), "the transaction is tried again");
                        // Those who asked have given up after a few seconds; reports stay in their stream.
                        if attempt >= 20 {
                            let unavailable = RpcError { code: "store_unavailable".to_owned(), detail: error.to_string() };
                            for work in &batch {
                                work.refuse(&unavailable).await;
                            }
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(20 << attempt.min(5))).await;
                    }
                    Err(error) if batch.len() > 1 => {
                        tracing::warn!(%error, inputs = batch.len(), "the transaction is halved");
                        let mut first = batch;
                        let second = first.split_off(first.len() / 2);
                        open.push((second, due));
                        open.push((first, false));
                        break;
                    }
                    Err(error) => {
                        self.set_aside(batch, &error).await;
                        break;
                    }
                }
            }
        }
    }

    /// One request that the store will not take: it is refused or kept as a dead letter, and its runs end with `engine_error`.
    async fn set_aside(&mut self, batch: Vec<Work>, error: &StoreError) {
        instruments::commits().with_label_values(&["refused"]).inc();
        let Some(work) = batch.into_iter().next() else {
            tracing::error!(%error, "what is due cannot be committed");
            return;
        };
        tracing::error!(%error, kind = work.request.kind(), "an input cannot be committed");
        self.refuse_for_good(&work, &error.to_string()).await;
        match fail_runs(&self.desk(), &work.request, &error.to_string()).await {
            Ok(committed) => self.follow(committed).await,
            Err(error) => tracing::error!(%error, kind = work.request.kind(), "its runs could not be ended either"),
        }
    }

    async fn refuse_for_good(&self, work: &Work, detail: &str) {
        match &work.from {
            From::Stream(delivery) => crate::reports::set_aside(&self.bus, delivery, "engine_error", detail).await,
            From::Asker(_) => work.refuse(&RpcError { code: "engine_error".to_owned(), detail: detail.to_owned() }).await,
        }
    }

    fn desk(&self) -> Desk<'_> {
        Desk { store: self.store.as_ref(), settings: self.settings, budgets: &self.budgets, outlook: &self.fleet, decide: &decide }
    }

    async fn try_commit(&mut self, batch: &[Work], due: bool) -> Result<(), StoreError> {
        let began = BootInstant::now();
        hopyard_runtime::failpoint!("scheduler.batch.taken");
        let mut requests = Vec::with_capacity(batch.len());
        for work in batch {
            instruments::inputs().with_label_values(&[work.request.kind()]).inc();
            self.fleet.hear(&work.request);
            requests.push(&work.request);
        }
        let published = self.follow_up.outbox().take_done();
        let had_published = !published.is_empty();
        let mut committed = match transact(&self.desk(), &requests, due, published.clone()).await {
            Ok(committed) => committed,
            Err(error) => {
                self.follow_up.outbox().put_back(published);
                return Err(error);
            }
        };
        hopyard_runtime::failpoint!("scheduler.commit.after");
        if had_published {
            hopyard_runtime::failpoint!("outbox.deleted");
        }
        instruments::commits().with_label_values(&["committed"]).inc();
        instruments::commit_seconds().with_label_values::<&str>(&[]).observe(began.elapsed().as_secs_f64());
        hopyard_runtime::failpoint!("scheduler.reply.before");
        for (work, answered) in batch.iter().zip(std::mem::take(&mut committed.answers)) {
            count(&answered);
            match answered.faults.first() {
                // Of many leases or submissions only the one is affected, and its answer says so.
                Some(fault) if matches!(work.request, Request::Reports(_) | Request::Kill(_)) => {
                    self.refuse_for_good(work, &fault.detail).await;
                }
                _ => work.settle(answered.answer).await,
            }
        }
        hopyard_runtime::failpoint!("scheduler.replies.sent");
        self.follow(committed).await;
        Ok(())
    }

    /// Does what a commit leaves to be done.
    async fn follow(&mut self, committed: Committed) {
        let Committed { writes, effects, at, .. } = committed;
        // Timers are times of the store: this machine's own clock may be another one.
        let timers = writes.runs.iter().filter_map(|w| w.timer.flatten()).map(|timer| (timer - at).to_std().unwrap_or_default());
        self.earliest = self.earliest.into_iter().chain(timers.map(|left| BootInstant::now().after(left))).min();
        // The end of a run may have made others due at once.
        self.reread |= writes.runs.iter().any(|w| w.run.status.is_final());
        let claimable = effects.iter().any(|(_, e)| matches!(e, Effect::Ring(_) | Effect::RingExecutor(_)));
        let freed = self.follow_up.carry_out(writes.outbox_id, writes.outbox, effects).await;
        hopyard_runtime::failpoint!("scheduler.effects.sent");
        if claimable || freed {
            self.wake_probe.notify_one();
        }
        if freed {
            self.ring_waiters().await;
        }
    }

    /// A freed slot lets waiting runs go on: their pools are rung at once.
    async fn ring_waiters(&self) {
        for entry in self.store.claimable().await.unwrap_or_default() {
            if entry.bound_to.is_none() {
                self.follow_up.ring(&entry.pool, entry.count).await;
            }
        }
    }
}

/// Counts committed verdicts and failed decisions.
fn count(answered: &Answered) {
    instruments::faults().with_label_values::<&str>(&[]).inc_by(answered.faults.len() as u64);
    let Answer::Accept(reply) = &answered.answer else { return };
    for verdict in reply.submissions.iter().flatten() {
        let label = match verdict.status {
            VerdictStatus::Accepted => "accepted",
            VerdictStatus::Duplicate => "duplicate",
            VerdictStatus::Rejected => "rejected",
        };
        instruments::submissions().with_label_values(&[label]).inc();
    }
}
