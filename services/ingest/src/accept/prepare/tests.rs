//! Keys beside the body, trace contexts, and what makes two requests the same.

use std::sync::Arc;

use chrono::Utc;
use hopyard_contract::message::ReceiptHead;
use hopyard_contract::plan::Plan;
use serde_json::json;

use super::*;

fn item(key: Option<&str>) -> Item {
    let mut body = json!({"workflow": "w"});
    if let Some(key) = key {
        body["idempotency_key"] = json!(key);
    }
    request::request(&body)
}

fn keys(items: &[Item]) -> Vec<Result<Option<&str>, &str>> {
    items.iter().map(|i| i.as_ref().map(|r| r.idempotency_key.as_deref()).map_err(|e| e[0].code.as_str())).collect()
}

#[test]
fn keys_of_header_and_body_are_one_key() {
    let merged = |items: Vec<Item>, key: Key| {
        let mut items = items;
        merge_keys(&mut items, Some(&key));
        keys(&items).into_iter().map(|k| k.map(|k| k.map(str::to_owned)).map_err(str::to_owned)).collect::<Vec<_>>()
    };
    let some = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(merged(vec![item(None)], Key::Explicit("a".to_owned())), [some("a")]);
    assert_eq!(merged(vec![item(Some("a"))], Key::Explicit("a".to_owned())), [some("a")]);
    assert_eq!(merged(vec![item(Some("b"))], Key::Explicit("a".to_owned())), [Err("idempotency_key_mismatch".to_owned())]);
    assert_eq!(merged(vec![item(Some("b"))], Key::Hint("a".to_owned())), [some("b")]);
    assert_eq!(merged(vec![item(None), item(Some("b"))], Key::Explicit("a".to_owned())), [some("a#0"), some("b")]);
    assert_eq!(merged(vec![item(None)], Key::Explicit("k".repeat(256))), [Err("length".to_owned())]);
    assert_eq!(merged(vec![item(None)], Key::Explicit("a\u{202e}".to_owned())), [Err("control_char".to_owned())]);
    assert_eq!(merged(vec![item(None)], Key::Hint("k".repeat(256))), [Ok(None)]);
}

fn resolved(mode: &str) -> Resolved {
    let plan = Plan::from_stored(json!({
        "v": 1, "name": "w", "workspace": {"mode": mode}, "inputs": {"n": {"type": "integer", "default": 5}},
        "steps": [{"id": "a", "shell": "true"}, {"id": "b", "shell": "true", "pool": "gpu"}],
    }))
    .unwrap();
    Resolved { name: Name::literal("w"), definition_hash: "d".to_owned(), plan_hash: plan.hash(), plan: Arc::new(plan) }
}

fn origin(receipt: Option<ReceiptHead>) -> Origin {
    Origin { door: "http", namespace: Name::default_namespace(), receipt, received_at: Utc::now(), key: None, traceparent: None }
}

#[test]
fn a_run_is_pinned_and_its_inputs_are_filled_in() {
    let origin = origin(None);
    let mut prepared = Prepared::empty(&origin);
    let run =
        prepared.assemble(&origin, 0, request::request(&json!({"workflow": "w", "pool": "arm"})).unwrap(), &resolved("temporary")).unwrap();
    assert_eq!(run.request.inputs["n"], 5);
    assert_eq!(prepared.pools, BTreeSet::from([Name::literal("arm"), Name::literal("gpu")]));
    // The hash is that of the request as it was sent, whatever defaults a later version of the workflow has.
    let same = prepared
        .assemble(
            &origin,
            0,
            request::request(&json!({"workflow": "w", "pool": "arm", "idempotency_key": "k"})).unwrap(),
            &resolved("temporary"),
        )
        .unwrap();
    let other = prepared
        .assemble(
            &origin,
            0,
            request::request(&json!({"workflow": "w", "pool": "arm", "inputs": {"n": 5}})).unwrap(),
            &resolved("temporary"),
        )
        .unwrap();
    assert_eq!(run.request_hash, same.request_hash);
    assert_ne!(run.request_hash, other.request_hash);
    assert_ne!(run.run_id, same.run_id);
    assert!(run.traceparent.is_some_and(|t| is_traceparent(&t)));
}

#[test]
fn ids_of_the_command_stream_are_the_same_at_every_delivery() {
    let origin = origin(Some(ReceiptHead { seq: 7, time_ns: 1_750_550_400_123_456_789 }));
    let make = |index| {
        let mut prepared = Prepared::empty(&origin);
        prepared.assemble(&origin, index, item(None).unwrap(), &resolved("temporary")).unwrap().run_id
    };
    assert_eq!(make(0), make(0));
    assert_ne!(make(0), make(1));
    assert_eq!(make(0).unix_millis(), 1_750_550_400_123);
}

#[test]
fn sessions_and_persistent_workspaces_go_together() {
    let origin = origin(None);
    for (mode, body, wanted) in [
        ("persistent", json!({"workflow": "w"}), Err("required")),
        ("persistent", json!({"workflow": "w", "session": "s"}), Ok(())),
        ("temporary", json!({"workflow": "w", "session": "s"}), Err("no_session")),
        ("none", json!({"workflow": "w", "session": "s"}), Err("no_session")),
        ("none", json!({"workflow": "w"}), Ok(())),
        ("none", json!({"workflow": "w", "inputs": {"n": "x"}}), Err("invalid_input")),
        ("none", json!({"workflow": "w", "inputs": {"m": 1}}), Err("unknown_input")),
    ] {
        let made = Prepared::empty(&origin).assemble(&origin, 0, request::request(&body).unwrap(), &resolved(mode));
        assert_eq!(made.map(drop).map_err(|e| e[0].code.clone()), wanted.map_err(str::to_owned), "{mode} {body}");
    }
}

#[test]
fn what_does_not_fit_in_a_message_is_refused() {
    let filled = |receipt: Option<ReceiptHead>, room| {
        let origin = origin(receipt);
        let mut prepared = Prepared::empty(&origin);
        for index in 0..2 {
            let run = prepared.assemble(&origin, index, item(None).unwrap(), &resolved("none"));
            prepared.push(run, room);
        }
        prepared
    };
    let size = filled(None, usize::MAX).sizes[0];
    // Without a receipt each run travels by itself.
    let apart = filled(None, size).fitting(size).unwrap();
    assert!(apart.submission.items.iter().all(|i| matches!(i, SubmissionItem::Run(_))));
    let refused = filled(None, size - 1).fitting(size - 1).unwrap();
    assert!(refused.submission.items.iter().all(|i| matches!(i, SubmissionItem::Rejected(e) if e[0].code == "too_large")));
    let head = ReceiptHead { seq: 1, time_ns: 1 };
    assert!(filled(Some(head.clone()), size).fitting(2 * size).is_ok());
    assert!(matches!(filled(Some(head), size).fitting(2 * size - 1), Err(Unprepared::Invalid(e)) if e[0].code == "too_large"));
}

#[test]
fn only_whole_trace_contexts_are_passed_on() {
    assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    for wrong in [
        "",
        "00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        assert!(!is_traceparent(wrong), "{wrong}");
    }
}
