//! Pauses: a step that a provider's limit stopped waits for its end, and goes on where it was.

use hopyard_contract::event::EventType;
use hopyard_contract::message::{Finished, Outcome};
use hopyard_contract::plan::Work;
use hopyard_contract::status::{FailureCode, PausedReason, PendingReason, RunStatus, StepStatus};
use serde_json::json;

use super::world::*;
use crate::decide::PAUSE_LIMIT;

fn agent() -> World {
    World::of(json!([{"id": "a", "agent": {"cli": "fake", "prompt": "p"}}]))
}

#[test]
fn a_limit_pauses_the_step_until_its_end_and_counts_as_no_failure() {
    let mut world = agent();
    world.carry_out("a", limited(at(3600)));
    assert_eq!((world.status(), world.step_status("a")), (RunStatus::Paused, StepStatus::Paused));
    assert_eq!(
        (world.state.run.paused_reason, world.step("a").paused_reason),
        (Some(PausedReason::UsageLimit), Some(PausedReason::UsageLimit))
    );
    assert_eq!((world.step("a").resume_at, world.timer(), world.step("a").failures), (Some(at(3600)), Some(3600), 0));
    assert!(world.goto(3599).tick().try_lease("a", "e1").is_none(), "not before its time");
    world.goto(3600).tick();
    assert_eq!((world.status(), world.reason()), (RunStatus::Pending, Some(PendingReason::AwaitingExecutor)));
    world.complete("a");
    assert_eq!((world.status(), world.step("a").attempt), (RunStatus::Completed, 2));
    let told = [EventType::StepPaused, EventType::RunPaused, EventType::RunResumed, EventType::StepRetrying].map(|kind| world.count(kind));
    assert_eq!(told, [1, 1, 1, 0]);
}

#[test]
fn after_a_pause_the_agent_goes_on_with_its_conversation_and_its_files() {
    let mut world = agent();
    let first = world.start("a");
    let resumes = |work: &Work| matches!(work, Work::Agent(agent) if agent.resume);
    assert!(!resumes(&first.grant.work));
    world.finish(&first, limited(at(10)));
    let second = world.goto(10).tick().start("a");
    assert!(resumes(&second.grant.work));
    assert_eq!(second.grant.workspace.reset_to, None);
}

#[test]
fn what_was_done_before_a_pause_outlives_the_loss_of_what_follows() {
    let mut world = agent();
    let first = world.start("a");
    let mut report = finished(&first, limited(at(10)), world.now);
    report.snapshot = Some("kept".to_owned());
    world.report(report);
    let resumes = |work: &Work| matches!(work, Work::Agent(agent) if agent.resume);
    let handed_back = world.goto(10).tick().lease("a");
    let unstarted = Finished { pid: None, started_at: None, ..finished(&handed_back, Outcome::HandedBack, world.now) };
    world.report(unstarted);
    let third = world.lease("a");
    assert!(resumes(&third.grant.work), "nothing of it had begun in between");
    assert_eq!(third.grant.workspace.reset_to, None);
    world.started(&third).finish(&third, Outcome::HandedBack);
    let fourth = world.lease("a");
    assert_eq!(
        (resumes(&fourth.grant.work), fourth.grant.workspace.reset_to.as_deref()),
        (false, Some("kept")),
        "and not to the beginning"
    );
}

#[test]
fn a_pause_for_a_budget_is_told_as_one() {
    let mut world = agent();
    let spent = Outcome::Limited { reason: PausedReason::Budget, until: at(60), message: "spent".to_owned() };
    let held = world.start("a");
    world.finish(&held, spent);
    assert_eq!(
        (world.state.run.paused_reason, world.attempt(&held).failure_code),
        (Some(PausedReason::Budget), Some(FailureCode::BudgetExceeded))
    );
}

#[test]
fn a_step_that_never_gets_a_turn_is_not_paused_for_ever() {
    let mut world = agent();
    for pause in 0..i64::from(PAUSE_LIMIT) {
        world.goto(pause * 100).tick().carry_out("a", limited(at(pause * 100 + 50)));
        assert_eq!(world.status(), RunStatus::Paused, "pause {pause}");
    }
    world.goto(1000).tick().carry_out("a", limited(at(2000)));
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::UsageLimitExhausted)));
}

#[test]
fn a_turn_between_two_pauses_starts_their_count_anew() {
    let mut world = agent();
    for pause in 0..20 {
        let held = world.goto(pause * 100).tick().start("a");
        let mut report = finished(&held, limited(at(pause * 100 + 50)), world.now);
        report.usage.turns = 1;
        world.report(report);
        assert_eq!((world.status(), world.step("a").pauses), (RunStatus::Paused, 1), "pause {pause}");
    }
}

#[test]
fn a_limit_of_a_month_is_not_waited_for() {
    let mut world = agent();
    world.carry_out("a", limited(at(30 * 24 * 3600)));
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::UsageLimitExhausted)));
}

#[test]
fn a_limit_is_as_long_as_the_executor_says_whatever_its_clock_does() {
    let mut world = agent();
    let held = world.start("a");
    let mut report = finished(&held, limited(at(7_000_060)), world.now);
    report.finished_at = at(7_000_000);
    world.report(report);
    assert_eq!(world.step("a").resume_at, Some(at(60)));
}

#[test]
fn a_limit_that_is_over_already_lets_the_step_go_on_at_the_next_look() {
    let mut world = agent();
    world.goto(100).carry_out("a", limited(at(50)));
    assert_eq!((world.status(), world.timer()), (RunStatus::Paused, Some(100)));
    world.tick().complete("a");
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn a_paused_run_is_killed_at_once() {
    let mut world = agent();
    world.carry_out("a", limited(at(3600))).kill();
    assert_eq!((world.status(), world.step_status("a"), world.timer()), (RunStatus::Killed, StepStatus::Killed, None));
}

#[test]
fn a_run_is_not_paused_while_another_step_of_it_is_at_work() {
    let mut world = World::of(json!([{"id": "a", "agent": {"cli": "fake", "prompt": "p"}}, {"id": "b"}]));
    let b = world.start("b");
    world.carry_out("a", limited(at(100)));
    assert_eq!((world.status(), world.step_status("a")), (RunStatus::Running, StepStatus::Paused));
    world.finish(&b, Outcome::Completed);
    assert_eq!((world.status(), world.count(EventType::RunPaused)), (RunStatus::Paused, 1));
    world.goto(100).tick().complete("a");
    assert_eq!((world.status(), world.count(EventType::RunResumed)), (RunStatus::Completed, 1));
}
