//! Budgets: allowances never pass what is left, a warning comes once, and nothing begins when all is spent.

use hopyard_contract::event::EventType;
use hopyard_contract::message::{Allowance, Outcome};
use hopyard_contract::plan::Work;
use hopyard_contract::status::{FailureCode, RunStatus};
use hopyard_contract::usage::Usage;
use serde_json::{Value, json};

use super::world::*;
use crate::decide::Reply;

fn agent(id: &str) -> Value {
    json!({ "id": id, "agent": { "cli": "fake", "prompt": "x", "max_turns": "30" } })
}

fn world(limit: u64, steps: &[Value]) -> World {
    World::plan(json!({ "budget": { "cost_microusd": limit }, "steps": steps }))
}

fn money(microusd: u64) -> Usage {
    Usage { cost_microusd: Some(microusd), ..Usage::default() }
}

fn allowance(world: &World, step: &str) -> u64 {
    world.state.attempts.iter().find(|attempt| attempt.step.as_str() == step).and_then(|attempt| attempt.allowance_microusd).unwrap()
}

/// What the last renewal was told.
fn told(world: &World) -> Option<Allowance> {
    match &world.reply {
        Reply::Renewed(answer) => answer.allowance,
        other => panic!("{other:?}"),
    }
}

fn turns(held: &Held) -> &str {
    match &held.grant.work {
        Work::Agent(agent) => agent.max_turns.as_deref().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_allowed_and_not_spent_is_never_more_than_what_is_left() {
    let mut world = world(80, &[agent("a"), agent("b"), agent("c")]);
    let held = [world.start("a"), world.start("b"), world.start("c")];
    let mut spent = [0u64; 3];
    for round in 0..40 {
        let who = round % 3;
        spent[who] = (spent[who] + 7).min(allowance(&world, ["a", "b", "c"][who]));
        world.renew(&held[who], money(spent[who]));
        let open: u64 = ["a", "b", "c"].iter().zip(spent).map(|(step, spent)| allowance(&world, step) - spent).sum();
        let used: u64 = spent.iter().sum();
        assert!(used + open <= 80, "round {round}: {spent:?} spent, {open} open");
    }
    assert_eq!(spent.iter().sum::<u64>(), 80, "all of it can be spent");
    assert_eq!(told(&world).map(|allowed| allowed.spent), Some(true));
}

#[test]
fn what_was_spent_beyond_an_allowance_is_taken_from_what_is_left() {
    let mut world = world(80, &[agent("a"), agent("b")]);
    let held = world.start("a");
    world.renew(&held, money(75));
    assert_eq!(told(&world), Some(Allowance { microusd: 80, spent: false }));
    world.renew(&held, money(95));
    assert_eq!(told(&world), Some(Allowance { microusd: 95, spent: true }));
    assert!(world.try_lease("b", "e1").is_none(), "nothing is left for it");
    assert_eq!((world.step("b").failure_code, world.status()), (Some(FailureCode::BudgetExceeded), RunStatus::Running));
}

#[test]
fn most_of_the_budget_is_told_once() {
    let mut world = world(100, &[agent("a")]);
    let held = world.start("a");
    for spent in [10, 79, 80, 90, 100] {
        world.renew(&held, money(spent));
    }
    let told: Vec<_> = world.events.iter().filter(|event| event.kind == EventType::RunBudgetWarned).collect();
    assert_eq!((told.len(), &told[0].data["spent_microusd"]), (1, &json!(80)));
}

#[test]
fn an_agent_gets_no_more_turns_than_the_run_has_left() {
    let mut world = World::plan(json!({ "budget": { "turns": 20 }, "steps": [agent("a"), agent("b"), agent("c")] }));
    let first = world.start("a");
    assert_eq!(turns(&first), "20", "its own 30 are too many");
    let mut report = finished(&first, Outcome::Completed, world.now);
    report.usage = Usage { turns: 12, ..Usage::default() };
    world.report(report);
    let second = world.start("b");
    assert_eq!(turns(&second), "8");
    let mut report = finished(&second, Outcome::Completed, world.now);
    report.usage = Usage { turns: 8, ..Usage::default() };
    world.report(report);
    assert!(world.try_lease("c", "e1").is_none());
    assert_eq!((world.status(), world.step("c").failure_code), (RunStatus::Failed, Some(FailureCode::BudgetExceeded)));
}

#[test]
fn a_run_without_a_budget_has_no_allowance() {
    let mut world = World::of(json!([agent("a")]));
    let held = world.start("a");
    world.renew(&held, money(1_000_000));
    assert_eq!((told(&world), held.grant.allowance), (None, None));
}
