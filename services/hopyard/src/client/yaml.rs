//! Answers as YAML: block style, with every text in JSON's quotes, which YAML 1.2 reads as they are.

use serde_json::Value;

/// The value as a YAML document, with a line feed at its end.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    // Nested values begin with the line feed that ends the line of their key.
    format!("{}\n", text.trim_start_matches('\n').trim_start_matches(' '))
}

fn write(value: &Value, depth: usize, out: &mut String) {
    let line = |out: &mut String| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                line(out);
                out.push_str(&format!("{}:", Value::from(key.as_str())));
                nested(value, depth + 1, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                line(out);
                out.push('-');
                nested(item, depth + 1, out);
            }
        }
        other => out.push_str(&other.to_string()),
    }
}

fn nested(value: &Value, depth: usize, out: &mut String) {
    let block = matches!(value, Value::Object(map) if !map.is_empty()) || matches!(value, Value::Array(items) if !items.is_empty());
    if !block {
        out.push(' ');
    }
    write(value, depth, out);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::to_yaml;

    #[test]
    fn nested_values_are_indented() {
        let value = json!({"a": [1, {"b": "x: y", "c": []}], "d": {}, "e": null});
        assert_eq!(to_yaml(&value), "\"a\":\n  - 1\n  -\n    \"b\": \"x: y\"\n    \"c\": []\n\"d\": {}\n\"e\": null\n");
        assert_eq!(to_yaml(&json!("text")), "\"text\"\n");
        assert_eq!(to_yaml(&json!([true])), "- true\n");
    }
}
