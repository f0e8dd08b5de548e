//! What only the bus has: sizes, subjects, cancels as commands, and messages between services.

use serde_json::{Value, json};

use super::doors::Doors;
use super::table::Row;
use crate::harness::bus::Bus;

/// Sends what only the bus has; receipts and dead letters are compared with those of the table.
pub async fn ask(doors: &mut Doors<'_>, run: &str, ended: &str) {
    let cancel = "hopyard.cmd.cancel.default";
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let reason = format!(r#"{{"run_id":"{run}","reason":"{}"}}"#, "r".repeat(1001));
    for (body, code, pointer) in [
        ("", "json_syntax", ""),
        ("{", "json_syntax", ""),
        ("cancel it", "json_syntax", ""),
        ("null", "type", ""),
        ("[]", "type", ""),
        ("{}", "required", "/run_id"),
        (r#"{"run_id":null}"#, "required", "/run_id"),
        (r#"{"run_id":7}"#, "type", "/run_id"),
        (r#"{"run_id":"x"}"#, "pattern", "/run_id"),
        (r#"{"run_id":"01890A5D-AC96-774B-BCCE-B302099A8057"}"#, "pattern", "/run_id"),
        (r#"{"run_id":"a","run_id":"b"}"#, "duplicate_key", "/run_id"),
        (reason.as_str(), "length", "/reason"),
    ] {
        let status = if code == "type" || code == "required" { 422 } else { 400 };
        doors.stored(cancel, &Row::body(81, body, status, code, pointer), body.as_bytes().to_vec(), true).await;
    }
    let known = format!(r#"{{"run_id":"{run}","extra":1}}"#);
    doors.stored(cancel, &Row::body(11, known.clone(), 422, "unknown_field", "/extra"), known.into_bytes(), true).await;
    let version = format!(r#"{{"v":2,"run_id":"{run}"}}"#);
    doors.stored(cancel, &Row::body(81, version.clone(), 422, "range", "/v"), version.into_bytes(), true).await;
    // These could be read: the receipt says what came of them, and no letter is needed.
    let gone = format!(r#"{{"run_id":"{id}"}}"#);
    doors.stored(cancel, &Row::run(38, gone.clone(), "unknown_run", "/run_id"), gone.into_bytes(), false).await;
    let over = format!(r#"{{"run_id":"{ended}"}}"#);
    doors.stored(cancel, &Row::run(71, over.clone(), "already_final", "/run_id"), over.into_bytes(), false).await;
    let submit = "hopyard.cmd.submit.default";
    let large = vec![b' '; 768 * 1024 + 1];
    doors.stored(submit, &Row::body(13, large.clone(), 413, "too_large", ""), large, true).await;
    for (body, code, pointer) in [
        (json!({ "runs": [] }), "length", "/runs"),
        (json!({ "runs": {} }), "type", "/runs"),
        (json!({ "runs": vec![json!({}); 501] }), "length", "/runs"),
        (json!({ "runs": [{}], "workflow": "sample" }), "unknown_field", "/workflow"),
        (json!({ "runs": [{}], "v": 2 }), "range", "/v"),
    ] {
        let body = body.to_string().into_bytes();
        doors.stored(submit, &Row::body(81, body.clone(), 422, code, pointer), body, true).await;
    }
}

/// Requests whose answer says what is wrong: immediate submissions and the verbs between services. Returns what is not as expected.
pub async fn requests(bus: &mut Bus) -> Vec<String> {
    let mut wrong = Vec::new();
    let large = vec![b' '; 768 * 1024 + 1];
    for (subject, body, status, code, pointer) in [
        ("hopyard.api.submit.default", large.as_slice(), 413, "too_large", json!("")),
        ("hopyard.api.submit.default", br#"{"runs":[]}"#, 422, "length", json!("/runs")),
        ("hopyard.api.submit.BAD", br#"{"workflow":"sample"}"#, 404, "unknown_namespace", Value::Null),
        ("hopyard.api.submit.-x", b"", 404, "unknown_namespace", Value::Null),
    ] {
        let told = bus.request(subject, &[], body).await.json();
        let problem = &told["problem"];
        if (&told["v"], &problem["status"], &problem["code"], &problem["pointer"]) != (&json!(1), &json!(status), &json!(code), &pointer) {
            wrong.push(format!("{subject}: {code} was expected: {told}"));
        }
    }
    for verb in ["hello", "accept", "claim", "renew", "pin", "kill", "drain", "put_definition", "workspaces"] {
        for body in [&b""[..], b"{", b"null", b"[]", b"{}", b"{\"v\":99}", b"\xff\xfe", b"7"] {
            let told = bus.request(&format!("hopyard.rpc.{verb}"), &[], body).await.json();
            if told["error"]["code"] != "bad_request" {
                wrong.push(format!("{verb} {}: bad_request was expected: {told}", String::from_utf8_lossy(body)));
            }
        }
    }
    for verb in ["explode", "ACCEPT", "accept%20", "*x"] {
        let told = bus.request(&format!("hopyard.rpc.{verb}"), &[], b"{}").await.json();
        if told["error"]["code"] != "unknown_verb" {
            wrong.push(format!("{verb}: unknown_verb was expected: {told}"));
        }
    }
    wrong
}
