//! One lock per repository, held across tasks of this process and across processes on the same volume.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{Error, Result};

/// A mutex for the tasks of this process plus a lock on a file for other processes.
#[derive(Debug, Clone)]
pub(crate) struct RepoLock {
    mutex: Arc<Mutex<()>>,
    file: PathBuf,
}

/// Both locks, until dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    file: File,
    _mutex: OwnedMutexGuard<()>,
}

impl Drop for Guard {
    /// Frees the file by hand, before the next task may ask: closing it does not as long as a program that was just started has
    /// a copy of the descriptor, which it loses only when it runs.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "a repository lock is freed when its file is closed");
        }
    }
}

impl RepoLock {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { mutex: Arc::default(), file }
    }

    /// Both locks, if nobody has one of them.
    pub(crate) fn try_hold(&self) -> Result<Option<Guard>> {
        let Ok(mutex) = Arc::clone(&self.mutex).try_lock_owned() else { return Ok(None) };
        let file = open(&self.file)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Guard { file, _mutex: mutex })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", &self.file, source)),
        }
    }

    /// Waits for both locks. The mutex comes first, so at most one thread per repository waits for the file.
    pub(crate) async fn hold(&self) -> Result<Guard> {
        let mutex = Arc::clone(&self.mutex).lock_owned().await;
        let path = self.file.clone();
        let file = tokio::task::spawn_blocking(move || {
            let file = open(&path)?;
            file.lock().map_err(|source| Error::io("lock", &path, source))?;
            Ok::<_, Error>(file)
        })
        .await
        .map_err(|_| Error::Aborted { what: "waiting for a repository lock" })??;
        Ok(Guard { file, _mutex: mutex })
    }
}

fn open(path: &Path) -> Result<File> {
    let options = || File::options().create(true).truncate(false).write(true).open(path);
    options().map_err(|source| Error::io("open lock file", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_holder_waits_for_the_first() {
        let dir = tempfile::tempdir().expect("temporary directory");
        // Two locks on one file stand for two processes.
        let here = RepoLock::new(dir.path().join("lock"));
        let there = RepoLock::new(dir.path().join("lock"));
        let guard = here.hold().await.expect("free");
        let mut second = Box::pin(there.hold());
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut second).await;
        assert!(early.is_err(), "the lock was given twice");
        assert!(here.try_hold().expect("asked").is_none(), "the lock was given twice");
        drop(guard);
        second.await.expect("free again");
    }

    #[tokio::test]
    async fn a_copy_of_the_descriptor_does_not_keep_a_lock() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let lock = RepoLock::new(dir.path().join("lock"));
        let guard = lock.hold().await.expect("free");
        // What a program has between its fork and its exec.
        let _copy = guard.file.try_clone().expect("copied");
        drop(guard);
        assert!(lock.try_hold().expect("asked").is_some(), "still held");
    }
}
