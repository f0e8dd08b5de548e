//! What a fake agent can be told to do: one instruction a line.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    /// A turn with words alone.
    Say(String),
    /// A turn that uses tools at the same time.
    Use(Vec<Tool>),
    /// What every turn from here on uses.
    Usage(TurnUsage),
    /// Plays lines several times; `{n}` in their texts is the number of the round, from 1.
    Repeat {
        /// How often.
        times: u64,
        /// What.
        lines: Vec<Value>,
    },
    /// Prints a line: a text as it stands, anything else as JSON.
    Print(Value),
    /// Writes words to the standard error.
    Stderr(String),
    /// Waits.
    WaitMs(u64),
    /// Prints a line of this many bytes that means nothing.
    Flood(usize),
    /// Says that it is done, and how; what comes then is still played.
    End(End),
    /// Ends the process with this code.
    Exit(u8),
    /// Does nothing any more, for ever.
    Hang(bool),
}

/// One use of a tool.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tool {
    /// Its name; `Write` and `Edit` really write a file.
    pub(super) name: String,
    /// Its arguments.
    #[serde(default)]
    pub(super) input: BTreeMap<String, Value>,
    /// What it gives back.
    #[serde(default)]
    pub(super) output: Option<String>,
    /// Whether it says that it failed.
    #[serde(default)]
    pub(super) fails: bool,
    /// What a helper plays that this tool starts.
    #[serde(default)]
    pub(super) helper: Vec<Value>,
}

/// What one turn uses.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TurnUsage {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cache_read: u64,
    pub(super) cache_write: u64,
    /// Price in millionths of a dollar.
    pub(super) cost_microusd: u64,
}

impl Default for TurnUsage {
    fn default() -> Self {
        Self { input: 1000, output: 50, cache_read: 0, cache_write: 0, cost_microusd: 3750 }
    }
}

/// How the agent says that it ended.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    /// It is done; with its last words.
    Completed(String),
    /// It had no turn left.
    MaxTurns,
    /// It had no money left.
    Budget,
    /// It gave up.
    Failed(String),
}

/// Reads a script; empty lines and those that begin with `#` are passed over.
pub(super) fn parse(text: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let told = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    told.map(|(at, line)| serde_json::from_str(line).map_err(|error| format!("line {at}: {error}"))).collect()
}

/// The lines of a round, or of a helper.
pub(super) fn nested(lines: &[Value], round: u64) -> Result<Vec<Line>, String> {
    let read = |line: &Value| serde_json::from_value(numbered(line, round)).map_err(|error| format!("{line}: {error}"));
    lines.iter().map(read).collect()
}

fn numbered(value: &Value, round: u64) -> Value {
    match value {
        Value::String(text) => Value::from(text.replace("{n}", &round.to_string())),
        Value::Array(items) => items.iter().map(|item| numbered(item, round)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), numbered(field, round))).collect(),
        other => other.clone(),
    }
}

/// What is played without a script: the prompt is written down.
pub(super) fn without_one(prompt: &str) -> Vec<Line> {
    let input = BTreeMap::from([("file_path".to_owned(), json!("agent.txt")), ("content".to_owned(), json!(format!("{prompt}\n")))]);
    let write = Tool { name: "Write".to_owned(), input, output: None, fails: false, helper: Vec::new() };
    vec![Line::Use(vec![write]), Line::Say("The prompt is in agent.txt.".to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_and_a_wrong_line_is_named() {
        let text = "# a comment\n\n{\"say\": \"x\"}\n{\"use\": [{\"name\": \"Read\"}]}\n{\"end\": {\"failed\": \"no\"}}\n{\"end\": \"max_turns\"}\n";
        let lines = parse(text).unwrap();
        assert_eq!((lines.len(), &lines[0], &lines[3]), (4, &Line::Say("x".to_owned()), &Line::End(End::MaxTurns)));
        for bad in ["{\"sya\": \"x\"}", "say", "{\"usage\": {\"inputs\": 1}}", "{\"use\": [{}]}"] {
            assert!(parse(&format!("\n{bad}")).unwrap_err().starts_with("line 2: "), "{bad}");
        }
    }

    #[test]
    fn rounds_are_numbered() {
        let lines = nested(&[json!({"say": "turn {n}"})], 7).unwrap();
        assert_eq!(lines, [Line::Say("turn 7".to_owned())]);
    }
}
