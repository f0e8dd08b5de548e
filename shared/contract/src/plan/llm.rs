//! Model steps: one prompt, one answer, as a text or as JSON that fits a schema.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LlmTool;
use super::prompt_file::{self, PromptFile};
use crate::problem::FieldError;

/// Most tokens of an answer that a step may ask for.
pub const MAX_ANSWER_TOKENS: u32 = 1_000_000;
/// Most calls of the model that a step may ask for.
pub const MAX_LLM_TURNS: u32 = 1000;
/// Most tools that a model may have.
const MAX_TOOLS: usize = 32;

/// One question to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LlmSpec {
    /// `PROVIDER/MODEL`, or the name of a model alone for an executor with one provider; a template. Empty where that of
    /// `prompt_file` counts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// What is asked; a template. Empty where `prompt_file` says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// A file of the workspace that says what is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_file: Option<PromptFile>,
    /// What the model is told about its part; a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// JSON Schema of the answer; without one it is a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
    /// Most tokens of the answer.
    #[serde(default = "LlmSpec::default_max_tokens")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_tokens: u32,
    /// What the model may use in the workspace before it answers; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tools: Option<Vec<LlmTool>>,
    /// Most calls of the model; those of the prompt file if fewer, 20 if nothing says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_turns: Option<u32>,
}

impl LlmSpec {
    /// What an answer may have unless its step says otherwise.
    pub fn default_max_tokens() -> u32 {
        4096
    }

    /// Every template of it, with the field it stands in.
    pub fn templates(&self) -> impl Iterator<Item = (String, &str)> {
        let system = self.system.as_deref().map(|text| ("system", text));
        let own = [("model", self.model.as_str()), ("prompt", self.prompt.as_str())].into_iter().chain(system);
        own.map(|(field, text)| (field.to_owned(), text)).chain(self.prompt_file.iter().flat_map(PromptFile::templates))
    }

    /// What is wrong beyond its templates, by pointers below `at`.
    pub(super) fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        prompt_file::check(&self.prompt, self.prompt_file.as_ref(), at, errors);
        let model_of_file = self.prompt_file.is_some() && self.model.is_empty();
        let checked = |field: &str| field == "system" || (field == "model" && !model_of_file);
        for (field, text) in self.templates().filter(|(field, _)| checked(field)) {
            if text.trim().is_empty() || text.contains('\0') {
                errors.push(FieldError::new("length", format!("{at}/{field}"), format!("`{field}` has text and no NUL characters")));
            }
        }
        if !(1..=MAX_ANSWER_TOKENS).contains(&self.max_tokens) {
            let detail = format!("max_tokens lies between 1 and {MAX_ANSWER_TOKENS}");
            errors.push(FieldError::new("range", format!("{at}/max_tokens"), detail));
        }
        if self.max_turns.is_some_and(|turns| !(1..=MAX_LLM_TURNS).contains(&turns)) {
            let detail = format!("max_turns lies between 1 and {MAX_LLM_TURNS}");
            errors.push(FieldError::new("range", format!("{at}/max_turns"), detail));
        }
        let tools = self.tools.as_deref().unwrap_or_default();
        if tools.len() > MAX_TOOLS {
            errors.push(FieldError::new("length", format!("{at}/tools"), format!("a model has at most {MAX_TOOLS} tools")));
        }
        if let Some(index) = LlmTool::duplicate(tools) {
            let detail = format!("two tools are called `{}`", tools[index].name());
            errors.push(FieldError::new("duplicate_tool", format!("{at}/tools/{index}"), detail));
        }
    }
}
