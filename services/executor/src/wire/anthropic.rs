//! Anthropic Messages: counts at the start of a reply, and again, for the whole reply, at its end.

use hopyard_contract::usage::Tokens;
use serde_json::Value;

use super::Call;
use crate::json::{number, text, tokens};

const USAGE: [&str; 4] = ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];

pub(super) fn on_event(event: &Value, call: &mut Call) {
    match event.get("type").and_then(Value::as_str) {
        Some("message_start") => {
            if let Some(message) = event.get("message") {
                call.model = text(message, &["model"]);
                call.tokens = message.get("usage").and_then(|usage| tokens(usage, USAGE));
            }
        }
        Some("message_delta") => {
            call.stop = text(event, &["delta", "stop_reason"]).or(call.stop.take());
            if let Some(usage) = event.get("usage") {
                let known = call.tokens.unwrap_or_default();
                // Counts are of the whole reply; one that is not named stands as it was.
                call.tokens = Some(Tokens {
                    input: number(usage, &["input_tokens"]).unwrap_or(known.input),
                    output: number(usage, &["output_tokens"]).unwrap_or(known.output),
                    cache_read: number(usage, &["cache_read_input_tokens"]).unwrap_or(known.cache_read),
                    cache_write: number(usage, &["cache_creation_input_tokens"]).unwrap_or(known.cache_write),
                });
            }
        }
        Some("message_stop") => call.whole = true,
        Some("error") => call.error = error(event),
        _ => {}
    }
}

pub(super) fn on_answer(answer: &Value, call: &mut Call) {
    call.whole = true;
    call.model = text(answer, &["model"]);
    call.stop = text(answer, &["stop_reason"]);
    call.tokens = answer.get("usage").and_then(|usage| tokens(usage, USAGE));
    call.error = error(answer);
}

fn error(value: &Value) -> Option<String> {
    let (kind, words) = (text(value, &["error", "type"]), text(value, &["error", "message"]));
    match (kind, words) {
        (Some(kind), Some(words)) => Some(format!("{kind}: {words}")),
        (kind, words) => words.or(kind),
    }
}
