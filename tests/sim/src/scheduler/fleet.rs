//! What a scheduler knows beside the store, by virtual time: the rules of the real one.

use std::collections::BTreeMap;

use hopyard_contract::Name;
use hopyard_contract::message::Beat;
use hopyard_scheduler::request::Request;
use hopyard_scheduler::round::Outlook;

use crate::bugs::Bug;
use crate::clockwork::{Mailbox, Micros, ProcessId, S};
use crate::world::World;

/// An executor that has been silent for this long is not counted on any more.
pub(crate) const SILENT: Micros = 30 * S;

/// Executors as one scheduler knows them.
pub(super) struct Fleet {
    sight: Sight,
    beats: Mailbox<Beat>,
    reconnects: u64,
}

/// The part that a transaction looks at.
#[derive(Clone)]
pub(super) struct Sight {
    now: Micros,
    lease: Micros,
    silent: Micros,
    executors: BTreeMap<Name, Known>,
    beats: BTreeMap<Name, (Beat, Micros)>,
    healthy_since: Micros,
}

#[derive(Clone)]
struct Known {
    seen: Micros,
    draining: bool,
}

impl Fleet {
    pub(super) fn new(world: &World, process: ProcessId) -> Self {
        let sight = Sight {
            now: world.now(),
            lease: world.lease(),
            silent: if world.has(Bug::UnbindAtOnce) { S } else { SILENT },
            executors: BTreeMap::new(),
            beats: BTreeMap::new(),
            healthy_since: world.now(),
        };
        Self { sight, beats: world.bus.hear_beats(process), reconnects: world.bus.reconnects(process) }
    }

    /// What is known at this instant.
    pub(super) fn sight(&self, now: Micros) -> Sight {
        Sight { now, ..self.sight.clone() }
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

    pub(super) fn falter(&mut self, now: Micros) {
        self.sight.healthy_since = now;
    }

    pub(super) fn look_at_bus(&mut self, world: &World, process: ProcessId) {
        while let Some(beat) = self.beats.try_recv() {
            self.sight.beats.insert(beat.id.clone(), (beat, world.now()));
        }
        let reconnects = world.bus.reconnects(process);
        if !world.bus.connected(process) || reconnects != self.reconnects {
            self.reconnects = reconnects;
            self.falter(world.now());
        }
    }

    /// Free slots and slots of everyone who beat lately.
    pub(super) fn slots(&self, now: Micros) -> impl Iterator<Item = (u64, u64)> {
        let alive = self.sight.beats.values().filter(move |(_, at)| now - at < 15 * S);
        alive.map(|(beat, _)| (u64::from(beat.free), u64::from(beat.slots)))
    }
}

impl Outlook for Sight {
    fn may_judge(&self) -> bool {
        self.now - self.healthy_since >= self.lease
    }

    fn why_unbind(&self, executor: &Name) -> Option<&'static str> {
        let known = self.executors.get(executor);
        if known.is_some_and(|known| known.draining) {
            return Some("the executor drains");
        }
        let beat = self.beats.get(executor).map(|(_, at)| self.now - at);
        let heard = known.map(|known| self.now - known.seen).into_iter().chain(beat).min();
        let silence = heard.unwrap_or(self.now - self.healthy_since);
        (silence >= self.silent).then_some("the executor is silent")
    }

    fn pool_of(&self, executor: &Name) -> Option<Name> {
        self.beats.get(executor).filter(|(_, at)| self.now - at < SILENT).and_then(|(beat, _)| beat.pool.clone())
    }
}
