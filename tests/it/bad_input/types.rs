//! Values of the wrong kind and fields that do not exist.

use super::table::Row;

/// Rows of this topic.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    // A struct read from an array is what a library does; a body is an object.
    for (class, body) in
        [(7, "null"), (7, "1"), (7, "1.5"), (7, "\"x\""), (7, "true"), (8, "[]"), (8, r#"["a",1]"#), (8, r#"[{"workflow":"a"}]"#)]
    {
        rows.push(Row::body(class, body, 422, "type", ""));
    }
    for (class, item) in [(7, "null"), (7, "1"), (7, "\"x\""), (8, "[]"), (8, "[1,{}]")] {
        let many = format!(r#"{{"runs":[{item}]}}"#);
        let mut row =
            Row::http(class, "POST", "/api/v1/runs", &[("Content-Type", "application/json")], many.as_bytes(), 422, "unknown_field");
        row.pointer = "/runs".into();
        rows.push(row);
    }
    for (field, values) in [
        ("workflow", ["1", "true", "[]", "{}"]),
        ("definition", ["1", "true", "[]", "[{}]"]),
        ("inputs", ["1", "\"x\"", "[]", "null"]),
        ("repo", ["1", "true", "[]", "\"https://h/x\""]),
        ("idempotency_key", ["1", "false", "[]", "{}"]),
        ("priority", ["\"5\"", "true", "[]", "{}"]),
        ("pool", ["1", "true", "[]", "{}"]),
        ("session", ["1", "true", "[\"a\"]", "{}"]),
        ("labels", ["1", "\"a=b\"", "[]", "null"]),
        ("after", ["1", "\"x\"", "{}", "null"]),
        ("after_policy", ["1", "true", "[]", "{}"]),
        ("start_at", ["1750550400", "1750550400.5", "[]", "{}"]),
        ("budget", ["1", "\"5\"", "[]", "true"]),
        ("rerun_of", ["1", "true", "[]", "{}"]),
        ("v", ["\"1\"", "true", "[]", "{}"]),
    ] {
        for value in values {
            let class = if value.starts_with("175") { 46 } else { 25 };
            let text = match field {
                "workflow" | "definition" => format!(r#"{{"{field}":{value}}}"#),
                _ => format!(r#""{field}":{value}"#),
            };
            rows.push(Row::run(class, text, "type", format!("/{field}")));
        }
    }
    for (fields, pointer) in [
        (r#""repo":{"url":1}"#, "/repo/url"),
        (r#""repo":{"url":"https://h/x","ref":1}"#, "/repo/ref"),
        (r#""repo":{"url":["https://h/x"]}"#, "/repo/url"),
        (r#""labels":{"a":1}"#, "/labels/a"),
        (r#""labels":{"a":null}"#, "/labels/a"),
        (r#""labels":{"a":{"b":"c"}}"#, "/labels/a"),
        (r#""after":[1]"#, "/after/0"),
        (r#""after":[null]"#, "/after/0"),
        (r#""budget":{"cost_usd":true}"#, "/budget/cost_usd"),
        (r#""budget":{"cost_usd":[1]}"#, "/budget/cost_usd"),
        (r#""budget":{"turns":"4"}"#, "/budget/turns"),
        (r#""budget":{"time":60}"#, "/budget/time"),
    ] {
        rows.push(Row::run(25, fields, "type", pointer));
    }
    for (fields, pointer) in [
        (r#""nmae":1"#, "/nmae"),
        (r#""Priority":1"#, "/Priority"),
        (r#""":1"#, "/"),
        (r#""priority ":1"#, "/priority "),
        (r#""namespace":"other""#, "/namespace"),
        (r#""run_id":"01890a5d-ac96-774b-bcce-b302099a8057""#, "/run_id"),
        (r#""status":"completed""#, "/status"),
        (r#""__proto__":{}"#, "/__proto__"),
        (r#""a/b~c":1"#, "/a~1b~0c"),
        (r#""repo":{"url":"https://h/x","branch":"m"}"#, "/repo/branch"),
        (r#""budget":{"cost":1}"#, "/budget/cost"),
    ] {
        rows.push(Row::run(11, fields, "unknown_field", pointer));
    }
    rows.push(Row::run(11, "{}", "required", "/workflow"));
    rows.push(Row::run(11, r#"{"workflow":null,"definition":null}"#, "required", "/workflow"));
    rows.push(Row::run(11, r#"{"workflow":"sample","definition":{}}"#, "exactly_one", "/definition"));
    rows.push(Row::run(11, r#""repo":{}"#, "required", "/repo/url"));
    rows.push(Row::run(11, r#""repo":{"ref":"main"}"#, "required", "/repo/url"));
    rows.push(Row::run(11, r#""budget":{"cost_usd":1,"cost_microusd":1}"#, "exactly_one", "/budget/cost_usd"));
    rows.push(Row::run(11, r#""after_policy":"maybe""#, "enum", "/after_policy"));
    rows.push(Row::run(11, r#""after_policy":"SKIP""#, "enum", "/after_policy"));
    rows.push(Row::run(11, r#"{"workflow":"nowhere"}"#, "unknown_workflow", "/workflow"));
    rows
}
