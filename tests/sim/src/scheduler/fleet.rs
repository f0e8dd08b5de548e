//! What a scheduler knows beside the store, by virtual time: the rules of the real one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hopyard_contract::Name;
use hopyard_contract::message::Beat;
use hopyard_scheduler::request::Request;
use hopyard_scheduler::round::Outlook;

use crate::clockwork::{Mailbox, Micros, ProcessId, S};
use crate::world::World;

/// An executor that has been silent for this long is not counted on any more.
pub(crate) const SILENT: Micros = 30 * S;

/// Executors as one scheduler knows them, and its own pulse.
pub(super) struct Fleet {
    sight: Sight,
    beats: Mailbox<Beat>,
    reconnects: u64,
}

/// When the bus last answered, as the pulse of a scheduler feels it, and the time; both go on during a transaction.
#[derive(Clone, Default)]
pub(super) struct Pulse(Arc<(AtomicI64, AtomicI64, AtomicI64)>);

impl Pulse {
    /// The bus answers; too long after its last answer, that was a gap.
    pub(super) fn felt(&self, now: Micros, gap: Micros) {
        let before = self.0.0.swap(now, Ordering::Relaxed);
        if now - before > gap {
            self.0.2.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn gaps(&self) -> i64 {
        self.0.2.load(Ordering::Relaxed)
    }

    /// Time goes on.
    pub(super) fn at(&self, now: Micros) {
        self.0.1.store(now, Ordering::Relaxed);
    }

    fn heard(&self) -> Micros {
        self.0.0.load(Ordering::Relaxed)
    }

    fn now(&self) -> Micros {
        self.0.1.load(Ordering::Relaxed)
    }
}

/// The part that a transaction looks at.
#[derive(Clone)]
pub(super) struct Sight {
    pulse: Pulse,
    lease: Micros,
    executors: BTreeMap<Name, Known>,
    beats: BTreeMap<Name, (Beat, Micros)>,
    /// Since when nothing was late.
    since: Micros,
    /// When the loop last began a round.
    awake: Micros,
    /// Gaps between answers of the bus that have been taken note of.
    gaps: i64,
}

#[derive(Clone)]
struct Known {
    seen: Micros,
    draining: bool,
}

impl Fleet {
    pub(super) fn new(world: &World, process: ProcessId) -> Self {
        let sight = Sight {
            pulse: Pulse::default(),
            lease: world.lease(),
            executors: BTreeMap::new(),
            beats: BTreeMap::new(),
            since: world.now(),
            awake: world.now(),
            gaps: 0,
        };
        sight.pulse.felt(world.now(), Micros::MAX);
        sight.pulse.at(world.now());
        Self { sight, beats: world.bus.hear_beats(process), reconnects: world.bus.reconnects(process) }
    }

    /// What is known at this instant.
    pub(super) fn sight(&self) -> Sight {
        self.sight.clone()
    }

    pub(super) fn pulse(&self) -> Pulse {
        self.sight.pulse.clone()
    }

    /// The loop begins a round.
    pub(super) fn round_begins(&mut self, world: &World, process: ProcessId) {
        self.sight.awake = world.now();
        self.feel(world, process);
    }

    /// Something failed: the time without a gap begins anew.
    pub(super) fn broken(&mut self, now: Micros) {
        self.sight.since = now;
    }

    /// Takes note of a gap: the bus was away or did not answer in time, or a round took too long.
    pub(super) fn feel(&mut self, world: &World, process: ProcessId) {
        while let Some(beat) = self.beats.try_recv() {
            self.sight.beats.insert(beat.id.clone(), (beat, world.now()));
        }
        self.sight.pulse.at(world.now());
        let reconnects = world.bus.reconnects(process);
        if !world.bus.connected(process) || reconnects != self.reconnects || self.sight.is_late() {
            self.reconnects = reconnects;
            self.sight.gaps = self.sight.pulse.gaps();
            self.broken(world.now());
        }
    }

    pub(super) fn hear(&mut self, request: &Request, now: Micros) {
        let (executor, draining) = match request {
            Request::Claim(claim) => (&claim.executor, None),
            Request::Renew(renew) => (&renew.executor, None),
            Request::Hello(hello) => (&hello.executor, Some(hello.draining)),
            _ => return,
        };
        let known = self.sight.executors.entry(executor.clone()).or_insert(Known { seen: now, draining: false });
        known.seen = now;
        known.draining = draining.unwrap_or(known.draining);
    }

    /// Free slots and slots of everyone who beat lately.
    pub(super) fn slots(&self, now: Micros) -> impl Iterator<Item = (u64, u64)> {
        let alive = self.sight.beats.values().filter(move |(_, at)| now - at < 15 * S);
        alive.map(|(beat, _)| (u64::from(beat.free), u64::from(beat.slots)))
    }
}

impl Sight {
    /// Executors renew at least three times in a lease: a gap of a third leaves each time for one more try.
    fn is_late(&self) -> bool {
        let (now, gap) = (self.pulse.now(), self.lease / 3);
        now - self.pulse.heard() > gap || now - self.awake > gap || self.pulse.gaps() != self.gaps
    }
}

impl Outlook for Sight {
    fn may_judge(&self) -> bool {
        !self.is_late() && self.pulse.now() - self.since >= self.lease
    }

    fn why_unbind(&self, executor: &Name) -> Option<&'static str> {
        let known = self.executors.get(executor);
        if known.is_some_and(|known| known.draining) {
            return Some("the executor drains");
        }
        let now = self.pulse.now();
        let beat = self.beats.get(executor).map(|(_, at)| now - at);
        let heard = known.map(|known| now - known.seen).into_iter().chain(beat).min();
        let silence = heard.unwrap_or(now - self.since);
        (silence >= SILENT).then_some("the executor is silent")
    }

    fn pool_of(&self, executor: &Name) -> Option<Name> {
        self.beats.get(executor).filter(|(_, at)| self.pulse.now() - at < SILENT).and_then(|(beat, _)| beat.pool.clone())
    }
}
