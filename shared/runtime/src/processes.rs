//! Processes as `/proc` shows them, and the mark by which those of an attempt are found wherever they went.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, getpid};

use crate::clock::BootInstant;

/// Variable in the environment of everything that an attempt starts; its value is `<run>.<step>.<attempt>`.
pub const ATTEMPT: &str = "HOPYARD_ATTEMPT";

/// Looks at a process in the middle of `exec`, and the pause between two.
const EXEC_LOOKS: usize = 50;
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// How long [`kill_marked`] waits for killed processes to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// One process; ids as the kernel counts them here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent, or the nearest living subreaper.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Whether it has ended and only waits to be reaped.
    pub zombie: bool,
    /// What it is doing, by the kernel's letter: `R`, `S`, `D`, `T` (stopped), `t` (stopped by a tracer) and so on.
    pub state: char,
}

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Processes that were found and ended.
    pub killed: usize,
    /// Processes that are still there: uninterruptible, or of another user.
    pub alive: Vec<i32>,
}

/// All processes that can be seen, in no order. Processes that end meanwhile are left out.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn all() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        found.extend(look(pid));
    }
    Ok(found)
}

/// One process, as long as it is there.
pub fn look(pid: i32) -> Option<Process> {
    parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    // The command name may itself hold spaces and parentheses; nothing after it does.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    let state = state.chars().next()?;
    Some(Process { pid, parent: number()?, group: number()?, session: number()?, zombie: matches!(state, 'Z' | 'X'), state })
}

/// Descendants of `root`, the dead among them that were not reaped yet; itself is not.
pub fn descendants(all: &[Process], root: i32) -> Vec<Process> {
    let mut tree = HashSet::from([root]);
    grow(all, &mut tree);
    all.iter().filter(|process| process.pid != root && tree.contains(&process.pid)).copied().collect()
}

/// Adds the descendants of everything in `tree`.
fn grow(all: &[Process], tree: &mut HashSet<i32>) {
    loop {
        let before = tree.len();
        for process in all {
            if tree.contains(&process.parent) {
                tree.insert(process.pid);
            }
        }
        if tree.len() == before {
            return;
        }
    }
}

/// Kills what is left of an attempt whose shim is gone, and waits until it is gone too. Blocks for up to five seconds.
///
/// Found are the processes whose first environment holds `HOPYARD_ATTEMPT=<attempt>`, those in the `session` of the
/// attempt's shim, all members of a session that such a process leads, and all descendants of these.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn kill_marked(attempt: &str, session: Option<i32>) -> io::Result<Swept> {
    let began = BootInstant::now();
    let mut seen = HashSet::new();
    let mut empty_looks = 0;
    loop {
        let alive = marked(&all()?, attempt, session);
        seen.extend(alive.iter().map(|process| process.pid));
        // One look may miss a child that was started during it by a parent that has ended since.
        empty_looks = if alive.is_empty() { empty_looks + 1 } else { 0 };
        if empty_looks == 2 || began.elapsed() >= GONE_WITHIN {
            let alive: Vec<_> = alive.iter().map(|process| process.pid).collect();
            return Ok(Swept { killed: seen.len() - alive.len(), alive });
        }
        for process in &alive {
            // One by one: the group of a marked process may hold others if the mark was inherited by hand.
            if let Err(error) = signal::kill(Pid::from_raw(process.pid), Signal::SIGKILL)
                && error != Errno::ESRCH
            {
                tracing::debug!(pid = process.pid, %error, "cannot kill a left-over process");
            }
        }
        // The kernel says nothing when a process that is not our child is gone.
        thread::sleep(Duration::from_millis(5));
    }
}

fn marked(all: &[Process], attempt: &str, session: Option<i32>) -> Vec<Process> {
    let me = getpid().as_raw();
    let mut tree: HashSet<i32> = all
        .iter()
        .filter(|process| session == Some(process.session) || is_marked(process.pid, |mark| mark == attempt))
        .map(|process| process.pid)
        .collect();
    loop {
        grow(all, &mut tree);
        let before = tree.len();
        let led: HashSet<i32> = all
            .iter()
            .filter(|process| process.session == process.pid && tree.contains(&process.pid))
            .map(|process| process.session)
            .collect();
        tree.extend(all.iter().filter(|process| led.contains(&process.session)).map(|process| process.pid));
        if tree.len() == before {
            break;
        }
    }
    all.iter().filter(|process| process.pid != me && !process.zombie && tree.contains(&process.pid)).copied().collect()
}

/// Whether the first environment of a process holds the mark of an attempt that `matches`. Blocks for some milliseconds while
/// the process is in the middle of `exec`.
pub fn is_marked(pid: i32, matches: impl Fn(&str) -> bool) -> bool {
    let mut in_program = false;
    for _ in 0..EXEC_LOOKS {
        // Unreadable means that it belongs to another user, so that it is none of ours.
        let Ok(env) = fs::read(format!("/proc/{pid}/environ")) else { return false };
        let mut entries = env.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
        if entries.any(|entry| entry.split_once('=').is_some_and(|(name, value)| name == ATTEMPT && matches(value))) {
            return true;
        }
        if !env.is_empty() || in_program {
            return false;
        }
        // It may have entered its program since its environment was read.
        in_program = !in_exec(pid);
        if !in_program {
            thread::sleep(EXEC_PAUSE);
        }
    }
    false
}

/// Whether a process has left its old program and not entered the new one, so that it shows neither arguments nor
/// environment. Threads of the kernel and the dead show none either, and no program.
fn in_exec(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|arguments| arguments.is_empty())
        && fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process { pid, parent, group: pid, session: 1, zombie: false, state: 'S' }
    }

    #[test]
    fn a_name_full_of_traps_does_not_hide_a_process() {
        let stat = "42 (a) R 1 (x) y) S 7 8 9 0 -1 4194560 1";
        let expected = Process { pid: 42, parent: 7, group: 8, session: 9, zombie: false, state: 'S' };
        assert_eq!(parse_stat(42, stat), Some(expected));
        assert!(parse_stat(42, "42 (x) Z 7 8 9 0").unwrap().zombie);
        assert_eq!(parse_stat(42, "42 (x"), None);
    }

    #[test]
    fn descendants_are_found_in_any_order_and_with_the_dead() {
        let dead = Process { zombie: true, ..process(13, 10) };
        let all = [process(12, 11), process(11, 10), dead, process(14, 13), process(10, 1), process(20, 1)];
        let mut found: Vec<_> = descendants(&all, 10).iter().map(|process| process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [11, 12, 13, 14]);
    }

    #[test]
    fn this_process_is_in_the_list_with_its_parent() {
        let me = getpid().as_raw();
        let found = all().unwrap().into_iter().find(|process| process.pid == me).unwrap();
        assert_eq!(found.parent, nix::unistd::getppid().as_raw());
        assert!(!found.zombie);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the case needs processes of its own")]
    fn a_process_that_is_about_to_run_its_program_is_found_by_its_mark() {
        for round in 0..200 {
            let mark = format!("processes-test-{}.step.{round}", std::process::id());
            let mut child = std::process::Command::new("sleep")
                .arg("600")
                .env(ATTEMPT, &mark)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            assert!(is_marked(pid, |found| found == mark), "round {round}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
