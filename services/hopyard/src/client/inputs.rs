//! Values of inputs, labels and times as they are written on the command line.

use std::path::Path;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use hopyard_contract::duration::Span;
use serde_json::{Map, Value};

use crate::exit::Failure;

/// Reads `k=v` and `@file.json` in their order; later ones win.
///
/// `types` are the JSON Schemas of the workflow's inputs, as far as they are known: an input of type `string` takes the text
/// as it stands, any other is read as JSON if it is some.
///
/// # Errors
/// [`Failure::Usage`] for another form, or a file that cannot be read or holds no object.
pub fn inputs(given: &[String], types: Option<&Map<String, Value>>) -> Result<Map<String, Value>> {
    let mut values = Map::new();
    for text in given {
        if let Some(file) = text.strip_prefix('@') {
            values.append(&mut object(Path::new(file))?);
            continue;
        }
        let (key, value) = pair(text, "input")?;
        let is_text = types.and_then(|types| types.get(&key)).is_some_and(|schema| schema.get("type") == Some(&Value::from("string")));
        values.insert(key, if is_text { Value::String(value) } else { guess(value) });
    }
    Ok(values)
}

/// Whether the types of the inputs matter for reading these.
pub fn needs_types(given: &[String]) -> bool {
    // Only a text that is also JSON can be read in two ways.
    given.iter().any(|text| {
        !text.starts_with('@')
            && text.split_once('=').is_some_and(|(_, value)| !matches!(guess(value.to_owned()), Value::String(_)) || value.starts_with('"'))
    })
}

fn guess(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn object(file: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read(file).map_err(|e| Failure::usage(format!("the file of inputs {} cannot be read: {e}", file.display())))?;
    match hopyard_contract::json::parse(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Failure::usage(format!("{} holds no JSON object", file.display()))),
        Err(error) => Err(Failure::usage(format!("{}: {error}", file.display()))),
    }
}

/// Splits `k=v`; `what` names it in the error.
///
/// # Errors
/// [`Failure::Usage`] for another form.
pub fn pair(text: &str, what: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("`{text}` is no {what}: write NAME=VALUE"))),
    }
}

/// A point in the past: an RFC 3339 time, or a duration before `now`.
///
/// # Errors
/// [`Failure::Usage`] for another form.
pub fn since(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    moment(text, |span| now.checked_sub_signed(span.delta()))
}

/// A point in the future: an RFC 3339 time, or a duration from `now`.
///
/// # Errors
/// [`Failure::Usage`] for another form.
pub fn start_at(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    moment(text, |span| now.checked_add_signed(span.delta()))
}

fn moment(text: &str, from_span: impl Fn(Span) -> Option<DateTime<Utc>>) -> Result<DateTime<Utc>> {
    if let Ok(span) = text.parse::<Span>() {
        return from_span(span).with_context(|| format!("`{text}` is too far away"));
    }
    hopyard_contract::time::parse(text)
        .map_err(|e| Failure::usage(format!("`{text}` is neither a duration such as 2h nor an RFC 3339 time: {e}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(given: &[&str], types: Option<Value>) -> Result<Value> {
        let given: Vec<_> = given.iter().map(ToString::to_string).collect();
        let types = types.map(|t| t.as_object().unwrap().clone());
        inputs(&given, types.as_ref()).map(Value::Object)
    }

    #[test]
    fn values_are_json_unless_the_workflow_wants_text() {
        let given = ["n=20", "on=true", "list=[1,2]", "text=fix: a = b", "empty=", "big=12345678901234567890"];
        let wanted = json!({"n": 20, "on": true, "list": [1, 2], "text": "fix: a = b", "empty": "", "big": 12_345_678_901_234_567_890_u64});
        assert_eq!(read(&given, None).unwrap(), wanted);
        let types = json!({"n": {"type": "string"}, "on": {"type": "boolean"}});
        assert_eq!(read(&["n=20", "on=true"], Some(types)).unwrap(), json!({"n": "20", "on": true}));
        assert!(needs_types(&["n=20".into()]) && needs_types(&["s=\"x\"".into()]));
        assert!(!needs_types(&["text=fix it".into(), "@file".into()]));
    }

    #[test]
    fn files_are_merged_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("in.json");
        std::fs::write(&file, r#"{"a": 1, "b": 2}"#).unwrap();
        let at = format!("@{}", file.display());
        assert_eq!(read(&["a=0", &at, "b=3"], None).unwrap(), json!({"a": 1, "b": 3}));
        std::fs::write(&file, "[1]").unwrap();
        assert!(read(&[&at], None).unwrap_err().to_string().contains("no JSON object"));
        for bad in ["novalue", "=x", "@/does/not/exist"] {
            assert!(read(&[bad], None).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_absolute_or_relative() {
        let now = hopyard_contract::time::parse("2026-05-01T12:00:00Z").unwrap();
        let text = |at: DateTime<Utc>| at.to_rfc3339();
        assert_eq!(text(since("2h", now).unwrap()), "2026-05-01T10:00:00+00:00");
        assert_eq!(text(start_at("90s", now).unwrap()), "2026-05-01T12:01:30+00:00");
        assert_eq!(text(since("2026-05-01T12:00:00+02:00", now).unwrap()), "2026-05-01T10:00:00+00:00");
        assert!(since("yesterday", now).is_err());
    }
}
