//! Rows for the cases.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::event::{Event, EventType};
use hopyard_contract::message::{PutDefinition, Restore};
use hopyard_contract::plan::{Budget, ConcurrencyPolicy, PLAN_VERSION, Plan, ResultSpec, Step, Work, WorkspaceSpec};
use hopyard_contract::repository::RepoSpec;
use hopyard_contract::run::{
    Attempt, BlobRef, ChangedFile, GitResult, Kill, Run, RunError, Slot, StepState, WorkspaceRow, WorkspaceStatus,
};
use hopyard_contract::status::{AttemptStatus, FailureCode, PausedReason, PendingReason, RunStatus, StepStatus};
use hopyard_contract::submit::AfterPolicy;
use hopyard_contract::usage::Tokens;
use hopyard_contract::{Name, RunId, Usage};
use uuid::Uuid;

use crate::runs::RunWrite;

/// An instant with microseconds, `ms` after a fixed one.
pub(super) fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_767_225_600_123_456).unwrap() + TimeDelta::milliseconds(ms)
}

/// An id that carries an instant.
pub(super) fn id_at(at: DateTime<Utc>) -> RunId {
    let random: [u8; 10] = Uuid::now_v7().as_bytes()[6..].try_into().unwrap();
    RunId::from_uuid(uuid::Builder::from_unix_timestamp_millis(at.timestamp_millis().try_into().unwrap(), &random).into_uuid())
}

pub(super) fn plan() -> Plan {
    let step = |id: &'static str, needs: &[&'static str]| Step {
        id: Name::literal(id),
        needs: needs.iter().map(|n| Name::literal(n)).collect(),
        condition: None,
        pool: None,
        env: BTreeMap::new(),
        timeout: None,
        idle_timeout: None,
        grace: None,
        retry: None,
        variant: None,
        work: Work::Shell("true".to_owned()),
    };
    Plan {
        v: PLAN_VERSION,
        name: Name::literal("sample"),
        inputs: serde_json::Map::new(),
        workspace: WorkspaceSpec::default(),
        budget: None,
        concurrency: None,
        timeout: None,
        env: BTreeMap::new(),
        roles: Default::default(),
        steps: vec![step("a", &[]), step("b", &["a"])],
        result: ResultSpec::default(),
    }
}

pub(super) fn put(namespace: &Name, name: &str, source: &str, plan: &Plan, register: bool) -> PutDefinition {
    PutDefinition {
        namespace: namespace.clone(),
        name: name.parse().unwrap(),
        source: source.to_owned(),
        definition_hash: format!("hash-of-{source}"),
        plan: plan.clone(),
        plan_hash: plan.hash(),
        register,
        if_match: None,
    }
}

pub(super) fn run(namespace: &Name, pool: &Name, plan_hash: &str) -> Run {
    let id = RunId::mint();
    Run {
        id,
        namespace: namespace.clone(),
        workflow: Name::literal("sample"),
        definition_hash: "hash-of-text".to_owned(),
        plan_hash: plan_hash.to_owned(),
        status: RunStatus::Pending,
        pending_reason: Some(PendingReason::AwaitingExecutor),
        paused_reason: None,
        failure_code: None,
        error: None,
        labels: BTreeMap::new(),
        inputs: serde_json::Map::new(),
        repo: None,
        commit: None,
        priority: 1,
        pool: pool.clone(),
        session: None,
        after: Vec::new(),
        after_open: Vec::new(),
        after_policy: AfterPolicy::Skip,
        start_at: None,
        budget: None,
        budget_warned: false,
        rerun_of: None,
        replay: false,
        recordings: Default::default(),
        slots: Vec::new(),
        kill: None,
        created_at: DateTime::from_timestamp_millis(id.unix_millis()).unwrap(),
        started_at: None,
        finished_at: None,
        deadline: None,
        usage: Usage::default(),
        late_usage: None,
        result: None,
        restore: None,
        generation: 0,
        executor: None,
        host: None,
        workspace: None,
        event_seq: 0,
        trace_id: None,
    }
}

/// The run again, created at another time.
pub(super) fn created(mut run: Run, at: DateTime<Utc>) -> Run {
    run.id = id_at(at);
    run.created_at = at;
    run
}

/// The run as it has ended well.
pub(super) fn completed(run: &Run) -> Run {
    let mut run = run.clone();
    run.status = RunStatus::Completed;
    run.pending_reason = None;
    run.started_at = Some(at(1000));
    run.finished_at = Some(at(2000));
    run
}

