//! Counters and histograms of the door.

use std::sync::OnceLock;

use hopyard_runtime::instruments::{counter, gauge, seconds};
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

/// Requests by method, route and status.
pub fn requests() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_http_requests_total", "Requests by method, route and status.", &["method", "route", "status"]))
}

/// Time from the head of a request to the head of its answer.
pub fn request_seconds() -> &'static HistogramVec {
    static CELL: OnceLock<HistogramVec> = OnceLock::new();
    CELL.get_or_init(|| {
        seconds(
            "hopyard_http_request_seconds",
            "Time from the head of a request to the head of its answer.",
            &["method", "route"],
            &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 60.0],
        )
    })
}

/// Submitted runs by the door they came through and what became of them.
pub fn submissions() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_submissions_total", "Submitted runs by door and outcome.", &["door", "outcome"]))
}

/// Cancels by the door they came through and what became of them.
pub fn cancels() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_cancels_total", "Cancel requests by door and outcome.", &["door", "outcome"]))
}

/// Dead letters that somebody took care of, by what was done.
pub fn dead_letters_handled() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_dead_letters_handled_total", "Dead letters that were requeued or dropped.", &["action"]))
}

/// Hand-overs to the schedulers by outcome.
pub fn accepts() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_accept_calls_total", "Hand-overs of submissions to the schedulers, by outcome.", &["outcome"]))
}

/// Whether submissions are taken at all.
pub fn intake_open() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| gauge("hopyard_intake_open", "1 while submissions are taken, 0 while HOPYARD_INTAKE is off.", &[]))
}

/// Submissions that were refused before they were looked at.
pub fn refused() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_submissions_refused_total", "Submissions that admission refused.", &["door", "code"]))
}

/// What admission judges load by.
pub fn pressure() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| {
        gauge("hopyard_intake_pressure", "What load is judged by: ages and waits in ms, nearly full volumes by number.", &["signal"])
    })
}

/// Canaries by pool and what became of them.
pub fn canaries() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_canaries_total", "Canary runs by pool and outcome.", &["pool", "outcome"]))
}

/// How long ago the last canary that came through was submitted.
pub fn canary_age() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| {
        gauge("hopyard_canary_age_seconds", "Time since the last canary that came through was submitted, by pool.", &["pool"])
    })
}
