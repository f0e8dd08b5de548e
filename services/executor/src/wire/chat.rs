//! OpenAI Chat Completions: a stream tells its usage in a last chunk without choices, when it is asked to.

use hopyard_contract::usage::Tokens;
use serde_json::Value;

use super::Call;
use crate::json::{items, number, text};

/// Asks a stream for its usage; whoever speaks this wire without knowing the option leaves it unheard.
pub(crate) fn ask_for_usage(request: &mut Value) {
    if request.get("stream").and_then(Value::as_bool) == Some(true)
        && let Some(fields) = request.as_object_mut()
    {
        let options = fields.entry("stream_options").or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Some(options) = options.as_object_mut() {
            options.insert("include_usage".to_owned(), Value::Bool(true));
        }
    }
}

pub(super) fn on_event(event: &Value, call: &mut Call) {
    call.model = text(event, &["model"]).or(call.model.take());
    let stop = items(event, &["choices"]).iter().find_map(|choice| text(choice, &["finish_reason"]));
    call.stop = stop.or(call.stop.take());
    call.tokens = event.get("usage").and_then(used).or(call.tokens);
    call.error = text(event, &["error", "message"]).or(call.error.take());
}

pub(super) fn on_answer(answer: &Value, call: &mut Call) {
    on_event(answer, call);
    call.whole = true;
}

/// What was read from a cache is told as a part of the input.
fn used(usage: &Value) -> Option<Tokens> {
    let input = number(usage, &["prompt_tokens"])?;
    let cache_read = number(usage, &["prompt_tokens_details", "cached_tokens"]).unwrap_or_default();
    let output = number(usage, &["completion_tokens"]).unwrap_or_default();
    Some(Tokens { input: input.saturating_sub(cache_read), output, cache_read, cache_write: 0 })
}
