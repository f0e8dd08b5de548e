//! The group-commit loop: whatever waits becomes one transaction; answers and effects follow the commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hopyard_contract::event::{Event, EventPage};
use hopyard_contract::message::RpcError;
use hopyard_contract::run::RunState;
use hopyard_contract::{Name, RunId, subject};
use hopyard_runtime::Context;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::presence::Presence;
use hopyard_store::Error as StoreError;
use hopyard_store::runs::{OutboxMessage, RunStore, RunTx, RunWrite, Writes};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::decide::{Decision, Effect, Input, Reply, decide};
use crate::follow_up::FollowUp;
use crate::inbox::Work;
use crate::instruments;
use crate::settings::Settings;

mod accept;
mod apply;
mod executors;
mod inventory;
mod sessions;
mod supersede;
mod ticks;

/// Most inputs of one transaction.
const BATCH: usize = 500;
/// Longest wait for the next look at the clock.
const LONGEST: Duration = Duration::from_secs(30);

/// Starts the loop.
pub(crate) fn start(
    ctx: &Context,
    store: Arc<dyn RunStore>,
    presence: Presence,
    follow_up: FollowUp,
    works: mpsc::Receiver<Work>,
    settings: Settings,
) -> Arc<Notify> {
    let wake_probe = Arc::new(Notify::new());
    let committer = Committer {
        store,
        bus: ctx.bus.clone(),
        presence,
        follow_up,
        settings,
        executors: HashMap::new(),
        healthy_since: BootInstant::now(),
        reconnects: 0,
        earliest: None,
        reread: false,
        wake_probe: wake_probe.clone(),
    };
    let (stop, drain, readiness) = (ctx.tasks.stopping().clone(), ctx.tasks.draining().clone(), ctx.readiness.clone());
    ctx.tasks.spawn("commit", async move {
        committer.run(works, &drain, &readiness).await;
        stop.cancel();
        Ok(())
    });
    wake_probe
}

/// What is known of an executor beside the store.
#[derive(Clone, Debug)]
struct Known {
    /// Last hello, claim or renewal.
    seen: BootInstant,
    draining: bool,
}

struct Committer {
    store: Arc<dyn RunStore>,
    bus: hopyard_runtime::Bus,
    presence: Presence,
    follow_up: FollowUp,
    settings: Settings,
    executors: HashMap<Name, Known>,
    /// Since when the loop has been connected and committing without a gap.
    healthy_since: BootInstant,
    reconnects: u64,
    /// Earliest timer that a transaction has set since the last look.
    earliest: Option<DateTime<Utc>>,
    /// Whether the next due time has to be read again.
    reread: bool,
    wake_probe: Arc<Notify>,
}

/// One transaction in the making.
struct Round {
    now: DateTime<Utc>,
    states: BTreeMap<RunId, Loaded>,
    effects: Vec<(RunId, Effect)>,
    writes: Writes,
    /// Slots by key with those who hold them, this transaction's changes included.
    slots: HashMap<String, BTreeSet<RunId>>,
}

/// A run as it was read and as it shall be.
struct Loaded {
    before: Option<RunState>,
    after: RunState,
    events: Vec<Event>,
}

impl Committer {
    async fn run(mut self, mut works: mpsc::Receiver<Work>, drain: &CancellationToken, readiness: &hopyard_runtime::admin::Readiness) {
        let mut look_at = BootInstant::now();
        let mut wait = Duration::ZERO;
        loop {
            readiness.tick("commit", LONGEST);
            let mut swept = false;
            let first = tokio::select! {
                biased;
                work = works.recv() => match work { Some(work) => Some(work), None => return },
                () = tokio::time::sleep(wait.saturating_sub(look_at.elapsed())) => None,
                () = self.follow_up.outbox().swept() => {
                    swept = true;
                    None
                }
                () = drain.cancelled() => {
                    // Whatever has been asked is answered; then another scheduler, or none, takes over.
                    works.close();
                    match works.recv().await { Some(work) => Some(work), None => return }
                }
            };
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
                wait = wait.min(look_at.elapsed() + (at - Utc::now()).to_std().unwrap_or_default());
            }
        }
    }

    /// Time until something is due: re-read after each look, every second while anything is leased, else every 30 s.
    async fn until_next_due(&mut self) -> Duration {
        match self.store.next_due().await {
            Ok(Some(at)) => {
                (at - Utc::now()).to_std().unwrap_or(Duration::from_millis(5)).clamp(Duration::from_millis(5), Duration::from_secs(1))
            }
            Ok(None) if self.follow_up.outbox().has_done() => Duration::from_millis(500),
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
                        self.healthy_since = BootInstant::now();
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
                        instruments::commits().with_label_values(&["refused"]).inc();
                        tracing::error!(%error, kind = batch.first().map(Work::kind), "an input cannot be committed");
                        let fault = RpcError { code: "engine_error".to_owned(), detail: error.to_string() };
                        for work in &batch {
                            match work {
                                Work::Reports(delivery, _) => {
                                    crate::ears::set_aside(&self.bus, delivery, "engine_error", &fault.detail).await
                                }
                                work => work.refuse(&fault).await,
                            }
                        }
                        break;
                    }
                }
            }
        }
    }

    async fn try_commit(&mut self, batch: &[Work], due: bool) -> Result<(), StoreError> {
        let began = BootInstant::now();
        let mut tx = self.store.begin().await?;
        let mut round = self.open_round(tx.as_mut(), batch).await?;
        let mut answers = Vec::with_capacity(batch.len());
        for work in batch {
            instruments::inputs().with_label_values(&[work.kind()]).inc();
            answers.push(self.apply(tx.as_mut(), &mut round, work).await?);
        }
        if due {
            self.look_at_clock(tx.as_mut(), &mut round).await?;
        }
        round.close();
        let published = self.follow_up.outbox().take_done();
        round.writes.published = published.clone();
        let written = if round.writes.is_empty() { Ok(()) } else { tx.write(&round.writes).await };
        // Committed even when nothing was written: that gives the locks back at once.
        let outcome = match written {
            Ok(()) => tx.commit().await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            self.follow_up.outbox().put_back(published);
            return Err(error);
        }
        instruments::commits().with_label_values(&["committed"]).inc();
        instruments::commit_seconds().with_label_values::<&str>(&[]).observe(began.elapsed().as_secs_f64());
        for (work, answer) in batch.iter().zip(answers) {
            work.settle(answer).await;
        }
        let Round { writes, effects, .. } = round;
        let timers = writes.runs.iter().filter_map(|w| w.timer.flatten());
        self.earliest = self.earliest.into_iter().chain(timers).min();
        // The end of a run may have made others due at once.
        self.reread |= writes.runs.iter().any(|w| w.run.status.is_final());
        let claimable = effects.iter().any(|(_, e)| matches!(e, Effect::Ring(_) | Effect::RingExecutor(_)));
        let freed = self.follow_up.carry_out(writes.outbox_id, writes.outbox, effects).await;
        if claimable || freed {
            self.wake_probe.notify_one();
        }
        if freed {
            self.ring_waiters().await;
        }
        Ok(())
    }

    /// A freed slot lets waiting runs go on: their pools are rung at once.
    async fn ring_waiters(&self) {
        for entry in self.store.claimable().await.unwrap_or_default() {
            if entry.bound_to.is_none() {
                self.follow_up.ring(&entry.pool, entry.count).await;
            }
        }
    }

    /// Locks and loads every run that the batch names, in order of id.
    async fn open_round(&self, tx: &mut dyn RunTx, batch: &[Work]) -> Result<Round, StoreError> {
        let mut ids = BTreeSet::new();
        for work in batch {
            apply::named_runs(work, &mut ids);
        }
        let ids: Vec<RunId> = ids.into_iter().collect();
        let loaded = if ids.is_empty() { Vec::new() } else { tx.load(&ids).await? };
        let now = tx.now().await?;
        let mut round = Round { now, states: BTreeMap::new(), effects: Vec::new(), writes: Writes::default(), slots: HashMap::new() };
        round.take(loaded);
        Ok(round)
    }
}

