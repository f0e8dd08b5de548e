//! Definitions that are read, and what they become.

use hopyard_contract::duration::Span;
use hopyard_contract::plan::{Backoff, Budget, Concurrency, ConcurrencyPolicy, Deliver, ResultSpec, Retry, Work, WorkspaceMode};
use hopyard_contract::status::FailureCode;
use serde_json::json;

use super::{good, step, top};

pub(super) const FULL: &str = r#"version: 1
name: fix-bug
inputs: {message: {type: string}, max_turns: {type: integer, default: 20, minimum: 1, maximum: 100}}
workspace: {mode: temporary}
budget: {cost_usd: 2.50, turns: 40, time: 30m}
concurrency: {key: "${{ repo.url }}", limit: 1, policy: cancel_older}
timeout: 2h
defaults: {timeout: 30m, idle_timeout: 5m, pool: small, grace: 3s, retry: {max_attempts: 3}}
env: {CI: "1", DEBUG: true, LEVEL: 1.10, ZIP: 00501}
steps:
  - id: build
    shell: |
      #!/usr/bin/env bash
      cargo build
  - id: test
    needs: [build]
    if: completed()
    shell: cargo test
    env: {MSG: "${{ inputs.message }}"}
    timeout: 10m
    pool: small
    retry: {max_attempts: 2, backoff: {initial: 1s, max: 1m}, on: [exit_code]}
  - id: report
    needs: test
    if: steps.test.status == 'failed'
    shell: ./report.sh
result: {branch: "hopyard/${{ workflow.name }}/${{ run.id }}", push: true, merge: base}
"#;

fn millis(n: u64) -> Option<Span> {
    Some(Span::from_millis(n))
}

#[test]
fn the_whole_language_becomes_a_plan() {
    let definition = good(FULL);
    assert_eq!(definition.source, FULL);
    assert_eq!(definition.hash.len(), 64);
    let plan = definition.plan;
    assert_eq!((plan.v, plan.name.as_str(), plan.timeout), (1, "fix-bug", millis(7_200_000)));
    assert_eq!(
        json!(plan.inputs),
        json!({"message": {"type": "string"}, "max_turns": {"type": "integer", "default": 20, "minimum": 1, "maximum": 100}})
    );
    assert_eq!(plan.workspace.mode, WorkspaceMode::Temporary);
    assert_eq!(plan.budget, Some(Budget { cost_microusd: Some(2_500_000), turns: Some(40), time: millis(1_800_000) }));
    assert_eq!(plan.concurrency, Some(Concurrency { key: "${{ repo.url }}".into(), limit: 1, policy: ConcurrencyPolicy::CancelOlder }));
    assert_eq!(json!(plan.env), json!({"CI": "1", "DEBUG": "true", "LEVEL": "1.10", "ZIP": "00501"}));
    assert_eq!(plan.result, ResultSpec { branch: "hopyard/${{ workflow.name }}/${{ run.id }}".into(), push: true, merge: "base".into() });

    let [build, test, report, deliver] = plan.steps.as_slice() else { panic!("three steps and the delivery") };
    assert_eq!(build.work, Work::Shell("#!/usr/bin/env bash\ncargo build\n".into()));
    assert_eq!((build.timeout, build.idle_timeout, build.grace), (millis(1_800_000), millis(300_000), millis(3000)));
    assert_eq!(build.pool.as_ref().map(|p| p.as_str()), Some("small"), "from the defaults");
    assert_eq!(build.retry, Some(Retry { max_attempts: 3, backoff: Backoff::default(), on: None }));
    assert_eq!(test.pool.as_ref().map(|p| p.as_str()), Some("small"));
    assert_eq!((test.timeout, test.idle_timeout), (millis(600_000), millis(300_000)));
    let backoff = Backoff { initial: Span::from_millis(1000), max: Span::from_millis(60_000) };
    assert_eq!(test.retry, Some(Retry { max_attempts: 2, backoff, on: Some(vec![FailureCode::ExitCode]) }));
    assert_eq!(json!(test.env), json!({"MSG": "${{ inputs.message }}"}));
    assert_eq!((report.needs[0].as_str(), report.condition.as_deref()), ("test", Some("steps.test.status == 'failed'")));
    assert_eq!(deliver.work, Work::Deliver(Deliver { push: true, merge: Some("base".into()) }));
    assert_eq!(deliver.needs, [&build.id, &test.id, &report.id].map(Clone::clone));
}

