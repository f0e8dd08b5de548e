//! What the outside saw: what clients were told, and what processes really did.

use std::collections::{BTreeMap, BTreeSet};

use hopyard_contract::{AttemptId, RunId};

use crate::clockwork::Micros;

/// The record of the outside.
#[derive(Default)]
pub(crate) struct Journal {
    /// Runs that were called committed.
    pub(crate) committed: BTreeMap<RunId, Micros>,
    /// Runs that only the bus had, with the place of their message.
    pub(crate) on_the_bus: Vec<(Vec<RunId>, (u64, i64))>,
    /// Of those, runs that may be refused for what else was submitted: they have a key, or wait for others.
    pub(crate) conditional: BTreeSet<RunId>,
    /// Runs that were surely not accepted.
    pub(crate) refused: BTreeSet<RunId>,
    /// Runs by idempotency key and body, as they were answered.
    pub(crate) by_key: BTreeMap<String, BTreeSet<(String, RunId)>>,
    /// Published submissions without an answer, by place in the command stream.
    pub(crate) published: Vec<(u64, i64)>,
    /// Cancels that were answered well.
    pub(crate) cancelled: BTreeMap<RunId, Micros>,
    /// Attempts whose process was started, and when.
    pub(crate) started: BTreeMap<AttemptId, Micros>,
    /// Attempts whose process ended well.
    pub(crate) done: BTreeSet<AttemptId>,
    /// Attempts that their executor has given up: no process of them goes on.
    pub(crate) given_up: BTreeSet<AttemptId>,
    /// What each attempt has used, as its executor said at last.
    pub(crate) used: BTreeMap<AttemptId, u64>,
    /// Runs whose machine lost its disk: their work may be gone.
    pub(crate) disk_lost: BTreeSet<String>,
    /// Operations of clients by what they came to.
    pub(crate) answers: BTreeMap<&'static str, u64>,
}

impl Journal {
    /// Counts an answer.
    pub(crate) fn answered(&mut self, what: &'static str) {
        *self.answers.entry(what).or_default() += 1;
    }
}
