//! Questions as providers want them: path and body, by wire.

use serde_json::{Value, json};

use super::Order;
use super::tools::Offer;
use crate::wire::{ANSWER, ToolCall, Turn, Wire};

/// One part of a conversation.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// Words of ours.
    User(String),
    /// An answer whose words alone matter.
    Model(String),
    /// An answer that wants tools to be used.
    Called(Turn),
    /// What came of each use, and whether it went well.
    Results(Vec<(ToolCall, Result<String, String>)>),
}

/// Path and body of a call.
pub(super) fn call(order: &Order, said: &[Said]) -> (String, Value) {
    match order.wire {
        Wire::Anthropic => ("/v1/messages".to_owned(), anthropic(order, said)),
        Wire::Responses => ("/v1/responses".to_owned(), responses(order, said)),
        Wire::Chat => ("/v1/chat/completions".to_owned(), chat(order, said)),
        Wire::Gemini => (format!("/v1beta/models/{}:streamGenerateContent?alt=sse", order.model), gemini(order, said)),
    }
}

/// What the model is told beside the question; where a wire has no field for a schema, it stands here.
fn system(order: &Order, schema_in_words: bool) -> Option<String> {
    let schema = order.output.as_ref().filter(|_| schema_in_words);
    let words =
        schema.map(|schema| format!("Answer with JSON alone, without a fence around it. It has to fit this JSON Schema:\n{schema}"));
    match (&order.system, words) {
        (Some(system), Some(words)) => Some(format!("{system}\n\n{words}")),
        (system, words) => system.clone().or(words),
    }
}

fn set(body: &mut Value, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body[field] = value.into();
    }
}

/// The tools that are offered, each in this form; nothing if there are none, which no wire takes as an empty list.
fn offered(order: &Order, form: impl Fn(&Offer) -> Value) -> Option<Vec<Value>> {
    let offers = order.tools.iter().map(|tool| form(&tool.offer())).collect::<Vec<_>>();
    (!offers.is_empty()).then_some(offers)
}

fn words(result: &Result<String, String>) -> &str {
    match result {
        Ok(text) | Err(text) => text,
    }
}

fn message(role: &str, content: impl Into<Value>) -> Value {
    json!({ "role": role, "content": content.into() })
}

/// Only an object can be the input of a tool, which is how this wire asks for a form.
fn anthropic(order: &Order, said: &[Said]) -> Value {
    let result = |(call, result): &(ToolCall, Result<String, String>)| json!({ "type": "tool_result", "tool_use_id": call.id, "content": words(result), "is_error": result.is_err() });
    let messages = said.iter().map(|part| match part {
        Said::User(text) => message("user", text.as_str()),
        Said::Model(text) => message("assistant", text.as_str()),
        Said::Called(turn) => message("assistant", turn.raw.clone()),
        Said::Results(results) => message("user", results.iter().map(result).collect::<Vec<_>>()),
    });
    let messages: Vec<Value> = messages.collect();
    let form = order.output.as_ref().filter(|schema| schema["type"] == "object");
    let mut body = json!({ "model": order.model, "max_tokens": order.max_tokens, "messages": messages, "stream": true });
    set(&mut body, "system", system(order, form.is_none()));
    let tool = |offer: &Offer| json!({ "name": offer.name, "description": offer.description, "input_schema": offer.input });
    let mut tools = offered(order, tool);
    if let Some(schema) = form {
        body["tool_choice"] = match tools {
            None => json!({ "type": "tool", "name": ANSWER }),
            Some(_) => json!({ "type": "any" }),
        };
        tools.get_or_insert_default().push(json!({ "name": ANSWER, "description": "Gives the answer.", "input_schema": schema }));
    }
    set(&mut body, "tools", tools);
    body
}

fn responses(order: &Order, said: &[Said]) -> Value {
    let mut input = Vec::new();
    for part in said {
        match part {
            Said::User(text) => input.push(message("user", text.as_str())),
            Said::Model(text) => input.push(message("assistant", text.as_str())),
            Said::Called(turn) => input.extend(turn.raw.iter().cloned()),
            Said::Results(results) => {
                let result = |(call, result): &(ToolCall, Result<String, String>)| json!({ "type": "function_call_output", "call_id": call.id, "output": words(result) });
                input.extend(results.iter().map(result));
            }
        }
    }
    let mut body = json!({ "model": order.model, "max_output_tokens": order.max_tokens, "input": input, "stream": true });
    set(&mut body, "instructions", system(order, false));
    if let Some(schema) = &order.output {
        body["text"] = json!({ "format": { "type": "json_schema", "name": ANSWER, "schema": schema, "strict": false } });
    }
    let tool = |offer: &Offer| json!({ "type": "function", "name": offer.name, "description": offer.description, "parameters": offer.input, "strict": false });
    set(&mut body, "tools", offered(order, tool));
    body
}

fn chat(order: &Order, said: &[Said]) -> Value {
    let mut messages: Vec<Value> = system(order, false).map(|system| message("system", system)).into_iter().collect();
    for part in said {
        match part {
            Said::User(text) => messages.push(message("user", text.as_str())),
            Said::Model(text) => messages.push(message("assistant", text.as_str())),
            Said::Called(turn) => messages.extend(turn.raw.iter().cloned()),
            Said::Results(results) => {
                let result = |(call, result): &(ToolCall, Result<String, String>)| json!({ "role": "tool", "tool_call_id": call.id, "content": words(result) });
                messages.extend(results.iter().map(result));
            }
        }
    }
    let mut body = json!({ "model": order.model, "max_tokens": order.max_tokens, "messages": messages, "stream": true });
    if let Some(schema) = &order.output {
        body["response_format"] = json!({ "type": "json_schema", "json_schema": { "name": ANSWER, "schema": schema, "strict": false } });
    }
    let tool = |offer: &Offer| json!({ "type": "function", "function": { "name": offer.name, "description": offer.description, "parameters": offer.input } });
    set(&mut body, "tools", offered(order, tool));
    body
}

fn gemini(order: &Order, said: &[Said]) -> Value {
    let content = |role: &str, parts: Vec<Value>| json!({ "role": role, "parts": parts });
    let result = |(call, result): &(ToolCall, Result<String, String>)| {
        let field = if result.is_ok() { "output" } else { "error" };
        json!({ "functionResponse": { "name": call.name, "response": { field: words(result) } } })
    };
    let contents = said.iter().map(|part| match part {
        Said::User(text) => content("user", vec![json!({ "text": text })]),
        Said::Model(text) => content("model", vec![json!({ "text": text })]),
        Said::Called(turn) => content("model", turn.raw.clone()),
        Said::Results(results) => content("user", results.iter().map(result).collect()),
    });
    let contents: Vec<Value> = contents.collect();
    let mut body = json!({ "contents": contents, "generationConfig": { "maxOutputTokens": order.max_tokens } });
    set(&mut body, "systemInstruction", system(order, true).map(|text| json!({ "parts": [{ "text": text }] })));
    let tool = |offer: &Offer| json!({ "name": offer.name, "description": offer.description, "parametersJsonSchema": offer.input });
    match offered(order, tool) {
        Some(tools) => body["tools"] = json!([{ "functionDeclarations": tools }]),
        // Not beside tools, which this wire refuses.
        None if order.output.is_some() => body["generationConfig"]["responseMimeType"] = json!("application/json"),
        None => {}
    }
    body
}
