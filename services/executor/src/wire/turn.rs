//! What a model said in one answer: words, and tools that it wants to use.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Wire;
use crate::json::items;

/// Name under which an answer with a schema is asked for, where a wire has only the input of a tool for a form; no tool is called so.
pub(crate) const ANSWER: &str = "answer";

/// One answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Turn {
    /// Its words.
    pub(crate) text: String,
    /// Tools that it wants to use, in its order.
    pub(crate) calls: Vec<ToolCall>,
    /// All of it as this wire wants it back: blocks, items, a message, or parts.
    pub(crate) raw: Vec<Value>,
}

/// One use of a tool that a model asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ToolCall {
    /// Id by which its result is known; made up where the wire has none.
    pub(crate) id: String,
    pub(crate) name: String,
    /// Arguments; a text when they are no JSON.
    pub(crate) input: Value,
}

/// A turn that is under way.
#[derive(Debug, Default)]
pub(super) struct Draft {
    text: String,
    /// Blocks and calls that come in pieces, by their number.
    blocks: BTreeMap<u64, Block>,
    /// What comes in whole pieces.
    raw: Vec<Value>,
}

#[derive(Debug, Default)]
struct Block {
    head: Value,
    /// Arguments, as far as they came.
    arguments: String,
}

impl Draft {
    /// Takes in an event of a stream; the words that it brings.
    pub(super) fn on_event(&mut self, wire: Wire, event: &Value) -> String {
        let words = match wire {
            Wire::Anthropic => self.anthropic(event),
            Wire::Responses => self.responses(event),
            Wire::Chat => self.chat(event),
            Wire::Gemini => self.gemini(event),
        };
        self.text.push_str(&words);
        words
    }

    /// Takes in an answer that came as a whole.
    pub(super) fn on_answer(&mut self, wire: Wire, answer: &Value) {
        match wire {
            Wire::Anthropic => {
                for (index, block) in items(answer, &["content"]).iter().enumerate() {
                    self.text.push_str(str_of(block, "/text"));
                    let arguments = block.get("input").map(Value::to_string).unwrap_or_default();
                    self.blocks.insert(index as u64, Block { head: block.clone(), arguments });
                }
            }
            Wire::Responses => {
                self.raw = items(answer, &["output"]).to_vec();
                let parts = self.raw.iter().flat_map(|item| items(item, &["content"]));
                self.text = parts.map(|part| str_of(part, "/text")).collect();
            }
            Wire::Chat => {
                for choice in items(answer, &["choices"]) {
                    self.text.push_str(str_of(choice, "/message/content"));
                    self.calls_of_chat(items(choice, &["message", "tool_calls"]));
                }
            }
            Wire::Gemini => {
                let chunks = answer.as_array().map_or(std::slice::from_ref(answer), Vec::as_slice);
                for chunk in chunks {
                    let words = self.gemini(chunk);
                    self.text.push_str(&words);
                }
            }
        }
    }

    fn anthropic(&mut self, event: &Value) -> String {
        let index = event["index"].as_u64().unwrap_or_default();
        match event["type"].as_str() {
            Some("content_block_start") => {
                self.blocks.insert(index, Block { head: event["content_block"].clone(), arguments: String::new() });
                String::new()
            }
            Some("content_block_delta") => {
                let block = self.blocks.entry(index).or_default();
                if let Some(text) = event.pointer("/delta/text").and_then(Value::as_str) {
                    let before = str_of(&block.head, "/text").to_owned();
                    block.head["text"] = json!(before + text);
                    return text.to_owned();
                }
                let piece = str_of(event, "/delta/partial_json");
                block.arguments.push_str(piece);
                if block.head["name"] == ANSWER { piece.to_owned() } else { String::new() }
            }
            _ => String::new(),
        }
    }

    fn responses(&mut self, event: &Value) -> String {
        match event["type"].as_str() {
            Some("response.output_text.delta") => return str_of(event, "/delta").to_owned(),
            Some("response.output_item.done") => self.raw.push(event["item"].clone()),
            Some("response.completed" | "response.incomplete") if self.raw.is_empty() => {
                self.raw = items(event, &["response", "output"]).to_vec();
            }
            _ => {}
        }
        String::new()
    }

