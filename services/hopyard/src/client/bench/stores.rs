//! Stores that a bench has to itself.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use crate::servers::{PgOptions, PostgresServer, find_postgres, process_env};

/// Kind of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Embedded.
    Sqlite,
    /// A server that is started for the bench, which syncs every commit to the disk.
    Postgres,
}

impl Kind {
    /// As it stands in the names of figures.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// A store of one's own; a server ends with it.
pub(super) struct BenchStore {
    url: String,
    _server: Option<PostgresServer>,
}

impl BenchStore {
    /// Makes one, below `dir` if it has files.
    ///
    /// # Errors
    /// When there is no PostgreSQL, or it does not start.
    pub(super) async fn make(kind: Kind, dir: &Path) -> Result<Self> {
        Ok(match kind {
            Kind::Sqlite => Self { url: format!("sqlite:{}", dir.join("store").display()), _server: None },
            Kind::Postgres => {
                let bin_dir = find_postgres(&process_env)?;
                let server = PostgresServer::start(PgOptions { bin_dir, fsync: true, ..PgOptions::default() }).await?;
                Self { url: server.admin_url(), _server: Some(server) }
            }
        })
    }

    /// Its URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// What `hopyard dev` is told of it.
    pub(super) fn args(&self) -> [String; 2] {
        ["--store".to_owned(), self.url.clone()]
    }
}
