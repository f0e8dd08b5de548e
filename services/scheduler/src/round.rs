//! One transaction: a batch of requests is locked, decided and written; it knows the store, and nothing of the bus.
//!
//! [`transact`] locks and loads the runs that the batch names, in order of id, applies one request after the other, looks at
//! the clock when something is due, and writes the difference. What has to be said and done afterwards is returned.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::event::{Event, EventPage};
use hopyard_contract::run::RunState;
use hopyard_contract::{Name, RunId, subject};
use hopyard_store::Error as StoreError;
use hopyard_store::runs::{OutboxMessage, RunStore, RunTx, RunWrite, Spent, Writes};

use crate::budgets::Budgets;
use crate::decide::{Decision, Effect, Input, Reply};
use crate::request::{Answer, Request};
use crate::settings::Settings;

mod accept;
mod apply;
mod budgets;
mod executors;
mod inventory;
mod sessions;
mod supersede;
mod ticks;

#[cfg(test)]
mod tests;

/// When a run that cannot be decided at all is looked at again.
const FAULT_PAUSE: TimeDelta = TimeDelta::seconds(60);

/// What a scheduler knows beside the store.
pub trait Outlook: Sync {
    /// Whether leases may be judged: connected to the bus and committing, without a gap, for a whole lease.
    fn may_judge(&self) -> bool;

    /// Why a run should leave an executor; `None` while that one can be counted on.
    fn why_unbind(&self, executor: &Name) -> Option<&'static str>;

    /// The pool that an executor says it is in; `None` when nothing has been heard of it lately.
    fn pool_of(&self, executor: &Name) -> Option<Name>;
}

/// Makes the decisions: [`crate::decide::decide`], or in tests one with a fault in it.
pub type Decide<'a> = dyn Fn(&RunState, &Input, DateTime<Utc>) -> Decision + Sync + 'a;

/// What transactions are made with.
pub struct Desk<'a> {
    /// The store.
    pub store: &'a dyn RunStore,
    /// Lengths of leases.
    pub settings: Settings,
    /// Budgets that runs share.
    pub budgets: &'a Budgets,
    /// What is known beside the store.
    pub outlook: &'a dyn Outlook,
    /// The decision.
    pub decide: &'a Decide<'a>,
}

/// What a committed transaction leaves to be said and done.
#[derive(Debug)]
pub struct Committed {
    /// One per request, in order.
    pub answers: Vec<Answered>,
    /// What was written.
    pub writes: Writes,
    /// What has to follow.
    pub effects: Vec<(RunId, Effect)>,
    /// Runs that only the clock brought up and that could not be decided.
    pub faults: Vec<Fault>,
    /// When it was decided, by the clock of the store.
    pub at: DateTime<Utc>,
}

/// What became of one request.
#[derive(Debug)]
pub struct Answered {
    /// The answer; where a decision failed it says no.
    pub answer: Answer,
    /// Decisions that failed.
    pub faults: Vec<Fault>,
}

/// A decision that failed; its run has been ended with `engine_error`, or set aside for a minute if even that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The run.
    pub run: RunId,
    /// Words of the panic.
    pub detail: String,
}

/// Decides and writes a batch; `due`: also looks at the clock; `published`: outbox rows to delete.
///
/// # Errors
/// When the store fails; then it is unknown whether the commit happened.
pub async fn transact(desk: &Desk<'_>, batch: &[&Request], due: bool, published: Vec<i64>) -> Result<Committed, StoreError> {
    let mut named = BTreeSet::new();
    for request in batch {
        apply::named_runs(request, &mut named);
    }
    loop {
        let mut round = Round::open(desk).await?;
        hopyard_runtime::failpoint!("scheduler.transaction.begun");
        match round.decide_all(batch, due, &named).await {
            Ok(answers) => return round.commit(answers, published).await,
            // Somebody else has runs that turned out to be needed: begun anew, it waits for them before it holds anything.
            Err(StoreError::Busy(_)) if !round.refused.is_subset(&named) => named.append(&mut round.refused),
            Err(error) => return Err(error),
        }
    }
}

