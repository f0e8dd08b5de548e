//! Reads for an audit: everything that is recorded, page by page, each read short and read-only.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::run::{RunState, WorkspaceRow};
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};

use crate::Result;

/// What an audit may see. Every read is a snapshot of its own and takes at most 2 s.
#[async_trait]
pub trait AuditReader: Send + Sync {
    /// Runs with an id at or above `from`, in order of id.
    async fn runs_from(&self, from: RunId, limit: u32) -> Result<Vec<RunId>>;

    /// Unended runs with an id at or above `from` and below `to`, in order of id.
    async fn open_runs(&self, from: RunId, to: RunId, limit: u32) -> Result<Vec<RunId>>;

    /// Pages of events behind a place, in order of time: which runs were touched since.
    async fn touched(&self, behind: &Touch, limit: u32) -> Result<Vec<Touch>>;

    /// Whole states with all of their events, all of one moment. The states are as they are stored: a run that waits for a
    /// slot does not say so here. Unknown ids are absent.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) when a stored document does not fit its shape.
    async fn histories(&self, ids: &[RunId]) -> Result<Histories>;

    /// Idempotency keys behind a place, in order of namespace and key.
    async fn keys(&self, behind: Option<(&Name, &str)>, limit: u32) -> Result<Vec<AuditedKey>>;

    /// Receipts of command stream messages behind a place (sequence, stream time in ns), in that order.
    async fn receipts(&self, behind: (u64, i64), limit: u32) -> Result<Vec<(Receipt, i64)>>;

    /// Sequences between two, both included, that have a receipt whose stream time is not before `since_ns`; in order, once each.
    async fn receipt_numbers(&self, from: u64, to: u64, since_ns: i64) -> Result<Vec<u64>>;

    /// The lowest sequence with a receipt whose stream time is not before `since_ns`.
    async fn first_receipt(&self, since_ns: i64) -> Result<Option<u64>>;

    /// Runs that wanted to be looked at before an instant, longest overdue first.
    async fn overdue(&self, before: DateTime<Utc>, limit: u32) -> Result<Vec<Overdue>>;

    /// Slots that are held by more runs than the most generous of them allows.
    async fn crowded_slots(&self, limit: u32) -> Result<Vec<CrowdedSlot>>;

    /// Workspaces that have not been removed, behind an id, in order of id.
    async fn inventory(&self, behind: &str, limit: u32) -> Result<Vec<WorkspaceRow>>;

    /// Inventory rows by id.
    async fn inventory_of(&self, ids: &[String]) -> Result<Vec<WorkspaceRow>>;
}

/// A page of events: when it was committed, whose it is, and its first number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// When it was committed.
    pub at: DateTime<Utc>,
    /// The run.
    pub run: RunId,
    /// Number of its first event.
    pub first_seq: u64,
}

/// Runs with their events at one moment.
#[derive(Clone, Debug)]
pub struct Histories {
    /// The database's time.
    pub now: DateTime<Utc>,
    /// In order of id.
    pub runs: Vec<(RunState, Vec<Event>)>,
    /// Rows whose columns say something else than their documents: the run, and which row of it.
    pub differing: Vec<(RunId, String)>,
}

/// An idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedKey {
    /// Tenant.
    pub namespace: Name,
    /// The key.
    pub key: String,
    /// The run that it stands for.
    pub run: RunId,
    /// Whether that run is recorded in that namespace.
    pub known: bool,
}

/// A run that nobody has looked at in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The run.
    pub run: RunId,
    /// `timer` or `poke`.
    pub kind: String,
    /// When it wanted to be looked at.
    pub at: DateTime<Utc>,
}

/// A slot with too many holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrowdedSlot {
    /// Its key.
    pub key: String,
    /// How many hold it.
    pub holders: u64,
    /// How many may.
    pub limit: u64,
}
