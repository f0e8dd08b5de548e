//! Steps that several agents try at once.

use hopyard_contract::plan::{Work, check};
use serde_json::json;

use super::{good, problems};

/// A workflow with a step of this id and these variants, and `more` steps behind it.
fn contest(id: &str, variants: &str, more: &str) -> String {
    format!("version: 1\nname: w\nsteps:\n  - id: {id}\n    best_of: {{prompt: x, check: make, variants: [{variants}]}}\n{more}")
}

const TWO: &str = "{name: a, cli: fake}, {name: b, cli: fake}";

#[test]
fn variants_become_steps_with_a_workspace_each_and_the_step_itself_chooses() {
    let text = "version: 1
name: w
inputs: {task: {type: string}}
defaults: {timeout: 5m, retry: {max_attempts: 2}}
steps:
  - {id: first, shell: ./prepare}
  - id: fix
    needs: first
    if: always()
    env: {A: b}
    best_of:
      prompt: 'Fix ${{ inputs.task }}'
      variants: [{name: small, cli: claude, model: m/small, max_turns: 7}, {name: other, cli: codex}]
      check: make test
      score: passed
  - {id: last, needs: fix, shell: ./publish}
result: {push: true}
";
    let plan = good(text).plan;
    assert_eq!(check::check(&plan), []);
    let ids: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["first", "fix-small", "fix-small-check", "fix-other", "fix-other-check", "fix", "last", "deliver"]);
    let of = |id: &str| {
        let step = plan.step(id).unwrap();
        let needs: Vec<&str> = step.needs.iter().map(|need| need.as_str()).collect();
        let retry = step.retry.as_ref().map(|retry| retry.max_attempts);
        (step.variant.as_ref().map(|name| name.as_str()), needs, step.condition.as_deref(), step.timeout.map(|t| t.millis()), retry)
    };
    assert_eq!(of("fix-small"), (Some("fix-small"), vec!["first"], Some("always()"), Some(300_000), Some(2)));
    assert_eq!(of("fix-small-check"), (Some("fix-small"), vec!["fix-small"], None, Some(300_000), Some(2)));
    assert_eq!(of("fix"), (None, vec!["first", "fix-small-check", "fix-other-check"], None, None, None));
    assert_eq!(of("deliver").1, ["first", "fix", "last"], "a variant that fails keeps nothing back");
    let Work::Agent(small) = &plan.step("fix-small").unwrap().work else { panic!("an agent") };
    assert_eq!((small.cli.as_str(), small.prompt.as_str(), small.max_turns.as_deref()), ("claude", "Fix ${{ inputs.task }}", Some("7")));
    assert_eq!(plan.step("fix-other-check").unwrap().work, Work::Shell("make test".to_owned()));
    assert_eq!(json!(plan.step("fix-other").unwrap().env), json!({"A": "b"}));
    let mut again = plan.clone();
    again.add_variants();
    assert_eq!(again, plan, "a plan that has its variants stays as it is");
}

#[test]
fn what_cannot_be_tried_or_chosen_is_refused_at_its_place() {
    let long = "l".repeat(60);
    let table: [(String, &[&str]); 12] = [
        (contest("x", "", ""), &["length /steps/0/best_of/variants 5:49"]),
        (contest("x", "{name: a, cli: fake}", ""), &["length /steps/0/best_of/variants 5:49"]),
        (contest("x", "{name: a, cli: fake}, {name: a, cli: fake}", ""), &["duplicate_variant /steps/0/best_of/variants/1/name 5:79"]),
        (contest("x", "{name: a, cli: fake}, {cli: fake}", ""), &["missing_field /steps/0/best_of/variants/1/name 5:72"]),
        (
            contest("x", "{name: a, cli: gpt}, {name: b, cli: fake, max_turns: 0}", ""),
            &["unknown_value /steps/0/best_of/variants/0/cli 5:65", "range /steps/0/best_of/variants/1/max_turns 5:103"],
        ),
        (
            contest("x", "{name: a, cli: fake, prompt: z}, {name: b, cli: fake}", ""),
            &["unknown_field /steps/0/best_of/variants/0/prompt 5:71"],
        ),
        (contest(&long, TWO, ""), &["length /steps/0/best_of/variants/0/name 5:57", "length /steps/0/best_of/variants/1/name 5:79"]),
        (contest("x", TWO, "  - {id: x-b-check, needs: x, shell: x}"), &["duplicate_step /steps/0/best_of/variants/1/name 5:79"]),
        (contest("x", TWO, "  - {id: y, shell: x}"), &["best_of_beside /steps/0/needs 4:5"]),
        (contest("x", TWO, "workspace: {mode: persistent}"), &["best_of_workspace /steps/0/best_of 5:14"]),
        (contest("x", TWO, "").replace("prompt: x", "prompt: '${{ inputs.y }}'"), &["unknown_input /steps/0/best_of/prompt 5:23"]),
        (contest("x", TWO, "").replace("check: make", "check: ' '"), &["length /steps/0/best_of/check 5:33"]),
    ];
    let wrong: Vec<_> =
        table.iter().map(|(text, expected)| (text, problems(text), expected)).filter(|(_, found, expected)| found != *expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn steps_that_change_nothing_may_go_on_beside_it() {
    good(&contest("x", TWO, "  - {id: ask, approval: {prompt: go?}}\n  - {id: sum, llm: {model: m, prompt: x}}"));
    good(&contest("x", TWO, "  - {id: before, shell: x}").replace("best_of:", "needs: before\n    best_of:"));
}
