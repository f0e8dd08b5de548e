//! Usage: one ledger from the attempt to the run, and what comes too late.

use hopyard_contract::message::Outcome;
use hopyard_contract::status::{FailureCode, RunStatus};
use hopyard_contract::usage::Usage;
use serde_json::json;

use super::world::*;

fn unknown(tokens: u64) -> Usage {
    Usage { cost_microusd: None, ..cost(tokens) }
}

fn finish_with(world: &mut World, held: &Held, outcome: Outcome, usage: Usage) {
    let mut report = finished(held, outcome, world.now);
    report.usage = usage;
    world.report(report);
}

#[test]
fn usage_grows_while_the_attempt_runs_and_never_shrinks() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.start("a");
    for (said, total) in [(5, 5), (9, 9), (7, 9)] {
        world.renew(&held, cost(said));
        assert_eq!(world.state.run.usage, cost(total));
    }
    finish_with(&mut world, &held, Outcome::Completed, cost(8));
    assert_eq!((world.status(), world.state.run.usage), (RunStatus::Completed, cost(9)));
}

#[test]
fn retries_and_steps_add_up() {
    let mut world = World::of(json!([{"id": "a", "retry": {"max_attempts": 2}}, {"id": "b"}]));
    let first = world.start("a");
    finish_with(&mut world, &first, failed(FailureCode::ExitCode), cost(10));
    let second = world.goto(1).tick().start("a");
    finish_with(&mut world, &second, Outcome::Completed, cost(20));
    assert_eq!((world.step("a").usage, world.state.run.usage), (cost(30), cost(30)));
    let b = world.start("b");
    finish_with(&mut world, &b, Outcome::Completed, cost(3));
    assert_eq!((world.step("b").usage, world.state.run.usage), (cost(3), cost(33)));
}

#[test]
fn an_unknown_price_makes_the_cost_unknown_and_not_0() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "b"}]));
    let (a, b) = (world.start("a"), world.start("b"));
    finish_with(&mut world, &a, Outcome::Completed, cost(10));
    world.renew(&b, unknown(4));
    assert_eq!((world.state.run.usage, world.step("a").usage), (unknown(14), cost(10)));
    finish_with(&mut world, &b, Outcome::Completed, unknown(6));
    assert_eq!(world.state.run.usage, unknown(16));
}

#[test]
fn a_lost_attempts_money_counts_while_the_run_is_open() {
    let mut world = World::of(json!([{"id": "a"}]));
    let lost = world.start("a");
    world.renew(&lost, cost(5)).goto(LEASE).tick().renew(&lost, cost(8));
    assert_eq!(world.state.run.usage, cost(8));
    let held = world.start("a");
    finish_with(&mut world, &lost, Outcome::Completed, cost(11));
    assert_eq!((world.status(), world.state.run.usage), (RunStatus::Running, cost(11)));
    finish_with(&mut world, &held, Outcome::Completed, cost(1));
    assert_eq!((world.status(), world.state.run.usage, world.state.run.late_usage), (RunStatus::Completed, cost(12), None));
}

#[test]
fn money_that_comes_after_the_end_goes_to_late_usage() {
    let mut world = World::of(json!([{"id": "a"}]));
    let lost = world.start("a");
    world.renew(&lost, cost(5)).kill().goto(LEASE).tick();
    assert_eq!((world.status(), world.state.run.usage), (RunStatus::Killed, cost(5)));
    world.renew(&lost, cost(5));
    assert_eq!(world.state.run.late_usage, None, "nothing new");
    for said in [7, 9, 9] {
        finish_with(&mut world, &lost, Outcome::Killed, cost(said));
    }
    assert_eq!(
        (world.state.run.usage, world.state.run.late_usage),
        (cost(5), Some(cost(4))),
        "what is beyond the part that was counted, once"
    );
}

#[test]
fn late_money_of_an_unknown_price_is_unknown() {
    let mut world = World::of(json!([{"id": "a"}]));
    let lost = world.start("a");
    world.kill().goto(LEASE).tick().renew(&lost, unknown(3));
    assert_eq!((world.state.run.usage, world.state.run.late_usage), (cost(0), Some(unknown(3))));
}
