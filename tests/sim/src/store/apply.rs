//! A commit: what was decided becomes rows, all of it in one instant.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use hopyard_contract::RunId;
use hopyard_contract::run::Run;
use hopyard_store::runs::{OutboxRow, RunWrite, Spent, Writes};

use crate::bugs::Bug;

use super::tables::{Due, DueKind, RunRecord, Tables};

/// The poke of each run that a transaction loaded, as it was at the first look.
pub(super) type Seen = BTreeMap<RunId, Option<u64>>;

/// Writes everything at `at`. Pokes that were dealt with go before new ones come; a poke that came after its run was loaded
/// has another number and stays.
pub(super) fn apply(tables: &mut Tables, writes: &Writes, seen: &Seen, at: DateTime<Utc>, bug: Option<Bug>) {
    for id in &writes.poked {
        let now = tables.due.get(&(*id, DueKind::Poke)).map(|due| due.n);
        let dealt_with = seen.get(id).is_none_or(|seen| *seen == now);
        if dealt_with {
            tables.due.remove(&(*id, DueKind::Poke));
        }
    }
    let mut pokes: Vec<RunId> = writes.pokes.clone();
    for write in &writes.runs {
        apply_run(tables, write, &mut pokes, bug);
    }
    if bug == Some(Bug::PokeNotStored) {
        pokes.clear();
    }
    for id in pokes {
        poke(tables, id, at);
    }
    for (receipt, time_ns) in &writes.receipts {
        let seq = receipt.seq.unwrap_or_default();
        tables.receipts.entry((seq, *time_ns)).or_insert_with(|| receipt.clone());
    }
    for (namespace, key, row) in &writes.keys {
        tables.keys.insert((namespace.clone(), key.clone()), row.clone());
    }
    for (id, kill) in &writes.tombstones {
        tables.tombstones.entry(*id).or_insert_with(|| (at, kill.clone()));
    }
    for (id, run) in &writes.aliases {
        tables.aliases.entry(*id).or_insert(*run);
    }
    for (key, more) in &writes.budgets {
        let known = tables.budgets.entry(key.clone()).or_default();
        *known = Spent { spent: known.spent + more.spent, open: known.open + more.open };
    }
    for executor in &writes.executors {
        tables.executors.insert(executor.id.clone(), executor.clone());
    }
    for row in &writes.workspaces {
        tables.workspaces.insert(row.id.clone(), row.clone());
    }
    if !writes.outbox.is_empty() {
        tables.outbox.insert(writes.outbox_id, OutboxRow { id: writes.outbox_id, at, messages: writes.outbox.clone() });
    }
    for id in &writes.published {
        tables.outbox.remove(id);
    }
}

fn poke(tables: &mut Tables, id: RunId, at: DateTime<Utc>) {
    if tables.runs.contains_key(&id) {
        let due = tables.due.entry((id, DueKind::Poke)).or_insert(Due { at, n: 0 });
        *due = Due { at: due.at.min(at), n: due.n + 1 };
    }
}

fn apply_run(tables: &mut Tables, write: &RunWrite, pokes: &mut Vec<RunId>, bug: Option<Bug>) {
    let run = &write.run;
    let had_ended = tables.runs.get(&run.id).is_some_and(|record| record.run.finished_at.is_some());
    write_record(tables, write);
    if run.finished_at.is_some() {
        if !had_ended {
            end(tables, run, pokes, bug);
        }
    } else {
        write_open(tables, write, pokes);
    }
    match write.timer {
        None => {}
        Some(None) => drop(tables.due.remove(&(run.id, DueKind::Timer))),
        Some(Some(at)) => {
            let due = tables.due.entry((run.id, DueKind::Timer)).or_insert(Due { at, n: 0 });
            *due = Due { at, n: due.n + 1 };
        }
    }
}

fn write_record(tables: &mut Tables, write: &RunWrite) {
    let fresh = || RunRecord { run: write.run.clone(), steps: Vec::new(), attempts: Vec::new(), pages: Vec::new() };
    let record = Arc::make_mut(tables.runs.entry(write.run.id).or_insert_with(|| Arc::new(fresh())));
    record.run = write.run.clone();
    for (index, step) in &write.steps {
        match record.steps.get_mut(*index as usize) {
            Some(place) => *place = step.clone(),
            None => record.steps.push(step.clone()),
        }
    }
    for attempt in &write.attempts {
        match record.attempts.binary_search_by(|a| (&a.step, a.n).cmp(&(&attempt.step, attempt.n))) {
            Ok(index) => record.attempts[index] = attempt.clone(),
            Err(index) => record.attempts.insert(index, attempt.clone()),
        }
    }
    if !write.events.is_empty() {
        record.pages.push(Arc::new(write.events.clone()));
    }
}

/// The parts of a run that only exist until it ends.
fn write_open(tables: &mut Tables, write: &RunWrite, pokes: &mut Vec<RunId>) {
    let run = &write.run;
    for slot in &run.slots {
        tables.slots.entry(slot.key.clone()).or_default().insert(run.id, (slot.limit, slot.held));
    }
    if write.new {
        for parent in &run.after_open {
            tables.after.insert((*parent, run.id));
            // Who adds a waiting run sees the end of its parent, or the end sees the newcomer.
            if tables.runs.get(parent).is_some_and(|record| record.run.finished_at.is_some()) {
                pokes.push(run.id);
            }
        }
    }
}

/// What follows from the end of a run, once.
fn end(tables: &mut Tables, run: &Run, pokes: &mut Vec<RunId>, bug: Option<Bug>) {
    pokes.extend(tables.after.iter().filter(|(parent, _)| *parent == run.id).map(|(_, child)| *child));
    tables.after.retain(|(parent, child)| *parent != run.id && *child != run.id);
    tables.due.remove(&(run.id, DueKind::Timer));
    for slot in run.slots.iter().filter(|_| bug != Some(Bug::SlotNotReleased)) {
        if let Some(members) = tables.slots.get_mut(&slot.key) {
            members.remove(&run.id);
        }
    }
}
