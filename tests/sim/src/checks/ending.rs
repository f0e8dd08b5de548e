//! What is looked at when the storm is over and everything should have come to its end.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use hopyard_contract::RunId;
use hopyard_contract::audit::{self, Moment};
use hopyard_contract::event::Event;
use hopyard_contract::run::{WorkspaceRow, WorkspaceStatus};
use hopyard_contract::submit::{Verdict, VerdictStatus};

use super::Checks;
use crate::bus::StreamId;
use crate::store::{RunRecord, Tables};
use crate::world::{World, instant};

/// Whether every run has ended and no command waits.
pub(crate) fn all_ended(world: &World) -> bool {
    let commands = world.bus.waiting(StreamId::Cmd) == 0;
    commands && world.store.committed(|tables| tables.runs.values().all(|record| record.run.finished_at.is_some()))
}

/// Whether nothing is left to be done anywhere.
pub(crate) fn all_clean(world: &World) -> bool {
    let rows =
        world.store.committed(|tables| tables.outbox.is_empty() && tables.due.is_empty() && !tables.workspaces.values().any(is_left));
    rows && world.bus.waiting(StreamId::Result) == 0 && (0..world.hosts.len()).all(|index| left_on(world, index).is_empty())
}

/// A session's directory is kept, or given to the next run of the session.
fn is_left(row: &WorkspaceRow) -> bool {
    matches!(row.status, WorkspaceStatus::Active | WorkspaceStatus::Reclaimable) && row.session.is_none()
}

fn left_on(world: &World, index: usize) -> Vec<String> {
    let host = &world.hosts[index];
    let directories: Vec<String> = host.workspaces.borrow().keys().filter(|key| !key.starts_with("session-")).cloned().collect();
    // Spools of an executor that never comes back go after two days.
    let gone = world.gone.get() == Some(index);
    let spools: Vec<String> = host.spools.borrow().keys().filter(|_| !gone).map(|id| format!("spool of {id}")).collect();
    let processes: Vec<String> = host.processes.borrow().keys().map(|id| format!("process of {id}")).collect();
    [directories, spools, processes].concat()
}

impl Checks {
    /// Looks at everything once more.
    pub(crate) fn at_the_end(&mut self, world: &World, ended: bool, clean: bool) {
        let tables = world.store.committed(Tables::clone);
        for record in tables.runs.values() {
            self.run_at_the_end(world, &tables, record, ended);
        }
        self.promises(world, &tables);
        self.cancels(world, &tables);
        self.keys(world, &tables);
        if ended && !clean {
            self.leftovers(world, &tables);
        }
    }

    fn run_at_the_end(&mut self, world: &World, tables: &Tables, record: &RunRecord, ended: bool) {
        let (run, id) = (&record.run, record.run.id);
        self.hold(world, run.finished_at.is_some(), "I1 every run ends", || {
            let steps: Vec<String> =
                record.steps.iter().map(|s| format!("{} {} {:?} for {:?}", s.id, s.status, s.pending_reason, s.bound_to)).collect();
            let due: Vec<String> =
                tables.due.iter().filter(|((due, _), _)| *due == id).map(|((_, kind), due)| format!("{kind:?} {}", due.at)).collect();
            format!("{id} ({}) is {} {:?} after {:?}: {steps:?}, due {due:?}", run.workflow, run.status, run.pending_reason, run.after_open)
        });
        let unseen = self.seen.get(&id).is_none_or(|seen| **seen != *record);
        self.hold(world, !unseen, "I3 nothing changes unseen", || format!("{id} is not what its last commit made of it"));
        let events: Vec<Event> = record.events().cloned().collect();
        if let Ok(Some(state)) = tables.state(id) {
            let moment = Moment::new(instant(world.now()), TimeDelta::seconds(60));
            for violation in audit::run(&state, &events, &moment) {
                self.found(world, violation.check.as_str(), || violation.to_string());
            }
        }
        for event in events.iter().filter(|_| ended) {
            let told = world.bus.has_told(id, event.seq);
            self.hold(world, told, "I5 every event is told", || format!("{id}:{} never reached the stream", event.seq));
        }
    }

