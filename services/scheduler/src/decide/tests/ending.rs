//! How runs end: conditions, skipped steps, the code of the first failure, results.

use hopyard_contract::event::EventType;
use hopyard_contract::message::Outcome;
use hopyard_contract::status::{FailureCode, RunStatus, StepStatus};
use serde_json::json;

use super::world::*;

#[test]
fn a_run_whose_steps_completed_is_completed_in_one_decision() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.start("a");
    let mut report = finished(&held, Outcome::Completed, at(4));
    (report.usage, report.result) = (cost(12), Some(work("head")));
    report.outputs.insert("k".to_owned(), "v".to_owned());
    world.goto(4).report(report);
    let run = &world.state.run;
    assert_eq!((run.status, run.finished_at, run.usage), (RunStatus::Completed, Some(at(4)), cost(12)));
    assert_eq!(run.result, Some(work("head")));
    assert_eq!(world.step("a").outputs["k"], "v");
    let data = &world.event(EventType::RunCompleted).data;
    assert_eq!((data["status"].clone(), data["usage"]["cost_microusd"].clone()), (json!("completed"), json!(12)));
}

#[test]
fn a_step_whose_needs_failed_is_skipped_and_so_is_what_needs_it() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "b", "needs": ["a"]}, {"id": "c", "needs": ["b"]}, {"id": "d"}]));
    world.carry_out("a", failed(FailureCode::ExitCode));
    assert_eq!((world.step_status("b"), world.step_status("c")), (StepStatus::Skipped, StepStatus::Skipped));
    assert_eq!(world.status(), RunStatus::Pending, "a step without that need still runs");
    world.complete("d");
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::ExitCode)));
    assert_eq!(world.count(EventType::StepSkipped), 2);
}

#[test]
fn a_failed_step_runs_its_handler_and_the_run_still_fails() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "tell", "needs": ["a"], "if": "failed()"}]));
    world.carry_out("a", failed(FailureCode::ExitCode)).complete("tell");
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::ExitCode)));
    let error = world.state.run.error.as_ref().unwrap();
    assert_eq!((error.step.clone(), error.message.as_str()), (Some(name("a")), "it ended with exit_code"));
}

#[test]
fn a_handler_is_skipped_when_nothing_failed() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "tell", "needs": ["a"], "if": "failed()"}]));
    world.complete("a");
    assert_eq!((world.step_status("tell"), world.status()), (StepStatus::Skipped, RunStatus::Completed));
    assert_eq!(world.event(EventType::StepSkipped).data["if"], json!("failed()"));
}

#[test]
fn always_runs_after_good_ends_bad_ends_and_skips() {
    let steps = json!([{"id": "a"}, {"id": "b", "needs": ["a"]}, {"id": "tidy", "needs": ["b"], "if": "always()"}]);
    for (outcome, end) in [(Outcome::Completed, RunStatus::Completed), (failed(FailureCode::Timeout), RunStatus::Failed)] {
        let mut world = World::of(steps.clone());
        world.carry_out("a", outcome);
        if end == RunStatus::Completed {
            assert!(world.try_lease("tidy", "e1").is_none(), "always() still waits for its needs");
            world.complete("b");
        }
        world.complete("tidy");
        assert_eq!(world.status(), end);
    }
}

#[test]
fn conditions_read_outputs_and_statuses() {
    let steps = json!([
        {"id": "a"},
        {"id": "yes", "needs": ["a"], "if": "steps.a.outputs.kind == 'fix'"},
        {"id": "no", "needs": ["a"], "if": "steps.a.outputs.kind != 'fix'"},
        {"id": "absent", "needs": ["a"], "if": "steps.a.outputs.other"},
        {"id": "input", "if": "inputs.deep"},
        {"id": "status", "needs": ["a"], "if": "steps.a.status == 'completed' && always()"},
        {"id": "wrong", "if": "((("},
    ]);
    let mut world =
        World::born(json!({"steps": steps}), Submission { request: json!({"inputs": {"deep": true}}), ..Submission::default() });
    let held = world.start("a");
    let mut report = finished(&held, Outcome::Completed, at(0));
    report.outputs.insert("kind".to_owned(), "fix".to_owned());
    world.report(report);
    for skipped in ["no", "absent", "wrong"] {
        assert_eq!(world.step_status(skipped), StepStatus::Skipped, "{skipped}");
    }
    world.complete("yes").complete("input").complete("status");
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn a_condition_without_a_call_also_asks_for_completed_needs() {
    let mut world = World::of(json!([
        {"id": "a"},
        {"id": "b", "needs": ["a"], "if": "steps.a.status == 'failed'"},
        {"id": "c", "needs": ["a"], "if": "steps.a.status == 'failed' && failed()"},
    ]));
    world.carry_out("a", failed(FailureCode::ExitCode));
    assert_eq!((world.step_status("b"), world.step_status("c")), (StepStatus::Skipped, StepStatus::Pending));
}

#[test]
fn the_first_failed_step_gives_the_code() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "b"}]));
    let (a, b) = (world.start("a"), world.start("b"));
    world.goto(1).finish(&b, failed(FailureCode::OutOfMemory));
    assert_eq!(world.status(), RunStatus::Running);
    world.goto(2).finish(&a, failed(FailureCode::ExitCode));
    assert_eq!(world.state.run.failure_code, Some(FailureCode::OutOfMemory));
    assert_eq!(world.state.run.error.as_ref().unwrap().step, Some(name("b")));
}

#[test]
fn a_run_whose_every_step_is_skipped_completes_at_its_birth() {
    let world = World::of(json!([{"id": "a", "if": "failed()"}, {"id": "b", "needs": ["a"]}]));
    assert_eq!(world.status(), RunStatus::Completed);
    assert_eq!(world.kinds(0), ["run.accepted", "step.skipped", "step.skipped", "run.completed"]);
}

#[test]
fn the_latest_work_is_the_result() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "b", "needs": ["a"]}]));
    for (step, head) in [("a", "one"), ("b", "two")] {
        let held = world.start(step);
        let mut report = finished(&held, Outcome::Completed, at(0));
        report.result = Some(work(head));
        world.report(report);
        assert_eq!(world.state.run.result.as_ref().unwrap().head, head);
    }
    assert_eq!(world.event(EventType::RunCompleted).data["branch"], json!("hopyard/w/1"));
}
