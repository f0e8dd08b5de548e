//! The checkpoint: the ledger in the database, replaced only by the instance that wrote it last.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use hopyard_contract::Name;
use hopyard_store::metrics::MetricsStore;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use uuid::Uuid;

use crate::instruments;
use crate::ledger::{Ledger, Saved};
use crate::series::Series;

/// Version of the written form.
const VERSION: u32 = 1;

/// The saved ledger as this instance knows it.
pub(crate) struct Checkpoint {
    store: Arc<dyn MetricsStore>,
    own: Holder,
    /// Version in the database; 0 for none.
    version: i64,
}

/// Who counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Name of the process.
    pub(crate) id: Name,
    /// Random id of the process: a restarted one has another.
    pub(crate) incarnation: Uuid,
}

#[derive(Serialize, Deserialize)]
struct Document<L> {
    v: u32,
    /// Version that the database has with this document.
    version: i64,
    /// Who counts; nobody after a drain.
    holder: Option<Holder>,
    ledger: L,
}

/// What was found in the database.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    /// Grows with each save.
    pub(crate) version: i64,
    /// Who counted.
    pub(crate) holder: Option<Holder>,
    /// What was counted.
    pub(crate) ledger: Saved,
}

impl Checkpoint {
    pub(crate) fn new(store: Arc<dyn MetricsStore>, id: &Name) -> Self {
        Self { store, own: Holder { id: id.clone(), incarnation: Uuid::new_v4() }, version: 0 }
    }

    /// Who this is.
    pub(crate) fn own(&self) -> &Holder {
        &self.own
    }

    /// Reads it; from now on a save replaces what was read.
    ///
    /// # Errors
    /// When the store does not answer or the document cannot be read.
    pub(crate) async fn load(&mut self) -> anyhow::Result<Found> {
        let Some(text) = self.store.load().await.context("the checkpoint cannot be loaded")? else {
            self.version = 0;
            return Ok(Found { version: 0, holder: None, ledger: Saved::default() });
        };
        let document: Document<Saved> = serde_json::from_value(text).context("the checkpoint cannot be read")?;
        ensure!(document.v == VERSION, "the checkpoint has version {}, this build reads {VERSION}", document.v);
        self.version = document.version;
        Ok(Found { version: document.version, holder: document.holder, ledger: document.ledger })
    }

    /// Replaces it; false if another instance has done so since the last load or save.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn save(&mut self, ledger: &Ledger, hold: bool) -> anyhow::Result<bool> {
        let saved = self.replace(ledger, hold).await;
        let outcome = match &saved {
            Ok(true) => "saved",
            Ok(false) => "conflict",
            Err(_) => "failed",
        };
        instruments::checkpoints().with_label_values(&[outcome]).inc();
        saved
    }

    async fn replace(&mut self, ledger: &Ledger, hold: bool) -> anyhow::Result<bool> {
        if self.put(ledger, hold).await? {
            return Ok(true);
        }
        // A save whose answer was lost may have happened: then the newer document is our own.
        let before = self.version;
        let found = self.load().await?;
        if found.version == before + 1 && found.holder.as_ref() == Some(&self.own) { self.put(ledger, hold).await } else { Ok(false) }
    }

    async fn put(&mut self, ledger: &Ledger, hold: bool) -> anyhow::Result<bool> {
        let holder = hold.then(|| self.own.clone());
        let document = Document { v: VERSION, version: self.version + 1, holder, ledger: ledger.save() };
        // As a text at once: as a tree it takes ten times the memory, and there may be a hundred thousand runs in it.
        let state = to_raw_value(&document).context("the checkpoint cannot be written down")?;
        let done = self.store.save(self.version, state).await.context("the checkpoint cannot be saved")?;
        if done {
            self.version += 1;
        }
        Ok(done)
    }
}

/// The counters of a saved state.
///
/// # Errors
/// When it is of another version.
pub(crate) fn series_of(state: &serde_json::Value) -> anyhow::Result<Series> {
    let document = Document::<Saved>::deserialize(state)?;
    ensure!(document.v == VERSION, "they have version {}, this build reads {VERSION}", document.v);
    Ok(document.ledger.into_series())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::RUNS_ACCEPTED;
    use hopyard_store::Store;

    async fn store(dir: &tempfile::TempDir) -> Arc<dyn MetricsStore> {
        let store = Store::open(&format!("sqlite:{}", dir.path().display())).await.unwrap();
        store.migrate().await.unwrap();
        store.metrics()
    }

    fn ledger() -> Ledger {
        Ledger::restore(Arc::default(), Saved::default())
    }

    #[tokio::test]
    async fn what_is_saved_is_loaded_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let mut first = Checkpoint::new(store.clone(), &Name::literal("m1"));
        assert_eq!(first.load().await.unwrap().version, 0);
        let counted = ledger();
        counted.shown().series().add(&RUNS_ACCEPTED, &["fix"], 3);
        for _ in 0..3 {
            assert!(first.save(&counted, true).await.unwrap());
        }
        let mut second = Checkpoint::new(store, &Name::literal("m1"));
        let found = second.load().await.unwrap();
        assert_eq!((found.version, found.holder.as_ref()), (3, Some(first.own())));
        assert_ne!(first.own(), second.own());
        let restored = Ledger::restore(Arc::default(), found.ledger);
        assert_eq!(restored.shown().series().value(&RUNS_ACCEPTED, &["fix"]), 3);
    }

    #[tokio::test]
    async fn only_one_of_two_instances_may_save() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let (mut a, mut b) = (Checkpoint::new(store.clone(), &Name::literal("a")), Checkpoint::new(store, &Name::literal("b")));
        a.load().await.unwrap();
        b.load().await.unwrap();
        assert!(a.save(&ledger(), true).await.unwrap());
        assert!(!b.save(&ledger(), true).await.unwrap());
        // The loser has seen who was faster, and may take over only by intent: its next save replaces what it has read.
        assert_eq!(b.load().await.unwrap().holder.as_ref(), Some(a.own()));
        assert!(b.save(&ledger(), true).await.unwrap());
        assert!(!a.save(&ledger(), true).await.unwrap());
        // A drained instance leaves it to whoever waits.
        assert!(b.save(&ledger(), false).await.unwrap());
        assert_eq!(a.load().await.unwrap().holder, None);
    }

    #[tokio::test]
    async fn a_save_whose_answer_was_lost_is_no_conflict() {
        let dir = tempfile::tempdir().unwrap();
        let mut checkpoint = Checkpoint::new(store(&dir).await, &Name::literal("a"));
        checkpoint.load().await.unwrap();
        assert!(checkpoint.save(&ledger(), true).await.unwrap());
        // As if the answer to the save before had not come.
        checkpoint.version -= 1;
        assert!(checkpoint.save(&ledger(), true).await.unwrap());
        assert_eq!(checkpoint.load().await.unwrap().version, 2);
    }
}
