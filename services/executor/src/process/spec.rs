//! What the executor asks the shim to run, and within which limits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use hopyard_runtime::clock::BootInstant;

/// Everything that is needed to start the process of a step.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// The spool directory of the attempt; made if missing, one per attempt.
    pub dir: PathBuf,
    /// A directory in a delegated cgroup v2 tree for this attempt alone; made if missing. Without it, or if it cannot
    /// be used, the tree is found by its parentage.
    pub cgroup: Option<PathBuf>,
    /// The step itself.
    pub step: StepSpec,
}

/// A command and the limits it runs within. It travels over the control socket, so that no secret of the environment
/// is ever written to disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSpec {
    /// `<run>.<step>.<attempt>`; reaches the command as `HOPYARD_ATTEMPT`, by which left-overs are found.
    pub attempt: String,
    /// Program and arguments; the program is searched in the `PATH` of `env` unless it contains a slash.
    pub argv: Vec<String>,
    /// The whole environment of the command; nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Directory in which the command starts.
    pub cwd: PathBuf,
    /// File that the command reads as its standard input; without one it has none.
    #[serde(default)]
    pub input: Option<PathBuf>,
    /// When and how the command is ended, and how much of its output is kept.
    pub limits: Limits,
}

impl std::fmt::Debug for StepSpec {
    // Values of the environment may be secrets; only their names are shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepSpec")
            .field("attempt", &self.attempt)
            .field("argv", &self.argv)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("cwd", &self.cwd)
            .field("input", &self.input)
            .field("limits", &self.limits)
            .finish()
    }
}

/// The limits of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Milliseconds between SIGTERM and SIGKILL.
    pub grace_ms: u64,
    /// Milliseconds from the start of the command to its `timeout`.
    pub timeout_ms: Option<u64>,
    /// Milliseconds without any output after which the command ends with `idle_timeout`.
    pub idle_timeout_ms: Option<u64>,
    /// Bytes of output kept from the start; of what follows only the last MiB is kept.
    pub log_cap_bytes: u64,
    /// Processes that the command and its descendants may be at once; 0 for no limit.
    pub processes: u64,
    /// The lease of the attempt; without one the shim enforces none.
    pub lease: Option<Lease>,
    /// Milliseconds for which the tree is held still at most while its lease is overdue; with 0 it is ended at once.
    pub freeze_limit_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            grace_ms: 10_000,
            timeout_ms: None,
            idle_timeout_ms: None,
            log_cap_bytes: 64 << 20,
            processes: 0,
            lease: None,
            freeze_limit_ms: 600_000,
        }
    }
}

impl Limits {
    /// The time between SIGTERM and SIGKILL.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

/// The right to run the attempt, as the shim sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Length of a full lease in milliseconds.
    pub length_ms: u64,
    /// When the lease ends, counted from the sending of the last answered claim or renewal.
    pub expires: BootInstant,
}

impl Lease {
    /// A lease of `length` of which `left` remains now.
    pub fn new(length: Duration, left: Duration) -> Self {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Self { length_ms, expires: BootInstant::now().after(left) }
    }

    /// When two thirds have passed: without a renewal by then, the attempt may not go on for now.
    pub fn overdue_at(&self) -> BootInstant {
        self.expires.before(Duration::from_millis(self.length_ms / 3))
    }

    /// When a tree that is being ended gets SIGKILL whatever its grace, so that it is gone before the lease is.
    pub fn hard_stop(&self) -> BootInstant {
        self.expires.before(Duration::from_millis(self.length_ms / 6))
    }
}
