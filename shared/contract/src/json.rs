//! Strict JSON for the doors: no duplicate keys, no control characters, bounded depth, numbers that fit.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::problem::FieldError;

/// Deepest nesting that a door reads.
pub const MAX_DEPTH: usize = 64;

/// Reads one JSON value from a body.
///
/// serde keeps the last of two equal keys and accepts `\u0000`; both are refused here, since the first hides a mistake and
/// the second cannot be stored.
///
/// # Errors
/// `json_syntax`, `duplicate_key`, `too_deep`, `number_range` or `control_char`, with the pointer where known.
pub fn parse(body: &[u8]) -> Result<Value, FieldError> {
    let text = std::str::from_utf8(body).map_err(|e| syntax(format!("the body is not UTF-8 at byte {}", e.valid_up_to())))?;
    if text.starts_with('\u{feff}') {
        return Err(syntax("the body starts with a byte order mark".to_owned()));
    }
    check_depth(text)?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| syntax(format!("the body is no JSON: {e}")))?;
    read(raw.get(), &mut String::new())
}

fn syntax(detail: String) -> FieldError {
    FieldError::new("json_syntax", "", detail)
}

/// Counts brackets outside of strings, so that a deep body costs no stack.
fn check_depth(text: &str) -> Result<(), FieldError> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(FieldError::new("too_deep", "", format!("the body nests deeper than {MAX_DEPTH} levels")));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn read(raw: &str, pointer: &mut String) -> Result<Value, FieldError> {
    match raw.as_bytes().first() {
        Some(b'{') => {
            let Entries(entries) = serde_json::from_str(raw).map_err(|e| syntax(format!("the body is no JSON: {e}")))?;
            let mut map = serde_json::Map::with_capacity(entries.len());
            for (key, value) in entries {
                let before = pointer.len();
                pointer.push('/');
                pointer.push_str(&escape(&key));
                check_text(&key, pointer)?;
                let value = read(value.get(), pointer)?;
                if map.insert(key.clone(), value).is_some() {
                    return Err(FieldError::new("duplicate_key", pointer.clone(), format!("the key `{key}` stands twice")));
                }
                pointer.truncate(before);
            }
            Ok(Value::Object(map))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).map_err(|e| syntax(format!("the body is no JSON: {e}")))?;
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                let before = pointer.len();
                pointer.push_str(&format!("/{index}"));
                list.push(read(item.get(), pointer)?);
                pointer.truncate(before);
            }
            Ok(Value::Array(list))
        }
        Some(b'"') => {
            let text: String = serde_json::from_str(raw).map_err(|e| syntax(format!("the body is no JSON: {e}")))?;
            check_text(&text, pointer)?;
            Ok(Value::String(text))
        }
        _ => serde_json::from_str(raw).map_err(|e| {
            if e.to_string().contains("out of range") {
                FieldError::new("number_range", pointer.clone(), "the number is too large")
            } else {
                syntax(format!("the body is no JSON: {e}"))
            }
        }),
    }
}

/// A NUL cannot be stored by PostgreSQL, and no field means it.
fn check_text(text: &str, pointer: &str) -> Result<(), FieldError> {
    if text.contains('\0') {
        return Err(FieldError::new("control_char", pointer, "the text has a NUL character"));
    }
    Ok(())
}

/// Escapes one token of a JSON pointer.
pub fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// The entries of an object in order, with repeats.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Entries<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> serde::de::Visitor<'de> for Visitor<'a> {
            type Value = Entries<'a>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Entries<'a>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<String, &'de RawValue>()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Visitor(std::marker::PhantomData))
    }
}

/// Canonical bytes of a value: sorted keys, no spaces; what hashes of requests and plans are taken from.
///
/// serde_json's map is sorted as long as its `preserve_order` feature is off, which the workspace keeps so.
pub fn canonical(value: &impl serde::Serialize) -> Vec<u8> {
    let value = serde_json::to_value(value).expect("contract types have string keys and no failing serializers");
    serde_json::to_vec(&value).expect("a JSON value can always be written")
}

/// Lower-case hex SHA-256 of a value's canonical bytes.
pub fn hash(value: &impl serde::Serialize) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(canonical(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &[u8]) -> String {
        parse(body).expect_err(&String::from_utf8_lossy(body)).code
    }

    #[test]
    fn what_is_no_json_is_syntax() {
        for body in [
            &b""[..],
            b"{",
            b"{} x",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            b"NaN",
            b"[01]",
            b"\"\\ud800\"",
            b"{\"a\":\"\x00\"}",
            b"\xff\xfe{\x00}\x00",
        ] {
            assert_eq!(code(body), "json_syntax", "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn traps_of_the_library_are_closed() {
        assert_eq!(code(br#"{"a":1,"a":2}"#), "duplicate_key");
        assert_eq!(parse(br#"{"inputs":{"x":1,"x":2}}"#).unwrap_err().pointer, "/inputs/x");
        assert_eq!(code(br#"{"a":"\u0000"}"#), "control_char");
        assert_eq!(code(br#"{"\u0000":1}"#), "control_char");
        assert_eq!(code(b"1e400"), "number_range");
        assert_eq!(code("[".repeat(100_000).as_bytes()), "too_deep");
        assert_eq!(code(format!("{}{}", "[".repeat(65), "]".repeat(65)).as_bytes()), "too_deep");
        assert!(parse(format!("{}{}", "[".repeat(64), "]".repeat(64)).as_bytes()).is_ok());
    }

    #[test]
    fn good_json_is_kept_as_it_is() {
        let body = br#"{"b":[1,-2,2.5,true,null,"\u00e9\ud83d\ude00 [{\""],"a":{"x/y":{}}}"#;
        assert_eq!(parse(body).unwrap(), serde_json::from_slice::<Value>(body).unwrap());
    }
}
