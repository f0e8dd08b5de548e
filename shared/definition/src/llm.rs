//! The `llm` of a step: which model is asked what, and what its answer has to look like.

use hopyard_contract::plan::{LlmSpec, MAX_ANSWER_TOKENS};

use crate::document::Node;
use crate::inputs;
use crate::reader::Reader;

pub(crate) const FIELDS: [&str; 5] = ["model", "prompt", "system", "output", "max_tokens"];

/// Reads a question; `None` without a model or a prompt.
pub(crate) fn read(reader: &mut Reader, node: &Node, pointer: &str) -> Option<LlmSpec> {
    let fields = reader.fields(node, pointer, &FIELDS)?;
    for name in ["model", "prompt"] {
        if fields.get(name).is_none() {
            reader.missing(&fields, pointer, name);
        }
    }
    let at = |name: &str| format!("{pointer}/{name}");
    let mut text = |name: &str| fields.get(name).and_then(|node| reader.text(node, &at(name)).map(str::to_owned));
    let (model, prompt, system) = (text("model"), text("prompt"), text("system"));
    let output = fields.get("output").and_then(|node| inputs::read_one(reader, node, &at("output")));
    let max_tokens = fields.get("max_tokens").and_then(|node| reader.integer(node, &at("max_tokens"), 1, u64::from(MAX_ANSWER_TOKENS)));
    let max_tokens = max_tokens.and_then(|tokens| u32::try_from(tokens).ok()).unwrap_or_else(LlmSpec::default_max_tokens);
    Some(LlmSpec { model: model?, prompt: prompt?, system, output, max_tokens })
}
