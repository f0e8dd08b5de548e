//! Typed reads of nodes: each says what it expected, and where, instead of stopping at the first mistake.

use std::collections::BTreeMap;
use std::str::FromStr;

use hopyard_contract::Name;
use hopyard_contract::duration::{NotASpan, Span};
use hopyard_contract::id::NotAName;
use hopyard_contract::json::escape;
use hopyard_contract::problem::FieldError;

use crate::document::{Entry, Kind, Mark, Node, error_at, keep, scalar};
use crate::suggest::{did_you_mean, short};

/// Collects the problems of one definition.
pub(crate) struct Reader {
    errors: Vec<FieldError>,
}

/// The fields of a map, already checked against the known names.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'n> {
    entries: &'n [Entry],
    at: Mark,
}

impl<'n> Fields<'n> {
    /// The value of a field, if it is there.
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|e| &e.value)
    }

    /// The whole entry of a field.
    pub(crate) fn entry(&self, name: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|e| e.key == name)
    }

    /// Where the map starts.
    pub(crate) fn at(&self) -> Mark {
        self.at
    }
}

impl Reader {
    pub(crate) fn new(errors: Vec<FieldError>) -> Self {
        Self { errors }
    }

    pub(crate) fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    pub(crate) fn error(&mut self, code: &str, pointer: &str, detail: impl Into<String>, at: Mark) {
        keep(&mut self.errors, || error_at(code, pointer, detail, at));
    }

    /// A value of the wrong type; silent about what is broken anyway.
    fn wrong(&mut self, node: &Node, pointer: &str, expected: &str) {
        if node.kind == Kind::Broken {
            return;
        }
        let hint = match &node.kind {
            Kind::Number(_) | Kind::Bool(_) if expected == "a text" => "; put it in quotes",
            Kind::Text(text)
                if expected == "true or false" && matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off" | "y" | "n") =>
            {
                "; `yes`, `no`, `on` and `off` are texts"
            }
            _ => "",
        };
        self.error("type", pointer, format!("expected {expected}, found {}{hint}", node.noun()), node.at);
    }

    /// A required field that is not there.
    pub(crate) fn missing(&mut self, fields: &Fields<'_>, pointer: &str, name: &str) {
        self.error("missing_field", &format!("{pointer}/{name}"), format!("the field `{name}` is missing"), fields.at());
    }

