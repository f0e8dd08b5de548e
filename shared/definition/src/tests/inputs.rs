//! Values for inputs.

use hopyard_contract::plan::Plan;
use serde_json::{Map, Value, json};

use super::{good, top};
use crate::bind_inputs;

fn plan(inputs: &str) -> Plan {
    good(&top(&format!("inputs: {inputs}"))).plan
}

fn given(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn codes(plan: &Plan, value: Value) -> Vec<String> {
    bind_inputs(plan, &given(value)).unwrap_err().into_iter().map(|e| format!("{} {}", e.code, e.pointer)).collect()
}

#[test]
fn defaults_fill_what_is_not_given() {
    let plan = plan("{message: {type: string}, n: {type: integer, default: 20, minimum: 1, maximum: 100}, on: {default: null}}");
    assert_eq!(Value::Object(bind_inputs(&plan, &given(json!({"message": "m"}))).unwrap()), json!({"message": "m", "n": 20, "on": null}));
    assert_eq!(
        Value::Object(bind_inputs(&plan, &given(json!({"message": "", "n": 1, "on": [1]}))).unwrap()),
        json!({"message": "", "n": 1, "on": [1]})
    );
}

#[test]
fn all_mistakes_are_named() {
    let plan = plan(
        "{message: {type: string, maxLength: 3}, n: {type: integer, maximum: 100}, list: {type: array, items: {type: object, properties: {k: {enum: [a]}}}, default: []}}",
    );
    assert_eq!(codes(&plan, json!({})), ["missing_input /inputs/message", "missing_input /inputs/n"]);
    assert_eq!(
        codes(&plan, json!({"mesage": "x", "n": "7", "list": [{"k": "a"}, {"k": "b"}, 3]})),
        [
            "unknown_input /inputs/mesage",
            "invalid_input /inputs/list/1/k",
            "invalid_input /inputs/list/2",
            "missing_input /inputs/message",
            "invalid_input /inputs/n"
        ]
    );
    for bad in [json!(101), json!(1.5), json!(null), json!(true), json!([1])] {
        assert_eq!(codes(&plan, json!({"message": "m", "n": bad})), ["invalid_input /inputs/n"]);
    }
}

#[test]
fn sentences_help_and_keep_values_to_themselves() {
    let plan = plan("{token: {type: string, maxLength: 3}}");
    let errors = bind_inputs(&plan, &given(json!({"token": "hunter2", "tokne": 1}))).unwrap_err();
    assert_eq!(errors[0].detail, "the workflow `w` has no input `tokne`; did you mean `token`?");
    assert_eq!(errors[1].detail, "value is longer than 3 characters");
}

#[test]
fn large_integers_are_kept_or_refused() {
    let plan = plan("{n: {type: integer}}");
    for text in ["9007199254740993", "18446744073709551615", "-9223372036854775808"] {
        let bound = bind_inputs(&plan, &given(serde_json::from_str(&format!("{{\"n\": {text}}}")).unwrap())).unwrap();
        assert_eq!(bound["n"].to_string(), text);
    }
    for text in ["18446744073709551616", "-9223372036854775809", "1e30"] {
        assert_eq!(codes(&plan, serde_json::from_str(&format!("{{\"n\": {text}}}")).unwrap()), ["invalid_input /inputs/n"], "{text}");
    }
}

#[test]
fn patterns_take_linear_time() {
    let plan = plan("{s: {type: string, pattern: '^(a+)+$'}}");
    let started = std::time::Instant::now();
    assert_eq!(codes(&plan, json!({"s": format!("{}!", "a".repeat(50_000))})), ["invalid_input /inputs/s"]);
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}
