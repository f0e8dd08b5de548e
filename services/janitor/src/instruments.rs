//! What the janitor counts.

use std::sync::OnceLock;

use hopyard_runtime::instruments::{counter, gauge};
use prometheus::{IntCounterVec, IntGaugeVec};

/// Workspaces removed by reason.
pub(crate) fn removed() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_worktrees_removed_total", "Workspaces removed by reason.", &["reason"]))
}

/// Workspaces that could not be saved or removed and stay.
pub(crate) fn failures() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_worktree_remove_failures_total", "Workspaces that could not be saved or removed, and stay.", &[]))
}

/// Bytes freed.
pub(crate) fn bytes_freed() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_worktree_bytes_freed_total", "Bytes freed by the removal of workspaces, spools and trash.", &[]))
}

/// End of the last full pass without a failure.
pub(crate) fn last_success() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| {
        gauge("hopyard_janitor_last_success_timestamp_seconds", "End of the last full pass without a failure, in seconds since 1970.", &[])
    })
}

/// Workspaces on disk as the last full pass saw them.
pub(crate) fn worktrees() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| gauge("hopyard_worktrees", "Workspaces on this host as the last full pass saw them, by state.", &["state"]))
}

/// Makes every known series visible at 0.
pub(crate) fn show_all() {
    for reason in ["finished", "lost", "orphan", "absent"] {
        removed().with_label_values(&[reason]).inc_by(0);
    }
    failures().with_label_values::<&str>(&[]).inc_by(0);
    bytes_freed().with_label_values::<&str>(&[]).inc_by(0);
}
