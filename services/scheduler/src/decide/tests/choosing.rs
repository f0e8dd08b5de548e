//! Best of several variants: they fail without harm, one is chosen, and the run goes on with its work.

use hopyard_contract::event::EventType;
use hopyard_contract::message::{Outcome, Restore};
use hopyard_contract::plan::Work;
use hopyard_contract::run::{BlobRef, GitResult, WorkspaceStatus};
use hopyard_contract::status::{AttemptStatus, FailureCode, RunStatus, StepStatus};
use serde_json::{Value, json};

use super::world::*;

/// Three agents, a step that uses the best one's work, and the order of choice.
fn world(score: Option<&str>) -> World {
    let agent = json!({"cli": "fake", "prompt": "x"});
    let variants: Vec<Value> = ["a", "b", "c"].iter().map(|name| json!({"name": name, "agent": agent})).collect();
    let mut best_of = json!({"variants": variants, "check": "make check"});
    if let Some(score) = score {
        best_of["score"] = json!(score);
    }
    let steps = json!([{"id": "fix", "best_of": best_of}, {"id": "use", "needs": ["fix"]}]);
    let request = json!({"repo": {"url": "https://host/r"}});
    World::born(json!({"steps": steps}), Submission { request, ..Submission::default() })
}

/// The agent of a variant does its work for that many millionths, and its check ends like this.
fn tried(world: &mut World, variant: &str, spent: u64, check: Outcome, score: Option<&str>) {
    let held = world.start(&format!("fix-{variant}"));
    let mut done = finished(&held, Outcome::Completed, world.now);
    done.usage = cost(spent);
    done.result = Some(bundled(variant));
    world.pin(&held, "base").report(done);
    let held = world.start(&format!("fix-{variant}-check"));
    let mut done = finished(&held, check, world.now);
    // What a check leaves behind is no work of the variant.
    done.result = Some(work("what the check left"));
    done.outputs.extend(score.map(|score| ("tests".to_owned(), score.to_owned())));
    world.report(done);
}

fn bundled(variant: &str) -> GitResult {
    let bundle = BlobRef { digest: format!("sha256:{variant}"), size: 9 };
    GitResult { bundle: Some(bundle), ..work(&format!("work of {variant}")) }
}

/// Whose work the step that chooses goes on with.
fn winner(held: &Held) -> (String, Restore) {
    let Work::BestOf(spec) = held.grant.work.clone() else { panic!("{:?}", held.grant.work) };
    let chosen = spec.chosen.unwrap();
    (chosen.name.to_string(), chosen.work)
}

#[test]
fn variants_work_at_once_in_workspaces_of_their_own_and_from_the_same_commit() {
    let mut world = world(None);
    let orders: Vec<_> = ["a", "b", "c"].map(|variant| world.start(&format!("fix-{variant}")).grant.workspace).into_iter().collect();
    for (order, variant) in orders.iter().zip(["fix-a", "fix-b", "fix-c"]) {
        assert_eq!(order.variant, Some(name(variant)));
        assert_eq!(order.branch, format!("hopyard/w/{}-{variant}", run_id(1)));
        assert_eq!((&order.restore, &order.reset_to), (&None, &None));
    }
    let made: Vec<_> = world.events.iter().filter(|e| e.kind == EventType::WorkspaceCreated).map(|e| e.data["variant"].clone()).collect();
    assert_eq!(made, [json!("fix-a"), json!("fix-b"), json!("fix-c")]);
    assert_eq!(world.state.run.workspace, None, "nobody has needed the run's own yet");
    assert!(world.try_lease("fix", "e1").is_none(), "it chooses when all have ended");
}

#[test]
fn the_cheapest_that_passes_wins_and_the_others_are_no_failure() {
    let mut world = world(None);
    tried(&mut world, "a", 900, Outcome::Completed, None);
    tried(&mut world, "b", 500, Outcome::Completed, None);
    tried(&mut world, "c", 100, failed(FailureCode::ExitCode), None);
    assert_eq!(world.state.run.result, None, "what variants do is theirs");
    let origin = Some("base".to_owned());
    let work_of_b = Restore { commit: "work of b".to_owned(), bundle: bundled("b").bundle, origin };
    let held = world.lease("fix");
    assert_eq!(winner(&held), ("b".to_owned(), work_of_b));
    let mut done = finished(&held, Outcome::Completed, world.now);
    done.result = Some(work("work of b"));
    world.started(&held).report(done);
    let held = world.start("use");
    assert_eq!(held.grant.workspace.variant, None);
    world.finish(&held, Outcome::Completed);
    assert_eq!((world.status(), world.state.run.error.clone()), (RunStatus::Completed, None));
    assert_eq!(world.step_status("fix-c-check"), StepStatus::Failed);
    assert_eq!(world.state.run.result.as_ref().unwrap().head, "work of b");
    let mut freed: Vec<_> = world.workspaces().into_iter().map(|row| (row.id, row.status)).collect();
    freed.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = ["", "_fix-a", "_fix-b", "_fix-c"].map(|tail| (format!("{}-g1{tail}", run_id(1)), WorkspaceStatus::Reclaimable));
    assert_eq!(freed, expected);
}

#[test]
fn the_highest_score_wins_before_the_lowest_cost() {
    for (scores, expected) in [
        ([Some("7"), Some("12"), Some("9")], "b"),
        ([Some("7.5"), Some(" 7.5 "), Some("7.49")], "b"),
        ([None, Some("-1"), Some("many")], "b"),
        ([Some("inf"), Some("NaN"), Some("0")], "c"),
        ([None, None, None], "c"),
    ] {
        let mut world = world(Some("tests"));
        for ((variant, spent), score) in [("a", 300), ("b", 200), ("c", 100)].into_iter().zip(scores) {
            tried(&mut world, variant, spent, Outcome::Completed, score);
        }
        assert_eq!(winner(&world.lease("fix")).0, expected, "{scores:?}");
    }
}

