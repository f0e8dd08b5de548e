//! A few connections to one file, each opened when it is first needed, for work beside the asynchronous threads.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::{Error, Result};

/// Longest that a read may take, its wait for a connection included.
const LIMIT: Duration = Duration::from_secs(2);

/// Connections that live as long as the pool: they cost nothing while idle, and their statements stay prepared.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    file: Arc<PathBuf>,
    open: fn(&std::path::Path) -> Result<Connection>,
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// A connection of a pool; dropping it gives up both.
struct Taken {
    connection: Connection,
    pool: Pool,
    _turn: OwnedSemaphorePermit,
}

impl Pool {
    /// Nothing is opened yet.
    pub(super) fn new(file: PathBuf, open: fn(&std::path::Path) -> Result<Connection>, connections: usize) -> Self {
        Self { file: Arc::new(file), open, turns: Arc::new(Semaphore::new(connections)), idle: Arc::default() }
    }

    /// Waits for a turn, which one connection goes with.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        self.turns.clone().acquire_owned().await.map_err(|e| Error::Unavailable(e.to_string()))
    }

    async fn take(&self) -> Result<Taken> {
        let turn = self.turn().await?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let (open, file) = (self.open, self.file.clone());
                beside(move || open(&file)).await?
            }
        };
        Ok(Taken { connection, pool: self.clone(), _turn: turn })
    }

    /// Works with a connection for as long as that takes.
    pub(super) async fn work<T: Send + 'static>(&self, work: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let taken = self.take().await?;
        beside(move || taken.finish(work)).await
    }

    /// Reads with a connection; a read that takes longer than 2 s is interrupted.
    pub(super) async fn read<T: Send + 'static>(&self, read: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let limit = Instant::now() + LIMIT;
        let late = || Error::Unavailable("a read took longer than 2 s".to_owned());
        let taken = timeout_at(limit, self.take()).await.map_err(|_| late())??;
        let interrupt = taken.connection.get_interrupt_handle();
        match timeout_at(limit, beside(move || taken.finish(read))).await {
            Ok(outcome) => outcome,
            Err(_) => {
                interrupt.interrupt();
                Err(late())
            }
        }
    }

    /// The same in one snapshot: all statements see the same moment.
    pub(super) async fn snapshot<T: Send + 'static>(&self, read: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        self.read(|connection| {
            let snapshot = connection.unchecked_transaction().map_err(super::fault::fault)?;
            read(&snapshot)
        })
        .await
    }
}

impl Taken {
    /// Works, and gives the connection back.
    fn finish<T>(self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let outcome = work(&self.connection);
        let Self { connection, pool, _turn } = self;
        if connection.is_autocommit() {
            pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        outcome
    }
}

/// Runs what waits for a disk on a thread that may wait.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|e| Err(Error::Unavailable(format!("work on the store ended early: {e}"))))
}
