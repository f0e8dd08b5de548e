//! Claims and what they grant.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::lease::Allowance;
use crate::id::{AttemptId, Name};
use crate::plan::{Work, WorkspaceMode};
use crate::run::BlobRef;

/// `claim`: an executor asks for attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// Repeated with the same id until it is answered.
    pub claim_id: Uuid,
    /// Executor.
    pub executor: Name,
    /// Host.
    pub host: Name,
    /// Pool.
    pub pool: Name,
    /// Free slots.
    pub free: u32,
}

/// Answer to `claim`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimReply {
    /// Attempts that are now leased.
    pub grants: Vec<Grant>,
    /// Whether more was claimable.
    pub more: bool,
}

/// The right and the order to carry out one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Grant {
    /// The attempt.
    pub attempt: AttemptId,
    /// Secret of the lease.
    pub token: Uuid,
    /// Length of the lease, counted from the sending of the claim.
    pub lease_ms: u64,
    /// Tenant.
    pub namespace: Name,
    /// Name of the workflow.
    pub workflow: Name,
    /// What to do.
    pub work: Work,
    /// Environment, rendered.
    pub env: BTreeMap<String, String>,
    /// What a person answered to the question that the attempt before ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Longest time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Longest time without output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// Between TERM and KILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// Where to work.
    pub workspace: WorkspaceOrder,
    /// What it may spend on models; no limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<Allowance>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// The workspace of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceOrder {
    /// Kind.
    pub mode: WorkspaceMode,
    /// Number of the workspace within the run.
    pub generation: u32,
    /// Repository URL; a scratch directory if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Ref to resolve when no commit is pinned.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The pinned commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Work of an earlier generation to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    /// Commit to reset tracked files to: this is a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_to: Option<String>,
    /// Named session of a persistent workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Name>,
    /// The variant that has it to itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<Name>,
    /// Branch that keeps the work.
    pub branch: String,
}

/// The last uploaded work of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restore {
    /// Commit.
    pub commit: String,
    /// Bundle that holds it; absent when the commit is the base itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BlobRef>,
    /// Commit of the repository that the bundle builds on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}
