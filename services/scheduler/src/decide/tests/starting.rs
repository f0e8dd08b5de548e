//! How runs come to be running, and what makes them so.

use hopyard_contract::event::EventType;
use hopyard_contract::message::Outcome;
use hopyard_contract::plan::{Permissions, Work};
use hopyard_contract::status::{AttemptStatus, FailureCode, PendingReason, RunStatus, StepStatus};
use serde_json::json;

use super::world::*;
use crate::decide::{Effect, Input, Reply};

#[test]
fn submitting_never_writes_running() {
    let world = World::of(json!([{"id": "a"}, {"id": "b", "needs": ["a"]}]));
    assert_eq!((world.status(), world.reason()), (RunStatus::Pending, Some(PendingReason::AwaitingExecutor)));
    assert_eq!(world.kinds(0), ["run.accepted", "step.claimable"]);
    assert_eq!(world.effects, [Effect::Ring(name("default"))]);
    assert_eq!(world.state.run.started_at, None);
    assert_eq!(world.state.run.created_at, at(0));
    assert_eq!(world.step("b").pending_reason, Some(PendingReason::AwaitingDependencies));
}

#[test]
fn running_is_written_only_on_started() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.lease("a");
    assert_eq!((world.status(), world.reason()), (RunStatus::Pending, Some(PendingReason::Starting)));
    world.renew(&held, cost(0)).pin(&held, "c0ffee").tick();
    assert_eq!(world.status(), RunStatus::Pending, "neither a lease nor its renewal is a process");
    world.goto(2).started(&held);
    assert_eq!((world.status(), world.step_status("a")), (RunStatus::Running, StepStatus::Running));
    assert_eq!(world.state.run.started_at, Some(at(2)));
    let attempt = world.attempt(&held);
    assert_eq!((attempt.status, attempt.pid, attempt.workspace.as_deref()), (AttemptStatus::Running, Some(7), Some("/ws/1")));
}

#[test]
fn attempt_leased_travels_with_the_next_page() {
    let mut world = World::of(json!([{"id": "a"}]));
    let (born, held) = (world.events.len(), world.lease("a"));
    assert_eq!(world.events.len(), born, "leasing alone writes no event");
    world.started(&held);
    assert_eq!(world.kinds(born), ["attempt.leased", "workspace.created", "attempt.running", "run.running"]);
}

#[test]
fn finished_without_started_implies_it() {
    let mut world = World::of(json!([{"id": "a"}]));
    let (born, held) = (world.events.len(), world.lease("a"));
    world.goto(3).finish(&held, Outcome::Completed);
    let expected =
        ["attempt.leased", "workspace.created", "attempt.running", "run.running", "attempt.completed", "step.completed", "run.completed"];
    assert_eq!(world.kinds(born), expected);
    assert_eq!(world.state.run.started_at, Some(at(3)));
    assert_eq!(world.attempt(&held).pid, Some(7));
}

#[test]
fn an_attempt_that_never_had_a_process_never_ran() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.lease("a");
    let mut report = finished(&held, failed(FailureCode::WorkspaceError), at(1));
    (report.pid, report.started_at) = (None, None);
    world.goto(1).report(report);
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::WorkspaceError)));
    assert_eq!((world.count(EventType::RunRunning), world.count(EventType::AttemptRunning)), (0, 0));
    assert_eq!(world.state.run.started_at, None);
}

#[test]
fn a_step_starts_when_the_last_of_its_needs_completes() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "b"}, {"id": "c", "needs": ["a", "b"]}]));
    world.complete("a");
    assert!(world.try_lease("c", "e1").is_none());
    world.complete("b");
    assert_eq!(world.effects.iter().filter(|e| matches!(e, Effect::RingExecutor(_))).count(), 1);
    world.complete("c");
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn a_leased_step_is_claimed_only_once() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.lease("a");
    for executor in ["e1", "e2"] {
        assert!(world.try_lease("a", executor).is_none());
    }
    world.started(&held);
    assert!(world.try_lease("a", "e2").is_none());
    world.finish(&held, Outcome::Completed);
    assert!(world.try_lease("a", "e2").is_none());
    assert!(world.try_lease("nowhere", "e2").is_none());
    assert_eq!(world.state.attempts.len(), 1);
}

