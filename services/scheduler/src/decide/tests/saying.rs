//! Words that are stale, repeated or about another run.

use hopyard_contract::event::EventType;
use hopyard_contract::message::{LeaseState, Outcome, Pin, PinReply, Renewal, WorkspaceSaved};
use hopyard_contract::run::{WorkspaceRow, WorkspaceStatus};
use hopyard_contract::status::{FailureCode, RunStatus};
use hopyard_contract::usage::Usage;
use serde_json::json;
use uuid::Uuid;

use super::world::*;
use crate::decide::{Effect, Input, KillAsk, Reply, Tick};

/// Everything that can be said about one attempt, with `cost` as its usage.
fn everything(held: &Held, world: &World) -> Vec<Input> {
    let renewal = Renewal { attempt: held.attempt.clone(), token: held.token, usage: cost(0), log_bytes: 77 };
    let mut inputs = vec![
        Input::Lease(Box::new(world.claim(held.attempt.step.as_str(), "e2"))),
        Input::Started(started(held, world.now)),
        Input::Renew(renewal, "20s".parse().unwrap(), None),
        Input::Pin(Pin { attempt: held.attempt.clone(), token: held.token, commit: "other".to_owned() }),
        Input::Kill(KillAsk { by: "eve".to_owned(), reason: None, force: true }),
        Input::Tick(Tick { may_expire: true, unbind: Some("the executor is silent"), parents: [(run_id(9), RunStatus::Failed)].into() }),
        Input::Saved(WorkspaceSaved {
            attempt: held.attempt.clone(),
            snapshot: Some("s".to_owned()),
            bundle: None,
            log: None,
            log_bytes: 1,
            usage: Usage::default(),
        }),
    ];
    let limited = limited(world.now);
    let outcomes = [Outcome::Completed, failed(FailureCode::ExitCode), limited, Outcome::Killed, Outcome::HandedBack, Outcome::Lost];
    inputs.extend(outcomes.map(|outcome| {
        let mut report = finished(held, outcome, world.now);
        report.result = Some(work("late"));
        Input::Finished(Box::new(report))
    }));
    inputs
}

#[test]
fn a_final_run_never_changes() {
    let ends: [fn(&mut World) -> Held; 4] = [
        |w| {
            let held = w.start("a");
            w.finish(&held, Outcome::Completed);
            held
        },
        |w| {
            let held = w.start("a");
            w.finish(&held, failed(FailureCode::ExitCode));
            held
        },
        |w| {
            let held = w.start("a");
            w.kill().finish(&held, Outcome::Killed);
            held
        },
        |w| {
            let held = w.start("a");
            w.kill().goto(LEASE).tick();
            held
        },
    ];
    for end in ends {
        let mut world = World::plan(json!({"timeout": "1h", "concurrency": {"key": "k"}, "steps": [{"id": "a"}]}));
        let held = end(&mut world);
        assert!(world.status().is_final());
        world.goto(100_000);
        let (before, events) = (world.state.clone(), world.events.len());
        for input in everything(&held, &world) {
            world.decide(&input);
            let saved = matches!(input, Input::Saved(_)) && world.events.len() > events;
            assert!(world.state == before || saved, "{input:?} changed a final run");
            if saved {
                assert_eq!(world.kinds(events), ["workspace.saved"]);
                world.state = before.clone();
                world.events.truncate(events);
            }
        }
        let row = WorkspaceRow { status: WorkspaceStatus::Reclaimable, ..rows(&before) };
        world.decide(&Input::Removed(row, "the run is over".to_owned()));
        assert_eq!(world.kinds(events), ["workspace.removed"], "only its workspace is still spoken of");
    }
}

fn rows(state: &hopyard_contract::run::RunState) -> WorkspaceRow {
    WorkspaceRow {
        id: format!("{}-g1", state.run.id),
        run_id: state.run.id,
        namespace: state.run.namespace.clone(),
        generation: 1,
        executor: name("e1"),
        host: name("host-of-e1"),
        path: "/ws/1".to_owned(),
        repo: None,
        session: None,
        status: WorkspaceStatus::Active,
        created_at: at(0),
        removed_at: None,
        bytes: Some(5),
    }
}

