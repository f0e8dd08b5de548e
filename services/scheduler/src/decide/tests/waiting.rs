//! What runs wait for: other runs, a time, a slot; and when they want to be looked at.

use std::collections::HashMap;

use hopyard_contract::event::EventType;
use hopyard_contract::message::Outcome;
use hopyard_contract::status::{FailureCode, PendingReason, RunStatus};
use serde_json::{Value, json};

use super::world::*;
use crate::decide::{Effect, Input, Tick};

fn after(policy: &str, more: Value, parents: &[(u64, RunStatus)]) -> World {
    let ids: Vec<_> = parents.iter().map(|(n, _)| run_id(*n)).collect();
    let mut request = json!({"after": ids, "after_policy": policy});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let parents: HashMap<_, _> = parents.iter().map(|(n, status)| (run_id(*n), *status)).collect();
    World::born(json!({"steps": [{"id": "a"}, {"id": "b", "needs": ["a"]}]}), Submission { request, parents, ..Submission::default() })
}

#[test]
fn a_run_waits_for_all_runs_that_it_comes_after() {
    let mut world = after("skip", json!({}), &[(2, RunStatus::Running), (3, RunStatus::Pending), (4, RunStatus::Completed)]);
    assert_eq!(world.reason(), Some(PendingReason::AwaitingDependencies));
    assert_eq!(world.state.run.after_open, [run_id(2), run_id(3)]);
    assert!(world.try_lease("a", "e1").is_none());
    world.parent(run_id(2), RunStatus::Completed).parent(run_id(3), RunStatus::Running).tick();
    assert_eq!(world.state.run.after_open, [run_id(3)]);
    world.parent(run_id(3), RunStatus::Completed);
    assert_eq!((world.reason(), world.effects.first()), (Some(PendingReason::AwaitingExecutor), Some(&Effect::Ring(name("default")))));
    world.complete("a").complete("b");
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn by_default_a_run_after_one_that_did_not_complete_is_killed_and_says_why() {
    for end in [RunStatus::Failed, RunStatus::Killed] {
        let mut world = after("skip", json!({}), &[(2, RunStatus::Running), (3, RunStatus::Running)]);
        world.parent(run_id(2), end);
        assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Killed, None), "without waiting for the others");
        let data = &world.event(EventType::RunKilled).data;
        assert_eq!((data["kill_reason"].clone(), data["killed_by"].clone()), (json!("dependency_failed"), json!("hopyard")));
        assert_eq!(world.event(EventType::RunKillRequested).data["run_ids"], json!([run_id(2)]));
    }
}

#[test]
fn the_policy_fail_ends_it_failed() {
    let mut world = after("fail", json!({}), &[(2, RunStatus::Pending)]);
    world.parent(run_id(2), RunStatus::Killed);
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::DependencyFailed)));
    assert!(world.state.run.error.as_ref().unwrap().message.contains(&run_id(2).to_string()));
    assert_eq!(world.event(EventType::RunFailed).data["failure_code"], json!("dependency_failed"));
}

