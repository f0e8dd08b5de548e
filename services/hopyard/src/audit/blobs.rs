//! Blobs that runs name: stored, in full length, and with `--deep` byte by byte.

use std::path::Path;

use hopyard_blobs::{Blobs as Store, Digest};
use hopyard_contract::event::{Event, EventType};
use hopyard_contract::run::{BlobRef, RunState};
use hopyard_runtime::Config;
use serde_json::Value;

use super::report::{BLOBS, Report};

/// The blob store, if there is one to ask.
pub(crate) struct Blobs {
    store: Option<Store>,
    deep: bool,
}

impl Blobs {
    /// Opens the store; a directory that is not there is not made.
    pub(crate) fn open(config: &Config, report: &mut Report, deep: bool) -> Self {
        let address = config.blobs();
        let directory = address.strip_prefix("file://").unwrap_or(&address);
        let store = if directory.contains("://") || Path::new(directory).is_dir() {
            Store::open(&address).map_err(|error| error.to_string())
        } else {
            Err(format!("{directory} is no directory; --blobs or HOPYARD_BLOBS says where blobs are"))
        };
        if let Err(why) = &store {
            report.broke_off(&BLOBS, why);
        }
        Self { store: store.ok(), deep }
    }

    /// Looks for everything that a run names.
    pub(crate) async fn check(&mut self, state: &RunState, events: &[Event], report: &mut Report) {
        let Some(store) = &self.store else { return };
        let run = &state.run;
        let logs = state.attempts.iter().filter_map(|a| a.log.as_ref().map(|log| (format!("{}.{}.{}", run.id, a.step, a.n), "log", log)));
        let result = run.result.iter().flat_map(|result| [("patch", &result.patch), ("bundle", &result.bundle)]);
        let restored = run.restore.iter().map(|restore| ("bundle of the session", &restore.bundle));
        let of_run = result.chain(restored).filter_map(|(what, blob)| blob.as_ref().map(|blob| (run.id.to_string(), what, blob)));
        for (id, what, BlobRef { digest, size }) in logs.chain(of_run) {
            report.looked(&BLOBS, 1);
            if let Err(why) = look(store, digest, Some(*size), self.deep).await {
                report.found(&BLOBS, id, format!("its {what} {digest}: {why}"));
            }
        }
        // What the janitor kept of a lost attempt is named by its event alone.
        for event in events.iter().filter(|e| e.kind == EventType::WorkspaceSaved) {
            if let Some(digest) = event.data.get("bundle").and_then(Value::as_str) {
                report.looked(&BLOBS, 1);
                if let Err(why) = look(store, digest, None, self.deep).await {
                    report.found(&BLOBS, run.id.to_string(), format!("the saved bundle {digest} of event {}: {why}", event.seq));
                }
            }
        }
    }
}

async fn look(store: &Store, digest: &str, size: Option<u64>, deep: bool) -> Result<(), String> {
    let digest: Digest = digest.parse().map_err(|error: hopyard_blobs::Error| error.to_string())?;
    let found = store.size(&digest).await.map_err(|error| error.to_string())?;
    if let Some(size) = size.filter(|size| *size != found) {
        return Err(format!("it has {found} bytes instead of {size}"));
    }
    if deep {
        store.verify(&digest).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
