//! What a pass did: for the command line, the log and the metrics.

use std::path::PathBuf;

use serde::Serialize;

use crate::policy::{Action, Planned, Reason, run_of};
use crate::{disk, instruments};

/// What a pass did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Each workspace directory on disk and what was decided about it.
    pub planned: Vec<Planned>,
    /// What is gone.
    pub removed: Vec<Removed>,
    /// What could not be saved or removed and stays.
    pub failed: Vec<Failure>,
    /// Sum of the bytes freed, spools and trash included.
    pub bytes_freed: u64,
}

/// A workspace or spool that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// `<run>-g<k>` of a workspace, `<run>.<step>.<n>` of a spool.
    pub id: String,
    /// Where it was, if it was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Bytes freed.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// A workspace that stays because something went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// `<run>-g<k>` of a workspace, `<run>.<step>.<n>` of a spool.
    pub id: String,
    /// What went wrong.
    pub error: String,
}

/// Logs and counts what became of one workspace.
pub(super) fn note(report: &mut Report, id: &str, gone: anyhow::Result<Option<Removed>>) {
    let run = run_of(id).map(|run| run.to_string());
    match gone {
        Ok(None) => {}
        Ok(Some(removed)) => {
            let path = removed.path.as_ref().map(|path| path.display().to_string());
            tracing::info!(run, workspace = id, path, bytes = removed.bytes, reason = removed.reason.as_str(), "a workspace was removed");
            instruments::removed().with_label_values(&[removed.reason.as_str()]).inc();
            instruments::bytes_freed().with_label_values::<&str>(&[]).inc_by(removed.bytes);
            report.bytes_freed += removed.bytes;
            report.removed.push(removed);
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::error!(run, workspace = id, error, "a workspace could not be saved or removed and stays");
            instruments::failures().with_label_values::<&str>(&[]).inc();
            report.failed.push(Failure { id: id.to_owned(), error });
        }
    }
}

/// Shows what is on disk by state.
pub(super) fn show(planned: &[Planned]) {
    for reason in
        [Reason::Finished, Reason::Lost, Reason::Orphan, Reason::Active, Reason::Recent, Reason::InUse, Reason::Foreign, Reason::Unanswered]
    {
        let count = planned.iter().filter(|p| p.reason == reason).count();
        instruments::worktrees().with_label_values(&[reason.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Adds the sizes of what would go.
pub(super) async fn measured(mut report: Report) -> Report {
    for planned in report.planned.iter_mut().filter(|planned| planned.action == Action::Remove) {
        let path = planned.path.clone();
        planned.bytes = tokio::task::spawn_blocking(move || disk::bytes(&path)).await.ok();
    }
    report
}
