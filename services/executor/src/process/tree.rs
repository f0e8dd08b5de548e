//! Ending the processes of a step: whole groups at once, the caller's own spared.

use std::collections::BTreeSet;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, getpid};

pub use hopyard_runtime::processes::{Process, Swept, all, descendants, kill_marked, look};

/// Signals processes: whole groups at once, so that a fork in between does not escape, except the caller's own group,
/// whose members are signalled one by one. Groups in `spared` are passed over; returns the groups that were signalled.
pub fn signal(processes: &[Process], signal: Signal, spared: &BTreeSet<i32>) -> BTreeSet<i32> {
    let (me, own_group) = (getpid().as_raw(), nix::unistd::getpgrp().as_raw());
    let mut groups = BTreeSet::new();
    for process in processes.iter().filter(|process| process.pid != me && !spared.contains(&process.group)) {
        let sent = if process.group == own_group {
            signal::kill(Pid::from_raw(process.pid), signal)
        } else if groups.contains(&process.group) {
            continue;
        } else {
            signal::killpg(Pid::from_raw(process.group), signal)
        };
        groups.insert(process.group);
        // Gone already is as good; what cannot be signalled shows as still alive.
        if let Err(error) = sent
            && error != Errno::ESRCH
        {
            tracing::debug!(pid = process.pid, %error, "cannot signal a process of a step");
        }
    }
    groups
}
