//! The simulator: the real decision and the real transaction in a world of simulated stores, buses, clocks and processes.
//!
//! It *never* sleeps, opens a socket or asks a clock: a seed is a whole history, and the same seed is the same history.

pub mod bugs;
mod bus;
mod chaos;
pub mod checks;
mod client;
mod clockwork;
mod door;
mod executor;
mod fate;
mod host;
mod janitor;
mod journal;
mod plans;
mod scheduler;
pub mod store;
mod weather;
mod world;

use std::collections::BTreeMap;

use crate::bugs::Bug;
use crate::checks::{Bounds, Violation, ending};
use crate::clockwork::{Micros, S};
use crate::weather::Weather;
use crate::world::World;

/// What became of one world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What must not be and was.
    pub violations: Vec<Violation>,
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Answers to clients by what they said.
    pub answers: BTreeMap<&'static str, u64>,
    /// Runs that were made.
    pub runs: u64,
    /// How long the world lasted, in microseconds of its own time.
    pub lasted: i64,
    /// Hash over everything that happened.
    pub hash: u64,
    /// The end of the trace, if one was kept.
    pub trace: Vec<String>,
    /// What the world was like.
    pub weather: String,
}

/// Lives through the world of a seed: a storm, then calm until everything has come to its end.
pub fn live(seed: u64, bug: Option<Bug>, trace: bool) -> Outcome {
    let weather = Weather::draw(seed);
    let world = World::new(seed, weather, bug, trace);
    chaos::start(&world);
    client::start(&world);
    run(&world, weather.storm);
    // Answers that clients still wait for.
    chaos::heal(&world);
    let bounds = Bounds::of(&weather);
    let ended = run_until(&world, bounds.all_ended(&world), ending::all_ended);
    let clean = ended && run_until(&world, bounds.all_clean(), |world| ending::all_ended(world) && ending::all_clean(world));
    let mut checks = std::mem::take(&mut *world.checks.borrow_mut());
    // What went wrong first says most.
    if checks.violations().is_empty() {
        checks.at_the_end(&world, ended, clean);
    }
    let mut faults = world.fate.faults();
    faults.extend(world.store.faults());
    let outcome = Outcome {
        violations: checks.violations().to_vec(),
        faults,
        answers: world.journal.borrow().answers.clone(),
        runs: world.store.committed(|tables| tables.runs.len() as u64),
        lasted: world.now(),
        hash: world.fate.hash(),
        trace: world.fate.tail(),
        weather: format!("{weather:?}"),
    };
    world.clock.end();
    outcome
}

fn has_failed(world: &World) -> bool {
    !world.checks.borrow().violations().is_empty()
}

fn run(world: &World, until: Micros) {
    world.clock.run(until, |at| world.store.set_clock(world::instant(at)), || has_failed(world));
}

/// Runs on, second by second, for at most `most`; says whether it is `done`.
fn run_until(world: &World, most: Micros, done: impl Fn(&World) -> bool) -> bool {
    let end = world.now() + most;
    while !done(world) {
        if world.now() >= end || has_failed(world) {
            return false;
        }
        run(world, world.now() + S);
    }
    true
}
