//! Calls of models as an executor writes them down in the spool of an attempt: the ledger that outlives it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::usage::{Tokens, Usage};

/// File of a spool directory with a line for each call.
pub const CALLS_FILE: &str = "calls.jsonl";

/// One call of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// When it was sent.
    pub at: DateTime<Utc>,
    /// Name of the provider.
    pub provider: String,
    /// Model, by the provider's word, else by the request's.
    pub model: String,
    /// Status of the answer; absent when none came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Tokens; absent when the answer did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// Money in millionths of a dollar; absent when the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_microusd: Option<u64>,
    /// Table of prices.
    pub prices: String,
    /// Until the head of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// Until its end.
    pub took_ms: u64,
    /// Why the model stopped, in the provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// What went wrong, in the provider's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether the answer came to its own end.
    pub whole: bool,
}

impl CallRecord {
    /// What it adds to the usage of its step: an answer that came to its end is a turn.
    pub fn usage(&self) -> Usage {
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

/// The calls of a file; a last line that was cut by a crash is left out.
pub fn read(text: &str) -> Vec<CallRecord> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What calls add up to; every answer counts as a turn.
pub fn sum(calls: &[CallRecord]) -> Usage {
    calls.iter().fold(Usage::default(), |sum, call| sum.plus(&call.usage()))
}
