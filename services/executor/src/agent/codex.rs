//! Codex, `codex exec --json`.
//!
//! Checked with 0.169.0. Traps that the fixtures hold: usage comes once, at the end of a turn, and sums up the whole thread, also
//! what came before a resume; cached tokens are a part of the input; an item of type `error` ends nothing; replies of the model
//! are not told apart on standard output, only in the rollout file of the session.

use std::path::Path;

use hopyard_contract::usage::Tokens;
use serde_json::Value;

use super::event::{AgentEnd, AgentEvent};
use crate::json::{number, text};

/// Reads a line of standard output.
pub(super) fn parse(line: &Value) -> Vec<AgentEvent> {
    let item = || line.get("item").unwrap_or(&Value::Null);
    match line.get("type").and_then(Value::as_str) {
        Some("thread.started") => {
            vec![AgentEvent::Ready { session: text(line, &["thread_id"]), model: None, version: None, tools: Vec::new() }]
        }
        Some("turn.started" | "item.updated") => Vec::new(),
        Some("item.started") => call(item()).into_iter().collect(),
        Some("item.completed") => completed(item()),
        Some("turn.completed") => {
            let totals = line.get("usage").and_then(used).map(|tokens| AgentEvent::Totals { tokens, cost_microusd: None, turns: None });
            totals.into_iter().chain([AgentEvent::Ended { end: AgentEnd::Completed, text: None }]).collect()
        }
        Some("turn.failed") => {
            let words = text(line, &["error", "message"]).unwrap_or_else(|| "the turn failed".to_owned());
            vec![AgentEvent::Ended { end: AgentEnd::Failed(words), text: None }]
        }
        // Told before a `turn.failed`, and while it tries again.
        Some("error") => vec![AgentEvent::Notice { text: text(line, &["message"]).unwrap_or_default() }],
        _ => vec![AgentEvent::Unknown { raw: line.clone() }],
    }
}

/// What the rollout files of the sessions below a home tell: each reply of a model, which the standard output does not, in the
/// order of time.
///
/// # Errors
/// When a directory or a file that is there cannot be read.
pub(super) fn read_rollouts(home: &Path) -> std::io::Result<Vec<Vec<AgentEvent>>> {
    let mut open = vec![home.join(".codex/sessions")];
    let mut files = Vec::new();
    while let Some(dir) = open.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && entry.file_name().to_string_lossy().starts_with("rollout-") {
                files.push(entry.path());
            }
        }
    }
    // Directories and files are named by the time of their beginning.
    files.sort();
    let mut replies = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let text = std::fs::read_to_string(file)?;
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        replies.extend(lines.map(|line| parse_rollout(&line, number)).filter(|events| !events.is_empty()));
    }
    Ok(replies)
}

/// Reads a line of the rollout file with this number: its counts, one for each reply of the model.
pub(super) fn parse_rollout(line: &Value, file: usize) -> Vec<AgentEvent> {
    let payload = line.get("payload").unwrap_or(&Value::Null);
    if payload.get("type").and_then(Value::as_str) != Some("token_count") {
        return Vec::new();
    }
    let Some(tokens) = payload.get("info").and_then(|info| used(info.get("last_token_usage")?)) else { return Vec::new() };
    let id = number(line, &["ordinal"]).map(|ordinal| format!("rollout-{file}-{ordinal}"));
    vec![AgentEvent::Turn { id: id.clone(), parent: None }, AgentEvent::Used { id, model: None, tokens, cost_microusd: None }]
}

/// What is to be done: a command, a change of files, a call of a server's tool, a search.
fn call(item: &Value) -> Option<AgentEvent> {
    let (name, input) = match item.get("type").and_then(Value::as_str)? {
        "command_execution" => ("shell".to_owned(), serde_json::json!({ "command": item.get("command") })),
        "file_change" => ("file_change".to_owned(), serde_json::json!({ "changes": item.get("changes") })),
        "web_search" => ("web_search".to_owned(), serde_json::json!({ "query": item.get("query") })),
        "mcp_tool_call" => {
            let part = |field| text(item, &[field]).unwrap_or_default();
            (format!("{}.{}", part("server"), part("tool")), item.get("arguments").cloned().unwrap_or_default())
        }
        _ => return None,
    };
    Some(AgentEvent::ToolCall { id: text(item, &["id"])?, name, input, parent: None })
}

fn completed(item: &Value) -> Vec<AgentEvent> {
    if let Some(call) = call(item) {
        let failed = text(item, &["status"]).is_some_and(|status| status == "failed" || status == "declined")
            || item.get("exit_code").and_then(Value::as_i64).is_some_and(|code| code != 0);
        let output = ["aggregated_output", "result", "error"].iter().filter_map(|field| item.get(field)).find(|value| !value.is_null());
        let output = output.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default();
        let id = text(item, &["id"]).unwrap_or_default();
        // Some are told only when they are over; a call that was told before counts once.
        return vec![call, AgentEvent::ToolResult { id, failed, output }];
    }
    match item.get("type").and_then(Value::as_str) {
        Some("agent_message") => vec![AgentEvent::Text { text: text(item, &["text"]).unwrap_or_default(), parent: None }],
        Some("error") => vec![AgentEvent::Notice { text: text(item, &["message"]).unwrap_or_default() }],
        Some("reasoning" | "todo_list") => Vec::new(),
        _ => vec![AgentEvent::Unknown { raw: item.clone() }],
    }
}

/// Tokens without double counting: what was read from a cache is told as a part of the input.
fn used(usage: &Value) -> Option<Tokens> {
    let input = number(usage, &["input_tokens"])?;
    let (cache_read, cache_write) = (number(usage, &["cached_input_tokens"]), number(usage, &["cache_write_input_tokens"]));
    let (cache_read, cache_write) = (cache_read.unwrap_or_default(), cache_write.unwrap_or_default());
    let output = number(usage, &["output_tokens"]).unwrap_or_default();
    Some(Tokens { input: input.saturating_sub(cache_read).saturating_sub(cache_write), output, cache_read, cache_write })
}
