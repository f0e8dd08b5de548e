//! Workspaces: to whom a run is bound, its generations, what becomes of its directories.

use hopyard_contract::AttemptId;
use hopyard_contract::event::EventType;
use hopyard_contract::message::{Outcome, Restore};
use hopyard_contract::run::{BlobRef, GitResult, WorkspaceStatus};
use hopyard_contract::status::{FailureCode, PendingReason, RunStatus};
use serde_json::json;

use super::world::*;
use crate::decide::{Effect, Input, Reply};

fn repo() -> Submission {
    Submission { request: json!({"repo": {"url": "https://host/r", "ref": "main"}}), ..Submission::default() }
}

fn pair() -> World {
    World::born(json!({"steps": [{"id": "a"}, {"id": "b"}, {"id": "c", "needs": ["a"]}]}), repo())
}

#[test]
fn the_first_lease_binds_the_run_to_its_executor() {
    let mut world = pair();
    world.lease("a");
    let run = &world.state.run;
    assert_eq!((run.generation, run.executor.clone(), run.host.clone()), (1, Some(name("e1")), Some(name("host-of-e1"))));
    let row = world.workspaces().remove(0);
    assert_eq!((row.id, row.status, row.repo.as_deref()), (format!("{}-g1", run_id(1)), WorkspaceStatus::Active, Some("https://host/r")));
    assert_eq!(world.step("b").bound_to, Some(name("e1")));
}

#[test]
fn bound_steps_cannot_be_claimed_by_others() {
    let mut world = pair();
    let a = world.lease("a");
    assert!(world.try_lease("b", "e2").is_none());
    world.finish(&a, Outcome::Completed);
    assert!(world.effects.contains(&Effect::RingExecutor(name("e1"))), "only the holder is rung");
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Ring(_))));
    assert!(world.try_lease("c", "e2").is_none());
    world.complete("c").complete("b");
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn without_a_workspace_a_run_is_bound_to_nobody() {
    let mut world = World::plan(json!({"workspace": {"mode": "none"}, "steps": [{"id": "a"}, {"id": "b"}]}));
    let a = world.start("a");
    let b = world.try_lease("b", "e2").unwrap();
    assert_eq!((world.state.run.generation, world.state.run.executor.clone()), (0, None));
    world.finish(&a, Outcome::Completed).finish(&b, Outcome::Completed);
    assert_eq!((world.status(), world.workspaces().len(), world.count(EventType::WorkspaceCreated)), (RunStatus::Completed, 0, 0));
}

#[test]
fn the_workspace_is_told_with_its_first_process() {
    let mut world = pair();
    let a = world.lease("a");
    world.pin(&a, "c0ffee").started(&a);
    let data = &world.event(EventType::WorkspaceCreated).data;
    assert_eq!((data["path"].clone(), data["generation"].clone(), data["commit"].clone()), (json!("/ws/1"), json!(1), json!("c0ffee")));
    assert_eq!((world.state.run.workspace.as_deref(), world.workspaces().remove(0).path.as_str()), (Some("/ws/1"), "/ws/1"));
    world.start("b");
    assert_eq!(world.count(EventType::WorkspaceCreated), 1);
}

#[test]
fn a_lost_executor_makes_the_next_generation_from_the_last_kept_work() {
    let mut world = pair();
    let bundle = BlobRef { digest: "sha256:01".to_owned(), size: 9 };
    let a = world.start("a");
    assert_eq!(a.grant.workspace.restore, None);
    let mut done = finished(&a, Outcome::Completed, at(0));
    let mut kept = work("after-a");
    kept.bundle = Some(bundle.clone());
    done.result = Some(kept);
    world.pin(&a, "c0ffee").report(done);
    world.start("c");
    world.goto(LEASE).tick();
    assert_eq!(world.step("c").bound_to, Some(name("e1")), "it may come back");
    world.goto(30).unbind();
    let superseded = &world.event(EventType::WorkspaceSuperseded).data;
    assert_eq!((superseded["generation"].clone(), superseded["executor"].clone()), (json!(1), json!("e1")));
    assert_eq!(world.workspaces().remove(0).status, WorkspaceStatus::Reclaimable);
    assert_eq!((world.step("c").bound_to.clone(), world.reason()), (None, Some(PendingReason::AwaitingExecutor)));
    assert!(world.effects.contains(&Effect::Ring(name("default"))), "the pool is rung");

    let c = world.try_lease("c", "e2").unwrap();
    let order = &c.grant.workspace;
    assert_eq!((order.generation, order.commit.as_deref()), (2, Some("c0ffee")));
    let restore = order.restore.as_ref().unwrap();
    assert_eq!((restore.commit.as_str(), restore.bundle.as_ref()), ("after-a", Some(&bundle)));
    assert_eq!(world.workspaces().remove(0).id, format!("{}-g2", run_id(1)));
    world.started(&c);
    assert_eq!(world.count(EventType::WorkspaceCreated), 2);
    assert!(world.try_lease("b", "e1").is_none(), "the old holder has lost its claim");
    let b = world.try_lease("b", "e2").unwrap();
    assert_eq!((b.grant.workspace.generation, b.grant.workspace.restore.clone()), (2, None), "the workspace is there already");
    world.finish(&b, Outcome::Completed).finish(&c, Outcome::Completed);
    assert_eq!(world.status(), RunStatus::Completed);
}

