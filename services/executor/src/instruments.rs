//! What an executor counts.

use std::sync::OnceLock;

use hopyard_runtime::instruments::{counter, gauge, seconds};
use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

/// Attempts by how they ended.
pub(crate) fn attempts() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_executor_attempts_total", "Attempts of this executor by outcome.", &["outcome"]))
}

/// Attempts of agents whose own sums differ from what was counted.
pub(crate) fn differences() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| {
        counter(
            "hopyard_agent_usage_differences_total",
            "Attempts of agents whose own sums differ from what was counted.",
            &["cli", "what"],
        )
    })
}

/// Workspaces that were made of a repository, by how: `warm` from a checkout that was made ahead, `plain` without one.
pub(crate) fn workspaces() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_workspaces_made_total", "Workspaces that were made of a repository, by how.", &["how"]))
}

/// Calls of models by provider and status of the answer; `none` when none came.
pub(crate) fn model_calls() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_model_calls_total", "Calls of models through the gateway.", &["provider", "status"]))
}

/// Tokens of calls that have ended, by provider and kind.
pub(crate) fn model_tokens() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_model_tokens_total", "Tokens of calls of models through the gateway.", &["provider", "kind"]))
}

/// Calls of models that are under way.
fn open_model_calls() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| gauge("hopyard_model_calls_open", "Calls of models through the gateway that are under way.", &["provider"]))
}

/// Counts one call as under way for as long as it lives.
#[derive(Debug)]
pub(crate) struct OpenCall(IntGauge);

impl OpenCall {
    pub(crate) fn begin(provider: &str) -> Self {
        let gauge = open_model_calls().with_label_values(&[provider]);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Claims by outcome.
pub(crate) fn claims() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_claims_total", "Claims of this executor by outcome.", &["outcome"]))
}

/// Slots by state.
pub(crate) fn slots() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| gauge("hopyard_executor_slots", "Slots of this executor by state.", &["state"]))
}

/// Attempts that wait for a renewal of their lease, with a tree that is held still or before an outward act.
pub(crate) fn frozen() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| gauge("hopyard_executor_frozen_attempts", "Attempts that are held still because their lease is overdue.", &[]))
}

/// Freezes by what happened: `frozen`, then `thawed` (renewed in time) or `ended`.
pub(crate) fn freezes() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| {
        counter("hopyard_executor_freezes_total", "Attempts that were held still, gone on (thawed) or ended while held.", &["event"])
    })
}

/// Counts one attempt as held still for as long as it lives.
#[derive(Debug)]
pub(crate) struct Frozen(());

impl Frozen {
    pub(crate) fn begin() -> Self {
        freezes().with_label_values(&["frozen"]).inc();
        frozen().with_label_values::<&str>(&[]).inc();
        Self(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        frozen().with_label_values::<&str>(&[]).dec();
    }
}

/// Time to make or re-open a workspace.
pub(crate) fn workspace_seconds() -> &'static HistogramVec {
    static CELL: OnceLock<HistogramVec> = OnceLock::new();
    CELL.get_or_init(|| {
        seconds(
            "hopyard_workspace_open_duration_seconds",
            "Time until the workspace of an attempt is ready.",
            &["kind"],
            &[0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0],
        )
    })
}

/// Log bytes by where they went.
pub(crate) fn log_bytes() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_log_bytes_total", "Bytes of step output by stream.", &["stream"]))
}

/// Reports published again because nobody had settled them.
pub(crate) fn repeated_reports() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_reports_repeated_total", "Results published again because they were not settled in time.", &[]))
}
