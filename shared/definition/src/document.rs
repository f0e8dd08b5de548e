//! The text as a tree in which every value and every key knows its line and column.

use hopyard_contract::problem::FieldError;

pub(crate) mod json;
pub(crate) mod scalar;
pub(crate) mod yaml;

/// Deepest nesting of a definition.
pub(crate) const MAX_DEPTH: usize = 64;

/// Most problems that are kept while a text is read.
const MAX_KEPT: usize = 1000;

/// A place in the text; both count from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and where it starts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Mark,
    pub(crate) kind: Kind,
}

/// The value itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    /// As it is written, so that money and large integers stay exact.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Already complained about; readers pass over it in silence.
    Broken,
}

/// A key of a map, where it stands, and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Mark,
    pub(crate) value: Node,
}

/// Where a pointer leads: the place of the key and of the value, or those of the nearest value above.
pub(crate) struct Place {
    pub(crate) key: Mark,
    pub(crate) value: Mark,
    pub(crate) exact: bool,
}

/// What a text holds; without a root nothing more can be said about it.
pub(crate) struct Document {
    pub(crate) root: Option<Node>,
    pub(crate) errors: Vec<FieldError>,
}

/// Reads a text, as JSON if it is JSON and else as YAML.
pub(crate) fn read(source: &str) -> Document {
    let errors = control_characters(source);
    if !errors.is_empty() {
        return Document { root: None, errors };
    }
    let text = source.strip_prefix('\u{feff}').unwrap_or(source);
    // JSON has escapes that YAML lacks (surrogate pairs), so JSON text has a reader of its own.
    if text.trim_start().starts_with('{') && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok() {
        json::read(text)
    } else {
        yaml::read(text)
    }
}

/// YAML allows only printable characters; the others are found here, all of them and with their places.
fn control_characters(source: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut at = Mark { line: 1, column: 1 };
    for c in source.chars() {
        let allowed = matches!(c, '\t' | '\n' | '\r' | '\u{85}') || !(c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'));
        if !allowed && errors.len() < MAX_KEPT {
            errors.push(error_at("control_char", "", format!("the character U+{:04X} may not stand in a definition", u32::from(c)), at));
        }
        if c == '\n' {
            at = Mark { line: at.line + 1, column: 1 };
        } else {
            at.column += 1;
        }
    }
    errors
}

/// A problem with its place.
pub(crate) fn error_at(code: &str, pointer: impl Into<String>, detail: impl Into<String>, at: Mark) -> FieldError {
    let mut error = FieldError::new(code, pointer, detail);
    (error.line, error.column) = (Some(at.line), Some(at.column));
    error
}

impl Node {
    /// Words for what stands here, for "expected …, found …".
    pub(crate) fn noun(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
            Kind::Broken => "something unreadable",
        }
    }

    /// Follows a JSON pointer as far as it goes.
    pub(crate) fn locate(&self, pointer: &str) -> Place {
        let mut node = self;
        let mut place = Place { key: self.at, value: self.at, exact: true };
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match &node.kind {
                Kind::Map(entries) => entries.iter().find(|e| e.key == token).map(|e| (e.key_at, &e.value)),
                Kind::List(items) => token.parse::<usize>().ok().and_then(|i| items.get(i)).map(|n| (n.at, n)),
                _ => None,
            };
            let Some((key, value)) = next else {
                place.exact = false;
                return place;
            };
            place = Place { key, value: value.at, exact: true };
            node = value;
        }
        place
    }

    /// The value as JSON; a number that JSON cannot hold exactly as an integer, or at all, is the error.
    pub(crate) fn to_json(&self) -> Result<serde_json::Value, (Mark, String)> {
        use serde_json::Value;
        Ok(match &self.kind {
            Kind::Null | Kind::Broken => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::Number(text) => Value::Number(
                scalar::to_number(text).ok_or_else(|| (self.at, format!("`{text}` is outside of the numbers that are kept exactly")))?,
            ),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_json).collect::<Result<_, _>>()?),
            Kind::Map(entries) => {
                let mut map = serde_json::Map::new();
                for entry in entries {
                    map.insert(entry.key.clone(), entry.value.to_json()?);
                }
                Value::Object(map)
            }
        })
    }
}

/// Keeps a problem unless there are too many already.
pub(crate) fn keep(errors: &mut Vec<FieldError>, error: impl FnOnce() -> FieldError) {
    if errors.len() < MAX_KEPT {
        errors.push(error());
    }
}
