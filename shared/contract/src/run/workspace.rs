//! Workspaces of runs, as the store lists them.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{Name, RunId};
use crate::status::{UnknownWord, words};

/// A workspace directory on a host, for the janitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceRow {
    /// A [`crate::id::WorkspaceId`].
    pub id: String,
    /// The run that made it.
    pub run_id: RunId,
    /// Tenant.
    pub namespace: Name,
    /// Number of the workspace within the run.
    pub generation: u32,
    /// Executor that made it.
    pub executor: Name,
    /// Host whose disk it is on.
    pub host: Name,
    /// Path on that host.
    pub path: String,
    /// Repository URL; absent for a scratch directory.
    pub repo: Option<String>,
    /// Named session; a persistent workspace.
    pub session: Option<Name>,
    /// Where it stands.
    pub status: WorkspaceStatus,
    /// When it was made.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub created_at: DateTime<Utc>,
    /// When it was removed.
    #[serde(with = "crate::time::maybe", default)]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub removed_at: Option<DateTime<Utc>>,
    /// Bytes freed by its removal.
    pub bytes: Option<u64>,
}

words! {
    /// Where a workspace stands.
    WorkspaceStatus {
        /// Its run is not over.
        Active = "active",
        /// A persistent workspace between runs.
        Kept = "kept",
        /// May be removed.
        Reclaimable = "reclaimable",
        /// Is gone.
        Removed = "removed",
    }
}
