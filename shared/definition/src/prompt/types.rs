//! Types of inputs and outputs, in the short form that prompts use: `string`, `integer?`, `string[]`, `low or high`, nested maps.

use hopyard_contract::json::escape;
use serde_json::{Map, Value, json};

use crate::document::{Kind, Node};
use crate::reader::Reader;
use crate::suggest::{did_you_mean, short};

/// Types by name.
const NAMES: [&str; 6] = ["string", "integer", "number", "boolean", "object", "any"];

/// A schema, and whether the value may be left out.
type Typed = (Value, bool);

/// Reads a map of names to types as the JSON Schema of an object.
pub(super) fn read(reader: &mut Reader, node: &Node, pointer: &str) -> Value {
    let Some(entries) = reader.map(node, pointer) else { return object(Map::new(), Vec::new()) };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for entry in entries {
        let pointer = format!("{pointer}/{}", escape(&entry.key));
        if !is_name(&entry.key) {
            let detail = format!("`{}` is no name: letters, digits and `_`, and no digit first", short(&entry.key));
            reader.error("name", &pointer, detail, entry.key_at);
            continue;
        }
        let (schema, optional) = one(reader, &entry.value, &pointer);
        if !optional {
            required.push(Value::from(entry.key.clone()));
        }
        properties.insert(entry.key.clone(), schema);
    }
    object(properties, required)
}

/// The schema of an object with these fields and no others.
pub(super) fn object(properties: Map<String, Value>, required: Vec<Value>) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn one(reader: &mut Reader, node: &Node, pointer: &str) -> Typed {
    match &node.kind {
        Kind::Map(_) => (read(reader, node, pointer), false),
        // YAML reads `[string]` as a list: a list of that type.
        Kind::List(items) if items.len() == 1 => {
            let (items, _) = one(reader, &items[0], &format!("{pointer}/0"));
            (json!({ "type": "array", "items": items }), false)
        }
        _ => match reader.text(node, pointer) {
            Some(text) => match named(text.trim()) {
                Ok(typed) => typed,
                Err(detail) => {
                    reader.error("type_name", pointer, detail, node.at);
                    (json!({}), true)
                }
            },
            None => (json!({}), true),
        },
    }
}

fn named(text: &str) -> Result<Typed, String> {
    if let Some(rest) = text.strip_suffix('?') {
        return named(rest.trim_end()).map(|(schema, _)| (schema, true));
    }
    if let Some(rest) = text.strip_suffix("[]") {
        return named(rest.trim_end()).map(|(items, _)| (json!({ "type": "array", "items": items }), false));
    }
    let words: Vec<&str> =
        if text.contains('|') { text.split('|').map(str::trim).collect() } else { text.split(" or ").map(str::trim).collect() };
    if words.len() > 1 {
        if words.iter().any(|word| word.is_empty()) {
            return Err(format!("`{}` names an empty word", short(text)));
        }
        let words: Vec<&str> = words.into_iter().map(|word| word.trim_matches('"')).collect();
        return Ok((json!({ "type": "string", "enum": words }), false));
    }
    match text {
        "any" => Ok((json!({}), false)),
        name if NAMES.contains(&name) => Ok((json!({ "type": name }), false)),
        other => Err(format!("there is no type `{}`{}; an enum is written `a or b`", short(other), did_you_mean(other, NAMES))),
    }
}

/// A name that a template can use.
fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}
