//! Prompt files: front matter that says what goes in and what comes out, and a template.
//!
//! ```text
//! ---
//! model: anthropic/claude-sonnet-4-5
//! inputs: {task: string, files: "string[]", depth: low or high, hint: string?}
//! outputs: {title: string, tags: "string[]"}
//! ---
//! Mend this: {{ task }}
//! ```
//!
//! As everything here, this reads no file itself: whoever renders a prompt says where its includes come from.

mod render;
#[cfg(test)]
mod tests;
mod types;

use hopyard_contract::json::escape;
use hopyard_contract::problem::FieldError;
use serde_json::{Map, Value};

use crate::document::{self, Entry, Node};
use crate::llm;
use crate::reader::Reader;

pub use render::Loader;

/// Fields of the front matter.
pub(crate) const FIELDS: [&str; 9] = ["name", "description", "type", "model", "max_turns", "tools", "inputs", "outputs", "tests"];
/// Fields of one of its tests.
pub(crate) const TEST_FIELDS: [&str; 4] = ["name", "inputs", "contains", "fails"];
/// The line above and below the front matter.
const FENCE: &str = "---";
/// Largest prompt file, in bytes.
pub const MAX_PROMPT: usize = 256 * 1024;

/// A prompt file that was read and found right.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Name, for people.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whom it is for: `llm` or `agent`; both if absent.
    pub kind: Option<String>,
    /// Model, where its step names none.
    pub model: Option<String>,
    /// Most turns of an agent, where its step says nothing.
    pub max_turns: Option<u64>,
    /// Tools that a model step lends to its model, where it names none itself; for people in the prompt of an agent.
    pub tools: Vec<String>,
    /// JSON Schema of the object of its inputs.
    pub inputs: Value,
    /// JSON Schema of the answer, if it has one.
    pub outputs: Option<Value>,
    /// What `prompts test` looks at.
    pub tests: Vec<PromptTest>,
    /// Name of the file, for its errors and as the place that includes are looked for from.
    file: String,
    source: String,
}

/// One test of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptTest {
    /// Name.
    pub name: String,
    /// Values.
    pub inputs: Map<String, Value>,
    /// Texts that have to stand in what comes out.
    pub contains: Vec<String>,
    /// Whether it has to be refused.
    pub fails: bool,
}

/// Reads a prompt file; `file` is its path as problems name it.
///
/// # Errors
/// Everything that is wrong, in the order of the text.
pub fn parse_prompt(source: &str, file: &str) -> Result<Prompt, Vec<FieldError>> {
    let named = |mut errors: Vec<FieldError>| {
        errors.iter_mut().for_each(|error| error.file = Some(file.to_owned()));
        errors.sort_by_key(|error| (error.line, error.column));
        errors
    };
    if source.len() > MAX_PROMPT {
        return Err(named(vec![FieldError::new("length", "", format!("a prompt has at most {} KiB", MAX_PROMPT / 1024))]));
    }
    let parts = Parts::of(source).map_err(|error| named(vec![error]))?;
    let mut prompt = read_front(&parts, file).map_err(named)?;
    prompt.source = parts.template();
    if parts.body.trim().is_empty() {
        let mut error = FieldError::new("length", "", "a prompt has text");
        error.line = Some(parts.body_line);
        return Err(named(vec![error]));
    }
    prompt.check().map_err(|error| vec![error])?;
    Ok(prompt)
}

/// A text cut at its fences.
pub(crate) struct Parts<'s> {
    /// YAML, with as many empty lines before it as in the file.
    front: Option<String>,
    body: &'s str,
    /// Line of the file that the body begins in, from 1.
    body_line: u32,
}

impl<'s> Parts<'s> {
    pub(crate) fn of(source: &'s str) -> Result<Self, FieldError> {
        let source = source.strip_prefix('\u{feff}').unwrap_or(source);
        let mut lines = source.split_inclusive('\n');
        if lines.next().is_none_or(|first| first.trim_end() != FENCE) {
            return Ok(Self { front: None, body: source, body_line: 1 });
        }
        let mut front = "\n".to_owned();
        let mut body_line = 1;
        for line in lines.by_ref() {
            body_line += 1;
            if line.trim_end() == FENCE {
                let body = &source[source.len() - lines.map(str::len).sum::<usize>()..];
                return Ok(Self { front: Some(front), body, body_line: body_line + 1 });
            }
            front.push_str(line);
        }
        let mut error = FieldError::new("front_matter", "", "the front matter has no end: a line of `---`");
        error.line = Some(1);
        Err(error)
    }

