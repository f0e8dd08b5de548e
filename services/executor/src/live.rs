//! The attempts of this executor: leases, kill orders and processes, and how many slots are free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hopyard_contract::message::{Allowance, Grant, KillOrder, Outcome};
use hopyard_contract::{AttemptId, RunId, Usage};
use hopyard_runtime::bounds;
use hopyard_runtime::clock::BootInstant;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::instruments::{self, Frozen};
use crate::process::StepProcess;

/// A kill of an unknown run is remembered this long, because its claim may be on its way.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Kills of unknown runs that are remembered at once.
const MOST_KILLS: usize = 4096;
/// Name of the set of them on `/metrics`.
const KILLS: &str = "kills";

/// Attempts that may be here at once. A slot is free when the tree is gone, but the attempt stays until its result is
/// settled: while blobs or schedulers are away, those that wait must not become more and more.
fn most(slots: u32) -> usize {
    slots as usize * 4 + 64
}

/// All live attempts.
pub(crate) struct Live {
    state: Arc<Mutex<State>>,
    slots: u32,
    free: watch::Sender<u32>,
    pace: watch::Sender<Pace>,
    renew: Arc<Notify>,
}

/// How leases are kept, as the scheduler says in its answer to hello.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Length of a lease.
    pub(crate) lease: Duration,
    /// Time between renewals.
    pub(crate) renew: Duration,
}

struct State {
    /// Slots that are taken: by attempts whose tree is not gone.
    taken: u32,
    attempts: HashMap<AttemptId, Arc<Attempt>>,
    killed: HashMap<RunId, (KillOrder, BootInstant)>,
    claimed: Option<BootInstant>,
}

/// One live attempt.
pub(crate) struct Attempt {
    pub(crate) id: AttemptId,
    pub(crate) token: Uuid,
    inner: Mutex<Inner>,
    lease: watch::Sender<Held>,
    allowance: watch::Sender<Option<Allowance>>,
    changed: watch::Sender<Standing>,
    /// Rings for a renewal before its time.
    renew: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    process: Option<StepProcess>,
    /// What was used so far.
    usage: Usage,
    /// Counts the attempt as held still while it waits for its lease without a process.
    frozen: Option<Frozen>,
}

/// The lease of an attempt by the executor's own count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// When the last answered claim or renewal was sent: the age of the lease.
    sent: BootInstant,
    length: Duration,
}

impl Held {
    /// The whole length.
    pub(crate) fn length(self) -> Duration {
        self.length
    }

    /// What is left of it.
    pub(crate) fn left(self) -> Duration {
        self.length.saturating_sub(self.sent.elapsed())
    }

    /// Another executor may act as soon as the lease is over, so the last third of it is too short to begin anything in.
    pub(crate) fn is_overdue(self) -> bool {
        self.left() < self.length / 3
    }
}

/// How an attempt stands with the scheduler.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// The run shall end.
    pub(crate) kill: Option<KillOrder>,
    /// The lease is over; nothing more counts.
    pub(crate) stale: bool,
    /// The result is committed.
    pub(crate) settled: bool,
    /// The executor drains and gives the attempt back.
    pub(crate) hand_back: bool,
    /// Nothing of it runs any more, and its work is kept.
    pub(crate) closed: bool,
}

