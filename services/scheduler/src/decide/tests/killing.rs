//! Cancels, the run's time limit and tombstones.

use chrono::TimeDelta;
use hopyard_contract::event::EventType;
use hopyard_contract::message::{KillOrder, KillReply, LeaseState, Outcome};
use hopyard_contract::run::Kill;
use hopyard_contract::status::{AttemptStatus, FailureCode, RunStatus, StepStatus};
use serde_json::json;

use super::world::*;
use crate::decide::{Effect, Input, KillAsk, Reply};

fn replied(world: &World) -> KillReply {
    let Reply::Killed(reply) = &world.reply else { panic!("a kill was answered with {:?}", world.reply) };
    *reply
}

#[test]
fn a_killed_pending_run_never_starts() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "b", "needs": ["a"]}]));
    world.kill();
    assert_eq!((replied(&world), world.status()), (KillReply::Requested, RunStatus::Killed));
    assert!(world.try_lease("a", "e1").is_none(), "a claim that was under way finds nothing");
    world.goto(100).tick();
    assert!(world.try_lease("a", "e2").is_none());
    assert_eq!((world.count(EventType::AttemptLeased), world.count(EventType::StepKilled)), (0, 2));
    let data = &world.event(EventType::RunKilled).data;
    assert_eq!((data["killed_by"].clone(), data["kill_reason"].clone()), (json!("ada"), json!("wrong branch")));
}

#[test]
fn a_kill_tells_every_executor_at_work_and_waits_for_them() {
    let mut world =
        World::plan(json!({"workspace": {"mode": "none"}, "steps": [{"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "d", "needs": ["a"]}]}));
    let a = world.start("a");
    let b = world.try_lease("b", "e2").unwrap();
    world.kill();
    let order = KillOrder { reason: Some("wrong branch".to_owned()), force: false };
    assert_eq!(world.effects, [Effect::Kill(name("e1"), order.clone()), Effect::Kill(name("e2"), order.clone())]);
    assert_eq!((world.step_status("c"), world.step_status("d")), (StepStatus::Killed, StepStatus::Killed), "what waits ends at once");
    assert_eq!(world.status(), RunStatus::Running);
    world.renew(&b, cost(0));
    let Reply::Renewed(answer) = &world.reply else { panic!("{:?}", world.reply) };
    assert_eq!((answer.state, answer.kill.clone()), (LeaseState::Ok, Some(order)));
    let mut never = finished(&b, Outcome::Killed, at(1));
    (never.pid, never.started_at) = (None, None);
    world.report(never).finish(&a, Outcome::Killed);
    assert_eq!(world.status(), RunStatus::Killed);
    assert_eq!(world.attempt(&a).error.as_deref(), Some("killed by ada: wrong branch"));
}

#[test]
fn kill_wins_over_completed_and_keeps_the_result() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.start("a");
    world.kill();
    let mut report = finished(&held, Outcome::Completed, at(0));
    (report.result, report.usage) = (Some(work("head")), cost(5));
    world.report(report);
    let run = &world.state.run;
    assert_eq!((run.status, run.failure_code, run.error.clone()), (RunStatus::Killed, None, None));
    assert_eq!((run.result.as_ref().unwrap().head.as_str(), run.usage), ("head", cost(5)));
    assert_eq!(world.step_status("a"), StepStatus::Completed);
}

#[test]
fn kill_wins_over_failed_and_nothing_is_tried_again() {
    let mut world = World::of(json!([{"id": "a", "retry": {"max_attempts": 5}}]));
    let held = world.start("a");
    world.kill().finish(&held, failed(FailureCode::ExitCode));
    assert_eq!((world.status(), world.step_status("a")), (RunStatus::Killed, StepStatus::Killed));
    assert_eq!((world.attempt(&held).status, world.count(EventType::StepRetrying)), (AttemptStatus::Failed, 0));
}

#[test]
fn a_killed_run_whose_executor_vanished_ends_with_the_lease() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.start("a");
    world.kill().goto(LEASE - 1).tick();
    assert_eq!(world.status(), RunStatus::Running);
    world.goto(LEASE).tick();
    assert_eq!((world.status(), world.attempt(&held).status), (RunStatus::Killed, AttemptStatus::Lost));
}

#[test]
fn an_attempt_handed_back_under_a_kill_is_not_offered_again() {
    let mut world = World::of(json!([{"id": "a"}]));
    let (held, before) = (world.lease("a"), world.count(EventType::StepClaimable));
    world.kill().finish(&held, Outcome::HandedBack);
    assert_eq!((world.status(), world.count(EventType::StepClaimable)), (RunStatus::Killed, before));
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Ring(_) | Effect::RingExecutor(_))));
}

