//! What has to hold: looked at with every commit, with every process that starts, and at the end.

mod bounds;
mod commits;
pub(crate) mod ending;
mod outside;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hopyard_contract::RunId;
use hopyard_store::Error;

use crate::clockwork::Micros;
use crate::store::RunRecord;
use crate::world::{World, low};

pub(crate) use bounds::Bounds;

/// Most violations that are kept of one world.
const MOST: usize = 20;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: &'static str,
    /// When it was seen, in microseconds of the world's time.
    pub at: i64,
    /// What was seen.
    pub detail: String,
}

/// What is remembered between two looks.
#[derive(Default)]
pub(crate) struct Checks {
    /// Runs as they were at the last look.
    seen: BTreeMap<RunId, Arc<RunRecord>>,
    /// When a slot of a concurrency key was last given back.
    slot_freed: Micros,
    /// When all slots of an executor were last taken.
    pub(crate) full_until: Micros,
    /// What was found.
    violations: Vec<Violation>,
    /// Runs that could not be decided.
    faults: BTreeSet<RunId>,
}

impl Checks {
    /// What was found.
    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub(crate) fn found(&mut self, world: &World, invariant: &'static str, detail: impl FnOnce() -> String) {
        if self.violations.len() < MOST {
            let detail = detail();
            world.note("VIOLATION", 0, || format!("{invariant}: {detail}"));
            self.violations.push(Violation { invariant, at: world.now(), detail });
        }
    }

    pub(crate) fn hold(&mut self, world: &World, holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) {
        if !holds {
            self.found(world, invariant, detail);
        }
    }

    /// The store refused for good what a scheduler had decided: a guard held what an invariant should have.
    pub(crate) fn refused(&mut self, world: &World, error: &Error, kind: Option<&'static str>) {
        self.found(world, "guards are never needed", || format!("{error} ({kind:?})"));
    }

    /// A decision failed.
    pub(crate) fn fault(&mut self, world: &World, run: RunId, detail: &str) {
        self.faults.insert(run);
        world.note("fault", low(run), || format!("{run}: {detail}"));
        self.found(world, "decisions are total", || format!("{run}: {detail}"));
    }
}
