//! Uses of tools, as the record of an attempt tells of them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest result of a tool that the audit keeps, in characters; the whole one is in the transcript of an agent.
const OUTPUT: usize = 2000;

/// One use of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToolUse {
    /// Id of the call.
    pub(crate) id: String,
    /// Name of the tool.
    pub(crate) name: String,
    /// Arguments.
    pub(crate) input: Value,
    /// Call whose helper used it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    /// When it was called, by the executor's clock.
    pub(crate) called_at: DateTime<Utc>,
    /// When its result came; absent if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<DateTime<Utc>>,
    /// Whether the tool says that it failed.
    pub(crate) failed: bool,
    /// Whether it was not allowed to be used.
    pub(crate) denied: bool,
    /// The beginning of its result.
    pub(crate) output: String,
}

impl ToolUse {
    /// One that has no result yet.
    pub(crate) fn called(id: &str, name: &str, input: &Value, at: DateTime<Utc>) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            input: input.clone(),
            parent: None,
            called_at: at,
            ended_at: None,
            failed: false,
            denied: false,
            output: String::new(),
        }
    }

    /// Its result has come.
    pub(crate) fn end(&mut self, failed: bool, output: &str, at: DateTime<Utc>) {
        self.ended_at = Some(at);
        self.failed = failed;
        self.output = output.chars().take(OUTPUT).collect();
    }
}
