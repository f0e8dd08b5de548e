//! The four wires, as providers speak them: what a request says, and how a reply is put.

use serde_json::{Value, json};
use uuid::Uuid;

use super::script::{Reply, Tokens};

/// A way to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Responses.
    Responses,
    /// OpenAI Chat Completions.
    Chat,
    /// Gemini.
    Gemini,
}

impl Wire {
    /// The wire of a path.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/messages" => Some(Self::Anthropic),
            "/v1/responses" => Some(Self::Responses),
            "/v1/chat/completions" => Some(Self::Chat),
            _ if path.starts_with("/v1beta/models/") && path.ends_with("enerateContent") => Some(Self::Gemini),
            _ => None,
        }
    }

    /// How often the model has spoken in this conversation: a repeated call gets the same reply.
    pub(super) fn spoken(self, request: &Value) -> usize {
        let (field, by_model): (&str, fn(&Value) -> bool) = match self {
            Self::Anthropic | Self::Chat => ("messages", |item| item["role"] == "assistant"),
            Self::Responses => ("input", |item| {
                item["role"] == "assistant" || matches!(item["type"].as_str(), Some("function_call" | "custom_tool_call" | "reasoning"))
            }),
            Self::Gemini => ("contents", |item| item["role"] == "model"),
        };
        // Several items in a row are one reply.
        let items = request[field].as_array().map_or(&[][..], Vec::as_slice);
        items.chunk_by(|a, b| by_model(a) == by_model(b)).filter(|group| group.first().is_some_and(by_model)).count()
    }

    /// What the conversation began with, in words.
    pub(super) fn asked(self, request: &Value) -> Option<String> {
        let (field, content) = match self {
            Self::Anthropic | Self::Chat => ("messages", "content"),
            Self::Responses => ("input", "content"),
            Self::Gemini => ("contents", "parts"),
        };
        let first = request[field].as_array()?.iter().find(|item| item["role"] == "user")?;
        match &first[content] {
            Value::String(text) => Some(text.clone()),
            parts => Some(parts.as_array()?.iter().filter_map(|part| part["text"].as_str()).collect()),
        }
    }

    /// What became of the tools that the model used last, in words; `None` when one of them has no result, which no provider takes.
    pub(super) fn results(self, request: &Value) -> Option<Vec<String>> {
        let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let (mut called, mut results) = (0, Vec::new());
        let (field, inner) = match self {
            Self::Anthropic => ("messages", "content"),
            Self::Chat => ("messages", "tool_calls"),
            Self::Responses => ("input", ""),
            Self::Gemini => ("contents", "parts"),
        };
        for item in items(&request[field]) {
            let parts = match self {
                Self::Chat if item["role"] == "tool" => vec![item],
                Self::Responses => vec![item],
                _ => items(&item[inner]),
            };
            for part in parts {
                let kind = part["type"].as_str().unwrap_or_default();
                if matches!(kind, "tool_use" | "function_call" | "function") || part.get("functionCall").is_some() {
                    // Those before have all their results, or this would not have been said.
                    if results.len() == called {
                        (called, results) = (0, Vec::new());
                    }
                    called += 1;
                } else if kind == "tool_result" || part["role"] == "tool" {
                    results.push(words(&part["content"]));
                } else if kind == "function_call_output" {
                    results.push(words(&part["output"]));
                } else if let Some(response) = part.get("functionResponse") {
                    results.push(response["response"].to_string());
                }
            }
        }
        (results.len() >= called).then_some(results)
    }

    /// The model that is asked.
    pub(super) fn model(self, request: &Value, path: &str) -> String {
        match self {
            Self::Gemini => path.trim_start_matches("/v1beta/models/").split(':').next().unwrap_or_default().to_owned(),
            _ => request["model"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Whether the answer shall come as a stream.
    pub(super) fn is_streamed(self, request: &Value, path: &str) -> bool {
        match self {
            Self::Gemini => path.ends_with(":streamGenerateContent"),
            _ => request["stream"] == true,
        }
    }

    /// A failure.
    pub(super) fn error(self, status: u16, words: &str) -> Value {
        match self {
            Self::Anthropic => {
                let kind = match status {
                    401 => "authentication_error",
                    403 => "permission_error",
                    429 => "rate_limit_error",
                    529 => "overloaded_error",
                    400..500 => "invalid_request_error",
                    _ => "api_error",
                };
                json!({ "type": "error", "error": { "type": kind, "message": words } })
            }
            Self::Responses | Self::Chat => json!({ "error": { "type": "error", "code": status.to_string(), "message": words } }),
            Self::Gemini => json!({ "error": { "code": status, "status": "ERROR", "message": words } }),
        }
    }

    /// A whole answer.
    pub(super) fn answer(self, reply: &Reply, model: &str) -> Value {
        match self {
            Self::Anthropic => anthropic(reply, model),
            Self::Responses => responses(reply, model),
            Self::Chat => {
                let message = json!({ "role": "assistant", "content": reply.text, "tool_calls": chat_calls(reply) });
                json!({
                    "id": id("chatcmpl"), "object": "chat.completion", "created": 0, "model": model,
                    "choices": [{ "index": 0, "message": message, "finish_reason": chat_stop(reply) }], "usage": chat_usage(reply.usage),
                })
            }
            Self::Gemini => gemini(reply, model),
        }
    }

    /// An answer as server-sent events.
    pub(super) fn events(self, reply: &Reply, model: &str, request: &Value) -> Vec<String> {
        match self {
            Self::Anthropic => anthropic_events(reply, model),
            Self::Responses => responses_events(reply, model),
            Self::Chat => chat_events(reply, model, request["stream_options"]["include_usage"] == true),
            Self::Gemini => vec![format!("data: {}\r\n\r\n", gemini(reply, model))],
        }
    }
}

fn words(content: &Value) -> String {
    content.as_str().map_or_else(|| content.to_string(), str::to_owned)
}

fn id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v4().simple())
}

