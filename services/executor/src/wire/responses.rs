//! OpenAI Responses: the last event holds the whole response, and its usage.

use hopyard_contract::usage::Tokens;
use serde_json::Value;

use super::Call;
use crate::json::{number, text};

pub(super) fn on_event(event: &Value, call: &mut Call) {
    match event.get("type").and_then(Value::as_str) {
        Some("response.completed" | "response.incomplete" | "response.failed") => {
            if let Some(response) = event.get("response") {
                on_answer(response, call);
            }
        }
        Some("response.created" | "response.in_progress") => call.model = text(event, &["response", "model"]).or(call.model.take()),
        Some("error") => call.error = text(event, &["message"]).or_else(|| text(event, &["error", "message"])),
        _ => {}
    }
}

pub(super) fn on_answer(answer: &Value, call: &mut Call) {
    call.whole = true;
    call.model = text(answer, &["model"]).or(call.model.take());
    call.stop = text(answer, &["incomplete_details", "reason"]).or_else(|| text(answer, &["status"]));
    call.error = text(answer, &["error", "message"]);
    call.tokens = answer.get("usage").and_then(used);
}

/// What was read from a cache is told as a part of the input.
fn used(usage: &Value) -> Option<Tokens> {
    let input = number(usage, &["input_tokens"])?;
    let cache_read = number(usage, &["input_tokens_details", "cached_tokens"]).unwrap_or_default();
    let output = number(usage, &["output_tokens"]).unwrap_or_default();
    Some(Tokens { input: input.saturating_sub(cache_read), output, cache_read, cache_write: 0 })
}
