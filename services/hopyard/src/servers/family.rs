//! The processes below a server, read from `/proc`; where there is none, nothing is known and nothing is found.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The direct children of a process.
pub(super) fn children(parent: u32) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = parent.to_string();
    pids.map(Pid::from_raw).filter(|pid| state_and_parent(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// Whether a process runs. One that has ended and waits to be reaped does not: where process 1 reaps nobody, orphans stay so.
pub(super) fn lives(pid: Pid) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != "Z" && state != "X")
}

/// Kills those that still run; true when none does any more.
pub(super) fn kill_all(family: &[Pid]) -> bool {
    let living: Vec<_> = family.iter().filter(|pid| lives(**pid)).collect();
    for pid in &living {
        // It may have ended meanwhile, which is what we want.
        let _ = kill(**pid, Signal::SIGKILL);
    }
    living.is_empty()
}

/// From `pid (name) state parent …`; the name may hold spaces and parentheses.
fn state_and_parent(pid: Pid) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit(')').next()?.split_whitespace();
    Some((words.next()?.to_string(), words.next()?.to_string()))
}
