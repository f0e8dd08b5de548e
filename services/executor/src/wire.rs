//! What providers of models say on the wire: tokens, model and failure of one call, read from its answer while it passes by.
//!
//! The gateway and `llm` steps read the same modules. Whatever a provider adds or leaves out, an answer is never refused
//! because of it: what is not known stays unknown.

use hopyard_contract::usage::Tokens;
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod anthropic;
pub(crate) mod chat;
mod gemini;
pub(crate) mod limit;
mod responses;
mod speech;
mod sse;
mod turn;

pub(crate) use speech::Speech;
pub(crate) use turn::{ANSWER, ToolCall, Turn};

#[cfg(test)]
mod tests;

/// Most bytes of one event, or of an answer that is no stream, that are looked at; longer ones pass unread.
const MOST: usize = 16 << 20;

/// A provider's way to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wire {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Responses.
    Responses,
    /// OpenAI Chat Completions, and the many that speak like it.
    Chat,
    /// Gemini.
    Gemini,
}

impl Wire {
    /// The wire of this name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of(name: &str) -> anyhow::Result<Self> {
        match name {
            "anthropic" => Ok(Self::Anthropic),
            "responses" => Ok(Self::Responses),
            "chat" => Ok(Self::Chat),
            "gemini" => Ok(Self::Gemini),
            _ => anyhow::bail!("there is no wire `{name}`"),
        }
    }

    /// Header that carries a key, and its value.
    pub(crate) fn credential(self, key: &str) -> (&'static str, String) {
        match self {
            Self::Anthropic => ("x-api-key", key.to_owned()),
            Self::Responses | Self::Chat => ("authorization", format!("Bearer {key}")),
            Self::Gemini => ("x-goog-api-key", key.to_owned()),
        }
    }
}

/// What is known of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Call {
    /// Model that answered, by its own word.
    pub(crate) model: Option<String>,
    /// Tokens; absent when the answer did not say.
    pub(crate) tokens: Option<Tokens>,
    /// Why the model stopped, in the provider's word.
    pub(crate) stop: Option<String>,
    /// The provider's word for what went wrong.
    pub(crate) error: Option<String>,
    /// Whether the answer came to its own end.
    pub(crate) whole: bool,
}

/// Reads one answer as it passes by.
pub(crate) struct Meter {
    wire: Wire,
    form: Form,
    call: Call,
}

enum Form {
    Stream(sse::Events),
    Whole(Vec<u8>),
    /// Too long to be read.
    Unread,
}

impl Meter {
    /// Reads an answer of this content type.
    pub(crate) fn new(wire: Wire, content_type: &str) -> Self {
        let stream = content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        let form = if stream { Form::Stream(sse::Events::default()) } else { Form::Whole(Vec::new()) };
        Self { wire, form, call: Call::default() }
    }

    /// Takes the next bytes, cut anywhere.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        match &mut self.form {
            Form::Stream(events) => {
                for data in events.feed(bytes) {
                    on_event(self.wire, &data, &mut self.call);
                }
            }
            Form::Whole(body) if body.len() + bytes.len() <= MOST => body.extend_from_slice(bytes),
            Form::Whole(_) => self.form = Form::Unread,
            Form::Unread => {}
        }
    }

    /// What is known at the end of the answer, or where it broke off.
    pub(crate) fn end(mut self) -> Call {
        match self.form {
            Form::Stream(mut events) => {
                // Some end without the empty line that ends an event.
                for data in events.feed(b"\n\n") {
                    on_event(self.wire, &data, &mut self.call);
                }
            }
            Form::Whole(body) => {
                if let Ok(answer) = serde_json::from_slice::<Value>(&body) {
                    on_answer(self.wire, &answer, &mut self.call);
                }
            }
            Form::Unread => {}
        }
        self.call
    }
}

fn on_event(wire: Wire, data: &str, call: &mut Call) {
    if data.trim() == "[DONE]" {
        call.whole = true;
        return;
    }
    let Ok(event) = serde_json::from_str::<Value>(data) else { return };
    match wire {
        Wire::Anthropic => anthropic::on_event(&event, call),
        Wire::Responses => responses::on_event(&event, call),
        Wire::Chat => chat::on_event(&event, call),
        Wire::Gemini => gemini::on_answer(&event, call),
    }
}

fn on_answer(wire: Wire, answer: &Value, call: &mut Call) {
    match wire {
        Wire::Anthropic => anthropic::on_answer(answer, call),
        Wire::Responses => responses::on_answer(answer, call),
        Wire::Chat => chat::on_answer(answer, call),
        Wire::Gemini => gemini::on_answer(answer, call),
    }
}
