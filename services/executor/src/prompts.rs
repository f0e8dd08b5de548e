//! Prompt files of a workspace: read and rendered when their step starts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hopyard_contract::FieldError;
use hopyard_contract::plan::{AgentSpec, LlmSpec, LlmTool, PromptFile};
use hopyard_definition::{MAX_PROMPT, Prompt, parse_prompt};
use serde_json::{Map, Value};

/// A prompt file that is not there, is none, or does not fit what it gets.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PromptError(String);

/// An agent whose prompt is a text: that of its file, if it has one.
///
/// # Errors
/// [`PromptError`] with every problem at file and line.
pub(crate) fn of_agent(mut spec: AgentSpec, workspace: &Path) -> Result<AgentSpec, PromptError> {
    let Some(file) = spec.prompt_file.take() else { return Ok(spec) };
    let (prompt, text) = render(&file, workspace)?;
    // What stands there already is the answer to a question, and comes first.
    spec.prompt.push_str(&text);
    spec.model = spec.model.or(prompt.model);
    spec.max_turns = spec.max_turns.or(prompt.max_turns.map(|turns| turns.to_string()));
    Ok(spec)
}

/// A question whose prompt is a text: that of its file, if it has one.
///
/// # Errors
/// As [`of_agent`]; also when neither the step nor its file names a model.
pub(crate) fn of_llm(mut spec: LlmSpec, workspace: &Path) -> Result<LlmSpec, PromptError> {
    let Some(file) = spec.prompt_file.take() else { return Ok(spec) };
    let (prompt, text) = render(&file, workspace)?;
    spec.prompt = text;
    if spec.model.is_empty() {
        spec.model = prompt.model.ok_or_else(|| PromptError(format!("neither the step nor {} names a model", file.path)))?;
    }
    spec.output = spec.output.or(prompt.outputs);
    if spec.tools.is_none() {
        let wrong = |words: String| PromptError(format!("{}: {words}", file.path));
        let tools = prompt.tools.iter().map(|tool| tool.parse()).collect::<Result<Vec<LlmTool>, _>>().map_err(wrong)?;
        if let Some(index) = LlmTool::duplicate(&tools) {
            return Err(wrong(format!("two tools are called `{}`", tools[index].name())));
        }
        spec.tools = Some(tools);
    }
    spec.max_turns = spec.max_turns.into_iter().chain(prompt.max_turns.and_then(|turns| turns.try_into().ok())).min();
    Ok(spec)
}

/// The prompt file that a model has as a tool.
///
/// # Errors
/// [`PromptError`] with every problem at file and line.
pub(crate) fn of_tool(path: &str, workspace: &Path) -> Result<Prompt, PromptError> {
    let root = root_of(workspace)?;
    let source = read(&root, path).ok_or_else(|| missing(path))?;
    parse_prompt(&source, path).map_err(told)
}

/// What a prompt file that a model has as a tool says to these values.
///
/// # Errors
/// As [`of_tool`], and where the values do not fit its inputs.
pub(crate) fn render_tool(path: &str, workspace: &Path, values: &Map<String, Value>) -> Result<String, PromptError> {
    let (prompt, root) = (of_tool(path, workspace)?, root_of(workspace)?);
    prompt.render(values, Arc::new(move |path| read(&root, path))).map_err(told)
}

fn root_of(workspace: &Path) -> Result<PathBuf, PromptError> {
    workspace.canonicalize().map_err(|error| PromptError(format!("{} cannot be read: {error}", workspace.display())))
}

fn missing(path: &str) -> PromptError {
    PromptError(format!("there is no prompt file {path} in the workspace"))
}

fn render(file: &PromptFile, workspace: &Path) -> Result<(Prompt, String), PromptError> {
    let root = root_of(workspace)?;
    let source = read(&root, &file.path).ok_or_else(|| missing(&file.path))?;
    let prompt = parse_prompt(&source, &file.path).map_err(told)?;
    let inputs = file.inputs.iter().filter(|(name, _)| prompt.has_input(name));
    let texts = inputs.chain(&file.with).map(|(name, text)| (name.as_str(), text.as_str()));
    let values = prompt.values_of(texts);
    let text = prompt.render(&values, Arc::new(move |path| read(&root, path))).map_err(told)?;
    Ok((prompt, text))
}

/// The text of a file below a folder; `None` also for what leads out of it, by its path or by a link.
fn read(root: &Path, path: &str) -> Option<String> {
    if !PromptFile::stays_below(path) {
        return None;
    }
    let file: PathBuf = root.join(path).canonicalize().ok().filter(|file| file.starts_with(root))?;
    let fits = file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_PROMPT as u64);
    fits.then(|| std::fs::read_to_string(file).ok()).flatten()
}

fn told(errors: Vec<FieldError>) -> PromptError {
    let mut words = String::new();
    for error in errors {
        let _ = write!(words, "{}{error}", if words.is_empty() { "" } else { "; " });
    }
    PromptError(words)
}
