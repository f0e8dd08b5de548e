//! Server-sent events, as far as providers use them: the data of each event, cut anywhere on its way.

use super::MOST;

/// The data of events, in order.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: String,
    /// Whether the event has any data; data may be an empty text.
    any: bool,
    /// Whether the event is too long to be read.
    skip: bool,
}

impl Events {
    /// Takes the next bytes and returns the data of the events that they end.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + self.data.len() + piece.len() > MOST {
                self.skip = true;
                self.line.clear();
                self.data.clear();
            }
            if !self.skip {
                self.line.extend_from_slice(piece);
            }
            if piece.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.line);
                events.extend(self.end_of_line(&line, piece));
            }
        }
        events
    }

    /// A line is whole; an empty one ends the event.
    fn end_of_line(&mut self, line: &[u8], piece: &[u8]) -> Option<String> {
        if self.skip {
            // Of a line that is not kept, only a piece that is nothing but its end can be an empty one.
            self.skip = !matches!(piece, b"\n" | b"\r\n");
            self.any = false;
            return None;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return std::mem::take(&mut self.any).then(|| std::mem::take(&mut self.data));
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            if self.any {
                self.data.push('\n');
            }
            self.any = true;
            self.data.push_str(&String::from_utf8_lossy(data.strip_prefix(b" ").unwrap_or(data)));
        }
        None
    }
}
