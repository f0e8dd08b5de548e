//! A janitor's questions about what may go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{AttemptId, Name};

/// `workspaces`: a janitor asks what may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspacesQuery {
    /// Host.
    pub host: Name,
    /// Workspaces on its disk, as `<run>-g<k>`.
    pub found: Vec<String>,
    /// Whether only those are asked about, and `missing` stays empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_found: bool,
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
