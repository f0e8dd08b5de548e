//! The birth of a run: what a submission that passed the door becomes.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use hopyard_contract::event::EventType;
use hopyard_contract::message::NewRun;
use hopyard_contract::plan::{Plan, WorkspaceMode};
use hopyard_contract::run::{Kill, Run, RunState, Slot, StepState};
use hopyard_contract::status::{PendingReason, RunStatus, StepStatus};
use hopyard_contract::{Name, RunId, Usage, template};
use serde_json::json;

use super::scope::View;
use super::{Change, Decision, Reply};

/// A submission and what the store knows about what it names.
pub struct Birth<'a> {
    /// Tenant.
    pub namespace: &'a Name,
    /// The submission.
    pub new: &'a NewRun,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Statuses of the runs in `after`; all are known.
    pub parents: &'a HashMap<RunId, RunStatus>,
    /// A kill that came before the run.
    pub tombstone: Option<Kill>,
    /// Trace that it belongs to.
    pub trace_id: Option<String>,
}

/// Makes the run and takes its first steps.
pub fn birth(birth: &Birth<'_>, now: DateTime<Utc>) -> Decision {
    let (request, plan) = (&birth.new.request, &birth.plan);
    let created_at = DateTime::from_timestamp_millis(birth.new.run_id.unix_millis()).unwrap_or(now);
    let pool = request.pool.clone().unwrap_or_else(Name::default_pool);
    let time_limit =
        [plan.timeout, plan.budget.as_ref().and_then(|b| b.time), request.budget.as_ref().and_then(|b| b.time)].into_iter().flatten().min();
    let run = Run {
        id: birth.new.run_id,
        namespace: birth.namespace.clone(),
        workflow: birth.new.workflow.clone(),
        definition_hash: birth.new.definition_hash.clone(),
        plan_hash: birth.new.plan_hash.clone(),
        status: RunStatus::Pending,
        pending_reason: Some(PendingReason::AwaitingDependencies),
        paused_reason: None,
        failure_code: None,
        error: None,
        labels: request.labels.clone(),
        inputs: request.inputs.clone(),
        repo: request.repo.clone(),
        commit: None,
        priority: request.priority,
        pool: pool.clone(),
        session: request.session.clone(),
        after: request.after.clone(),
        after_open: request.after.clone(),
        after_policy: request.after_policy,
        start_at: request.start_at,
        budget: merged_budget(plan, birth.new, time_limit),
        budget_warned: false,
        rerun_of: request.rerun_of,
        replay: request.replay,
        recordings: birth.new.recordings.clone(),
        slots: Vec::new(),
        kill: birth.tombstone.clone(),
        created_at,
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
        trace_id: birth.trace_id.clone(),
    };
    let steps = plan
        .steps
        .iter()
        .map(|step| StepState {
            id: step.id.clone(),
            status: StepStatus::Pending,
            pending_reason: Some(PendingReason::AwaitingDependencies),
            paused_reason: None,
            failure_code: None,
            error: None,
            pool: step.pool.clone().unwrap_or_else(|| pool.clone()),
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
            outputs: Default::default(),
            usage: Usage::default(),
            before: None,
            result: None,
        })
        .collect();
    let state = RunState { run, steps, attempts: Vec::new(), plan: plan.clone(), timer: None };
    let mut change = Change { state, events: Vec::new(), effects: Vec::new(), reply: Reply::None, resumed_by: None, purse: None, now };
    change.state.run.slots = slots(&change.state);
    change.event(
        EventType::RunAccepted,
        None,
        None,
        json!({"workflow": birth.new.workflow, "priority": request.priority, "rerun_of": request.rerun_of, "replay": request.replay.then_some(true)}),
    );
    if let Some(kill) = &birth.tombstone {
        change.event(EventType::RunKillRequested, None, None, json!({"by": kill.by, "reason": kill.reason}));
    }
    change.look_at_parents(birth.parents);
    change.progress();
    change.state.timer = change.timer();
    Decision { next: change.state, events: change.events, effects: change.effects, reply: change.reply }
}

/// The smaller of both limits counts, whatever stands where.
fn merged_budget(plan: &Plan, new: &NewRun, time: Option<hopyard_contract::duration::Span>) -> Option<hopyard_contract::plan::Budget> {
    let both = [plan.budget.as_ref(), new.request.budget.as_ref()];
    let smallest = |pick: fn(&hopyard_contract::plan::Budget) -> Option<u64>| both.iter().filter_map(|b| b.and_then(pick)).min();
    let budget = hopyard_contract::plan::Budget { cost_microusd: smallest(|b| b.cost_microusd), turns: smallest(|b| b.turns), time };
    (budget != hopyard_contract::plan::Budget::default()).then_some(budget)
}

/// Keys that bound this run: the workflow's concurrency key and, for a persistent workspace, its session.
fn slots(state: &RunState) -> Vec<Slot> {
    let run = &state.run;
    let mut slots = Vec::new();
    if let Some(concurrency) = &state.plan.concurrency {
        let key = template::render(&concurrency.key, &View { state, step: None });
        slots.push(Slot { key: format!("{}/key/{key}", run.namespace), limit: concurrency.limit, policy: concurrency.policy, held: false });
    }
    if let (WorkspaceMode::Persistent, Some(session)) = (state.plan.workspace.mode, &run.session) {
        let repo = run.repo.as_ref().map(|r| r.url.as_str()).unwrap_or_default();
        slots.push(Slot { key: format!("{}/session/{session}/{repo}", run.namespace), limit: 1, policy: Default::default(), held: false });
    }
    slots
}
