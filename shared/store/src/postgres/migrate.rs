//! Migrations of all owners in one transaction, under an advisory lock that ends with it.

use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::{Postgres, failure, scalar, select, statement};
use crate::migrations::Migrations;
use crate::migrations::postgres::{INGEST, METRICS, RUNS};
use crate::open::takes_away;
use crate::{Error, Result};

/// Owners with the statements that name their schemas; a schema's name cannot be a parameter.
static OWNERS: [Owner; 3] = [
    Owner {
        name: "runs",
        schema: "hopyard_runs",
        migrations: &RUNS,
        applied: "SELECT version, name, checksum FROM hopyard_runs.migrations ORDER BY version",
        record: "INSERT INTO hopyard_runs.migrations (version, name, checksum) VALUES ($1, $2, $3)",
    },
    Owner {
        name: "metrics",
        schema: "hopyard_metrics",
        migrations: &METRICS,
        applied: "SELECT version, name, checksum FROM hopyard_metrics.migrations ORDER BY version",
        record: "INSERT INTO hopyard_metrics.migrations (version, name, checksum) VALUES ($1, $2, $3)",
    },
    Owner {
        name: "ingest",
        schema: "hopyard_ingest",
        migrations: &INGEST,
        applied: "SELECT version, name, checksum FROM hopyard_ingest.migrations ORDER BY version",
        record: "INSERT INTO hopyard_ingest.migrations (version, name, checksum) VALUES ($1, $2, $3)",
    },
];

struct Owner {
    name: &'static str,
    schema: &'static str,
    migrations: &'static Migrations,
    applied: &'static str,
    record: &'static str,
}

impl Owner {
    /// Migrations that the database lacks.
    async fn pending(&self, connection: &mut PgConnection) -> Result<Vec<&'static sqlx::migrate::Migration>> {
        let exists: bool = scalar("SELECT to_regclass($1 || '.migrations') IS NOT NULL")
            .bind(self.schema)
            .fetch_one(&mut *connection)
            .await
            .map_err(failure)?;
        let applied: Vec<(i64, String, Vec<u8>)> =
            if exists { select(self.applied).fetch_all(&mut *connection).await.map_err(failure)? } else { Vec::new() };
        for (version, name, checksum) in &applied {
            match self.migrations.iter().find(|m| m.version == *version) {
                None if takes_away(name) => {
                    return Err(Error::Schema(format!("owner {} has migration {version}, which is newer than this build", self.name)));
                }
                None => {}
                Some(known) if *known.checksum != **checksum => {
                    return Err(Error::Schema(format!(
                        "migration {version} of owner {} was applied in another form than this build has",
                        self.name
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(self.migrations.iter().filter(|m| !applied.iter().any(|(version, ..)| *version == m.version)).collect())
    }
}

impl Postgres {
    /// Brings all schemas to this build's version.
    pub(crate) async fn migrate(&self) -> Result<()> {
        // Not the writers' limits: a migration of a large table takes its time.
        let mut tx = self.pool.begin().await.map_err(failure)?;
        statement("SELECT pg_advisory_xact_lock(hashtextextended('hopyard.migrate', 0))").execute(&mut *tx).await.map_err(failure)?;
        for owner in &OWNERS {
            let pending = owner.pending(&mut tx).await?;
            if pending.is_empty() {
                continue;
            }
            let schema = owner.schema;
            tx.execute(AssertSqlSafe(format!(
                "CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE IF NOT EXISTS {schema}.migrations \
                 (version bigint PRIMARY KEY, name text NOT NULL, checksum bytea NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )))
            .await
            .map_err(failure)?;
            for migration in pending {
                tx.execute(migration.sql.clone()).await.map_err(failure)?;
                statement(owner.record)
                    .bind(migration.version)
                    .bind(&*migration.description)
                    .bind(&*migration.checksum)
                    .execute(&mut *tx)
                    .await
                    .map_err(failure)?;
                tracing::info!(owner = owner.name, version = migration.version, "migration applied");
            }
        }
        tx.commit().await.map_err(failure)
    }

    /// One line per migration that `migrate` would apply.
    pub(crate) async fn pending_migrations(&self) -> Result<Vec<String>> {
        let mut tx = self.read().await?;
        let mut lines = Vec::new();
        for owner in &OWNERS {
            lines.extend(owner.pending(&mut tx).await?.iter().map(|m| format!("{} {:04} {}", owner.name, m.version, m.description)));
        }
        Ok(lines)
    }
}