/// The run as it is at work.
pub(super) fn running(run: &Run) -> Run {
    let mut run = run.clone();
    run.status = RunStatus::Running;
    run.pending_reason = None;
    run.started_at = Some(at(1000));
    run
}

pub(super) fn usage(n: u64) -> Usage {
    let tokens = Tokens { input: n, output: n + 1, cache_read: n + 2, cache_write: n + 3 };
    Usage { cost_microusd: Some(n * 10), tokens, turns: n + 4, tool_calls: n + 5 }
}

/// A paused run in which every field holds something.
pub(super) fn full_run(namespace: &Name, pool: &Name, plan_hash: &str) -> Run {
    let mut run = run(namespace, pool, plan_hash);
    run.status = RunStatus::Paused;
    run.pending_reason = None;
    run.paused_reason = Some(PausedReason::UsageLimit);
    run.error =
        Some(RunError {
            code: FailureCode::ExitCode, message: "ended with 1 — “ünïcode”\n".to_owned(), step: Some(Name::literal("a"))
        });
    run.labels = [("team".to_owned(), "a \"b\"".to_owned()), ("x.y".to_owned(), "z".to_owned())].into();
    let inputs = serde_json::json!({"text": "it's \\ \u{1f33f}", "list": [1, -2.5, null, {"deep": true}], "big": u64::MAX, "null": null});
    run.inputs = inputs.as_object().unwrap().clone();
    run.repo = Some(RepoSpec { url: "https://example.org/a.git".to_owned(), reference: Some("main".to_owned()) });
    run.commit = Some("0123456789abcdef0123456789abcdef01234567".to_owned());
    run.priority = 3;
    run.session = Some(Name::literal("nightly"));
    run.after = vec![RunId::mint(), RunId::mint()];
    run.after_open = vec![run.after[1]];
    run.after_policy = AfterPolicy::RunAnyway;
    run.start_at = Some(at(1));
    run.budget = Some(Budget { cost_microusd: Some(2_500_000), turns: Some(40), time: Some("30m".parse().unwrap()) });
    run.rerun_of = Some(RunId::mint());
    run.slots = vec![slot(&format!("{namespace}/key"), 2, true)];
    run.kill = Some(Kill {
        at: at(2),
        by: "someone".to_owned(),
        reason: Some("why".to_owned()),
        force: true,
        failure: Some(FailureCode::Timeout),
    });
    run.started_at = Some(at(3));
    run.deadline = Some(at(4));
    run.usage = usage(100);
    run.late_usage = Some(Usage { cost_microusd: None, ..usage(7) });
    let file = ChangedFile { path: "src/ä.rs".to_owned(), status: "modified".to_owned(), insertions: 3, deletions: 4 };
    run.result = Some(GitResult {
        base: "b".repeat(40),
        head: "c".repeat(40),
        branch: "hopyard/x/1".to_owned(),
        files: vec![file],
        insertions: 3,
        deletions: 4,
        patch: Some(blob()),
        bundle: Some(blob()),
    });
    run.restore = Some(Restore { commit: "e".repeat(40), bundle: Some(blob()), origin: Some("f".repeat(40)) });
    run.generation = 2;
    run.executor = Some(Name::literal("executor-1"));
    run.host = Some(Name::literal("host-1"));
    run.workspace = Some("/srv/workspaces/x".to_owned());
    run.event_seq = 2;
    run.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
    run
}

fn blob() -> BlobRef {
    BlobRef { digest: format!("sha256:{}", "d".repeat(64)), size: 123 }
}

pub(super) fn slot(key: &str, limit: u32, held: bool) -> Slot {
    Slot { key: key.to_owned(), limit, policy: ConcurrencyPolicy::CancelOlder, held }
}

pub(super) fn step(id: &str, pool: &Name) -> StepState {
    StepState {
        id: id.parse().unwrap(),
        status: StepStatus::Pending,
        pending_reason: Some(PendingReason::AwaitingDependencies),
        paused_reason: None,
        failure_code: None,
        error: None,
        pool: pool.clone(),
        bound_to: None,
        attempt: 0,
        failures: 0,
        lost: 0,
        unstarted: 0,
        pauses: 0,
        resume_at: None,
        question: None,
        answer: None,
        claimable_at: None,
        queued_at: None,
        started_at: None,
        finished_at: None,
        outputs: BTreeMap::new(),
        usage: Usage::default(),
        before: None,
        result: None,
    }
}

