//! Questions as providers want them: path and body, by wire.

use serde_json::{Value, json};

use super::Order;
use crate::wire::Wire;

/// Name under which an answer with a schema is asked for.
const NAME: &str = "answer";

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    User,
    Model,
}

/// Path and body of a call.
pub(super) fn call(order: &Order, said: &[(Role, String)]) -> (String, Value) {
    match order.wire {
        Wire::Anthropic => ("/v1/messages".to_owned(), anthropic(order, said)),
        Wire::Responses => ("/v1/responses".to_owned(), responses(order, said)),
        Wire::Chat => ("/v1/chat/completions".to_owned(), chat(order, said)),
        Wire::Gemini => (format!("/v1beta/models/{}:streamGenerateContent?alt=sse", order.model), gemini(order, said)),
    }
}

fn messages(said: &[(Role, String)]) -> Vec<Value> {
    let role = |role: Role| if role == Role::User { "user" } else { "assistant" };
    said.iter().map(|(who, text)| json!({ "role": role(*who), "content": text })).collect()
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

/// Only an object can be the input of a tool, which is how this wire asks for a form.
fn anthropic(order: &Order, said: &[(Role, String)]) -> Value {
    let form = order.output.as_ref().filter(|schema| schema["type"] == "object");
    let mut body = json!({ "model": order.model, "max_tokens": order.max_tokens, "messages": messages(said), "stream": true });
    set(&mut body, "system", system(order, form.is_none()));
    if let Some(schema) = form {
        body["tools"] = json!([{ "name": NAME, "description": "Gives the answer.", "input_schema": schema }]);
        body["tool_choice"] = json!({ "type": "tool", "name": NAME });
    }
    body
}

fn responses(order: &Order, said: &[(Role, String)]) -> Value {
    let mut body = json!({ "model": order.model, "max_output_tokens": order.max_tokens, "input": messages(said), "stream": true });
    set(&mut body, "instructions", system(order, false));
    if let Some(schema) = &order.output {
        body["text"] = json!({ "format": { "type": "json_schema", "name": NAME, "schema": schema, "strict": false } });
    }
    body
}

fn chat(order: &Order, said: &[(Role, String)]) -> Value {
    let mut said_before = messages(said);
    if let Some(system) = system(order, false) {
        said_before.insert(0, json!({ "role": "system", "content": system }));
    }
    let mut body = json!({ "model": order.model, "max_tokens": order.max_tokens, "messages": said_before, "stream": true });
    if let Some(schema) = &order.output {
        body["response_format"] = json!({ "type": "json_schema", "json_schema": { "name": NAME, "schema": schema, "strict": false } });
    }
    body
}

fn gemini(order: &Order, said: &[(Role, String)]) -> Value {
    let role = |role: Role| if role == Role::User { "user" } else { "model" };
    let contents: Vec<Value> = said.iter().map(|(who, text)| json!({ "role": role(*who), "parts": [{ "text": text }] })).collect();
    let mut body = json!({ "contents": contents, "generationConfig": { "maxOutputTokens": order.max_tokens } });
    set(&mut body, "systemInstruction", system(order, true).map(|text| json!({ "parts": [{ "text": text }] })));
    if order.output.is_some() {
        body["generationConfig"]["responseMimeType"] = json!("application/json");
    }
    body
}
