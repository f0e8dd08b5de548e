//! How the process of a step ended, as facts; what they mean for the attempt is decided elsewhere.

use std::path::Path;
use std::{fs, io};

use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::files::{PRIVATE, write_over};

/// Why the command is no longer running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitKind {
    /// It ended by itself with an exit code.
    Exited,
    /// A signal that did not come from the shim ended it.
    Signaled,
    /// It ran longer than its timeout.
    Timeout,
    /// It wrote nothing for longer than its idle timeout.
    IdleTimeout,
    /// The executor asked for its end; `reason` says why.
    Killed,
    /// The lease was not renewed in time.
    LeaseLost,
    /// It had more processes than a step may have.
    TooManyProcesses,
    /// The command could not be started; `error` says why.
    SpawnFailed,
    /// The executor died or let go, or the shim itself was told to stop.
    Abandoned,
    /// The shim ended without exit facts; the executor has ended the tree.
    ShimLost,
}

/// The end of a step's process. It stands in `exit.json` once nothing of the step is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitFacts {
    /// Why the command is no longer running.
    pub kind: ExitKind,
    /// Exit code of the command, if it ended with one.
    pub code: Option<i32>,
    /// Signal that ended the command, if one did; unknown for a real-time signal.
    pub signal: Option<i32>,
    /// Whether the signal left a core dump.
    pub core: bool,
    /// Whether the kernel killed a process of the step for want of memory; only seen with a memory cgroup.
    pub out_of_memory: bool,
    /// The reason given with a kill.
    pub reason: Option<String>,
    /// What went wrong when the kind alone does not say it.
    pub error: Option<String>,
    /// When the command started.
    #[serde(with = "optional_micros")]
    pub started_at: Option<DateTime<Utc>>,
    /// When nothing of it was left.
    #[serde(with = "micros")]
    pub finished_at: DateTime<Utc>,
    /// Milliseconds for which the tree was held still because its lease was overdue.
    #[serde(default)]
    pub frozen_ms: u64,
    /// How many processes outlived the command and were ended by the shim.
    pub leftover_killed: u32,
    /// Whether a process outside of the tree kept an output pipe open.
    pub pipes_leaked: bool,
    /// Bytes of the merged log in the spool, lines of the shim included.
    pub log_bytes: u64,
    /// Bytes of output that were drained and not kept.
    pub log_dropped_bytes: u64,
    /// Whether any output was not kept.
    pub log_truncated: bool,
    /// Why the spool could not be written on, if so.
    pub log_error: Option<String>,
}

impl ExitFacts {
    /// Facts of an end now, with nothing known but its kind.
    pub fn now(kind: ExitKind) -> Self {
        Self {
            kind,
            code: None,
            signal: None,
            core: false,
            out_of_memory: false,
            reason: None,
            error: None,
            started_at: None,
            finished_at: Utc::now(),
            frozen_ms: 0,
            leftover_killed: 0,
            pipes_leaked: false,
            log_bytes: 0,
            log_dropped_bytes: 0,
            log_truncated: false,
            log_error: None,
        }
    }

    /// Whether the command ended by itself with code 0.
    pub fn succeeded(&self) -> bool {
        self.kind == ExitKind::Exited && self.code == Some(0)
    }

    /// Name of the signal that ended the command, such as `SIGSEGV`.
    pub fn signal_name(&self) -> Option<String> {
        let number = self.signal?;
        Some(Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned()))
    }
}

/// Writes the facts. A reader sees all of them or none: what is not whole is none.
pub(super) fn write(path: &Path, facts: &ExitFacts) -> io::Result<()> {
    write_over(path, &serde_json::to_vec(facts)?, PRIVATE)
}

/// Reads the facts, `None` if there are none.
pub(super) fn read(path: &Path) -> io::Result<Option<ExitFacts>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice(&text) {
        Ok(facts) => Ok(Some(facts)),
        // Nothing yet, or its writer is at it, or was ended there.
        Err(error) if error.is_eof() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

mod micros {
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Micros, true))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        DateTime::deserialize(deserializer)
    }
}

mod optional_micros {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::micros::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        Option::deserialize(deserializer)
    }
}
