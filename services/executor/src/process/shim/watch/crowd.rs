//! The part of the watch that keeps a tree from growing without end: a fork bomb is ended before the machine is full.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::Watch;
use crate::process::shim::ladder::Cause;
use hopyard_runtime::clock::BootInstant;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// How many processes a tree may have, and how many tasks there are on the machine beside it.
#[derive(Debug)]
pub(super) struct Crowd {
    most: u64,
    /// Fewest tasks of the machine so far: whatever has come since may be the step's.
    fewest: u64,
    looked: BootInstant,
}

impl Crowd {
    /// Nothing is looked at for a limit of 0.
    pub(super) fn new(most: u64, now: BootInstant) -> Self {
        Self { most, fewest: tasks().unwrap_or(0), looked: now }
    }

    pub(super) fn due_at(&self) -> Option<BootInstant> {
        (self.most > 0).then(|| self.looked.after(EVERY))
    }

    /// Whether the tree is worth counting, which costs a look at every process of the machine.
    fn may_be_too_many(&mut self, now: BootInstant) -> bool {
        if self.due_at().is_none_or(|at| now < at) {
            return false;
        }
        self.looked = now;
        let Some(tasks) = tasks() else { return true };
        self.fewest = self.fewest.min(tasks);
        tasks - self.fewest > self.most / 2
    }
}

impl Watch<'_> {
    /// Ends a tree that has become too large, without grace: it would only grow on.
    pub(super) fn keep_crowd(&mut self, now: BootInstant) {
        if self.gone.is_some() || !self.crowd.may_be_too_many(now) {
            return;
        }
        let most = self.crowd.most;
        if self.tree().len() as u64 > most && self.ladder.request(Cause::Crowd, now, true) {
            self.spool.say(&format!("the step has more than {most} processes (HOPYARD_STEP_PROCESSES) and is ended"), now);
        }
    }
}

/// Keeps the kernel from giving this user more than `most` tasks beyond those of the whole machine now: this holds also
/// between two looks. It does not bind root.
pub(in crate::process::shim) fn limit(most: u64) -> nix::Result<()> {
    let Some(tasks) = tasks().filter(|_| most > 0) else { return Ok(()) };
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC)?;
    let limit = hard.min(tasks + most);
    setrlimit(Resource::RLIMIT_NPROC, limit, limit)
}

/// Tasks of the machine.
fn tasks() -> Option<u64> {
    parse(&fs::read_to_string("/proc/loadavg").ok()?)
}

fn parse(loadavg: &str) -> Option<u64> {
    let (_, all) = loadavg.split_ascii_whitespace().nth(3)?.split_once('/')?;
    all.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_the_machine_are_read() {
        assert_eq!(parse("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        assert_eq!(parse("0.20 0.18"), None);
        assert!(tasks().is_some_and(|tasks| tasks > 0));
    }

    #[test]
    fn a_tree_is_counted_only_when_the_machine_has_many_more_tasks() {
        let now = BootInstant::now();
        let at = |n: u32| now.after(EVERY * n);
        let mut crowd = Crowd { most: 1 << 40, fewest: u64::MAX, looked: now };
        assert!(!crowd.may_be_too_many(now), "not before its time");
        assert!(!crowd.may_be_too_many(at(1)));
        crowd.most = 1;
        crowd.fewest = 0;
        assert!(crowd.may_be_too_many(at(2)));
        crowd.most = 0;
        assert_eq!(crowd.due_at(), None);
        assert!(!crowd.may_be_too_many(at(3)));
    }
}
