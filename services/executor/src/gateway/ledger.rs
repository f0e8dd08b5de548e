//! Every model call of one step: tokens, money, time; summed while it runs, and kept in a file that outlives the executor.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use hopyard_contract::Usage;
use hopyard_contract::calls::{self, CALLS_FILE, CallRecord};
use tokio::sync::watch;

/// The calls of one step.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: Mutex<File>,
    sum: watch::Sender<Usage>,
}

impl Ledger {
    /// Opens the ledger of a spool directory; what is in it is counted.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(CALLS_FILE);
        let sum = calls::sum(&Self::read(dir)?);
        let file =
            OpenOptions::new().create(true).append(true).open(&path).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self { file: Mutex::new(file), sum: watch::Sender::new(sum) })
    }

    /// Whether a spool directory has one.
    pub(crate) fn is_there(dir: &Path) -> bool {
        dir.join(CALLS_FILE).exists()
    }

    /// The calls of a spool directory; a last line that was cut by a crash is left out.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Vec<CallRecord>> {
        let path = dir.join(CALLS_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(calls::read(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// Adds a call. It counts also when its line cannot be kept, since it was paid for.
    ///
    /// # Errors
    /// When the line cannot be written: then it is lost with the executor.
    pub(crate) fn add(&self, record: &CallRecord) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let kept = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
        self.sum.send_modify(|sum| *sum = sum.plus(&record.usage()));
        kept
    }

    /// The sum so far.
    pub(crate) fn usage(&self) -> Usage {
        *self.sum.borrow()
    }

    /// Follows the sum.
    pub(crate) fn watch(&self) -> watch::Receiver<Usage> {
        self.sum.subscribe()
    }
}
