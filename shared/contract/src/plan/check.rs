//! Checks of a plan beyond its shape: ids, needs, cycles, expressions, environment names.

use std::collections::{BTreeMap, BTreeSet};

use super::{MAX_STEPS, Plan, Step, Work, WorkspaceMode, role};
use crate::condition;
use crate::problem::FieldError;
use crate::repository::has_control;
use crate::template;

/// Environment names that a definition may not set, because they change how programs or git themselves start.
const RESERVED: [&str; 7] = ["PATH", "HOME", "TMPDIR", "BASH_ENV", "ENV", "IFS", "SHELLOPTS"];

/// Everything that is wrong with a plan, by pointer into the definition.
pub fn check(plan: &Plan) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_graph(plan, &mut errors);
    check_env(&plan.env, "/env", &mut errors);
    check_pools(plan, &mut errors);
    check_variants(plan, &mut errors);
    role::check(plan, &mut errors);
    for (name, spec) in &plan.roles {
        for (field, text) in spec.templates() {
            check_template(plan, None, text, &format!("/roles/{}/{field}", crate::json::escape(name)), &mut errors);
        }
    }
    for (name, schema) in &plan.inputs {
        if !is_key(name) {
            errors.push(FieldError::new(
                "pattern",
                format!("/inputs/{}", crate::json::escape(name)),
                "an input is named by letters, digits and `_`",
            ));
        }
        if !schema.is_object() {
            errors.push(FieldError::new(
                "type",
                format!("/inputs/{}", crate::json::escape(name)),
                "an input is described by a JSON Schema object",
            ));
        }
    }
    for (index, step) in plan.steps.iter().enumerate() {
        let at = format!("/steps/{index}");
        check_env(&step.env, &format!("{at}/env"), &mut errors);
        // Once per step: a long chain with many expressions would else be walked for each of them.
        let ended = ancestors(plan, index);
        if let Some(text) = &step.condition {
            match condition::parse(text) {
                Ok(expr) => check_paths(plan, Some(&ended), &expr.paths(), &format!("{at}/if"), &mut errors),
                Err(detail) => errors.push(FieldError::new("expression", format!("{at}/if"), detail)),
            }
        }
        for (key, value) in &step.env {
            check_template(plan, Some(&ended), value, &format!("{at}/env/{}", crate::json::escape(key)), &mut errors);
        }
        match &step.work {
            Work::Shell(script) if script.trim().is_empty() || script.contains('\0') => {
                errors.push(FieldError::new("length", format!("{at}/shell"), "a script has text and no NUL characters"));
            }
            Work::Shell(_) | Work::Deliver(_) | Work::Replay(_) => {}
            Work::Llm(llm) => {
                let at = format!("{at}/llm");
                llm.check(&at, &mut errors);
                for (field, text) in llm.templates() {
                    check_template(plan, Some(&ended), text, &format!("{at}/{field}"), &mut errors);
                }
            }
            Work::Approval(approval) => {
                let at = format!("{at}/approval");
                approval.check(&at, &mut errors);
                check_template(plan, Some(&ended), &approval.prompt, &format!("{at}/prompt"), &mut errors);
            }
            Work::Agent(agent) => {
                let at = format!("{at}/agent");
                agent.check(&at, &mut errors);
                for (field, text) in agent.templates() {
                    check_template(plan, Some(&ended), text, &format!("{at}/{field}"), &mut errors);
                }
            }
            Work::BestOf(best_of) => {
                let at = format!("{at}/best_of");
                best_of.check(plan, step, &at, &mut errors);
                for (field, text) in best_of.templates() {
                    check_template(plan, Some(&ended), text, &format!("{at}/{field}"), &mut errors);
                }
            }
        }
        if let Some(retry) = &step.retry
            && !(1..=100).contains(&retry.max_attempts)
        {
            errors.push(FieldError::new("range", format!("{at}/retry/max_attempts"), "max_attempts lies between 1 and 100"));
        }
    }
    for (key, value) in &plan.env {
        check_template(plan, None, value, &format!("/env/{}", crate::json::escape(key)), &mut errors);
    }
    check_template(plan, None, &plan.result.branch, "/result/branch", &mut errors);
    if let Some(concurrency) = &plan.concurrency {
        check_template(plan, None, &concurrency.key, "/concurrency/key", &mut errors);
        if !(1..=10_000).contains(&concurrency.limit) {
            errors.push(FieldError::new("range", "/concurrency/limit", "the limit lies between 1 and 10000"));
        }
    }
    if plan.result.merge != "none"
        && plan.result.merge != "base"
        && let Err(detail) = crate::repository::check_ref(&plan.result.merge)
    {
        errors.push(FieldError::new("ref", "/result/merge", detail));
    }
    if plan.workspace.mode == WorkspaceMode::None && plan.result.delivery().is_some() {
        let pointer = if plan.result.push { "/result/push" } else { "/result/merge" };
        let detail = "a workflow without a git workspace has nothing to push or merge; let `workspace.mode` be temporary or persistent";
        errors.push(FieldError::new("result_without_workspace", pointer, detail));
    }
    errors
}