#[test]
fn stale_tokens_change_nothing() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.start("a");
    let other_run = Held { attempt: hopyard_contract::AttemptId { run: run_id(2), ..held.attempt.clone() }, ..held.clone() };
    let other_token = Held { token: Uuid::from_u128(99), ..held.clone() };
    let other_number = Held { attempt: hopyard_contract::AttemptId { n: 2, ..held.attempt.clone() }, ..held.clone() };
    for stale in [other_run, other_token, other_number] {
        let before = world.state.clone();
        for input in everything(&stale, &world) {
            if matches!(input, Input::Kill(_) | Input::Tick(_)) {
                continue;
            }
            world.decide(&input);
            assert_eq!(world.state, before, "{input:?}");
            let counted = world.effects.iter().any(|e| matches!(e, Effect::Stale(_)));
            assert_eq!(counted, !matches!(input, Input::Lease(_) | Input::Saved(_)), "{input:?} is counted");
        }
    }
}

#[test]
fn a_lost_attempt_speaks_in_vain_about_everything_but_money() {
    let mut world = World::of(json!([{"id": "a"}]));
    let old = world.start("a");
    world.goto(LEASE).tick();
    let new = world.start("a");
    let before = world.state.clone();
    for input in everything(&old, &world) {
        if matches!(input, Input::Kill(_) | Input::Tick(_) | Input::Saved(_)) {
            continue;
        }
        world.decide(&input);
        assert_eq!(world.state, before, "{input:?}");
    }
    world.pin(&old, "other");
    assert!(matches!(&world.reply, Reply::Pinned(PinReply::Stale)));
    world.renew(&old, cost(3));
    let Reply::Renewed(answer) = &world.reply else { panic!("{:?}", world.reply) };
    assert_eq!((answer.state, world.state.run.usage), (LeaseState::Stale, cost(3)));
    world.finish(&new, Outcome::Completed);
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn a_repeated_started_changes_nothing() {
    let mut world = World::of(json!([{"id": "a"}]));
    let held = world.start("a");
    let before = world.state.clone();
    world.started(&held);
    assert_eq!((&world.state, world.effects.len()), (&before, 0));
}

#[test]
fn a_repeated_finished_is_settled_again() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "b", "needs": ["a"]}]));
    let held = world.start("a");
    world.finish(&held, Outcome::Completed);
    let before = world.state.clone();
    for outcome in [Outcome::Completed, failed(FailureCode::ExitCode)] {
        world.finish(&held, outcome);
        assert_eq!(world.effects, [Effect::Settled(name("e1"), held.attempt.clone())]);
        assert_eq!(world.state, before, "the first word counts");
    }
    world.renew(&held, cost(50));
    let Reply::Renewed(answer) = &world.reply else { panic!("{:?}", world.reply) };
    assert_eq!((answer.state, answer.kill.clone()), (LeaseState::Settled, None));
    assert_eq!(world.state, before);
    world.complete("b").finish(&held, Outcome::Completed);
    assert_eq!(world.effects, [Effect::Settled(name("e1"), held.attempt.clone())], "also when the run is over");
}

#[test]
fn the_first_pin_wins_and_everyone_gets_it() {
    let mut world = World::of(json!([{"id": "a"}, {"id": "b"}]));
    let (a, b) = (world.lease("a"), world.start("b"));
    for (held, commit) in [(&b, "first"), (&a, "second"), (&b, "third")] {
        world.pin(held, commit);
        assert!(matches!(&world.reply, Reply::Pinned(PinReply::Pinned(commit)) if commit == "first"), "{:?}", world.reply);
    }
    world.finish(&a, Outcome::HandedBack);
    assert_eq!(world.lease("a").grant.workspace.commit.as_deref(), Some("first"));
}

#[test]
fn a_removed_workspace_is_told_once() {
    let mut world = World::of(json!([{"id": "a"}]));
    world.complete("a");
    let row = rows(&world.state);
    world.goto(60).decide(&Input::Removed(row, "the run is over".to_owned()));
    let data = &world.event(EventType::WorkspaceRemoved).data;
    assert_eq!((data["bytes"].clone(), data["reason"].clone()), (json!(5), json!("the run is over")));
    let gone = world.workspaces().remove(0);
    assert_eq!((gone.status, gone.removed_at), (WorkspaceStatus::Removed, Some(at(60))));
    world.decide(&Input::Removed(gone, "again".to_owned()));
    assert_eq!(world.count(EventType::WorkspaceRemoved), 1);
}
