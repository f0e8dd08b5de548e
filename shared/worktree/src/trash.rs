//! Where directories go before they are deleted: one rename frees the name, deleting may take its time.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

/// Start of the names given to directories that cannot be moved to the trash (another file system).
const ASIDE: &str = ".hopyard-trash-";

/// The trash directory of a host.
#[derive(Debug, Clone)]
pub(crate) struct Trash {
    root: PathBuf,
}

/// A name no two calls of this host share.
pub(crate) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{nanos}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Trash {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Moves `path` (itself, never what a link points to) out of the way; `None` if nothing is there.
    pub(crate) fn take(&self, path: &Path, label: &str) -> Result<Option<PathBuf>> {
        let name = format!("{label}-{}", unique());
        let target = self.root.join(&name);
        match fs::rename(path, &target) {
            Ok(()) => Ok(Some(target)),
            Err(error) if error.kind() == ErrorKind::NotFound || error.kind() == ErrorKind::NotADirectory => Ok(None),
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let target = path.with_file_name(format!("{ASIDE}{name}"));
                fs::rename(path, &target).map_err(|source| Error::io("rename", path, source))?;
                Ok(Some(target))
            }
            Err(source) => Err(Error::io("rename to trash", path, source)),
        }
    }

    /// Takes and deletes `path`; returns the bytes freed, 0 if nothing was there.
    pub(crate) async fn discard(&self, path: &Path, label: &str) -> Result<u64> {
        match self.take(path, label)? {
            Some(taken) => self.delete(taken).await,
            None => Ok(0),
        }
    }

    /// Deletes something [`Trash::take`] returned; anything else is refused.
    pub(crate) async fn delete(&self, taken: PathBuf) -> Result<u64> {
        self.check(&taken)?;
        tokio::task::spawn_blocking(move || remove(&taken)).await.map_err(|_| Error::Aborted { what: "deleting trash" })?
    }

    /// Deletes what was in the way of something else; failing that is no failure of the other, and
    /// [`Trash::empty`] tries again.
    pub(crate) async fn try_delete(&self, taken: Option<PathBuf>) {
        let Some(taken) = taken else { return };
        if let Err(error) = self.delete(taken).await {
            tracing::warn!(%error, "left in the trash");
        }
    }

    /// Deletes everything in the trash directory.
    pub(crate) async fn empty(&self) -> Result<u64> {
        let entries = fs::read_dir(&self.root).map_err(|source| Error::io("list", &self.root, source))?;
        let mut freed = 0;
        for entry in entries {
            let path = entry.map_err(|source| Error::io("list", &self.root, source))?.path();
            freed += self.delete(path).await?;
        }
        Ok(freed)
    }

    /// The directory that holds `taken`, links resolved, must be the trash itself, or `taken` must carry our name.
    fn check(&self, taken: &Path) -> Result<()> {
        let refused = || Error::Invalid { what: "trash entry", value: taken.display().to_string() };
        let (Some(parent), Some(name)) = (taken.parent(), taken.file_name()) else {
            return Err(refused());
        };
        let real = |path: &Path| path.canonicalize().map_err(|source| Error::io("resolve", path, source));
        let aside = name.to_string_lossy().starts_with(ASIDE);
        if aside || real(parent)? == real(&self.root)? { Ok(()) } else { Err(refused()) }
    }
}

/// Deletes a tree without following links; directories a step made unwritable are opened first.
fn remove(path: &Path) -> Result<u64> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(Error::io("inspect", path, source)),
    };
    if !meta.is_dir() {
        fs::remove_file(path).map_err(|source| Error::io("delete", path, source))?;
        return Ok(size(&meta));
    }
    let freed = open_up(path, &meta)?;
    // The standard library walks by directory handles here, so a link swapped in is not followed.
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(freed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(freed),
        Err(source) => Err(Error::io("delete", path, source)),
    }
}

/// Counts the bytes below `root` and makes its directories writable.
fn open_up(root: &Path, meta: &fs::Metadata) -> Result<u64> {
    let mut freed = size(meta);
    let mut waiting = vec![(root.to_owned(), meta.permissions().mode())];
    while let Some((dir, mode)) = waiting.pop() {
        if mode & 0o700 != 0o700 {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode | 0o700)).map_err(|source| Error::io("open up", &dir, source))?;
        }
        let entries = fs::read_dir(&dir).map_err(|source| Error::io("list", &dir, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| Error::io("list", &dir, source))?;
            let meta = entry.metadata().map_err(|source| Error::io("inspect", &entry.path(), source))?;
            freed += size(&meta);
            if meta.is_dir() {
                waiting.push((entry.path(), meta.permissions().mode()));
            }
        }
    }
    Ok(freed)
}

/// Bytes on disk of a tree.
pub(crate) fn bytes_below(root: &Path) -> Result<u64> {
    let meta = root.symlink_metadata().map_err(|source| Error::io("inspect", root, source))?;
    open_up(root, &meta)
}

/// Bytes on disk that go with this name; a file with other names stays.
fn size(meta: &fs::Metadata) -> u64 {
    if meta.is_dir() || meta.nlink() == 1 { meta.blocks() * 512 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn links_and_read_only_directories_are_deleted_without_being_followed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let trash = Trash::new(dir.path().join("trash"));
        fs::create_dir(dir.path().join("trash")).expect("trash");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).expect("outside");
        fs::write(outside.join("keep"), "x").expect("file");
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("locked/deep")).expect("tree");
        fs::write(tree.join("locked/deep/file"), vec![1; 9000]).expect("file");
        std::os::unix::fs::symlink(&outside, tree.join("locked/link")).expect("link");
        fs::set_permissions(tree.join("locked"), fs::Permissions::from_mode(0o500)).expect("permissions");

        let freed = trash.discard(&tree, "ws").await.expect("deleted");
        assert!(freed >= 9000, "{freed}");
        assert!(!tree.exists());
        assert!(outside.join("keep").exists());
        assert_eq!(fs::read_dir(dir.path().join("trash")).expect("trash").count(), 0);

        // A link in place of the tree: the link goes, its target stays.
        std::os::unix::fs::symlink(&outside, &tree).expect("link");
        trash.discard(&tree, "ws").await.expect("deleted");
        assert!(tree.symlink_metadata().is_err());
        assert!(outside.join("keep").exists());
        assert!(trash.delete(outside.clone()).await.is_err(), "nothing outside of the trash is deleted");
        assert_eq!(trash.discard(&tree, "ws").await.expect("nothing there"), 0);
    }
}
