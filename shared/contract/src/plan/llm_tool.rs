//! Tools that a model step lends to its model.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::prompt_file::PromptFile;

/// Mark of a tool that is a prompt file.
const PROMPT: &str = "//";
/// End of the name of a prompt file.
const PROMPT_END: &str = ".prompt.md";
/// Name by which some providers are asked for the answer itself.
const ANSWER: &str = "answer";
/// Longest name of a tool that every provider takes.
const MAX_NAME: usize = 64;

/// One of them. Files are those of the run's workspace alone; a program may do what any step may. Written as a text, such as
/// `readfile`, `shell(cargo, git)` or `//prompts:review`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LlmTool {
    /// Reads a text file.
    ReadFile,
    /// Writes a text file.
    WriteFile,
    /// Lists files by a pattern of their paths.
    Glob,
    /// Looks for lines by a regular expression.
    Grep,
    /// Runs these programs and no others, without a shell between.
    Shell(Vec<String>),
    /// Asks a model what a prompt file of the workspace says: `//DIR:NAME` is `DIR/NAME.prompt.md`.
    Prompt {
        /// Folder below the root of the repository; empty for the root itself.
        dir: String,
        /// Name of the file without its end, and of the tool.
        name: String,
    },
}

impl LlmTool {
    /// The name by which a model calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::ReadFile => "readfile",
            Self::WriteFile => "writefile",
            Self::Glob => "glob",
            Self::Grep => "grep",
            Self::Shell(_) => "shell",
            Self::Prompt { name, .. } => name,
        }
    }

    /// The first of these tools that is called as one before it is.
    pub fn duplicate(tools: &[Self]) -> Option<usize> {
        (0..tools.len()).find(|index| tools[..*index].iter().any(|other| other.name() == tools[*index].name()))
    }

    /// The prompt file of a tool that is one, by its path below the root of the repository.
    pub fn prompt_file(&self) -> Option<String> {
        match self {
            Self::Prompt { dir, name } if dir.is_empty() => Some(format!("{name}{PROMPT_END}")),
            Self::Prompt { dir, name } => Some(format!("{dir}/{name}{PROMPT_END}")),
            _ => None,
        }
    }
}

impl fmt::Display for LlmTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(programs) => write!(f, "shell({})", programs.join(", ")),
            Self::Prompt { dir, name } => write!(f, "{PROMPT}{dir}:{name}"),
            _ => f.write_str(self.name()),
        }
    }
}

impl FromStr for LlmTool {
    type Err = String;

    /// # Errors
    /// One sentence that says what is wrong.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text {
            "readfile" => return Ok(Self::ReadFile),
            "writefile" => return Ok(Self::WriteFile),
            "glob" => return Ok(Self::Glob),
            "grep" => return Ok(Self::Grep),
            "shell" => return Err("`shell` names the programs that may run, such as `shell(cargo, git)`".to_owned()),
            _ => {}
        }
        if let Some(programs) = text.strip_prefix("shell(").and_then(|rest| rest.strip_suffix(')')) {
            return programs.split(',').map(|program| program_name(program.trim())).collect::<Result<_, _>>().map(Self::Shell);
        }
        if let Some((dir, name)) = text.strip_prefix(PROMPT).and_then(|rest| rest.split_once(':')) {
            return prompt(dir, name);
        }
        let known = "readfile, writefile, glob, grep, shell(PROGRAM, …), //DIR:NAME";
        Err(format!("`{text}` is no tool of a model step; there are {known}"))
    }
}

/// A path could lead to a program that the workspace brings, which no list can vouch for.
fn program_name(name: &str) -> Result<String, String> {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | '(' | ')' | '\\'));
    if plain { Ok(name.to_owned()) } else { Err(format!("`{name}` is no name of a program: it is looked up in PATH and has no `/`")) }
}

fn prompt(dir: &str, name: &str) -> Result<LlmTool, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name == ANSWER {
        return Err(format!("a tool cannot be called `{ANSWER}`: so is the form of an answer"));
    }
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Err(format!("`{name}` is no name of a tool: letters, digits, `-` and `_`, {MAX_NAME} at most"));
    }
    let tool = LlmTool::Prompt { dir: dir.to_owned(), name: name.to_owned() };
    match tool.prompt_file() {
        Some(path) if PromptFile::stays_below(&path) => Ok(tool),
        _ => Err(format!("`{dir}` is no folder below the root of the repository")),
    }
}

impl Serialize for LlmTool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LlmTool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for LlmTool {
    fn schema_name() -> Cow<'static, str> {
        "LlmTool".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A tool that a model step lends to its model.",
            "anyOf": [
                { "enum": ["readfile", "writefile", "glob", "grep"] },
                { "pattern": r"^shell\([^()/\\]+\)$" },
                { "pattern": r"^//[^:]*:[A-Za-z0-9_-]{1,64}$" },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_written_as_it_is_read() {
        for text in ["readfile", "writefile", "glob", "grep", "shell(cargo, git)", "//prompts/ci:review", "//:top"] {
            assert_eq!(text.parse::<LlmTool>().unwrap().to_string(), text);
        }
        assert_eq!("shell( a ,b)".parse::<LlmTool>(), Ok(LlmTool::Shell(vec!["a".to_owned(), "b".to_owned()])));
        let review: LlmTool = "//prompts:review".parse().unwrap();
        assert_eq!((review.name(), review.prompt_file().as_deref()), ("review", Some("prompts/review.prompt.md")));
        assert_eq!("//:top".parse::<LlmTool>().unwrap().prompt_file().as_deref(), Some("top.prompt.md"));
    }

    #[test]
    fn what_is_no_tool_is_told_why() {
        let cases = [
            ("websearch", "is no tool"),
            ("Read", "is no tool"),
            ("shell", "names the programs"),
            ("shell()", "is no name of a program"),
            ("shell(./run)", "has no `/`"),
            ("shell(a, rm -rf)", "is no name of a program"),
            ("//../x:y", "no folder below"),
            ("//.git:y", "no folder below"),
            ("//a:b c", "no name of a tool"),
            ("//a:", "no name of a tool"),
            ("//a:answer", "cannot be called `answer`"),
        ];
        for (text, words) in cases {
            let told = text.parse::<LlmTool>().unwrap_err();
            assert!(told.contains(words), "{text}: {told}");
        }
    }
}
