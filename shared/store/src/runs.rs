//! Owner `runs`: the scheduler's data, written in group-commit transactions around pure decisions.
//!
//! A transaction runs in one order everywhere, so that none waits for another in a circle: lock run rows by id (claims skip
//! locked ones; whoever needs further ones later does not wait for them), then keys, then tombstones, then slots by key, then
//! budgets by key, then write.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::message::PutDefinition;
use hopyard_contract::message::PutDefinitionReply;
use hopyard_contract::plan::Plan;
use hopyard_contract::run::{Attempt, Kill, Run, RunState, StepState, WorkspaceRow, WorkspaceStatus};
use hopyard_contract::status::RunStatus;
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use serde_json::value::{RawValue, to_raw_value};

use crate::Result;

/// The scheduler's side of the store.
#[async_trait]
pub trait RunStore: Send + Sync {
    /// Opens a transaction that may write (SQLite: `BEGIN IMMEDIATE`).
    async fn begin(&self) -> Result<Box<dyn RunTx>>;

    /// Time until the earliest `due` row by the store's clock, negative once it is due; `None` when nothing will be.
    async fn next_due(&self) -> Result<Option<TimeDelta>>;

    /// What could be claimed now, by pool and by the executor it is bound to.
    async fn claimable(&self) -> Result<Vec<Claimable>>;

    /// Outbox rows older than `age_ms`, oldest first (PostgreSQL: locked with SKIP LOCKED only for the length of this call).
    async fn outbox(&self, age_ms: u64, limit: u32) -> Result<Vec<OutboxRow>>;

    /// Age of the oldest outbox row in ms; 0 when there is none.
    async fn outbox_age_ms(&self) -> Result<u64>;

    /// Stores a definition and its plan; one transaction of its own. Plans and definitions are immutable by hash. A definition
    /// that is not registered is `Created` with version 0.
    async fn put_definition(&self, put: &PutDefinition) -> Result<PutDefinitionReply>;

    /// Event pages committed since `since` (inclusive), for refilling a wiped bus; ordered by run and sequence. `limit` counts
    /// pages in order of time; the rest of the last one's instant comes along, so that 1 µs after the latest `at` is where to go on.
    async fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>>;

    /// Workspaces in a status on a host (any host if `None`), oldest first.
    async fn workspaces(&self, host: Option<&Name>, status: WorkspaceStatus, limit: u32) -> Result<Vec<WorkspaceRow>>;

    /// Deletes tombstones older than a day and whatever else has served its time; small steps.
    async fn retire(&self) -> Result<()>;
}

/// One open transaction; dropping it without `commit` rolls back.
#[async_trait]
pub trait RunTx: Send {
    /// The database's clock (PostgreSQL `clock_timestamp()`; SQLite: wall clock at start + boot-time clock, never behind the
    /// stored high-water mark), truncated to microseconds.
    async fn now(&mut self) -> Result<DateTime<Utc>>;

    /// Locks the run rows in order of id and loads whole states; unknown ids are absent from the answer. A transaction that holds
    /// a lock already waits for none: where another one has a row, it fails with [`Busy`](crate::Error::Busy).
    async fn load(&mut self, ids: &[RunId]) -> Result<Vec<RunState>>;

    /// Whole states as they are committed, in order of id, and locks none: for what is only told. Steps and attempts of one may
    /// be younger than its row.
    async fn look(&mut self, ids: &[RunId]) -> Result<Vec<RunState>>;

    /// Steps that the executor may claim, best first: priority (high first), then their place in the queue (`queued_at`), then run id and step.
    /// Their run rows are locked (PostgreSQL: FOR UPDATE SKIP LOCKED). A run whose slot is taken by others does not appear;
    /// a run that shows up once does not hide the others. Only steps with `claimable_at <= now`, of the pool, and either
    /// bound to nobody or to this executor.
    async fn candidates(&mut self, query: &ClaimQuery) -> Result<Vec<(RunId, Name)>>;

