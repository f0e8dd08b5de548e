//! Budgets: allowances never pass what is left, a warning comes once, and nothing begins when all is spent.

use hopyard_contract::event::EventType;
use hopyard_contract::message::{Allowance, BudgetScope, Outcome, SharedBudget};
use hopyard_contract::plan::Work;
use hopyard_contract::status::{FailureCode, PendingReason, RunStatus};
use hopyard_contract::usage::Usage;
use serde_json::{Value, json};

use super::world::*;
use crate::decide::{Input, Purse, Reply};

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
    assert_eq!(told(&world), Some(Allowance { microusd: 80, spent: false, shared: None }));
    world.renew(&held, money(95));
    assert_eq!(told(&world), Some(Allowance { microusd: 95, spent: true, shared: None }));
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

/// What is left of a budget that others spend of as well.
fn shared(left: u64, free: u64) -> Option<Purse> {
    Some(Purse { left, free, limit: 800, scope: BudgetScope::Workflow, until: at(86_400) })
}

#[test]
fn a_run_takes_no_more_of_a_shared_budget_than_is_free() {
    let mut world = World::of(json!([{"id": "a", "agent": {"cli": "fake", "prompt": "p"}}]));
    world.purse = shared(60, 40);
    let held = world.start("a");
    assert_eq!(held.grant.allowance, Some(Allowance { microusd: 40, spent: false, shared: None }));
    world.purse = shared(20, 0);
    world.renew(&held, cost(40));
    let Reply::Renewed(answer) = &world.reply else { panic!("{:?}", world.reply) };
    assert_eq!(answer.allowance, Some(Allowance { microusd: 40, spent: false, shared: None }), "others hold the rest");
    world.purse = shared(0, 0);
    world.renew(&held, cost(40));
    let Reply::Renewed(answer) = &world.reply else { panic!("{:?}", world.reply) };
    let spent = SharedBudget { scope: BudgetScope::Workflow, until: at(86_400) };
    assert_eq!(answer.allowance, Some(Allowance { microusd: 40, spent: true, shared: Some(spent) }));
}

#[test]
fn the_smaller_of_its_own_budget_and_a_shared_one_counts() {
    for (own, slice) in [(80, 10), (8000, 100)] {
        let mut world = world(own, &[agent("a")]);
        world.purse = shared(800, 800);
        assert_eq!(world.start("a").grant.allowance.map(|allowance| allowance.microusd), Some(slice), "an eighth of the smaller");
    }
}

#[test]
fn a_step_waits_for_the_next_day_when_nothing_is_left_and_others_do_not() {
    let mut world = World::of(json!([{"id": "a", "agent": {"cli": "fake", "prompt": "p"}}, {"id": "b"}]));
    world.purse = shared(0, 0);
    assert!(world.try_lease("a", "e1").is_none());
    assert_eq!((world.step("a").pending_reason, world.step("a").claimable_at), (Some(PendingReason::AwaitingBudget), Some(at(86_400))));
    world.complete("b");
    assert_eq!((world.status(), world.reason(), world.timer()), (RunStatus::Pending, Some(PendingReason::AwaitingBudget), Some(86_400)));
    world.purse = shared(800, 800);
    world.goto(86_400).tick().complete("a");
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn who_raises_a_shared_budget_need_not_wait_for_the_next_day() {
    let mut world = World::of(json!([{"id": "a", "agent": {"cli": "fake", "prompt": "p"}}]));
    world.purse = shared(0, 0);
    world.try_lease("a", "e1");
    world.purse = shared(800, 800);
    world.decide(&Input::Resume("ada".to_owned())).complete("a");
    assert_eq!(world.status(), RunStatus::Completed);
}
