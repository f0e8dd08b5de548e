//! One lock per repository, held across tasks of this process and across processes on the same volume.

use std::fs::File;
use std::path::PathBuf;
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
    // Closing the file frees its lock; declared first so that the file is free before the next task asks.
    _file: File,
    _mutex: OwnedMutexGuard<()>,
}

impl RepoLock {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { mutex: Arc::default(), file }
    }

    /// Waits for both locks. The mutex comes first, so at most one thread per repository waits for the file.
    pub(crate) async fn hold(&self) -> Result<Guard> {
        let mutex = Arc::clone(&self.mutex).lock_owned().await;
        let path = self.file.clone();
        let file = tokio::task::spawn_blocking(move || {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(|source| Error::io("open lock file", &path, source))?;
            file.lock().map_err(|source| Error::io("lock", &path, source))?;
            Ok::<_, Error>(file)
        })
        .await
        .map_err(|_| Error::Aborted { what: "waiting for a repository lock" })??;
        Ok(Guard { _file: file, _mutex: mutex })
    }
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
        drop(guard);
        second.await.expect("free again");
    }
}
