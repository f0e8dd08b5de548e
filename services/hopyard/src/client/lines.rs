//! Cuts the chunks of an attempt's log into whole lines, so that steps beside each other do not mix within one.

use std::collections::BTreeMap;

use base64::Engine as _;
use hopyard_contract::log::{Chunk, Stream};

/// A longer line is printed in pieces.
const LONGEST: usize = 16 * 1024;

/// The unfinished lines of one attempt, one per pipe.
#[derive(Debug, Default)]
pub struct Lines {
    open: BTreeMap<&'static str, Vec<u8>>,
    next: u64,
}

/// The bytes of a chunk; a `b64` that is none counts as empty.
pub fn content(chunk: &Chunk) -> Vec<u8> {
    match (&chunk.text, &chunk.b64) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(b64)) => base64::engine::general_purpose::STANDARD.decode(b64).unwrap_or_default(),
        (None, None) => Vec::new(),
    }
}

impl Lines {
    /// Takes a chunk and returns the lines that it completes. A chunk that was seen before gives none.
    pub fn push(&mut self, chunk: &Chunk) -> Vec<String> {
        let bytes = content(chunk);
        let end = chunk.offset + bytes.len() as u64;
        // Chunks may come again after a reconnect, cut in other places.
        let seen = usize::try_from(self.next.saturating_sub(chunk.offset)).unwrap_or(usize::MAX).min(bytes.len());
        self.next = self.next.max(end);
        let open = self.open.entry(name(chunk.stream)).or_default();
        let mut lines = Vec::new();
        for &byte in &bytes[seen..] {
            if byte == b'\n' || open.len() >= LONGEST {
                lines.push(text(open));
            }
            if byte != b'\n' {
                open.push(byte);
            }
        }
        lines
    }

    /// Position after the last byte seen.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    /// What is left without a line feed at the end of the log.
    pub fn finish(&mut self) -> Vec<String> {
        let mut open = std::mem::take(&mut self.open);
        open.values_mut().filter(|line| !line.is_empty()).map(text).collect()
    }
}

fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::System => "system",
    }
}

/// The line without the carriage return of foreign line ends and without what could take over a terminal.
fn text(line: &mut Vec<u8>) -> String {
    let bytes = std::mem::take(line);
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\r').chars().map(|c| if c.is_control() && c != '\t' && c != '\u{1b}' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, stream: Stream, text: &str) -> Chunk {
        Chunk { offset, stream, at: chrono::DateTime::UNIX_EPOCH, text: Some(text.to_owned()), b64: None }
    }

    #[test]
    fn lines_are_whole_and_each_comes_once() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&chunk(0, Stream::Stdout, "one\ntw")), ["one"]);
        assert_eq!(lines.push(&chunk(6, Stream::Stderr, "err\r\n")), ["err"]);
        assert_eq!(lines.push(&chunk(11, Stream::Stdout, "o\nthree")), ["two"]);
        assert!(lines.push(&chunk(6, Stream::Stderr, "err\r\n")).is_empty());
        // Sent again in another cut: only the new bytes count.
        assert_eq!(lines.push(&chunk(13, Stream::Stdout, "three!\n")), ["three!"]);
        assert_eq!(lines.next_offset(), 20);
        assert!(lines.finish().is_empty());
        assert!(lines.push(&chunk(20, Stream::System, "end")).is_empty());
        assert_eq!(lines.finish(), ["end"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_well_as_can_be() {
        let mut lines = Lines::default();
        let chunk = Chunk { text: None, b64: Some("/2EK".to_owned()), ..chunk(0, Stream::Stdout, "") };
        assert_eq!(lines.push(&chunk), ["\u{fffd}a"]);
        let long = "x".repeat(LONGEST + 1) + "\n";
        let pieces = lines.push(&super::tests::chunk(3, Stream::Stdout, &long));
        assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [LONGEST, 1]);
    }
}
