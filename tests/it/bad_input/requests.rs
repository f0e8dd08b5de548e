//! Media types, sizes, queries, event ids, keys in headers, methods, and the parts of workflows and cancels beside the body.

use serde_json::json;

use super::table::{Row, Text};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const YAML: (&str, &str) = ("Content-Type", "application/yaml");
const GOOD: &[u8] = br#"{"workflow":"sample"}"#;
const DEFINITION: &[u8] = b"version: 1\nname: bad\nsteps: [{id: a, shell: x}]";

/// Rows of this topic.
pub fn rows() -> Vec<Row> {
    [bodies(), queries(), keys(), workflows(), cancels(), methods()].concat()
}

fn bodies() -> Vec<Row> {
    let mut rows = Vec::new();
    for media in [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json; charset=latin1",
        "application/json; version=1",
        "application/jsonx",
        "application/xml",
        "*/*",
        "json",
        "",
        "é",
    ] {
        for path in ["/api/v1/runs", "/api/v1/runs/batch"] {
            rows.push(Row::http(16, "POST", path, &[("Content-Type", media)], GOOD, 415, "unsupported_media_type"));
        }
        rows.push(Row::http(16, "POST", "/api/v1/runs/{run}/cancel", &[("Content-Type", media)], b"{}", 415, "unsupported_media_type"));
    }
    for (method, path) in
        [("POST", "/api/v1/runs"), ("POST", "/api/v1/runs/batch"), ("PUT", "/api/v1/workflows/bad"), ("POST", "/api/v1/workflows/parse")]
    {
        rows.push(Row::http(16, method, path, &[], GOOD, 415, "unsupported_media_type"));
        rows.push(Row::http(16, method, path, &[JSON, ("Content-Type", "text/plain")], GOOD, 415, "unsupported_media_type"));
        for coding in ["gzip", "br", "deflate", "zstd", "gzip, gzip"] {
            let headers = [JSON, ("Content-Encoding", coding)];
            rows.push(Row::http(17, method, path, &headers, b"\x1f\x8b\x08\x00", 415, "unsupported_media_type"));
        }
        let large = vec![b' '; 1024 * 1024 + 1];
        rows.push(Row::http(13, method, path, &[JSON], &large, 413, "too_large"));
        let chunked = [format!("{:x}\r\n", large.len()).as_bytes(), &large, b"\r\n0\r\n\r\n"].concat();
        rows.push(Row::http(13, method, path, &[JSON, ("Transfer-Encoding", "chunked")], &chunked, 413, "too_large"));
    }
    for media in ["text/plain", "application/toml", "application/yaml; charset=utf-16"] {
        rows.push(Row::http(16, "PUT", "/api/v1/workflows/bad", &[("Content-Type", media)], DEFINITION, 415, "unsupported_media_type"));
    }
    for (body, code, pointer) in [
        (json!({ "runs": [] }), "length", "/runs"),
        (json!({ "runs": {} }), "type", "/runs"),
        (json!({ "runs": null }), "type", "/runs"),
        (json!({ "runs": vec![json!({}); 501] }), "length", "/runs"),
        (json!({ "runs": [{}], "workflow": "sample" }), "unknown_field", "/workflow"),
        (json!({ "runs": [{}], "v": 2 }), "range", "/v"),
        (json!({ "workflow": "sample" }), "required", "/runs"),
        (json!({}), "required", "/runs"),
    ] {
        rows.push(Row::http(11, "POST", "/api/v1/runs/batch", &[JSON], body.to_string().as_bytes(), 422, code).at(pointer));
    }
    rows
}

