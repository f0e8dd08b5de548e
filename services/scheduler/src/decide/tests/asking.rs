//! Questions to people: an approval without a process, a question of an attempt, and what the answer makes of them.

use hopyard_contract::event::EventType;
use hopyard_contract::message::{AnswerReply, Outcome, ResumeReply};
use hopyard_contract::plan::Work;
use hopyard_contract::status::{FailureCode, PausedReason, RunStatus, StepStatus};
use serde_json::json;
use uuid::Uuid;

use super::world::*;
use crate::decide::{AnswerAsk, Input, Reply};

fn sign_off() -> World {
    let mut world = World::of(json!([
        {"id": "build"},
        {"id": "sign-off", "needs": ["build"], "approval": {"prompt": "Release ${{ workflow.name }}?"}, "timeout": "1h"},
        {"id": "release", "needs": ["sign-off"]},
    ]));
    world.complete("build");
    world
}

fn asks(question: &str) -> Outcome {
    Outcome::Asked { question: question.to_owned() }
}

fn say(world: &mut World, step: &str, approved: bool, text: Option<&str>) -> AnswerReply {
    let ask = AnswerAsk { step: name(step), id: Uuid::from_u128(7), approved, text: text.map(str::to_owned), by: "ada".to_owned() };
    world.decide(&Input::Answer(ask));
    let Reply::Answered(reply) = world.reply else { panic!("{:?}", world.reply) };
    reply
}

#[test]
fn an_approval_pauses_the_run_and_the_answer_is_its_output() {
    let mut world = sign_off();
    assert_eq!((world.status(), world.state.run.paused_reason), (RunStatus::Paused, Some(PausedReason::Approval)));
    assert_eq!(world.step("sign-off").question.as_ref().map(|question| question.text.as_str()), Some("Release w?"));
    assert!(world.try_lease("sign-off", "e1").is_none(), "it has no process");
    assert_eq!(say(&mut world, "sign-off", true, Some("go")), AnswerReply::Taken);
    let outputs = [("approved", "true"), ("by", "ada"), ("text", "go")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((world.step_status("sign-off"), &world.step("sign-off").outputs), (StepStatus::Completed, &outputs.into()));
    world.complete("release");
    assert_eq!((world.status(), world.count(EventType::RunPaused), world.count(EventType::RunResumed)), (RunStatus::Completed, 1, 1));
}

#[test]
fn a_refusal_fails_the_step_in_the_words_of_who_refused() {
    let mut world = sign_off();
    assert_eq!(say(&mut world, "sign-off", false, Some("not on a Friday")), AnswerReply::Taken);
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::PolicyDenied)));
    assert_eq!(world.step("sign-off").error.as_deref(), Some("refused by ada: not on a Friday"));
    assert_eq!(world.step_status("release"), StepStatus::Skipped);
}

#[test]
fn an_approval_that_nobody_gives_in_time_fails_its_step() {
    let mut world = sign_off();
    assert_eq!(world.timer(), Some(3600));
    world.goto(3600).tick();
    assert_eq!((world.status(), world.state.run.failure_code), (RunStatus::Failed, Some(FailureCode::Timeout)));
}

#[test]
fn an_answer_counts_once_and_only_where_it_is_asked_for() {
    let mut world = sign_off();
    assert_eq!(say(&mut world, "nowhere", true, None), AnswerReply::UnknownStep);
    assert_eq!(say(&mut world, "release", true, None), AnswerReply::NotAsked);
    assert_eq!(say(&mut world, "sign-off", true, None), AnswerReply::Taken);
    let before = world.state.clone();
    assert_eq!(say(&mut world, "sign-off", true, None), AnswerReply::Taken, "the same one again");
    assert_eq!(world.state, before);
    let other = AnswerAsk { step: name("sign-off"), id: Uuid::from_u128(8), approved: false, text: None, by: "eve".to_owned() };
    world.decide(&Input::Answer(other));
    assert!(matches!(world.reply, Reply::Answered(AnswerReply::NotAsked)), "{:?}", world.reply);
}

#[test]
fn a_question_of_an_attempt_is_answered_in_words_that_the_next_one_gets() {
    let mut world = World::of(json!([{"id": "a", "agent": {"cli": "fake", "prompt": "mend it"}}]));
    world.carry_out("a", asks("which one?"));
    assert_eq!((world.status(), world.state.run.paused_reason), (RunStatus::Paused, Some(PausedReason::Question)));
    assert_eq!(say(&mut world, "a", true, None), AnswerReply::NeedsText);
    assert_eq!(say(&mut world, "a", true, Some("the second")), AnswerReply::Taken);
    let held = world.start("a");
    let Work::Agent(agent) = &held.grant.work else { panic!("an agent") };
    assert!(agent.resume && agent.prompt.contains("which one?") && agent.prompt.contains("the second"), "{}", agent.prompt);
    assert!(agent.prompt.ends_with("mend it"));
    assert_eq!((held.grant.answer.as_deref(), held.grant.workspace.reset_to.as_deref()), (Some("the second"), None));
    world.finish(&held, Outcome::Completed);
    assert_eq!((world.status(), world.step("a").attempt, world.step("a").failures), (RunStatus::Completed, 2, 0));
}

#[test]
fn a_run_that_asks_is_killed_at_once() {
    let mut world = sign_off();
    world.kill();
    assert_eq!((world.status(), world.step_status("sign-off")), (RunStatus::Killed, StepStatus::Killed));
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.start("a");
    world.kill().finish(&held, asks("too late?"));
    assert_eq!((world.status(), world.step_status("a")), (RunStatus::Killed, StepStatus::Killed));
}

#[test]
fn a_resume_ends_the_wait_for_a_limit_and_no_question() {
    let mut world = World::of(json!([{"id": "a", "agent": {"cli": "fake", "prompt": "p"}}]));
    world.carry_out("a", limited(at(3600)));
    let resume = |world: &mut World| {
        world.decide(&Input::Resume("ada".to_owned()));
        let Reply::Resumed(reply) = world.reply else { panic!("{:?}", world.reply) };
        reply
    };
    assert_eq!(resume(&mut world), ResumeReply::Resumed);
    assert_eq!(world.events.iter().find(|event| event.kind == EventType::RunResumed).unwrap().data["by"], "ada");
    assert_eq!(resume(&mut world), ResumeReply::Resumed, "nothing is paused any more");
    world.complete("a");
    assert_eq!(resume(&mut world), ResumeReply::AlreadyFinal);
    assert_eq!(resume(&mut sign_off()), ResumeReply::NeedsAnswer);
    let mut both = World::of(json!([{"id": "a", "approval": {"prompt": "go?"}}, {"id": "b", "agent": {"cli": "fake", "prompt": "p"}}]));
    both.carry_out("b", limited(at(3600)));
    assert_eq!(resume(&mut both), ResumeReply::Resumed, "one of them waited for no answer");
}
