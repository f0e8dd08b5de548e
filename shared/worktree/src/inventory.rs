//! What a mirror holds: its workspaces, read in-process and without changing anything; and entries that stand for none.

use std::fs;
use std::path::PathBuf;

use git2::WorktreeLockStatus;

use crate::mirror::Mirror;
use crate::{Error, Result};

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
        let staging = self.staging();
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

    /// Drops an entry whose directory is gone, or whose maker ended before it pointed the entry at the directory. One that has
    /// found its directory meanwhile is left alone.
    ///
    /// # Errors
    /// When the entry cannot be removed.
    pub async fn forget_missing(&self, entry: &Entry) -> Result<()> {
        // Whoever makes a workspace holds this until its entry is whole.
        let _guard = self.metadata_lock().hold().await?;
        let staged = entry.path.starts_with(self.staging());
        let moved = self.place(&entry.id).is_some_and(|place| place != entry.path);
        if moved || (!staged && entry.path.symlink_metadata().is_ok()) {
            return Ok(());
        }
        if let Some(staging) = entry.path.parent().filter(|_| staged)
            && let Err(source) = fs::remove_dir_all(staging)
            && source.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Error::io("delete", staging, source));
        }
        self.forget(&entry.id).await
    }

    /// Where entries are until they are whole.
    fn staging(&self) -> PathBuf {
        self.shared().root.join("staging")
    }
}
