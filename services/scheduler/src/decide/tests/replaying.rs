//! Replays: what is recorded of attempts, and what a run that plays them grants, pays and refuses.

use hopyard_contract::message::{Outcome, Recording, Recordings, recordings};
use hopyard_contract::plan::Work;
use hopyard_contract::run::{BlobRef, GitResult};
use hopyard_contract::status::{FailureCode, RunStatus, StepStatus};
use serde_json::{Value, json};

use super::world::*;
use crate::decide::Purse;

fn blob(name: &str) -> BlobRef {
    BlobRef { digest: format!("sha256:{name}"), size: 9 }
}

fn agent(more: Value) -> Value {
    let mut step = json!({"id": "fix", "agent": {"cli": "fake", "prompt": "x"}, "retry": {"max_attempts": 3, "backoff": {"initial": "1s", "max": "1s"}}});
    step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    step
}

/// An attempt of `fix` that ends like this at this commit.
fn attempt(world: &mut World, outcome: Outcome, commit: &str) {
    let held = world.start("fix");
    let mut done = finished(&held, outcome, world.now);
    (done.log, done.snapshot, done.usage) = (Some(blob(commit)), Some(commit.to_owned()), cost(7));
    done.result = Some(GitResult { bundle: Some(blob("bundle")), ..work(commit) });
    world.pin(&held, "base").report(done).later(chrono::TimeDelta::seconds(60)).tick();
}

/// Commits of each recording.
fn changes(world: &World) -> Vec<Vec<String>> {
    recordings(&world.state).remove("fix").unwrap().into_iter().map(|recording| recording.changes).collect()
}

fn played(recorded: Recordings, plan: Value) -> World {
    let mut world = World::plan(plan);
    // As the door does it: the request says so, and what was recorded comes with it.
    (world.state.run.replay, world.state.run.recordings) = (true, recorded);
    world
}

#[test]
fn a_recording_has_the_words_the_change_and_the_end_of_its_attempt() {
    let mut world = World::of(json!([{"id": "build"}, agent(json!({"needs": ["build"]}))]));
    world.complete("build");
    attempt(&mut world, failed(FailureCode::AgentError), "c1");
    attempt(&mut world, Outcome::Completed, "c2");
    assert_eq!(world.status(), RunStatus::Completed);
    let all = recordings(&world.state);
    assert_eq!(all.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["fix"], "a shell step is run again");
    let [first, second] = all["fix"].as_slice() else { panic!("{all:#?}") };
    assert_eq!((first.attempt.n, &first.log, first.usage), (1, &blob("c1"), cost(7)));
    assert_eq!(first.failure.as_ref().map(|failure| failure.code), Some(FailureCode::AgentError));
    assert_eq!((&first.changes, &first.work), (&vec![], &None), "the retry had thrown that away");
    assert_eq!((&second.changes, &second.failure), (&vec!["c2".to_owned()], &None));
    let held_by = second.work.clone().unwrap();
    assert_eq!((held_by.commit.as_str(), held_by.bundle, held_by.origin.as_deref()), ("c2", Some(blob("bundle")), Some("base")));
}

#[test]
fn a_pause_is_part_of_what_comes_after_it_and_a_resumed_attempt_is_not_lost() {
    let mut paused = World::of(json!([agent(json!({}))]));
    attempt(&mut paused, limited(at(1)), "c1");
    attempt(&mut paused, Outcome::Completed, "c2");
    assert_eq!((paused.status(), changes(&paused)), (RunStatus::Completed, vec![vec!["c1".to_owned(), "c2".to_owned()]]));
    let mut resumed = World::of(json!([agent(json!({"agent": {"cli": "fake", "prompt": "x", "resume": true}}))]));
    attempt(&mut resumed, failed(FailureCode::AgentError), "c1");
    attempt(&mut resumed, Outcome::Completed, "c2");
    assert_eq!(changes(&resumed), [vec!["c1".to_owned()], vec!["c2".to_owned()]]);
}

#[test]
fn what_changed_nothing_has_no_change_and_what_was_lost_is_not_recorded() {
    let mut world = World::of(json!([agent(json!({}))]));
    // `before` is what the workspace held when the step began.
    attempt(&mut world, Outcome::Lost, "c1");
    attempt(&mut world, Outcome::Completed, "before");
    assert_eq!(changes(&world), [Vec::<String>::new()]);
}

#[test]
fn attempts_are_played_in_their_order_and_nothing_is_paid() {
    let mut world = World::of(json!([agent(json!({}))]));
    attempt(&mut world, failed(FailureCode::AgentError), "c1");
    attempt(&mut world, Outcome::Completed, "c2");
    let recorded = recordings(&world.state);
    let budget = json!({"cost_microusd": 1000});
    let mut again = played(recorded.clone(), json!({"steps": [agent(json!({}))], "budget": budget}));
    again.purse = Some(Purse { left: 0, free: 0, limit: 10, scope: hopyard_contract::message::BudgetScope::Namespace, until: at(90_000) });
    let plays = |world: &mut World| -> (Recording, bool) {
        let held = world.start("fix");
        let Work::Replay(replay) = held.grant.work.clone() else { panic!("{:?}", held.grant.work) };
        world.finish(&held, failed(FailureCode::AgentError)).later(chrono::TimeDelta::seconds(60)).tick();
        (replay.recording, held.grant.allowance.is_some())
    };
    assert_eq!(plays(&mut again), (recorded["fix"][0].clone(), false));
    assert_eq!(plays(&mut again), (recorded["fix"][1].clone(), false));
    assert_eq!(plays(&mut again), (recorded["fix"][1].clone(), false), "the last one stands for those that come after it");
}

#[test]
fn what_was_not_recorded_is_not_asked() {
    let mut world = played(Recordings::new(), json!({"steps": [{"id": "first"}, agent(json!({"needs": ["first"]}))]}));
    world.complete("first");
    assert_eq!((world.step_status("fix"), world.step("fix").failure_code), (StepStatus::Failed, Some(FailureCode::PlanError)));
    assert_eq!(world.status(), RunStatus::Failed);
}

#[test]
fn a_replay_delivers_nothing() {
    let mut world =
        played(Recordings::new(), json!({"steps": [{"id": "first"}, {"id": "deliver", "needs": ["first"], "deliver": {"push": true}}]}));
    world.complete("first");
    assert_eq!((world.status(), world.step_status("deliver")), (RunStatus::Completed, StepStatus::Skipped));
}