    /// Runs with a `due` row at or before `now`, oldest first; their run rows are locked (SKIP LOCKED).
    async fn due(&mut self, now: DateTime<Utc>, limit: u32) -> Result<Vec<RunId>>;

    /// Attempts granted under a claim id before: for regenerating the answer to a repeated claim. Locks nothing.
    async fn claimed(&mut self, claim_id: uuid::Uuid) -> Result<Vec<RunId>>;

    /// What is known of idempotency keys; serialises submitters of the same key until the end of the transaction
    /// (PostgreSQL: advisory transaction locks in sorted order).
    async fn keys(&mut self, keys: &[(Name, String)]) -> Result<HashMap<(Name, String), KeyRow>>;

    /// Kill requests that came before their runs. `adds`: the transaction may write some; then it is alone with those that ask for
    /// them (PostgreSQL: an advisory lock, shared otherwise).
    async fn tombstones(&mut self, ids: &[RunId], adds: bool) -> Result<HashMap<RunId, Kill>>;

    /// The run that goes by another id as well.
    async fn alias(&mut self, id: RunId) -> Result<Option<RunId>>;

    /// Statuses of other runs in a namespace, without locking them.
    async fn statuses(&mut self, namespace: &Name, ids: &[RunId]) -> Result<HashMap<RunId, RunStatus>>;

    /// Locks slots in order of key and returns who holds each (unended runs with `held`).
    async fn slot_holders(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>>;

    /// Locks slots in order of key, as `slot_holders` does, and returns the unended runs of each, held or not, oldest first.
    async fn slot_members(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>>;

    /// Locks shared budgets in order of key and returns what was spent of each; keys of which nothing was spent are absent.
    async fn budgets(&mut self, keys: &[String]) -> Result<HashMap<String, Spent>>;

    /// Plans by hash.
    async fn plans(&mut self, hashes: &[String]) -> Result<HashMap<String, Arc<Plan>>>;

    /// A stored receipt of a command stream message, for regenerating the answer to a redelivery.
    async fn receipt(&mut self, seq: u64, time_ns: i64) -> Result<Option<Receipt>>;

    /// Unended runs bound to an executor by an active workspace.
    async fn bound_runs(&mut self, executor: &Name) -> Result<Vec<RunId>>;

    /// The kept or active workspace of a named session, newest first.
    async fn session_workspace(&mut self, namespace: &Name, repo: Option<&str>, session: &Name) -> Result<Option<WorkspaceRow>>;

    /// Workspaces by id.
    async fn workspaces(&mut self, ids: &[String]) -> Result<Vec<WorkspaceRow>>;

    /// Applies everything that was decided.
    async fn write(&mut self, writes: &Writes) -> Result<()>;

    /// Commits; after an error it is unknown whether the commit happened.
    async fn commit(self: Box<Self>) -> Result<()>;
}

/// What an executor asks for.
#[derive(Clone, Debug)]
pub struct ClaimQuery {
    /// Its pool.
    pub pool: Name,
    /// Itself.
    pub executor: Name,
    /// Most steps.
    pub limit: u32,
    /// By the database's clock.
    pub now: DateTime<Utc>,
}

/// How much could be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimable {
    /// Pool.
    pub pool: Name,
    /// Executor that the steps are bound to; `None` for the pool as a whole.
    pub bound_to: Option<Name>,
    /// Steps.
    pub count: u64,
    /// For how long the oldest has been claimable, by the clock of the store.
    pub waited: Duration,
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The run that the first submission made.
    pub run: RunId,
    /// Hash of that submission.
    pub request_hash: String,
}

/// Messages of one transaction that have not been published for certain.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    /// Row.
    pub id: i64,
    /// When it was committed.
    pub at: DateTime<Utc>,
    /// Messages.
    pub messages: Vec<OutboxMessage>,
}

/// What was spent of a shared budget, in millionths of a dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// By runs.
    pub spent: i64,
    /// What live attempts may spend and have not; below nothing when they began before the budget did.
    pub open: i64,
}

