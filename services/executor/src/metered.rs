//! What the models of a step used, when the executor stands between it and them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hopyard_contract::Usage;
use hopyard_contract::calls::CallRecord;
use tokio::sync::watch;

use crate::Executor;
use crate::gateway::{Gateway, Ledger, Stop};
use crate::live::Attempt;
use crate::providers::Provider;

/// The gateway of one attempt and its ledger, which outlives it.
pub(crate) struct Metered {
    dir: PathBuf,
    ledger: Arc<Ledger>,
    gateway: Mutex<Option<Gateway>>,
    stop: Arc<Stop>,
}

/// Where a step finds its models, and the token that it has there.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Address without a path.
    pub(crate) url: String,
    /// The step's own token; it opens nothing else.
    pub(crate) token: String,
}

impl Metered {
    /// Opens a gateway to a provider.
    ///
    /// # Errors
    /// When the ledger cannot be written or no port can be had.
    pub(crate) async fn open(
        executor: &Executor,
        live: &Arc<Attempt>,
        dir: &Path,
        provider: Arc<Provider>,
    ) -> anyhow::Result<(Self, Entry)> {
        let ledger = Arc::new(Ledger::open(dir)?);
        let (tasks, prices, limit) = (&executor.ctx.tasks, executor.prices.clone(), executor.settings.freeze_limit);
        let stop = Arc::new(Stop::default());
        let gateway = Gateway::open(tasks, provider, prices, ledger.clone(), live.clone(), limit, stop.clone()).await?;
        let entry = Entry { url: gateway.url(), token: gateway.token().to_owned() };
        Ok((Self { dir: dir.to_owned(), ledger, gateway: Mutex::new(Some(gateway)), stop }, entry))
    }

    /// The ledger of an attempt that nobody carries on, if it has one.
    pub(crate) fn left(dir: &Path) -> Option<Self> {
        if !Ledger::is_there(dir) {
            return None;
        }
        match Ledger::open(dir) {
            Ok(ledger) => Some(Self { dir: dir.to_owned(), ledger: Arc::new(ledger), gateway: Mutex::default(), stop: Arc::default() }),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "what the models of a lost attempt used is not known");
                None
            }
        }
    }

    /// What was used so far; every answer counts as a turn.
    pub(crate) fn usage(&self) -> Usage {
        self.ledger.usage()
    }

    /// Follows what was used.
    pub(crate) fn watch(&self) -> watch::Receiver<Usage> {
        self.ledger.watch()
    }

    /// Whether and why the step can make no more calls.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Every call so far.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub(crate) fn calls(&self) -> anyhow::Result<Vec<CallRecord>> {
        Ledger::read(&self.dir)
    }

    /// No call of a model is made any more; returns when the last one is written down.
    pub(crate) async fn close(&self) {
        let gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(gateway) = gateway {
            gateway.close().await;
        }
    }
}