#[test]
fn an_approval_takes_nothing_from_the_defaults_of_processes() {
    let text = "version: 1\nname: w\ndefaults: {timeout: 10m, retry: {max_attempts: 3}, pool: small}\nsteps:\n  - {id: a, approval: {prompt: go?}}\n  - {id: b, approval: {prompt: go?}, timeout: 2d}\n";
    let plan = crate::parse(text, None).unwrap().plan;
    let [a, b] = plan.steps.as_slice() else { panic!("two steps") };
    assert_eq!((a.timeout, &a.retry, &a.pool), (None, &None, &None));
    assert_eq!(b.timeout, Some("2d".parse().unwrap()));
}

#[test]
fn absent_fields_have_their_defaults() {
    let plan = good(&step("shell: x")).plan;
    assert_eq!(
        json!(plan),
        json!({
            "v": 1, "name": "w", "inputs": {}, "workspace": {"mode": "temporary"}, "env": {},
            "steps": [{"id": "a", "needs": [], "env": {}, "shell": "x"}],
            "result": {"branch": "hopyard/${{ workflow.name }}/${{ run.id }}", "push": false, "merge": "none"},
        })
    );
}

#[test]
fn yaml_1_2_words_are_texts() {
    let plan = good(&top("env: {A: yes, B: no, C: on, D: 12:30, E: 2024-01-01, F: null-ish}")).plan;
    assert_eq!(json!(plan.env), json!({"A": "yes", "B": "no", "C": "on", "D": "12:30", "E": "2024-01-01", "F": "null-ish"}));
    assert_eq!(good(&step("shell: x\nif: true")).plan.steps[0].condition.as_deref(), Some("true"));
}

#[test]
fn money_is_exact_in_every_form() {
    for (written, micro) in [
        ("2.50", 2_500_000),
        ("\"2.50\"", 2_500_000),
        ("0.000001", 1),
        ("0.1", 100_000),
        ("999999.999999", 999_999_999_999),
        ("7", 7_000_000),
        ("1e-6", 1),
        ("2.5E+1", 25_000_000),
        ("1e3", 1_000_000_000),
    ] {
        let yaml = good(&top(&format!("budget: {{cost_usd: {written}}}"))).plan;
        let text =
            format!(r#"{{"version": 1, "name": "w", "budget": {{"cost_usd": {written}}}, "steps": [{{"id": "a", "shell": "true"}}]}}"#);
        assert_eq!(yaml.budget.as_ref().and_then(|b| b.cost_microusd), Some(micro), "{written}");
        assert_eq!(good(&text).plan, yaml, "{written}");
        let object = crate::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(object.plan, yaml, "{written}");
    }
}

#[test]
fn large_integers_in_schemas_stay_exact() {
    let plan = good(&top("inputs: {x: {type: integer, default: 9007199254740993, maximum: 18446744073709551615}}")).plan;
    assert_eq!(plan.inputs["x"].to_string(), r#"{"default":9007199254740993,"maximum":18446744073709551615,"type":"integer"}"#);
}

#[test]
fn json_text_may_have_what_only_json_has() {
    let text = "\t{\"version\": 1, \"name\": \"w\",\n\t\"steps\": [{\"id\": \"a\", \"shell\": \"echo \\ud83d\\ude00 \\u00e9 \\/\"}]\n}\n";
    assert_eq!(good(text).plan.steps[0].work, Work::Shell("echo 😀 é /".into()));
}

#[test]
fn a_byte_order_mark_and_dos_lines_are_read() {
    let source = format!("\u{feff}{}", step("shell: x").replace('\n', "\r\n"));
    assert_eq!(good(&source).plan, good(&step("shell: x")).plan);
    assert_eq!(super::problems(&top("x: 1").replace('\n', "\r\n")), ["unknown_field /x 3:1"]);
}

#[test]
fn the_hash_is_that_of_the_text() {
    let value = json!({"version": 1, "name": "w", "steps": [{"shell": "true", "id": "a"}]});
    let object = crate::from_json(&value).unwrap();
    assert_eq!(object.source, r#"{"name":"w","steps":[{"id":"a","shell":"true"}],"version":1}"#);
    assert_eq!(object.hash, hopyard_contract::json::hash(&value));
    let (one, two) = (good(&top("")), good(&top("# a remark")));
    assert_eq!(one.plan.hash(), two.plan.hash());
    assert_ne!(one.hash, two.hash);
    let known = "4e6c10503093d2b7a8a397c2bb0e9570f45c7c9c51b2f05ef82bb01af1467a7e";
    assert_eq!(good("{version: 1, name: w, steps: [{id: a, shell: x}]}").hash, known);
}
