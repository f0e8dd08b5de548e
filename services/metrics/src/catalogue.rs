//! Every metric that this service serves, once: name, help, labels and buckets.

/// What a metric is and how its stored integers are shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A count.
    Counter,
    /// Millionths, shown as units.
    Micros,
    /// Milliseconds, shown as seconds, with upper bounds in seconds.
    Histogram(&'static [f64]),
    /// Read anew each time.
    Gauge,
}

/// One metric.
#[derive(Debug, PartialEq)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) labels: &'static [&'static str],
    pub(crate) kind: Kind,
}

/// Waiting: a stuck queue has to be told from a slow one.
const WAITS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0];
/// Work: from a command to a day.
const DURATIONS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0];

const fn metric(name: &'static str, help: &'static str, labels: &'static [&'static str], kind: Kind) -> Metric {
    Metric { name, help, labels, kind }
}

pub(crate) static RUNS_ACCEPTED: Metric = metric("hopyard_runs_accepted_total", "Runs accepted.", &["workflow"], Kind::Counter);
pub(crate) static RUNS_FINISHED: Metric = metric(
    "hopyard_runs_finished_total",
    "Runs ended, by final status and failure code.",
    &["status", "workflow", "failure_code"],
    Kind::Counter,
);
pub(crate) static STEPS_FINISHED: Metric =
    metric("hopyard_steps_finished_total", "Steps ended, by final status.", &["status"], Kind::Counter);
pub(crate) static STEP_RETRIES: Metric =
    metric("hopyard_step_retries_total", "Failures of steps that were tried again, by failure code.", &["failure_code"], Kind::Counter);
pub(crate) static ATTEMPTS_FINISHED: Metric = metric(
    "hopyard_attempts_finished_total",
    "Attempts ended, by final status and failure code.",
    &["status", "failure_code"],
    Kind::Counter,
);
pub(crate) static RUN_QUEUE_DURATION: Metric =
    metric("hopyard_run_queue_duration_seconds", "Time from submission to the first running step.", &[], Kind::Histogram(WAITS));
pub(crate) static RUN_DURATION: Metric = metric(
    "hopyard_run_duration_seconds",
    "Time from the first running step to the end of the run.",
    &["workflow", "status"],
    Kind::Histogram(DURATIONS),
);
pub(crate) static ATTEMPT_DURATION: Metric = metric(
    "hopyard_attempt_duration_seconds",
    "Time from the start of the process to the end of the attempt.",
    &["status"],
    Kind::Histogram(DURATIONS),
);
pub(crate) static TOKENS: Metric = metric("hopyard_tokens_total", "Tokens used by ended runs.", &["kind", "workflow"], Kind::Counter);
pub(crate) static COST: Metric =
    metric("hopyard_cost_usd_total", "Money spent by ended runs in US dollars, where all prices are known.", &["workflow"], Kind::Micros);
pub(crate) static COST_UNKNOWN: Metric =
    metric("hopyard_cost_unknown_runs_total", "Ended runs whose cost is not known because a price is not.", &["workflow"], Kind::Counter);
pub(crate) static REPOSITORY_TOKENS: Metric = metric(
    "hopyard_repository_tokens_total",
    "Tokens used by ended runs on a repository that asked models.",
    &["kind", "repository"],
    Kind::Counter,
);
pub(crate) static REPOSITORY_COST: Metric = metric(
    "hopyard_repository_cost_usd_total",
    "Money spent by ended runs on a repository in US dollars, where all prices are known.",
    &["repository"],
    Kind::Micros,
);
pub(crate) static LABEL_OVERFLOW: Metric = metric(
    "hopyard_metric_label_overflow_total",
    "Values counted under `__other__` because a label had too many values.",
    &["label"],
    Kind::Counter,
);

/// Metrics that are counted from events.
pub(crate) static COUNTED: [&Metric; 14] = [
    &RUNS_ACCEPTED,
    &RUNS_FINISHED,
    &STEPS_FINISHED,
    &STEP_RETRIES,
    &ATTEMPTS_FINISHED,
    &RUN_QUEUE_DURATION,
    &RUN_DURATION,
    &ATTEMPT_DURATION,
    &TOKENS,
    &COST,
    &COST_UNKNOWN,
    &REPOSITORY_TOKENS,
    &REPOSITORY_COST,
    &LABEL_OVERFLOW,
];

pub(crate) static RUNS: Metric = metric("hopyard_runs", "Runs that have not ended, by status.", &["namespace", "status"], Kind::Gauge);
pub(crate) static QUEUE_DEPTH: Metric = metric("hopyard_queue_depth", "Steps that could be claimed now.", &["pool"], Kind::Gauge);
pub(crate) static QUEUE_AGE: Metric =
    metric("hopyard_queue_oldest_age_seconds", "Age of the oldest step that could be claimed now.", &["pool"], Kind::Gauge);
pub(crate) static OUTBOX_AGE: Metric =
    metric("hopyard_outbox_age_seconds", "Age of the oldest message that has not been published.", &[], Kind::Gauge);
pub(crate) static BACKLOG: Metric =
    metric("hopyard_bus_consumer_pending", "Messages that a durable consumer has not settled.", &["stream", "durable"], Kind::Gauge);

/// Metrics that are read from the store and the bus.
pub(crate) static GAUGES: [&Metric; 5] = [&RUNS, &QUEUE_DEPTH, &QUEUE_AGE, &OUTBOX_AGE, &BACKLOG];

/// The counted metric of this name.
pub(crate) fn counted(name: &str) -> Option<&'static Metric> {
    COUNTED.iter().copied().find(|m| m.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_labels_follow_the_rules() {
        let mut names = BTreeSet::new();
        for metric in COUNTED.iter().chain(GAUGES.iter()) {
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            assert!(metric.name.starts_with("hopyard_") && metric.help.ends_with('.'), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), matches!(metric.kind, Kind::Counter | Kind::Micros), "{}", metric.name);
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(metric.name.ends_with("_seconds") && bounds.is_sorted(), "{}", metric.name);
            }
            // Per-run values and texts of users make no series.
            for label in metric.labels {
                assert!(!["run", "run_id", "step", "message", "branch", "path", "executor"].contains(label), "{}", metric.name);
            }
        }
    }
}
