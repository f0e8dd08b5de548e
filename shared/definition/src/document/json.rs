//! JSON text to a tree with places; the text is known to be JSON, so this reader only walks it.

use std::collections::HashSet;

use hopyard_contract::json::escape;
use hopyard_contract::problem::FieldError;

use super::{Document, Entry, Kind, MAX_DEPTH, Mark, Node, error_at, keep};

/// Reads text that serde_json has found to be JSON.
pub(crate) fn read(source: &str) -> Document {
    let mut walk = Walk { source, offset: 0, at: Mark { line: 1, column: 1 }, path: Vec::new(), errors: Vec::new() };
    match walk.value() {
        Ok(root) => Document { root: Some(root), errors: walk.errors },
        Err(error) => {
            walk.errors.push(error);
            Document { root: None, errors: walk.errors }
        }
    }
}

struct Walk<'a> {
    source: &'a str,
    offset: usize,
    at: Mark,
    path: Vec<String>,
    errors: Vec<FieldError>,
}

impl<'a> Walk<'a> {
    fn value(&mut self) -> Result<Node, FieldError> {
        let at = self.start();
        if self.path.len() > MAX_DEPTH || (self.path.len() == MAX_DEPTH && matches!(self.peek(), b'{' | b'[')) {
            return Err(error_at("too_deep", "", format!("the definition nests deeper than {MAX_DEPTH} levels"), at));
        }
        let kind = match self.peek() {
            b'{' => self.map()?,
            b'[' => self.list()?,
            b'"' => match self.text()? {
                text if text.contains('\0') => {
                    let pointer = self.pointer();
                    keep(&mut self.errors, || error_at("control_char", pointer, "a text has no NUL characters", at));
                    Kind::Broken
                }
                text => Kind::Text(text),
            },
            _ => match self.word() {
                "null" => Kind::Null,
                "true" => Kind::Bool(true),
                "false" => Kind::Bool(false),
                number => Kind::Number(number.to_owned()),
            },
        };
        Ok(Node { at, kind })
    }

    fn map(&mut self) -> Result<Kind, FieldError> {
        let (mut entries, mut seen) = (Vec::new(), HashSet::new());
        while self.next_item(b'}') {
            let key_at = self.start();
            let key = self.text()?;
            self.start();
            self.advance(1);
            self.path.push(escape(&key));
            if key.contains('\0') {
                let pointer = self.pointer();
                keep(&mut self.errors, || error_at("control_char", pointer, "a key has no NUL characters", key_at));
            }
            let value = self.value()?;
            if seen.insert(key.clone()) {
                entries.push(Entry { key, key_at, value });
            } else {
                let pointer = self.pointer();
                keep(&mut self.errors, || {
                    error_at("duplicate_key", pointer, format!("the key `{}` stands twice", crate::suggest::short(&key)), key_at)
                });
            }
            self.path.pop();
        }
        Ok(Kind::Map(entries))
    }

    fn list(&mut self) -> Result<Kind, FieldError> {
        let mut items = Vec::new();
        while self.next_item(b']') {
            self.path.push(items.len().to_string());
            items.push(self.value()?);
            self.path.pop();
        }
        Ok(Kind::List(items))
    }

    /// Steps over the opening bracket or a comma; at the closing bracket over that, and says false.
    ///
    /// It is called before the first item and after each one, so an opening bracket here is the list's or map's own.
    fn next_item(&mut self, close: u8) -> bool {
        self.start();
        if matches!(self.peek(), b'{' | b'[' | b',') {
            self.advance(1);
            self.start();
        }
        if self.peek() == close {
            self.advance(1);
            return false;
        }
        self.offset < self.source.len()
    }

    fn text(&mut self) -> Result<String, FieldError> {
        let at = self.start();
        let bytes = self.source.as_bytes();
        let mut end = self.offset + 1;
        while end < bytes.len() && bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let raw = &self.source[self.offset..(end + 1).min(self.source.len())];
        let text =
            serde_json::from_str(raw).map_err(|_| error_at("yaml_syntax", self.pointer(), "the text has half a surrogate pair", at))?;
        self.advance(raw.len());
        Ok(text)
    }

    fn word(&mut self) -> &'a str {
        let rest = &self.source[self.offset..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))).unwrap_or(rest.len());
        self.advance(end);
        &rest[..end]
    }

    /// Skips white space and says where the next token starts.
    fn start(&mut self) -> Mark {
        let rest = &self.source[self.offset..];
        self.advance(rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len());
        self.at
    }

    fn peek(&self) -> u8 {
        self.source.as_bytes().get(self.offset).copied().unwrap_or(0)
    }

    fn advance(&mut self, bytes: usize) {
        let end = (self.offset + bytes).min(self.source.len());
        for c in self.source[self.offset..end].chars() {
            if c == '\n' {
                self.at = Mark { line: self.at.line + 1, column: 1 };
            } else {
                self.at.column += 1;
            }
        }
        self.offset = end;
    }

    fn pointer(&self) -> String {
        self.path.iter().flat_map(|token| ["/", token]).collect()
    }
}
