//! The process of a step: started under a shim, watched, logged to a local spool and ended with its whole tree.
//!
//! One shim per step owns the step's process tree. It is forked by the [`Nursery`], which is the same executable, started with
//! the subcommand `step-nursery` and dispatched to [`nursery_main`] before any thread exists. Executor and shim talk over a
//! socket pair (the shim's standard input): the end of it means that the executor died or let go, and the shim then ends the
//! tree by itself.
//!
//! ```text
//! executor ── spec, lease, kill ──► shim ── spawn, TERM, KILL ──► step and its descendants
//!          ◄─ started, spool, exited ─┘ └── log.spool ◄── stdout, stderr ──┘
//! ```

pub mod cgroup;
pub mod control;
pub mod environment;
pub mod exit;
mod nursery;
pub mod outputs;
mod packets;
mod shim;
pub mod spec;
pub mod spool;
mod supervise;
pub mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

pub use exit::{ExitFacts, ExitKind};
pub use nursery::{Nursery, ShimProcess};
pub use shim::nursery_main;
pub use spec::{Lease, Limits, ProcessSpec, StepSpec};
pub use spool::SpoolReader;
pub use supervise::Supervision;

use control::Command;
use hopyard_contract::log::frame::Piece;
use hopyard_runtime::bounds;
use hopyard_runtime::clock::BootInstant;

/// Name of the merged log in the spool directory.
pub const SPOOL_FILE: &str = "log.spool";
/// Name of the exit facts in the spool directory.
pub const EXIT_FILE: &str = "exit.json";
/// Name of the file that takes what the shim itself says on standard error.
pub const SHIM_ERRORS: &str = "shim.err";
/// The subcommand that the executable hands to [`nursery_main`].
pub const NURSERY_COMMAND: &str = "step-nursery";

/// Words to a shim that wait to be written: it is given 30 s to read one, in which a few renewals come.
const COMMANDS: usize = 64;

/// A handle on the process of one attempt; clones name the same process.
///
/// When the last handle is dropped, the control socket closes and the shim ends the tree.
#[derive(Debug, Clone)]
pub struct StepProcess {
    attempt: Arc<str>,
    spool: PathBuf,
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
}

/// What the executor knows of a step's process.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// Process id of the step's command once it runs.
    pub(crate) pid: Option<i32>,
    /// Bytes of the merged log in the spool.
    pub(crate) spooled: u64,
    /// Whether the shim holds the tree still because the lease is overdue.
    pub(crate) frozen: bool,
    /// Processes that survived SIGKILL so far.
    pub(crate) stuck: Vec<i32>,
    /// The end, once the whole tree is gone.
    pub(crate) exit: Option<Arc<ExitFacts>>,
}

impl StepProcess {
    /// Starts the shim and hands it the step.
    ///
    /// The second value drives the process and must be spawned as a task; if that task is dropped, the tree is ended.
    ///
    /// # Errors
    /// When the spool directory cannot be made or the shim cannot be started. A *command* that cannot be started is no
    /// error here: it ends as [`ExitKind::SpawnFailed`].
    pub async fn spawn(nursery: &Nursery, spec: ProcessSpec) -> anyhow::Result<(Self, Supervision)> {
        let attempt: Arc<str> = spec.step.attempt.as_str().into();
        let spool = spec.dir.join(SPOOL_FILE);
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (publish, state) = watch::channel(State::default());
        let supervision = Supervision::start(nursery, spec, inbox, publish).await;
        let supervision = supervision.with_context(|| format!("start the shim of attempt {attempt}"))?;
        Ok((Self { attempt, spool, commands, state }, supervision))
    }

    /// The attempt this process belongs to.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    /// Waits until the command runs; its process id, or `None` if the attempt ended without a process.
    pub async fn started(&self) -> Option<i32> {
        let mut state = self.state.clone();
        match state.wait_for(|state| state.pid.is_some() || state.exit.is_some()).await {
            Ok(state) => state.pid,
            Err(_) => None,
        }
    }

