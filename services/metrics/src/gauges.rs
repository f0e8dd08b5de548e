//! Gauges of what is going on, read from the store and the bus: a lost event cannot leave a wrong one for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hopyard_contract::Name;
use hopyard_contract::status::RunStatus;
use hopyard_contract::topology;
use hopyard_contract::view::ComponentHealth;
use hopyard_runtime::Context;
use hopyard_store::read::Reader;
use hopyard_store::runs::Claimable;
use prometheus::proto::MetricFamily;

use crate::catalogue::{BACKLOG, OUTBOX_AGE, QUEUE_AGE, QUEUE_DEPTH, RUNS};
use crate::collector::{self, LastReading};
use crate::instruments;
use crate::series::{OTHER, gauges};

/// Between readings, whatever the number of scrapes.
const EVERY: Duration = Duration::from_secs(5);
/// Most namespaces and most pools that get series of their own.
const MOST_VALUES: usize = 200;

/// Names that had a series in this process: they go on at 0 instead of vanishing.
#[derive(Debug, Default)]
struct Known {
    namespaces: BTreeSet<String>,
    pools: BTreeSet<String>,
}

/// Starts to read.
///
/// # Errors
/// When a metric of the same name is there already.
pub(crate) fn start(ctx: &Context, reader: Arc<dyn Reader>) -> anyhow::Result<()> {
    let last = LastReading::default();
    collector::register_gauges(&last)?;
    let own = ctx.clone();
    ctx.tasks.spawn("gauges", async move {
        let mut known = Known::default();
        known.namespaces.insert(Name::default_namespace().to_string());
        known.pools.insert(Name::default_pool().to_string());
        let stop = own.tasks.stopping().clone();
        loop {
            let mut families = Vec::new();
            match of_store(reader.as_ref(), &mut known).await {
                Ok(mut found) => {
                    own.readiness.set("store", ComponentHealth::ok());
                    families.append(&mut found);
                }
                Err(error) => {
                    instruments::gauge_failures().with_label_values(&["store"]).inc();
                    tracing::warn!(%error, "the gauges cannot be read from the store");
                    own.readiness.set("store", ComponentHealth::degraded("store_unavailable", error.to_string()));
                }
            }
            families.extend(of_bus(&own).await);
            last.put(families);
            own.readiness.tick("gauges", EVERY);
            if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return Ok(());
            }
        }
    });
    Ok(())
}

async fn of_store(reader: &dyn Reader, known: &mut Known) -> Result<Vec<MetricFamily>, hopyard_store::Error> {
    let counts = reader.live_counts().await?;
    let claimable = reader.claimable().await?;
    let outbox = reader.outbox_age_ms().await?;
    let (depth, age) = queues(&claimable, &mut known.pools);
    let outbox = BTreeMap::from([(Vec::new(), outbox as f64 / 1000.0)]);
    Ok(vec![
        gauges(&RUNS, &runs(&counts, &mut known.namespaces)),
        gauges(&QUEUE_DEPTH, &depth),
        gauges(&QUEUE_AGE, &age),
        gauges(&OUTBOX_AGE, &outbox),
    ])
}

/// Backlogs of the durable consumers that every deployment has; one that is not there yet has no series.
async fn of_bus(ctx: &Context) -> Option<MetricFamily> {
    let mut values = BTreeMap::new();
    for spec in [topology::ingest(), topology::scheduler(), topology::metrics()] {
        match ctx.topology.backlog(&ctx.bus, spec.stream, &spec.durable).await {
            Ok(backlog) => {
                values.insert(vec![spec.stream.to_owned(), spec.durable], backlog.open as f64);
            }
            Err(error) => {
                instruments::gauge_failures().with_label_values(&["bus"]).inc();
                tracing::debug!(error = format!("{error:#}"), consumer = spec.durable, "the backlog cannot be read");
            }
        }
    }
    (!values.is_empty()).then(|| gauges(&BACKLOG, &values))
}

/// The name itself, or the common one when there are too many.
fn admit(known: &mut BTreeSet<String>, name: &Name) -> String {
    if known.contains(name.as_str()) || known.len() < MOST_VALUES {
        known.insert(name.to_string());
        return name.to_string();
    }
    OTHER.to_owned()
}

fn runs(counts: &[(Name, RunStatus, u64)], namespaces: &mut BTreeSet<String>) -> BTreeMap<Vec<String>, f64> {
    let mut values = BTreeMap::new();
    for (namespace, status, count) in counts {
        *values.entry(vec![admit(namespaces, namespace), status.to_string()]).or_default() += *count as f64;
    }
    for namespace in namespaces.iter() {
        for status in RunStatus::ALL.iter().filter(|status| !status.is_final()) {
            values.entry(vec![namespace.clone(), status.to_string()]).or_default();
        }
    }
    values
}

/// Depth and age of the oldest entry by pool, steps that are bound to one executor included.
fn queues(claimable: &[Claimable], pools: &mut BTreeSet<String>) -> (BTreeMap<Vec<String>, f64>, BTreeMap<Vec<String>, f64>) {
    let (mut depth, mut age) = (BTreeMap::new(), BTreeMap::new());
    for entry in claimable {
        let pool = vec![admit(pools, &entry.pool)];
        *depth.entry(pool.clone()).or_default() += entry.count as f64;
        let oldest: &mut f64 = age.entry(pool).or_default();
        *oldest = oldest.max(entry.waited.as_secs_f64());
    }
    for pool in pools.iter() {
        depth.entry(vec![pool.clone()]).or_default();
        age.entry(vec![pool.clone()]).or_default();
    }
    (depth, age)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(values: &BTreeMap<Vec<String>, f64>, labels: &[&str]) -> Option<f64> {
        values.get(&labels.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>()).copied()
    }

    #[test]
    fn a_queue_that_becomes_empty_shows_zero() {
        let entry = |bound: Option<&'static str>, count, seconds| Claimable {
            pool: Name::literal("gpu"),
            bound_to: bound.map(Name::literal),
            count,
            waited: Duration::from_secs(seconds),
        };
        let mut pools = BTreeSet::new();
        let (depth, age) = queues(&[entry(None, 3, 10), entry(Some("e1"), 1, 40)], &mut pools);
        assert_eq!((value(&depth, &["gpu"]), value(&age, &["gpu"])), (Some(4.0), Some(40.0)));
        let (depth, age) = queues(&[], &mut pools);
        assert_eq!((value(&depth, &["gpu"]), value(&age, &["gpu"])), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn every_namespace_has_every_open_status_and_too_many_are_joined() {
        let mut namespaces = BTreeSet::new();
        let counts: Vec<_> = (0..MOST_VALUES + 3).map(|n| (format!("n{n:04}").parse().unwrap(), RunStatus::Running, 2)).collect();
        let values = runs(&counts, &mut namespaces);
        assert_eq!(value(&values, &["n0000", "running"]), Some(2.0));
        assert_eq!(value(&values, &["n0000", "paused"]), Some(0.0));
        assert_eq!(value(&values, &["n0000", "completed"]), None);
        assert_eq!(value(&values, &[OTHER, "running"]), Some(6.0));
    }
}