#[test]
fn a_run_between_two_steps_is_pending_without_an_event() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "b", "needs": ["a"]}]));
    world.complete("a");
    assert_eq!((world.status(), world.reason()), (RunStatus::Pending, Some(PendingReason::AwaitingExecutor)));
    world.goto(9).complete("b");
    assert_eq!(world.count(EventType::RunRunning), 1);
    assert_eq!(world.state.run.started_at, Some(at(0)));
    assert_eq!(world.event(EventType::RunCompleted).data["duration_ms"], json!(9000));
}

#[test]
fn the_environment_of_a_grant_is_rendered() {
    let plan = json!({"env": {"CI": "1"}, "steps": [
        {"id": "a"},
        {"id": "b", "needs": ["a"], "env": {"SEEN": "${{ steps.a.outputs.k }}", "MSG": "${{ inputs.m }}"}},
    ]});
    let mut world = World::born(plan, Submission { request: json!({"inputs": {"m": "hi"}}), ..Submission::default() });
    let held = world.start("a");
    let mut report = finished(&held, Outcome::Completed, at(0));
    report.outputs.insert("k".to_owned(), "v".to_owned());
    world.report(report);
    let env = world.lease("b").grant.env;
    assert_eq!(env.into_iter().collect::<Vec<_>>(), [("CI", "1"), ("MSG", "hi"), ("SEEN", "v")].map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[test]
fn the_executors_clock_never_leaves_the_time_of_the_lease() {
    let mut world = World::of(json!([{"id": "a"}]));
    world.goto(10);
    let held = world.lease("a");
    let (mut start, mut end) = (started(&held, at(-500)), finished(&held, Outcome::Completed, at(9000)));
    world.goto(12).decide(&Input::Started(start.clone()));
    assert_eq!(world.attempt(&held).started_at, Some(at(10)));
    (start.at, end.started_at) = (at(99), Some(at(99)));
    world.goto(15).decide(&Input::Started(start)).report(end);
    assert_eq!(world.attempt(&held).finished_at, Some(at(15)));
}

#[test]
fn a_clock_that_steps_back_breaks_nothing() {
    let mut world = World::of(json!([{"id": "a"}]));
    world.goto(10);
    let held = world.lease("a");
    world.goto(5).started(&held).goto(3).finish(&held, Outcome::Completed);
    assert_eq!((world.attempt(&held).started_at, world.attempt(&held).finished_at), (Some(at(10)), Some(at(10))));
    assert_eq!(world.status(), RunStatus::Completed);
    assert!(matches!(world.reply, Reply::None));
}

#[test]
fn an_agent_is_granted_in_the_role_that_an_input_names() {
    let mut world = World::plan(json!({
        "inputs": { "who": { "default": "cook" } },
        "roles": { "cook": { "cli": "claude", "prompt": "You cook.", "max_turns": "9", "permissions": "read" } },
        "steps": [{ "id": "a", "agent": { "role": "${{ inputs.who }}", "prompt": "Soup.", "model": "m" } }],
    }));
    world.state.run.inputs.insert("who".to_owned(), json!("cook"));
    let Work::Agent(agent) = world.lease("a").grant.work else { panic!("an agent") };
    assert_eq!((agent.role.as_deref(), agent.cli.as_str(), agent.prompt.as_str()), (Some("cook"), "claude", "You cook.\n\nSoup."));
    assert_eq!((agent.permissions, agent.max_turns.as_deref(), agent.model.as_deref()), (Permissions::Read, Some("9"), Some("m")));
}
