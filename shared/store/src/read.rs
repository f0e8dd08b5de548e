//! Read-only access for the other services: one statement per read where possible, 2 s limit, never a lock.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::run::{Run, RunState, Slot, WorkspaceRow, WorkspaceStatus};
use hopyard_contract::status::RunStatus;
use hopyard_contract::submit::Receipt;
use hopyard_contract::view::WorkflowView;
use hopyard_contract::{Name, RunId, Usage};

use crate::Result;
use crate::runs::{Claimable, ExecutorRow};

/// What ingest and metrics may see.
#[async_trait]
pub trait Reader: Send + Sync {
    /// One run with steps and attempts, by its id or a further one that a submitter was told. A pending run whose slot is held by others shows `awaiting_slot`.
    async fn run(&self, namespace: &Name, id: RunId) -> Result<Option<RunState>>;

    /// Runs, newest first.
    async fn runs(&self, namespace: &Name, filter: &RunFilter) -> Result<Vec<Run>>;

    /// Events of a run with a number above `after`, in order.
    async fn events(&self, namespace: &Name, id: RunId, after: u64, limit: u32) -> Result<Vec<Event>>;

    /// A stored receipt by command stream sequence (the newest of that sequence).
    async fn receipt(&self, namespace: &Name, seq: u64) -> Result<Option<Receipt>>;

    /// Newest version of each workflow by name; names above `after`.
    async fn workflows(&self, namespace: &Name, after: Option<&Name>, limit: u32) -> Result<Vec<WorkflowView>>;

    /// One workflow with definition and plan: the newest version if `version` is absent.
    async fn workflow(&self, namespace: &Name, name: &Name, version: Option<u32>) -> Result<Option<WorkflowView>>;

    /// Versions of a workflow, newest first, without texts.
    async fn workflow_versions(&self, namespace: &Name, name: &Name) -> Result<Vec<WorkflowView>>;

    /// Definition text by hash.
    async fn definition(&self, namespace: &Name, hash: &str) -> Result<Option<String>>;

    /// Executors that have said hello.
    async fn executors(&self) -> Result<Vec<ExecutorRow>>;

    /// Workspaces of a namespace, newest first; those removed only on request.
    async fn workspaces(&self, namespace: &Name, status: Option<WorkspaceStatus>, limit: u32) -> Result<Vec<WorkspaceRow>>;

    /// Sums of usage of runs created in a range, by workflow.
    async fn usage(&self, namespace: &Name, from: DateTime<Utc>, to: DateTime<Utc>, by: UsageBy) -> Result<Vec<UsageRow>>;

    /// Unended runs that hold the slot.
    async fn slot_holders(&self, slot: &Slot) -> Result<Vec<RunId>>;

    /// Statuses of runs by id.
    async fn statuses(&self, namespace: &Name, ids: &[RunId]) -> Result<Vec<(RunId, RunStatus)>>;

    /// What could be claimed now.
    async fn claimable(&self) -> Result<Vec<Claimable>>;

    /// Unended runs by status and namespace.
    async fn live_counts(&self) -> Result<Vec<(Name, RunStatus, u64)>>;

    /// Age of the oldest outbox row in ms; 0 when there is none.
    async fn outbox_age_ms(&self) -> Result<u64>;

    /// Events committed since an instant (inclusive), over all runs, ordered by commit time, run and sequence: `limit` pages,
    /// and the rest of the last one's instant, so that 1 µs after the last `at` is where to go on.
    async fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>>;

    /// How long it takes to get a connection of the pool: what every read waits for before its statement runs.
    async fn wait(&self) -> Result<Duration>;

    /// Tables and the version of the schema, for `doctor`.
    async fn schema(&self) -> Result<Vec<(String, i64)>>;
}

/// Which runs to list.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Any of these.
    pub statuses: Vec<RunStatus>,
    /// Name of the workflow.
    pub workflow: Option<Name>,
    /// Repository URL.
    pub repo: Option<String>,
    /// Named session.
    pub session: Option<Name>,
    /// Every one of these labels.
    pub labels: Vec<(String, String)>,
    /// Submitted at or after.
    pub created_after: Option<DateTime<Utc>>,
    /// Submitted before.
    pub created_before: Option<DateTime<Utc>>,
    /// Ids below this one: the next page.
    pub below: Option<RunId>,
    /// Most runs.
    pub limit: u32,
}

/// What usage is summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageBy {
    /// The workflow.
    Workflow,
    /// The repository.
    Repository,
}

/// Usage of one workflow or one repository in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Name of the workflow, or URL of the repository; empty for runs without one.
    pub name: String,
    /// Runs.
    pub runs: u64,
    /// Sum.
    pub usage: Usage,
}
