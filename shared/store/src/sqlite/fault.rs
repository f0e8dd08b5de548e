//! What an SQLite error means to a caller.

use sqlx::migrate::MigrateError;

use crate::Error;

/// Primary result codes of SQLite that say more than "it failed".
const ERROR: i32 = 1;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const INTERRUPT: i32 = 9;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const CONSTRAINT: i32 = 19;
const NOTADB: i32 = 26;

/// Sorts an error of the driver by what can be done about it.
pub(super) fn fault(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(database) => {
            // The driver hands out extended codes; the low byte is the primary one.
            let code = database.code().and_then(|c| c.parse::<i32>().ok()).unwrap_or(ERROR) & 0xff;
            let message = database.message().to_owned();
            match code {
                BUSY | LOCKED => Error::Retry(message),
                CONSTRAINT => Error::Refused(message),
                CANTOPEN => Error::Schema(format!("{message}: the store has not been set up, or its directory may not be read")),
                CORRUPT | NOTADB => Error::Schema(message),
                READONLY | INTERRUPT | IOERR | FULL => Error::Unavailable(message),
                ERROR if message.starts_with("no such") || message.contains("has no column") => {
                    Error::Schema(format!("{message}: the store has not been migrated"))
                }
                _ => Error::Refused(message),
            }
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) | sqlx::Error::RowNotFound => {
            Error::Refused(error.to_string())
        }
        sqlx::Error::Configuration(_) => Error::Url(error.to_string()),
        _ => Error::Unavailable(error.to_string()),
    }
}

/// The same for migrations.
pub(super) fn migration_fault(owner: &str, error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(e) => fault(e),
        MigrateError::ExecuteMigration(e, version) => match fault(e) {
            transient @ (Error::Retry(_) | Error::Unavailable(_)) => transient,
            other => Error::Schema(format!("migration {version} of {owner}: {other}")),
        },
        MigrateError::VersionMissing(version) => newer(owner, version),
        MigrateError::VersionMismatch(version) => changed(owner, version),
        other => Error::Schema(format!("{owner}: {other}")),
    }
}

/// A migration is applied that this build does not know.
pub(super) fn newer(owner: &str, version: i64) -> Error {
    Error::Schema(format!("{owner} is at migration {version}, which is newer than this build"))
}

/// A migration was applied in another form.
pub(super) fn changed(owner: &str, version: i64) -> Error {
    Error::Schema(format!("migration {version} of {owner} was applied in another form than this build has"))
}
