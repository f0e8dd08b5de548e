//! opencode, `opencode run --format json`.
//!
//! Checked with 1.18.33. Traps that the fixture holds: no event says that it is done, its exit does; the call that finds a title
//! for the session is in none of its counts.

use hopyard_contract::usage::Tokens;
use serde_json::Value;

use super::event::{AgentEnd, AgentEvent};
use crate::json::{at, microusd, number, text};

/// Reads a line of standard output.
pub(super) fn parse(line: &Value) -> Vec<AgentEvent> {
    let part = line.get("part").unwrap_or(&Value::Null);
    let reply = text(part, &["messageID"]);
    match line.get("type").and_then(Value::as_str) {
        Some("step_start") => vec![
            AgentEvent::Ready { session: text(line, &["sessionID"]), model: None, version: None, tools: Vec::new() },
            AgentEvent::Turn { id: reply, parent: None },
        ],
        Some("text") => vec![AgentEvent::Text { text: text(part, &["text"]).unwrap_or_default(), parent: None }],
        Some("reasoning") => Vec::new(),
        Some("tool_use") => tool(part),
        Some("step_finish") => {
            let tokens = Tokens {
                input: number(part, &["tokens", "input"]).unwrap_or_default(),
                output: sum(number(part, &["tokens", "output"]), number(part, &["tokens", "reasoning"])),
                cache_read: number(part, &["tokens", "cache", "read"]).unwrap_or_default(),
                cache_write: number(part, &["tokens", "cache", "write"]).unwrap_or_default(),
            };
            vec![AgentEvent::Used { id: reply, model: None, tokens, cost_microusd: microusd(part, &["cost"]) }]
        }
        Some("error") => {
            let words = text(line, &["error", "data", "message"]).or_else(|| text(line, &["error", "name"]));
            vec![AgentEvent::Ended { end: AgentEnd::Failed(words.unwrap_or_else(|| line.to_string())), text: None }]
        }
        _ => vec![AgentEvent::Unknown { raw: line.clone() }],
    }
}

/// A tool that was used; it is told when it is over.
fn tool(part: &Value) -> Vec<AgentEvent> {
    let id = text(part, &["callID"]).unwrap_or_default();
    let failed = text(part, &["state", "status"]).is_some_and(|status| status == "error");
    let output = text(part, &["state", if failed { "error" } else { "output" }]).unwrap_or_default();
    let input = at(part, &["state", "input"]).cloned().unwrap_or_default();
    let call = AgentEvent::ToolCall { id: id.clone(), name: text(part, &["tool"]).unwrap_or_default(), input, parent: None };
    vec![call, AgentEvent::ToolResult { id, failed, output }]
}

fn sum(a: Option<u64>, b: Option<u64>) -> u64 {
    a.unwrap_or_default().saturating_add(b.unwrap_or_default())
}
