//! Submissions: what any language sends to start runs, and the verdicts and receipts that answer it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{Name, RunId};
use crate::plan::Budget;
use crate::problem::FieldError;
use crate::repository::RepoSpec;

/// Most runs in one body.
pub const MAX_RUNS: usize = 500;
/// Largest body on the bus, in bytes.
pub const MAX_BUS_BODY: usize = 768 * 1024;
/// Largest body over HTTP, in bytes.
pub const MAX_HTTP_BODY: usize = 1024 * 1024;

/// A request for one run, as a door reads it after its checks.
// Doors refuse unknown fields by themselves; between services they are ignored, so only the published schema says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RunRequest {
    /// Version of this shape: 1.
    #[serde(default = "version")]
    #[schemars(range(min = 1, max = 1))]
    pub v: u32,
    /// Name of a stored workflow; exactly one of this and `definition`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Name>,
    /// An unregistered definition: YAML text or an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<serde_json::Value>,
    /// Values for the workflow's inputs.
    #[serde(default)]
    pub inputs: serde_json::Map<String, serde_json::Value>,
    /// The repository to work on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<RepoSpec>,
    /// A repeat with the same key is the same submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub idempotency_key: Option<String>,
    /// 0 to 3; 3 is the most urgent, 1 the default.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 0, max = 3))]
    pub priority: u8,
    /// Pool of executors for steps that ask for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// Named session of a persistent workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Name>,
    /// User metadata; routes nothing.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Runs that have to end first.
    #[serde(default)]
    pub after: Vec<RunId>,
    /// What happens when a run named in `after` does not complete.
    #[serde(default)]
    pub after_policy: AfterPolicy,
    /// Not before this time.
    #[serde(default, with = "crate::time::maybe", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub start_at: Option<DateTime<Utc>>,
    /// Limits for this run; the smaller of this and the workflow's counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<RunId>,
    /// Whether steps that ask models play what was recorded of them in `rerun_of`, and ask none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replay: bool,
}

fn version() -> u32 {
    1
}

fn default_priority() -> u8 {
    1
}

/// What happens to a run when one that it waits for does not complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AfterPolicy {
    /// It ends `killed` with the reason `dependency_failed`.
    #[default]
    Skip,
    /// It ends `failed` with the code `dependency_failed`.
    Fail,
    /// It runs all the same.
    RunAnyway,
}

/// Answer to one submitted run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The run; absent when rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// What became of it.
    pub status: VerdictStatus,
    /// Why it was rejected.
    #[serde(default)]
    pub errors: Vec<FieldError>,
}

impl Verdict {
    /// A run was made.
    pub fn accepted(run_id: RunId) -> Self {
        Self { run_id: Some(run_id), status: VerdictStatus::Accepted, errors: Vec::new() }
    }
    /// The same submission made this run before.
    pub fn duplicate(run_id: RunId) -> Self {
        Self { run_id: Some(run_id), status: VerdictStatus::Duplicate, errors: Vec::new() }
    }
    /// No run was made.
    pub fn rejected(errors: Vec<FieldError>) -> Self {
        Self { run_id: None, status: VerdictStatus::Rejected, errors }
    }
}

/// What became of one submitted run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerdictStatus {
    /// A run was made.
    Accepted,
    /// The same submission made a run before.
    Duplicate,
    /// Refused, with coded reasons.
    Rejected,
}

/// Something a submitter should know although the submission was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// Stable code, such as `no_executor`.
    pub code: String,
    /// One sentence that names the setting or command that helps.
    pub message: String,
}

/// Answer of the HTTP API to one submitted run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Submitted {
    /// The run.
    pub run_id: RunId,
    /// `accepted` or `duplicate`.
    pub status: VerdictStatus,
    /// False when the bus has taken it but no scheduler has committed it yet; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<bool>,
    /// What a submitter should know.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// Answer to several submitted runs, over HTTP and to an immediate submission on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubmittedBatch {
    /// Version of this shape: 1; only on the bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v: Option<u32>,
    /// One verdict per run, in the order of the body; pointers in errors start at the run, not at the body.
    pub items: Vec<Verdict>,
    /// False when the bus has taken some of it but no scheduler has committed that yet; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<bool>,
    /// What a submitter should know.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// The lasting answer to one submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// Version of this shape: 1.
    pub v: u32,
    /// The run id, or the decimal sequence in the command stream.
    pub id: String,
    /// Sequence in the command stream, for submissions over the bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The tenant.
    pub namespace: Name,
    /// When the door took it.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub received_at: DateTime<Utc>,
    /// One verdict per run, in the order of the body.
    pub items: Vec<Verdict>,
    /// Whether it asked to end a run; its verdict names that run, which may not have come yet. Absent otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
}

/// A request to end a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Version of this shape: 1.
    #[serde(default = "version")]
    pub v: u32,
    /// The run; in the path over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Kill at once, without a grace period and without waiting for blobs.
    #[serde(default)]
    pub force: bool,
}
