//! Claude Code, `claude -p … --output-format stream-json --verbose --include-partial-messages`.
//!
//! Checked with 2.1.197. Traps that the fixtures hold: a reply's own `usage.output_tokens` is the value from its start (1), the
//! true one is in a partial `message_delta` or in the end; when its own budget stops it, `usage` of the end is all zeros and
//! only `modelUsage` and `total_cost_usd` are right; a denied tool still ends in `success`; a SIGTERM ends it without a word.

use chrono::DateTime;
use hopyard_contract::usage::Tokens;
use serde_json::Value;

use super::event::{AgentEnd, AgentEvent};
use crate::json::{at, items, microusd, number, text, tokens};

const USAGE: [&str; 4] = ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
const MODEL_USAGE: [&str; 4] = ["inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens"];

/// The reply whose pieces come now: a `message_delta` does not name it.
#[derive(Debug, Default)]
pub(super) struct Parser {
    reply: Option<(String, Option<String>, Tokens)>,
}

impl Parser {
    pub(super) fn parse(&mut self, line: &Value) -> Vec<AgentEvent> {
        let kind = line.get("type").and_then(Value::as_str);
        let sub = line.get("subtype").and_then(Value::as_str);
        match (kind, sub) {
            (Some("system"), Some("init")) => vec![AgentEvent::Ready {
                session: text(line, &["session_id"]),
                model: text(line, &["model"]),
                version: text(line, &["claude_code_version"]),
                tools: items(line, &["tools"]).iter().filter_map(|tool| Some(tool.as_str()?.to_owned())).collect(),
            }],
            (Some("system"), Some("api_retry")) => vec![AgentEvent::ProviderRetry {
                attempt: number(line, &["attempt"]).unwrap_or_default(),
                delay_ms: number(line, &["retry_delay_ms"]).unwrap_or_default(),
                status: number(line, &["error_status"]),
                reason: text(line, &["error"]).unwrap_or_default(),
            }],
            (Some("rate_limit_event"), _) => limit(line),
            // What it is busy with, many times a turn.
            (Some("system"), Some("status")) => Vec::new(),
            (Some("assistant"), _) => reply(line),
            (Some("user"), _) => results(line),
            (Some("stream_event"), _) => self.piece(line),
            (Some("result"), _) => end(line, sub.unwrap_or_default()),
            _ => vec![AgentEvent::Unknown { raw: line.clone() }],
        }
    }

    /// A piece of a reply: only its counts are read, its contents come whole later.
    fn piece(&mut self, line: &Value) -> Vec<AgentEvent> {
        let Some(event) = line.get("event") else { return vec![AgentEvent::Unknown { raw: line.clone() }] };
        match event.get("type").and_then(Value::as_str) {
            Some("message_start") => {
                let Some(id) = text(event, &["message", "id"]) else { return Vec::new() };
                let used = at(event, &["message", "usage"]).and_then(|usage| tokens(usage, USAGE)).unwrap_or_default();
                self.reply = Some((id, text(event, &["message", "model"]), used));
                Vec::new()
            }
            Some("message_delta") => {
                let (Some((id, model, begun)), Some(usage)) = (&self.reply, event.get("usage")) else { return Vec::new() };
                let now = tokens(usage, USAGE).unwrap_or_default();
                // Counts are of the whole reply; those that a piece does not name stand as they were.
                let tokens = Tokens {
                    input: now.input.max(begun.input),
                    output: now.output,
                    cache_read: now.cache_read.max(begun.cache_read),
                    cache_write: now.cache_write.max(begun.cache_write),
                };
                vec![AgentEvent::Used { id: Some(id.clone()), model: model.clone(), tokens, cost_microusd: None }]
            }
            _ => Vec::new(),
        }
    }
}

/// Model of replies that the program makes up itself, to tell what its provider refused.
const SYNTHETIC: &str = "<synthetic>";

