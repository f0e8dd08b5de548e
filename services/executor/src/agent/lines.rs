//! Lines of JSON out of pieces that are cut anywhere.

use serde_json::Value;

/// Longest line in bytes; of a longer one nothing is kept but that it was there.
const LONGEST: usize = 32 << 20;

/// What of a line has come so far.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Vec<u8>,
    /// The open line is too long: the rest of it is passed over.
    skipping: bool,
}

impl Lines {
    /// The lines that these bytes end; what is no JSON is a text.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Value> {
        let mut lines = Vec::new();
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let Some(mut part) = parts.next() else { return lines };
        for next in parts {
            self.take(part);
            lines.extend(self.end());
            part = next;
        }
        self.take(part);
        lines
    }

    fn take(&mut self, part: &[u8]) {
        if self.open.len() + part.len() > LONGEST {
            self.skipping = true;
            self.open = Vec::new();
        }
        if !self.skipping {
            self.open.extend_from_slice(part);
        }
    }

    fn end(&mut self) -> Option<Value> {
        let line = std::mem::take(&mut self.open);
        if std::mem::take(&mut self.skipping) {
            return Some(Value::from(format!("a line of more than {LONGEST} bytes")));
        }
        let text = line.trim_ascii();
        (!text.is_empty()).then(|| serde_json::from_slice(text).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(text).into_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_come_out_whole_however_they_are_cut() {
        let text = b"{\"a\": \"\xc3\xbc\"}\n\r\nnot json\n[1]\nopen";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let found: Vec<Value> = text.chunks(size).flat_map(|piece| lines.feed(piece)).collect();
            assert_eq!(found, [json!({"a": "ü"}), json!("not json"), json!([1])], "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_of_10_mb_is_read_and_an_endless_one_is_not_kept() {
        let mut lines = Lines::default();
        let long = serde_json::to_vec(&json!({"x": "y".repeat(10 << 20)})).unwrap();
        assert!(lines.feed(&long).is_empty());
        assert_eq!(lines.feed(b"\n").len(), 1);
        for _ in 0..40 {
            assert!(lines.feed(&vec![b'x'; 1 << 20]).is_empty());
        }
        assert!(lines.open.is_empty());
        let found = lines.feed(b"\n{\"next\":1}\n");
        assert_eq!((found.len(), &found[1]), (2, &json!({"next": 1})));
    }
}
