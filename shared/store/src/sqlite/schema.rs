//! Migrations of the embedded files, one set per owner.

use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, params};
use sqlx::migrate::{Migration, Migrator};

use super::fault::{changed, fault, newer};
use super::files;
use super::pool::beside;
use super::statement::{execute, rows, value};
use crate::migrations::Migrations;
use crate::migrations::sqlite::{INGEST, METRICS, RUNS};
use crate::open::takes_away;
use crate::{Error, Result};

/// Owners with the migrations of their files.
pub(super) static OWNERS: [(&str, &Migrations); 3] = [("runs", &RUNS), ("metrics", &METRICS), ("ingest", &INGEST)];

/// What a file remembers of its migrations; the name and shape that stores of before have.
const LEDGER: &str = "create table if not exists _sqlx_migrations (version bigint primary key, description text not null, \
     installed_on timestamp not null default current_timestamp, success boolean not null, checksum blob not null, execution_time bigint not null)";

/// Makes the directory and brings every file up to date, one process at a time.
pub(super) async fn migrate(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|e| Error::Unavailable(format!("cannot make {}: {e}", directory.display())))?;
    files::refuse_network(directory)?;
    let lock = files::lock_migrations(directory).await?;
    let directory = directory.to_owned();
    beside(move || {
        let _lock = lock;
        for (owner, migrator) in &OWNERS {
            if pending_of(&directory, owner, migrator)?.is_empty() {
                continue;
            }
            let connection = files::making(&files::path(&directory, owner))?;
            execute(&connection, LEDGER, [])?;
            let applied = applied(&directory, owner)?;
            for migration in migrator.iter().filter(|m| applied.iter().all(|(version, ..)| *version != m.version)) {
                apply(&connection, owner, migration)?;
            }
            tracing::info!(owner, directory = %directory.display(), "the schema has been migrated");
        }
        Ok(())
    })
    .await
}

/// One migration and the note that it was applied: both or none.
fn apply(connection: &Connection, owner: &str, migration: &Migration) -> Result<()> {
    let began = Instant::now();
    let transaction = connection.unchecked_transaction().map_err(fault)?;
    transaction.execute_batch(migration.sql.as_str()).map_err(|error| match fault(error) {
        transient @ (Error::Retry(_) | Error::Unavailable(_)) => transient,
        other => Error::Schema(format!("migration {} of {owner}: {other}", migration.version)),
    })?;
    execute(
        &transaction,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (?1, ?2, true, ?3, ?4)",
        params![
            migration.version,
            migration.description,
            migration.checksum,
            i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX)
        ],
    )?;
    transaction.commit().map_err(fault)
}

/// One line per migration that has not been applied.
pub(super) async fn pending(directory: &Path) -> Result<Vec<String>> {
    let directory = directory.to_owned();
    beside(move || {
        let mut lines = Vec::new();
        for (owner, migrator) in &OWNERS {
            lines.extend(pending_of(&directory, owner, migrator)?);
        }
        Ok(lines)
    })
    .await
}

/// Refuses to go on with an owner's file that is behind this build.
pub(super) fn require(directory: &Path, owner: &str) -> Result<()> {
    for (name, migrator) in OWNERS.iter().filter(|(name, _)| *name == owner) {
        if let Some(first) = pending_of(directory, name, migrator)?.first() {
            return Err(Error::Schema(format!("migration {first} of {} has not been applied; run hopyard migrate", directory.display())));
        }
    }
    Ok(())
}

fn pending_of(directory: &Path, owner: &str, migrator: &Migrator) -> Result<Vec<String>> {
    let applied = applied(directory, owner)?;
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

fn applied(directory: &Path, owner: &str) -> Result<Vec<(i64, String, Vec<u8>)>> {
    let file = files::path(directory, owner);
    if !file.exists() {
        return Ok(Vec::new());
    }
    let connection = files::reading(&file)?;
    let known = value::<i64>(&connection, "select count(*) from sqlite_schema where type = 'table' and name = '_sqlx_migrations'", [])?;
    if known == Some(0) {
        return Ok(Vec::new());
    }
    rows(&connection, "select version, description, checksum from _sqlx_migrations order by version", [])
}