/// A part of a reply; each of its blocks comes in a line of its own, with the same id.
fn reply(line: &Value) -> Vec<AgentEvent> {
    if text(line, &["message", "model"]).as_deref() == Some(SYNTHETIC) {
        let said = items(line, &["message", "content"]).iter().filter_map(|block| text(block, &["text"]));
        return said.map(|text| AgentEvent::Notice { text }).collect();
    }
    let parent = text(line, &["parent_tool_use_id"]);
    let id = text(line, &["message", "id"]);
    let mut events = vec![AgentEvent::Turn { id: id.clone(), parent: parent.clone() }];
    for block in items(line, &["message", "content"]) {
        match block.get("type").and_then(Value::as_str) {
            Some("text") => events.extend(text(block, &["text"]).map(|text| AgentEvent::Text { text, parent: parent.clone() })),
            Some("tool_use") => events.push(AgentEvent::ToolCall {
                id: text(block, &["id"]).unwrap_or_default(),
                name: text(block, &["name"]).unwrap_or_default(),
                input: block.get("input").cloned().unwrap_or_default(),
                parent: parent.clone(),
            }),
            // The model's thoughts stay in the raw log.
            Some("thinking" | "redacted_thinking") => {}
            _ => events.push(AgentEvent::Unknown { raw: block.clone() }),
        }
    }
    let used = at(line, &["message", "usage"]).and_then(|usage| tokens(usage, USAGE));
    events.extend(used.map(|tokens| AgentEvent::Used { id, model: text(line, &["message", "model"]), tokens, cost_microusd: None }));
    events
}

/// How much of a subscription's window is used; only a window that is used up says anything.
fn limit(line: &Value) -> Vec<AgentEvent> {
    if text(line, &["rate_limit_info", "status"]).as_deref() != Some("rejected") {
        return Vec::new();
    }
    let reset = number(line, &["rate_limit_info", "resetsAt"]).and_then(|seconds| i64::try_from(seconds).ok());
    vec![AgentEvent::Limited { until: reset.and_then(|seconds| DateTime::from_timestamp(seconds, 0)) }]
}

/// Results of tools.
fn results(line: &Value) -> Vec<AgentEvent> {
    let result = |block: &Value| {
        (block.get("type").and_then(Value::as_str) == Some("tool_result")).then(|| AgentEvent::ToolResult {
            id: text(block, &["tool_use_id"]).unwrap_or_default(),
            failed: block.get("is_error").and_then(Value::as_bool).unwrap_or(false),
            output: block.get("content").map(words).unwrap_or_default(),
        })
    };
    items(line, &["message", "content"]).iter().filter_map(result).collect()
}

/// A text, or the texts of a list of blocks.
fn words(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}

/// The end, with the sums of all models.
fn end(line: &Value, sub: &str) -> Vec<AgentEvent> {
    let denied =
        |denial: &Value| AgentEvent::Denied { name: text(denial, &["tool_name"]).unwrap_or_default(), id: text(denial, &["tool_use_id"]) };
    let mut events: Vec<AgentEvent> = items(line, &["permission_denials"]).iter().map(denied).collect();
    let by_model = at(line, &["modelUsage"]).and_then(Value::as_object);
    let of_models = by_model.map(|models| models.values().filter_map(|usage| tokens(usage, MODEL_USAGE)).fold(Tokens::default(), plus));
    if let Some(tokens) = of_models.or_else(|| at(line, &["usage"]).and_then(|usage| tokens(usage, USAGE))) {
        events.push(AgentEvent::Totals { tokens, cost_microusd: microusd(line, &["total_cost_usd"]), turns: number(line, &["num_turns"]) });
    }
    let said = text(line, &["result"]);
    let errors: Vec<&str> = items(line, &["errors"]).iter().filter_map(Value::as_str).collect();
    let is_error = line.get("is_error").and_then(Value::as_bool).unwrap_or(false);
    let end = match sub {
        "success" if !is_error => AgentEnd::Completed,
        "error_max_turns" => AgentEnd::MaxTurns,
        "error_max_budget_usd" => AgentEnd::Budget,
        _ if errors.is_empty() => AgentEnd::Failed(said.clone().unwrap_or_else(|| sub.to_owned())),
        _ => AgentEnd::Failed(errors.join("; ")),
    };
    events.push(AgentEvent::Ended { end, text: said });
    events
}

fn plus(sum: Tokens, more: Tokens) -> Tokens {
    Tokens {
        input: sum.input.saturating_add(more.input),
        output: sum.output.saturating_add(more.output),
        cache_read: sum.cache_read.saturating_add(more.cache_read),
        cache_write: sum.cache_write.saturating_add(more.cache_write),
    }
}
