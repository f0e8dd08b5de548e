//! State of a run as the store keeps it: the run, its steps and its attempts.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::{Name, RunId};
use crate::message::{Recordings, Restore};
use crate::plan::{Budget, ConcurrencyPolicy, Plan};
use crate::repository::RepoSpec;
use crate::status::{AttemptStatus, FailureCode, PausedReason, PendingReason, RunStatus, StepStatus};
use crate::submit::AfterPolicy;
use crate::usage::Usage;

mod workspace;

pub use workspace::{WorkspaceRow, WorkspaceStatus};

/// Everything a decision about one run looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    /// The run.
    pub run: Run,
    /// Its steps, in the order of the plan.
    pub steps: Vec<StepState>,
    /// Its attempts, ended ones included, by step and number.
    pub attempts: Vec<Attempt>,
    /// The pinned plan.
    pub plan: Arc<Plan>,
    /// When the run wants to be looked at next: its `due` row of kind `timer`.
    pub timer: Option<DateTime<Utc>>,
}

/// One execution of a workflow.
///
/// What is absent is not written. `finished_at`, `error` and `result` are: the database compares them in runs that have ended, and
/// rows of earlier builds have them as `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Identifier; carries the time of submission.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_reason: Option<PendingReason>,
    /// Why it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<PausedReason>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_code: Option<FailureCode>,
    /// The failure in words.
    pub error: Option<RunError>,
    /// User metadata.
    pub labels: BTreeMap<String, String>,
    /// Values of all inputs, defaults filled in.
    pub inputs: serde_json::Map<String, serde_json::Value>,
    /// Repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<RepoSpec>,
    /// The commit everyone uses, once the first workspace has pinned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// 0 to 3; 3 is the most urgent.
    pub priority: u8,
    /// Pool of steps that ask for none.
    pub pool: Name,
    /// Named session of a persistent workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Name>,
    /// Runs named in the request.
    pub after: Vec<RunId>,
    /// Those of them that had not ended when last looked at.
    pub after_open: Vec<RunId>,
    /// What happens when one of them does not complete.
    pub after_policy: AfterPolicy,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<DateTime<Utc>>,
    /// Limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Whether it was told that most of the budget is spent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub budget_warned: bool,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<RunId>,
    /// Whether it plays what was recorded of that one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replay: bool,
    /// What its steps play, by step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recordings: Recordings,
    /// Keys that bound how many runs are at work at once; taken at the first claim, given back at the end.
    pub slots: Vec<Slot>,
    /// A cancel, or the run's time limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<Kill>,
    /// Time of submission: the instant in the id.
    pub created_at: DateTime<Utc>,
    /// First start of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// End.
    pub finished_at: Option<DateTime<Utc>>,
    /// End of the run's time limit, counted from the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// Sum over all attempts.
    pub usage: Usage,
    /// Money and tokens reported after the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_usage: Option<Usage>,
    /// What the run hands back; latest snapshot while it runs, final afterwards.
    pub result: Option<GitResult>,
    /// Kept work of the session's earlier runs, which the first workspace starts from unless its directory is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    /// Number of the current workspace; 0 before the first.
    pub generation: u32,
    /// Executor that holds the current workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<Name>,
    /// Host of that executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Name>,
    /// Path of the current workspace on that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Number of the last event.
    pub event_seq: u64,
    /// Id of the trace that the run belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// A failure in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunError {
    /// Its code.
    pub code: FailureCode,
    /// Whole text, with causes.
    pub message: String,
    /// The step it happened in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Name>,
}

/// A key that bounds how many runs are at work at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Namespace-qualified key.
    pub key: String,
    /// Most holders at once.
    pub limit: u32,
    /// What a newcomer does when it is taken.
    pub policy: ConcurrencyPolicy,
    /// Whether this run holds it.
    pub held: bool,
}

/// A request to end a run that was committed before the run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// When it was committed.
    pub at: DateTime<Utc>,
    /// Who asked: a user, or `hopyard` for policies.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// Without grace and without waiting for blobs.
    pub force: bool,
    /// Set when the run ends `failed` with this code instead of `killed`: its time limit passed.
    pub failure: Option<FailureCode>,
}

/// State of one step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// Id within the plan.
    pub id: Name,
    /// Status.
    pub status: StepStatus,
    /// Why it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_reason: Option<PendingReason>,
    /// Why it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<PausedReason>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_code: Option<FailureCode>,
    /// The failure in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Pool that its attempts are claimed from.
    pub pool: Name,
    /// Only this executor may claim it: it holds the run's workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<Name>,
    /// Number of the last attempt.
    pub attempt: u32,
    /// Attempts that count against `retry`.
    pub failures: u32,
    /// Attempts lost with their executor.
    pub lost: u32,
    /// Grants that ran out before a process started.
    pub unstarted: u32,
    /// Pauses for a provider's limit since its agent last had a turn.
    #[serde(default)]
    pub pauses: u32,
    /// From when on it may be claimed; absent while it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimable_at: Option<DateTime<Utc>>,
    /// When it goes on by itself, of a step that is paused and does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_at: Option<DateTime<Utc>>,
    /// What it asks a person, or has asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Question>,
    /// What was answered to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<StepAnswer>,
    /// Its place in its queue: since when it waits for an executor. Kept while an executor has it, so that a step which is lost
    /// or handed back is next and not last; a retry queues anew. Absent: `claimable_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<DateTime<Utc>>,
    /// First start of an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// End.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// What it wrote to its output file.
    pub outputs: BTreeMap<String, String>,
    /// Sum over its attempts.
    pub usage: Usage,
    /// Commit of the workspace before its first attempt; a retry starts from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What the workspace of its variant held after its last attempt; that of all other steps is the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<GitResult>,
}

