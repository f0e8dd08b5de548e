//! An in-memory store with the semantics of the shared engine, driven by the world's clock and troubled by its faults.
//!
//! What is modelled: READ COMMITTED transactions of several schedulers that interleave at every statement; row locks in order
//! of id, `SKIP LOCKED` on the snapshot of its statement (callers have to look again), locks of keys and slots, lock time-outs,
//! circles, transactions ended for idleness; all writes of a transaction become visible in the instant of its commit; the
//! schema's guards; and commits whose answer is lost, before or after they happened. What is not: anomalies *within* one SQL
//! statement, disks that lie, replicas. Those belong to the tests with two connections to a real server.

mod apply;
mod definitions;
mod guards;
mod locks;
mod reader;
mod tables;
mod transaction;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::message::{PutDefinition, PutDefinitionReply};
use hopyard_contract::run::{WorkspaceRow, WorkspaceStatus};
use hopyard_contract::{Name, RunId};
use hopyard_store::conformance::Engine;
use hopyard_store::runs::{Claimable, OutboxRow, RunStore, RunTx, Writes};
use hopyard_store::{Error, Result};

use crate::bugs::Bug;
pub use tables::{Due, DueKind, RunRecord, Tables};

/// How likely each trouble is, in thousandths of a statement or commit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// Others may go on before a statement is answered.
    pub pause: u32,
    /// A statement fails and the transaction has to be tried again.
    pub retry: u32,
    /// The connection is lost in a statement.
    pub lost: u32,
    /// The connection is lost at the commit, which has not happened.
    pub lost_before_commit: u32,
    /// The connection is lost at the commit, which has happened.
    pub answer_lost: u32,
}

/// The store; clones are the same one.
#[derive(Clone)]
pub struct SimStore {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    tables: Tables,
    locks: locks::Locks,
    metrics: Option<(i64, serde_json::Value)>,
    /// Microseconds since 1970, set by the world.
    clock: i64,
    /// The last time that was handed out.
    last: i64,
    transactions: u64,
    down: bool,
    trouble: Trouble,
    dice: fastrand::Rng,
    faults: BTreeMap<&'static str, u64>,
    /// Runs that commits have changed since somebody looked.
    changed: Vec<RunId>,
    bug: Option<Bug>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Commit {
    Fine,
    LostBefore,
    AnswerLost,
}

impl SimStore {
    /// An empty store at an instant.
    pub fn new(now: DateTime<Utc>, seed: u64, bug: Option<Bug>) -> Self {
        let inner = Inner {
            tables: Tables::default(),
            locks: locks::Locks::default(),
            metrics: None,
            clock: now.timestamp_micros(),
            last: 0,
            transactions: 0,
            down: false,
            trouble: Trouble::default(),
            dice: fastrand::Rng::with_seed(seed),
            faults: BTreeMap::new(),
            changed: Vec::new(),
            bug,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// All its sides, for the conformance suite.
    pub fn engine(&self) -> Engine {
        Engine { shared: true, runs: Arc::new(self.clone()), reader: Arc::new(self.clone()), audit: None, metrics: Arc::new(self.clone()) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves its clock; never backwards.
    pub fn set_clock(&self, now: DateTime<Utc>) {
        let mut inner = self.inner();
        inner.clock = inner.clock.max(now.timestamp_micros());
    }

    /// How much trouble it makes from now on.
    pub fn set_trouble(&self, trouble: Trouble) {
        self.inner().trouble = trouble;
    }

    /// Takes it away or brings it back; what was open is rolled back.
    pub fn set_down(&self, down: bool) {
        let mut inner = self.inner();
        inner.down = down;
        inner.locks.end_all();
    }

    /// Whether it can be reached.
    pub fn is_down(&self) -> bool {
        self.inner().down
    }

    /// Faults so far, by name.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.inner().faults.clone()
    }

    /// Runs that commits have changed since the last call, in order of their commits.
    pub fn take_changed(&self) -> Vec<RunId> {
        std::mem::take(&mut self.inner().changed)
    }

    /// Looks at what is committed, whatever the weather.
    pub fn committed<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.inner().tables)
    }

    /// Reads what is committed, as a service would.
    fn read<T>(&self, read: impl FnOnce(&Tables, DateTime<Utc>) -> T) -> Result<T> {
        let mut inner = self.inner();
        inner.reach()?;
        let now = inner.now();
        Ok(read(&inner.tables, now))
    }
}

impl Inner {
    fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    fn now(&mut self) -> DateTime<Utc> {
        self.last = self.clock.max(self.last + 1);
        DateTime::from_timestamp_micros(self.last).unwrap_or_default()
    }

    fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.dice.u32(0..1000) < per_mille
    }

    fn reach(&mut self) -> Result<()> {
        if self.down {
            return Err(Error::Unavailable("the server is away".to_owned()));
        }
        let lost = self.trouble.lost;
        if self.happens(lost) {
            self.count("store_connection_lost");
            return Err(Error::Unavailable("the connection was lost".to_owned()));
        }
        Ok(())
    }

    /// One statement of a transaction; says whether others go first.
    fn statement(&mut self, tx: u64) -> Result<bool> {
        self.reach()?;
        let now = self.clock;
        self.locks.touch(tx, now)?;
        let Trouble { pause, retry, .. } = self.trouble;
        if self.happens(retry) {
            self.count("store_retry");
            return Err(Error::Retry("the transaction could not be serialised".to_owned()));
        }
        let pauses = self.happens(pause);
        if pauses {
            self.count("store_interleaved");
        }
        Ok(pauses)
    }

    fn fate_of_commit(&mut self) -> Commit {
        let Trouble { lost_before_commit, answer_lost, .. } = self.trouble;
        if self.happens(lost_before_commit) {
            self.count("store_lost_before_commit");
            Commit::LostBefore
        } else if self.happens(answer_lost) {
            self.count("store_commit_answer_lost");
            Commit::AnswerLost
        } else {
            Commit::Fine
        }
    }

    /// Applies a transaction; says whether its answer takes a while.
    fn commit(&mut self, tx: u64, mut written: Vec<(Writes, DateTime<Utc>)>, seen: &apply::Seen) -> Result<bool> {
        let now = self.clock;
        self.locks.touch(tx, now)?;
        let dropped = self.bug == Some(Bug::CommitNotDurable) && self.happens(30);
        for (writes, at) in &mut written {
            crate::bugs::in_store(self.bug, writes);
            if !dropped {
                self.changed.extend(writes.runs.iter().map(|write| write.run.id));
                apply::apply(&mut self.tables, writes, seen, *at, self.bug);
            }
        }
        self.locks.end(tx);
        let pause = self.trouble.pause;
        Ok(self.happens(pause))
    }
}

#[async_trait]
impl RunStore for SimStore {
    async fn begin(&self) -> Result<Box<dyn RunTx>> {
        let id = {
            let mut inner = self.inner();
            inner.reach()?;
            inner.transactions += 1;
            let (id, now) = (inner.transactions, inner.clock);
            inner.locks.begin(id, now);
            id
        };
        Ok(Box::new(transaction::Transaction::new(self.clone(), id)))
    }

    async fn next_due(&self) -> Result<Option<TimeDelta>> {
        self.read(|tables, now| tables.due.values().map(|due| due.at - now).min())
    }

    async fn claimable(&self) -> Result<Vec<Claimable>> {
        self.read(|tables, now| tables.claimable(now))
    }

    async fn outbox(&self, age_ms: u64, limit: u32) -> Result<Vec<OutboxRow>> {
        self.read(|tables, now| tables.outbox_rows(now, age_ms, limit))
    }

    async fn outbox_age_ms(&self) -> Result<u64> {
        self.read(|tables, now| tables.outbox_age_ms(now))
    }

    async fn put_definition(&self, put: &PutDefinition) -> Result<PutDefinitionReply> {
        let mut inner = self.inner();
        inner.reach()?;
        let now = inner.now();
        Ok(definitions::put(&mut inner.tables, put, now))
    }

    async fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>> {
        let mut events = self.read(|tables, _| tables.events_since(since, limit))?;
        events.sort_by_key(|event| (event.run_id, event.seq));
        Ok(events)
    }

    async fn workspaces(&self, host: Option<&Name>, status: WorkspaceStatus, limit: u32) -> Result<Vec<WorkspaceRow>> {
        self.read(|tables, _| tables.workspaces_in(host, status, limit))
    }

    async fn retire(&self) -> Result<()> {
        let mut inner = self.inner();
        inner.reach()?;
        let before = inner.now() - chrono::TimeDelta::days(1);
        inner.tables.tombstones.retain(|_, (at, _)| *at >= before);
        Ok(())
    }
}
