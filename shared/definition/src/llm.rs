//! The `llm` of a step: which model is asked what, and what its answer has to look like.

use hopyard_contract::plan::{LlmSpec, LlmTool, MAX_ANSWER_TOKENS, MAX_LLM_TURNS};

use crate::document::Node;
use crate::inputs;
use crate::prompt_file;
use crate::reader::Reader;

pub(crate) const FIELDS: [&str; 9] = ["model", "prompt", "prompt_file", "with", "system", "output", "max_tokens", "tools", "max_turns"];

/// Reads a question; `None` without a model or a prompt.
pub(crate) fn read(reader: &mut Reader, node: &Node, pointer: &str) -> Option<LlmSpec> {
    let fields = reader.fields(node, pointer, &FIELDS)?;
    // A prompt file may name the model.
    if fields.get("model").is_none() && fields.get("prompt_file").is_none() {
        reader.missing(&fields, pointer, "model");
    }
    let prompt = prompt_file::read(reader, &fields, pointer);
    let at = |name: &str| format!("{pointer}/{name}");
    let mut text = |name: &str| fields.get(name).and_then(|node| reader.text(node, &at(name)).map(str::to_owned));
    let (model, system) = (text("model"), text("system"));
    let output = fields.get("output").and_then(|node| inputs::read_one(reader, node, &at("output")));
    let max_tokens = fields.get("max_tokens").and_then(|node| reader.integer(node, &at("max_tokens"), 1, u64::from(MAX_ANSWER_TOKENS)));
    let max_tokens = max_tokens.and_then(|tokens| u32::try_from(tokens).ok()).unwrap_or_else(LlmSpec::default_max_tokens);
    let tools = fields.get("tools").map(|node| tools(reader, node, &at("tools")));
    let max_turns = fields.get("max_turns").and_then(|node| reader.integer(node, &at("max_turns"), 1, u64::from(MAX_LLM_TURNS)));
    let max_turns = max_turns.and_then(|turns| u32::try_from(turns).ok());
    let (prompt, prompt_file) = prompt?;
    let model = if fields.get("model").is_none() && prompt_file.is_some() { Some(String::new()) } else { model };
    Some(LlmSpec { model: model?, prompt, prompt_file, system, output, max_tokens, tools, max_turns })
}

/// Tools of a model.
pub(crate) fn tools(reader: &mut Reader, node: &Node, pointer: &str) -> Vec<LlmTool> {
    let Some(items) = reader.list(node, pointer) else { return Vec::new() };
    let mut tools = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        match reader.text(item, &pointer).map(str::parse) {
            Some(Ok(tool)) => tools.push(tool),
            Some(Err(detail)) => reader.error("unknown_tool", &pointer, detail, item.at),
            None => {}
        }
    }
    tools
}
