//! Opening a store by its URL.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::AuditReader;
use crate::metrics::MetricsStore;
use crate::read::Reader;
use crate::runs::RunStore;
use crate::{Error, Result, postgres, sqlite};

/// Whether a migration that this build does not know takes something away that it may still use. Any other only adds, and a
/// build from before works on beside it while a deployment rolls. A test of the tree holds the names to their contents.
pub(crate) fn takes_away(migration: &str) -> bool {
    migration.starts_with("contract ")
}

/// A store that has been opened by URL: `sqlite:DIRECTORY` (one file per owner below it) or `postgres://…`.
#[derive(Clone, Debug)]
pub struct Store {
    engine: Engine,
}

#[derive(Clone, Debug)]
enum Engine {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Store {
    /// Opens a store; nothing is created or changed but a connection pool.
    ///
    /// # Errors
    /// [`Error::Url`] for another scheme, [`Error::Unavailable`] when it cannot be reached.
    pub async fn open(url: &str) -> Result<Self> {
        let engine = if let Some(directory) = url.strip_prefix("sqlite:") {
            Engine::Sqlite(sqlite::Sqlite::open(directory.trim_start_matches("//")).await?)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Engine::Postgres(postgres::Postgres::open(url).await?)
        } else {
            return Err(Error::Url("a store's URL starts with sqlite: or postgres://".to_owned()));
        };
        Ok(Self { engine })
    }

    /// Opens a store and brings its schema to this build's version; one that does not answer yet is waited for.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::migrate`], the transient ones after `patience`.
    pub async fn open_migrated(url: &str, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        loop {
            let opened = async {
                let store = Self::open(url).await?;
                store.migrate().await?;
                Ok(store)
            };
            match opened.await {
                Err(error) if Error::is_transient(&error) && Instant::now() < deadline => {
                    tracing::warn!(%error, "the store does not answer yet");
                    // Jitter, so that a database that has just come back does not meet all services at once.
                    let jitter = uuid::Uuid::new_v4().as_u64_pair().1 % 300;
                    tokio::time::sleep(Duration::from_millis(150 + jitter)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Brings every owner's schema to this build's version; safe to run at once from several processes.
    ///
    /// # Errors
    /// [`Error::Schema`] when the schema lacks what this build needs.
    pub async fn migrate(&self) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.migrate().await,
            Engine::Postgres(engine) => engine.migrate().await,
        }
    }

    /// Says what `migrate` would do, as one line per pending migration; empty when the schema is up to date.
    ///
    /// # Errors
    /// [`Error::Schema`] when the schema lacks what this build needs.
    pub async fn pending_migrations(&self) -> Result<Vec<String>> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.pending_migrations().await,
            Engine::Postgres(engine) => engine.pending_migrations().await,
        }
    }

    /// The scheduler's side. An embedded store has exactly one: a file lock is taken and held by the returned value.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process holds the lock.
    pub async fn runs(&self) -> Result<Arc<dyn RunStore>> {
        Ok(match &self.engine {
            Engine::Sqlite(engine) => Arc::new(engine.runs().await?),
            Engine::Postgres(engine) => Arc::new(engine.runs()),
        })
    }

    /// The readers' side.
    pub fn reader(&self) -> Arc<dyn Reader> {
        match &self.engine {
            Engine::Sqlite(engine) => Arc::new(engine.reader()),
            Engine::Postgres(engine) => Arc::new(engine.reader()),
        }
    }

    /// An audit's side.
    pub fn auditor(&self) -> Arc<dyn AuditReader> {
        match &self.engine {
            Engine::Sqlite(engine) => Arc::new(engine.reader()),
            Engine::Postgres(engine) => Arc::new(engine.reader()),
        }
    }

    /// The metrics service's side.
    pub fn metrics(&self) -> Arc<dyn MetricsStore> {
        match &self.engine {
            Engine::Sqlite(engine) => Arc::new(engine.metrics()),
            Engine::Postgres(engine) => Arc::new(engine.metrics()),
        }
    }

    /// Where its files are, if it has any on this host.
    pub fn directory(&self) -> Option<&Path> {
        match &self.engine {
            Engine::Sqlite(engine) => Some(engine.directory()),
            Engine::Postgres(_) => None,
        }
    }

    /// Whether more than one scheduler may work on it.
    pub fn shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }
}