fn check_graph(plan: &Plan, errors: &mut Vec<FieldError>) {
    // The step that hands the result over comes on top of those that were written, and so do those of variants.
    let steps = |step: &Step| match &step.work {
        Work::Deliver(_) => 0,
        _ if step.variant.is_some() => 0,
        Work::BestOf(best_of) => 1 + 2 * best_of.variants.len(),
        _ => 1,
    };
    let written: usize = plan.steps.iter().map(steps).sum();
    if written == 0 || written > MAX_STEPS {
        errors.push(FieldError::new("length", "/steps", format!("a workflow has 1 to {MAX_STEPS} steps")));
    }
    let mut ids = BTreeSet::new();
    for (index, step) in plan.steps.iter().enumerate() {
        if !ids.insert(step.id.as_str()) {
            errors.push(FieldError::new("duplicate_step", format!("/steps/{index}/id"), format!("the step `{}` stands twice", step.id)));
        }
    }
    for (index, step) in plan.steps.iter().enumerate() {
        for (position, need) in step.needs.iter().enumerate() {
            let pointer = format!("/steps/{index}/needs/{position}");
            if need == &step.id {
                errors.push(FieldError::new("cycle", pointer, format!("the step `{need}` needs itself")));
            } else if !ids.contains(need.as_str()) {
                errors.push(FieldError::new("unknown_step", pointer, format!("there is no step `{need}`")));
            } else if step.needs[..position].contains(need) {
                errors.push(FieldError::new("duplicate_step", pointer, format!("`{need}` is needed twice")));
            }
        }
    }
    if let Some(cycle) = find_cycle(plan) {
        let index = plan.steps.iter().position(|s| s.id.as_str() == cycle[0]).unwrap_or(0);
        errors.push(FieldError::new(
            "cycle",
            format!("/steps/{index}/needs"),
            format!("the steps need each other: {}", cycle.join(" -> ")),
        ));
    }
}

/// A workspace is on one executor's disk, so the steps that share it cannot be claimed from different pools.
fn check_pools(plan: &Plan, errors: &mut Vec<FieldError>) {
    let Some(first) = plan.steps.first().filter(|_| plan.workspace.mode != WorkspaceMode::None) else { return };
    if let Some(index) = plan.steps.iter().position(|s| s.pool != first.pool) {
        let detail = "the steps share a workspace and so an executor: name one pool for all, or set `workspace: {mode: none}`";
        errors.push(FieldError::new("pool_conflict", format!("/steps/{index}/pool"), detail));
    }
}

/// The work of the best variant takes the place of the workspace's content, so that nobody else may be at work in it.
fn check_variants(plan: &Plan, errors: &mut Vec<FieldError>) {
    let chooses = |step: &Step| matches!(step.work, Work::BestOf(_));
    if !plan.steps.iter().any(chooses) {
        return;
    }
    let ended: Vec<BTreeSet<&str>> = (0..plan.steps.len()).map(|index| ancestors(plan, index)).collect();
    let changes = |step: &Step| step.variant.is_none() && matches!(step.work, Work::Shell(_) | Work::Agent(_) | Work::BestOf(_));
    for (index, step) in plan.steps.iter().enumerate().filter(|(_, step)| chooses(step)) {
        if plan.workspace.mode != WorkspaceMode::Temporary {
            let detail = "variants have a worktree each, which is there for one run: let `workspace.mode` be temporary";
            errors.push(FieldError::new("best_of_workspace", format!("/steps/{index}/best_of"), detail));
        }
        let beside = plan.steps.iter().enumerate().find(|(other, beside)| {
            *other != index && changes(beside) && !ended[index].contains(beside.id.as_str()) && !ended[*other].contains(step.id.as_str())
        });
        if let Some((_, beside)) = beside {
            let detail = format!("`{}` may be at work at the same time: let one of both need the other", beside.id);
            errors.push(FieldError::new("best_of_beside", format!("/steps/{index}/needs"), detail));
        }
    }
}

