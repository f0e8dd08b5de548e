//! Statements on a connection: prepared once, run on the thread that asks.

use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row};

use super::fault::fault;
use crate::Result;

/// All rows; each is a tuple of its columns, or one of our records.
pub(super) fn rows<T>(connection: &Connection, sql: &str, params: impl Params) -> Result<Vec<T>>
where
    T: for<'a> TryFrom<&'a Row<'a>, Error = rusqlite::Error>,
{
    let read = || connection.prepare_cached(sql)?.query_map(params, |row| T::try_from(row))?.collect::<rusqlite::Result<_>>();
    read().map_err(fault)
}

/// The first row, if there is one.
pub(super) fn row<T>(connection: &Connection, sql: &str, params: impl Params) -> Result<Option<T>>
where
    T: for<'a> TryFrom<&'a Row<'a>, Error = rusqlite::Error>,
{
    let read = || connection.prepare_cached(sql)?.query_map(params, |row| T::try_from(row))?.next().transpose();
    read().map_err(fault)
}

/// The first column of all rows.
pub(super) fn values<T: FromSql>(connection: &Connection, sql: &str, params: impl Params) -> Result<Vec<T>> {
    Ok(rows::<(T,)>(connection, sql, params)?.into_iter().map(|(value,)| value).collect())
}

/// The first column of the first row, if there is one.
pub(super) fn value<T: FromSql>(connection: &Connection, sql: &str, params: impl Params) -> Result<Option<T>> {
    Ok(row::<(T,)>(connection, sql, params)?.map(|(value,)| value))
}

/// Runs a statement without rows; how many it changed.
pub(super) fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<usize> {
    let run = || connection.prepare_cached(sql)?.execute(params);
    run().map_err(fault)
}