#[test]
fn a_kill_during_a_backoff_ends_the_run_at_once() {
    let mut world = World::of(json!([{"id": "a", "retry": {"max_attempts": 2}}]));
    world.carry_out("a", failed(FailureCode::ExitCode)).kill();
    assert_eq!(world.status(), RunStatus::Killed);
    world.goto(3600).tick();
    assert!(world.try_lease("a", "e1").is_none());
}

#[test]
fn a_repeated_kill_says_so_and_force_is_passed_on() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.start("a");
    world.kill().kill();
    assert_eq!(replied(&world), KillReply::Repeated);
    world.decide(&Input::Kill(KillAsk { by: "bob".to_owned(), reason: None, force: true }));
    assert_eq!(world.effects, [Effect::Kill(name("e1"), KillOrder { reason: Some("wrong branch".to_owned()), force: true })]);
    assert_eq!((world.count(EventType::RunKillRequested), world.state.run.kill.as_ref().unwrap().by.as_str()), (1, "ada"));
    world.finish(&held, Outcome::Killed).kill();
    assert_eq!(replied(&world), KillReply::AlreadyFinal);
}

#[test]
fn an_end_by_kill_that_nobody_asked_for_counts_against_nothing() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.start("a");
    world.finish(&held, Outcome::Killed);
    assert_eq!((world.status(), world.attempt(&held).status), (RunStatus::Pending, AttemptStatus::Lost));
    world.complete("a");
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn a_run_over_its_time_limit_ends_failed_with_timeout() {
    let mut world = World::plan(json!({"timeout": "60s", "steps": [{"id": "a"}, {"id": "b", "needs": ["a"]}]}));
    world.goto(100);
    let held = world.start("a");
    assert_eq!(world.state.run.deadline, Some(at(160)), "counted from the first start");
    world.goto(155).renew(&held, cost(1));
    assert_eq!(world.timer(), Some(160));
    world.goto(160).tick();
    assert_eq!(world.step_status("b"), StepStatus::Killed);
    assert!(matches!(world.effects.first(), Some(Effect::Kill(..))));
    world.goto(165).finish(&held, Outcome::Killed);
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::Timeout)));
    assert_eq!(world.event(EventType::RunFailed).data.get("killed_by"), None);
}

#[test]
fn a_step_that_failed_before_the_time_limit_gives_the_code() {
    let mut world = World::plan(json!({"timeout": "60s", "steps": [{"id": "a"}, {"id": "b", "needs": ["a"], "if": "always()"}]}));
    world.carry_out("a", failed(FailureCode::OutOfMemory));
    let held = world.start("b");
    world.goto(15).renew(&held, cost(0)).goto(60).tick().finish(&held, Outcome::Killed);
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::OutOfMemory)));
}

#[test]
fn the_smallest_time_limit_counts() {
    let plan = json!({"timeout": "1h", "budget": {"time": "30m", "turns": 4}, "steps": [{"id": "a"}]});
    let request = json!({"budget": {"time": "45m", "turns": 9, "cost_microusd": 7}});
    let mut world = World::born(plan, Submission { request, ..Submission::default() });
    world.start("a");
    assert_eq!(world.state.run.deadline, Some(at(0) + TimeDelta::minutes(30)));
    let budget = world.state.run.budget.clone().unwrap();
    assert_eq!((budget.turns, budget.cost_microusd), (Some(4), Some(7)));
}

#[test]
fn a_run_killed_before_it_came_is_born_killed() {
    let tombstone = Kill { at: at(-1), by: "ada".to_owned(), reason: None, force: false, failure: None };
    let mut world = World::born(json!({"steps": [{"id": "a"}]}), Submission { tombstone: Some(tombstone), ..Submission::default() });
    assert_eq!(world.kinds(0), ["run.accepted", "run.kill_requested", "step.killed", "run.killed"]);
    assert_eq!((world.status(), world.effects.len(), world.timer()), (RunStatus::Killed, 0, None));
    assert!(world.try_lease("a", "e1").is_none());
}

#[test]
fn a_time_limit_that_passes_during_a_backoff_offers_nothing_any_more() {
    let retry = json!({"max_attempts": 3, "backoff": {"initial": "5s"}});
    let mut world = World::plan(json!({"timeout": "5s", "steps": [{"id": "a", "retry": retry}]}));
    world.carry_out("a", failed(FailureCode::ExitCode));
    // Nobody has looked in time: backoff and limit have passed at the same look.
    let before = world.events.len();
    world.goto(30).tick();
    assert_eq!(world.kinds(before), ["run.kill_requested", "step.killed", "run.failed"]);
    assert_eq!(world.state.run.failure_code, Some(FailureCode::Timeout));
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Ring(_) | Effect::RingExecutor(_))), "{:?}", world.effects);
}
