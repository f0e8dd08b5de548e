//! What a model says, piece by piece, on every wire.

use serde_json::Value;

use super::turn::{Draft, Turn};
use super::{Call, Form, MOST, Meter, Wire, sse};

/// Reads the words of an answer and, like a meter, what it used and how it ended.
pub(crate) struct Speech {
    meter: Meter,
    events: Option<sse::Events>,
    whole: Vec<u8>,
    draft: Draft,
}

impl Speech {
    /// Reads an answer of this content type.
    pub(crate) fn new(wire: Wire, content_type: &str) -> Self {
        let meter = Meter::new(wire, content_type);
        let events = matches!(meter.form, Form::Stream(_)).then(sse::Events::default);
        Self { meter, events, whole: Vec::new(), draft: Draft::default() }
    }

    /// The words that these bytes bring; those of an answer that comes as a whole are known at its end.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.meter.feed(bytes);
        let Some(events) = &mut self.events else {
            if self.whole.len() + bytes.len() <= MOST {
                self.whole.extend_from_slice(bytes);
            }
            return Vec::new();
        };
        let data = events.feed(bytes).into_iter().filter_map(|data| serde_json::from_str::<Value>(&data).ok());
        data.map(|event| self.draft.on_event(self.meter.wire, &event)).filter(|words| !words.is_empty()).collect()
    }

    /// Whether the words come while it is read.
    pub(crate) fn streams(&self) -> bool {
        self.events.is_some()
    }

    /// What was said, and what is known of the call.
    pub(crate) fn end(mut self) -> (Turn, Call) {
        let wire = self.meter.wire;
        if self.events.is_none()
            && let Ok(answer) = serde_json::from_slice::<Value>(&self.whole)
        {
            self.draft.on_answer(wire, &answer);
        }
        (self.draft.end(wire), self.meter.end())
    }
}