#[test]
fn the_policy_run_anyway_only_waits_for_the_end() {
    let mut world = after("run_anyway", json!({}), &[(2, RunStatus::Running)]);
    assert!(world.try_lease("a", "e1").is_none());
    world.parent(run_id(2), RunStatus::Failed).complete("a").complete("b");
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn policies_hold_for_runs_that_ended_before_the_submission() {
    let ends = [("skip", RunStatus::Killed), ("fail", RunStatus::Failed), ("run_anyway", RunStatus::Pending)];
    for (policy, end) in ends {
        assert_eq!(after(policy, json!({}), &[(2, RunStatus::Failed)]).status(), end, "{policy}");
    }
}

#[test]
fn a_run_does_not_start_before_its_time() {
    let request = json!({"start_at": at(60).to_rfc3339()});
    let mut world = World::born(json!({"steps": [{"id": "a"}]}), Submission { request, ..Submission::default() });
    assert_eq!((world.reason(), world.timer()), (Some(PendingReason::AwaitingSchedule), Some(60)));
    assert_eq!(world.effects, []);
    world.goto(59).tick();
    assert!(world.try_lease("a", "e1").is_none());
    assert_eq!(world.timer(), Some(60));
    world.goto(60);
    assert!(world.try_lease("a", "e1").is_none(), "a claim does not open the gate");
    assert_eq!(world.timer(), Some(60), "and does not make the run forget its start");
    world.tick().complete("a");
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn a_run_waits_for_its_time_and_for_other_runs() {
    let start = json!({"start_at": at(60).to_rfc3339()});
    let mut late = after("skip", start.clone(), &[(2, RunStatus::Running)]);
    late.goto(70).tick();
    assert_eq!((late.reason(), late.timer()), (Some(PendingReason::AwaitingDependencies), None), "the other run wakes it");
    late.parent(run_id(2), RunStatus::Completed);
    assert_eq!(late.reason(), Some(PendingReason::AwaitingExecutor));
    let mut early = after("skip", start, &[(2, RunStatus::Running)]);
    early.goto(10).parent(run_id(2), RunStatus::Completed);
    assert_eq!((early.reason(), early.timer()), (Some(PendingReason::AwaitingSchedule), Some(60)));
    early.goto(60).tick();
    assert_eq!(early.reason(), Some(PendingReason::AwaitingExecutor));
}

#[test]
fn slots_are_held_from_the_first_lease_to_the_end() {
    let plan = json!({
        "workspace": {"mode": "persistent"},
        "concurrency": {"key": "deploy-${{ inputs.to }}", "limit": 2},
        "steps": [{"id": "a"}, {"id": "b", "needs": ["a"]}],
    });
    let request = json!({"session": "s1", "inputs": {"to": "eu"}, "repo": {"url": "https://host/r"}});
    let mut world = World::born(plan, Submission { request, ..Submission::default() });
    let keys: Vec<_> = world.state.run.slots.iter().map(|s| (s.key.clone(), s.limit, s.held)).collect();
    assert_eq!(keys, [("default/key/deploy-eu".to_owned(), 2, false), ("default/session/s1/https://host/r".to_owned(), 1, false)]);
    let held = world.lease("a");
    assert!(world.state.run.slots.iter().all(|s| s.held));
    world.finish(&held, Outcome::HandedBack);
    assert!(world.state.run.slots.iter().all(|s| s.held), "a run between two attempts keeps them");
    world.complete("a").complete("b");
    assert!(world.state.run.slots.iter().all(|s| !s.held), "every one of them is given back");
    assert!(world.effects.contains(&Effect::SlotFreed));
}

#[test]
fn a_run_that_never_held_a_slot_frees_none() {
    let mut world = World::plan(json!({"concurrency": {"key": "k"}, "steps": [{"id": "a"}]}));
    world.kill();
    assert!(!world.effects.contains(&Effect::SlotFreed));
}

#[test]
fn the_timer_is_the_earliest_of_everything() {
    let steps = json!([
        {"id": "a"},
        {"id": "b", "retry": {"max_attempts": 2, "backoff": {"initial": "17s"}}},
        {"id": "c", "retry": {"max_attempts": 2, "backoff": {"initial": "3s"}}},
    ]);
    let mut world = World::plan(json!({"timeout": "30s", "steps": steps}));
    assert_eq!(world.timer(), None, "free steps are rung, not timed");
    let a = world.start("a");
    let (b, c) = (world.start("b"), world.start("c"));
    assert_eq!(world.timer(), Some(LEASE), "leases");
    world.goto(1).finish(&b, failed(FailureCode::ExitCode));
    assert_eq!(world.timer(), Some(18), "a backoff");
    world.goto(2).finish(&c, failed(FailureCode::ExitCode));
    assert_eq!(world.timer(), Some(5), "a nearer one");
    world.goto(5).tick();
    assert_eq!(world.timer(), Some(15), "a step that only one executor may claim is looked after");
    world.goto(14).renew(&a, cost(0));
    assert_eq!(world.timer(), Some(15), "and that look is not put off");
    let c = world.lease("c");
    assert_eq!(world.timer(), Some(18), "the first backoff again");
    world.goto(18).tick();
    let b = world.lease("b");
    assert_eq!(world.timer(), Some(30), "the run's time limit");
    for held in [&a, &b, &c] {
        world.finish(held, Outcome::Completed);
    }
    assert_eq!((world.status(), world.timer()), (RunStatus::Completed, None));
}

#[test]
fn a_look_that_brings_nothing_changes_nothing() {
    let mut world = World::of(json!([{"id": "a"}]));
    let before = world.state.clone();
    world.goto(5).tick().decide(&Input::Tick(Tick::default()));
    assert_eq!(world.state, before);
}
