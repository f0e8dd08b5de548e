//! Gemini CLI, `gemini -p … -o stream-json`.
//!
//! Written for 0.61.0 after its documentation, and not yet run by this project: `init`, `message`, `tool_use`, `tool_result`, `error`, `result`.

use hopyard_contract::usage::Tokens;
use serde_json::Value;

use super::event::{AgentEnd, AgentEvent};
use crate::json::{number, text};

/// Reads a line of standard output.
pub(super) fn parse(line: &Value) -> Vec<AgentEvent> {
    match line.get("type").and_then(Value::as_str) {
        Some("init") => vec![AgentEvent::Ready {
            session: text(line, &["session_id"]),
            model: text(line, &["model"]),
            version: None,
            tools: Vec::new(),
        }],
        Some("message") if text(line, &["role"]).is_some_and(|role| role == "user") => Vec::new(),
        Some("message") => vec![AgentEvent::Text { text: text(line, &["content"]).unwrap_or_default(), parent: None }],
        Some("tool_use") => vec![AgentEvent::ToolCall {
            id: text(line, &["tool_id"]).unwrap_or_default(),
            name: text(line, &["tool_name"]).unwrap_or_default(),
            input: line.get("parameters").cloned().unwrap_or_default(),
            parent: None,
        }],
        Some("tool_result") => {
            let failed = text(line, &["status"]).is_some_and(|status| status == "error");
            let output = if failed { text(line, &["error", "message"]) } else { text(line, &["output"]) };
            vec![AgentEvent::ToolResult { id: text(line, &["tool_id"]).unwrap_or_default(), failed, output: output.unwrap_or_default() }]
        }
        Some("error") => vec![AgentEvent::Notice { text: text(line, &["message"]).unwrap_or_default() }],
        Some("result") => end(line),
        _ => vec![AgentEvent::Unknown { raw: line.clone() }],
    }
}

fn end(line: &Value) -> Vec<AgentEvent> {
    let stats = line.get("stats").unwrap_or(&Value::Null);
    let cached = number(stats, &["cached"]).unwrap_or_default();
    let totals = number(stats, &["input_tokens"]).map(|input| AgentEvent::Totals {
        tokens: Tokens {
            // What was read from a cache is told as a part of the input.
            input: input.saturating_sub(cached),
            output: number(stats, &["output_tokens"]).unwrap_or_default(),
            cache_read: cached,
            cache_write: 0,
        },
        cost_microusd: None,
        turns: None,
    });
    let end = match text(line, &["status"]).as_deref() {
        Some("success") => AgentEnd::Completed,
        _ => AgentEnd::Failed(text(line, &["error", "message"]).unwrap_or_else(|| "it ended with an error".to_owned())),
    };
    totals.into_iter().chain([AgentEvent::Ended { end, text: None }]).collect()
}