    /// The body as a template whose lines are those of the file.
    pub(crate) fn template(&self) -> String {
        if self.body_line == 1 {
            return self.body.to_owned();
        }
        format!("{{#{}#}}{}", "\n".repeat(self.body_line as usize - 1), self.body)
    }
}

fn read_front(parts: &Parts<'_>, file: &str) -> Result<Prompt, Vec<FieldError>> {
    let mut prompt = Prompt {
        name: None,
        description: None,
        kind: None,
        model: None,
        max_turns: None,
        tools: Vec::new(),
        inputs: types::object(Map::new(), Vec::new()),
        outputs: None,
        tests: Vec::new(),
        file: file.to_owned(),
        source: String::new(),
    };
    let Some(front) = parts.front.as_ref().filter(|front| !front.trim().is_empty()) else { return Ok(prompt) };
    let document = document::read(front);
    let mut reader = Reader::new(document.errors);
    if let Some(root) = &document.root
        && let Some(fields) = reader.fields(root, "", &FIELDS)
    {
        let mut text = |name: &str| fields.get(name).and_then(|node| reader.text(node, &format!("/{name}")).map(str::to_owned));
        (prompt.name, prompt.description, prompt.model) = (text("name"), text("description"), text("model"));
        let kinds = ["llm", "agent"];
        prompt.kind = fields.get("type").and_then(|node| reader.text(node, "/type").map(str::to_owned).map(|kind| (kind, node.at))).map(
            |(kind, at)| {
                if !kinds.contains(&kind.as_str()) {
                    reader.error("unknown_value", "/type", format!("`{kind}` is none of llm, agent"), at);
                }
                kind
            },
        );
        prompt.max_turns = fields.get("max_turns").and_then(|node| reader.integer(node, "/max_turns", 1, 10_000));
        prompt.tools = fields.get("tools").map(|node| reader.texts(node, "/tools")).unwrap_or_default();
        if prompt.kind.as_deref() == Some("llm")
            && let Some(node) = fields.get("tools")
        {
            llm::tools(&mut reader, node, "/tools");
        }
        if let Some(node) = fields.get("inputs") {
            prompt.inputs = types::read(&mut reader, node, "/inputs");
        }
        prompt.outputs = fields.get("outputs").map(|node| types::read(&mut reader, node, "/outputs"));
        if let Some(node) = fields.get("tests") {
            prompt.tests = tests(&mut reader, node);
        }
    }
    let errors = reader.into_errors();
    if errors.is_empty() { Ok(prompt) } else { Err(errors) }
}

fn tests(reader: &mut Reader, node: &Node) -> Vec<PromptTest> {
    let Some(items) = reader.list(node, "/tests") else { return Vec::new() };
    let mut tests = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let pointer = format!("/tests/{at}");
        let Some(fields) = reader.fields(item, &pointer, &TEST_FIELDS) else { continue };
        let name = fields.get("name").and_then(|node| reader.text(node, &format!("{pointer}/name")).map(str::to_owned));
        let contains = fields.get("contains").map(|node| reader.texts(node, &format!("{pointer}/contains"))).unwrap_or_default();
        let fails = fields.get("fails").and_then(|node| reader.boolean(node, &format!("{pointer}/fails"))).unwrap_or(false);
        if contains.is_empty() && !fails {
            reader.error("missing_field", &format!("{pointer}/contains"), "a test says what `contains`, or that it `fails`", fields.at());
        }
        let entries = fields.get("inputs").and_then(|node| reader.map(node, &format!("{pointer}/inputs"))).unwrap_or_default();
        let inputs = entries.iter().filter_map(|entry| value(reader, entry, &format!("{pointer}/inputs"))).collect();
        tests.push(PromptTest { name: name.unwrap_or_else(|| format!("test {}", at + 1)), inputs, contains, fails });
    }
    tests
}

fn value(reader: &mut Reader, entry: &Entry, pointer: &str) -> Option<(String, Value)> {
    match entry.value.to_json() {
        Ok(value) => Some((entry.key.clone(), value)),
        Err((at, detail)) => {
            reader.error("number", &format!("{pointer}/{}", escape(&entry.key)), detail, at);
            None
        }
    }
}
