//! What a fake provider can be told to answer: one reply a line.

use serde::Deserialize;
use serde_json::{Map, Value};

/// One reply of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Reply {
    /// Words.
    pub(super) text: Option<String>,
    /// Tools that are to be used.
    #[serde(rename = "use")]
    pub(super) tools: Vec<Tool>,
    /// Tokens.
    pub(super) usage: Tokens,
    /// Words of the question: a conversation that begins with them has the replies that name them, and no others.
    pub(super) asked: Option<String>,
    /// Until the first byte.
    pub(super) wait_ms: u64,
    /// Another status than 200; then `text` is the error's message.
    pub(super) status: Option<u16>,
    /// Seconds of the `Retry-After` that goes with the status.
    pub(super) retry_after: Option<u64>,
    /// How many times in a row the status is given, or the stream breaks off, before the reply comes; for ever if absent.
    pub(super) times: Option<u64>,
    /// Whether a stream breaks off in its middle.
    pub(super) breaks_off: bool,
}

/// One use of a tool.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tool {
    pub(super) name: String,
    #[serde(default)]
    pub(super) input: Map<String, Value>,
}

/// Tokens of a reply, each kind counted once.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tokens {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cache_read: u64,
    pub(super) cache_write: u64,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { input: 1000, output: 50, cache_read: 0, cache_write: 0 }
    }
}

/// Reads a script; empty lines and those that begin with `#` are passed over.
pub(super) fn parse(text: &str) -> Result<Vec<Reply>, String> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let told = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    told.map(|(at, line)| serde_json::from_str(line).map_err(|error| format!("line {at}: {error}"))).collect()
}

impl Reply {
    /// The same with the caller's directory in the place of `{cwd}` in what tools get.
    pub(super) fn at(mut self, cwd: &str) -> Self {
        for tool in &mut self.tools {
            tool.input.values_mut().for_each(|value| put_in(value, cwd));
        }
        self
    }
}

fn put_in(value: &mut Value, cwd: &str) {
    match value {
        Value::String(text) => *text = text.replace("{cwd}", cwd),
        Value::Array(items) => items.iter_mut().for_each(|item| put_in(item, cwd)),
        Value::Object(fields) => fields.values_mut().for_each(|field| put_in(field, cwd)),
        _ => {}
    }
}

/// The directory that a caller says it works in: agents tell their models, each in its own words.
pub(super) fn cwd(request: &str) -> Option<&str> {
    let told = ["orking directory: ", "<cwd>", "orking directory is "].iter().find_map(|mark| request.split_once(mark))?.1;
    told.split(['\\', '"', '<', '`', '\n']).next().map(str::trim).filter(|path| path.starts_with('/'))
}

/// The reply to a conversation that began with this question and in which the model has spoken this often; after the last one of
/// the script it only says so.
pub(super) fn reply(replies: &[Reply], asked: Option<&str>, spoken: usize) -> Reply {
    let over = || Reply { text: Some("That is all.".to_owned()), ..Reply::default() };
    let meant = |reply: &&Reply| reply.asked.as_deref().is_some_and(|words| asked.is_some_and(|asked| asked.contains(words)));
    let named = replies.iter().any(|reply| meant(&reply));
    let mut told = replies.iter().filter(|reply| if named { meant(reply) } else { reply.asked.is_none() });
    told.nth(spoken).cloned().unwrap_or_else(over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_a_reply_for_every_time_that_the_model_speaks() {
        let replies = parse("# two\n{\"use\": [{\"name\": \"Write\"}]}\n{\"text\": \"done\", \"usage\": {\"input\": 7}}\n").unwrap();
        assert_eq!(reply(&replies, None, 0).tools[0].name, "Write");
        assert_eq!((reply(&replies, None, 1).text.as_deref(), reply(&replies, None, 1).usage.input), (Some("done"), 7));
        assert_eq!(cwd(r#"{"system": "Primary working directory: /w/s\nmore"}"#), Some("/w/s"));
        assert_eq!(cwd("<cwd>/w</cwd>"), Some("/w"));
        let tool = parse(r#"{"use": [{"name": "Write", "input": {"file_path": "{cwd}/a", "list": ["{cwd}"]}}]}"#)
            .unwrap()
            .remove(0)
            .at("/w")
            .tools
            .remove(0);
        assert_eq!(Value::Object(tool.input), serde_json::json!({"file_path": "/w/a", "list": ["/w"]}));
        assert_eq!(reply(&replies, None, 2).text.as_deref(), Some("That is all."));
        let other = parse("{\"text\": \"a\"}\n{\"text\": \"b\", \"asked\": \"Review\"}").unwrap();
        assert_eq!(reply(&other, Some("Review it"), 0).text.as_deref(), Some("b"));
        assert_eq!(reply(&other, Some("Mend it"), 1).text.as_deref(), Some("That is all."));
        assert!(parse("\n{\"txet\": 1}").unwrap_err().starts_with("line 2: "));
    }
}
