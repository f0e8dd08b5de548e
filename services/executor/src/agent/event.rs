//! What coding agents say while they work, in one vocabulary whatever the program.

use chrono::{DateTime, Utc};
use hopyard_contract::usage::Tokens;
use serde::Serialize;
use serde_json::Value;

/// One thing that an agent said. Lines that no adapter understands are kept as [`AgentEvent::Unknown`] and never end anything.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum AgentEvent {
    /// The agent is up.
    Ready {
        /// Id by which its session can be resumed.
        session: Option<String>,
        /// Model that it will ask.
        model: Option<String>,
        /// Version of the program.
        version: Option<String>,
        /// Names of the tools that it may use.
        tools: Vec<String>,
    },
    /// The model replied: one turn, of the agent itself or, with `parent`, of a helper that a tool call of it started.
    Turn {
        /// Id of the reply; the same reply may be told in pieces.
        id: Option<String>,
        /// Tool call that the helper works for.
        parent: Option<String>,
    },
    /// What the model says to its user.
    Text {
        /// Words.
        text: String,
        /// As in `Turn`.
        parent: Option<String>,
    },
    /// A tool is to be used.
    ToolCall {
        /// Id that its result names.
        id: String,
        /// Name of the tool.
        name: String,
        /// Arguments.
        input: Value,
        /// As in `Turn`.
        parent: Option<String>,
    },
    /// A tool was used.
    ToolResult {
        /// Id of the call.
        id: String,
        /// Whether the tool says that it failed.
        failed: bool,
        /// What it gave back, as a text.
        output: String,
    },
    /// Tokens of one reply; what comes later for the same id counts instead, since some programs tell a part first.
    Used {
        /// Id of the reply.
        id: Option<String>,
        /// Model.
        model: Option<String>,
        /// Tokens.
        tokens: Tokens,
        /// The program's own price in millionths of a dollar.
        cost_microusd: Option<u64>,
    },
    /// The program's own sums so far, of its whole session.
    Totals {
        /// Tokens.
        tokens: Tokens,
        /// Its own price in millionths of a dollar.
        cost_microusd: Option<u64>,
        /// Its own count of turns.
        turns: Option<u64>,
    },
    /// The provider did not answer well, and the program asks again by itself.
    ProviderRetry {
        /// Which try failed.
        attempt: u64,
        /// Until the next one.
        delay_ms: u64,
        /// HTTP status, if there was an answer.
        status: Option<u64>,
        /// Its word for it.
        reason: String,
    },
    /// The account's window of usage is used up.
    Limited {
        /// When it is filled again.
        until: Option<DateTime<Utc>>,
    },
    /// A tool that the agent was not allowed to use.
    Denied {
        /// Name of the tool.
        name: String,
        /// Id of the call.
        id: Option<String>,
    },
    /// A remark that ends nothing.
    Notice {
        /// Words.
        text: String,
    },
    /// The agent is done: nothing that comes later changes how.
    Ended {
        /// How.
        end: AgentEnd,
        /// Its last words.
        text: Option<String>,
    },
    /// Something that no adapter knows, as it came.
    Unknown {
        /// The line's value, or its text.
        raw: Value,
    },
}

impl AgentEvent {
    /// Its name in the vocabulary.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Turn { .. } => "turn",
            Self::Text { .. } => "text",
            Self::ToolCall { .. } => "tool_call",
            Self::ToolResult { .. } => "tool_result",
            Self::Used { .. } => "used",
            Self::Totals { .. } => "totals",
            Self::ProviderRetry { .. } => "provider_retry",
            Self::Limited { .. } => "limited",
            Self::Denied { .. } => "denied",
            Self::Notice { .. } => "notice",
            Self::Ended { .. } => "ended",
            Self::Unknown { .. } => "unknown",
        }
    }
}

/// How an agent says that it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AgentEnd {
    /// It is done.
    Completed,
    /// It had no turn left.
    MaxTurns,
    /// It had no money left, by its own count.
    Budget,
    /// It gave up.
    Failed(String),
}
