//! Each reason has one sentence that names what helps.

use std::collections::BTreeMap;
use std::sync::Arc;

use hopyard_contract::plan::{ConcurrencyPolicy, Plan};
use hopyard_contract::run::{GitResult, Kill, RunError, Slot, StepState};
use hopyard_contract::status::FailureCode;
use hopyard_contract::{Name, RunId, Usage};
use uuid::Uuid;

use super::facts::Alive;
use super::*;

fn instant(text: &str) -> DateTime<Utc> {
    time::parse(text).unwrap()
}

fn created() -> DateTime<Utc> {
    instant("2026-01-01T00:00:00Z")
}

fn name(text: &'static str) -> Name {
    Name::literal(text)
}

fn step(id: &'static str, status: StepStatus, reason: Option<PendingReason>) -> StepState {
    StepState {
        id: name(id),
        status,
        pending_reason: reason,
        paused_reason: None,
        failure_code: None,
        error: None,
        pool: name("gpu"),
        bound_to: None,
        attempt: 0,
        failures: 0,
        lost: 0,
        unstarted: 0,
        pauses: 0,
        resume_at: None,
        question: None,
        answer: None,
        claimable_at: (reason == Some(PendingReason::AwaitingExecutor)).then(|| instant("2026-01-01T00:00:05Z")),
        queued_at: None,
        started_at: None,
        finished_at: None,
        outputs: BTreeMap::new(),
        usage: Usage::default(),
        before: None,
        result: None,
    }
}

fn attempt(step: &'static str, status: AttemptStatus) -> Attempt {
    Attempt {
        step: name(step),
        n: 1,
        status,
        paused: false,
        note: None,
        executor: name("e1"),
        host: name("h1"),
        token: Uuid::nil(),
        claim_id: Uuid::nil(),
        lease_until: instant("2026-01-01T00:00:40Z"),
        leased_at: instant("2026-01-01T00:00:20Z"),
        announced: true,
        started_at: (status == AttemptStatus::Running).then(|| instant("2026-01-01T00:00:21Z")),
        finished_at: None,
        pid: (status == AttemptStatus::Running).then_some(4711),
        workspace: None,
        generation: 1,
        exit_code: None,
        signal: None,
        failure_code: None,
        error: None,
        usage: Usage::default(),
        allowance_microusd: None,
        log_bytes: 0,
        log: None,
        record: None,
        snapshot: None,
    }
}

/// A run of two steps, `build` and `test` after it.
fn state(status: RunStatus, reason: Option<PendingReason>) -> RunState {
    let plan: Plan = serde_json::from_value(serde_json::json!({
        "v": 1, "name": "wf",
        "steps": [{"id": "build", "shell": "make"}, {"id": "test", "needs": ["build"], "shell": "make test"}]
    }))
    .unwrap();
    let build = match status {
        RunStatus::Pending => step("build", StepStatus::Pending, reason),
        RunStatus::Paused => step("build", StepStatus::Paused, None),
        _ => step("build", StepStatus::Running, None),
    };
    let run = Run {
        id: "0198c7a0-0000-7000-8000-000000000001".parse().unwrap(),
        namespace: name("default"),
        workflow: name("wf"),
        definition_hash: String::new(),
        plan_hash: String::new(),
        status,
        pending_reason: reason,
        paused_reason: None,
        failure_code: None,
        error: None,
        labels: BTreeMap::new(),
        inputs: serde_json::Map::new(),
        repo: None,
        commit: None,
        priority: 1,
        pool: name("gpu"),
        session: None,
        after: Vec::new(),
        after_open: Vec::new(),
        after_policy: hopyard_contract::submit::AfterPolicy::Skip,
        start_at: None,
        budget: None,
        budget_warned: false,
        rerun_of: None,
        replay: false,
        recordings: Default::default(),
        slots: Vec::new(),
        kill: None,
        created_at: created(),
        started_at: None,
        finished_at: status.is_final().then(|| instant("2026-01-01T00:01:00Z")),
        deadline: None,
        usage: Usage::default(),
        late_usage: None,
        result: None,
        restore: None,
        generation: 0,
        executor: None,
        host: None,
        workspace: None,
        event_seq: 1,
        trace_id: None,
    };
    let test = step("test", StepStatus::Pending, Some(PendingReason::AwaitingDependencies));
    RunState { run, steps: vec![build, test], attempts: Vec::new(), plan: Arc::new(plan), timer: Some(instant("2026-01-01T00:05:00Z")) }
}

