//! What the metrics service counts about itself, from its own start on.

use std::sync::OnceLock;

use hopyard_runtime::instruments::{counter, gauge};
use prometheus::{IntCounterVec, IntGaugeVec};

/// Checkpoints by outcome.
pub(crate) fn checkpoints() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_metrics_checkpoints_total", "Checkpoints of the counters by outcome.", &["outcome"]))
}

/// Readings of the database by why they were made.
pub(crate) fn folds() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_metrics_folds_total", "Readings of events from the database by reason.", &["reason"]))
}

/// Events by whether they were new.
pub(crate) fn events() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| {
        counter("hopyard_metrics_events_total", "Events seen since the start by source and outcome.", &["source", "outcome"])
    })
}

/// Messages that are no page of events.
pub(crate) fn undecodable() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_metrics_undecodable_total", "Messages of the event stream that could not be read.", &[]))
}

/// Readings of gauges that failed.
pub(crate) fn gauge_failures() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| {
        counter("hopyard_metrics_gauge_failures_total", "Readings of state gauges that failed, by what was read.", &["what"])
    })
}

/// Whether this instance counts.
pub(crate) fn active() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| gauge("hopyard_metrics_active", "1 when this instance folds events, 0 when it waits for another one.", &[]))
}
