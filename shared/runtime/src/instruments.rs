//! Instruments of a process: counters and gauges by full name, in one registry that the admin port shows.

use std::sync::OnceLock;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// The process's registry.
pub fn registry() -> &'static Registry {
    REGISTRY.get_or_init(|| {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        {
            let process = prometheus::process_collector::ProcessCollector::for_self();
            registry.register(Box::new(process)).expect("an empty registry takes the process collector");
        }
        registry
    })
}

/// A counter, made once per process and name.
pub fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("metric names in the code are valid");
    registry().register(Box::new(counter.clone())).expect("each metric is made once per process");
    counter
}

/// A gauge, made once per process and name.
pub fn gauge(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let gauge = IntGaugeVec::new(Opts::new(name, help), labels).expect("metric names in the code are valid");
    registry().register(Box::new(gauge.clone())).expect("each metric is made once per process");
    gauge
}

/// A histogram of seconds, made once per process and name.
pub fn seconds(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let histogram =
        HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels).expect("metric names in the code are valid");
    registry().register(Box::new(histogram.clone())).expect("each metric is made once per process");
    histogram
}

/// The registry in the text format.
pub fn render() -> String {
    crate::bounds::observe();
    TextEncoder::new().encode_to_string(&registry().gather()).unwrap_or_else(|e| format!("# {e}\n"))
}

/// Tasks that ended with a panic or an error, by name: anything but 0 is a fault.
pub fn task_failures() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_task_failures_total", "Background tasks that ended with a panic or an error.", &["task"]))
}

/// Messages by what became of them.
pub fn messages() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| {
        counter("hopyard_bus_messages_total", "Messages of durable consumers by what became of them.", &["stream", "outcome"])
    })
}

/// Connection events of the bus.
pub fn bus_events() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_bus_events_total", "Connection events of the bus client.", &["event"]))
}
