//! The embedded engine: one SQLite file per owner below one directory, one writer, readers in any process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, Result};
use pool::Pool;

mod audit;
mod clock;
mod definitions;
mod fault;
mod files;
mod listing;
mod metrics;
mod pool;
mod reader;
mod reading;
mod rows;
mod runs;
mod schema;
mod statement;
mod states;
mod transaction;
mod write;

#[cfg(test)]
mod tests;

/// A directory with the files of an embedded store.
#[derive(Clone, Debug)]
pub(crate) struct Sqlite {
    directory: PathBuf,
    /// Read-only connections to the scheduler's file.
    readers: Pool,
    /// The one connection that the metrics service writes its file with.
    metrics: Pool,
    plans: Arc<definitions::Plans>,
}

impl Sqlite {
    /// Looks at the directory's name only; files are opened when they are used, made by `migrate`.
    pub(crate) async fn open(directory: &str) -> Result<Self> {
        if directory.is_empty() {
            return Err(Error::Url("sqlite: needs a directory, as in sqlite:/var/lib/hopyard".to_owned()));
        }
        let directory = PathBuf::from(directory);
        Ok(Self { readers: files::readers(&directory), metrics: files::metrics(&directory), plans: Arc::default(), directory })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) async fn migrate(&self) -> Result<()> {
        schema::migrate(&self.directory).await
    }

    pub(crate) async fn pending_migrations(&self) -> Result<Vec<String>> {
        schema::pending(&self.directory).await
    }

    pub(crate) async fn runs(&self) -> Result<runs::Runs> {
        runs::Runs::open(&self.directory, self.readers.clone(), Arc::clone(&self.plans)).await
    }

    pub(crate) fn reader(&self) -> reader::Reads {
        reader::Reads::new(self.readers.clone(), Arc::clone(&self.plans))
    }

    pub(crate) fn metrics(&self) -> metrics::Metrics {
        metrics::Metrics::new(self.metrics.clone())
    }
}
