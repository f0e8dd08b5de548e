//! Bad input: each kind has its status, its code and a pointer to the place, and none of it makes a run or a server error.

use serde_json::{Value, json};

use crate::harness::api::{shell, steps};
use crate::harness::http;
use crate::harness::{Harness, Setup};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Bodies as bytes, with what they are answered.
fn bodies() -> Vec<(Vec<u8>, u16, &'static str)> {
    let deep = |n: usize| format!("{{\"inputs\":{}1{}}}", "{\"a\":".repeat(n), "}".repeat(n)).into_bytes();
    vec![
        (b"".to_vec(), 400, "json_syntax"),
        (b"{".to_vec(), 400, "json_syntax"),
        (b"{} x".to_vec(), 400, "json_syntax"),
        (b"\xef\xbb\xbf{}".to_vec(), 400, "json_syntax"),
        (b"{\0\"\0}\0".to_vec(), 400, "json_syntax"),
        (b"{\"workflow\":\"\xff\"}".to_vec(), 400, "json_syntax"),
        (b"null".to_vec(), 422, "type"),
        (b"1".to_vec(), 422, "type"),
        (b"\"x\"".to_vec(), 422, "type"),
        (b"[\"a\",1]".to_vec(), 422, "type"),
        (b"{\"workflow\":\"a\",\"workflow\":\"b\"}".to_vec(), 400, "duplicate_key"),
        (b"{\"workflow\":\"a\",\"inputs\":{\"x\":1,\"x\":2}}".to_vec(), 400, "duplicate_key"),
        (b"{\"nmae\":1,\"workflow\":\"a\"}".to_vec(), 422, "unknown_field"),
        (deep(65), 400, "too_deep"),
        (deep(100_000), 400, "too_deep"),
        (b"{\"priority\":NaN}".to_vec(), 400, "json_syntax"),
        (b"{\"priority\":1e400}".to_vec(), 400, "number_range"),
        (b"{\"inputs\":{\"x\":1e200000}}".to_vec(), 400, "number_range"),
        (b"{\"workflow\":\"a\",\"priority\":-1}".to_vec(), 422, "range"),
        (b"{\"workflow\":\"a\",\"priority\":-0}".to_vec(), 422, "type"),
        (b"{\"workflow\":\"a\",\"priority\":1.0}".to_vec(), 422, "type"),
        (b"{\"workflow\":\"a\",\"priority\":01}".to_vec(), 400, "json_syntax"),
        (b"{\"workflow\":\"a\",\"priority\":\"5\"}".to_vec(), 422, "type"),
        (b"{\"workflow\":\"a\",\"priority\":18446744073709551616}".to_vec(), 422, "range"),
        (b"{\"workflow\":\"a\",\"inputs\":{\"x\":\"\\u0000\"}}".to_vec(), 422, "control_char"),
        (b"{\"workflow\":\"a\0\"}".to_vec(), 400, "json_syntax"),
        (b"{\"workflow\":\"\\ud800\"}".to_vec(), 400, "json_syntax"),
        (b"{}".to_vec(), 422, "required"),
        (b"{\"workflow\":\"a\",\"definition\":\"b\"}".to_vec(), 422, "exactly_one"),
    ]
}

/// Covers A11 and the catalogue of JSON bodies.
#[tokio::test]
async fn bodies_that_are_wrong_are_told_so() {
    let harness = Harness::start(Setup { executors: 0, ..Setup::default() }).await;
    for (body, status, code) in bodies() {
        let answer = http::send(harness.api(), "POST", "/api/v1/runs", &[JSON], &body).await.unwrap();
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let told = answer.json();
        assert_eq!((answer.status, told["code"].as_str()), (status, Some(code)), "{shown}: {}", answer.text());
        answer.problem(status, code);
    }
    for media in ["text/plain", "multipart/form-data; boundary=x", "application/json; charset=utf-16", "application/xml"] {
        let answer = http::send(harness.api(), "POST", "/api/v1/runs", &[("Content-Type", media)], b"{}").await.unwrap();
        answer.problem(415, "unsupported_media_type");
    }
    http::send(harness.api(), "POST", "/api/v1/runs", &[], b"{}").await.unwrap().problem(415, "unsupported_media_type");
    http::send(harness.api(), "POST", "/api/v1/runs", &[JSON, ("Content-Encoding", "gzip")], b"{}")
        .await
        .unwrap()
        .problem(415, "unsupported_media_type");
    let large = vec![b' '; 1024 * 1024 + 1];
    http::send(harness.api(), "POST", "/api/v1/runs", &[JSON], &large).await.unwrap().problem(413, "too_large");
    assert_eq!(harness.get("/api/v1/runs").await["items"], json!([]), "none of it became a run");
    harness.close().await;
}