    /// A map with known fields; the others are complained about.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, pointer: &str, known: &[&str]) -> Option<Fields<'n>> {
        let entries = self.map(node, pointer)?;
        for entry in entries.iter().filter(|e| !known.contains(&e.key.as_str())) {
            let hint = did_you_mean(&entry.key, known.iter().copied());
            self.error(
                "unknown_field",
                &format!("{pointer}/{}", escape(&entry.key)),
                format!("there is no field `{}`{hint}", short(&entry.key)),
                entry.key_at,
            );
        }
        Some(Fields { entries, at: node.at })
    }

    /// A map with free keys.
    pub(crate) fn map<'n>(&mut self, node: &'n Node, pointer: &str) -> Option<&'n [Entry]> {
        if let Kind::Map(entries) = &node.kind {
            return Some(entries);
        }
        self.wrong(node, pointer, "a map");
        None
    }

    pub(crate) fn list<'n>(&mut self, node: &'n Node, pointer: &str) -> Option<&'n [Node]> {
        if let Kind::List(items) = &node.kind {
            return Some(items);
        }
        self.wrong(node, pointer, "a list");
        None
    }

    /// A list of texts; those that are none are complained about.
    pub(crate) fn texts(&mut self, node: &Node, pointer: &str) -> Vec<String> {
        let items = self.list(node, pointer).unwrap_or_default();
        let text = |(at, item): (usize, &Node)| self.text(item, &format!("{pointer}/{at}")).map(str::to_owned);
        items.iter().enumerate().filter_map(text).collect()
    }

    pub(crate) fn text<'n>(&mut self, node: &'n Node, pointer: &str) -> Option<&'n str> {
        if let Kind::Text(text) = &node.kind {
            return Some(text);
        }
        self.wrong(node, pointer, "a text");
        None
    }

    pub(crate) fn boolean(&mut self, node: &Node, pointer: &str) -> Option<bool> {
        if let Kind::Bool(value) = node.kind {
            return Some(value);
        }
        self.wrong(node, pointer, "true or false");
        None
    }

    /// A text, or a number or boolean as it is written.
    pub(crate) fn scalar(&mut self, node: &Node, pointer: &str) -> Option<String> {
        match &node.kind {
            Kind::Text(text) | Kind::Number(text) => Some(text.clone()),
            Kind::Bool(value) => Some(value.to_string()),
            _ => {
                self.wrong(node, pointer, "a text, a number or a boolean");
                None
            }
        }
    }

    /// A decimal number as text, from a number or a text; the digits are those of the source.
    pub(crate) fn decimal(&mut self, node: &Node, pointer: &str) -> Option<String> {
        match &node.kind {
            Kind::Text(text) => Some(text.clone()),
            Kind::Number(text) => Some(scalar::without_exponent(text).unwrap_or_else(|| text.clone())),
            _ => {
                self.wrong(node, pointer, "a decimal number");
                None
            }
        }
    }

    pub(crate) fn integer(&mut self, node: &Node, pointer: &str, least: u64, most: u64) -> Option<u64> {
        match &node.kind {
            Kind::Number(text) if scalar::is_integer(text) => {
                let value = scalar::to_integer(text).and_then(|n| u64::try_from(n).ok()).filter(|n| (least..=most).contains(n));
                if value.is_none() {
                    self.error("range", pointer, format!("the number lies between {least} and {most}"), node.at);
                }
                value
            }
            _ => {
                self.wrong(node, pointer, "a whole number");
                None
            }
        }
    }

    pub(crate) fn name(&mut self, node: &Node, pointer: &str) -> Option<Name> {
        match self.text(node, pointer)?.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                let code = if error == NotAName::Length { "length" } else { "pattern" };
                self.error(code, pointer, error.to_string(), node.at);
                None
            }
        }
    }

    pub(crate) fn span(&mut self, node: &Node, pointer: &str) -> Option<Span> {
        let read: Result<Span, NotASpan> = match &node.kind {
            Kind::Text(text) => text.parse(),
            Kind::Number(_) => Err(NotASpan::Pattern),
            _ => {
                self.wrong(node, pointer, "a duration");
                return None;
            }
        };
        read.map_err(|error| {
            let code = if error == NotASpan::Range { "range" } else { "duration" };
            self.error(code, pointer, error.to_string(), node.at);
        })
        .ok()
    }

    /// One word of a vocabulary.
    pub(crate) fn word<T: FromStr>(&mut self, node: &Node, pointer: &str, known: &[&str]) -> Option<T> {
        let text = self.text(node, pointer)?;
        let value = text.parse().ok();
        if value.is_none() {
            let hint = did_you_mean(text, known.iter().copied());
            self.error("unknown_value", pointer, format!("`{}` is none of {}{hint}", short(text), known.join(", ")), node.at);
        }
        value
    }

    /// An environment: names to texts, numbers or booleans.
    pub(crate) fn env(&mut self, node: Option<&Node>, pointer: &str) -> BTreeMap<String, String> {
        let Some(entries) = node.and_then(|n| self.map(n, pointer)) else {
            return BTreeMap::new();
        };
        let mut env = BTreeMap::new();
        for entry in entries {
            let value = self.scalar(&entry.value, &format!("{pointer}/{}", escape(&entry.key)));
            // The name is checked with the plan, whatever its value.
            env.insert(entry.key.clone(), value.unwrap_or_default());
        }
        env
    }
}