/// Ends runs with `engine_error`: something about them cannot be committed.
///
/// # Errors
/// As [`transact`].
pub async fn fail_runs(desk: &Desk<'_>, request: &Request, detail: &str) -> Result<Committed, StoreError> {
    let mut named = BTreeSet::new();
    apply::named_runs(request, &mut named);
    let mut round = Round::open(desk).await?;
    round.know(named.iter().copied()).await?;
    for id in named {
        round.decide(id, &Input::Fault(detail.to_owned()));
    }
    round.commit(Vec::new(), Vec::new()).await
}

/// One transaction in the making.
struct Round<'a> {
    desk: &'a Desk<'a>,
    tx: Box<dyn RunTx>,
    now: DateTime<Utc>,
    states: BTreeMap<RunId, Loaded>,
    effects: Vec<(RunId, Effect)>,
    writes: Writes,
    faults: Vec<Fault>,
    /// Runs that another transaction had locked when they were asked for.
    refused: BTreeSet<RunId>,
    /// Runs of which only something is told: nothing is decided on them.
    seen: BTreeMap<RunId, RunState>,
    /// What the store knows about everything that the batch submits or ends.
    known: accept::Known,
    /// Slots by key with those who hold them, this transaction's changes included.
    slots: HashMap<String, BTreeSet<RunId>>,
    /// Shared budgets by key, this transaction's changes included.
    budgets: HashMap<String, Spent>,
}

/// A run as it was read and as it shall be.
struct Loaded {
    before: Option<RunState>,
    after: RunState,
    events: Vec<Event>,
}

impl<'a> Round<'a> {
    async fn open(desk: &'a Desk<'a>) -> Result<Self, StoreError> {
        let tx = desk.store.begin().await?;
        Ok(Self {
            desk,
            tx,
            now: DateTime::UNIX_EPOCH,
            states: BTreeMap::new(),
            effects: Vec::new(),
            writes: Writes::default(),
            faults: Vec::new(),
            refused: BTreeSet::new(),
            seen: BTreeMap::new(),
            known: accept::Known::default(),
            slots: HashMap::new(),
            budgets: HashMap::new(),
        })
    }

    /// Decides the whole batch, and what is due.
    async fn decide_all(&mut self, batch: &[&Request], due: bool, named: &BTreeSet<RunId>) -> Result<Vec<Answered>, StoreError> {
        // Locked before anything else, and before the clock is read.
        if named.is_empty() {
            self.now = self.tx.now().await?;
        } else {
            self.know(named.iter().copied()).await?;
        }
        hopyard_runtime::failpoint!("scheduler.runs.locked");
        self.gather(batch).await?;
        let mut answers = Vec::with_capacity(batch.len());
        for request in batch {
            let answer = self.apply(request).await?;
            answers.push(Answered { answer, faults: std::mem::take(&mut self.faults) });
        }
        if due {
            self.look_at_clock().await?;
            hopyard_runtime::failpoint!("scheduler.timers.looked");
        }
        hopyard_runtime::failpoint!("scheduler.inputs.decided");
        Ok(answers)
    }