/// One cycle of at least two steps, as ids with the first repeated at the end.
fn find_cycle(plan: &Plan) -> Option<Vec<String>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        Open,
        Done,
    }
    let index: BTreeMap<&str, usize> = plan.steps.iter().enumerate().map(|(i, s)| (s.id.as_str(), i)).collect();
    let mut marks: Vec<Option<Mark>> = vec![None; plan.steps.len()];
    for start in 0..plan.steps.len() {
        if marks[start].is_some() {
            continue;
        }
        // Each entry is a step and the position in its needs.
        let mut path = vec![(start, 0usize)];
        marks[start] = Some(Mark::Open);
        while let Some((at, position)) = path.last_mut() {
            let Some(need) = plan.steps[*at].needs.get(*position) else {
                marks[*at] = Some(Mark::Done);
                path.pop();
                continue;
            };
            *position += 1;
            let own = *at;
            match index.get(need.as_str()) {
                Some(&next) if next != own => match marks[next] {
                    None => {
                        marks[next] = Some(Mark::Open);
                        path.push((next, 0));
                    }
                    Some(Mark::Open) => {
                        let from = path.iter().position(|(i, _)| *i == next)?;
                        let mut names: Vec<String> = path[from..].iter().map(|(i, _)| plan.steps[*i].id.to_string()).collect();
                        names.push(names[0].clone());
                        return Some(names);
                    }
                    Some(Mark::Done) => {}
                },
                _ => {}
            }
        }
    }
    None
}

/// Steps that end before the given one, by way of `needs`.
fn ancestors<'a>(plan: &'a Plan, index: usize) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&'a str> = plan.steps[index].needs.iter().map(|n| n.as_str()).collect();
    while let Some(id) = open.pop() {
        if found.insert(id)
            && let Some(step) = plan.step(id)
        {
            open.extend(step.needs.iter().map(|n| n.as_str()));
        }
    }
    found
}

/// `of` are the steps that have ended when the text is looked at; `None` is the run itself, which sees no steps.
fn check_paths(plan: &Plan, of: Option<&BTreeSet<&str>>, paths: &[&[String]], pointer: &str, errors: &mut Vec<FieldError>) {
    for path in paths {
        match path.first().map(String::as_str) {
            Some("inputs") if !plan.inputs.contains_key(&path[1]) => {
                errors.push(FieldError::new("unknown_input", pointer, format!("there is no input `{}`", path[1])));
            }
            Some("steps") if plan.step(&path[1]).is_none() => {
                errors.push(FieldError::new("unknown_step", pointer, format!("there is no step `{}`", path[1])));
            }
            Some("steps") if !of.is_some_and(|ended| ended.contains(path[1].as_str())) => {
                errors.push(FieldError::new(
                    "unknown_step",
                    pointer,
                    format!("the step `{}` has not ended by then; name it in `needs`", path[1]),
                ));
            }
            _ => {}
        }
    }
}

fn check_template(plan: &Plan, of: Option<&BTreeSet<&str>>, text: &str, pointer: &str, errors: &mut Vec<FieldError>) {
    match template::parse(text) {
        Ok(parts) => {
            for part in &parts {
                if let template::Part::Expr(expr) = part {
                    check_paths(plan, of, &expr.paths(), pointer, errors);
                    if expr.has_call() {
                        errors.push(FieldError::new("expression", pointer, "completed(), failed() and always() belong in `if`"));
                    }
                }
            }
        }
        Err(detail) => errors.push(FieldError::new("expression", pointer, detail)),
    }
}

fn check_env(env: &BTreeMap<String, String>, pointer: &str, errors: &mut Vec<FieldError>) {
    if env.len() > 256 || env.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > 64 * 1024 {
        errors.push(FieldError::new("length", pointer, "an environment has at most 256 names and 64 KiB"));
    }
    for (key, value) in env {
        let at = format!("{pointer}/{}", crate::json::escape(key));
        if !is_key(key) {
            errors.push(FieldError::new("env_key", at, "an environment name has letters, digits and `_`, and does not start with a digit"));
        } else if RESERVED.contains(&key.as_str()) || ["LD_", "GIT_", "HOPYARD_", "DYLD_"].iter().any(|p| key.starts_with(p)) {
            errors.push(FieldError::new("env_reserved", at, format!("`{key}` is reserved")));
        } else if value.contains('\0') {
            errors.push(FieldError::new("control_char", at, "a value has no NUL characters"));
        }
    }
}

