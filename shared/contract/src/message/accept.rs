//! Submissions that passed the door, and the definitions they name.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::recording::Recordings;
use crate::id::{Name, RunId};
use crate::plan::Plan;
use crate::problem::FieldError;
use crate::submit::{RunRequest, Verdict};

/// `accept`: submissions that passed the door.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Accept {
    /// One entry per submitted body.
    pub submissions: Vec<Submission>,
}

/// One submitted body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Submission {
    /// Tenant.
    pub namespace: Name,
    /// Set for bodies from the command stream, which get a stored receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptHead>,
    /// Whether somebody was told the ids of the runs, so that they have to stay findable even where a key made another run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub promised: bool,
    /// When the door took it.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub received_at: DateTime<Utc>,
    /// The runs, in the order of the body.
    pub items: Vec<SubmissionItem>,
}

/// Identity of a body from the command stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptHead {
    /// Stream sequence.
    pub seq: u64,
    /// Stream time in nanoseconds; sequences start again after a wipe.
    pub time_ns: i64,
}

/// One run of a submitted body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubmissionItem {
    /// The door found nothing wrong.
    Run(Box<NewRun>),
    /// The door refused it.
    Rejected(Vec<FieldError>),
    /// It asked for something else than a run, which is done: a cancel. Only the receipt is missing.
    Done(Verdict),
}

/// A run to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NewRun {
    /// Minted once by the door.
    pub run_id: RunId,
    /// The request, inputs with defaults filled in, without its inline definition.
    pub request: RunRequest,
    /// Name of the workflow.
    pub workflow: Name,
    /// Hash of the definition's text.
    pub definition_hash: String,
    /// Hash of the plan, stored before by `put_definition`.
    pub plan_hash: String,
    /// Hash of the request as it was sent, to tell a repeat from a conflict.
    pub request_hash: String,
    /// What its steps play instead of asking models, if it is a replay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recordings: Recordings,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Answer to `accept`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AcceptReply {
    /// Verdicts by submission, in order.
    pub submissions: Vec<Vec<Verdict>>,
}

/// `put_definition`: a definition and its plan, before runs name them by hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PutDefinition {
    /// Tenant.
    pub namespace: Name,
    /// Name of the workflow.
    pub name: Name,
    /// The definition's text.
    pub source: String,
    /// Its hash.
    pub definition_hash: String,
    /// The plan.
    pub plan: Plan,
    /// Its hash.
    pub plan_hash: String,
    /// Whether the name shall point to it; false for a run's own definition.
    pub register: bool,
    /// Only when the name points to this hash now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
}

/// Answer to `put_definition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PutDefinitionReply {
    /// The name is new; also for definitions that are not registered.
    Created {
        /// Version of the name.
        version: u32,
    },
    /// The name has a new version.
    Updated {
        /// Version of the name.
        version: u32,
    },
    /// The name points to this definition already.
    Unchanged {
        /// Version of the name.
        version: u32,
    },
    /// `if_match` did not hold.
    Mismatch,
}
