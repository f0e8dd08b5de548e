//! Inputs: their JSON Schemas in a definition, and the values that a submission gives for them.

use hopyard_contract::json::escape;
use hopyard_contract::plan::Plan;
use hopyard_contract::problem::FieldError;
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

use crate::document::{Kind, Node};
use crate::reader::Reader;
use crate::roles;
use crate::suggest::{did_you_mean, short};

/// Most inputs of a definition.
const MAX_INPUTS: usize = 256;

/// Most problems that are listed for one value.
const MAX_PER_INPUT: usize = 10;

/// Largest compiled pattern, in bytes.
const MAX_PATTERN: usize = 1024 * 1024;

/// Keywords of JSON Schema 2020-12 that an input may use; what leads out of the schema is not among them.
pub(crate) const KEYWORDS: [&str; 47] = [
    "type",
    "enum",
    "const",
    "default",
    "title",
    "description",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "unevaluatedItems",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "contentEncoding",
];

/// Reads `/inputs`; an input that is no schema is kept as an empty one, so that expressions may still name it.
pub(crate) fn read(reader: &mut Reader, node: &Node) -> Map<String, Value> {
    let mut inputs = Map::new();
    let Some(entries) = reader.map(node, "/inputs") else {
        return inputs;
    };
    if entries.len() > MAX_INPUTS {
        reader.error("length", "/inputs", format!("a workflow has at most {MAX_INPUTS} inputs"), node.at);
        return inputs;
    }
    for entry in entries {
        let pointer = format!("/inputs/{}", escape(&entry.key));
        let schema = read_one(reader, &entry.value, &pointer);
        inputs.insert(entry.key.clone(), schema.unwrap_or_else(|| Value::Object(Map::new())));
    }
    inputs
}

/// Reads one schema.
pub(crate) fn read_one(reader: &mut Reader, node: &Node, pointer: &str) -> Option<Value> {
    let entries = reader.map(node, pointer)?;
    let mut known = true;
    for entry in entries {
        let at = || format!("{pointer}/{}", escape(&entry.key));
        if entry.key.starts_with("x-") || KEYWORDS.contains(&entry.key.as_str()) {
            continue;
        }
        known = false;
        if entry.key.starts_with('$') {
            reader.error("schema", &at(), format!("`{}` is not allowed: a schema stands alone", short(&entry.key)), entry.key_at);
        } else {
            let hint = did_you_mean(&entry.key, KEYWORDS);
            reader.error("unknown_field", &at(), format!("`{}` is no keyword of JSON Schema{hint}", short(&entry.key)), entry.key_at);
        }
    }
    let schema = match node.to_json() {
        Ok(schema) => schema,
        Err((at, detail)) => {
            reader.error("number_range", pointer, detail, at);
            return None;
        }
    };
    if !known {
        return Some(schema);
    }
    if let Some(keyword) = reference(&schema) {
        reader.error("schema", pointer, format!("`{keyword}` is not allowed: a schema stands alone"), node.at);
        return Some(schema);
    }
    match compile(&schema) {
        Ok(validator) => {
            if let Some(default) = node_of(node, "default") {
                for error in validator.iter_errors(&schema["default"]).take(1) {
                    reader.error("schema", &format!("{pointer}/default"), format!("the default does not fit: {error}"), default.at);
                }
            }
        }
        Err((path, detail)) => {
            let at = node.locate(&path).value;
            reader.error("schema", &format!("{pointer}{path}"), format!("this is no JSON Schema: {detail}"), at);
        }
    }
    Some(schema)
}

fn node_of<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.kind {
        Kind::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
        _ => None,
    }
}

/// The first keyword that would make a schema depend on another one; plain data inside of it is passed over.
fn reference(schema: &Value) -> Option<&str> {
    match schema {
        Value::Object(map) => map.iter().find_map(|(key, value)| match key.as_str() {
            "$ref" | "$dynamicRef" | "$recursiveRef" | "$schema" | "$id" | "$anchor" | "$dynamicAnchor" | "$vocabulary" => {
                Some(key.as_str())
            }
            "default" | "const" | "enum" | "examples" => None,
            _ => reference(value),
        }),
        Value::Array(items) => items.iter().find_map(reference),
        _ => None,
    }
}

/// Compiles a schema without any way to load another one, and with patterns that take linear time.
fn compile(schema: &Value) -> Result<Validator, (String, String)> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .offline()
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN))
        .build(schema)
        .map_err(|error| (error.instance_path().to_string(), error.to_string()))
}

/// Gives each input of a plan its value: the given one if it fits its schema, else the default.
///
/// Problems point below `/inputs` and never repeat a given value, which may be a secret.
///
/// # Errors
/// Everything that is wrong: `unknown_input`, `missing_input`, `invalid_input`; else `unknown_role` for an input that names a role
/// that there is not.
pub fn bind_inputs(plan: &Plan, given: &Map<String, Value>) -> Result<Map<String, Value>, Vec<FieldError>> {
    let mut errors = Vec::new();
    for name in given.keys().filter(|n| !plan.inputs.contains_key(*n)) {
        let hint = did_you_mean(name, plan.inputs.keys().map(String::as_str));
        errors.push(FieldError::new(
            "unknown_input",
            format!("/inputs/{}", escape(name)),
            format!("the workflow `{}` has no input `{}`{hint}", plan.name, short(name)),
        ));
    }
    let mut bound = Map::new();
    for (name, schema) in &plan.inputs {
        let pointer = format!("/inputs/{}", escape(name));
        match given.get(name).or_else(|| schema.get("default")) {
            None => errors.push(FieldError::new("missing_input", pointer, format!("the input `{name}` has no default and was not given"))),
            Some(value) => {
                check(schema, value, &pointer, &mut errors);
                bound.insert(name.clone(), value.clone());
            }
        }
    }
    if errors.is_empty() {
        errors = roles::check_named(plan, &bound);
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
}

fn check(schema: &Value, value: &Value, pointer: &str, errors: &mut Vec<FieldError>) {
    let validator = match compile(schema) {
        Ok(validator) => validator,
        // Only a plan that did not come through this crate can have such a schema.
        Err((_, detail)) => {
            return errors.push(FieldError::new("invalid_input", pointer, format!("the input's schema is not valid: {detail}")));
        }
    };
    // Beyond 64 bits a JSON reader keeps a float, which is another number than the one that was written.
    let is_integer = schema.get("type").and_then(Value::as_str) == Some("integer");
    if is_integer && value.is_f64() && value.as_f64().is_some_and(|n| n.abs() >= 2f64.powi(63)) {
        return errors.push(FieldError::new("invalid_input", pointer, "an integer has at most 64 bits"));
    }
    for error in validator.iter_errors(value).take(MAX_PER_INPUT) {
        errors.push(FieldError::new("invalid_input", format!("{pointer}{}", error.instance_path()), error.masked().to_string()));
    }
}
