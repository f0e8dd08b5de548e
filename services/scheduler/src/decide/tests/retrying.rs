//! Retries: how often, after how long, after which codes.

use hopyard_contract::event::EventType;
use hopyard_contract::status::{FailureCode, PendingReason, RunStatus, StepStatus};
use serde_json::json;

use super::world::*;

fn retried(retry: serde_json::Value) -> World {
    World::of(json!([{"id": "a", "retry": retry}]))
}

#[test]
fn a_failure_is_tried_again_after_a_doubling_backoff() {
    let mut world = retried(json!({"max_attempts": 4, "backoff": {"initial": "10s", "max": "15s"}}));
    for (now, until) in [(0, 10), (10, 25), (25, 40)] {
        world.goto(now).tick().carry_out("a", failed(FailureCode::ExitCode));
        assert_eq!((world.status(), world.reason()), (RunStatus::Pending, Some(PendingReason::RetryBackoff)));
        assert_eq!((world.step("a").claimable_at, world.timer()), (Some(at(until)), Some(until)));
        assert!(world.goto(until - 1).try_lease("a", "e1").is_none(), "not before its time");
    }
    world.goto(40).tick();
    assert_eq!(world.reason(), Some(PendingReason::AwaitingExecutor));
    world.complete("a");
    assert_eq!((world.status(), world.step("a").attempt, world.step("a").failures), (RunStatus::Completed, 4, 3));
    assert_eq!(world.state.run.error, None);
    assert_eq!((world.count(EventType::StepRetrying), world.count(EventType::StepClaimable)), (3, 4));
}

#[test]
fn the_last_allowed_failure_is_final() {
    let mut world = retried(json!({"max_attempts": 2}));
    world.carry_out("a", failed(FailureCode::ExitCode)).goto(1).tick().carry_out("a", failed(FailureCode::IdleTimeout));
    assert_eq!((world.status(), world.step_status("a")), (RunStatus::Failed, StepStatus::Failed));
    assert_eq!((world.state.run.failure_code, world.step("a").failures), (Some(FailureCode::IdleTimeout), 2));
    let codes: Vec<_> = world.state.attempts.iter().map(|a| a.failure_code).collect();
    assert_eq!(codes, [Some(FailureCode::ExitCode), Some(FailureCode::IdleTimeout)], "every attempt keeps its own reason");
}

#[test]
fn only_the_named_codes_are_tried_again() {
    let mut world = retried(json!({"max_attempts": 3, "on": ["exit_code"]}));
    world.carry_out("a", failed(FailureCode::ExitCode));
    assert_eq!(world.status(), RunStatus::Pending);
    world.goto(1).tick().carry_out("a", failed(FailureCode::Timeout));
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::Timeout)));
}

#[test]
fn what_was_forbidden_is_never_tried_again() {
    for code in [FailureCode::PolicyDenied, FailureCode::PlanError, FailureCode::BudgetExceeded] {
        let mut world = retried(json!({"max_attempts": 3}));
        world.carry_out("a", failed(code));
        assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(code)));
    }
}

#[test]
fn an_absent_repository_is_tried_again_only_by_name() {
    let mut world = retried(json!({"max_attempts": 3}));
    world.carry_out("a", failed(FailureCode::WorkspaceError));
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::WorkspaceError)));
    let mut named = retried(json!({"max_attempts": 3, "on": ["workspace_error"]}));
    named.carry_out("a", failed(FailureCode::WorkspaceError));
    assert_eq!((named.status(), named.reason()), (RunStatus::Pending, Some(PendingReason::RetryBackoff)));
}

#[test]
fn without_a_policy_the_first_failure_is_final() {
    let mut world = World::of(json!([{"id": "a"}]));
    world.carry_out("a", failed(FailureCode::ExitCode));
    assert_eq!((world.status(), world.count(EventType::StepRetrying)), (RunStatus::Failed, 0));
}

#[test]
fn a_backoff_that_passed_unseen_still_gets_its_look() {
    let mut world = World::of(json!([{"id": "a", "retry": {"max_attempts": 2, "backoff": {"initial": "5s"}}}, {"id": "b"}]));
    let b = world.start("b");
    world.carry_out("a", failed(FailureCode::ExitCode));
    world.goto(6).renew(&b, cost(0));
    assert_eq!(world.timer(), Some(5), "the renewal came before the look at the clock and must not put it off");
    world.tick();
    assert_eq!(world.step("a").pending_reason, Some(PendingReason::AwaitingExecutor));
}

#[test]
fn a_retry_starts_from_what_was_there_before_its_step() {
    let plan = json!({"steps": [{"id": "a"}, {"id": "b", "needs": ["a"], "retry": {"max_attempts": 3}}]});
    let mut world = World::born(plan, Submission { request: json!({"repo": {"url": "https://host/r"}}), ..Submission::default() });
    let a = world.lease("a");
    assert_eq!(a.grant.workspace.reset_to, None);
    let mut done = finished(&a, hopyard_contract::message::Outcome::Completed, at(0));
    done.result = Some(work("after-a"));
    world.report(done);
    let b = world.lease("b");
    assert_eq!(b.grant.workspace.reset_to, None, "a first attempt works on what is there");
    let mut never = finished(&b, failed(FailureCode::SetupError), at(0));
    (never.pid, never.before, never.started_at) = (None, None, None);
    world.report(never).goto(1).tick();
    let b = world.lease("b");
    assert_eq!(b.grant.workspace.reset_to.as_deref(), Some("after-a"), "nothing is known of before, so the last kept work counts");
    world.started(&b).finish(&b, failed(FailureCode::ExitCode)).goto(10).tick();
    assert_eq!(world.lease("b").grant.workspace.reset_to.as_deref(), Some("before"));
}
