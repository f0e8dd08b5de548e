//! Leases that run out, executors that vanish, attempts that are handed back.

use hopyard_contract::event::EventType;
use hopyard_contract::message::{LeaseState, Outcome, WorkspaceSaved};
use hopyard_contract::run::BlobRef;
use hopyard_contract::status::{AttemptStatus, FailureCode, PendingReason, RunStatus, StepStatus};
use hopyard_contract::usage::Usage;
use serde_json::json;

use super::world::*;
use crate::decide::{Effect, Input, LOST_LIMIT, Reply, Tick, UNSTARTED_LIMIT};

fn one() -> World {
    World::of(json!([{"id": "a"}]))
}

fn lease_state(world: &World) -> LeaseState {
    let Reply::Renewed(answer) = &world.reply else { panic!("{:?}", world.reply) };
    answer.state
}

#[test]
fn a_lease_that_ran_out_makes_its_attempt_lost_and_its_step_claimable() {
    let mut world = one();
    let held = world.start("a");
    assert_eq!(world.timer(), Some(LEASE));
    world.goto(LEASE - 1).tick();
    assert_eq!(world.status(), RunStatus::Running);
    world.goto(LEASE).tick();
    assert_eq!((world.status(), world.reason()), (RunStatus::Pending, Some(PendingReason::AwaitingExecutor)));
    let attempt = world.attempt(&held);
    assert_eq!((attempt.status, attempt.failure_code), (AttemptStatus::Lost, Some(FailureCode::LostExecutor)));
    assert!(attempt.error.as_ref().unwrap().contains("e1"));
    assert_eq!((world.step("a").lost, world.step("a").failures), (1, 0), "a loss does not count against retry");
    world.complete("a");
    assert_eq!((world.status(), world.step("a").attempt), (RunStatus::Completed, 2));
}

#[test]
fn a_step_that_was_lost_or_handed_back_keeps_its_place_and_a_retry_queues_anew() {
    let mut world = World::of(json!([{"id": "a", "retry": {"max_attempts": 2, "backoff": {"initial": "10s"}}}]));
    let place = |world: &World| (world.step("a").claimable_at, world.step("a").queued_at);
    assert_eq!(place(&world), (Some(at(0)), Some(at(0))));
    world.goto(5).start("a");
    assert_eq!(place(&world), (None, Some(at(0))));
    let lost = 5 + LEASE;
    world.goto(lost).tick();
    assert_eq!(place(&world), (Some(at(lost)), Some(at(0))), "claimable since now, before all that came later");
    world.goto(lost + 1).carry_out("a", Outcome::HandedBack);
    assert_eq!(place(&world), (Some(at(lost + 1)), Some(at(0))));
    world.goto(lost + 2).carry_out("a", failed(FailureCode::ExitCode));
    assert_eq!(place(&world), (Some(at(lost + 12)), None));
    world.goto(lost + 12).tick();
    assert_eq!(place(&world), (Some(at(lost + 12)), Some(at(lost + 12))));
    world.complete("a");
    assert_eq!(place(&world), (None, None));
}

#[test]
fn a_renewed_lease_goes_on() {
    let mut world = one();
    let held = world.start("a");
    for now in (10..200).step_by(10) {
        world.goto(now).renew(&held, cost(0));
        assert_eq!((lease_state(&world), world.timer()), (LeaseState::Ok, Some(now + LEASE)));
        world.tick();
    }
    assert_eq!((world.status(), world.count(EventType::AttemptLost)), (RunStatus::Running, 0));
}

#[test]
fn leases_expire_only_when_they_may_be_judged() {
    let mut world = one();
    let held = world.start("a");
    world.goto(500).decide(&Input::Tick(Tick::default()));
    assert_eq!(world.status(), RunStatus::Running);
    assert_eq!(world.timer(), Some(501), "it is looked at again soon, and not in a tight loop");
    world.renew(&held, cost(0));
    assert_eq!(lease_state(&world), LeaseState::Ok, "whoever speaks before it was judged keeps it");
}

#[test]
fn the_third_loss_fails_the_step_even_without_a_retry_policy() {
    let mut world = one();
    for n in 1..=LOST_LIMIT {
        assert_eq!(world.status(), RunStatus::Pending, "attempt {n}");
        world.start("a");
        world.goto(i64::from(n) * LEASE).tick();
    }
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::LostExecutor)));
    assert_eq!(world.count(EventType::AttemptLost), 3);
}

