//! Envelopes: answers between services and dead letters.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A dead letter: what could not be processed, with its reason and its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Version.
    pub v: u32,
    /// Stream it came from.
    pub stream: String,
    /// Subject it came from.
    pub subject: String,
    /// Sequence in that stream.
    pub seq: u64,
    /// Coded reason.
    pub code: String,
    /// The reason in words.
    pub detail: String,
    /// Deliveries so far.
    pub attempts: u64,
    /// Headers of the message.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body in base64.
    pub body: String,
    /// Length of the whole body if only its beginning is kept: such a letter cannot be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_from: Option<u64>,
    /// When its stream stored the message.
    #[serde(with = "crate::time::maybe", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub first_at: Option<DateTime<Utc>>,
    /// When it was set aside.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
}

/// Body of a failed request between services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RpcError {
    /// Stable code: `busy`, `bad_request`, `store_unavailable`.
    pub code: String,
    /// In words.
    pub detail: String,
}

/// Envelope of every answer between services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RpcAnswer<T> {
    /// It was done.
    Ok(T),
    /// It was not.
    Error(RpcError),
}