    /// Tells the shim that the lease is good for `left` from now on.
    ///
    /// `left` counts from the sending of the answered claim or renewal. The shim is told the boot-time instant, so that
    /// a message which waited in the socket extends nothing.
    pub fn renew(&self, left: Duration) {
        self.tell(Command::Lease { expires: BootInstant::now().after(left) });
    }

    /// Ends the tree: SIGTERM, the grace of the step, SIGKILL; with `force` SIGKILL at once. May be repeated.
    pub fn kill(&self, reason: &str, force: bool) {
        self.tell(Command::Kill { reason: reason.to_owned(), force });
    }

    /// Waits until the command and everything it started are gone.
    ///
    /// # Errors
    /// When the supervision was dropped before the end was known.
    pub async fn wait(&self) -> anyhow::Result<ExitFacts> {
        let mut state = self.state.clone();
        let state = state
            .wait_for(|state| state.exit.is_some())
            .await
            .with_context(|| format!("supervision of attempt {} was dropped", self.attempt))?;
        let facts = state.exit.as_deref().expect("the wait above ends with an exit");
        Ok(facts.clone())
    }

    /// Processes of the step that survived SIGKILL for seconds (uninterruptible, or of another user); usually empty.
    pub fn stuck(&self) -> Vec<i32> {
        self.state.borrow().stuck.clone()
    }

    /// Whether the tree is held still because its lease is overdue.
    pub fn is_frozen(&self) -> bool {
        self.state.borrow().frozen
    }

    /// Bytes of the merged log that the shim has announced so far.
    pub fn spooled(&self) -> u64 {
        self.state.borrow().spooled
    }

    /// Follows the merged log from byte `offset` until the process has ended.
    ///
    /// # Errors
    /// When the spool cannot be opened.
    pub fn output(&self, offset: u64) -> anyhow::Result<OutputTail> {
        let reader = SpoolReader::open_at(&self.spool, offset).with_context(|| format!("open the spool of attempt {}", self.attempt))?;
        Ok(OutputTail { reader, state: self.state.clone() })
    }

    fn tell(&self, command: Command) {
        match self.commands.try_send(command) {
            Ok(()) => {}
            // Nothing is left to renew or to kill.
            Err(TrySendError::Closed(_)) => tracing::debug!(attempt = %self.attempt, "the process has already ended"),
            // The shim has read nothing for so long that it is about to be killed, and its tree with it.
            Err(TrySendError::Full(_)) => bounds::overflow("step-commands"),
        }
    }
}

/// Follows the log of a running step without polling.
#[derive(Debug)]
pub struct OutputTail {
    reader: SpoolReader,
    state: watch::Receiver<State>,
}

impl OutputTail {
    /// The next chunk in arrival order, `None` after the last one of an ended process. Safe to drop while waiting.
    ///
    /// # Errors
    /// When the spool cannot be read or is damaged.
    pub async fn next(&mut self) -> std::io::Result<Option<Piece>> {
        loop {
            // Sampled before the read: the end is announced after the last byte was written.
            let over = self.state.borrow_and_update().exit.is_some();
            if let Some(chunk) = self.reader.next_piece()? {
                return Ok(Some(chunk));
            }
            if over {
                return Ok(None);
            }
            if self.state.changed().await.is_err() {
                return self.reader.next_piece();
            }
        }
    }

    /// Position in the merged log after the last returned chunk.
    pub fn offset(&self) -> u64 {
        self.reader.offset()
    }
}

/// Reads the exit facts of an attempt whose executor is gone; `None` if its shim left none.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn exit_facts(dir: &Path) -> anyhow::Result<Option<ExitFacts>> {
    exit::read(&dir.join(EXIT_FILE)).with_context(|| format!("read the exit facts in {}", dir.display()))
}
