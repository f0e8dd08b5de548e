//! PostgreSQL engine: one schema per owner, row locks in order of id, every statement inside a short transaction.
//!
//! Nothing lives in a session, so that a pooler may hand out another server connection after every transaction: no prepared
//! statement outlives its use, limits are set with `SET LOCAL`, advisory locks end with the transaction. Writers run READ
//! COMMITTED and lock first: a statement that waits for a lock keeps the old snapshot for its subqueries, a later one does not.

mod audit;
#[cfg(feature = "conformance")]
pub mod checks;
mod definitions;
mod failure;
mod metrics;
mod migrate;
mod plans;
mod reader;
mod rows;
mod runs;
mod state;
mod transaction;
mod write;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{Connection, FromRow, Transaction};

use crate::{Error, Result};

use failure::failure;
use plans::Plans;

/// Oldest server that is known to do everything the statements ask for.
const OLDEST_SERVER: i32 = 150_000;
/// Writers: lost schedulers must not keep locks, and a lock that is not had soon is tried again.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = '5s'; \
    SET LOCAL lock_timeout = '3s'; SET LOCAL idle_in_transaction_session_timeout = '5s'";
/// Readers: one snapshot for all statements of a read.
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '2s'; \
    SET LOCAL idle_in_transaction_session_timeout = '5s'";

type Tx = Transaction<'static, sqlx::Postgres>;

/// A pool of connections to one PostgreSQL database; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    pool: PgPool,
    plans: Arc<Plans>,
}

impl Postgres {
    /// Connects once, to tell a wrong URL or an old server from a store that works.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| Error::Url("it is not of the form postgres://user@host:port/database".to_owned()))?
            .application_name("hopyard")
            // A pooler refuses start-up parameters that it does not track, and no column is a float.
            .extra_float_digits(None)
            .statement_cache_capacity(0);
        let pool = PgPoolOptions::new()
            .max_connections(10)
            .acquire_timeout(Duration::from_secs(2))
            .idle_timeout(Duration::from_secs(300))
            .test_before_acquire(false)
            // Under load a connection was alive a moment ago; only one that has rested is worth a round trip.
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > Duration::from_secs(1) {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        let engine = Self { pool, plans: Arc::default() };
        let mut tx = engine.read().await?;
        let version: i32 = scalar("SELECT current_setting('server_version_num')::int").fetch_one(&mut *tx).await.map_err(failure)?;
        if version < OLDEST_SERVER {
            return Err(Error::Schema(format!("PostgreSQL 15 or newer is needed, the server is version {}", version / 10_000)));
        }
        Ok(engine)
    }

    /// The scheduler's side.
    pub(crate) fn runs(&self) -> Self {
        self.clone()
    }

    /// The readers' side.
    pub(crate) fn reader(&self) -> Self {
        self.clone()
    }

    /// The metrics service's side.
    pub(crate) fn metrics(&self) -> Self {
        self.clone()
    }

    async fn begin_write(&self) -> Result<Tx> {
        self.pool.begin_with(BEGIN_WRITE).await.map_err(failure)
    }

    async fn read(&self) -> Result<Tx> {
        self.pool.begin_with(BEGIN_READ).await.map_err(failure)
    }
}

/// A statement without rows. It is never kept on the server: a pooler may route the next one elsewhere.
fn statement<'q>(sql: &'static str) -> Query<'q, sqlx::Postgres, PgArguments> {
    sqlx::query(sql).persistent(false)
}

/// A statement whose rows are tuples.
fn select<'q, T>(sql: &'static str) -> QueryAs<'q, sqlx::Postgres, T, PgArguments>
where
    T: for<'r> FromRow<'r, sqlx::postgres::PgRow>,
{
    sqlx::query_as(sql).persistent(false)
}

/// A statement with one column.
fn scalar<'q, T>(sql: &'static str) -> QueryScalar<'q, sqlx::Postgres, T, PgArguments>
where
    (T,): for<'r> FromRow<'r, sqlx::postgres::PgRow>,
{
    sqlx::query_scalar(sql).persistent(false)
}