fn is_key(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 128
        && !has_control(text)
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn codes(value: serde_json::Value) -> Vec<(String, String)> {
        let mut value = value;
        value["v"] = json!(1);
        value["name"] = json!("w");
        check(&Plan::from_stored(value).unwrap()).into_iter().map(|e| (e.code, e.pointer)).collect()
    }

    fn pair(code: &str, pointer: &str) -> (String, String) {
        (code.to_owned(), pointer.to_owned())
    }

    #[test]
    fn cycles_and_dangling_needs_are_all_named() {
        let plan = json!({"steps": [
            {"id": "a", "needs": ["c"], "shell": "true"},
            {"id": "b", "needs": ["a"], "shell": "true"},
            {"id": "c", "needs": ["b"], "shell": "true"},
            {"id": "d", "needs": ["d", "x"], "shell": "true"},
            {"id": "d", "shell": "true"},
        ]});
        assert_eq!(
            codes(plan),
            [
                pair("duplicate_step", "/steps/4/id"),
                pair("cycle", "/steps/3/needs/0"),
                pair("unknown_step", "/steps/3/needs/1"),
                pair("cycle", "/steps/0/needs")
            ]
        );
    }

    #[test]
    fn expressions_see_only_what_has_ended() {
        let plan = json!({"inputs": {"x": {"type": "string"}}, "steps": [
            {"id": "a", "shell": "true"},
            {"id": "b", "needs": ["a"], "shell": "true", "if": "steps.a.outputs.k == inputs.x"},
            {"id": "c", "shell": "true", "if": "steps.b.status == 'failed'", "env": {"V": "${{ inputs.y }}"}},
        ]});
        assert_eq!(codes(plan), [pair("unknown_step", "/steps/2/if"), pair("unknown_input", "/steps/2/env/V")]);
    }

    #[test]
    fn steps_of_one_workspace_are_claimed_from_one_pool() {
        let steps = json!([{"id": "a", "shell": "true"}, {"id": "b", "shell": "true", "pool": "gpu"}]);
        assert_eq!(codes(json!({"steps": steps})), [pair("pool_conflict", "/steps/1/pool")]);
        assert_eq!(codes(json!({"workspace": {"mode": "none"}, "steps": steps})), []);
    }

    #[test]
    fn environment_names_are_checked() {
        let plan = json!({"env": {"A=B": "1", "": "1", "1A": "1", "LD_PRELOAD": "1", "GIT_DIR": "1", "PATH": "1", "BASH_ENV": "1", "OK": "1"}, "steps": [{"id": "a", "shell": "true"}]});
        let found = codes(plan);
        assert_eq!(found.iter().filter(|(c, _)| c == "env_key").count(), 3);
        assert_eq!(found.iter().filter(|(c, _)| c == "env_reserved").count(), 4);
        assert_eq!(found.len(), 7);
    }

    #[test]
    fn a_workflow_has_1_to_200_steps() {
        assert_eq!(codes(json!({"steps": []})), [pair("length", "/steps")]);
        let steps: Vec<_> = (0..201).map(|i| json!({"id": format!("s{i}"), "shell": "true"})).collect();
        assert_eq!(codes(json!({"steps": steps})), [pair("length", "/steps")]);
    }

    #[test]
    fn a_delivery_is_added_last_and_once() {
        let plan = |result: serde_json::Value, steps: serde_json::Value| {
            let mut plan = Plan::from_stored(json!({"v": 1, "name": "w", "steps": steps, "result": result})).unwrap();
            plan.add_delivery();
            assert_eq!(check(&plan), []);
            let once = plan.clone();
            plan.add_delivery();
            assert_eq!(plan, once);
            assert_eq!(Plan::from_stored(serde_json::to_value(&plan).unwrap()).unwrap(), plan, "it is stored and read like any other");
            plan
        };
        let steps = json!([{"id": "a", "shell": "true", "pool": "big"}, {"id": "deliver", "shell": "true", "pool": "big"}]);
        assert_eq!(plan(json!({}), steps.clone()).steps.len(), 2);
        let with = plan(json!({"push": true, "merge": "base"}), steps);
        let step = with.steps.last().unwrap();
        assert_eq!((step.id.as_str(), step.work.kind()), ("deliver-result", crate::status::StepKind::Deliver));
        assert_eq!(step.needs.iter().map(|n| n.as_str()).collect::<Vec<_>>(), ["a", "deliver"]);
        assert_eq!(step.pool.as_ref().map(|p| p.as_str()), Some("big"));
        assert_eq!(serde_json::to_value(&step.work).unwrap(), json!({"deliver": {"push": true, "merge": "base"}}));
        let most: Vec<_> = (0..MAX_STEPS).map(|i| json!({"id": format!("s{i}"), "shell": "true"})).collect();
        assert_eq!(plan(json!({"merge": "release"}), json!(most)).steps.len(), MAX_STEPS + 1);
    }

    #[test]
    fn without_a_workspace_nothing_is_delivered() {
        let with = |result| json!({"workspace": {"mode": "none"}, "steps": [{"id": "a", "shell": "true"}], "result": result});
        assert_eq!(codes(with(json!({"push": true}))), [pair("result_without_workspace", "/result/push")]);
        assert_eq!(codes(with(json!({"merge": "main"}))), [pair("result_without_workspace", "/result/merge")]);
        assert_eq!(codes(with(json!({}))), []);
    }
}
