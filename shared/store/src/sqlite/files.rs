//! Files and connections: names, pragmas, pools and the lock that makes the scheduler the only writer.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::{FsType, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, statfs};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::fault::fault;
use super::pool::{Pool, beside};
use crate::{Error, Result};

/// How long a connection waits for another process that writes or recovers the file.
const BUSY: Duration = Duration::from_secs(5);
/// Read-only connections of one process.
pub(super) const READERS: usize = 4;
/// Statements that a connection keeps prepared: all that there are, but for lists with rare filters.
const STATEMENTS: usize = 128;
/// Network file systems that `statfs` names but `nix` does not: CIFS and SMB2.
const CIFS_MAGICS: [u64; 2] = [0xff53_4d42, 0xfe53_4d42];

/// The file of an owner.
pub(super) fn path(directory: &Path, owner: &str) -> PathBuf {
    directory.join(format!("{owner}.db"))
}

/// How a file is written. A commit is on disk before it is acknowledged: `synchronous = full`. A transaction of five hundred runs
/// fits into the cache, or its pages would be written once more each time that they are needed again. A new file has pages of
/// 8 KB: a row that is longer than a quarter of a page gets pages of its own, and those of most runs are not. What is in the log
/// is carried over every 4,000 pages. What a statement that fails in the middle would be taken back by stays in memory, and is not
/// written to a file beside.
const WRITING: &str = "pragma page_size = 8192; pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = off; \
     pragma temp_store = memory; pragma cache_size = -65536; pragma wal_autocheckpoint = 4000";

/// Opens a file for writing.
pub(super) fn writing(file: &Path) -> Result<Connection> {
    open(file, OpenFlags::empty(), WRITING)
}

/// The same, and makes the file if there is none.
pub(super) fn making(file: &Path) -> Result<Connection> {
    open(file, OpenFlags::SQLITE_OPEN_CREATE, WRITING)
}

/// Opens a file for reading: never makes it, never changes it.
pub(super) fn reading(file: &Path) -> Result<Connection> {
    open(file, OpenFlags::empty(), "pragma foreign_keys = off; pragma query_only = on")
}

fn open(file: &Path, further: OpenFlags, pragmas: &str) -> Result<Connection> {
    let connect = || {
        // Readers write, too: the marks by which the log is shared. A connection is used by one thread at a time.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | further;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // A statement keeps its plan, whatever is bound to it; else some are compiled anew for each set of values.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.execute_batch(pragmas)?;
        Ok(connection)
    };
    connect().map_err(fault)
}

/// Readers of the scheduler's file, opened when first used.
pub(super) fn readers(directory: &Path) -> Pool {
    Pool::new(path(directory, "runs"), reading, READERS)
}

/// The metrics service's connection, opened when first used.
pub(super) fn metrics(directory: &Path) -> Pool {
    Pool::new(path(directory, "metrics"), writing, 1)
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
    beside(move || {
        let file = open_lock(&path)?;
        file.lock().map_err(|e| Error::Unavailable(format!("cannot lock {}: {e}", path.display())))?;
        Ok(file)
    })
    .await
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
