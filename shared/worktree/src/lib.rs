//! Git mirrors and the workspaces made from them: open, snapshot, diff, hand over, release, list.
//!
//! A repository is mirrored once per host as a bare repository; each workspace is a locked git worktree of that
//! mirror whose inner `.git` is a private directory of its own. Executors open, snapshot and hand over; janitors
//! list and release. Files of large repositories may wait in warm checkouts.
//!
//! This crate *never* reads configuration, hooks, filters or refs that code in a workspace could have written,
//! never fetches into `refs/heads`, never puts a token in a URL or an argument, never follows a link when it
//! deletes, and knows nothing of runs beyond the names it is given.

mod credentials;
mod diff;
mod error;
mod git;
mod inventory;
mod location;
mod lock;
mod merge;
mod mirror;
mod mirrors;
mod private;
mod reapply;
mod release;
mod resolve;
mod result;
mod snapshot;
mod trash;
mod warm;
mod workspace;

pub use credentials::{Credential, Token};
pub use diff::{DiffStat, FileChange, FileStatus};
pub use error::{Error, Result};
pub use git::Version;
pub use inventory::Entry;
pub use merge::{Merge, MergeOutcome};
pub use mirror::Mirror;
pub use mirrors::{Mirrors, Settings};
pub use result::PushOutcome;
pub use snapshot::{Snapshot, SnapshotCommit};
pub use warm::Warm;
pub use workspace::Workspace;

#[cfg(test)]
mod tests;
