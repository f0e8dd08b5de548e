//! The published schema agrees with the readers.

use serde_json::{Value, json};

use super::good::FULL;
use crate::{agent, approval, best_of, inputs, llm, published, retry, roles, step, workflow};

fn fields(schema: &Value) -> Vec<String> {
    let mut names: Vec<_> = schema["properties"].as_object().expect("properties").keys().cloned().collect();
    names.sort();
    names
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
    names.sort();
    names
}

#[test]
fn it_names_the_fields_that_are_read() {
    let schema = published::schema();
    let shapes = &schema["$defs"];
    let carried_out: Vec<&str> = step::FIELDS.iter().copied().filter(|f| *f != "workflow").collect();
    assert_eq!(fields(&schema), sorted(&workflow::FIELDS));
    assert_eq!(fields(&shapes["StepSpec"]), sorted(&carried_out));
    assert_eq!(fields(&shapes["AgentStep"]), sorted(&agent::FIELDS));
    assert_eq!(fields(&shapes["LlmStep"]), sorted(&llm::FIELDS));
    assert_eq!(fields(&shapes["BestOfStep"]), sorted(&best_of::FIELDS));
    assert_eq!(fields(&shapes["VariantStep"]), sorted(&best_of::VARIANT_FIELDS));
    assert_eq!(fields(&shapes["RoleSpec"]), sorted(&roles::FIELDS));
    assert_eq!(fields(&shapes["ApprovalStep"]), sorted(&approval::FIELDS));
    assert_eq!(fields(&shapes["Defaults"]), sorted(&workflow::DEFAULTS_FIELDS));
    assert_eq!(fields(&shapes["BudgetSpec"]), sorted(&workflow::BUDGET_FIELDS));
    assert_eq!(fields(&shapes["Concurrency"]), sorted(&workflow::CONCURRENCY_FIELDS));
    assert_eq!(fields(&shapes["WorkspaceSpec"]), sorted(&workflow::WORKSPACE_FIELDS));
    assert_eq!(fields(&shapes["ResultSpec"]), sorted(&workflow::RESULT_FIELDS));
    assert_eq!(fields(&shapes["Retry"]), sorted(&retry::RETRY_FIELDS));
    assert_eq!(fields(&shapes["Backoff"]), sorted(&retry::BACKOFF_FIELDS));
    assert_eq!(schema["required"], json!(["version", "name", "steps"]));
    assert!(!schema.to_string().contains("null"), "an absent field is left out, never null");
}

#[test]
fn it_accepts_good_definitions_and_refuses_bad_shapes() {
    let schema = published::schema();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let full = crate::document::read(FULL).root.expect("a tree").to_json().expect("numbers that fit");
    if let Err(error) = validator.validate(&full) {
        panic!("{error} at {}", error.instance_path());
    }
    let changes: [(&str, Value); 19] = [
        ("/version", json!(2)),
        ("/name", json!("A b")),
        ("/timeout", json!("soon")),
        ("/timeout", json!(null)),
        ("/budget/cost_usd", json!("1e3")),
        ("/budget/cost_usd", json!(-1)),
        ("/budget/turns", json!(0)),
        ("/workspace/mode", json!("other")),
        ("/concurrency/limit", json!(0)),
        ("/env/CI", json!([])),
        ("/steps", json!([])),
        ("/steps/1/needs", json!([1])),
        ("/steps/1/retry", json!({})),
        ("/steps/1/shell", json!(["x"])),
        ("/result/push", json!("yes")),
        ("/inputs/message", json!("string")),
        ("/roles", json!({ "a": { "model": "m" } })),
        ("/steps/1", json!({ "id": "a", "agent": { "prompt": "x" } })),
        ("/steps/1", json!({ "id": "a", "agent": { "prompt": "x", "cli": "fake", "role": "a" } })),
    ];
    for (pointer, value) in changes {
        let mut changed = full.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        match changed.pointer_mut(parent).expect(parent) {
            Value::Object(fields) => drop(fields.insert(key.to_owned(), value.clone())),
            list => list[key.parse::<usize>().expect("an index")] = value.clone(),
        }
        assert!(!validator.is_valid(&changed), "{pointer} {value}");
        assert!(crate::from_json(&changed).is_err(), "{pointer} {value}");
    }
    for (pointer, value) in [("/steps/1/need", json!([])), ("/steps/1/agent", json!({})), ("/extra", json!(1))] {
        let mut changed = full.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        changed.pointer_mut(parent).expect(parent)[key] = value;
        assert!(!validator.is_valid(&changed), "{pointer}");
    }
}

#[test]
fn the_keywords_of_inputs_are_all_different() {
    let unique: std::collections::BTreeSet<_> = inputs::KEYWORDS.iter().collect();
    assert_eq!(unique.len(), inputs::KEYWORDS.len());
}