impl Live {
    pub(crate) fn new(slots: u32) -> Self {
        let state = State {
            taken: 0,
            attempts: HashMap::new(),
            killed: HashMap::new(),
            // Whoever has just started has not failed to claim.
            claimed: Some(BootInstant::now()),
        };
        let pace = Pace { lease: Duration::from_secs(20), renew: Duration::from_secs(5) };
        let live = Self {
            state: Arc::new(Mutex::new(state)),
            slots,
            free: watch::channel(slots).0,
            pace: watch::channel(pace).0,
            renew: Arc::default(),
        };
        let shown = live.state.clone();
        bounds::show("attempts", most(slots), move || shown.lock().unwrap_or_else(PoisonError::into_inner).attempts.len());
        let shown = live.state.clone();
        bounds::show(KILLS, MOST_KILLS, move || shown.lock().unwrap_or_else(PoisonError::into_inner).killed.len());
        live.count(&live.state());
        live
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Free slots.
    pub(crate) fn free(&self) -> u32 {
        *self.free.borrow()
    }

    /// Follows the number of free slots.
    pub(crate) fn watch_free(&self) -> watch::Receiver<u32> {
        self.free.subscribe()
    }

    /// Tells how many attempts may be claimed: as many as slots are free, and none while too many wait to be settled.
    fn count(&self, state: &State) {
        let room = most(self.slots).saturating_sub(state.attempts.len());
        let free = self.slots.saturating_sub(state.taken).min(u32::try_from(room).unwrap_or(u32::MAX));
        self.free.send_if_modified(|before| std::mem::replace(before, free) != free);
        instruments::slots().with_label_values(&["free"]).set(i64::from(free));
    }

    /// Sets how leases are kept from now on.
    pub(crate) fn set_pace(&self, pace: Pace) {
        self.pace.send_replace(pace);
    }

    /// Follows how leases are kept.
    pub(crate) fn pace(&self) -> watch::Receiver<Pace> {
        self.pace.subscribe()
    }

    /// Waits until an attempt wants to be renewed before its time.
    pub(crate) async fn wants_renewal(&self) {
        self.renew.notified().await;
    }

    /// A claim was answered.
    pub(crate) fn note_claim(&self) {
        self.state().claimed = Some(BootInstant::now());
    }

    pub(crate) fn claimed_ago(&self) -> Option<Duration> {
        self.state().claimed.map(BootInstant::elapsed)
    }

    /// Takes a slot for a grant whose claim was sent at `sent`; `None` when the attempt is here already.
    pub(crate) fn enter(&self, grant: &Grant, sent: BootInstant) -> Option<Arc<Attempt>> {
        let mut state = self.state();
        if state.attempts.contains_key(&grant.attempt) {
            return None;
        }
        let held = Held { sent, length: Duration::from_millis(grant.lease_ms) };
        let kill = state.killed.get(&grant.attempt.run).filter(|(_, at)| at.elapsed() < REMEMBERED).map(|(order, _)| order.clone());
        let standing = Standing { kill, ..Standing::default() };
        let attempt = Arc::new(Attempt {
            id: grant.attempt.clone(),
            token: grant.token,
            inner: Mutex::default(),
            lease: watch::channel(held).0,
            allowance: watch::channel(grant.allowance).0,
            renew: self.renew.clone(),
            changed: watch::channel(standing).0,
        });
        state.attempts.insert(grant.attempt.clone(), attempt.clone());
        state.taken += 1;
        self.count(&state);
        Some(attempt)
    }

    /// The tree is gone: its slot is free, though the attempt stays until it is settled.
    pub(crate) fn free_slot(&self) {
        let mut state = self.state();
        state.taken = state.taken.saturating_sub(1);
        self.count(&state);
    }

    /// The attempt is settled or stale.
    pub(crate) fn leave(&self, id: &AttemptId) {
        let mut state = self.state();
        state.attempts.remove(id);
        self.count(&state);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Attempt>> {
        self.state().attempts.values().cloned().collect()
    }

    pub(crate) fn get(&self, id: &AttemptId) -> Option<Arc<Attempt>> {
        self.state().attempts.get(id).cloned()
    }

    /// Attempts that are held still because their lease is overdue.
    pub(crate) fn frozen(&self) -> u32 {
        u32::try_from(self.all().iter().filter(|attempt| attempt.is_frozen()).count()).unwrap_or(u32::MAX)
    }

    /// A later attempt of a step was granted, so what is left here of the earlier ones counts no more; returns when nothing
    /// of them runs and their work is kept.
    pub(crate) async fn end_earlier(&self, id: &AttemptId) {
        for earlier in self.all().into_iter().filter(|a| a.id.run == id.run && a.id.step == id.step && a.id.n < id.n) {
            tracing::info!(attempt = %earlier.id, by = id.n, "an attempt is ended because a later one was granted");
            earlier.stale();
            // Dropped without a word: it has left.
            earlier.standing().wait_for(|s| s.closed).await.map(drop).unwrap_or_default();
        }
    }

    /// Ends the attempts of a run, now or when they come.
    pub(crate) fn kill_run(&self, run: RunId, order: &KillOrder) {
        let mut state = self.state();
        state.killed.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
        if state.killed.len() >= MOST_KILLS
            && let Some(oldest) = state.killed.iter().min_by_key(|(_, (_, at))| *at).map(|(run, _)| *run)
        {
            // Its claim, if it comes at all, brings the order again.
            bounds::overflow(KILLS);
            state.killed.remove(&oldest);
        }
        state.killed.insert(run, (order.clone(), BootInstant::now()));
        let attempts: Vec<_> = state.attempts.values().filter(|a| a.id.run == run).cloned().collect();
        drop(state);
        for attempt in attempts {
            attempt.kill(order);
        }
    }
}

impl Attempt {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows how the attempt stands.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.changed.subscribe()
    }

    /// The lease as it is now.
    pub(crate) fn lease(&self) -> Held {
        *self.lease.borrow()
    }

    /// So much was used so far; the next renewal tells it.
    pub(crate) fn used(&self, usage: Usage) {
        self.inner().usage = usage;
    }

    /// What was used so far, and how long its log is.
    pub(crate) fn so_far(&self) -> (Usage, u64) {
        let inner = self.inner();
        (inner.usage, inner.process.as_ref().map_or(0, StepProcess::spooled))
    }

    /// Whether the attempt waits for its lease.
    pub(crate) fn is_frozen(&self) -> bool {
        let inner = self.inner();
        inner.frozen.is_some() || inner.process.as_ref().is_some_and(StepProcess::is_frozen)
    }

    /// What may be spent on models; renewals tell it anew.
    pub(crate) fn allowance(&self) -> watch::Receiver<Option<Allowance>> {
        self.allowance.subscribe()
    }

    /// Has the leases renewed at once, for what comes with the answer.
    pub(crate) fn renew_now(&self) {
        self.renew.notify_one();
    }

    /// Waits, at most for `limit`, until the lease can be relied on: nothing outward begins and no process is started while
    /// it is overdue, just as the shim holds a process that runs.
    ///
    /// # Errors
    /// How the attempt ends instead.
    pub(crate) async fn relied_on(&self, limit: Duration) -> Result<(), Outcome> {
        let (mut lease, mut standing) = (self.lease.subscribe(), self.changed.subscribe());
        let began = BootInstant::now();
        let ended = loop {
            let now = standing.borrow_and_update().clone();
            if now.kill.is_some() {
                break Err(Outcome::Killed);
            }
            if now.stale || now.hand_back {
                break Err(Outcome::HandedBack);
            }
            if !lease.borrow_and_update().is_overdue() {
                break Ok(());
            }
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                tracing::warn!(attempt = %self.id, "the lease was not renewed for too long: the attempt ends");
                break Err(Outcome::HandedBack);
            }
            self.inner().frozen.get_or_insert_with(|| {
                tracing::warn!(attempt = %self.id, "the lease is overdue: the attempt waits until it is renewed");
                Frozen::begin()
            });
            tokio::select! {
                _ = lease.changed() => {}
                _ = standing.changed() => {}
                () = tokio::time::sleep(left) => {}
            }
        };
        if self.inner().frozen.take().is_some() {
            instruments::freezes().with_label_values(&[if ended.is_ok() { "thawed" } else { "ended" }]).inc();
        }
        ended
    }

