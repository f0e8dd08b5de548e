//! The part of the watch that deals with the tree: reaps what has ended, and sends the signals of the ladder.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use super::{Ended, Watch};
use crate::process::control::Report;
use crate::process::shim::ladder::{Cause, Rung};
use crate::process::tree;
use hopyard_runtime::clock::BootInstant;

/// How long a process may survive SIGKILL before the executor is told.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// Rounds of SIGKILL without a pause.
const KILL_ROUNDS: usize = 32;

impl Watch<'_> {
    pub(super) fn on_signals(&mut self) {
        let now = BootInstant::now();
        while let Ok(Some(info)) = self.signals.read_signal() {
            if i32::try_from(info.ssi_signo).is_ok_and(|signal| signal != Signal::SIGCHLD as i32) {
                self.end(Cause::Abandoned, now, "the shim was told to stop");
            }
        }
        self.reap(now);
    }

    /// Reaps everything that has ended. Since orphans come to the shim, having no child left means that the tree is gone.
    pub(super) fn reap(&mut self, now: BootInstant) {
        let had_ended = self.ended.is_some();
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(WaitStatus::Exited(pid, code)) if pid == self.running.pid => {
                    self.ended = Some(Ended { code: Some(code), signal: None, core: false });
                }
                Ok(WaitStatus::Signaled(pid, signal, core)) if pid == self.running.pid => {
                    self.ended = Some(Ended { code: None, signal: Some(signal as i32), core });
                }
                // Some child was ended by a real-time signal, whose number and pid the wrapper does not tell.
                Err(Errno::EINVAL) if self.ended.is_none() && kill(self.running.pid, None).is_err() => {
                    self.ended = Some(Ended { code: None, signal: None, core: false });
                }
                Ok(_) | Err(Errno::EINTR | Errno::EINVAL) => {}
                Err(_) => {
                    self.gone = self.gone.or(Some(now));
                    break;
                }
            }
        }
        if self.ended.is_some() && !had_ended && self.gone.is_none() {
            self.ladder.command_ended(now);
        }
    }

    pub(super) fn climb(&mut self, now: BootInstant) {
        while self.gone.is_none()
            && let Some(rung) = self.ladder.next(now)
        {
            let tree = self.tree();
            if self.ended.is_some() {
                self.left_over.extend(tree.iter().map(|process| process.pid));
            }
            match rung {
                Rung::Terminate => {
                    self.let_go();
                    let groups = tree::signal(&tree, Signal::SIGTERM, &self.terminated);
                    // A stopped process takes no SIGTERM until it goes on.
                    tree::signal(&tree, Signal::SIGCONT, &self.terminated);
                    self.terminated.extend(groups);
                }
                Rung::Kill => {
                    self.kill(tree.clone());
                    self.tell_stuck(&tree, now);
                }
            }
        }
    }

    fn kill(&mut self, mut tree: Vec<tree::Process>) {
        if let Some(group) = &self.running.cgroup {
            // What it does not reach, the sweep does.
            group.kill().unwrap_or_default();
        }
        let mut killed = HashSet::new();
        // Again at once while there are new ones, or a tree that forks all the time would keep ahead.
        for _ in 0..KILL_ROUNDS {
            let before = killed.len();
            killed.extend(tree.iter().map(|process| process.pid));
            if killed.len() == before {
                break;
            }
            tree::signal(&tree, Signal::SIGKILL, &BTreeSet::new());
            tree = self.tree();
        }
        if self.ended.is_some() {
            self.left_over.extend(killed);
        }
    }

    /// What lives of the step.
    pub(super) fn tree(&self) -> Vec<tree::Process> {
        self.tree_with_dead().into_iter().filter(|process| !process.zombie).collect()
    }

    /// What is there of the step, with what ended and was not reaped yet.
    pub(super) fn tree_with_dead(&self) -> Vec<tree::Process> {
        match tree::all() {
            Ok(all) => tree::descendants(&all, getpid().as_raw()),
            // Without /proc only the command's own group is known.
            Err(_) => {
                let pid = self.running.pid.as_raw();
                vec![tree::Process { pid, parent: getpid().as_raw(), group: pid, session: 0, zombie: false, state: 'R' }]
            }
        }
    }

    fn tell_stuck(&mut self, tree: &[tree::Process], now: BootInstant) {
        let since = *self.killing_since.get_or_insert(now);
        let pids: Vec<_> = tree.iter().map(|process| process.pid).collect();
        if now >= since.after(STUCK_AFTER) && pids != self.stuck {
            self.link.send(&Report::Stuck { pids: pids.clone() });
            self.stuck = pids;
        }
    }
}