#[test]
fn a_workspace_with_a_live_attempt_is_not_given_up() {
    let mut world = pair();
    let a = world.start("a");
    world.unbind();
    assert_eq!((world.state.run.executor.clone(), world.count(EventType::WorkspaceSuperseded)), (Some(name("e1")), 0));
    world.goto(LEASE).unbind();
    assert_eq!(
        (world.state.run.executor.clone(), world.count(EventType::WorkspaceSuperseded)),
        (None, 1),
        "expired and given up in one look"
    );
    world.unbind();
    assert_eq!(world.count(EventType::WorkspaceSuperseded), 1);
    assert_eq!(world.attempt(&a).generation, 1);
}

#[test]
fn a_draining_executor_hands_its_runs_on() {
    let mut world = pair();
    let a = world.start("a");
    world.finish(&a, Outcome::HandedBack);
    assert!(world.try_lease("a", "e2").is_none());
    world.unbind();
    let a = world.try_lease("a", "e2").unwrap();
    assert_eq!((a.attempt.n, a.grant.workspace.generation), (2, 2));
}

#[test]
fn a_step_in_backoff_is_not_rung_early_when_its_run_is_unbound() {
    let mut world = World::of(json!([{"id": "a", "retry": {"max_attempts": 2, "backoff": {"initial": "50s"}}}]));
    world.carry_out("a", failed(FailureCode::ExitCode)).goto(31).unbind();
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Ring(_) | Effect::RingExecutor(_))));
    assert_eq!(world.timer(), Some(50));
    world.goto(50).tick();
    assert!(world.effects.contains(&Effect::Ring(name("default"))));
    assert!(world.try_lease("a", "e2").is_some());
}

#[test]
fn a_temporary_workspace_may_go_when_its_run_is_over() {
    for outcome in [Outcome::Completed, failed(FailureCode::ExitCode)] {
        let mut world = World::born(json!({"steps": [{"id": "a"}]}), repo());
        world.carry_out("a", outcome);
        assert_eq!(world.workspaces().remove(0).status, WorkspaceStatus::Reclaimable);
    }
}

#[test]
fn the_workspace_of_a_session_is_kept_and_moves_to_the_next_run() {
    let plan = json!({"workspace": {"mode": "persistent"}, "steps": [{"id": "a"}]});
    let submission = || Submission { request: json!({"session": "s1", "repo": {"url": "https://host/r"}}), ..Submission::default() };
    let mut world = World::born(plan.clone(), submission());
    assert_eq!(world.lease("a").grant.workspace.session, Some(name("s1")));
    let mut first = World::born(plan.clone(), submission());
    first.complete("a");
    let mut kept = first.workspaces().remove(0);
    assert_eq!((kept.status, kept.session.clone()), (WorkspaceStatus::Kept, Some(name("s1"))));
    kept.run_id = run_id(7);
    kept.id = "earlier".to_owned();
    for (executor, becomes) in [("e1", WorkspaceStatus::Removed), ("e2", WorkspaceStatus::Reclaimable)] {
        let mut next = World::born(plan.clone(), submission());
        let mut lease = next.claim("a", executor);
        lease.session_workspace = Some(kept.clone());
        next.decide(&Input::Lease(Box::new(lease)));
        let rows: Vec<_> = next.workspaces().into_iter().map(|r| (r.id, r.status)).collect();
        assert_eq!(rows, [(format!("{}-g1", run_id(1)), WorkspaceStatus::Active), ("earlier".to_owned(), becomes)], "{executor}");
    }
}

