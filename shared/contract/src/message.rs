//! Messages between the services; readers ignore unknown fields, so that versions may differ by one.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::{AttemptId, Name, RunId};
use crate::plan::{Plan, Work, WorkspaceMode};
use crate::problem::FieldError;
use crate::run::{BlobRef, GitResult};
use crate::status::FailureCode;
use crate::submit::{RunRequest, Verdict};
use crate::usage::Usage;

/// Version of every message of this module.
pub const MESSAGE_VERSION: u32 = 1;

/// A hint that a pool has claimable steps; it names none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ticket {
    /// Version.
    pub v: u32,
    /// The pool.
    pub pool: Name,
}

/// A hint that a host has workspaces to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GcTicket {
    /// Version.
    pub v: u32,
    /// The host.
    pub host: Name,
    /// Workspace that became reclaimable.
    pub workspace: String,
}

/// `hello`: an executor says who it is, at its start, after a reconnect and on change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// Executor.
    pub executor: Name,
    /// Random id of this process: a restarted executor has another one.
    pub incarnation: Uuid,
    /// Host.
    pub host: Name,
    /// Pool.
    pub pool: Name,
    /// Most attempts at once.
    pub slots: u32,
    /// Version of the program.
    pub version: String,
    /// Workspaces on its disk, as `<run>-g<k>`.
    pub workspaces: Vec<String>,
    /// Whether it takes no new work.
    pub draining: bool,
}

/// Answer to `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelloReply {
    /// Length of leases.
    pub lease_ms: u64,
    /// Time between renewals.
    pub renew_ms: u64,
}

/// Core message `hopyard.beat.<kind>.<id>`, every 5 s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Beat {
    /// `executor`, `scheduler`, `janitor`, `ingest` or `metrics`.
    pub kind: String,
    /// Name of the process.
    pub id: Name,
    /// Host.
    pub host: Name,
    /// Pool of an executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// Slots of an executor.
    #[serde(default)]
    pub slots: u32,
    /// Slots that are free.
    #[serde(default)]
    pub free: u32,
    /// Milliseconds since the last answered claim of an executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_ms_ago: Option<u64>,
    /// Whether it takes no new work.
    #[serde(default)]
    pub draining: bool,
    /// Version of the program.
    pub version: String,
    /// Free bytes on its data volume.
    #[serde(default)]
    pub disk_free: u64,
    /// Age of the oldest outbox row in ms (schedulers).
    #[serde(default)]
    pub outbox_ms: u64,
}

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
}

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

/// `workspaces`: a janitor asks what may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspacesQuery {
    /// Host.
    pub host: Name,
    /// Workspaces on its disk, as `<run>-g<k>`.
    pub found: Vec<String>,
}

/// Answer to `workspaces`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspacesReply {
    /// May be removed.
    pub reclaimable: Vec<ReclaimOrder>,
    /// Must stay.
    pub keep: Vec<String>,
    /// Not known to the store.
    pub unknown: Vec<String>,
    /// Known to the store as being on this host, but not found there.
    pub missing: Vec<String>,
}

/// A workspace that may be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReclaimOrder {
    /// `<run>-g<k>`.
    pub id: String,
    /// Repository URL; absent for a scratch directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Attempts that were lost here: leftovers are killed, work and logs are saved before removal.
    #[serde(default)]
    pub lost: Vec<AttemptId>,
}

/// `drain`: an executor shall take no new work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drain {
    /// The executor.
    pub executor: Name,
}

/// `resume`, `answer` and `status` carry nothing yet but this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusQuery {}

/// Answer to `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SchedulerStatus {
    /// The scheduler.
    pub id: Name,
    /// Age of the oldest outbox row in ms.
    pub outbox_ms: u64,
    /// Version of the program.
    pub version: String,
}

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

/// A dead letter: what could not be processed, with its reason and its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Version.
    pub v: u32,
    /// Stream it came from.
    pub stream: String,
    /// Subject it came from.
    pub subject: String,
    /// Sequence in that stream.
    pub seq: u64,
    /// Coded reason.
    pub code: String,
    /// The reason in words.
    pub detail: String,
    /// Deliveries so far.
    pub attempts: u64,
    /// The body in base64.
    pub body: String,
    /// When it was set aside.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
}

/// Body of a failed request between services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RpcError {
    /// Stable code: `busy`, `bad_request`, `store_unavailable`.
    pub code: String,
    /// In words.
    pub detail: String,
}

/// Envelope of every answer between services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RpcAnswer<T> {
    /// It was done.
    Ok(T),
    /// It was not.
    Error(RpcError),
}