    /// What clients were told holds.
    fn promises(&mut self, world: &World, tables: &Tables) {
        let journal = world.journal.borrow();
        let taken_away: BTreeSet<(u64, i64)> = world.bus.taken_away().into_iter().collect();
        for run in journal.committed.keys() {
            self.hold(world, tables.runs.contains_key(run), "I1 nothing committed is lost", || format!("{run} was called committed"));
        }
        let misdirected = world.bus.misdirected();
        self.hold(world, misdirected.is_empty(), "I1 an acknowledgement meets its own message", || format!("{misdirected:?}"));
        for (runs, place) in journal.on_the_bus.iter().filter(|(_, place)| !taken_away.contains(place)) {
            for run in runs.iter().filter(|run| !journal.conditional.contains(run)) {
                // The key may have made another run, which answers to this id too, or it was used for another body: the receipt says so.
                let known = tables.runs.contains_key(run) || tables.aliases.contains_key(run);
                let refused = |verdict: &Verdict| verdict.status == VerdictStatus::Rejected;
                let receipt = tables.receipts.get(place);
                let there = known || receipt.is_some_and(|receipt| receipt.items.iter().any(refused));
                self.hold(world, there, "I1 what the bus has is not lost", || {
                    format!("{run} at {place:?} was called accepted; its receipt is {receipt:?}")
                });
            }
        }
        for place in journal.published.iter().filter(|place| !taken_away.contains(place)) {
            let receipt = tables.receipts.get(place);
            self.hold(world, receipt.is_some(), "I16 every command has a receipt", || format!("{place:?}"));
            for run in receipt.into_iter().flat_map(|receipt| &receipt.items).filter_map(|verdict| verdict.run_id) {
                self.hold(world, tables.runs.contains_key(&run), "I1 nothing committed is lost", || format!("{run} is in a receipt"));
            }
        }
        for run in &journal.refused {
            self.hold(world, !tables.runs.contains_key(run), "I16 what was refused does not exist", || format!("{run}"));
        }
    }

    fn cancels(&mut self, world: &World, tables: &Tables) {
        for run in world.journal.borrow().cancelled.keys() {
            let killed = tables.runs.get(run).is_none_or(|record| record.run.kill.is_some());
            self.hold(world, killed, "I6 a cancel wins", || format!("the cancel of {run} was answered, and it knows nothing of it"));
        }
    }

    /// One key, one run; one body, one run.
    fn keys(&mut self, world: &World, tables: &Tables) {
        for (key, answers) in &world.journal.borrow().by_key {
            let runs: BTreeSet<RunId> = answers.iter().map(|(_, run)| *run).collect();
            self.hold(world, runs.len() <= 1, "I8 a key makes one run", || format!("{key} was answered with {answers:?}"));
            let bodies: BTreeSet<&String> = answers.iter().map(|(body, _)| body).collect();
            self.hold(world, bodies.len() <= 1, "I8 a key makes one run", || format!("{key} took the bodies {bodies:?}"));
        }
        let mut made: BTreeMap<&str, Vec<RunId>> = BTreeMap::new();
        for record in tables.runs.values() {
            let body = record.run.labels.get("body").map_or("", String::as_str);
            made.entry(body).or_default().push(record.run.id);
        }
        for (body, runs) in made.iter().filter(|(_, runs)| runs.len() > 1) {
            self.found(world, "I8 a body makes one run", || format!("the body {body} made {runs:?}"));
        }
    }

    fn leftovers(&mut self, world: &World, tables: &Tables) {
        for index in 0..world.hosts.len() {
            let left = left_on(world, index);
            self.hold(world, left.is_empty(), "I7 nothing is left on a machine", || format!("machine {index}: {left:?}"));
        }
        let rows: Vec<String> =
            tables.workspaces.values().filter(|row| is_left(row)).map(|row| format!("{} {}", row.id, row.status.as_str())).collect();
        self.hold(world, rows.is_empty(), "I7 nothing is left in the inventory", || format!("{rows:?}"));
        let waiting = world.bus.waiting(StreamId::Result);
        self.hold(world, waiting == 0, "I15 reports are read", || format!("{waiting} wait"));
        self.hold(world, tables.outbox.is_empty(), "I15 the outbox empties", || format!("{} rows are left", tables.outbox.len()));
        self.hold(world, tables.due.is_empty(), "I15 nothing is due for ever", || format!("{:?}", tables.due));
    }
}
