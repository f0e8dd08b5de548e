//! Chance, and the record of what it did: seeded dice, counted faults, and a hash over everything that happened.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use crate::clockwork::Micros;

/// Lines of a trace that are kept.
const TAIL: usize = 4000;

/// Dice and record of one world.
pub(crate) struct Fate {
    dice: RefCell<fastrand::Rng>,
    faults: RefCell<BTreeMap<&'static str, u64>>,
    hash: Cell<u64>,
    tail: Option<RefCell<VecDeque<String>>>,
}

impl Fate {
    /// Dice of a seed; with `trace`, the last lines of what happened are kept.
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        Self {
            dice: RefCell::new(fastrand::Rng::with_seed(seed)),
            faults: RefCell::default(),
            hash: Cell::new(0xcbf2_9ce4_8422_2325),
            tail: trace.then(RefCell::default),
        }
    }

    /// A number from `low` up to and without `high`.
    pub(crate) fn between(&self, low: Micros, high: Micros) -> Micros {
        if low >= high { low } else { self.dice.borrow_mut().i64(low..high) }
    }

    /// One of `count` places.
    pub(crate) fn index(&self, count: usize) -> usize {
        self.dice.borrow_mut().usize(0..count.max(1))
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// Whether something with this likelihood happens.
    pub(crate) fn chance(&self, per_mille: u32) -> bool {
        per_mille > 0 && self.dice.borrow_mut().u32(0..1000) < per_mille
    }

    /// Whether a fault with this likelihood happens; counted if so.
    pub(crate) fn fault(&self, name: &'static str, per_mille: u32) -> bool {
        let happens = self.chance(per_mille);
        if happens {
            self.count(name);
        }
        happens
    }

    /// Ten random bytes, as ids want them.
    pub(crate) fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.dice.borrow_mut().fill(&mut bytes);
        bytes
    }

    /// A seed for dice of somebody else's own.
    pub(crate) fn seed(&self) -> u64 {
        self.dice.borrow_mut().u64(..)
    }

    /// Counts a fault.
    pub(crate) fn count(&self, name: &'static str) {
        *self.faults.borrow_mut().entry(name).or_default() += 1;
    }

    /// Faults so far, by name.
    pub(crate) fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.faults.borrow().clone()
    }

    /// Notes that something happened: it becomes part of the hash, and of the trace if there is one.
    pub(crate) fn note(&self, now: Micros, what: &'static str, about: u64, say: impl FnOnce() -> String) {
        let mut hash = self.hash.get();
        for word in [now.cast_unsigned(), what.len() as u64 ^ u64::from(what.as_bytes()[0]) << 8, about] {
            hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        self.hash.set(hash);
        if let Some(tail) = &self.tail {
            let mut tail = tail.borrow_mut();
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(format!("{:>12.6} {what} {}", now as f64 / 1e6, say()));
        }
    }

    /// The hash of everything that was noted.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// The last lines of the trace.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.tail.as_ref().map(|tail| tail.borrow().iter().cloned().collect()).unwrap_or_default()
    }
}