fn facts() -> Facts {
    Facts {
        now: instant("2026-01-01T00:00:30Z"),
        scheduler: true,
        executors: Vec::new(),
        holders: Vec::new(),
        parents: Vec::new(),
        claimable: BTreeMap::from([(name("gpu"), 7)]),
    }
}

fn alive(id: &'static str, free: u32, draining: bool) -> Alive {
    Alive { id: name(id), pool: name("gpu"), slots: 4, free, draining }
}

/// Explains and checks what every explanation promises.
fn told(state: &RunState, facts: &Facts) -> Explanation {
    let explanation = explain(state, facts);
    assert_eq!(explanation.status, state.run.status);
    assert!(!explanation.text.is_empty() && !explanation.text.contains('\n'), "{}", explanation.text);
    assert!(explanation.blockers.iter().all(|b| !b.text.is_empty() && !b.code.is_empty()));
    assert_eq!(explanation.next_check_at.is_some(), !state.run.status.is_final());
    explanation
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    }
}

#[test]
fn no_executor_names_the_command_that_starts_one() {
    let state = state(RunStatus::Pending, Some(PendingReason::AwaitingExecutor));
    let found = told(&state, &facts());
    holds(&found.text, &["no executor is alive in pool gpu", "`hopyard executor --pool gpu`"]);
    assert_eq!(found.reason.as_deref(), Some("awaiting_executor"));
    assert_eq!(found.since, instant("2026-01-01T00:00:05Z"));
    assert_eq!(found.blockers[0].code, "no_executor");
    assert_eq!(found.blockers[0].pool, Some(name("gpu")));
    assert_eq!(found.blockers[0].step, Some(name("build")));
    // The step behind it is told as well, and comes last.
    holds(&found.blockers[1].text, &["step test", "step build"]);
}

#[test]
fn busy_draining_and_free_pools_are_told_apart() {
    let state = state(RunStatus::Pending, Some(PendingReason::AwaitingExecutor));
    for (executors, code, parts) in [
        (vec![alive("e1", 0, false), alive("e2", 0, false)], "no_free_slot", vec!["8 slots", "7 steps wait", "HOPYARD_SLOTS"]),
        (vec![alive("e1", 4, true)], "draining", vec!["takes no new work", "`hopyard executor --pool gpu`"]),
        (vec![alive("e1", 1, false), alive("e2", 3, true)], "awaiting_executor", vec!["1 slot is free"]),
        (vec![Alive { pool: name("cpu"), ..alive("e1", 4, false) }], "no_executor", vec!["pool gpu"]),
    ] {
        let found = told(&state, &Facts { executors, ..facts() });
        assert_eq!(found.blockers[0].code, code);
        holds(&found.text, &parts);
    }
}

#[test]
fn a_bound_step_waits_for_its_executor() {
    let mut state = state(RunStatus::Pending, Some(PendingReason::AwaitingExecutor));
    state.steps[0].bound_to = Some(name("e1"));
    for (executors, code, part) in [
        (vec![alive("e2", 4, false)], "executor_silent", "is silent"),
        (vec![alive("e1", 4, true)], "draining", "takes no new work"),
        (vec![alive("e1", 0, false)], "no_free_slot", "HOPYARD_SLOTS"),
        (vec![alive("e1", 1, false)], "awaiting_executor", "in a moment"),
    ] {
        let found = told(&state, &Facts { executors, ..facts() });
        assert_eq!(found.blockers[0].code, code);
        holds(&found.text, &["executor e1", part]);
    }
}