#[test]
fn a_session_goes_on_from_its_kept_work() {
    let plan = json!({"workspace": {"mode": "persistent"}, "steps": [{"id": "a"}]});
    let submission = || Submission { request: json!({"session": "s1", "repo": {"url": "https://host/r"}}), ..Submission::default() };
    let bundle = |n: u8| BlobRef { digest: format!("sha256:0{n}"), size: 9 };
    let left = |world: &mut World, commit: &str, result: GitResult| {
        let held = world.lease("a");
        let mut done = finished(&held, Outcome::Completed, at(0));
        done.result = Some(result);
        world.pin(&held, commit).report(done);
        (world.state.run.kept_work().unwrap(), world.workspaces().remove(0))
    };
    // The first run starts from the repository.
    let mut first = World::born(plan.clone(), submission());
    let (work_of_first, mut kept) = left(&mut first, "c0", GitResult { bundle: Some(bundle(1)), ..work("h1") });
    assert_eq!(work_of_first, Restore { commit: "h1".to_owned(), bundle: Some(bundle(1)), origin: Some("c0".to_owned()) });
    (kept.run_id, kept.id) = (run_id(7), "earlier".to_owned());

    // The next goes on at the same executor, or elsewhere with a word about it; both know the kept work.
    let mut next = World::born(plan.clone(), submission());
    let mut lease = next.claim("a", "e2");
    (lease.session_workspace, lease.session_work) = (Some(kept.clone()), Some(work_of_first.clone()));
    let mut moved = next.clone();
    moved.decide(&Input::Lease(Box::new(lease.clone())));
    let Reply::Granted(grant) = &moved.reply else { panic!("the claim holds") };
    assert_eq!(grant.workspace.restore.as_ref(), Some(&work_of_first));
    let told = &moved.event(EventType::WorkspaceSuperseded).data;
    assert_eq!((told["workspace"].clone(), told["executor"].clone(), told["commit"].clone()), (json!("earlier"), json!("e1"), json!("h1")));
    lease.executor = name("e1");
    next.decide(&Input::Lease(Box::new(lease.clone())));
    assert_eq!(next.count(EventType::WorkspaceSuperseded), 0);
    let held = Held { attempt: AttemptId { run: run_id(1), step: name("a"), n: 1 }, token: lease.token, grant: (*grant).as_ref().clone() };

    // What it leaves builds on the same commit of the repository; a run that changes nothing leaves what it found.
    let ends = |world: &World, result: Option<GitResult>| {
        let mut world = world.clone();
        let mut done = finished(&held, Outcome::Completed, at(0));
        done.result = result;
        world.pin(&held, "h1").report(done);
        world.state.run.kept_work()
    };
    let changed = GitResult { base: "h1".to_owned(), bundle: Some(bundle(2)), ..work("h2") };
    let expected = Restore { commit: "h2".to_owned(), bundle: Some(bundle(2)), origin: Some("c0".to_owned()) };
    assert_eq!(ends(&next, Some(changed)), Some(expected));
    assert_eq!(ends(&next, Some(GitResult { base: "h1".to_owned(), ..work("h1") })), Some(work_of_first.clone()));
    assert_eq!(ends(&next, None), Some(work_of_first.clone()), "nothing was kept");

    // Its second generation starts from there as well.
    next.goto(LEASE).unbind();
    let again = next.try_lease("a", "e3").unwrap();
    assert_eq!((again.grant.workspace.generation, again.grant.workspace.restore), (2, Some(work_of_first)));
}

#[test]
fn an_executor_of_the_same_host_has_directories_of_its_own() {
    let plan = json!({"workspace": {"mode": "persistent"}, "steps": [{"id": "a"}]});
    let submission = || Submission { request: json!({"session": "s1", "repo": {"url": "https://host/r"}}), ..Submission::default() };
    let mut first = World::born(plan.clone(), submission());
    first.complete("a");
    let mut kept = first.workspaces().remove(0);
    (kept.run_id, kept.id, kept.host) = (run_id(7), "earlier".to_owned(), name("host-of-e2"));
    let mut next = World::born(plan, submission());
    let mut lease = next.claim("a", "e2");
    lease.session_workspace = Some(kept);
    next.decide(&Input::Lease(Box::new(lease)));
    assert!(next.workspaces().iter().any(|r| r.id == "earlier" && r.status == WorkspaceStatus::Reclaimable));
}
