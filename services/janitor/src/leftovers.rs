//! Processes that an attempt left behind, and processes within a directory.

use std::fs;
use std::io;
use std::path::Path;

use hopyard_runtime::processes::{self, is_marked};

/// Kills what is left of an attempt (`<run>.<step>.<n>`) and all its descendants, and waits until it is gone. Blocks for
/// up to five seconds; returns the processes that are still there, which are uninterruptible or of another user.
///
/// # Errors
/// When `/proc` cannot be listed.
pub(crate) fn kill_marked(attempt: &str) -> io::Result<Vec<i32>> {
    let swept = processes::kill_marked(attempt, None)?;
    if swept.killed > 0 {
        tracing::info!(attempt, killed = swept.killed, "left-over processes were ended");
    }
    Ok(swept.alive)
}

/// Whether a live process works in `dir` or below, or belongs to an attempt of the run that `run` names.
///
/// # Errors
/// When `/proc` cannot be listed.
pub(crate) fn in_use(dir: &Path, run: &str) -> io::Result<bool> {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mark = format!("{run}.");
    let inside = |pid: i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&real));
    Ok(living()?.any(|pid| inside(pid) || is_marked(pid, |attempt| attempt.starts_with(&mark))))
}

/// Whether a live process carries the mark of an attempt.
///
/// # Errors
/// When `/proc` cannot be listed.
pub(crate) fn alive(attempt: &str) -> io::Result<bool> {
    Ok(living()?.any(|pid| is_marked(pid, |mark| mark == attempt)))
}

/// All processes that have not ended; this one is not among them.
fn living() -> io::Result<impl Iterator<Item = i32>> {
    let me = nix::unistd::getpid().as_raw();
    Ok(processes::all()?.into_iter().filter(move |p| !p.zombie && p.pid != me).map(|p| p.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "these cases need processes of their own")]
    fn sleeper(dir: &Path, attempt: &str) -> std::process::Child {
        let mut command = std::process::Command::new("sleep");
        command.arg("600").current_dir(dir).env(processes::ATTEMPT, attempt).spawn().unwrap()
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
        let ended = std::thread::spawn(move || first.wait().unwrap());
        assert_eq!(kill_marked(&one).unwrap(), Vec::<i32>::new());
        assert!(!ended.join().unwrap().success());
        assert!(!alive(&one).unwrap());
        assert!(second.try_wait().unwrap().is_none(), "a longer name is another attempt");
        second.kill().unwrap();
        second.wait().unwrap();
    }
}
