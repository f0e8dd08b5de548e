//! Names, labels and other texts of one line.

use serde_json::json;

use super::table::Row;

/// Texts that are no name, and why.
fn wrong_names() -> Vec<(u8, String, &'static str)> {
    let mut names: Vec<(u8, String, &'static str)> = vec![
        (33, String::new(), "length"),
        (33, " ".to_owned(), "length"),
        (33, "   ".to_owned(), "length"),
        (33, "x".repeat(65), "length"),
        (33, "x".repeat(129), "length"),
        (33, "x".repeat(100_000), "length"),
    ];
    for text in
        ["a\nb", "a\rb", "a\tb", "\u{1b}[2J", "a\u{7f}", "a\u{85}b", "a\u{202e}b", "a\u{200b}b", "a\u{200d}b", "\u{feff}a", "a\u{2066}b"]
    {
        names.push((32, text.to_owned(), "control_char"));
    }
    for text in [
        ".",
        "..",
        "-x",
        "--help",
        "a/b",
        "../a",
        "a\\b",
        "CON",
        "a.",
        "a.b",
        "*",
        ">",
        "a b",
        " a",
        "a ",
        "A",
        "a:b",
        "a@b",
        "a%2fb",
        "$HOME",
        "~",
        "a'b",
        "a\"b",
        "a;b",
        "${{ run.id }}",
    ] {
        names.push((34, text.to_owned(), "pattern"));
    }
    for text in ["e\u{301}", "\u{e9}", "\u{430}", "\u{ff21}", "\u{1f600}", "ß"] {
        names.push((35, text.to_owned(), "pattern"));
    }
    names
}

/// Rows of this topic.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (class, text, code) in wrong_names() {
        rows.push(Row::run(class, json!({ "workflow": text }).to_string(), code, "/workflow"));
        // The same rule for the others; each kind of text once is enough.
        if text.len() < 10 && text.is_ascii() {
            rows.push(Row::run(class, format!(r#""pool":{}"#, json!(text)), code, "/pool"));
            rows.push(Row::run(class, format!(r#""session":{}"#, json!(text)), code, "/session"));
        }
    }
    let line = |text: &str| json!(text).to_string();
    for (class, fields, code, pointer) in [
        (32, format!(r#""labels":{{"a":{}}}"#, line("x\ny")), "control_char", "/labels/a"),
        (32, format!(r#""labels":{{"a":{}}}"#, line("\u{1b}[2J")), "control_char", "/labels/a"),
        (32, format!(r#""labels":{{"a":{}}}"#, line("\u{202e}x")), "control_char", "/labels/a"),
        (32, format!(r#""labels":{{{}:"x"}}"#, line("a\nb")), "control_char", "/labels/a\nb"),
        (33, r#""labels":{"":"x"}"#.to_owned(), "length", "/labels/"),
        (33, format!(r#""labels":{{"a":{}}}"#, line(&"x".repeat(1025))), "length", "/labels/a"),
        (
            33,
            format!(r#""labels":{}"#, json!((0..65).map(|i| (format!("k{i}"), "v")).collect::<std::collections::BTreeMap<_, _>>())),
            "length",
            "/labels",
        ),
        (68, r#""idempotency_key":"""#.to_owned(), "length", "/idempotency_key"),
        (68, format!(r#""idempotency_key":{}"#, line(&"k".repeat(256))), "length", "/idempotency_key"),
        (68, format!(r#""idempotency_key":{}"#, line("a\tb")), "control_char", "/idempotency_key"),
        (68, format!(r#""idempotency_key":{}"#, line("a\u{200b}b")), "control_char", "/idempotency_key"),
    ] {
        rows.push(Row::run(class, fields, code, pointer));
    }
    rows.push(Row::run(33, format!(r#""labels":{{{}:"x"}}"#, line(&"k".repeat(129))), "length", format!("/labels/{}", "k".repeat(129))));
    rows
}