#[test]
fn of_equals_the_first_wins_and_an_unknown_cost_is_the_highest() {
    let mut equal = world(None);
    for variant in ["c", "b", "a"] {
        tried(&mut equal, variant, 100, Outcome::Completed, None);
    }
    assert_eq!(winner(&equal.lease("fix")).0, "a");
    let mut unknown = world(None);
    let held = unknown.start("fix-a");
    let mut done = finished(&held, Outcome::Completed, unknown.now);
    (done.usage.cost_microusd, done.result) = (None, Some(work("work of a")));
    unknown.report(done).complete("fix-a-check");
    tried(&mut unknown, "b", 5_000_000, Outcome::Completed, None);
    tried(&mut unknown, "c", 6_000_000, Outcome::Completed, None);
    assert_eq!(winner(&unknown.lease("fix")).0, "b");
}

#[test]
fn a_run_of_which_no_variant_passes_fails_and_says_why() {
    let mut world = world(None);
    tried(&mut world, "a", 1, failed(FailureCode::ExitCode), None);
    world.carry_out("fix-b", failed(FailureCode::MaxTurns));
    tried(&mut world, "c", 1, failed(FailureCode::Timeout), None);
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::DependencyFailed)));
    let error = world.state.run.error.clone().unwrap();
    assert_eq!(error.step, Some(name("fix")));
    let text = "no variant passes: a: fix-a-check ended as exit_code (it ended with exit_code); \
                b: fix-b ended as max_turns (it ended with max_turns); c: fix-c-check ended as timeout (it ended with timeout)";
    assert_eq!(error.message, text);
    assert_eq!((world.step_status("fix-b-check"), world.step_status("use")), (StepStatus::Skipped, StepStatus::Skipped));
}

#[test]
fn variants_that_are_not_wanted_are_skipped_with_the_choice() {
    let mut plan = json!({"steps": [{"id": "first"}, {"id": "fix", "needs": ["first"], "if": "failed()"}, {"id": "use", "needs": ["fix"], "if": "always()"}]});
    let agent = json!({"cli": "fake", "prompt": "x"});
    plan["steps"][1]["best_of"] = json!({"check": "true", "variants": [{"name": "a", "agent": agent}, {"name": "b", "agent": agent}]});
    let mut world = World::plan(plan);
    world.complete("first").complete("use");
    assert_eq!(world.status(), RunStatus::Completed);
    assert_eq!(world.step_status("fix"), StepStatus::Skipped);
}

#[test]
fn a_killed_run_chooses_nobody() {
    let mut world = world(None);
    tried(&mut world, "a", 1, Outcome::Completed, None);
    world.kill();
    assert_eq!((world.status(), world.step_status("fix")), (RunStatus::Killed, StepStatus::Killed));
    let freed = world.workspaces().into_iter().filter(|row| row.status == WorkspaceStatus::Reclaimable).count();
    assert_eq!(freed, 2, "its own, which was never made, and the one of the variant that was tried");
}

#[test]
fn a_lost_executor_costs_no_variant_its_work() {
    let mut world = world(None);
    tried(&mut world, "a", 1, Outcome::Completed, None);
    let held = world.start("fix-b");
    let mut done = finished(&held, Outcome::Completed, world.now);
    done.result = Some(bundled("b"));
    world.report(done);
    let lost = world.start("fix-c");
    world.goto(LEASE + 1).tick().unbind();
    assert_eq!(world.attempt(&lost).status, AttemptStatus::Lost);
    let elsewhere = |world: &mut World, step: &str| world.try_lease(step, "e2").unwrap();
    let check = elsewhere(&mut world, "fix-b-check");
    let order = &check.grant.workspace;
    assert_eq!((order.generation, order.variant.clone()), (2, Some(name("fix-b"))));
    assert_eq!(order.restore.as_ref().map(|restore| restore.commit.as_str()), Some("work of b"));
    world.started(&check).finish(&check, failed(FailureCode::ExitCode));
    let again = elsewhere(&mut world, "fix-c");
    assert_eq!(again.grant.workspace.restore, None, "nothing of it had been kept, so that it begins where the run did");
    world.started(&again).finish(&again, failed(FailureCode::AgentError));
    let chooses = elsewhere(&mut world, "fix");
    let Work::BestOf(spec) = chooses.grant.work else { panic!("it chooses") };
    let chosen = spec.chosen.unwrap();
    assert_eq!((chosen.name.as_str(), chosen.work.bundle), ("a", bundled("a").bundle), "the other host has it from the blobs");
}

#[test]
fn a_retry_of_a_variant_starts_from_what_was_there_before_it_whoever_is_at_work_beside_it() {
    let agent = json!({"cli": "fake", "prompt": "x"});
    let best_of = json!({"check": "true", "variants": [{"name": "a", "agent": agent}, {"name": "b", "agent": agent}]});
    let retry = json!({"max_attempts": 2, "backoff": {"initial": "1s", "max": "1s"}});
    let mut world = World::of(json!([{"id": "fix", "retry": retry, "best_of": best_of}]));
    world.start("fix-b");
    world.carry_out("fix-a", failed(FailureCode::AgentError)).goto(2).tick();
    assert_eq!(world.lease("fix-a").grant.workspace.reset_to.as_deref(), Some("before"));
}