/// An event with its name, as two of the wires have it; the name is that of its `type`.
fn named(data: Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

fn anthropic_usage(used: Tokens, output: u64) -> Value {
    json!({
        "input_tokens": used.input, "output_tokens": output,
        "cache_read_input_tokens": used.cache_read, "cache_creation_input_tokens": used.cache_write,
    })
}

fn anthropic_blocks(reply: &Reply) -> Vec<Value> {
    let words = reply.text.iter().map(|text| json!({ "type": "text", "text": text }));
    let calls = reply.tools.iter().map(|tool| json!({ "type": "tool_use", "id": id("toolu"), "name": tool.name, "input": tool.input }));
    words.chain(calls).collect()
}

fn anthropic(reply: &Reply, model: &str) -> Value {
    json!({
        "id": id("msg"), "type": "message", "role": "assistant", "model": model, "content": anthropic_blocks(reply),
        "stop_reason": if reply.tools.is_empty() { "end_turn" } else { "tool_use" }, "stop_sequence": null,
        "usage": anthropic_usage(reply.usage, reply.usage.output),
    })
}

fn anthropic_events(reply: &Reply, model: &str) -> Vec<String> {
    let whole = anthropic(reply, model);
    let mut message = whole.clone();
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    // As the real one does: the true count of the output comes at the end.
    message["usage"] = anthropic_usage(reply.usage, 1);
    let mut events = vec![json!({ "type": "message_start", "message": message })];
    for (index, block) in whole["content"].as_array().into_iter().flatten().enumerate() {
        let mut start = block.clone();
        let delta = if block["type"] == "text" {
            start["text"] = json!("");
            json!({ "type": "text_delta", "text": block["text"] })
        } else {
            start["input"] = json!({});
            json!({ "type": "input_json_delta", "partial_json": block["input"].to_string() })
        };
        events.push(json!({ "type": "content_block_start", "index": index, "content_block": start }));
        events.push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        events.push(json!({ "type": "content_block_stop", "index": index }));
    }
    let stop = json!({ "stop_reason": whole["stop_reason"], "stop_sequence": null });
    events.push(json!({ "type": "message_delta", "delta": stop, "usage": { "output_tokens": reply.usage.output } }));
    events.push(json!({ "type": "message_stop" }));
    events.into_iter().map(named).collect()
}

/// The counts of the OpenAI wires have what was read from a cache in the input.
fn responses_usage(used: Tokens) -> Value {
    let input = used.input + used.cache_read;
    json!({
        "input_tokens": input, "input_tokens_details": { "cached_tokens": used.cache_read },
        "output_tokens": used.output, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": input + used.output,
    })
}

fn responses(reply: &Reply, model: &str) -> Value {
    let words = reply.text.iter().map(|text| {
        json!({ "type": "message", "id": id("msg"), "role": "assistant", "status": "completed",
                "content": [{ "type": "output_text", "text": text, "annotations": [] }] })
    });
    let calls = reply.tools.iter().map(|tool| {
        let arguments = Value::Object(tool.input.clone()).to_string();
        json!({ "type": "function_call", "id": id("fc"), "call_id": id("call"), "name": tool.name, "arguments": arguments, "status": "completed" })
    });
    let output: Vec<Value> = words.chain(calls).collect();
    json!({ "id": id("resp"), "object": "response", "created_at": 0, "status": "completed", "model": model, "output": output, "usage": responses_usage(reply.usage) })
}

fn responses_events(reply: &Reply, model: &str) -> Vec<String> {
    let whole = responses(reply, model);
    let mut begun = whole.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    let mut events = vec![json!({ "type": "response.created", "response": begun })];
    for (index, item) in whole["output"].as_array().into_iter().flatten().enumerate() {
        events.push(json!({ "type": "response.output_item.added", "output_index": index, "item": item }));
        if let Some(text) = item.pointer("/content/0/text") {
            events.push(json!({
                "type": "response.output_text.delta", "item_id": item["id"], "output_index": index, "content_index": 0, "delta": text,
            }));
        }
        events.push(json!({ "type": "response.output_item.done", "output_index": index, "item": item }));
    }
    events.push(json!({ "type": "response.completed", "response": whole }));
    events.into_iter().map(named).collect()
}

fn chat_usage(used: Tokens) -> Value {
    let prompt = used.input + used.cache_read;
    json!({
        "prompt_tokens": prompt, "completion_tokens": used.output, "total_tokens": prompt + used.output,
        "prompt_tokens_details": { "cached_tokens": used.cache_read },
    })
}

fn chat_stop(reply: &Reply) -> &'static str {
    if reply.tools.is_empty() { "stop" } else { "tool_calls" }
}