#[test]
fn grants_that_never_started_fail_the_step_only_the_tenth_time() {
    let mut world = one();
    for n in 1..=UNSTARTED_LIMIT {
        assert_eq!(world.status(), RunStatus::Pending, "attempt {n}");
        world.lease("a");
        world.goto(i64::from(n) * LEASE).tick();
    }
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::LostExecutor)));
    assert_eq!((world.step("a").unstarted, world.step("a").lost, world.count(EventType::RunRunning)), (10, 0, 0));
}

#[test]
fn an_executor_that_comes_back_reports_the_loss_itself() {
    let mut world = one();
    let held = world.start("a");
    let mut report = finished(&held, Outcome::Lost, at(3));
    (report.snapshot, report.usage) = (Some("snap".to_owned()), cost(4));
    world.goto(3).report(report);
    let attempt = world.attempt(&held);
    assert_eq!((attempt.status, attempt.snapshot.as_deref(), attempt.finished_at), (AttemptStatus::Lost, Some("snap"), Some(at(3))));
    assert_eq!((world.step("a").lost, world.state.run.usage), (1, cost(4)));
}

#[test]
fn an_attempt_handed_back_counts_against_nothing() {
    let mut world = World::of(json!([{"id": "a", "retry": {"max_attempts": 1}}]));
    for _ in 0..20 {
        let held = world.start("a");
        world.finish(&held, Outcome::HandedBack);
        assert_eq!((world.status(), world.reason()), (RunStatus::Pending, Some(PendingReason::AwaitingExecutor)));
        let held = world.lease("a");
        world.finish(&held, Outcome::HandedBack);
    }
    let step = world.step("a");
    assert_eq!((step.failures, step.lost, step.unstarted, step.attempt), (0, 0, 0, 40));
    world.complete("a");
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn one_lost_step_does_not_take_its_neighbours_along() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "b"}]));
    let (a, b) = (world.start("a"), world.start("b"));
    world.goto(15).renew(&b, cost(0)).goto(LEASE).tick();
    assert_eq!((world.attempt(&a).status, world.attempt(&b).status), (AttemptStatus::Lost, AttemptStatus::Running));
    assert_eq!((world.status(), world.step_status("a")), (RunStatus::Running, StepStatus::Pending));
}

#[test]
fn all_executors_gone_leaves_no_run_running() {
    let mut world = World::plan(json!({"workspace": {"mode": "none"}, "steps": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}));
    for (step, executor) in [("a", "e1"), ("b", "e2"), ("c", "e3")] {
        let held = world.try_lease(step, executor).unwrap();
        world.started(&held);
    }
    world.goto(LEASE).tick();
    assert_eq!((world.status(), world.count(EventType::AttemptLost)), (RunStatus::Pending, 3));
    assert_eq!(world.effects.iter().filter(|e| **e == Effect::Ring(name("default"))).count(), 3);
}

#[test]
fn what_the_janitor_kept_of_a_lost_attempt_is_recorded_once() {
    let mut world = one();
    let held = world.start("a");
    let blob = BlobRef { digest: "sha256:00".to_owned(), size: 3 };
    let saved = WorkspaceSaved {
        attempt: held.attempt.clone(),
        snapshot: Some("snap".to_owned()),
        bundle: None,
        log: Some(blob.clone()),
        log_bytes: 9,
        usage: cost(6),
    };
    world.decide(&Input::Saved(saved.clone()));
    assert_eq!(world.count(EventType::WorkspaceSaved), 0, "a live attempt speaks for itself");
    world.goto(LEASE).tick().decide(&Input::Saved(saved.clone()));
    let attempt = world.attempt(&held);
    assert_eq!((attempt.snapshot.as_deref(), attempt.log.as_ref(), attempt.log_bytes), (Some("snap"), Some(&blob), 9));
    assert_eq!(world.state.run.usage, cost(6), "its ledger outlives its executor");
    let only_work = WorkspaceSaved { log: None, ..saved.clone() };
    world.decide(&Input::Saved(saved)).decide(&Input::Saved(only_work));
    assert_eq!(world.count(EventType::WorkspaceSaved), 1);
    world.complete("a");
    assert_eq!(world.attempt(&held).snapshot.as_deref(), Some("snap"));
    assert_eq!(world.state.run.usage, cost(6), "and counts once");
}

#[test]
fn a_lost_attempt_without_a_log_is_saved_once_too() {
    let mut world = one();
    let held = world.start("a");
    world.goto(LEASE).tick();
    let saved = WorkspaceSaved {
        attempt: held.attempt,
        snapshot: Some("snap".to_owned()),
        bundle: None,
        log: None,
        log_bytes: 0,
        usage: Usage::default(),
    };
    world.decide(&Input::Saved(saved.clone())).decide(&Input::Saved(saved));
    assert_eq!(world.count(EventType::WorkspaceSaved), 1);
}
