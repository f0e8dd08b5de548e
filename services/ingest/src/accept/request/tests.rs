//! Bad bodies and the exact answer to each: status, code and pointer of the first error.

use hopyard_contract::{Problem, json};
use serde_json::json as value;

use super::*;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Reads a body as `POST /api/v1/runs` does, and tells how it is refused.
fn refused(text: &[u8]) -> (u16, String, String) {
    let errors = match json::parse(text) {
        Err(error) => vec![error],
        Ok(value) => match body(&value, Form::One) {
            Err(errors) => errors,
            Ok(mut items) => match items.remove(0) {
                Err(errors) => errors,
                Ok(request) => panic!("accepted: {} -> {request:?}", String::from_utf8_lossy(text)),
            },
        },
    };
    let problem = Problem::of_errors(errors);
    (problem.status, problem.code, problem.pointer.unwrap_or_default())
}

#[test]
fn bodies_are_refused_exactly() {
    let deep = format!(r#"{{"workflow":"w","inputs":{}1{}}}"#, r#"{"a":"#.repeat(64), "}".repeat(64));
    let after = |id: &str| format!(r#"{{"workflow":"w","after":["{id}"]}}"#);
    let cases: Vec<(String, u16, &str, &str)> = [
        // No JSON, or JSON with a trap.
        ("", 400, "json_syntax", ""),
        ("{", 400, "json_syntax", ""),
        ("{} x", 400, "json_syntax", ""),
        ("\u{feff}{}", 400, "json_syntax", ""),
        (r#"{"workflow":NaN}"#, 400, "json_syntax", ""),
        (r#"{"priority":01}"#, 400, "json_syntax", ""),
        (r#"{"workflow":"\ud800"}"#, 400, "json_syntax", ""),
        (r#"{"workflow":"w","priority":1e400}"#, 400, "number_range", "/priority"),
        (r#"{"workflow":"w","workflow":"w"}"#, 400, "duplicate_key", "/workflow"),
        (r#"{"workflow":"w","inputs":{"a":1,"a":2}}"#, 400, "duplicate_key", "/inputs/a"),
        (r#"{"workflow":"w","inputs":{"a":"\u0000"}}"#, 422, "control_char", "/inputs/a"),
        (&deep, 400, "too_deep", ""),
        // The whole body.
        ("null", 422, "type", ""),
        ("1", 422, "type", ""),
        (r#""x""#, 422, "type", ""),
        (r#"["a",1]"#, 422, "type", ""),
        (r#"{"runs":[]}"#, 422, "unknown_field", "/runs"),
        ("{}", 422, "required", "/workflow"),
        (r#"{"v":2,"workflow":"w"}"#, 422, "range", "/v"),
        (r#"{"v":"1","workflow":"w"}"#, 422, "type", "/v"),
        (r#"{"workflow":"w","nmae":1}"#, 422, "unknown_field", "/nmae"),
        (r#"{"workflow":"w","a/b~":1}"#, 422, "unknown_field", "/a~1b~0"),
        (r#"{"workflow":"w","namespace":"other"}"#, 422, "unknown_field", "/namespace"),
        // Workflow and definition.
        (r#"{"workflow":7}"#, 422, "type", "/workflow"),
        (r#"{"workflow":""}"#, 422, "length", "/workflow"),
        (r#"{"workflow":"   "}"#, 422, "length", "/workflow"),
        (r#"{"workflow":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#, 422, "length", "/workflow"),
        (r#"{"workflow":"a.b"}"#, 422, "pattern", "/workflow"),
        (r#"{"workflow":".."}"#, 422, "pattern", "/workflow"),
        (r#"{"workflow":"-x"}"#, 422, "pattern", "/workflow"),
        (r#"{"workflow":"a/b"}"#, 422, "pattern", "/workflow"),
        (r#"{"workflow":"*"}"#, 422, "pattern", "/workflow"),
        (r#"{"workflow":">"}"#, 422, "pattern", "/workflow"),
        (r#"{"workflow":"CON"}"#, 422, "pattern", "/workflow"),
        (r#"{"workflow":"\u0430"}"#, 422, "pattern", "/workflow"),
        (r#"{"workflow":"a\nb"}"#, 422, "control_char", "/workflow"),
        (r#"{"workflow":"a\u202eb"}"#, 422, "control_char", "/workflow"),
        (r#"{"workflow":"w","definition":{}}"#, 422, "exactly_one", "/definition"),
        (r#"{"definition":[]}"#, 422, "type", "/definition"),
        (r#"{"definition":1}"#, 422, "type", "/definition"),
        // Inputs, pool, session.
        (r#"{"workflow":"w","inputs":[]}"#, 422, "type", "/inputs"),
        (r#"{"workflow":"w","inputs":null}"#, 422, "type", "/inputs"),
        (r#"{"workflow":"w","pool":"GPU"}"#, 422, "pattern", "/pool"),
        (r#"{"workflow":"w","session":""}"#, 422, "length", "/session"),
        // Repository.
        (r#"{"workflow":"w","repo":"https://h/x"}"#, 422, "type", "/repo"),
        (r#"{"workflow":"w","repo":{}}"#, 422, "required", "/repo/url"),
        (r#"{"workflow":"w","repo":{"url":"https://h/x","branch":"m"}}"#, 422, "unknown_field", "/repo/branch"),
        (r#"{"workflow":"w","repo":{"url":"file:///etc"}}"#, 422, "scheme", "/repo/url"),
        (r#"{"workflow":"w","repo":{"url":"--upload-pack=x"}}"#, 422, "pattern", "/repo/url"),
        (r#"{"workflow":"w","repo":{"url":"https://u:p@h/x"}}"#, 422, "credentials_in_url", "/repo/url"),
        (r#"{"workflow":"w","repo":{"url":"https://127.1/x"}}"#, 422, "address", "/repo/url"),
        (r#"{"workflow":"w","repo":{"url":"https://h/x","ref":"a..b"}}"#, 422, "ref", "/repo/ref"),
        (r#"{"workflow":"w","repo":{"url":"https://h/x","ref":3}}"#, 422, "type", "/repo/ref"),
        // Key, priority, labels.
        (r#"{"workflow":"w","idempotency_key":""}"#, 422, "length", "/idempotency_key"),
        (r#"{"workflow":"w","idempotency_key":"a\tb"}"#, 422, "control_char", "/idempotency_key"),
        (r#"{"workflow":"w","idempotency_key":5}"#, 422, "type", "/idempotency_key"),
        (r#"{"workflow":"w","priority":-1}"#, 422, "range", "/priority"),
        (r#"{"workflow":"w","priority":4}"#, 422, "range", "/priority"),
        (r#"{"workflow":"w","priority":4294967296}"#, 422, "range", "/priority"),
        (r#"{"workflow":"w","priority":18446744073709551616}"#, 422, "range", "/priority"),
        (r#"{"workflow":"w","priority":-0}"#, 422, "type", "/priority"),
        (r#"{"workflow":"w","priority":1.0}"#, 422, "type", "/priority"),
        (r#"{"workflow":"w","priority":1e3}"#, 422, "type", "/priority"),
        (r#"{"workflow":"w","priority":"1"}"#, 422, "type", "/priority"),
        (r#"{"workflow":"w","priority":true}"#, 422, "type", "/priority"),
        (r#"{"workflow":"w","labels":[]}"#, 422, "type", "/labels"),
        (r#"{"workflow":"w","labels":{"a":1}}"#, 422, "type", "/labels/a"),
        (r#"{"workflow":"w","labels":{"":"x"}}"#, 422, "length", "/labels/"),
        (r#"{"workflow":"w","labels":{"a":"x\u001b[2J"}}"#, 422, "control_char", "/labels/a"),
        // Waiting.
        (r#"{"workflow":"w","after":"x"}"#, 422, "type", "/after"),
        (r#"{"workflow":"w","after":[1]}"#, 422, "type", "/after/0"),
        (&after("01890A5D-AC96-774B-BCCE-B302099A8057"), 422, "pattern", "/after/0"),
        (&after("01890a5dac96774bbcceb302099a8057"), 422, "pattern", "/after/0"),
        (&after("00000000-0000-0000-0000-000000000000"), 422, "pattern", "/after/0"),
        (&format!(r#"{{"workflow":"w","after":["{ID}","{ID}"]}}"#), 422, "duplicate", "/after/1"),
        (r#"{"workflow":"w","after_policy":"explode"}"#, 422, "enum", "/after_policy"),
        (r#"{"workflow":"w","rerun_of":"x"}"#, 422, "pattern", "/rerun_of"),
        (r#"{"workflow":"w","start_at":"2025-06-22T00:00:00"}"#, 422, "timezone_required", "/start_at"),
        (r#"{"workflow":"w","start_at":"2025-06-22 00:00:00Z"}"#, 422, "time_syntax", "/start_at"),
        (r#"{"workflow":"w","start_at":"2025-06-22T23:59:60Z"}"#, 422, "range", "/start_at"),
        (r#"{"workflow":"w","start_at":"2025-02-30T00:00:00Z"}"#, 422, "time_syntax", "/start_at"),
        (r#"{"workflow":"w","start_at":"0000-01-01T00:00:00Z"}"#, 422, "range", "/start_at"),
        (r#"{"workflow":"w","start_at":1750550400}"#, 422, "type", "/start_at"),
        // Budget.
        (r#"{"workflow":"w","budget":5}"#, 422, "type", "/budget"),
        (r#"{"workflow":"w","budget":{"cost":1}}"#, 422, "unknown_field", "/budget/cost"),
        (r#"{"workflow":"w","budget":{"cost_usd":-1}}"#, 422, "range", "/budget/cost_usd"),
        (r#"{"workflow":"w","budget":{"cost_usd":0.1234567}}"#, 422, "range", "/budget/cost_usd"),
        (r#"{"workflow":"w","budget":{"cost_usd":true}}"#, 422, "type", "/budget/cost_usd"),
        (r#"{"workflow":"w","budget":{"cost_usd":1,"cost_microusd":1}}"#, 422, "exactly_one", "/budget/cost_usd"),
        (r#"{"workflow":"w","budget":{"turns":0}}"#, 422, "range", "/budget/turns"),
        (r#"{"workflow":"w","budget":{"time":"0s"}}"#, 422, "range", "/budget/time"),
        (r#"{"workflow":"w","budget":{"time":"1 hour"}}"#, 422, "pattern", "/budget/time"),
        (r#"{"workflow":"w","budget":{"time":60}}"#, 422, "type", "/budget/time"),
    ]
    .into_iter()
    .map(|(text, status, code, pointer)| (text.to_owned(), status, code, pointer))
    .collect();
    assert!(cases.len() >= 90);
    for (text, status, code, pointer) in cases {
        assert_eq!(refused(text.as_bytes()), (status, code.to_owned(), pointer.to_owned()), "{text}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    for bytes in [&b"\xff\xfe{\x00}\x00"[..], b"{\"workflow\":\"\xff\"}", b"{\"workflow\":\"a\x00b\"}"] {
        assert_eq!(refused(bytes).1, "json_syntax");
    }
}

#[test]
fn lengths_are_bounded() {
    let labels =
        |n: usize| value!({"workflow": "w", "labels": (0..n).map(|i| (format!("k{i}"), value!("v"))).collect::<serde_json::Map<_, _>>()});
    let ids = |n: u64| value!({"workflow": "w", "after": (0..n).map(|i| RunId::of_bus_message(1_750_550_400_000_000_000, i, 0)).collect::<Vec<_>>()});
    for (good, bad, pointer) in [
        (labels(64), labels(65), "/labels"),
        (ids(100), ids(101), "/after"),
        (
            value!({"workflow": "w", "idempotency_key": "k".repeat(255)}),
            value!({"workflow": "w", "idempotency_key": "k".repeat(256)}),
            "/idempotency_key",
        ),
        (
            value!({"workflow": "w", "labels": {"a": "x".repeat(1024)}}),
            value!({"workflow": "w", "labels": {"a": "x".repeat(1025)}}),
            "/labels/a",
        ),
        (value!({"workflow": "w".repeat(64)}), value!({"workflow": "w".repeat(65)}), "/workflow"),
    ] {
        request(&good).unwrap();
        let errors = request(&bad).unwrap_err();
        assert_eq!((errors[0].code.as_str(), errors[0].pointer.as_str()), ("length", pointer));
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let errors = request(&value!({"wrokflow": "w", "priority": 9, "repo": {"url": "git://x/y", "ref": "-x"}, "labels": {"a": 1, "b": 2}}))
        .unwrap_err();
    let found: Vec<(&str, &str)> = errors.iter().map(|e| (e.code.as_str(), e.pointer.as_str())).collect();
    assert_eq!(
        found,
        [
            ("unknown_field", "/wrokflow"),
            ("required", "/workflow"),
            ("scheme", "/repo/url"),
            ("ref", "/repo/ref"),
            ("range", "/priority"),
            ("type", "/labels/a"),
            ("type", "/labels/b"),
        ]
    );
    assert!(errors[0].detail.ends_with("did you mean `workflow`?"), "{}", errors[0].detail);
    assert!(!request(&value!({"workflow": "w", "zzzzzz": 1})).unwrap_err()[0].detail.contains("did you mean"));
}

#[test]
fn a_full_request_is_kept_as_it_is() {
    let full = value!({
        "v": 1, "workflow": "fix-bug", "inputs": {"message": "é😀", "n": 9_007_199_254_740_993u64}, "repo": {"url": "https://example.org/a.git", "ref": "main"},
        "idempotency_key": "k 1", "priority": 3, "pool": "gpu", "session": "s1", "labels": {"team": "core"}, "after": [ID], "after_policy": "run_anyway",
        "start_at": "2026-01-31T14:00:00.1234567+02:00", "budget": {"cost_usd": 2.5, "turns": 40, "time": "30m"}, "rerun_of": ID,
    });
    let read = request(&full).unwrap();
    assert_eq!(read.inputs["n"], 9_007_199_254_740_993u64);
    assert_eq!(read.start_at.map(time::format).as_deref(), Some("2026-01-31T12:00:00.123456Z"));
    let budget = read.budget.clone().unwrap();
    assert_eq!((budget.cost_microusd, budget.turns, budget.time.map(Span::millis)), (Some(2_500_000), Some(40), Some(1_800_000)));
    assert_eq!((read.priority, read.after_policy, read.after.len()), (3, AfterPolicy::RunAnyway, 1));
    // What the typed form writes, such as a client in Rust sends, is read as the same request.
    assert_eq!(request(&serde_json::to_value(&read).unwrap()).unwrap(), read);
}

#[test]
fn null_stands_for_absent_where_a_value_is_optional() {
    let read = request(&value!({"workflow": "w", "definition": null, "repo": null, "pool": null, "start_at": null, "budget": null, "idempotency_key": null})).unwrap();
    assert_eq!(read, request(&value!({"workflow": "w"})).unwrap());
}

#[test]
fn bodies_with_several_runs() {
    let items = body(&value!({"v": 1, "runs": [{"workflow": "a"}, 7, {"workflow": "b", "x": 1}]}), Form::Either).unwrap();
    assert_eq!(items[0].as_ref().unwrap().workflow.as_ref().map(|n| n.as_str()), Some("a"));
    assert_eq!(items[1].as_ref().unwrap_err()[0].code, "type");
    assert_eq!(items[2].as_ref().unwrap_err()[0].pointer, "/x");
    for (wrong, code, pointer) in [
        (value!({"runs": []}), "length", "/runs"),
        (value!({"runs": vec![value!({}); MAX_RUNS + 1]}), "length", "/runs"),
        (value!({"runs": {}}), "type", "/runs"),
        (value!({"runs": null}), "type", "/runs"),
        (value!({"runs": [{}], "workflow": "w"}), "unknown_field", "/workflow"),
        (value!({"runs": [{}], "v": 3}), "range", "/v"),
        (value!({"workflow": "w"}), "required", "/runs"),
    ] {
        let errors = body(&wrong, Form::Many).unwrap_err();
        assert_eq!((errors[0].code.as_str(), errors[0].pointer.as_str()), (code, pointer), "{pointer}");
    }
    assert_eq!(body(&value!({"workflow": "w"}), Form::Either).unwrap().len(), 1);
}

#[test]
fn cancels_and_reruns_are_as_strict() {
    assert_eq!(cancel(&value!({"run_id": ID, "force": true}), true).unwrap().run_id.map(|id| id.to_string()).as_deref(), Some(ID));
    for (wrong, needs_run, code, pointer) in [
        (value!([]), false, "type", ""),
        (value!({}), true, "required", "/run_id"),
        (value!({"run_id": "x"}), true, "pattern", "/run_id"),
        (value!({"run_id": ID}), false, "unknown_field", "/run_id"),
        (value!({"force": "yes"}), false, "type", "/force"),
        (value!({"reason": "r".repeat(1001)}), false, "length", "/reason"),
        (value!({"reason": "a\u{7}"}), false, "control_char", "/reason"),
    ] {
        let errors = cancel(&wrong, needs_run).unwrap_err();
        assert_eq!((errors[0].code.as_str(), errors[0].pointer.as_str()), (code, pointer), "{wrong}");
    }
    assert_eq!(rerun(&value!({"inputs": {"a": 1}})).unwrap().inputs["a"], 1);
    assert_eq!(rerun(&value!({"input": {}})).unwrap_err()[0].detail, "there is no field `input`; did you mean `inputs`?");
}
