//! What the admin port shows of this service: counters once they are loaded, gauges while they are fresh.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::instruments::registry;

use crate::catalogue::{COUNTED, GAUGES, Metric};
use crate::series::Shown;

/// Shows the counters.
struct Counters {
    shown: Arc<Shown>,
    descriptions: Vec<Desc>,
}

impl Collector for Counters {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.shown.families()
    }
}

/// When gauges were read, and what they were.
type Reading = (BootInstant, Vec<MetricFamily>);

/// The gauges of the last good reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastReading {
    cell: Arc<Mutex<Option<Reading>>>,
}

impl LastReading {
    /// Older gauges are not shown: an absent series tells more than a wrong one.
    const FRESH: Duration = Duration::from_secs(20);

    /// Keeps a reading.
    pub(crate) fn put(&self, families: Vec<MetricFamily>) {
        *self.cell.lock().unwrap_or_else(PoisonError::into_inner) = Some((BootInstant::now(), families));
    }

    fn get(&self) -> Vec<MetricFamily> {
        let cell = self.cell.lock().unwrap_or_else(PoisonError::into_inner);
        cell.as_ref().filter(|(at, _)| at.elapsed() < Self::FRESH).map(|(_, families)| families.clone()).unwrap_or_default()
    }
}

/// Shows the gauges.
struct Gauges {
    last: LastReading,
    descriptions: Vec<Desc>,
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.last.get()
    }
}

/// Puts the counters into the registry of the process; they appear when they are opened.
///
/// # Errors
/// When a metric of the same name is there already.
pub(crate) fn register(shown: &Arc<Shown>) -> anyhow::Result<()> {
    let counters = Counters { shown: shown.clone(), descriptions: descriptions(&COUNTED)? };
    Ok(registry().register(Box::new(counters))?)
}

/// Puts the gauges into the registry of the process.
///
/// # Errors
/// When a metric of the same name is there already.
pub(crate) fn register_gauges(last: &LastReading) -> anyhow::Result<()> {
    let gauges = Gauges { last: last.clone(), descriptions: descriptions(&GAUGES)? };
    Ok(registry().register(Box::new(gauges))?)
}

fn descriptions(metrics: &[&Metric]) -> anyhow::Result<Vec<Desc>> {
    let describe = |metric: &&Metric| {
        let labels = metric.labels.iter().map(|l| (*l).to_owned()).collect();
        Ok(Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new())?)
    };
    metrics.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::RUNS_ACCEPTED;

    #[test]
    fn the_registry_shows_counters_only_when_they_are_open() {
        let shown = Arc::new(Shown::default());
        register(&shown).unwrap();
        register_gauges(&LastReading::default()).unwrap();
        shown.series().add(&RUNS_ACCEPTED, &["fix"], 2);
        let line = "hopyard_runs_accepted_total{workflow=\"fix\"} 2";
        assert!(!hopyard_runtime::instruments::render().contains(line));
        shown.open(true);
        assert!(hopyard_runtime::instruments::render().contains(line));
        shown.open(false);
        assert!(!hopyard_runtime::instruments::render().contains(line));
    }
}