#[test]
fn a_slot_names_its_key_and_holders() {
    let mut state = state(RunStatus::Pending, Some(PendingReason::AwaitingSlot));
    let slot = |key: &str, held| Slot { key: key.to_owned(), limit: 1, policy: ConcurrencyPolicy::Queue, held };
    state.run.slots = vec![slot("default/held", true), slot("default/deploy", false)];
    let holder = RunId::mint();
    let found = told(&state, &Facts { holders: vec![("default/deploy".to_owned(), vec![holder])], ..facts() });
    holds(&found.text, &["`default/deploy`", "1 run at once", &holder.to_string(), "`concurrency.limit`", "`hopyard runs cancel <run>`"]);
    assert_eq!(found.blockers.len(), 1);
    assert_eq!((found.blockers[0].key.as_deref(), found.blockers[0].run_ids.as_slice()), (Some("default/deploy"), [holder].as_slice()));
    assert_eq!(found.since, created());
}

#[test]
fn dependencies_and_schedules_say_until_when() {
    let mut after = state(RunStatus::Pending, Some(PendingReason::AwaitingDependencies));
    let parent = RunId::mint();
    after.run.after_open = vec![parent];
    let found = told(&after, &Facts { parents: vec![(parent, RunStatus::Running)], ..facts() });
    holds(&found.text, &["`after`", &format!("{parent} (running)"), "`hopyard runs explain"]);
    assert_eq!(found.blockers[0].run_ids, [parent]);

    let mut later = state(RunStatus::Pending, Some(PendingReason::AwaitingSchedule));
    later.run.start_at = Some(instant("2026-02-01T00:00:00Z"));
    let found = told(&later, &facts());
    holds(&found.text, &["2026-02-01T00:00:00.000000Z", "`start_at`"]);
    assert_eq!(found.blockers[0].until, later.run.start_at);
}

#[test]
fn starting_workspace_backoff_and_budget_are_told() {
    let mut starting = state(RunStatus::Pending, Some(PendingReason::Starting));
    starting.attempts = vec![attempt("build", AttemptStatus::Leased)];
    let found = told(&starting, &facts());
    holds(&found.text, &["step build", "executor e1", "host h1", "lease"]);
    assert_eq!((found.since, found.blockers[0].until), (instant("2026-01-01T00:00:20Z"), Some(instant("2026-01-01T00:00:40Z"))));

    holds(
        &told(&state(RunStatus::Pending, Some(PendingReason::AwaitingWorkspace)), &facts()).text,
        &["workspace", "`hopyard executors list`"],
    );

    let mut backoff = state(RunStatus::Pending, Some(PendingReason::RetryBackoff));
    backoff.steps[0].attempt = 1;
    backoff.steps[0].claimable_at = Some(instant("2026-01-01T00:02:00Z"));
    let mut failed = attempt("build", AttemptStatus::Failed);
    failed.failure_code = Some(FailureCode::ExitCode);
    failed.finished_at = Some(instant("2026-01-01T00:00:25Z"));
    backoff.attempts = vec![failed];
    let found = told(&backoff, &facts());
    holds(&found.text, &["attempt 1 of step build", "exit_code", "2026-01-01T00:02:00.000000Z", "`retry.backoff`"]);
    assert_eq!((found.since, found.blockers[0].until), (instant("2026-01-01T00:00:25Z"), backoff.steps[0].claimable_at));

    holds(&told(&state(RunStatus::Pending, Some(PendingReason::AwaitingBudget)), &facts()).text, &["`[budgets]`"]);
}

#[test]
fn every_pending_reason_has_its_code_and_sentence() {
    for reason in PendingReason::ALL {
        let found = told(&state(RunStatus::Pending, Some(*reason)), &facts());
        assert_eq!(found.reason.as_deref(), Some(reason.as_str()));
    }
    let mut fresh = state(RunStatus::Pending, None);
    fresh.steps.clear();
    holds(&told(&fresh, &facts()).text, &["in a moment"]);
}

#[test]
fn every_paused_reason_says_how_it_goes_on() {
    for (reason, part) in [
        (PausedReason::Approval, "/steps/build/answer"),
        (PausedReason::Question, "/steps/build/answer"),
        (PausedReason::UsageLimit, "by itself"),
        (PausedReason::Budget, "/resume"),
        (PausedReason::Operator, "/resume"),
    ] {
        let mut state = state(RunStatus::Paused, None);
        state.run.paused_reason = Some(reason);
        state.steps[0].paused_reason = Some(reason);
        let found = told(&state, &facts());
        holds(&found.text, &["step build", part]);
        assert_eq!((found.reason.as_deref(), found.blockers[0].code.as_str()), (Some(reason.as_str()), reason.as_str()));
    }
}

