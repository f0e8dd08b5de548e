//! Counters and histograms as exact integers by labels, with a limit on the number of values of a label.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, MetricFamily, MetricType};
use serde::{Deserialize, Serialize};

use crate::catalogue::{self, Kind, LABEL_OVERFLOW, Metric};

/// Most values of one label.
const MOST_VALUES: usize = 200;
/// What values beyond that are counted as.
pub(crate) const OTHER: &str = "__other__";

type Key = (&'static str, Vec<String>);

/// All series.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series {
    counters: BTreeMap<Key, u64>,
    histograms: BTreeMap<Key, Observed>,
    /// Values of each label so far.
    values: BTreeMap<&'static str, BTreeSet<String>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Observed {
    /// Observations per bucket, not cumulative; those above the last bound are in `count` only.
    buckets: Vec<u64>,
    count: u64,
    sum_ms: u64,
}

/// One series as it is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Metric.
    m: String,
    /// Values of its labels, in the order of the catalogue.
    l: Vec<String>,
    /// Value of a counter, or number of observations.
    n: u64,
    /// Sum of observations in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<u64>,
    /// Observations per bucket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    b: Vec<u64>,
}

impl Series {
    /// Counts; `by` 0 makes the series visible, so that its first increment shows in rates.
    pub(crate) fn add(&mut self, metric: &'static Metric, labels: &[&str], by: u64) {
        let labels = self.admit(metric, labels, by > 0);
        let value = self.counters.entry((metric.name, labels)).or_default();
        *value = value.saturating_add(by);
    }

    /// Takes a duration.
    pub(crate) fn observe(&mut self, metric: &'static Metric, labels: &[&str], millis: u64) {
        let Kind::Histogram(bounds) = metric.kind else { return };
        let labels = self.admit(metric, labels, true);
        let observed = self.histograms.entry((metric.name, labels)).or_default();
        observed.buckets.resize(bounds.len(), 0);
        if let Some(bucket) = bounds.iter().position(|bound| millis as f64 / 1000.0 <= *bound) {
            observed.buckets[bucket] += 1;
        }
        observed.count += 1;
        observed.sum_ms = observed.sum_ms.saturating_add(millis);
    }

    fn admit(&mut self, metric: &'static Metric, labels: &[&str], count: bool) -> Vec<String> {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let mut admitted = Vec::with_capacity(labels.len());
        for (label, value) in metric.labels.iter().zip(labels) {
            let known = self.values.entry(label).or_default();
            if known.contains(*value) || known.len() < MOST_VALUES {
                known.insert((*value).to_owned());
                admitted.push((*value).to_owned());
            } else {
                admitted.push(OTHER.to_owned());
                if count {
                    *self.counters.entry((LABEL_OVERFLOW.name, vec![(*label).to_owned()])).or_default() += 1;
                }
            }
        }
        admitted
    }

    /// The value of a counter; 0 if there is none.
    #[cfg(test)]
    pub(crate) fn value(&self, metric: &'static Metric, labels: &[&str]) -> u64 {
        let labels = labels.iter().map(|l| (*l).to_owned()).collect();
        self.counters.get(&(metric.name, labels)).copied().unwrap_or(0)
    }

    /// The sum of a counter over all series, or over those with this value of a label.
    pub(crate) fn sum(&self, metric: &Metric, only: Option<(&str, &str)>) -> u64 {
        let place = only.and_then(|(label, value)| metric.labels.iter().position(|l| *l == label).map(|at| (at, value)));
        let counts = self.counters.iter().filter(|((name, _), _)| *name == metric.name);
        counts.filter(|((_, labels), _)| place.is_none_or(|(at, value)| labels.get(at).is_some_and(|l| l == value))).map(|(_, n)| n).sum()
    }

    /// As they are saved.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let counters = self.counters.iter().map(|((name, labels), value)| Row {
            m: (*name).to_owned(),
            l: labels.clone(),
            n: *value,
            sum: None,
            b: Vec::new(),
        });
        let histograms = self.histograms.iter().map(|((name, labels), observed)| Row {
            m: (*name).to_owned(),
            l: labels.clone(),
            n: observed.count,
            sum: Some(observed.sum_ms),
            b: observed.buckets.clone(),
        });
        counters.chain(histograms).collect()
    }

    /// From what was saved; series of metrics that this build does not know are left out.
    pub(crate) fn from_rows(rows: Vec<Row>) -> Self {
        let mut series = Self::default();
        for row in rows {
            let Some(metric) = catalogue::counted(&row.m).filter(|m| m.labels.len() == row.l.len()) else { continue };
            for (label, value) in metric.labels.iter().zip(&row.l).filter(|(_, value)| *value != OTHER) {
                series.values.entry(label).or_default().insert(value.clone());
            }
            let key = (metric.name, row.l);
            match (metric.kind, row.sum) {
                (Kind::Histogram(bounds), Some(sum_ms)) => {
                    // Buckets of another build do not fit; number and sum do.
                    let buckets = if row.b.len() == bounds.len() { row.b } else { vec![0; bounds.len()] };
                    series.histograms.insert(key, Observed { buckets, count: row.n, sum_ms });
                }
                (Kind::Counter | Kind::Micros, None) => {
                    series.counters.insert(key, row.n);
                }
                _ => {}
            }
        }
        series
    }

    /// As they are shown.
    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        let mut families: BTreeMap<&'static str, MetricFamily> = BTreeMap::new();
        for ((name, labels), value) in &self.counters {
            let Some(metric) = catalogue::counted(name) else { continue };
            let mut counter = Counter::default();
            counter.set_value(if metric.kind == Kind::Micros { *value as f64 / 1e6 } else { *value as f64 });
            let mut sample = sample(metric, labels);
            sample.set_counter(counter);
            families.entry(name).or_insert_with(|| family(metric, MetricType::COUNTER)).mut_metric().push(sample);
        }
        for ((name, labels), observed) in &self.histograms {
            let Some(metric) = catalogue::counted(name) else { continue };
            let Kind::Histogram(bounds) = metric.kind else { continue };
            let mut cumulative = 0;
            let buckets = bounds.iter().zip(&observed.buckets).map(|(bound, count)| {
                cumulative += count;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(cumulative);
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(observed.count);
            histogram.set_sample_sum(observed.sum_ms as f64 / 1000.0);
            let mut sample = sample(metric, labels);
            sample.set_histogram(histogram);
            families.entry(name).or_insert_with(|| family(metric, MetricType::HISTOGRAM)).mut_metric().push(sample);
        }
        families.into_values().collect()
    }
}

