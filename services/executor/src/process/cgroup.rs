//! The cgroup v2 of a step, where the service was delegated one: its whole tree dies by one write.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The group that holds the command and its descendants, and not the shim.
#[derive(Debug)]
pub(super) struct StepCgroup {
    step: PathBuf,
    shim: PathBuf,
}

impl StepCgroup {
    /// Moves the calling process into the step's group, so that what it starts next is born there.
    pub(super) fn enter(dir: &Path) -> io::Result<Self> {
        let group = Self { step: dir.join("step"), shim: dir.join("shim") };
        fs::create_dir_all(&group.step)?;
        fs::create_dir_all(&group.shim)?;
        if !group.step.join("cgroup.kill").exists() {
            group.remove();
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no cgroup v2 with cgroup.kill (linux 5.14)"));
        }
        if let Err(error) = join(&group.step) {
            group.remove();
            return Err(error);
        }
        Ok(group)
    }

    /// Moves the calling process out again; the command stays.
    pub(super) fn leave(&self) -> io::Result<()> {
        join(&self.shim)
    }

    /// Kills everything in the group, also what is being forked just now.
    pub(super) fn kill(&self) -> io::Result<()> {
        fs::write(self.step.join("cgroup.kill"), "1")
    }

    /// Holds everything in the group still, or lets it go on.
    pub(super) fn freeze(&self, still: bool) -> io::Result<()> {
        fs::write(self.step.join("cgroup.freeze"), if still { "1" } else { "0" })
    }

    /// Whether everything in the group is held still.
    pub(super) fn is_frozen(&self) -> bool {
        fs::read_to_string(self.step.join("cgroup.events")).is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
    }

    /// Processes of the group.
    pub(super) fn members(&self) -> HashSet<i32> {
        let procs = fs::read_to_string(self.step.join("cgroup.procs")).unwrap_or_default();
        procs.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Whether the kernel killed a process of the group for want of memory; false where memory is not accounted.
    pub(super) fn out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.step.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.is_some_and(|count| count.trim() != "0")
    }

    /// Removes the group of the step, which must be empty; the shim's own goes with [`remove`] after the shim.
    pub(super) fn remove(&self) {
        // A group that is not there or not empty is left to the caller of `remove`.
        fs::remove_dir(&self.step).unwrap_or_default();
    }
}

/// Kills what is in an attempt's group when its shim can no longer do it; true if there is such a group.
pub fn kill(dir: &Path) -> bool {
    fs::write(dir.join("step").join("cgroup.kill"), "1").is_ok()
}

/// Removes what is left of an attempt's groups once its shim is gone; says nothing if there is nothing.
pub fn remove(dir: &Path) {
    for group in [dir.join("step"), dir.join("shim"), dir.to_owned()] {
        if let Err(error) = fs::remove_dir(&group)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(group = %group.display(), %error, "cannot remove a cgroup");
        }
    }
}

fn join(group: &Path) -> io::Result<()> {
    // 0 stands for the writing process.
    fs::write(group.join("cgroup.procs"), "0")
}
