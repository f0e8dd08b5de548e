//! The part of the watch that holds the tree still while its lease is overdue, and lets it go on.
//!
//! A cgroup of its own is frozen as a whole. What is in none is stopped process by process, parents first, until two looks
//! in a row find nothing that runs and nothing that ended meanwhile: a parent that is stopped cannot fork, and one that
//! forked during a look has left a child for the next, which a single look may miss if the parent is gone by then. Nothing
//! is reaped between the looks, so what ended shows.
//!
//! A child is stopped only once its parent stands: one that still waits for the processor to take its own stop would be
//! told of the child's, and a shell with job control takes that for the child's result.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Watch;
use crate::process::control::Report;
use crate::process::shim::hold::Turn;
use crate::process::shim::ladder::Cause;
use crate::process::tree::{self, Process};
use hopyard_runtime::clock::BootInstant;

/// Looks at a tree in a row before the pipes and the executor have their turn.
const LOOKS: usize = 32;
/// Looks in a row after which a tree is held to be still.
const CALM: usize = 2;
/// Glances at parents that were told to stop before their children are left for the next look, and the pause between two:
/// few, however many parents there are, since the pipes wait meanwhile.
const GLANCES: usize = 20;
const GLANCE: Duration = Duration::from_micros(200);

impl Watch<'_> {
    /// The one place that decides what happens to a step whose lease may be lost.
    pub(super) fn keep_lease(&mut self, now: BootInstant) {
        while let Some(turn) = self.hold.next(self.ladder.lease(), now) {
            match turn {
                Turn::Stop { first } => {
                    if first {
                        self.spool.say("the lease of the attempt was not renewed in time: the step is held still until it is", now);
                        self.link.send(&Report::Frozen);
                    }
                    let quiet = self.hold_still();
                    self.hold.looked(quiet, BootInstant::now());
                }
                Turn::Release(after) => {
                    self.go_on();
                    // Silence goes on from where it was.
                    self.last_output = self.last_output.after(after).min(now);
                    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                    self.spool.say(&format!("the lease is renewed: the step goes on after {after_ms} ms"), now);
                    self.link.send(&Report::Thawed { after_ms });
                }
                Turn::GiveUp => {
                    let held = self.hold.since().map_or(0, |since| since.until(now).as_millis());
                    let text = match self.hold.limit().as_millis() {
                        0 => "the lease of the attempt was not renewed in time".to_owned(),
                        limit if held >= limit => format!("the lease of the attempt was not renewed within {limit} ms of being held still"),
                        _ => "the lease of the attempt is about to end and the step cannot be held still".to_owned(),
                    };
                    self.end(Cause::LeaseLost, now, &text);
                    return;
                }
            }
        }
    }

    /// The tree is being ended: it takes no SIGTERM while it is held still.
    pub(super) fn let_go(&mut self) {
        if self.hold.is_on() {
            self.hold.end(BootInstant::now());
            self.go_on();
        }
    }

    /// Stops whatever of the tree runs; true once nothing of it does.
    fn hold_still(&mut self) -> bool {
        let frozen = self.running.cgroup.as_ref().filter(|group| group.freeze(true).is_ok());
        let inside = frozen.map(|group| group.members()).unwrap_or_default();
        let (mut ended, mut calm) = (None, 0);
        for _ in 0..LOOKS {
            let (dead, tree): (Vec<_>, Vec<_>) = self.tree_with_dead().into_iter().partition(|process| process.zombie);
            let mut running: Vec<_> = tree.iter().filter(|process| !inside.contains(&process.pid) && !self.is_still(process)).collect();
            let dead: HashSet<i32> = dead.iter().map(|process| process.pid).collect();
            calm = if running.is_empty() && ended.as_ref().is_none_or(|before| *before == dead) { calm + 1 } else { 0 };
            ended = Some(dead);
            if calm == CALM {
                return self.running.cgroup.as_ref().is_none_or(|group| inside.is_empty() || group.is_frozen());
            }
            let parents: HashMap<i32, i32> = tree.iter().map(|process| (process.pid, process.parent)).collect();
            running.sort_by_key(|process| depth(&parents, process.pid));
            let with_children: HashSet<i32> = running.iter().map(|process| process.parent).collect();
            let (mut moving, mut glances) = (HashSet::new(), GLANCES);
            for process in running {
                if moving.contains(&process.parent) {
                    moving.insert(process.pid);
                    continue;
                }
                // What is gone already shows in no further look.
                let sent = kill(Pid::from_raw(process.pid), Signal::SIGSTOP).is_ok();
                if sent && !self.stopped.contains(&process.pid) {
                    self.stopped.push(process.pid);
                }
                if with_children.contains(&process.pid) && !self.stands(process.pid, &mut glances) {
                    moving.insert(process.pid);
                }
            }
        }
        false
    }

    /// Whether a process that was told to stop stands, or is gone; waits for it as long as there are `glances` left.
    fn stands(&self, pid: i32, glances: &mut usize) -> bool {
        loop {
            if tree::look(pid).is_none_or(|process| process.zombie || self.is_still(&process)) {
                return true;
            }
            if *glances == 0 {
                return false;
            }
            *glances -= 1;
            thread::sleep(GLANCE);
        }
    }

    /// Stopped, or in the middle of a system call with a SIGSTOP that waits for its end: a parent in `vfork` stays there as
    /// long as its child is stopped.
    fn is_still(&self, process: &Process) -> bool {
        matches!(process.state, 'T' | 't') || (process.state == 'D' && self.stopped.contains(&process.pid))
    }

    /// Lets everything go on that was stopped here, children first, so that no parent ever sees its child stopped. What had
    /// stopped itself stays so.
    fn go_on(&mut self) {
        if let Some(group) = &self.running.cgroup {
            // Refused only where freezing was refused before.
            group.freeze(false).unwrap_or_default();
        }
        let tree = self.tree();
        for pid in std::mem::take(&mut self.stopped).into_iter().rev() {
            if tree.iter().any(|process| process.pid == pid) {
                // Gone in between is as good.
                kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap_or_default();
            }
        }
    }
}

/// Ancestors of a process within the tree.
fn depth(parents: &HashMap<i32, i32>, pid: i32) -> usize {
    std::iter::successors(parents.get(&pid), |parent| parents.get(parent)).take(parents.len()).count()
}
