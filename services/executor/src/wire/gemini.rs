//! Gemini: every chunk has the counts so far, and the last one has them all.

use hopyard_contract::usage::Tokens;
use serde_json::Value;

use super::Call;
use crate::json::{items, number, text};

pub(super) fn on_answer(answer: &Value, call: &mut Call) {
    // Without server-sent events, a stream of this wire is one list of chunks.
    if let Some(chunks) = answer.as_array() {
        return chunks.iter().for_each(|chunk| on_answer(chunk, call));
    }
    call.model = text(answer, &["modelVersion"]).or(call.model.take());
    if let Some(stop) = items(answer, &["candidates"]).iter().find_map(|candidate| text(candidate, &["finishReason"])) {
        call.stop = Some(stop);
        call.whole = true;
    }
    call.tokens = answer.get("usageMetadata").and_then(used).or(call.tokens);
    call.error = text(answer, &["error", "message"]).or(call.error.take());
}

/// What was read from a cache is told as a part of the prompt; thoughts are paid as output.
fn used(usage: &Value) -> Option<Tokens> {
    let count = |name| number(usage, &[name]);
    let prompt = count("promptTokenCount")?;
    let cache_read = count("cachedContentTokenCount").unwrap_or_default();
    let tools = count("toolUsePromptTokenCount").unwrap_or_default();
    let output = count("candidatesTokenCount").unwrap_or_default().saturating_add(count("thoughtsTokenCount").unwrap_or_default());
    Some(Tokens { input: prompt.saturating_sub(cache_read).saturating_add(tools), output, cache_read, cache_write: 0 })
}
