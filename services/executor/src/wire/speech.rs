//! What a model says, piece by piece, on every wire.

use serde_json::Value;

use super::{Call, Form, MOST, Meter, Wire, sse};
use crate::json::items;

/// Reads the words of an answer and, like a meter, what it used and how it ended.
pub(crate) struct Speech {
    meter: Meter,
    events: Option<sse::Events>,
    whole: Vec<u8>,
}

impl Speech {
    /// Reads an answer of this content type.
    pub(crate) fn new(wire: Wire, content_type: &str) -> Self {
        let meter = Meter::new(wire, content_type);
        let events = matches!(meter.form, Form::Stream(_)).then(sse::Events::default);
        Self { meter, events, whole: Vec::new() }
    }

    /// The words that these bytes bring.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.meter.feed(bytes);
        match &mut self.events {
            Some(events) => {
                let wire = self.meter.wire;
                let data = events.feed(bytes).into_iter().filter_map(|data| serde_json::from_str::<Value>(&data).ok());
                data.map(|event| piece(wire, &event)).filter(|words| !words.is_empty()).collect()
            }
            None => {
                if self.whole.len() + bytes.len() <= MOST {
                    self.whole.extend_from_slice(bytes);
                }
                Vec::new()
            }
        }
    }

    /// The words of an answer that came as a whole, and what is known of the call.
    pub(crate) fn end(self) -> (Option<String>, Call) {
        let wire = self.meter.wire;
        let whole = self.events.is_none().then(|| serde_json::from_slice::<Value>(&self.whole).ok()).flatten();
        (whole.map(|answer| words(wire, &answer)).filter(|words| !words.is_empty()), self.meter.end())
    }
}

fn joined<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> String {
    texts.flatten().collect()
}

/// The words of one event.
fn piece(wire: Wire, event: &Value) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    match wire {
        Wire::Anthropic => text("/delta/text").or_else(|| text("/delta/partial_json")).unwrap_or_default().to_owned(),
        Wire::Responses if event["type"] == "response.output_text.delta" => text("/delta").unwrap_or_default().to_owned(),
        Wire::Responses => String::new(),
        Wire::Chat => joined(items(event, &["choices"]).iter().map(|choice| choice.pointer("/delta/content")?.as_str())),
        Wire::Gemini => words(wire, event),
    }
}

/// The words of a whole answer.
fn words(wire: Wire, answer: &Value) -> String {
    match wire {
        Wire::Anthropic => {
            let block = |block: &Value| match block["type"].as_str() {
                Some("text") => block["text"].as_str().map(str::to_owned),
                Some("tool_use") => Some(block["input"].to_string()),
                _ => None,
            };
            items(answer, &["content"]).iter().filter_map(block).collect()
        }
        Wire::Responses => {
            let parts = items(answer, &["output"]).iter().flat_map(|item| items(item, &["content"]));
            joined(parts.map(|part| part.get("text")?.as_str()))
        }
        Wire::Chat => joined(items(answer, &["choices"]).iter().map(|choice| choice.pointer("/message/content")?.as_str())),
        Wire::Gemini => {
            let parts = items(answer, &["candidates"])
                .iter()
                .flat_map(|candidate| candidate.pointer("/content").map_or(&[][..], |content| items(content, &["parts"])));
            // Its thoughts are no part of the answer.
            joined(parts.filter(|part| part["thought"] != true).map(|part| part.get("text")?.as_str()))
        }
    }
}
