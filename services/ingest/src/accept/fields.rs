//! Reads the fields of a JSON object strictly, and says everything that is wrong with it at once.

use hopyard_contract::id::NotAName;
use hopyard_contract::json::escape;
use hopyard_contract::repository::has_control;
use hopyard_contract::{FieldError, Name, RunId};
use serde_json::{Map, Value};

/// An object of a body, and what was found wrong so far.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    pointer: String,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// Opens an object; what is no object is one error, fields that are not known are one each.
    ///
    /// # Errors
    /// `type`.
    pub(crate) fn open(value: &'a Value, pointer: &str, known: &[&str]) -> Result<Self, Vec<FieldError>> {
        let Value::Object(map) = value else {
            return Err(vec![FieldError::new("type", pointer, format!("an object is expected here, not {}", noun(value)))]);
        };
        let errors = map
            .keys()
            .filter(|key| !known.contains(&key.as_str()))
            .map(|key| {
                FieldError::new(
                    "unknown_field",
                    format!("{pointer}/{}", escape(key)),
                    format!("there is no field `{}`{}", shown(key), suggestion(key, known)),
                )
            })
            .collect();
        Ok(Self { map, pointer: pointer.to_owned(), errors })
    }

    /// Ends the reading.
    pub(crate) fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// Adds an error at a field.
    pub(crate) fn error(&mut self, field: &str, code: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::new(code, format!("{}/{field}", self.pointer), detail));
    }

    /// Adds errors that know their pointers.
    pub(crate) fn extend(&mut self, errors: Vec<FieldError>) {
        self.errors.extend(errors);
    }

    /// Whether the field stands in the object with something other than null.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.value(field).is_some()
    }

    /// A field; null is as good as absent.
    pub(crate) fn value(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|v| !v.is_null())
    }

    fn wrong_type(&mut self, field: &str, expected: &str, value: &Value) {
        self.error(field, "type", format!("{expected} is expected here, not {}", noun(value)));
    }

    /// A text.
    pub(crate) fn text(&mut self, field: &str) -> Option<&'a str> {
        match self.value(field)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_type(field, "a text", other);
                None
            }
        }
    }

    /// A text of `1..=max` characters without control characters.
    pub(crate) fn line(&mut self, field: &str, max: usize) -> Option<String> {
        let text = self.text(field)?;
        if let Err((code, detail)) = check_line(text, 1, max) {
            self.error(field, code, detail);
            return None;
        }
        Some(text.to_owned())
    }

    /// A text of `1..=max` characters that may have several lines, without other control characters.
    pub(crate) fn paragraph(&mut self, field: &str, max: usize) -> Option<String> {
        let text = self.text(field)?;
        let one_line: String = text.chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }).collect();
        if let Err((code, detail)) = check_line(&one_line, 1, max) {
            self.error(field, code, detail);
            return None;
        }
        Some(text.to_owned())
    }

    /// A name.
    pub(crate) fn name(&mut self, field: &str) -> Option<Name> {
        let text = self.text(field)?;
        match read_name(text) {
            Ok(name) => Some(name),
            Err((code, detail)) => {
                self.error(field, code, detail);
                None
            }
        }
    }

    /// A run id.
    pub(crate) fn run_id(&mut self, field: &str) -> Option<RunId> {
        let text = self.text(field)?;
        match text.parse() {
            Ok(id) => Some(id),
            Err(_) => {
                self.error(field, "pattern", "a run id is a UUIDv7 in canonical lower case");
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(crate) fn integer(&mut self, field: &str, min: u64, max: u64) -> Option<u64> {
        let value = self.value(field)?;
        let Value::Number(number) = value else {
            self.wrong_type(field, "a whole number", value);
            return None;
        };
        let within = number.as_u64().filter(|n| (min..=max).contains(n));
        if within.is_none() {
            // A whole number beyond 64 bits arrives as a float, as does `1.0`; only the first one is a whole number.
            let whole = number.is_u64() || number.is_i64() || number.as_f64().is_some_and(|f| f.abs() >= 9_007_199_254_740_992.0);
            if whole {
                self.error(field, "range", format!("the number lies between {min} and {max}"));
            } else {
                self.wrong_type(field, "a whole number", value);
            }
        }
        within
    }

    /// True or false.
    pub(crate) fn flag(&mut self, field: &str) -> Option<bool> {
        match self.value(field)? {
            Value::Bool(flag) => Some(*flag),
            other => {
                self.wrong_type(field, "true or false", other);
                None
            }
        }
    }

    /// An object with any keys.
    pub(crate) fn object(&mut self, field: &str) -> Option<&'a Map<String, Value>> {
        match self.map.get(field)? {
            Value::Object(map) => Some(map),
            other => {
                self.wrong_type(field, "an object", other);
                None
            }
        }
    }

    /// A list.
    pub(crate) fn list(&mut self, field: &str) -> Option<&'a Vec<Value>> {
        match self.map.get(field)? {
            Value::Array(list) => Some(list),
            other => {
                self.wrong_type(field, "a list", other);
                None
            }
        }
    }
}

/// Checks a text of one line; the error is code and sentence.
pub(crate) fn check_line(text: &str, min: usize, max: usize) -> Result<(), (&'static str, String)> {
    if has_control(text) {
        return Err(("control_char", "the text has control, zero-width or direction characters".to_owned()));
    }
    if !(min..=max).contains(&text.chars().count()) {
        return Err(("length", format!("the text has {min} to {max} characters")));
    }
    Ok(())
}

/// Reads a name; the error is code and sentence.
pub(crate) fn read_name(text: &str) -> Result<Name, (&'static str, String)> {
    if has_control(text) {
        return Err(("control_char", "a name has no control, zero-width or direction characters".to_owned()));
    }
    if text.trim().is_empty() {
        return Err(("length", NotAName::Length.to_string()));
    }
    text.parse().map_err(|e: NotAName| {
        let code = if e == NotAName::Length { "length" } else { "pattern" };
        (code, e.to_string())
    })
}

/// The kind of a value in words.
pub(crate) fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "this number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A key as it may stand in a sentence.
fn shown(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn suggestion(key: &str, known: &[&str]) -> String {
    if key.len() > 64 {
        return String::new();
    }
    let near = known.iter().map(|k| (strsim::damerau_levenshtein(key, k), k)).filter(|(d, k)| *d <= 2 && *d < k.len()).min();
    near.map_or_else(String::new, |(_, k)| format!("; did you mean `{k}`?"))
}
