//! Files and connections: names, pragmas, pools and the lock that makes the scheduler the only writer.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::{FsType, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, statfs};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqlitePool};

use super::fault::fault;
use crate::{Error, Result};

/// How long a connection waits for another process that writes or recovers the file.
const BUSY: Duration = Duration::from_secs(5);
/// Read-only connections of one process.
const READERS: u32 = 4;
/// Network file systems that `statfs` names but `nix` does not: CIFS and SMB2.
const CIFS_MAGICS: [u64; 2] = [0xff53_4d42, 0xfe53_4d42];

/// The file of an owner.
pub(super) fn path(directory: &Path, owner: &str) -> PathBuf {
    directory.join(format!("{owner}.db"))
}

/// Options for writing. A commit is on disk before it is acknowledged: `synchronous=FULL`.
pub(super) fn writing(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(false)
        .busy_timeout(BUSY)
}

/// Options for reading: never makes a file, never changes one.
pub(super) fn reading(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(file).create_if_missing(false).foreign_keys(false).busy_timeout(BUSY).pragma("query_only", "on")
}

/// Connections live as long as their pool: they cost nothing while idle, and their statements stay prepared.
///
/// A full disk ends a transaction inside SQLite, where the driver still counts it, and such a connection could never begin
/// another one: it is given up.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(0)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
}

/// Readers of the scheduler's file, opened when first used.
pub(super) fn readers(directory: &Path) -> SqlitePool {
    pool(READERS).connect_lazy_with(reading(&path(directory, "runs")))
}

/// The metrics service's connection, opened when first used.
pub(super) fn metrics(directory: &Path) -> SqlitePool {
    pool(1).connect_lazy_with(writing(&path(directory, "metrics")))
}

/// The scheduler's one writing connection.
pub(super) async fn writer(directory: &Path) -> Result<SqlitePool> {
    pool(1).connect_with(writing(&path(directory, "runs"))).await.map_err(fault)
}

/// Takes the lock that makes this process the only scheduler of the directory; it is held while the file is open.
pub(super) fn lock_scheduler(directory: &Path) -> Result<File> {
    let path = directory.join("scheduler.lock");
    let file = open_lock(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(path.display().to_string())),
        Err(TryLockError::Error(e)) => Err(Error::Unavailable(format!("cannot lock {}: {e}", path.display()))),
    }
}

/// Waits until no other process migrates the directory.
pub(super) async fn lock_migrations(directory: &Path) -> Result<File> {
    let path = directory.join("migrate.lock");
    let wait = move || {
        let file = open_lock(&path)?;
        file.lock().map_err(|e| Error::Unavailable(format!("cannot lock {}: {e}", path.display())))?;
        Ok(file)
    };
    tokio::task::spawn_blocking(wait).await.map_err(|e| Error::Unavailable(format!("the wait for the migration lock ended early: {e}")))?
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| Error::Unavailable(format!("cannot open {}: {e}", path.display())))
}

/// Refuses directories on network file systems: the write-ahead log needs memory that all its processes share.
pub(super) fn refuse_network(directory: &Path) -> Result<()> {
    let found = statfs(directory).map_err(|e| Error::Unavailable(format!("cannot look at {}: {e}", directory.display())))?;
    let FsType(kind) = found.filesystem_type();
    // Magic numbers are 32 bits wide; the field is wider, and signed, on some platforms.
    let kind = u64::from(kind as u32);
    let known = [NFS_SUPER_MAGIC, SMB_SUPER_MAGIC].into_iter().any(|FsType(magic)| u64::from(magic as u32) == kind);
    if known || CIFS_MAGICS.contains(&kind) {
        return Err(Error::Url(format!(
            "{} is on a network file system; an embedded store needs a local disk, a shared one PostgreSQL",
            directory.display()
        )));
    }
    Ok(())
}
