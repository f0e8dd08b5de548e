//! Logs: ordered chunks of bytes of an attempt, by byte position in the order of arrival.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{Name, RunId};

pub mod frame;

/// Which pipe bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Lines of Hopyard itself, such as a truncation mark.
    System,
}

/// A piece of an attempt's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chunk {
    /// Byte position in the attempt's merged log.
    pub offset: u64,
    /// Where the bytes came from.
    pub stream: Stream,
    /// When they were read.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
    /// The bytes, when they are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes in base64, when they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b64: Option<String>,
}

/// A chunk as it travels on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BusChunk {
    /// Version of this shape: 1.
    pub v: u32,
    /// The run.
    pub run_id: RunId,
    /// The step.
    pub step: Name,
    /// The attempt.
    pub attempt: u32,
    /// The chunk.
    #[serde(flatten)]
    pub chunk: Chunk,
    /// Set on the last message of an attempt: the whole length of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}