fn queries() -> Vec<Row> {
    let mut rows = Vec::new();
    for limit in ["0", "-1", "1000000000", "201", "abc", "", "1.0", "1e2", "%2B5", "05", "99999999999999999999999", "%F0%9F%98%80"] {
        for list in ["runs", "workflows", "workspaces", "dead-letters"] {
            rows.push(Row::get(48, format!("/api/v1/{list}?limit={limit}"), 400, "bad_limit").at("/limit"));
        }
    }
    for cursor in ["", "x", "AAAA", "%00", "bm8gY3Vyc29y", "eyJpZCI6MX0", "..%2F..", &"A".repeat(1000)] {
        let (status, code) = if cursor == "%00" { (422, "control_char") } else { (400, "bad_cursor") };
        for list in ["runs", "workflows", "dead-letters"] {
            rows.push(Row::get(49, format!("/api/v1/{list}?cursor={cursor}"), status, code).at("/cursor"));
        }
    }
    for (path, status, code, pointer) in QUERIES {
        rows.push(Row::get(if path.contains("status") { 67 } else { 48 }, format!("/api/v1/{path}"), *status, code).at(pointer));
    }
    rows.push(Row::get(48, format!("/api/v1/runs?label={}", "x".repeat(1025)), 422, "length").at("/label"));
    rows.push(Row::get(48, format!("/api/v1/runs?{}", "label=a%3Db&".repeat(17)), 422, "length").at("/label"));
    rows.push(Row::get(48, format!("/api/v1/runs?label={}", "x".repeat(9000)), 414, "url_too_long"));
    for id in ["-1", "1000000000000000000000000000000", "x", "1.0", "+1", "01", "0x1", "18446744073709551615", "main.1:0", "é"] {
        rows.push(Row::http(76, "GET", "/api/v1/runs/{run}/events", &[("Last-Event-ID", id)], b"", 400, "bad_event_id"));
        let escaped = id.replace('+', "%2B").replace('é', "%C3%A9");
        rows.push(Row::get(76, format!("/api/v1/runs/{{run}}/events?after={escaped}"), 400, "bad_event_id"));
        let stream = "/api/v1/runs/{run}/steps/main/attempts/1/logs/stream";
        rows.push(Row::http(76, "GET", stream, &[("Last-Event-ID", id)], b"", 400, "bad_offset").at("/from"));
    }
    rows.push(Row::get(76, "/api/v1/runs/{run}/events?after=", 400, "bad_event_id"));
    rows
}

const QUERIES: &[(&str, u16, &str, &str)] = &[
    ("runs?status=RUNNING", 422, "unknown_status", "/status"),
    ("runs?status=", 422, "unknown_status", "/status"),
    ("runs?status=pending,", 422, "unknown_status", "/status"),
    ("runs?status=pending&status=bogus", 422, "unknown_status", "/status"),
    ("runs?status=killd", 422, "unknown_status", "/status"),
    ("runs?status=leased", 422, "unknown_status", "/status"),
    ("workspaces?status=gone", 422, "unknown_status", "/status"),
    ("workspaces?status=ACTIVE", 422, "unknown_status", "/status"),
    ("runs?limit=1&limit=2", 400, "repeated_parameter", "/limit"),
    ("runs?workflow=a&workflow=b", 400, "repeated_parameter", "/workflow"),
    ("runs?cursor=a&cursor=b", 400, "repeated_parameter", "/cursor"),
    ("runs?stauts=x", 400, "unknown_parameter", ""),
    ("runs?Limit=1", 400, "unknown_parameter", ""),
    ("runs?%00=1", 400, "unknown_parameter", ""),
    ("runs/{run}?x=1", 400, "unknown_parameter", ""),
    ("workflows?status=x", 400, "unknown_parameter", ""),
    ("runs?workflow=", 422, "length", "/workflow"),
    ("runs?workflow=A", 422, "pattern", "/workflow"),
    ("runs?session=a/b", 422, "pattern", "/session"),
    ("executors?pool=A", 422, "pattern", "/pool"),
    ("runs?label=novalue", 422, "pattern", "/label"),
    ("runs?label==v", 422, "pattern", "/label"),
    ("runs?label=a%0Ab=c", 422, "control_char", "/label"),
    ("runs?repo=a%00b", 422, "control_char", "/repo"),
    ("runs/{run}?wait=30", 422, "pattern", "/wait"),
    ("runs/{run}?wait=", 422, "pattern", "/wait"),
    ("runs/{run}?wait=-1s", 422, "pattern", "/wait"),
    ("runs/{run}?wait=0s", 422, "range", "/wait"),
    ("runs/{run}?wait=61s", 422, "range", "/wait"),
    ("runs/{run}?wait=1000d", 422, "range", "/wait"),
    ("runs/{run}?wait=1s&wait=1s", 400, "repeated_parameter", "/wait"),
    ("runs/{run}?wait=1s&until=done", 422, "enum", "/until"),
    ("workflows/sample?version=0", 400, "bad_version", "/version"),
    ("workflows/sample?version=-1", 400, "bad_version", "/version"),
    ("workflows/sample?version=x", 400, "bad_version", "/version"),
    ("workflows/sample?version=4294967296", 400, "bad_version", "/version"),
    ("runs/{run}/steps/main/attempts/1/logs?from=-1", 400, "bad_offset", "/from"),
    ("runs/{run}/steps/main/attempts/1/logs?from=x", 400, "bad_offset", "/from"),
    ("runs/{run}/steps/main/attempts/1/logs?from=9223372036854775808", 400, "bad_offset", "/from"),
    ("runs/{run}/steps/main/attempts/1/logs?limit=0", 400, "bad_limit", "/limit"),
    ("runs/{run}/steps/main/attempts/1/logs?limit=8388609", 400, "bad_limit", "/limit"),
    ("runs/{run}/steps/main/attempts/1/logs?stream=both", 422, "unknown_stream", "/stream"),
    ("runs/{run}/events?limit=0", 400, "bad_limit", "/limit"),
    ("runs/{run}/diff?x=1", 400, "unknown_parameter", ""),
];

