//! A plan, written as a definition and read again, is the same plan.

use hopyard_contract::plan::{Plan, ResultSpec, Work, WorkspaceMode};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::document::{json as json_text, yaml};

/// Texts with everything that a writer has to escape.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9 ._:#'\"\\\\{}\\[\\]&*!|>%@`,?-]{1,40}",
        "\\PC{1,20}",
        prop::sample::select(vec![
            "yes",
            "null",
            "~",
            "0x10",
            "1.0",
            "- a",
            "a: b",
            "é 😀\n\ttab",
            "line\nline\n",
            "---",
            "<<",
            "\r\n",
            "\u{85}\u{2028}x",
            "true"
        ])
        .prop_map(str::to_owned),
    ]
    .prop_filter("a script has text, and `${{` opens an expression", |t: &String| !t.trim().is_empty() && !t.contains("${{"))
}

fn duration() -> impl Strategy<Value = Value> {
    (1u64..=999, prop::sample::select(vec!["ms", "s", "m", "h"]))
        .prop_map(|(n, unit)| json!(format!("{n}{unit}").parse::<hopyard_contract::duration::Span>().unwrap()))
}

fn retry() -> impl Strategy<Value = Value> {
    (1u32..=100, prop::option::of(prop::sample::subsequence(vec!["exit_code", "timeout", "idle_timeout", "out_of_memory"], 1..=4)))
        .prop_map(|(n, on)| {
            let mut retry = json!({"max_attempts": n, "backoff": {"initial": "1s", "max": "5m"}});
            if let Some(on) = on {
                retry["on"] = json!(on);
            }
            retry
        })
}

fn env() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("X_[A-Z0-9_]{1,8}", text(), 0..4).prop_map(|m| json!(m))
}

fn set(map: &mut Value, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map[key] = value;
    }
}

fn step(index: usize) -> impl Strategy<Value = Value> {
    let conditions = prop::option::of(prop::sample::select(vec!["always()", "failed() || completed()", "inputs.i0 != 'x'"]));
    let needs = prop::collection::btree_set(0..index.max(1), 0..4.min(index + 1));
    (
        (needs, conditions, prop::option::of("[a-z][a-z0-9-]{0,9}"), env()),
        (prop::option::of(duration()), prop::option::of(duration()), prop::option::of(duration()), prop::option::of(retry())),
        text(),
    )
        .prop_map(move |((needs, condition, pool, env), (timeout, idle_timeout, grace, retry), shell)| {
            let needs: Vec<_> = needs.into_iter().filter(|n| *n < index).map(|n| format!("s{n}")).collect();
            let mut step = json!({"id": format!("s{index}"), "needs": needs, "env": env, "shell": shell});
            set(&mut step, "if", condition.map(Value::from));
            set(&mut step, "pool", pool.map(Value::from));
            set(&mut step, "timeout", timeout);
            set(&mut step, "idle_timeout", idle_timeout);
            set(&mut step, "grace", grace);
            set(&mut step, "retry", retry);
            step
        })
}

