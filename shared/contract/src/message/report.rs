//! What executors and janitors report about attempts and workspaces.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::{AttemptId, Name};
use crate::run::{BlobRef, GitResult};
use crate::status::{FailureCode, PausedReason};
use crate::usage::Usage;

/// What an executor or janitor says about attempts and workspaces; published in arrays of at most 64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reports {
    /// Version.
    pub v: u32,
    /// Executor or janitor.
    pub from: Name,
    /// In order.
    pub reports: Vec<Report>,
}

/// One thing that an executor or janitor says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "reports live for one message")]
pub enum Report {
    /// The process runs.
    Started(Started),
    /// The attempt is over and its work is kept.
    Finished(Finished),
    /// A lost attempt's work was saved.
    WorkspaceSaved(WorkspaceSaved),
    /// A workspace is gone.
    WorkspaceRemoved(WorkspaceRemoved),
}

/// The process of an attempt runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// The attempt.
    pub attempt: AttemptId,
    /// Secret of its lease.
    pub token: Uuid,
    /// Process id.
    pub pid: u32,
    /// Path of its directory.
    pub workspace: String,
    /// Commit of the workspace before the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// When, by the executor's clock.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
}

/// An attempt is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finished {
    /// The attempt.
    pub attempt: AttemptId,
    /// Secret of its lease.
    pub token: Uuid,
    /// How it ended.
    pub outcome: Outcome,
    /// Process id, if one ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Path of its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// When the process was started, by the executor's clock.
    #[serde(with = "crate::time::maybe", default)]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, by the executor's clock.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub finished_at: DateTime<Utc>,
    /// Exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// What the step wrote to its output file.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// Final usage.
    pub usage: Usage,
    /// Length of its log.
    pub log_bytes: u64,
    /// Its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<BlobRef>,
    /// Record of its agent: tools, session, the program's own sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<BlobRef>,
    /// What is odd about it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Commit that keeps its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Commit of the workspace before the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The run's work so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<GitResult>,
}

impl Finished {
    /// An attempt that is over, and of which nothing more is known yet.
    pub fn new(attempt: AttemptId, token: Uuid, outcome: Outcome, finished_at: DateTime<Utc>) -> Self {
        Self {
            attempt,
            token,
            outcome,
            pid: None,
            workspace: None,
            started_at: None,
            finished_at,
            exit_code: None,
            signal: None,
            outputs: BTreeMap::new(),
            usage: Usage::default(),
            log_bytes: 0,
            log: None,
            record: None,
            note: None,
            snapshot: None,
            before: None,
            result: None,
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Well.
    Completed,
    /// Badly.
    Failed {
        /// Why.
        code: FailureCode,
        /// In words, whole.
        message: String,
    },
    /// Its models take no more calls for long: the step goes on where it was once they do again.
    Limited {
        /// Whose limit it is.
        #[serde(default = "usage_limit")]
        reason: PausedReason,
        /// When that is, by the provider's word or a guess, on the clock of `finished_at`.
        #[serde(with = "crate::time::instant")]
        #[schemars(with = "DateTime<Utc>")]
        until: DateTime<Utc>,
        /// In words, whole.
        message: String,
    },
    /// Well, and it has a question: the step goes on once a person has answered.
    Asked {
        /// The question.
        question: String,
    },
    /// By a kill order.
    Killed,
    /// Given back without counting against anything: the executor drains.
    HandedBack,
    /// Its executor died and is back: what was left is kept, and the attempt counts as lost.
    Lost,
}

/// A lost attempt's work was saved by the janitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceSaved {
    /// The attempt.
    pub attempt: AttemptId,
    /// Commit that keeps its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Bundle of the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BlobRef>,
    /// Its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<BlobRef>,
    /// Length of its log.
    #[serde(default)]
    pub log_bytes: u64,
    /// What its calls of models used, by the ledger in its spool.
    #[serde(default)]
    pub usage: Usage,
}

/// A workspace is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceRemoved {
    /// `<run>-g<k>`.
    pub id: String,
    /// Host.
    pub host: Name,
    /// Bytes freed.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

fn usage_limit() -> PausedReason {
    PausedReason::UsageLimit
}
