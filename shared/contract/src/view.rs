//! What readers see: runs, steps, attempts, lists, explanations and health as the API answers them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{Name, RunId};
use crate::repository::RepoSpec;
use crate::run::{Attempt, BlobRef, GitResult, Question, Run, RunError, RunState, StepAnswer, StepState};
use crate::status::{AttemptStatus, FailureCode, PausedReason, PendingReason, RunStatus, StepKind, StepStatus};
use crate::usage::Usage;

mod health;
mod variant;

pub use health::{ComponentHealth, Health};
pub use variant::VariantView;

/// A run as every surface shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunView {
    /// Identifier.
    pub id: RunId,
    /// Tenant.
    pub namespace: Name,
    /// Name of the workflow.
    pub workflow: Name,
    /// Hash of the definition's text.
    pub definition_hash: String,
    /// Hash of the pinned plan.
    pub plan_hash: String,
    /// Status.
    pub status: RunStatus,
    /// Why it is pending.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pending_reason: Option<PendingReason>,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paused_reason: Option<PausedReason>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure_code: Option<FailureCode>,
    /// The failure in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<RunError>,
    /// User metadata.
    pub labels: BTreeMap<String, String>,
    /// Inputs, defaults filled in.
    pub inputs: serde_json::Map<String, serde_json::Value>,
    /// Repository and pinned commit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub repo: Option<RepoView>,
    /// 0 to 3.
    pub priority: u8,
    /// Pool of steps that ask for none.
    pub pool: Name,
    /// Named session.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Name>,
    /// Runs that have to end first.
    pub after: Vec<RunId>,
    /// Not before this time.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub start_at: Option<DateTime<Utc>>,
    /// Submission.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub created_at: DateTime<Utc>,
    /// First start of a step.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub started_at: Option<DateTime<Utc>>,
    /// End.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub finished_at: Option<DateTime<Utc>>,
    /// From the first start to the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duration_ms: Option<u64>,
    /// Sum over all attempts.
    pub usage: Usage,
    /// Reported after the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub late_usage: Option<Usage>,
    /// What it hands back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<ResultView>,
    /// The run that this one repeats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rerun_of: Option<RunId>,
    /// Whether it plays what was recorded of that one, and asks no model.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub replay: bool,
    /// When a cancel was committed.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub kill_requested_at: Option<DateTime<Utc>>,
    /// Who cancelled it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub killed_by: Option<String>,
    /// Why it was cancelled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kill_reason: Option<String>,
    /// Executor that holds its workspace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub executor: Option<Name>,
    /// Number of its workspace.
    pub generation: u32,
    /// Path of its workspace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workspace: Option<String>,
    /// Trace it belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_id: Option<String>,
    /// Steps, in the order of the plan; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub steps: Option<Vec<StepView>>,
}

/// Repository of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepoView {
    /// URL.
    pub url: String,
    /// Ref as requested.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none", default)]
    pub reference: Option<String>,
    /// Pinned commit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<String>,
}

/// What a run hands back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResultView {
    /// From its workspace; absent without a repository.
    #[serde(flatten)]
    pub git: Option<GitResult>,
    /// Outputs by step.
    pub outputs: BTreeMap<Name, BTreeMap<String, String>>,
}

/// A step as every surface shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// Id.
    pub id: Name,
    /// What it does.
    pub kind: StepKind,
    /// Status.
    pub status: StepStatus,
    /// Why it is pending.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pending_reason: Option<PendingReason>,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paused_reason: Option<PausedReason>,
    /// When it goes on by itself, if it is paused and does.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub resume_at: Option<DateTime<Utc>>,
    /// What it asks a person, or has asked last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub question: Option<Question>,
    /// What was answered to that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer: Option<StepAnswer>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure_code: Option<FailureCode>,
    /// The failure in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Steps it needs.
    pub needs: Vec<Name>,
    /// The variant that it belongs to, by the step of that variant's agent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub variant: Option<Name>,
    /// Of a step that chooses the best: how its variants stand.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub variants: Vec<VariantView>,
    /// First start.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub started_at: Option<DateTime<Utc>>,
    /// End.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub finished_at: Option<DateTime<Utc>>,
    /// From the first start to the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duration_ms: Option<u64>,
    /// What it wrote to its output file.
    pub outputs: BTreeMap<String, String>,
    /// Sum over its attempts.
    pub usage: Usage,
    /// Attempts, by number.
    pub attempts: Vec<AttemptView>,
}

