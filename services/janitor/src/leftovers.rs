//! Processes that an attempt left behind, found by the mark in their first environment, and processes within a directory.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, getpid};

/// Variable that marks the processes of an attempt.
const MARK: &str = "HOPYARD_ATTEMPT";
/// How long killed processes may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
struct Process {
    pid: i32,
    parent: i32,
}

/// Kills what is left of an attempt (`<run>.<step>.<n>`) and all its descendants, and waits until it is gone. Blocks for
/// up to five seconds; returns the processes that are still there, which are uninterruptible or of another user.
///
/// # Errors
/// When `/proc` cannot be listed.
pub(crate) fn kill_marked(attempt: &str) -> io::Result<Vec<i32>> {
    let deadline = Instant::now() + GONE_WITHIN;
    let mark = format!("{MARK}={attempt}");
    loop {
        let alive = family(&living()?, |pid| environment_has(pid, |entry| entry == mark.as_bytes()));
        if alive.is_empty() || Instant::now() >= deadline {
            return Ok(alive);
        }
        for pid in alive {
            match signal::kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => tracing::info!(attempt, pid, "a left-over process was ended"),
                Err(error) => tracing::warn!(attempt, pid, %error, "a left-over process cannot be ended"),
            }
        }
        // Nobody tells when a process that is no child of ours is gone.
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a live process works in `dir` or below, or belongs to an attempt of the run that `run` names.
///
/// # Errors
/// When `/proc` cannot be listed.
pub(crate) fn in_use(dir: &Path, run: &str) -> io::Result<bool> {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mark = format!("{MARK}={run}.");
    let inside = |process: &Process| fs::read_link(format!("/proc/{}/cwd", process.pid)).is_ok_and(|cwd| cwd.starts_with(&real));
    Ok(living()?.iter().any(|process| inside(process) || environment_has(process.pid, |entry| entry.starts_with(mark.as_bytes()))))
}

/// Whether a live process carries the mark of an attempt.
///
/// # Errors
/// When `/proc` cannot be listed.
pub(crate) fn alive(attempt: &str) -> io::Result<bool> {
    let mark = format!("{MARK}={attempt}");
    Ok(living()?.iter().any(|process| environment_has(process.pid, |entry| entry == mark.as_bytes())))
}

/// All processes that have not ended; this one is not among them.
fn living() -> io::Result<Vec<Process>> {
    let me = getpid().as_raw();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        if let Some(process) = stat.and_then(|stat| parse_stat(pid, &stat)).filter(|p| p.pid != me) {
            found.push(process);
        }
    }
    Ok(found)
}

fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    // The command name may itself hold spaces and parentheses; nothing after it does.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(Process { pid, parent })
}

/// Marked processes and their descendants.
fn family(all: &[Process], marked: impl Fn(i32) -> bool) -> Vec<i32> {
    let mut tree: HashSet<i32> = all.iter().map(|p| p.pid).filter(|pid| marked(*pid)).collect();
    loop {
        let before = tree.len();
        for process in all {
            if tree.contains(&process.parent) {
                tree.insert(process.pid);
            }
        }
        if tree.len() == before {
            return tree.into_iter().collect();
        }
    }
}

fn environment_has(pid: i32, matches: impl Fn(&[u8]) -> bool) -> bool {
    // Unreadable means that it belongs to another user, so that it is none of ours.
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|byte| *byte == 0).any(matches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "these cases need processes of their own")]
    fn sleeper(dir: &Path, attempt: &str) -> std::process::Child {
        let mut command = std::process::Command::new("sleep");
        command.arg("600").current_dir(dir).env(MARK, attempt).spawn().unwrap()
    }

    #[test]
    fn marked_processes_are_found_and_killed_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (format!("janitor-test-{}.fix.1", std::process::id()), format!("janitor-test-{}.fix.11", std::process::id()));
        let (mut first, mut second) = (sleeper(dir.path(), &one), sleeper(Path::new("/"), &other));
        assert!(alive(&one).unwrap());
        assert!(in_use(dir.path(), "another-run").unwrap());
        assert!(in_use(Path::new("/nonexistent"), &format!("janitor-test-{}", std::process::id())).unwrap());
        assert!(!in_use(Path::new("/nonexistent"), "another-run").unwrap());
        let ended = thread::spawn(move || first.wait().unwrap());
        assert_eq!(kill_marked(&one).unwrap(), Vec::<i32>::new());
        assert!(!ended.join().unwrap().success());
        assert!(!alive(&one).unwrap());
        assert!(second.try_wait().unwrap().is_none(), "a longer name is another attempt");
        second.kill().unwrap();
        second.wait().unwrap();
    }

    #[test]
    fn descendants_belong_to_the_family() {
        let process = |pid, parent| Process { pid, parent };
        let all = [process(12, 11), process(11, 10), process(10, 1), process(20, 1)];
        let mut found = family(&all, |pid| pid == 10);
        found.sort_unstable();
        assert_eq!(found, [10, 11, 12]);
        assert!(parse_stat(42, "42 (a) Z 1) S 7 8").is_some_and(|p| p.parent == 7));
        assert!(parse_stat(42, "42 (a) Z 7 8").is_none());
    }
}