impl Round {
    fn take(&mut self, loaded: Vec<RunState>) {
        for state in loaded {
            self.states.entry(state.run.id).or_insert_with(|| Loaded { before: Some(state.clone()), after: state, events: Vec::new() });
        }
    }

    fn state(&self, id: RunId) -> Option<&RunState> {
        self.states.get(&id).map(|l| &l.after)
    }

    /// Decides an input on a loaded run; `None` when the run is not known.
    fn decide(&mut self, id: RunId, input: &Input) -> Option<Reply> {
        let loaded = self.states.get_mut(&id)?;
        let decision = decide(&loaded.after, input, self.now);
        Some(self.keep(id, decision))
    }

    fn keep(&mut self, id: RunId, decision: Decision) -> Reply {
        let loaded = self.states.entry(id).or_insert_with(|| Loaded { before: None, after: decision.next.clone(), events: Vec::new() });
        loaded.after = decision.next;
        loaded.events.extend(decision.events);
        for effect in decision.effects {
            if let Effect::Workspace(row) = &effect {
                self.writes.workspaces.retain(|other| other.id != row.id);
                self.writes.workspaces.push((**row).clone());
            }
            self.effects.push((id, effect));
        }
        decision.reply
    }

    /// Turns what changed into writes, and events into one page per run and one outbox row.
    fn close(&mut self) {
        for (id, loaded) in std::mem::take(&mut self.states) {
            let Loaded { before, after, events } = loaded;
            if before.as_ref() == Some(&after) && events.is_empty() {
                continue;
            }
            if !events.is_empty() {
                let kinds: Vec<&str> = events.iter().map(|e| e.kind.as_str()).collect();
                let page = EventPage { v: 1, run_id: id, events: events.clone() };
                self.writes.outbox.push(OutboxMessage {
                    subject: subject::event(&after.run.namespace, id),
                    id: events[0].id.clone(),
                    kind: Some(kinds.join(",")),
                    body: serde_json::to_value(&page).expect("a page has string keys"),
                });
            }
            self.writes.runs.push(difference(before.as_ref(), after, events));
        }
        if !self.writes.outbox.is_empty() {
            // Unique without asking the store: the time in microseconds and ten random bits.
            let random = i64::from(uuid::Uuid::new_v4().as_bytes()[0]) << 2;
            self.writes.outbox_id = (self.now.timestamp_micros() << 10) | random | 1;
        }
    }
}

fn difference(before: Option<&RunState>, after: RunState, events: Vec<Event>) -> RunWrite {
    let changed_step = |i: usize| before.is_none_or(|b| b.steps.get(i) != after.steps.get(i));
    let changed_attempt = |i: usize| before.is_none_or(|b| b.attempts.get(i) != after.attempts.get(i));
    let steps = (0..after.steps.len())
        .filter(|i| changed_step(*i))
        .map(|i| (u32::try_from(i).unwrap_or(u32::MAX), after.steps[i].clone()))
        .collect();
    let attempts = (0..after.attempts.len()).filter(|i| changed_attempt(*i)).map(|i| after.attempts[i].clone()).collect();
    let timer = match before {
        Some(before) if before.timer == after.timer => None,
        None if after.timer.is_none() => None,
        _ => Some(after.timer),
    };
    RunWrite { new: before.is_none(), run: after.run, steps, attempts, events, timer }
}
