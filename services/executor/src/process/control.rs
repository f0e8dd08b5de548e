//! The words between executor and shim: one JSON object per line on the control socket.

use serde::{Deserialize, Serialize};

use super::exit::ExitFacts;
use super::spec::StepSpec;
use hopyard_runtime::clock::BootInstant;

/// What the executor says. The end of the stream means that it died or let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// The step to run; always the first line.
    Spec(Box<StepSpec>),
    /// The lease now ends at this boot-time instant.
    Lease {
        /// Microseconds since boot.
        expires: BootInstant,
    },
    /// End the tree.
    Kill {
        /// Why, as it will stand in the exit facts.
        reason: String,
        /// SIGKILL at once, without SIGTERM and grace.
        force: bool,
    },
}

/// What the shim says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The command runs.
    Started {
        /// Its process id, which is also its process group.
        pid: i32,
    },
    /// The spool has grown; a hint, several growths may be told as one.
    Spool {
        /// Bytes of the merged log.
        bytes: u64,
    },
    /// The lease is overdue: the tree is held still.
    Frozen,
    /// The lease was renewed: the tree goes on.
    Thawed {
        /// Milliseconds for which it was held still.
        after_ms: u64,
    },
    /// These processes live on after SIGKILL; empty once they are gone.
    Stuck {
        /// Their process ids.
        pids: Vec<i32>,
    },
    /// The tree is gone and the exit file is written; always the last line.
    Exited(Box<ExitFacts>),
}

/// A message as a line.
pub fn line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("control messages have string keys and finite numbers only");
    line.push(b'\n');
    line
}