/// What a step asks a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// The question.
    pub text: String,
    /// When it was asked.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub asked_at: DateTime<Utc>,
    /// Until when an answer is waited for, if that has an end.
    #[serde(with = "crate::time::maybe", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub answer_by: Option<DateTime<Utc>>,
}

/// What a person answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepAnswer {
    /// Id of the answer: the same one again changes nothing.
    pub id: Uuid,
    /// Whether the run may go on.
    pub approved: bool,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Who.
    pub by: String,
    /// When.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
}

/// One try of a step on one executor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The step.
    pub step: Name,
    /// Number, from 1.
    pub n: u32,
    /// Status.
    pub status: AttemptStatus,
    /// Whether its step was paused at its end, by a question or a limit: the next attempt goes on where this one was.
    #[serde(default)]
    pub paused: bool,
    /// Executor that holds or held the lease.
    pub executor: Name,
    /// Its host.
    pub host: Name,
    /// Secret of the lease; compared with every word of the executor.
    pub token: Uuid,
    /// The claim that was answered with it.
    pub claim_id: Uuid,
    /// End of the lease by the database's clock.
    pub lease_until: DateTime<Utc>,
    /// When it was granted.
    pub leased_at: DateTime<Utc>,
    /// Whether `attempt.leased` has been written.
    pub announced: bool,
    /// When its process was reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Path of the directory it worked in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Workspace it belongs to.
    pub generation: u32,
    /// Exit code of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_code: Option<FailureCode>,
    /// The failure in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is odd about it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Cumulative usage.
    pub usage: Usage,
    /// What it may spend on models in all, in millionths of a US dollar; absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance_microusd: Option<u64>,
    /// Length of its log.
    pub log_bytes: u64,
    /// Its log, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<BlobRef>,
    /// Record of its agent: tools, session, the program's own sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<BlobRef>,
    /// Commit that keeps its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// Bytes in the blob store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlobRef {
    /// `sha256:<hex>`.
    pub digest: String,
    /// Length in bytes.
    pub size: u64,
}

/// What a run hands back from its workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GitResult {
    /// Commit the run started from.
    pub base: String,
    /// Commit with its work; equal to `base` when nothing changed.
    pub head: String,
    /// Branch that holds `head`.
    pub branch: String,
    /// Changed files.
    pub files: Vec<ChangedFile>,
    /// Lines added.
    pub insertions: u64,
    /// Lines removed.
    pub deletions: u64,
    /// The patch from `base` to `head`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<BlobRef>,
    /// A bundle with the branch; absent when nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BlobRef>,
}

/// A file that a run changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangedFile {
    /// Path from the root of the repository.
    pub path: String,
    /// `added`, `modified`, `deleted`, `renamed` or `typechange`.
    pub status: String,
    /// Lines added; 0 for binary files.
    pub insertions: u64,
    /// Lines removed; 0 for binary files.
    pub deletions: u64,
}

impl Run {
    /// The work that another workspace starts from; absent while nothing has been kept.
    pub fn kept_work(&self) -> Option<Restore> {
        let Some(result) = &self.result else { return self.restore.clone() };
        match &self.restore {
            // Nothing changed since: the earlier run's bundle holds the commit.
            Some(earlier) if result.bundle.is_none() && earlier.commit == result.head => Some(earlier.clone()),
            _ => Some(self.restore_of(result)),
        }
    }

    /// Kept work, for a workspace elsewhere: its bundle builds on the commit of the repository that the run, or its session, began with.
    pub fn restore_of(&self, work: &GitResult) -> Restore {
        let origin = self.restore.as_ref().and_then(|earlier| earlier.origin.clone()).or_else(|| self.commit.clone());
        Restore { commit: work.head.clone(), bundle: work.bundle.clone(), origin }
    }
}

impl RunState {
    /// The state of a step.
    pub fn step(&self, id: &str) -> Option<&StepState> {
        self.steps.iter().find(|s| s.id.as_str() == id)
    }

    /// The attempt that holds or held this lease.
    pub fn attempt(&self, step: &str, n: u32) -> Option<&Attempt> {
        self.attempts.iter().find(|a| a.n == n && a.step.as_str() == step)
    }

    /// The variant that a step belongs to.
    pub fn variant_of(&self, step: &str) -> Option<&Name> {
        self.plan.step(step)?.variant.as_ref()
    }

    /// Attempts of the current generation in the workspace of a variant, or in that of the run.
    pub fn attempts_in<'a>(&'a self, variant: Option<&'a Name>) -> impl Iterator<Item = &'a Attempt> {
        let here = move |attempt: &&Attempt| self.variant_of(attempt.step.as_str()) == variant;
        self.attempts.iter().filter(|attempt| attempt.generation == self.run.generation).filter(here)
    }

    /// Attempts that have not ended.
    pub fn live(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|a| !a.status.is_final())
    }
}