/// A message to publish.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct OutboxMessage {
    /// Subject.
    pub subject: String,
    /// `Nats-Msg-Id`.
    pub id: String,
    /// Header `Hopyard-Type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// JSON body, as it is kept and published.
    pub body: Box<RawValue>,
}

impl OutboxMessage {
    /// The body of a message.
    ///
    /// # Panics
    /// When it cannot be written as JSON: maps have keys that are texts, numbers are finite.
    pub fn body(of: &impl serde::Serialize) -> Box<RawValue> {
        to_raw_value(of).expect("a body has string keys and finite numbers only")
    }
}

impl PartialEq for OutboxMessage {
    fn eq(&self, other: &Self) -> bool {
        let parts = |message: &Self| (message.subject.clone(), message.id.clone(), message.kind.clone(), message.body.get().to_owned());
        parts(self) == parts(other)
    }
}

/// Everything that one transaction writes.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// New and changed runs. When a run has newly ended, the implementation also pokes its `after` children (a `due` row of
    /// kind `poke` at the transaction's time for each), and drops its slots and timer.
    pub runs: Vec<RunWrite>,
    /// Receipts of command stream messages, with the stream time that tells sequences of a wiped stream apart.
    pub receipts: Vec<(Receipt, i64)>,
    /// New idempotency keys.
    pub keys: Vec<(Name, String, KeyRow)>,
    /// Kill requests of runs that are not known yet.
    pub tombstones: Vec<(RunId, Kill)>,
    /// Further ids of runs: told to whoever submitted, before it turned out that the idempotency key had made another run.
    pub aliases: Vec<(RunId, RunId)>,
    /// Runs to look at at once: `due` rows of kind `poke`.
    pub pokes: Vec<RunId>,
    /// Runs whose `poke` rows have been dealt with.
    pub poked: Vec<RunId>,
    /// Executors that said hello or changed.
    pub executors: Vec<ExecutorRow>,
    /// New or changed workspaces.
    pub workspaces: Vec<WorkspaceRow>,
    /// What is added to shared budgets, by key.
    pub budgets: BTreeMap<String, Spent>,
    /// Messages to publish after the commit: one row for the transaction.
    pub outbox: Vec<OutboxMessage>,
    /// Outbox row id to use for `outbox`, minted by the caller so that it can be deleted later.
    pub outbox_id: i64,
    /// Outbox rows that have been published.
    pub published: Vec<i64>,
}

impl Writes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
            && self.receipts.is_empty()
            && self.keys.is_empty()
            && self.tombstones.is_empty()
            && self.aliases.is_empty()
            && self.pokes.is_empty()
            && self.poked.is_empty()
            && self.executors.is_empty()
            && self.workspaces.is_empty()
            && self.budgets.is_empty()
            && self.outbox.is_empty()
            && self.published.is_empty()
    }
}

/// New or changed parts of a run.
#[derive(Clone, Debug)]
pub struct RunWrite {
    /// Whether the run is new: everything is inserted.
    pub new: bool,
    /// The whole run row as it shall be.
    pub run: Run,
    /// Changed steps with their position in the plan (all of them for a new run).
    pub steps: Vec<(u32, StepState)>,
    /// New or changed attempts.
    pub attempts: Vec<Attempt>,
    /// New events, consecutive: one page row.
    pub events: Vec<Event>,
    /// The timer as it shall be, if it changed: the run's `due` row of kind `timer`.
    pub timer: Option<Option<DateTime<Utc>>>,
}

/// An executor that has said hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorRow {
    /// Name.
    pub id: Name,
    /// Host.
    pub host: Name,
    /// Pool.
    pub pool: Name,
    /// Slots.
    pub slots: u32,
    /// Version of the program.
    pub version: String,
    /// Whether it takes no new work.
    pub draining: bool,
    /// Last hello or change.
    pub seen_at: DateTime<Utc>,
}