/// Covers A19: values are told apart by code and pointer, and all that is wrong is told at once.
#[tokio::test]
async fn values_that_are_wrong_are_pointed_at() {
    let harness = Harness::start(Setup { executors: 0, ..Setup::default() }).await;
    let with = |field: &str, value: Value| {
        let mut request = shell("true");
        request[field] = value;
        request
    };
    let repo = |url: &str| with("repo", json!({ "url": url }));
    let reference = |text: &str| with("repo", json!({ "url": "https://example.org/r", "ref": text }));
    let mut cases = vec![
        (with("pool", json!("")), "length", "/pool"),
        (with("pool", json!("a.b")), "pattern", "/pool"),
        (with("session", json!("../x")), "pattern", "/session"),
        (with("session", json!("a\u{202e}b")), "control_char", "/session"),
        (with("session", json!("\u{430}")), "pattern", "/session"),
        (with("session", json!("x".repeat(129))), "length", "/session"),
        (with("labels", json!({ "a": 1 })), "type", "/labels/a"),
        (with("labels", json!({ "a/b": "x\n" })), "control_char", "/labels/a~1b"),
        (with("after", json!(["x"])), "pattern", "/after/0"),
        (with("after", json!(["{01700000-0000-7000-8000-000000000001}"])), "pattern", "/after/0"),
        (with("rerun_of", json!("01700000-0000-7000-8000-00000000000A")), "pattern", "/rerun_of"),
        (with("after_policy", json!("maybe")), "enum", "/after_policy"),
        (with("start_at", json!("2025-06-22T00:00:00")), "timezone_required", "/start_at"),
        (with("start_at", json!(1_750_550_400)), "type", "/start_at"),
        (with("start_at", json!("0000-01-01T00:00:00Z")), "range", "/start_at"),
        (with("budget", json!({ "time": "soon" })), "pattern", "/budget/time"),
        (with("idempotency_key", json!("")), "length", "/idempotency_key"),
        (with("v", json!(2)), "range", "/v"),
        (repo("ext::sh -c id"), "control_char", "/repo/url"),
        (repo("ext::sh"), "scheme", "/repo/url"),
        (repo("file:///etc"), "scheme", "/repo/url"),
        (repo("git://h/x"), "scheme", "/repo/url"),
        (repo("http://h/x"), "scheme", "/repo/url"),
        (repo("--upload-pack=x"), "pattern", "/repo/url"),
        (repo("ssh://-oProxyCommand=id/x"), "host", "/repo/url"),
        (repo("https://u:secret@h/x"), "credentials_in_url", "/repo/url"),
        (repo("https://h/\r\nX:1"), "control_char", "/repo/url"),
        (repo("https://169.254.169.254/x"), "address", "/repo/url"),
        (repo("https://2130706433/x"), "address", "/repo/url"),
        (repo("https://[::ffff:127.0.0.1]/x"), "address", "/repo/url"),
        (repo("https://h:0/x"), "port", "/repo/url"),
        (repo("https://h:22/x"), "port", "/repo/url"),
    ];
    cases.extend(["-x", "--help", "a..b", "a.lock", "a b", "@{1}", "HEAD^"].map(|text| (reference(text), "ref", "/repo/ref")));
    for (request, code, pointer) in cases {
        let shown = request.to_string();
        let answer = harness.http("POST", "/api/v1/runs", request).await;
        let told = answer.json();
        assert_eq!((answer.status, told["code"].as_str(), told["pointer"].as_str()), (422, Some(code), Some(pointer)), "{shown}: {told}");
        assert!(!answer.text().contains("secret"), "a credential is not repeated");
    }
    let all = json!({ "workflow": "", "priority": 9, "pool": "a/b", "extra": 1 });
    let told = harness.http("POST", "/api/v1/runs", all).await.expect(422).json();
    let mut pointers: Vec<_> = told["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/extra", "/pool", "/priority", "/workflow"]);
    assert_eq!(harness.get("/api/v1/runs").await["items"], json!([]));
    harness.close().await;
}

