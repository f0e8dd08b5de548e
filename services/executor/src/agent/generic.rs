//! Any program: its step says how it is started, and by JSONPath where in its lines of JSON is what.
//!
//! What no path leads to is no mistake: a program that says nothing has no turns and no tools, and its exit tells how it ended.

use std::collections::BTreeMap;

use hopyard_contract::usage::Tokens;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::event::{AgentEnd, AgentEvent};

/// The paths of a step, by what they lead to.
#[derive(Debug, Default)]
pub(super) struct Parser(BTreeMap<String, JsonPath>);

impl Parser {
    /// Those of a step; one that is none leads nowhere, and was refused when its definition was stored.
    pub(super) fn new(map: &BTreeMap<String, String>) -> Self {
        Self(map.iter().filter_map(|(name, path)| Some((name.clone(), JsonPath::parse(path).ok()?))).collect())
    }

    pub(super) fn parse(&self, line: &Value) -> Vec<AgentEvent> {
        let found = |name: &str| self.0.get(name).and_then(|path| path.query(line).first()).filter(|value| !value.is_null());
        let text = |name: &str| found(name).map(words);
        let count =
            |name: &str| found(name).and_then(|value| value.as_u64().or_else(|| value.as_f64().map(|number| number.max(0.0) as u64)));
        let mut events = Vec::new();
        let (session, model, turn) = (text("session"), text("model"), text("turn"));
        if session.is_some() {
            events.push(AgentEvent::Ready { session, model: model.clone(), version: None, tools: Vec::new() });
        }
        if turn.is_some() {
            events.push(AgentEvent::Turn { id: turn.clone(), parent: None });
        }
        events.extend(text("text").map(|text| AgentEvent::Text { text, parent: None }));
        if let Some(name) = text("tool_name") {
            let input = found("tool_input").cloned().unwrap_or_default();
            events.push(AgentEvent::ToolCall { id: text("tool_id").unwrap_or_default(), name, input, parent: None });
        }
        if let Some(id) = text("result_id") {
            let failed = found("result_failed").is_some_and(holds);
            events.push(AgentEvent::ToolResult { id, failed, output: text("result_output").unwrap_or_default() });
        }
        let kinds = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"].map(count);
        let cost_microusd =
            found("cost_usd").and_then(Value::as_f64).filter(|cost| (0.0..1e6).contains(cost)).map(|cost| (cost * 1e6).round() as u64);
        if kinds.iter().any(Option::is_some) || cost_microusd.is_some() {
            let [input, output, cache_read, cache_write] = kinds.map(Option::unwrap_or_default);
            let tokens = Tokens { input, output, cache_read, cache_write };
            events.push(AgentEvent::Used { id: turn, model, tokens, cost_microusd });
        }
        if let Some(error) = found("error").filter(|error| holds(error)) {
            events.push(AgentEvent::Ended { end: AgentEnd::Failed(words(error)), text: None });
        } else if found("done").is_some_and(holds) {
            events.push(AgentEvent::Ended { end: AgentEnd::Completed, text: text("text") });
        }
        if events.is_empty() { vec![AgentEvent::Unknown { raw: line.clone() }] } else { events }
    }
}

/// A text as it is, anything else as JSON.
fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a value says yes: anything but `false`, 0 and what is empty.
fn holds(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_its_paths_lead_to() {
        let map = [
            ("session", "$.sid"),
            ("turn", "$.msg.id"),
            ("text", "$.msg.parts[?@.kind == 'text'].text"),
            ("tool_name", "$.msg.call.name"),
            ("tool_id", "$.msg.call.id"),
            ("input_tokens", "$.usage.in"),
            ("output_tokens", "$.usage.out"),
            ("cost_usd", "$.usage.usd"),
            ("done", "$.finished"),
            ("error", "$.problem"),
        ];
        let parser = Parser::new(&map.map(|(name, path)| (name.to_owned(), path.to_owned())).into());
        let line = json!({
            "sid": "s1", "msg": { "id": 7, "parts": [{ "kind": "image" }, { "kind": "text", "text": "hi" }], "call": { "id": "c1", "name": "grep" } },
            "usage": { "in": 10, "out": 2.0, "usd": 0.0015 },
        });
        let tokens = Tokens { input: 10, output: 2, cache_read: 0, cache_write: 0 };
        let turn = Some("7".to_owned());
        let said = vec![
            AgentEvent::Ready { session: Some("s1".to_owned()), model: None, version: None, tools: Vec::new() },
            AgentEvent::Turn { id: turn.clone(), parent: None },
            AgentEvent::Text { text: "hi".to_owned(), parent: None },
            AgentEvent::ToolCall { id: "c1".to_owned(), name: "grep".to_owned(), input: Value::Null, parent: None },
            AgentEvent::Used { id: turn, model: None, tokens, cost_microusd: Some(1500) },
        ];
        assert_eq!(parser.parse(&line), said);
        let ended = |line: Value| matches!(parser.parse(&line).as_slice(), [AgentEvent::Ended { .. }]);
        assert!(ended(json!({ "finished": true })) && ended(json!({ "problem": "no luck" })));
        assert!(!ended(json!({ "finished": false })) && !ended(json!({ "problem": null })) && !ended(json!("text")));
    }
}