/// An attempt as every surface shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptView {
    /// Number.
    pub n: u32,
    /// Status.
    pub status: AttemptStatus,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure_code: Option<FailureCode>,
    /// The failure in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// What is odd about it, such as a program whose own sums differ from what was counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
    /// Executor.
    pub executor: Name,
    /// Host.
    pub host: Name,
    /// Process id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workspace: Option<String>,
    /// Exit code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_code: Option<i32>,
    /// Signal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<i32>,
    /// Start of its process.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub started_at: Option<DateTime<Utc>>,
    /// End.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Usage.
    pub usage: Usage,
    /// Length of its log.
    pub log_bytes: u64,
    /// Its whole log, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log: Option<BlobRef>,
    /// Record of its agent: tools, session, the program's own sums.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub record: Option<BlobRef>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// Items.
    pub items: Vec<T>,
    /// Opaque; absent at the end.
    pub next_cursor: Option<String>,
}

/// Why a run is where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The run.
    pub run_id: RunId,
    /// Its status.
    pub status: RunStatus,
    /// The coded reason.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// One sentence that names the setting or command that helps.
    pub text: String,
    /// Since when.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub since: DateTime<Utc>,
    /// What it waits for.
    pub blockers: Vec<Blocker>,
    /// When it will be looked at again at the latest.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub next_check_at: Option<DateTime<Utc>>,
}

/// One thing that a run waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Blocker {
    /// The step that waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<Name>,
    /// Coded reason.
    pub code: String,
    /// In words.
    pub text: String,
    /// Runs it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub run_ids: Vec<RunId>,
    /// Key it waits for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// Pool it waits for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<Name>,
    /// Time it waits for.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "crate::time::maybe")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub until: Option<DateTime<Utc>>,
}