/// Covers A19: definitions are refused with line, column and field, everything at once.
#[tokio::test]
async fn definitions_that_are_wrong_name_the_line() {
    let harness = Harness::start(Setup { executors: 0, ..Setup::default() }).await;
    let yaml = "version: 1\nname: wrong\nsteps:\n  - id: a\n    needs: [b]\n    shell: x\n  - id: b\n    needs: [a]\n    shel: y\n  - id: a\n    shell: z\n    timeout: soon\n";
    let told = harness.put_workflow("wrong", yaml).await.expect(422).json();
    let errors = told["errors"].as_array().unwrap();
    assert!(errors.len() >= 3, "{told:#}");
    assert!(
        errors.iter().all(|e| e["file"] == "wrong.yaml" && e["line"].as_u64().is_some_and(|l| l > 1) && e["column"].is_u64()),
        "{told:#}"
    );
    assert!(errors.iter().any(|e| e["code"] == "unknown_field" && e["line"] == 9), "{told:#}");
    let mut wrong = Vec::new();
    for (list, code) in [
        (json!([{ "id": "a", "needs": ["a"], "shell": "x" }]), "cycle"),
        (json!([{ "id": "a", "needs": ["b"], "shell": "x" }, { "id": "b", "needs": ["a"], "shell": "x" }]), "cycle"),
        (json!([{ "id": "a", "needs": ["nobody"], "shell": "x" }]), "unknown_step"),
        (json!([{ "id": "a", "shell": "x" }, { "id": "a", "shell": "x" }]), "duplicate_step"),
        (json!([{ "id": "a", "shell": "x", "env": { "LD_PRELOAD": "y" } }]), "env_reserved"),
        (json!([{ "id": "a", "shell": "x", "env": { "1A": "y" } }]), "env_key"),
        (json!([{ "id": "a", "shell": "x", "timeout": "0s" }]), "range"),
        (json!([{ "id": "a", "shell": "x", "if": "system('id')" }]), "expression"),
        (json!([{ "id": "a", "shell": "x", "if": "steps.b.status == 'failed'" }]), "unknown_step"),
        (json!([]), "length"),
    ] {
        let shown = list.to_string();
        let told = harness.http("POST", "/api/v1/runs", steps(list)).await.expect(422).json();
        if told["code"] != code || !told["pointer"].as_str().is_some_and(|p| p.starts_with("/definition")) {
            wrong.push(format!("{shown}: {code} was expected: {told}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    harness.close().await;
}

/// Covers F9: paths, ids, headers and methods.
#[tokio::test]
async fn paths_ids_and_headers_that_are_wrong_are_told_so() {
    let harness = Harness::start(Setup { executors: 0, ..Setup::default() }).await;
    let run = harness.submit(shell("true")).await;
    let upper = run.to_uppercase();
    let bare = run.replace('-', "");
    for id in
        ["x", "00000000-0000-0000-0000-000000000000", upper.as_str(), bare.as_str(), "%7B01%7D", "01700000-0000-7000-8000-000000000001"]
    {
        harness.http("GET", &format!("/api/v1/runs/{id}"), Value::Null).await.problem(404, "unknown_run");
    }
    harness.http("GET", &format!("/api/v1/namespaces/other/runs/{run}"), Value::Null).await.problem(404, "unknown_run");
    for path in ["/api/v1/nothing", "/api/v1/runs/../admin", "/api/v1/runs/%2e%2e/admin", "//api/v1/runs", "/api/v1/runs/%00"] {
        let answer = harness.http("GET", path, Value::Null).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.text());
    }
    for (method, path) in [("DELETE", "/api/v1/runs"), ("TRACE", "/api/v1/runs"), ("PATCH", "/livez")] {
        assert_eq!(harness.http(method, path, Value::Null).await.status, 405, "{method} {path}");
    }
    for limit in ["0", "-1", "1000000000", "abc"] {
        harness.http("GET", &format!("/api/v1/runs?limit={limit}"), Value::Null).await.problem(400, "bad_limit");
    }
    harness.http("GET", "/api/v1/runs?limit=1&limit=2", Value::Null).await.problem(400, "repeated_parameter");
    harness.http("GET", "/api/v1/runs?status=RUNNING", Value::Null).await.problem(422, "unknown_status");
    for id in ["-1", "1000000000000000000000000000000", "x"] {
        harness
            .http_with("GET", &format!("/api/v1/runs/{run}/events"), &[("last-event-id", id)], Value::Null)
            .await
            .problem(400, "bad_event_id");
    }
    let key = "k".repeat(256);
    for key in ["", key.as_str()] {
        let answer = harness.http_with("POST", "/api/v1/runs", &[("idempotency-key", key)], shell("true")).await;
        assert!(matches!(answer.status, 400 | 422), "{}", answer.text());
    }
    let asked = harness.http_with("GET", "/api/v1/version", &[("x-request-id", "abc-123")], Value::Null).await;
    assert_eq!(asked.header("x-request-id"), Some("abc-123"));
    let twice =
        "POST /api/v1/runs HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}";
    assert_eq!(http::raw(harness.api(), twice.as_bytes()).await.unwrap().status, 400);
    let many: String = (0..10_000).map(|i| format!("X-{i}: y\r\n")).collect();
    let answer = http::raw(harness.api(), format!("GET /livez HTTP/1.1\r\nHost: h\r\n{many}\r\n").as_bytes()).await.unwrap();
    assert_eq!(answer.status, 431);
    harness.cancel(&run, Value::Null).await.expect(202);
    harness.close().await;
}
