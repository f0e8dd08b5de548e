//! Roles: what a step takes of one, and what names none.

use hopyard_contract::plan::{Permissions, Work};
use serde_json::{Value, json};

use super::{good, problems};
use crate::bind_inputs;

/// Problems as `code pointer`.
fn told(source: &str) -> Vec<String> {
    problems(source).iter().filter_map(|problem| Some(problem.rsplit_once(' ')?.0.to_owned())).collect()
}

const ROLES: &str = "roles:
  ARCHITECT: {cli: claude, model: opus, permissions: read, max_turns: 30, prompt: You plan.}
  builder: {cli: codex}
";

fn with(steps: &str) -> String {
    format!(
        "version: 1\nname: w\ninputs: {{role: {{type: string, default: builder}}, n: {{type: integer, default: 1}}}}\n{ROLES}steps:\n{steps}"
    )
}

#[test]
fn a_step_takes_an_agent_by_its_name() {
    let plan = good(&with("  - {id: a, agent: {role: ARCHITECT, prompt: Look., model: sonnet}}\n")).plan;
    let Work::Agent(agent) = &plan.steps[0].work else { panic!("an agent") };
    let taken = agent.in_role(&plan.roles["ARCHITECT"]);
    assert_eq!((taken.cli.as_str(), taken.prompt.as_str(), taken.model.as_deref()), ("claude", "You plan.\n\nLook.", Some("sonnet")));
    assert_eq!((taken.permissions, taken.max_turns.as_deref()), (Permissions::Read, Some("30")));
}

#[test]
fn a_role_that_inputs_name_is_known_when_a_run_is_submitted() {
    let plan = good(&with(
        "  - {id: a, agent: {role: '${{ inputs.role }}', prompt: x}}\n  - {id: b, agent: {role: 'x-${{ inputs.n }}', prompt: x}}\n",
    ))
    .plan;
    let told = |given: Value| -> Vec<String> {
        let errors = bind_inputs(&plan, given.as_object().unwrap()).unwrap_err();
        errors.into_iter().map(|error| format!("{} {}: {}", error.code, error.pointer, error.detail)).collect()
    };
    let told = told(json!({ "role": "s3cret" }));
    assert_eq!(told[0], "unknown_role /inputs/role: this names no role of the workflow `w`; there are ARCHITECT, builder");
    assert!(told[1].starts_with("unknown_role /definition/steps/1/agent/role: "), "{told:?}");
    let plan = good(&with("  - {id: a, agent: {role: '${{ inputs.role }}', prompt: x}}\n")).plan;
    assert!(bind_inputs(&plan, &Default::default()).is_ok(), "the default names one");
}

#[test]
fn variants_take_roles_and_what_comes_after_them_keeps_its_place() {
    let best_of =
        "  - {id: a, best_of: {prompt: x, check: 'true', variants: [{name: p, role: builder}, {name: q, role: '${{ inputs.role }}'}]}}\n";
    let plan = good(&with(&format!("{best_of}  - {{id: b, needs: [a], agent: {{role: 'x-${{{{ inputs.n }}}}', prompt: x}}}}\n"))).plan;
    let errors = bind_inputs(&plan, json!({ "role": "cook" }).as_object().unwrap()).unwrap_err();
    let pointers: Vec<&str> = errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["/inputs/role", "/definition/steps/1/agent/role"]);
}

#[test]
fn what_is_no_role_is_told_where_it_stands() {
    let cases = [
        ("  - {id: a, agent: {role: architect, prompt: x}}\n", "unknown_role /steps/0/agent/role"),
        ("  - {id: a, agent: {role: builder, cli: codex, prompt: x}}\n", "exclusive /steps/0/agent/cli"),
        ("  - {id: a, agent: {role: builder, permissions: full, prompt: x}}\n", "exclusive /steps/0/agent/permissions"),
        ("  - {id: a, agent: {role: '${{ run.id }}', prompt: x}}\n", "expression /steps/0/agent/role"),
        ("  - {id: a, agent: {role: '${{ inputs.rol }}', prompt: x}}\n", "unknown_input /steps/0/agent/role"),
        ("  - {id: a, agent: {prompt: x}}\n", "missing_field /steps/0/agent/cli"),
        ("  - {id: a, agent: {role: '', prompt: x}}\n", "unknown_role /steps/0/agent/role"),
    ];
    for (step, expected) in cases {
        let told = told(&with(step));
        assert!(told.contains(&expected.to_owned()), "{step}: {told:?}");
    }
    let roles = with("  - {id: a, shell: x}\n")
        .replace("  builder: {cli: codex}", "  b c: {cli: gpt, prompt_file: p}\n  d: {model: m}\n  e: {cli: fake, max_turns: 0}");
    let told = told(&roles);
    assert_eq!(
        told,
        [
            "pattern /roles/b c",
            "unknown_value /roles/b c/cli",
            "unknown_field /roles/b c/prompt_file",
            "missing_field /roles/d/cli",
            "range /roles/e/max_turns"
        ]
    );
}