fn millis(from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> Option<u64> {
    u64::try_from((to? - from?).num_milliseconds().max(0)).ok()
}

impl RunView {
    /// The view of a whole run.
    pub fn of(state: &RunState) -> Self {
        let mut view = Self::of_row(&state.run);
        let outputs: BTreeMap<_, _> =
            state.steps.iter().filter(|s| !s.outputs.is_empty()).map(|s| (s.id.clone(), s.outputs.clone())).collect();
        if let Some(result) = &mut view.result {
            result.outputs = outputs;
        } else if !outputs.is_empty() {
            view.result = Some(ResultView { git: None, outputs });
        }
        view.steps = Some(state.steps.iter().map(|step| StepView::of(state, step)).collect());
        view
    }

    /// The view of a run without its steps, for lists.
    pub fn of_row(run: &Run) -> Self {
        Self {
            id: run.id,
            namespace: run.namespace.clone(),
            workflow: run.workflow.clone(),
            definition_hash: run.definition_hash.clone(),
            plan_hash: run.plan_hash.clone(),
            status: run.status,
            pending_reason: run.pending_reason,
            paused_reason: run.paused_reason,
            failure_code: run.failure_code,
            error: run.error.clone(),
            labels: run.labels.clone(),
            inputs: run.inputs.clone(),
            repo: run.repo.as_ref().map(|r: &RepoSpec| RepoView {
                url: r.url.clone(),
                reference: r.reference.clone(),
                commit: run.commit.clone(),
            }),
            priority: run.priority,
            pool: run.pool.clone(),
            session: run.session.clone(),
            after: run.after.clone(),
            start_at: run.start_at,
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            duration_ms: millis(run.started_at, run.finished_at),
            usage: run.usage,
            late_usage: run.late_usage,
            result: run.result.clone().map(|git| ResultView { git: Some(git), outputs: BTreeMap::new() }),
            rerun_of: run.rerun_of,
            replay: run.replay,
            kill_requested_at: run.kill.as_ref().map(|k| k.at),
            killed_by: run.kill.as_ref().filter(|_| run.status == RunStatus::Killed).map(|k| k.by.clone()),
            kill_reason: run.kill.as_ref().filter(|_| run.status == RunStatus::Killed).and_then(|k| k.reason.clone()),
            executor: run.executor.clone(),
            generation: run.generation,
            workspace: run.workspace.clone(),
            trace_id: run.trace_id.clone(),
            steps: None,
        }
    }
}

impl StepView {
    fn of(state: &RunState, step: &StepState) -> Self {
        let spec = state.plan.step(step.id.as_str());
        Self {
            id: step.id.clone(),
            kind: spec.map_or(StepKind::Shell, |s| s.work.kind()),
            status: step.status,
            pending_reason: step.pending_reason,
            paused_reason: step.paused_reason,
            resume_at: step.resume_at,
            question: step.question.clone(),
            answer: step.answer.clone(),
            failure_code: step.failure_code,
            error: step.error.clone(),
            needs: spec.map(|s| s.needs.clone()).unwrap_or_default(),
            variant: spec.and_then(|s| s.variant.clone()),
            variants: VariantView::all(state, step),
            started_at: step.started_at,
            finished_at: step.finished_at,
            duration_ms: millis(step.started_at, step.finished_at),
            outputs: step.outputs.clone(),
            usage: step.usage,
            attempts: state.attempts.iter().filter(|a| a.step == step.id).map(AttemptView::of).collect(),
        }
    }
}

impl AttemptView {
    fn of(attempt: &Attempt) -> Self {
        Self {
            n: attempt.n,
            status: attempt.status,
            failure_code: attempt.failure_code,
            error: attempt.error.clone(),
            note: attempt.note.clone(),
            executor: attempt.executor.clone(),
            host: attempt.host.clone(),
            pid: attempt.pid,
            workspace: attempt.workspace.clone(),
            exit_code: attempt.exit_code,
            signal: attempt.signal,
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
            usage: attempt.usage,
            log_bytes: attempt.log_bytes,
            log: attempt.log.clone(),
            record: attempt.record.clone(),
        }
    }
}

/// An executor as the API lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecutorView {
    /// Name.
    pub id: Name,
    /// Host.
    pub host: Name,
    /// Pool.
    pub pool: Name,
    /// Most attempts at once.
    pub slots: u32,
    /// Version of the program.
    pub version: String,
    /// `ready`, `draining` or `silent`.
    pub status: String,
    /// Free slots, by its last beat.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub free: Option<u32>,
    /// Attempts that it holds still because their lease is overdue, by its last beat.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frozen: Option<u32>,
    /// Last beat or hello.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub seen_at: DateTime<Utc>,
}

/// A workflow as the API lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowView {
    /// Name.
    pub name: Name,
    /// Version, from 1.
    pub version: u32,
    /// Hash of the definition's text.
    pub hash: String,
    /// When this version was stored.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub created_at: DateTime<Utc>,
    /// The definition's text; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub definition: Option<String>,
    /// The plan; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<serde_json::Value>,
}

/// What a definition says, or everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ParsedDefinition {
    /// Whether it can be stored and run.
    pub valid: bool,
    /// Name of the workflow.
    pub name: Option<Name>,
    /// Steps.
    pub step_count: u64,
    /// Triggers.
    pub trigger_count: u64,
    /// Hash of the text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hash: Option<String>,
    /// The plan it evaluates to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<crate::plan::Plan>,
    /// Everything that is wrong, with lines and columns.
    pub errors: Vec<crate::problem::FieldError>,
}
