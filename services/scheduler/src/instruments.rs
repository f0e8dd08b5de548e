//! What the scheduler counts.

use std::sync::OnceLock;

use hopyard_runtime::instruments::{counter, seconds};
use prometheus::{HistogramVec, IntCounterVec};

/// Inputs by kind and what became of them.
pub(crate) fn inputs() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_scheduler_inputs_total", "Inputs of the group-commit loop by kind.", &["kind"]))
}

/// Stale or repeated words of executors by kind.
pub(crate) fn stale() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_stale_messages_total", "Words about leases that were over, by kind.", &["kind"]))
}

/// Transactions by outcome.
pub(crate) fn commits() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_scheduler_commits_total", "Transactions of the group-commit loop by outcome.", &["outcome"]))
}

/// Length of transactions.
pub(crate) fn commit_seconds() -> &'static HistogramVec {
    static CELL: OnceLock<HistogramVec> = OnceLock::new();
    CELL.get_or_init(|| {
        seconds(
            "hopyard_scheduler_commit_duration_seconds",
            "Length of transactions of the group-commit loop.",
            &[],
            &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0],
        )
    })
}

/// Runs by what their submission became.
pub(crate) fn submissions() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_submissions_total", "Submitted runs by verdict.", &["verdict"]))
}

/// Tickets sent.
pub(crate) fn tickets() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_tickets_total", "Tickets sent to pools.", &["pool"]))
}

/// Decisions that failed.
pub(crate) fn faults() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_scheduler_faults_total", "Decisions that failed; their runs end with engine_error.", &[]))
}
