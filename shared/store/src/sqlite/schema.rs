//! Migrations of the embedded files, one set per owner.

use std::path::Path;

use sqlx::ConnectOptions;
use sqlx::Connection;
use sqlx::migrate::Migrator;

use super::fault::{changed, fault, migration_fault, newer};
use super::files;
use crate::migrations::Migrations;
use crate::migrations::sqlite::{INGEST, METRICS, RUNS};
use crate::open::takes_away;
use crate::{Error, Result};

/// Owners with the migrations of their files.
pub(super) static OWNERS: [(&str, &Migrations); 3] = [("runs", &RUNS), ("metrics", &METRICS), ("ingest", &INGEST)];

/// Makes the directory and brings every file up to date, one process at a time.
pub(super) async fn migrate(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|e| Error::Unavailable(format!("cannot make {}: {e}", directory.display())))?;
    files::refuse_network(directory)?;
    let _lock = files::lock_migrations(directory).await?;
    for (owner, migrator) in &OWNERS {
        if pending_of(directory, owner, migrator).await?.is_empty() {
            continue;
        }
        let options = files::writing(&files::path(directory, owner)).create_if_missing(true);
        let mut connection = options.connect().await.map_err(fault)?;
        migrator.run(&mut connection).await.map_err(|e| migration_fault(owner, e))?;
        connection.close().await.map_err(fault)?;
        tracing::info!(owner, directory = %directory.display(), "the schema has been migrated");
    }
    Ok(())
}

/// One line per migration that has not been applied.
pub(super) async fn pending(directory: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (owner, migrator) in &OWNERS {
        lines.extend(pending_of(directory, owner, migrator).await?);
    }
    Ok(lines)
}

/// Refuses to go on with an owner's file that is behind this build.
pub(super) async fn require(directory: &Path, owner: &str) -> Result<()> {
    for (name, migrator) in OWNERS.iter().filter(|(name, _)| *name == owner) {
        if let Some(first) = pending_of(directory, name, migrator).await?.first() {
            return Err(Error::Schema(format!("migration {first} of {} has not been applied; run hopyard migrate", directory.display())));
        }
    }
    Ok(())
}

async fn pending_of(directory: &Path, owner: &str, migrator: &Migrator) -> Result<Vec<String>> {
    let applied = applied(directory, owner).await?;
    for (version, name, checksum) in &applied {
        match migrator.iter().find(|m| m.version == *version) {
            None if takes_away(name) => return Err(newer(owner, *version)),
            None => {}
            Some(known) if known.checksum.as_ref() != checksum.as_slice() => return Err(changed(owner, *version)),
            Some(_) => {}
        }
    }
    let missing = migrator.iter().filter(|m| applied.iter().all(|(version, ..)| *version != m.version));
    Ok(missing.map(|m| format!("{owner} {:04} {}", m.version, m.description)).collect())
}

async fn applied(directory: &Path, owner: &str) -> Result<Vec<(i64, String, Vec<u8>)>> {
    let file = files::path(directory, owner);
    if !file.exists() {
        return Ok(Vec::new());
    }
    let mut connection = files::reading(&file).connect().await.map_err(fault)?;
    let known: i64 = sqlx::query_scalar("select count(*) from sqlite_schema where type = 'table' and name = '_sqlx_migrations'")
        .fetch_one(&mut connection)
        .await
        .map_err(fault)?;
    let applied = if known == 0 {
        Vec::new()
    } else {
        sqlx::query_as("select version, description, checksum from _sqlx_migrations order by version")
            .fetch_all(&mut connection)
            .await
            .map_err(fault)?
    };
    connection.close().await.map_err(fault)?;
    Ok(applied)
}