    fn chat(&mut self, event: &Value) -> String {
        let mut words = String::new();
        for choice in items(event, &["choices"]) {
            words.push_str(str_of(choice, "/delta/content"));
            self.calls_of_chat(items(choice, &["delta", "tool_calls"]));
        }
        words
    }

    /// A call has its id and name in its first piece, and its arguments over all of them.
    fn calls_of_chat(&mut self, calls: &[Value]) {
        for (at, call) in calls.iter().enumerate() {
            let block = self.blocks.entry(call["index"].as_u64().unwrap_or(at as u64)).or_default();
            for (pointer, field) in [("/id", "id"), ("/function/name", "name")] {
                let text = str_of(call, pointer);
                if !text.is_empty() {
                    block.head[field] = json!(text);
                }
            }
            block.arguments.push_str(str_of(call, "/function/arguments"));
        }
    }

    fn gemini(&mut self, chunk: &Value) -> String {
        let candidates = items(chunk, &["candidates"]);
        let parts: Vec<Value> = candidates.iter().flat_map(|candidate| items(candidate, &["content", "parts"]).iter().cloned()).collect();
        // Its thoughts are no part of the answer.
        let words = parts.iter().filter(|part| part["thought"] != true).map(|part| str_of(part, "/text")).collect();
        self.raw.extend(parts);
        words
    }

    /// The turn, when the answer is at its end.
    pub(super) fn end(self, wire: Wire) -> Turn {
        match wire {
            Wire::Anthropic => self.end_of_blocks(),
            Wire::Chat => self.end_of_message(),
            Wire::Responses => {
                let call = |item: &Value| ToolCall {
                    id: str_of(item, "/call_id").to_owned(),
                    name: str_of(item, "/name").to_owned(),
                    input: arguments(str_of(item, "/arguments")),
                };
                let calls = self.raw.iter().filter(|item| item["type"] == "function_call").map(call).collect();
                Turn { text: self.text, calls, raw: self.raw }
            }
            Wire::Gemini => {
                let call = |(at, call): (usize, &Value)| ToolCall {
                    id: call["id"].as_str().map_or_else(|| format!("call-{}", at + 1), str::to_owned),
                    name: str_of(call, "/name").to_owned(),
                    input: call["args"].clone(),
                };
                let calls = self.raw.iter().filter_map(|part| part.get("functionCall")).enumerate().map(call).collect();
                Turn { text: self.text, calls, raw: self.raw }
            }
        }
    }

    fn end_of_blocks(self) -> Turn {
        let mut turn = Turn { text: self.text, ..Turn::default() };
        for Block { mut head, arguments: text } in self.blocks.into_values() {
            match head["type"].as_str() {
                Some("tool_use") => {
                    let (id, name, input) = (str_of(&head, "/id").to_owned(), str_of(&head, "/name").to_owned(), arguments(&text));
                    // A form that was asked for: the words beside it are no part of it.
                    if name == ANSWER {
                        turn.text = if text.is_empty() { input.to_string() } else { text };
                        continue;
                    }
                    head["input"] = if input.is_object() { input.clone() } else { json!({}) };
                    turn.calls.push(ToolCall { id, name, input });
                }
                // An empty text is taken back by no provider.
                Some("text") if str_of(&head, "/text").is_empty() => continue,
                _ => {}
            }
            turn.raw.push(head);
        }
        turn
    }

    fn end_of_message(self) -> Turn {
        let calls: Vec<ToolCall> = self
            .blocks
            .into_values()
            .map(|Block { head, arguments: text }| ToolCall {
                id: str_of(&head, "/id").to_owned(),
                name: str_of(&head, "/name").to_owned(),
                input: arguments(&text),
            })
            .collect();
        let content = if self.text.is_empty() && !calls.is_empty() { Value::Null } else { json!(self.text) };
        let mut message = json!({ "role": "assistant", "content": content });
        if !calls.is_empty() {
            let call = |call: &ToolCall| json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": call.input.to_string() } });
            message["tool_calls"] = calls.iter().map(call).collect();
        }
        Turn { text: self.text, calls, raw: vec![message] }
    }
}

