//! Leases while they last: renewals, pins, kills and orders.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::{AttemptId, Name, RunId};
use crate::status::{UnknownWord, words};
use crate::usage::Usage;

/// `renew`: all attempts of an executor at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Renew {
    /// Executor.
    pub executor: Name,
    /// Its attempts.
    pub leases: Vec<Renewal>,
}

/// One attempt of a renewal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Renewal {
    /// The attempt.
    pub attempt: AttemptId,
    /// Secret of the lease.
    pub token: Uuid,
    /// Cumulative usage.
    pub usage: Usage,
    /// Length of its log so far.
    #[serde(default)]
    pub log_bytes: u64,
}

/// Answer to `renew`, in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RenewReply {
    /// One per attempt.
    pub leases: Vec<RenewAnswer>,
}

/// What became of one lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RenewAnswer {
    /// Whether it goes on.
    pub state: LeaseState,
    /// The run shall end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<KillOrder>,
    /// What it may spend; no limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<Allowance>,
}

/// What an attempt may spend on models, in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Allowance {
    /// Money in millionths of a US dollar, from the beginning of the attempt.
    pub microusd: u64,
    /// Nothing is left of the budget, so that it will not become more.
    pub spent: bool,
    /// The shared budget that nothing is left of, where that of the run has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedBudget>,
}

/// A budget of a day that runs share, and of which nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedBudget {
    /// Whose it is.
    pub scope: BudgetScope,
    /// When there is more.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub until: DateTime<Utc>,
}

words! {
    /// Who shares a budget.
    BudgetScope {
        /// All runs of a namespace.
        Namespace = "namespace",
        /// Runs of a workflow.
        Workflow = "workflow",
        /// Runs on a repository.
        Repository = "repository",
    }
}

/// Whether a lease goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// It goes on.
    Ok,
    /// It is over; nothing more of this attempt counts.
    Stale,
    /// The result of the attempt is committed.
    Settled,
}

/// An order to end an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KillOrder {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Without grace.
    pub force: bool,
}

/// Core message `hopyard.ctl.<executor>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// End an attempt, or never start it.
    Kill {
        /// The run.
        run: RunId,
        /// The order.
        order: KillOrder,
    },
    /// Bound steps are claimable.
    Ring,
    /// Take no new work.
    Drain,
    /// Results of these attempts are committed.
    Settled {
        /// The attempts.
        attempts: Vec<AttemptId>,
    },
}

/// `pin`: the first workspace says which commit a ref was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pin {
    /// The attempt that asks.
    pub attempt: AttemptId,
    /// Secret of its lease.
    pub token: Uuid,
    /// The commit.
    pub commit: String,
}

/// Answer to `pin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PinReply {
    /// The commit everyone uses.
    Pinned(String),
    /// The lease is over.
    Stale,
}

/// `kill`: end a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KillRun {
    /// Tenant.
    pub namespace: Name,
    /// The run.
    pub run: RunId,
    /// Who asks.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Without grace.
    pub force: bool,
}

/// Answer to `kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KillReply {
    /// The flag is committed; a pending run has ended.
    Requested,
    /// The flag was there before.
    Repeated,
    /// The run had ended.
    AlreadyFinal,
    /// The run is not known yet; if it comes, it is born killed.
    Tombstone,
    /// No such run.
    Unknown,
}