#[test]
fn running_says_what_runs_where() {
    let mut state = state(RunStatus::Running, None);
    state.attempts = vec![attempt("build", AttemptStatus::Running)];
    let found = told(&state, &facts());
    holds(&found.text, &["step build on executor e1 (host h1, process 4711)", "`hopyard runs logs -f"]);
    assert_eq!(found.since, instant("2026-01-01T00:00:21Z"));
    assert_eq!(found.blockers[0].step, Some(name("test")));
}

#[test]
fn a_step_whose_lease_is_overdue_is_said_to_be_held_still() {
    let mut state = state(RunStatus::Running, None);
    state.attempts = vec![attempt("build", AttemptStatus::Running)];
    let found = told(&state, &Facts { now: instant("2026-01-01T00:00:41Z"), ..facts() });
    assert_eq!((found.blockers[0].code.as_str(), found.blockers[0].step.clone()), ("lease_overdue", Some(name("build"))));
    holds(&found.blockers[0].text, &["executor e1", "step build", "since 2026-01-01T00:00:40", "held", "HOPYARD_FREEZE_LIMIT"]);
}

#[test]
fn a_cancel_under_way_says_whose_end_it_waits_for() {
    let mut state = state(RunStatus::Running, None);
    state.attempts = vec![attempt("build", AttemptStatus::Running)];
    state.run.kill = Some(Kill { at: instant("2026-01-01T00:00:25Z"), by: "ada".to_owned(), reason: None, force: false, failure: None });
    let found = told(&state, &facts());
    holds(&found.text, &["cancelled by ada", "executor e1", "--force"]);
    assert_eq!((found.reason.as_deref(), found.since), (Some("kill_requested"), instant("2026-01-01T00:00:25Z")));
}

#[test]
fn every_end_says_how_it_came() {
    let mut failed = state(RunStatus::Failed, None);
    failed.run.failure_code = Some(FailureCode::Timeout);
    failed.run.error =
        Some(RunError { code: FailureCode::Timeout, message: "\nstep took longer than 10m\n  at x".to_owned(), step: Some(name("build")) });
    let found = told(&failed, &facts());
    holds(&found.text, &["in step build", "timeout", "step took longer than 10m;", "`hopyard runs rerun"]);
    assert_eq!((found.reason.as_deref(), found.since), (Some("timeout"), instant("2026-01-01T00:01:00Z")));

    let mut killed = state(RunStatus::Killed, None);
    let kill = |by: &str, reason: &str| {
        Some(Kill { at: created(), by: by.to_owned(), reason: Some(reason.to_owned()), force: false, failure: None })
    };
    killed.run.kill = kill("ada", "wrong branch");
    let found = told(&killed, &facts());
    holds(&found.text, &["by ada (wrong branch)"]);
    assert_eq!(found.reason, None);
    killed.run.kill = kill("hopyard", "dependency_failed");
    assert_eq!(told(&killed, &facts()).reason.as_deref(), Some("dependency_failed"));

    let mut completed = state(RunStatus::Completed, None);
    completed.run.started_at = Some(instant("2026-01-01T00:00:56.7Z"));
    holds(&told(&completed, &facts()).text, &["completed after 3.3 s", "`hopyard runs logs"]);
    completed.run.result = Some(GitResult {
        base: "a".to_owned(),
        head: "b".to_owned(),
        branch: "hopyard/wf/1".to_owned(),
        files: Vec::new(),
        insertions: 0,
        deletions: 0,
        patch: None,
        bundle: None,
    });
    holds(&told(&completed, &facts()).text, &["branch hopyard/wf/1", "`hopyard runs checkout"]);
}

#[test]
fn without_a_scheduler_nothing_else_matters() {
    let facts = Facts { scheduler: false, ..facts() };
    let found = told(&state(RunStatus::Pending, Some(PendingReason::AwaitingExecutor)), &facts);
    holds(&found.text, &["no scheduler is alive", "`hopyard scheduler`"]);
    assert_eq!(found.blockers[0].code, "no_scheduler");
    assert!(!told(&state(RunStatus::Completed, None), &facts).text.contains("no scheduler"));
}
