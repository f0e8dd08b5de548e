//! The end of a workspace: renamed away, forgotten by the mirror, then deleted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use crate::inventory::Entry;
use crate::mirror::Mirror;
use crate::workspace::check_id;
use crate::{Error, Result};

/// A directory that may be moved to the trash: absolute, without `..`, and not the root, above it or in our own data.
pub(crate) fn check_target(root: &Path, path: &Path) -> Result<()> {
    let invalid = || Error::Invalid { what: "workspace path", value: path.display().to_string() };
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain || path.file_name().is_none() {
        return Err(invalid());
    }
    // The last part may be a link to be removed; what it stands in is what counts.
    let parent = path.parent().unwrap_or(path);
    let real = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
    let real = real.join(path.file_name().unwrap_or_default());
    let own = ["mirrors", "staging", "trash"].map(|dir| root.join(dir));
    if root.starts_with(&real) || own.iter().any(|own| real.starts_with(own)) {
        return Err(invalid());
    }
    Ok(())
}

impl Mirror {
    /// Removes the workspace `id` at `path` and its entry in the mirror; snapshots stay. Returns the bytes freed.
    ///
    /// Nothing left to remove is a success, also if somebody deleted the directory by hand.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the mirror knows this id at another place.
    pub async fn release(&self, path: &Path, id: &str) -> Result<u64> {
        check_id(id)?;
        check_target(&self.shared().root, path)?;
        if let Some(known) = self.place(id)
            && known != path
        {
            return Err(Error::Invalid { what: "workspace path, it lives elsewhere:", value: known.display().to_string() });
        }
        let taken = {
            let _guard = self.metadata_lock().hold().await?;
            let taken = self.shared().trash.take(path, id)?;
            self.forget(id).await?;
            taken
        };
        match taken {
            Some(taken) => self.shared().trash.delete(taken).await,
            None => Ok(0),
        }
    }

    /// Drops an entry whose directory is gone, or whose maker ended before it pointed the entry at the directory. One that has
    /// found its directory meanwhile is left alone.
    ///
    /// # Errors
    /// When the entry cannot be removed.
    pub async fn forget_missing(&self, entry: &Entry) -> Result<()> {
        // Whoever makes a workspace holds this until its entry is whole.
        let _guard = self.metadata_lock().hold().await?;
        let staged = entry.path.starts_with(self.shared().staging());
        let moved = self.place(&entry.id).is_some_and(|place| place != entry.path);
        if moved || (!staged && entry.path.symlink_metadata().is_ok()) {
            return Ok(());
        }
        if let Some(staging) = entry.path.parent().filter(|_| staged)
            && let Err(source) = fs::remove_dir_all(staging)
            && source.kind() != ErrorKind::NotFound
        {
            return Err(Error::io("delete", staging, source));
        }
        self.forget(&entry.id).await
    }

    /// Directory of a workspace's entry in the mirror.
    pub(crate) fn admin(&self, id: &str) -> PathBuf {
        self.dir().join("worktrees").join(id)
    }

    /// Where the mirror believes a workspace to be.
    fn place(&self, id: &str) -> Option<PathBuf> {
        let pointer = fs::read_to_string(self.admin(id).join("gitdir")).ok()?;
        Path::new(pointer.trim_end()).parent().map(Path::to_owned)
    }

    /// Unlocks and prunes the entry of a workspace whose directory is gone; the caller holds the metadata lock.
    pub(crate) async fn forget(&self, id: &str) -> Result<()> {
        let admin = self.admin(id);
        if admin.symlink_metadata().is_err() {
            return Ok(());
        }
        // `git worktree unlock` finds an entry by its directory, which is gone; unlocking is removing this file.
        let locked = admin.join("locked");
        match fs::remove_file(&locked) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(Error::io("unlock", &locked, source)),
        }
        self.git("worktree prune").args(["worktree", "prune", "--expire=now"]).ok().await?;
        // Pruning spares an entry whose directory has come back meanwhile; this id is given up all the same.
        self.shared().trash.discard(&admin, id).await.map(drop)
    }
}