    /// The process runs: renewals and kills reach it from now on, and those that came before are told at once.
    pub(crate) fn attach(&self, process: StepProcess) {
        let mut inner = self.inner();
        process.renew(self.lease().left());
        inner.process = Some(process.clone());
        drop(inner);
        let standing = self.changed.borrow().clone();
        if let Some(order) = &standing.kill {
            process.kill("killed", order.force);
        } else if standing.stale || standing.hand_back {
            process.kill("lease", false);
        }
    }

    /// A renewal that was sent at `sent` was answered well.
    pub(crate) fn renewed(&self, sent: BootInstant, lease: Duration, allowance: Option<Allowance>) {
        // Told even when it is the same: whoever waits for more knows by it that there is none yet.
        self.allowance.send_replace(allowance);
        let held = Held { sent, length: lease };
        let inner = self.inner();
        self.lease.send_replace(held);
        if let Some(process) = &inner.process {
            process.renew(held.left());
        }
    }

    pub(crate) fn kill(&self, order: &KillOrder) {
        self.changed.send_modify(|s| {
            let force = s.kill.as_ref().is_some_and(|k| k.force) || order.force;
            s.kill = Some(KillOrder { reason: order.reason.clone(), force });
        });
        if let Some(process) = &self.inner().process {
            process.kill("killed", order.force);
        }
    }

    /// The lease is over.
    pub(crate) fn stale(&self) {
        self.changed.send_modify(|s| s.stale = true);
        if let Some(process) = &self.inner().process {
            process.kill("lease", true);
        }
    }

    /// Nothing of it runs any more, and its work is kept: another attempt may use the workspace.
    pub(crate) fn close(&self) {
        self.changed.send_modify(|s| s.closed = true);
    }

    pub(crate) fn settled(&self) {
        self.changed.send_modify(|s| s.settled = true);
    }

    /// The executor drains: the attempt ends and may run elsewhere.
    pub(crate) fn hand_back(&self) {
        self.changed.send_modify(|s| s.hand_back = true);
        if let Some(process) = &self.inner().process {
            process.kill("hand_back", false);
        }
    }
}
