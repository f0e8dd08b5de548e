//! What an SQLite error means to a caller.

use rusqlite::ErrorCode;

use crate::Error;

/// Sorts an error of the driver by what can be done about it.
pub(super) fn fault(error: rusqlite::Error) -> Error {
    let message = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Retry(message),
        Some(ErrorCode::ConstraintViolation) => Error::Refused(message),
        Some(ErrorCode::CannotOpen) => Error::Schema(format!("{message}: the store has not been set up, or its directory may not be read")),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Schema(message),
        Some(ErrorCode::ReadOnly | ErrorCode::OperationInterrupted | ErrorCode::SystemIoFailure | ErrorCode::DiskFull) => {
            Error::Unavailable(message)
        }
        Some(_) if message.starts_with("no such") || message.contains("has no column") => {
            Error::Schema(format!("{message}: the store has not been migrated"))
        }
        // What the driver itself objects to: a value of another type than was asked for.
        Some(_) | None => Error::Refused(message),
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