fn plan() -> impl Strategy<Value = Plan> {
    let input = prop_oneof![
        Just(json!({"type": "string"})),
        (i64::MIN..i64::MAX).prop_map(|n| json!({"type": "integer", "default": n})),
        (u64::MAX - 9..u64::MAX).prop_map(|n| json!({"type": "integer", "maximum": n})),
        (-1e9..1e9).prop_map(|n: f64| json!({"type": "number", "default": n})),
        text().prop_map(|t| json!({"title": t, "default": {"a/b": [t, null, true]}})),
    ];
    let inputs = prop::collection::vec(input, 1..4)
        .prop_map(|all| all.into_iter().enumerate().map(|(i, s)| (format!("i{i}"), s)).collect::<Map<_, _>>());
    let budget = (prop::option::of(0u64..=1_000_000_000_000), prop::option::of(1u64..1000), prop::option::of(duration())).prop_map(
        |(cost, turns, time)| {
            let mut budget = json!({});
            set(&mut budget, "cost_microusd", cost.map(Value::from));
            set(&mut budget, "turns", turns.map(Value::from));
            set(&mut budget, "time", time);
            budget
        },
    );
    let concurrency = (text(), 1u32..=10_000, prop::sample::select(vec!["queue", "cancel_older"]))
        .prop_map(|(key, limit, policy)| json!({"key": key, "limit": limit, "policy": policy}));
    let result = (any::<bool>(), prop::sample::select(vec!["none", "base", "main", "release/1.x"]))
        .prop_map(|(push, merge)| json!({"branch": "w/${{ run.id }}", "push": push, "merge": merge}));
    let steps = (1usize..6).prop_flat_map(|n| (0..n).map(step).collect::<Vec<_>>());
    (
        (inputs, prop::option::of(budget), prop::option::of(concurrency), result),
        (prop::option::of(duration()), env(), steps, prop::sample::select(vec!["temporary", "persistent", "none"])),
    )
        .prop_map(|((inputs, budget, concurrency, result), (timeout, env, steps, mode))| {
            let mut plan = json!({"v": 1, "name": "w-1_x", "inputs": inputs, "workspace": {"mode": mode}, "env": env, "steps": steps, "result": result});
            set(&mut plan, "budget", budget);
            set(&mut plan, "concurrency", concurrency);
            set(&mut plan, "timeout", timeout);
            let mut plan = Plan::from_stored(plan).unwrap();
            match plan.workspace.mode {
                WorkspaceMode::None => plan.result = ResultSpec::default(),
                // Steps that share a workspace share a pool.
                WorkspaceMode::Temporary | WorkspaceMode::Persistent => {
                    let pool = plan.steps[0].pool.clone();
                    plan.steps.iter_mut().for_each(|s| s.pool = pool.clone());
                }
            }
            plan.add_delivery();
            plan
        })
}

/// The definition that evaluates to a plan.
fn definition(plan: &Plan) -> Value {
    let mut written = plan.clone();
    written.steps.retain(|s| !matches!(s.work, Work::Deliver(_)));
    let mut value = json!(written);
    let fields = value.as_object_mut().expect("a plan is an object");
    fields.remove("v");
    fields.insert("version".to_owned(), json!(1));
    if let Some(cost) = value.pointer_mut("/budget").and_then(Value::as_object_mut).and_then(|b| b.remove("cost_microusd")) {
        let micro = cost.as_u64().expect("micro-dollars");
        value["budget"]["cost_usd"] = json!(format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000));
    }
    value
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_survive_the_way_through_text(plan in plan()) {
        let value = definition(&plan);
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        for source in [value.to_string(), pretty] {
            let read = crate::parse(&source, None).map_err(|e| TestCaseError::fail(format!("{e:#?}")))?;
            prop_assert_eq!(&read.plan, &plan);
            prop_assert_eq!(read.plan.hash(), plan.hash());
        }
        prop_assert_eq!(crate::from_json(&value).unwrap().plan, plan);
    }

    /// JSON is YAML: both readers see the same tree, with the same places.
    #[test]
    fn both_readers_agree_on_json(plan in plan()) {
        let source = serde_json::to_string_pretty(&definition(&plan)).unwrap();
        let (json, yaml) = (json_text::read(&source), yaml::read(&source));
        prop_assert_eq!(json.errors, vec![]);
        prop_assert_eq!(yaml.errors, vec![]);
        prop_assert_eq!(json.root, yaml.root);
    }

    #[test]
    fn no_text_breaks_the_reader(source in "\\PC{0,200}", lines in prop::collection::vec("[ ]{0,6}(- |[a-z]{1,3}: |[\\[\\]{},&*!|>'\"#%@?-]|steps:|id: a|shell: x){0,4}", 0..12)) {
        for source in [source, lines.join("\n"), super::top(&lines.join("\n"))] {
            if let Err(errors) = crate::parse(&source, None) {
                prop_assert!(!errors.is_empty());
            }
        }
    }
}
