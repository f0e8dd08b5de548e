//! What is looked at outside of the store: processes, directories, and answers to clients.

use std::collections::BTreeMap;

use hopyard_contract::RunId;
use hopyard_contract::message::LeaseState;
use hopyard_scheduler::request::{Answer, Request};
use hopyard_store::runs::Writes;

use super::Checks;
use crate::host::{Piece, StepProcess};
use crate::world::World;

impl Checks {
    /// A process starts, or goes on after it was frozen: no other of its step is at work, nor one of an older workspace.
    pub(crate) fn process_runs(&mut self, world: &World, process: &StepProcess) {
        let id = &process.attempt;
        world.note("process_runs", u64::from(id.n), || format!("{id} of g{}", process.generation));
        world.journal.borrow_mut().started.entry(id.clone()).or_insert(world.now());
        for host in &world.hosts {
            for other in host.processes.borrow().values().filter(|other| other.attempt.run == id.run && !other.frozen.get()) {
                let twice = other.attempt.step == id.step && other.attempt != *id;
                self.hold(world, !twice, "I2 one process of a step", || format!("{} goes on while {id} runs", other.attempt));
                let apart = other.generation != process.generation;
                self.hold(world, !apart, "I2 one workspace at a time", || {
                    format!("{} works in g{} while {id} works in g{}", other.attempt, other.generation, process.generation)
                });
            }
        }
    }

    /// A janitor removes a directory: nothing lives in it, and its work is recorded elsewhere.
    pub(crate) fn directory_goes(&mut self, world: &World, host: usize, key: &str) {
        let machine = &world.hosts[host];
        let lives = machine.processes.borrow().values().find(|process| process.directory == key).map(|process| process.attempt.clone());
        self.hold(world, lives.is_none(), "I7 nothing lives in what is removed", || format!("{lives:?} is at work in {key}"));
        let Some(directory) = machine.workspaces.borrow().get(key).cloned() else { return };
        let commits = world.commits.borrow();
        let recorded = |piece: &Piece| {
            world.store.committed(|tables| {
                let attempts = tables.runs.get(&piece.0.run).into_iter().flat_map(|record| &record.attempts);
                attempts.filter_map(|a| commits.get(a.snapshot.as_ref()?)).any(|pieces| pieces.contains(piece))
            })
        };
        let unsaved: Vec<String> =
            directory.work.iter().filter(|piece| !recorded(piece)).map(|(attempt, piece)| format!("{attempt} ({piece})")).collect();
        self.hold(world, unsaved.is_empty(), "I7 work is kept before it is removed", || format!("{key} goes with {unsaved:?}"));
    }

    /// A scheduler answers renewals after its commit: they say what it has written. What was written tells when the last
    /// renewal of an attempt was decided; of an earlier one in the same batch it is not known which side of a cancel it was.
    pub(crate) fn answered<'a>(&mut self, world: &World, batch: impl Iterator<Item = (&'a Request, &'a Answer)>, writes: &Writes) {
        let mut last = BTreeMap::new();
        for (request, answer) in batch {
            if let (Request::Renew(renew), Answer::Renew(reply)) = (request, answer) {
                last.extend(renew.leases.iter().map(|renewal| &renewal.attempt).zip(&reply.leases));
            }
        }
        for (id, answer) in last.into_iter().filter(|(_, answer)| answer.state == LeaseState::Ok) {
            let Some(write) = writes.runs.iter().find(|write| write.run.id == id.run) else { continue };
            let Some(attempt) = write.attempts.iter().find(|a| a.n == id.n && a.step == id.step) else { continue };
            let renewed_at = attempt.lease_until - world.settings.lease.delta();
            let killed = write.run.kill.as_ref().is_some_and(|kill| kill.at < renewed_at);
            self.hold(world, !killed || answer.kill.is_some(), "I6 a renewal tells of a cancel", || format!("{id} was not told"));
        }
    }

    /// A client was told that a run is committed: whoever reads now finds it.
    pub(crate) fn readable(&mut self, world: &World, run: RunId) {
        let there = world.store.committed(|tables| tables.runs.contains_key(&run));
        self.hold(world, there, "I13 what was answered can be read", || format!("{run} was called committed and is not there"));
    }
}
