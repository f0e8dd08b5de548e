//! Every model call of one step: tokens, money, time; summed while it runs, and kept in a file that outlives the executor.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use hopyard_contract::Usage;
use hopyard_contract::usage::Tokens;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// File of a spool directory with a line for each call.
const CALLS_FILE: &str = "calls.jsonl";

/// One call of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CallRecord {
    /// When it was sent.
    pub(crate) at: DateTime<Utc>,
    /// Name of the provider.
    pub(crate) provider: String,
    /// Model, by the provider's word, else by the request's.
    pub(crate) model: String,
    /// Status of the answer; absent when none came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// Tokens; absent when the answer did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<Tokens>,
    /// Money in millionths of a dollar; absent when the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cost_microusd: Option<u64>,
    /// Table of prices.
    pub(crate) prices: String,
    /// Until the head of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_byte_ms: Option<u64>,
    /// Until its end.
    pub(crate) took_ms: u64,
    /// Why the model stopped, in the provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop: Option<String>,
    /// What went wrong, in the provider's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Whether the answer came to its own end.
    pub(crate) whole: bool,
}

impl CallRecord {
    /// What it adds to the usage of its step: an answer that came to its end is a turn.
    fn usage(&self) -> Usage {
        let tokens = self.tokens.unwrap_or_default();
        let nothing = tokens == Tokens::default();
        Usage {
            cost_microusd: self.cost_microusd.or(nothing.then_some(0)),
            tokens,
            turns: u64::from(self.whole && !nothing),
            tool_calls: 0,
        }
    }
}

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
        let sum = Self::sum(&Self::read(dir)?);
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
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// What calls add up to; every answer counts as a turn.
    pub(crate) fn sum(calls: &[CallRecord]) -> Usage {
        calls.iter().fold(Usage::default(), |sum, call| sum.plus(&call.usage()))
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
