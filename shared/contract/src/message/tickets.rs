//! Hints: something is claimable, or may be removed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Name;

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