fn str_of<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Arguments as they came: none are an empty object, and what is no JSON stays a text for the tool to complain about.
fn arguments(text: &str) -> Value {
    if text.trim().is_empty() {
        return json!({});
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(wire: Wire, events: &[Value]) -> (String, Turn) {
        let mut draft = Draft::default();
        let words = events.iter().map(|event| draft.on_event(wire, event)).collect();
        (words, draft.end(wire))
    }

    fn call(id: &str, input: Value) -> ToolCall {
        ToolCall { id: id.to_owned(), name: "grep".to_owned(), input }
    }

    #[test]
    fn a_call_in_pieces_is_put_together_on_every_wire() {
        let input = json!({ "pattern": "a b" });
        let start = json!({ "type": "tool_use", "id": "t1", "name": "grep", "input": {} });
        let (words, said) = turn(
            Wire::Anthropic,
            &[
                json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
                json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "I " } }),
                json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "look" } }),
                json!({ "type": "content_block_start", "index": 1, "content_block": start }),
                json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "input_json_delta", "partial_json": "{\"pattern\":" } }),
                json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "input_json_delta", "partial_json": "\"a b\"}" } }),
            ],
        );
        assert_eq!((words.as_str(), said.text.as_str(), &said.calls), ("I look", "I look", &vec![call("t1", input.clone())]));
        assert_eq!(said.raw[1], json!({ "type": "tool_use", "id": "t1", "name": "grep", "input": input }));

        let item = json!({ "type": "function_call", "id": "fc", "call_id": "c1", "name": "grep", "arguments": input.to_string() });
        let thought = json!({ "type": "reasoning", "id": "rs", "summary": [] });
        let (_, said) = turn(
            Wire::Responses,
            &[
                json!({ "type": "response.output_item.done", "item": thought }),
                json!({ "type": "response.output_item.done", "item": item }),
                json!({ "type": "response.completed", "response": { "output": [thought, item] } }),
            ],
        );
        assert_eq!((&said.calls, &said.raw), (&vec![call("c1", input.clone())], &vec![thought, item]));

        let piece = |delta: Value| json!({ "choices": [{ "index": 0, "delta": delta }] });
        let (_, said) = turn(
            Wire::Chat,
            &[
                piece(
                    json!({ "tool_calls": [{ "index": 0, "id": "c2", "type": "function", "function": { "name": "grep", "arguments": "" } }] }),
                ),
                piece(json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "{\"pattern\": " } }] })),
                piece(json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "\"a b\"}" } }] })),
            ],
        );
        assert_eq!((&said.calls, &said.raw[0]["content"]), (&vec![call("c2", input.clone())], &Value::Null));
        assert_eq!(said.raw[0]["tool_calls"][0]["function"]["arguments"], input.to_string());

        let parts = json!([
            { "text": "hm", "thought": true },
            { "text": "I look" },
            { "functionCall": { "name": "grep", "args": input }, "thoughtSignature": "s" },
        ]);
        let (words, said) = turn(Wire::Gemini, &[json!({ "candidates": [{ "content": { "role": "model", "parts": parts } }] })]);
        assert_eq!((words.as_str(), &said.calls), ("I look", &vec![call("call-1", input)]));
        assert_eq!(json!(said.raw), parts, "signatures go back with their parts");
    }

    #[test]
    fn a_form_that_was_asked_for_is_the_answer_and_no_call() {
        let block = json!({ "type": "tool_use", "id": "t", "name": ANSWER, "input": {} });
        let (words, said) = turn(
            Wire::Anthropic,
            &[
                json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
                json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "Here:" } }),
                json!({ "type": "content_block_start", "index": 1, "content_block": block }),
                json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "input_json_delta", "partial_json": "{\"n\": 1}" } }),
            ],
        );
        assert_eq!((words.as_str(), said.text.as_str(), said.calls.len()), ("Here:{\"n\": 1}", "{\"n\": 1}", 0));
    }

    #[test]
    fn arguments_that_are_no_json_stay_as_they_came() {
        let mut draft = Draft::default();
        let calls = json!([{ "id": "c", "function": { "name": "grep", "arguments": "{\"pattern\": " } }]);
        draft.on_answer(Wire::Chat, &json!({ "choices": [{ "message": { "content": null, "tool_calls": calls } }] }));
        assert_eq!(draft.end(Wire::Chat).calls, [call("c", json!("{\"pattern\": "))]);
    }
}