fn keys() -> Vec<Row> {
    let mut rows = Vec::new();
    // A header that cannot be a key is 400; the same text in the body is a value, so 422.
    for path in ["/api/v1/runs", "/api/v1/runs/batch"] {
        let body: &[u8] = if path.ends_with("batch") { br#"{"runs":[{"workflow":"sample"}]}"# } else { GOOD };
        for (key, code) in [
            (String::new(), "length"),
            ("k".repeat(256), "length"),
            ("k".repeat(5000), "length"),
            ("a\tb".to_owned(), "control_char"),
            ("é".to_owned(), "control_char"),
        ] {
            rows.push(Row::http(68, "POST", path, &[JSON, ("Idempotency-Key", &key)], body, 400, code).at("/idempotency_key"));
        }
        let twice = [JSON, ("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
        rows.push(Row::http(68, "POST", path, &twice, body, 400, "repeated_header").at("/idempotency_key"));
    }
    let body = br#"{"workflow":"sample","idempotency_key":"one"}"#;
    rows.push(
        Row::http(70, "POST", "/api/v1/runs", &[JSON, ("Idempotency-Key", "two")], body, 422, "idempotency_key_mismatch")
            .at("/idempotency_key"),
    );
    // The table's stack has a run with this key and other inputs.
    rows.push(Row { status: 409, ..Row::run(70, r#""idempotency_key":"taken""#, "idempotency_conflict", "/idempotency_key") });
    rows
}

fn workflows() -> Vec<Row> {
    let put = |class, name: &str, headers: &[(&'static str, &str)], body: &[u8], status, code| {
        Row::http(class, "PUT", Text::Owned(format!("/api/v1/workflows/{name}")), headers, body, status, code)
    };
    let mut rows = vec![
        put(34, "other", &[YAML], DEFINITION, 422, "name_mismatch").at("/name"),
        put(34, "BAD", &[YAML], DEFINITION, 422, "pattern").at("/name"),
        put(34, "a.b", &[YAML], DEFINITION, 422, "pattern").at("/name"),
        put(34, "a%2Fb", &[YAML], DEFINITION, 422, "pattern").at("/name"),
        put(32, "a%0Ab", &[YAML], DEFINITION, 422, "control_char").at("/name"),
        put(33, &"x".repeat(65), &[YAML], DEFINITION, 422, "length").at("/name"),
        put(33, "%20", &[YAML], DEFINITION, 422, "length").at("/name"),
        put(6, "bad", &[YAML], b"version: 1\nname: \xff", 400, "yaml_syntax"),
        put(5, "bad", &[YAML], b"\xff\xfev\0", 400, "yaml_syntax"),
        put(1, "bad", &[YAML], b"", 422, "type"),
        put(2, "bad", &[JSON], b"{", 422, "yaml_syntax"),
        put(
            70,
            "sample",
            &[YAML, ("If-Match", "\"nope\"")],
            b"version: 1\nname: sample\nsteps: [{id: a, shell: x}]",
            412,
            "precondition_failed",
        ),
        put(70, "bad", &[YAML, ("If-Match", "*")], DEFINITION, 412, "precondition_failed"),
    ];
    for tag in ["", "nope", "\"", "\"\"", "\"a\", \"b\"", "é"] {
        rows.push(put(70, "bad", &[YAML, ("If-Match", tag)], DEFINITION, 400, "bad_request"));
    }
    rows
}

fn cancels() -> Vec<Row> {
    let mut rows = Vec::new();
    let long = format!(r#"{{"reason":"{}"}}"#, "r".repeat(1001));
    for (class, body, status, code, pointer) in [
        (2, "{", 400, "json_syntax", ""),
        (3, "{} x", 400, "json_syntax", ""),
        (9, r#"{"force":true,"force":false}"#, 400, "duplicate_key", "/force"),
        (7, "null", 422, "type", ""),
        (8, "[]", 422, "type", ""),
        (11, r#"{"reson":"x"}"#, 422, "unknown_field", "/reson"),
        (11, r#"{"run_id":"01890a5d-ac96-774b-bcce-b302099a8057"}"#, 422, "unknown_field", "/run_id"),
        (25, r#"{"force":"yes"}"#, 422, "type", "/force"),
        (25, r#"{"force":1}"#, 422, "type", "/force"),
        (25, r#"{"reason":1}"#, 422, "type", "/reason"),
        (33, r#"{"reason":""}"#, 422, "length", "/reason"),
        (33, long.as_str(), 422, "length", "/reason"),
        (32, r#"{"reason":"a\u0007"}"#, 422, "control_char", "/reason"),
        (32, r#"{"reason":"a\u202eb"}"#, 422, "control_char", "/reason"),
        (26, r#"{"v":2}"#, 422, "range", "/v"),
    ] {
        rows.push(Row::http(class, "POST", "/api/v1/runs/{run}/cancel", &[JSON], body.as_bytes(), status, code).at(pointer));
    }
    for body in [&b""[..], b"{}"] {
        rows.push(Row::http(71, "POST", "/api/v1/runs/{final}/cancel", &[JSON], body, 409, "already_final"));
    }
    for (class, body, status, code, pointer) in [
        (2, "{", 400, "json_syntax", ""),
        (8, "[]", 422, "type", ""),
        (11, r#"{"input":{}}"#, 422, "unknown_field", "/input"),
        (25, r#"{"inputs":[]}"#, 422, "type", "/inputs"),
        (25, r#"{"inputs":{"n":"x"}}"#, 422, "invalid_input", "/inputs/n"),
        (11, r#"{"inputs":{"nope":1}}"#, 422, "unknown_input", "/inputs/nope"),
        (68, r#"{"idempotency_key":""}"#, 422, "length", "/idempotency_key"),
    ] {
        rows.push(Row::http(class, "POST", "/api/v1/runs/{final}/rerun", &[JSON], body.as_bytes(), status, code).at(pointer));
    }
    rows.push(Row::http(38, "POST", "/api/v1/executors/nobody/drain", &[], b"", 404, "unknown_executor"));
    rows.push(Row::http(34, "POST", "/api/v1/executors/A%20B/drain", &[], b"", 404, "unknown_executor"));
    rows.push(Row::http(38, "POST", "/api/v1/dead-letters/99999/requeue", &[], b"", 404, "unknown_dead_letter"));
    rows.push(Row::http(38, "DELETE", "/api/v1/dead-letters/99999", &[], b"", 404, "unknown_dead_letter"));
    rows
}

fn methods() -> Vec<Row> {
    let mut rows = Vec::new();
    for (method, path) in [
        ("DELETE", "/api/v1/runs"),
        ("PATCH", "/api/v1/runs"),
        ("TRACE", "/api/v1/runs"),
        ("BREW", "/api/v1/runs"),
        ("get", "/api/v1/runs"),
        ("POST", "/api/v1/runs/{run}"),
        ("DELETE", "/api/v1/runs/{run}"),
        ("GET", "/api/v1/runs/{run}/cancel"),
        ("PUT", "/api/v1/runs/batch"),
        ("POST", "/api/v1/workflows/sample"),
        ("DELETE", "/api/v1/workflows/sample"),
        ("GET", "/api/v1/executors/x/drain"),
        ("PATCH", "/livez"),
        ("POST", "/health"),
        ("PUT", "/api/v1/openapi.json"),
        ("CONNECT", "/api/v1/runs"),
    ] {
        rows.push(Row::http(80, method, path, &[], b"", 405, "method_not_allowed"));
    }
    rows
}