    /// Locks and loads the runs that are not loaded yet, in order of id, and reads the clock after that: whoever had one of
    /// them locked until now may have looked at it in the meantime, and the times of a run never go back.
    async fn know(&mut self, ids: impl IntoIterator<Item = RunId>) -> Result<(), StoreError> {
        let unknown: BTreeSet<RunId> = ids.into_iter().filter(|id| !self.states.contains_key(id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let found = self.tx.load(&unknown.iter().copied().collect::<Vec<_>>()).await;
        for state in found.inspect_err(|_| self.refused = unknown)? {
            self.states.insert(state.run.id, Loaded { before: Some(state.clone()), after: state, events: Vec::new() });
        }
        self.now = self.tx.now().await?;
        Ok(())
    }

    /// Reads the runs that are not loaded, as they are committed, and locks none of them.
    async fn see(&mut self, ids: impl IntoIterator<Item = RunId>) -> Result<(), StoreError> {
        let new = |id: &RunId| !self.states.contains_key(id) && !self.seen.contains_key(id);
        let unseen: BTreeSet<RunId> = ids.into_iter().filter(new).collect();
        if !unseen.is_empty() {
            let found = self.tx.look(&unseen.into_iter().collect::<Vec<_>>()).await?;
            self.seen.extend(found.into_iter().map(|state| (state.run.id, state)));
        }
        Ok(())
    }

    /// A run as this transaction has it, or else as it was seen.
    fn seen(&self, id: RunId) -> Option<&RunState> {
        self.state(id).or_else(|| self.seen.get(&id))
    }

    fn state(&self, id: RunId) -> Option<&RunState> {
        self.states.get(&id).map(|l| &l.after)
    }

    /// Decides an input on a loaded run; `None` when the run is not known, or the decision failed.
    fn decide(&mut self, id: RunId, input: &Input) -> Option<Reply> {
        let loaded = self.states.get_mut(&id)?;
        match guarded(self.desk.decide, &loaded.after, input, self.now) {
            Ok(decision) => Some(self.keep(id, decision)),
            Err(detail) => {
                tracing::error!(run = %id, detail, "a decision failed; the run ends with engine_error");
                match guarded(self.desk.decide, &loaded.after, &Input::Fault(detail.clone()), self.now) {
                    Ok(decision) => drop(self.keep(id, decision)),
                    // Not even that: whoever has other business is not held up by it.
                    Err(_) => loaded.after.timer = Some(self.now + FAULT_PAUSE),
                }
                self.faults.push(Fault { run: id, detail });
                None
            }
        }
    }

    fn keep(&mut self, id: RunId, decision: Decision) -> Reply {
        let known = self.states.get(&id).map(|loaded| loaded.after.clone()).filter(|_| !self.desk.budgets.is_empty());
        self.spend(known.as_ref(), &decision.next);
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

    async fn commit(mut self, answers: Vec<Answered>, published: Vec<i64>) -> Result<Committed, StoreError> {
        self.close();
        self.writes.published = published;
        if !self.writes.is_empty() {
            self.tx.write(&self.writes).await?;
        }
        hopyard_runtime::failpoint!("scheduler.commit.before");
        // Committed even when nothing was written: that gives the locks back at once.
        self.tx.commit().await?;
        Ok(Committed { answers, writes: self.writes, effects: self.effects, faults: self.faults, at: self.now })
    }

    /// Turns what changed into writes, and events into one page per run and one outbox row.
    fn close(&mut self) {
        for (id, loaded) in std::mem::take(&mut self.states) {
            let Loaded { before, after, mut events } = loaded;
            if before.as_ref() == Some(&after) && events.is_empty() {
                continue;
            }
            if !events.is_empty() {
                let kinds: Vec<&str> = events.iter().map(|e| e.kind.as_str()).collect();
                let page = EventPage { v: 1, run_id: id, events };
                self.writes.outbox.push(OutboxMessage {
                    subject: subject::event(&after.run.namespace, id),
                    id: page.events[0].id.clone(),
                    kind: Some(kinds.join(",")),
                    body: OutboxMessage::body(&page),
                });
                events = page.events;
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

/// A decision, or the words of its panic: one run that cannot be decided must not stop the others.
fn guarded(decide: &Decide<'_>, state: &RunState, input: &Input, now: DateTime<Utc>) -> Result<Decision, String> {
    // The state is only read, so that nothing half-changed can be seen afterwards.
    catch_unwind(AssertUnwindSafe(|| decide(state, input, now))).map_err(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        words.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "a panic without words".to_owned())
    })
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