fn chat_calls(reply: &Reply) -> Vec<Value> {
    let call = |(index, tool): (usize, &super::script::Tool)| {
        let arguments = Value::Object(tool.input.clone()).to_string();
        json!({ "index": index, "id": id("call"), "type": "function", "function": { "name": tool.name, "arguments": arguments } })
    };
    reply.tools.iter().enumerate().map(call).collect()
}

fn chat_events(reply: &Reply, model: &str, with_usage: bool) -> Vec<String> {
    let id = id("chatcmpl");
    let chunk = |choices: Value, usage: Value| json!({ "id": id, "object": "chat.completion.chunk", "created": 0, "model": model, "choices": choices, "usage": usage });
    let piece = |delta: Value, stop: Option<&str>| chunk(json!([{ "index": 0, "delta": delta, "finish_reason": stop }]), Value::Null);
    let mut chunks = vec![piece(json!({ "role": "assistant", "content": reply.text.as_deref().unwrap_or_default() }), None)];
    if !reply.tools.is_empty() {
        chunks.push(piece(json!({ "tool_calls": chat_calls(reply) }), None));
    }
    chunks.push(piece(json!({}), Some(chat_stop(reply))));
    if with_usage {
        chunks.push(chunk(json!([]), chat_usage(reply.usage)));
    }
    let events = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    events.chain(["data: [DONE]\n\n".to_owned()]).collect()
}

fn gemini(reply: &Reply, model: &str) -> Value {
    let words = reply.text.iter().map(|text| json!({ "text": text }));
    let calls = reply.tools.iter().map(|tool| json!({ "functionCall": { "name": tool.name, "args": tool.input } }));
    let parts: Vec<Value> = words.chain(calls).collect();
    let (used, prompt) = (reply.usage, reply.usage.input + reply.usage.cache_read);
    json!({
        "candidates": [{ "index": 0, "content": { "role": "model", "parts": parts }, "finishReason": "STOP" }], "modelVersion": model,
        "usageMetadata": { "promptTokenCount": prompt, "candidatesTokenCount": used.output, "cachedContentTokenCount": used.cache_read, "totalTokenCount": prompt + used.output },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_tells_how_often_the_model_has_spoken() {
        let messages = json!({ "messages": [{ "role": "user" }, { "role": "assistant" }, { "role": "user" }, { "role": "assistant" }, { "role": "user" }] });
        assert_eq!(Wire::Anthropic.spoken(&messages), 2);
        let input = json!({ "input": [
            { "type": "message", "role": "user" }, { "type": "function_call" }, { "type": "function_call" }, { "type": "function_call_output" },
            { "type": "function_call_output" }, { "type": "message", "role": "assistant" },
        ] });
        assert_eq!(Wire::Responses.spoken(&input), 2, "parallel calls are one reply");
        assert_eq!(Wire::Gemini.spoken(&json!({ "contents": [{ "role": "user" }, { "role": "model" }] })), 1);
        assert_eq!(Wire::Chat.spoken(&json!({})), 0);
    }

    #[test]
    fn every_use_of_a_tool_has_its_result() {
        let call = |id: &str| json!({ "type": "tool_use", "id": id, "name": "x", "input": {} });
        let result = |id: &str| json!({ "type": "tool_result", "tool_use_id": id, "content": format!("of {id}") });
        let mut messages = vec![
            json!({ "role": "assistant", "content": [call("a")] }),
            json!({ "role": "user", "content": [result("a")] }),
            json!({ "role": "assistant", "content": [call("b"), call("c")] }),
        ];
        assert_eq!(Wire::Anthropic.results(&json!({ "messages": messages })), None);
        messages.push(json!({ "role": "user", "content": [result("b"), result("c")] }));
        assert_eq!(Wire::Anthropic.results(&json!({ "messages": messages })), Some(vec!["of b".to_owned(), "of c".to_owned()]));
        let call = json!({ "role": "assistant", "tool_calls": [{ "type": "function", "id": "a" }] });
        let result = json!({ "role": "tool", "tool_call_id": "a", "content": "of a" });
        assert_eq!(Wire::Chat.results(&json!({ "messages": [call] })), None);
        assert_eq!(Wire::Chat.results(&json!({ "messages": [call, result] })), Some(vec!["of a".to_owned()]));
        assert_eq!(Wire::Responses.results(&json!({ "input": [{ "type": "function_call" }] })), None);
        assert_eq!(Wire::Gemini.results(&json!({ "contents": [{ "parts": [{ "functionCall": {} }] }] })), None);
    }
}