fn family(metric: &Metric, kind: MetricType) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(kind);
    family
}

fn sample<L: AsRef<str>>(metric: &Metric, labels: &[L]) -> prometheus::proto::Metric {
    let pairs = metric.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.as_ref().to_owned());
        pair
    });
    let mut sample = prometheus::proto::Metric::default();
    sample.set_label(pairs.collect());
    sample
}

/// A family of gauges.
pub(crate) fn gauges(metric: &Metric, values: &BTreeMap<Vec<String>, f64>) -> MetricFamily {
    let mut family = family(metric, MetricType::GAUGE);
    for (labels, value) in values {
        let mut gauge = Gauge::default();
        gauge.set_value(*value);
        let mut sample = sample(metric, labels);
        sample.set_gauge(gauge);
        family.mut_metric().push(sample);
    }
    family
}

/// The series that the admin port shows, once they are loaded.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    series: Mutex<Series>,
    open: AtomicBool,
}

impl Shown {
    /// The series, for counting.
    pub(crate) fn series(&self) -> MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether they are shown: half-loaded counters would look like a reset.
    pub(crate) fn open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }

    /// What is to be shown now.
    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        if self.open.load(Ordering::Acquire) { self.series().families() } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{COST, RUN_DURATION, RUNS_ACCEPTED};

    #[test]
    fn values_beyond_the_limit_are_counted_together_and_told() {
        let mut series = Series::default();
        for n in 0..MOST_VALUES + 7 {
            series.add(&RUNS_ACCEPTED, &[&format!("w{n}")], 1);
        }
        series.add(&RUNS_ACCEPTED, &["w3"], 1);
        assert_eq!(series.value(&RUNS_ACCEPTED, &["w3"]), 2);
        assert_eq!(series.value(&RUNS_ACCEPTED, &[OTHER]), 7);
        assert_eq!(series.value(&LABEL_OVERFLOW, &["workflow"]), 7);
        // The same values stay known after a restart.
        let mut again = Series::from_rows(series.rows());
        assert!(again.rows() == series.rows());
        again.add(&RUNS_ACCEPTED, &["w206"], 1);
        assert_eq!(again.value(&RUNS_ACCEPTED, &[OTHER]), 8);
    }

    #[test]
    fn what_is_shown_is_what_was_counted() {
        let mut series = Series::default();
        series.add(&COST, &["fix"], 1_250_000);
        for millis in [50, 400, 700, 100_000_000] {
            series.observe(&RUN_DURATION, &["fix", "completed"], millis);
        }
        let text = prometheus::TextEncoder::new().encode_to_string(&Series::from_rows(series.rows()).families()).unwrap();
        for line in [
            "# TYPE hopyard_cost_usd_total counter",
            "hopyard_cost_usd_total{workflow=\"fix\"} 1.25",
            "hopyard_run_duration_seconds_bucket{workflow=\"fix\",status=\"completed\",le=\"0.1\"} 1",
            "hopyard_run_duration_seconds_bucket{workflow=\"fix\",status=\"completed\",le=\"0.5\"} 2",
            "hopyard_run_duration_seconds_bucket{workflow=\"fix\",status=\"completed\",le=\"86400\"} 3",
            "hopyard_run_duration_seconds_bucket{workflow=\"fix\",status=\"completed\",le=\"+Inf\"} 4",
            "hopyard_run_duration_seconds_sum{workflow=\"fix\",status=\"completed\"} 100001.15",
            "hopyard_run_duration_seconds_count{workflow=\"fix\",status=\"completed\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn nothing_is_shown_before_it_is_loaded() {
        let shown = Shown::default();
        shown.series().add(&RUNS_ACCEPTED, &["fix"], 1);
        assert!(shown.families().is_empty());
        shown.open(true);
        assert_eq!(shown.families().len(), 1);
    }
}
