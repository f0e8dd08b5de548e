//! What a mirror holds: its workspaces, read in-process and without changing anything.

use std::path::PathBuf;

use git2::WorktreeLockStatus;

use crate::Result;
use crate::mirror::Mirror;

/// One workspace as the mirror knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Workspace id, `<run>-g<k>`.
    pub id: String,
    /// Its directory.
    pub path: PathBuf,
    /// Why it is locked; `None` if it is not.
    pub locked: Option<String>,
    /// True if the directory is gone, or was never made: [`Mirror::forget_missing`] drops the entry.
    pub missing: bool,
}

impl Mirror {
    /// All workspaces of this mirror, ordered by id.
    pub async fn inventory(&self) -> Result<Vec<Entry>> {
        let staging = self.shared().staging();
        self.read("worktrees", move |repo| {
            let mut entries = Vec::new();
            for name in &repo.worktrees()? {
                let Ok(Some(name)) = name else { continue };
                // Released between listing and reading: not part of the inventory any more.
                let Ok(worktree) = repo.find_worktree(name) else {
                    continue;
                };
                let locked = match worktree.is_locked()? {
                    WorktreeLockStatus::Unlocked => None,
                    WorktreeLockStatus::Locked(reason) => Some(reason.unwrap_or_default().trim().to_owned()),
                };
                let path = worktree.path().to_owned();
                let missing = path.starts_with(&staging) || path.symlink_metadata().is_err();
                entries.push(Entry { id: name.to_owned(), path, locked, missing });
            }
            entries.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(entries)
        })
        .await
    }
}
