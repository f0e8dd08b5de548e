//! Tools that a model may use before it answers. Files are those of the workspace alone; a program may do what any step may.

mod files;
mod search;
mod shell;

use std::path::Path;

use hopyard_contract::plan::LlmTool;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::wire::ToolCall;

/// Longest result that a model gets, in bytes.
const MAX_RESULT: usize = 64 * 1024;

/// A tool that is offered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tool {
    /// One of our own.
    Own(LlmTool),
    /// A prompt file: another question, whose answer is the result.
    Prompt(PromptTool),
}

/// A prompt file as a tool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PromptTool {
    pub(super) name: String,
    /// Path below the workspace.
    pub(super) path: String,
    pub(super) description: String,
    /// JSON Schema of its inputs.
    pub(super) inputs: Value,
    /// JSON Schema of its answer.
    pub(super) output: Option<Value>,
    pub(super) model: String,
}

/// What a model is told of a tool.
pub(super) struct Offer {
    pub(super) name: String,
    pub(super) description: String,
    /// JSON Schema of its arguments.
    pub(super) input: Value,
}

/// Why a tool gives no result; the words are the model's to read.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// It did not work out.
    Failed(String),
    /// It may not do that.
    Denied(String),
}

impl Refusal {
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Failed(words) | Self::Denied(words) => words,
        }
    }
}

impl Tool {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Own(tool) => tool.name(),
            Self::Prompt(prompt) => &prompt.name,
        }
    }

    pub(super) fn offer(&self) -> Offer {
        let (description, input) = match self {
            Self::Prompt(prompt) => (prompt.description.clone(), prompt.inputs.clone()),
            Self::Own(tool) => described(tool),
        };
        Offer { name: self.name().to_owned(), description, input }
    }
}

fn described(tool: &LlmTool) -> (String, Value) {
    let path = json!({ "type": "string", "description": "Path below the root of the repository." });
    let (words, properties, required): (String, Value, &[&str]) = match tool {
        LlmTool::ReadFile => (
            "Reads a text file.".to_owned(),
            json!({
                "path": path,
                "from": { "type": "integer", "minimum": 1, "description": "First line, from 1." },
                "lines": { "type": "integer", "minimum": 1, "description": "Most lines." },
            }),
            &["path"],
        ),
        LlmTool::WriteFile => (
            "Writes a text file as a whole; folders are made as needed.".to_owned(),
            json!({ "path": path, "text": { "type": "string", "description": "All of its text." } }),
            &["path", "text"],
        ),
        LlmTool::Glob => (
            "Lists files by a pattern such as `src/**/*.rs`; one without `/` fits names in any folder. Ignored files are left out."
                .to_owned(),
            json!({ "pattern": { "type": "string" } }),
            &["pattern"],
        ),
        LlmTool::Grep => (
            "Looks for lines by a regular expression; they come as PATH:LINE:TEXT. Ignored and binary files are left out.".to_owned(),
            json!({
                "pattern": { "type": "string" },
                "glob": { "type": "string", "description": "Only in files of this pattern." },
                "ignore_case": { "type": "boolean" },
            }),
            &["pattern"],
        ),
        LlmTool::Shell(programs) => (
            format!(
                "Runs a program in the root of the repository, without a shell: no pipes, quotes or variables. Programs: {}.",
                programs.join(", ")
            ),
            json!({
                "command": { "type": "array", "items": { "type": "string" }, "minItems": 1, "description": "The program and its arguments." },
            }),
            &["command"],
        ),
        LlmTool::Prompt { name, .. } => (name.clone(), json!({}), &[]),
    };
    (words, json!({ "type": "object", "properties": properties, "required": required }))
}

/// Uses a tool of our own in this workspace.
///
/// # Errors
/// What the model is told when there is no result.
pub(super) async fn use_own(tool: &LlmTool, root: &Path, call: &ToolCall) -> Result<String, Refusal> {
    let result = match tool {
        LlmTool::ReadFile => files::read(root, &arguments(call)?),
        LlmTool::WriteFile => files::write(root, &arguments(call)?),
        LlmTool::Glob => search::glob(root, &arguments(call)?),
        LlmTool::Grep => search::grep(root, &arguments(call)?),
        LlmTool::Shell(programs) => shell::run(root, programs, &arguments(call)?).await,
        LlmTool::Prompt { .. } => Err(Refusal::Failed("a prompt is no tool of our own".to_owned())),
    };
    match result {
        Ok(text) => Ok(short(text)),
        Err(Refusal::Failed(words)) => Err(Refusal::Failed(short(words))),
        Err(denied) => Err(denied),
    }
}

fn arguments<T: DeserializeOwned>(call: &ToolCall) -> Result<T, Refusal> {
    T::deserialize(&call.input).map_err(|error| Refusal::Failed(format!("the arguments of {} are wrong: {error}", call.name)))
}

/// A text that a model can take.
fn short(mut text: String) -> String {
    if text.len() > MAX_RESULT {
        let end = (0..=MAX_RESULT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push_str("\n[the rest is left out]");
    }
    text
}
