//! What the clients saw: one line per call and answer, and what it promised.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What an answer promised of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// It is committed: nothing may lose it.
    Committed,
    /// The bus has it: it is lost only with the bus.
    OnBus,
}

/// A cancel that was answered with 2xx before the end of its run.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// The run.
    pub run: String,
    /// Whether a scheduler committed it.
    pub committed: bool,
    /// From the answer to the end of the run, once that was seen.
    pub gone_after: Option<Duration>,
}

/// A submission as its client knows it; `op` is the label of its run.
#[derive(Clone, Debug)]
pub struct Promised {
    /// What was promised.
    pub promise: Promise,
    /// When, since the start of the journal.
    pub at: Duration,
    /// Id of the run, where the answer named it.
    pub run: Option<String>,
}

/// Everything the clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every line, in order.
    pub lines: Vec<Value>,
    /// Submissions that were promised, by label.
    pub promised: BTreeMap<String, Promised>,
    /// Ids that answers named, by label.
    pub ids: BTreeMap<String, BTreeSet<String>>,
    /// Submissions that were surely refused.
    pub refused: BTreeSet<String>,
    /// Cancels.
    pub cancels: Vec<Cancel>,
    /// Final states that somebody read, by run.
    pub finals: BTreeMap<String, Value>,
    /// Answer times of submissions.
    pub answers: Vec<Duration>,
    /// What must never be seen.
    pub violations: Vec<String>,
    /// Event streams that were followed to their end.
    pub followed: usize,
}

/// The journal, shared by all clients.
#[derive(Debug)]
pub struct Journal {
    began: Instant,
    seen: Mutex<Seen>,
}

impl Journal {
    /// An empty journal; its time begins now.
    pub fn begin() -> Self {
        Self { began: Instant::now(), seen: Mutex::default() }
    }

    /// Time since the begin.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line: `invoke`, `ok`, `fail` or `info` (it may or may not have happened).
    pub fn note(&self, kind: &str, what: &str, detail: Value) {
        let us = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
        self.seen().lines.push(json!({ "us": us, "type": kind, "op": what, "detail": detail }));
    }

    /// A submission was answered with a promise.
    pub fn promised(&self, op: &str, run: Option<&str>, promise: Promise) {
        let at = self.now();
        let mut seen = self.seen();
        if let Some(run) = run {
            seen.ids.entry(op.to_owned()).or_default().insert(run.to_owned());
        }
        let entry = seen.promised.entry(op.to_owned()).or_insert(Promised { promise, at, run: None });
        if promise == Promise::Committed {
            entry.promise = promise;
        }
        if let Some(run) = run {
            entry.run = Some(run.to_owned());
        }
    }

    /// Something was seen that must never be.
    pub fn violation(&self, text: String) {
        self.note("violation", "", json!(text));
        self.seen().violations.push(text);
    }

    /// A run was read; once final it has to stay as it is.
    pub fn read(&self, run: &Value) {
        if !crate::harness::api::is_final(run) {
            let before = self.seen().finals.get(run["id"].as_str().unwrap_or_default()).cloned();
            if let Some(before) = before {
                self.violation(format!("changed: {} was {before} and is {} again", run["id"], run["status"]));
            }
            return;
        }
        let state = final_of(run);
        let id = run["id"].as_str().unwrap_or_default().to_owned();
        let before = self.seen().finals.entry(id.clone()).or_insert_with(|| state.clone()).clone();
        if before != state {
            self.violation(format!("changed: {id} was {before} and is {state}"));
        }
    }

    /// Writes all lines to a file.
    pub fn save(&self, file: &Path) -> std::io::Result<()> {
        let lines: String = self.seen().lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(file, lines)
    }
}

/// What of a final run must never change.
pub fn final_of(run: &Value) -> Value {
    let part = |name: &str| (name.to_owned(), run[name].clone());
    Value::Object(["status", "finished_at", "usage", "failure_code"].into_iter().map(part).collect())
}