/// The step as it may be claimed from `at` on.
pub(super) fn claimable(mut step: StepState, at: DateTime<Utc>) -> StepState {
    step.pending_reason = Some(PendingReason::AwaitingExecutor);
    step.claimable_at = Some(at);
    step
}

/// A failed step in which every field holds something that fits.
pub(super) fn full_step(id: &str, pool: &Name) -> StepState {
    let mut step = step(id, pool);
    step.status = StepStatus::Failed;
    step.pending_reason = None;
    step.paused_reason = Some(PausedReason::Question);
    step.failure_code = Some(FailureCode::IdleTimeout);
    step.error = Some("no output".to_owned());
    step.bound_to = Some(Name::literal("executor-1"));
    (step.attempt, step.failures, step.lost, step.unstarted) = (4, 3, 2, 1);
    step.started_at = Some(at(5));
    step.finished_at = Some(at(6));
    step.outputs = [("k".to_owned(), "v=1".to_owned())].into();
    step.usage = usage(50);
    step.before = Some("e".repeat(40));
    step
}

/// A granted attempt.
pub(super) fn leased(step: &str, n: u32, claim_id: Uuid) -> Attempt {
    Attempt {
        step: step.parse().unwrap(),
        n,
        status: AttemptStatus::Leased,
        paused: false,
        note: None,
        executor: Name::literal("executor-1"),
        host: Name::literal("host-1"),
        token: Uuid::now_v7(),
        claim_id,
        lease_until: at(20_000),
        leased_at: at(0),
        announced: false,
        started_at: None,
        finished_at: None,
        pid: None,
        workspace: None,
        generation: 0,
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

/// An ended attempt in which every field holds something.
pub(super) fn full_attempt(step: &str, n: u32) -> Attempt {
    let mut attempt = leased(step, n, Uuid::now_v7());
    attempt.status = AttemptStatus::Failed;
    attempt.announced = true;
    attempt.started_at = Some(at(7));
    attempt.finished_at = Some(at(8));
    attempt.pid = Some(4242);
    attempt.workspace = Some("/srv/workspaces/x".to_owned());
    attempt.generation = 2;
    attempt.exit_code = Some(-1);
    attempt.signal = Some(9);
    attempt.failure_code = Some(FailureCode::OutOfMemory);
    attempt.error = Some("killed".to_owned());
    attempt.usage = Usage { cost_microusd: None, ..usage(9) };
    attempt.log_bytes = 5_000_000_000;
    attempt.log = Some(blob());
    attempt.snapshot = Some("f".repeat(40));
    attempt
}

pub(super) fn event(run: &Run, seq: u64, at: DateTime<Utc>) -> Event {
    Event {
        v: 1,
        id: format!("{}:{seq}", run.id),
        run_id: run.id,
        namespace: run.namespace.clone(),
        seq,
        kind: if seq == 1 { EventType::RunAccepted } else { EventType::AttemptRunning },
        at,
        step: (seq > 1).then(|| Name::literal("a")),
        attempt: (seq > 1).then_some(1),
        data: serde_json::json!({"n": seq, "text": "ü"}).as_object().unwrap().clone(),
    }
}

/// Only the row of an existing run.
pub(super) fn change(run: &Run) -> RunWrite {
    RunWrite { new: false, run: run.clone(), steps: Vec::new(), attempts: Vec::new(), events: Vec::new(), timer: None }
}

/// A new run with its steps.
pub(super) fn new_run(run: &Run, steps: &[StepState]) -> RunWrite {
    RunWrite { new: true, steps: (0..).zip(steps.iter().cloned()).collect(), ..change(run) }
}

pub(super) fn workspace(run: &Run, generation: u32, status: WorkspaceStatus, at: DateTime<Utc>) -> WorkspaceRow {
    WorkspaceRow {
        id: format!("{}-g{generation}", run.id),
        run_id: run.id,
        namespace: run.namespace.clone(),
        generation,
        executor: Name::literal("executor-1"),
        host: Name::literal("host-1"),
        path: format!("/srv/workspaces/{}-g{generation}", run.id),
        repo: run.repo.as_ref().map(|r| r.url.clone()),
        session: run.session.clone(),
        status,
        created_at: at,
        removed_at: (status == WorkspaceStatus::Removed).then_some(at),
        bytes: (status == WorkspaceStatus::Removed).then_some(77),
    }
}
