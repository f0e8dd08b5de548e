//! How far the system is behind, looked at once a second: age of the queues, age of the outbox, wait for the store, full disks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hopyard_contract::Name;
use hopyard_contract::status::RunStatus;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::disk;
use hopyard_store::runs::Claimable;
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use crate::door::Door;
use crate::instruments;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A look that takes long is followed by a pause this many times as long, so that looking does not add to the load.
const SHARE: u32 = 20;
/// How long an executor's last beat counts.
const ALIVE: Duration = Duration::from_secs(15);

/// What the last look saw; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Pressure {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Pending runs by namespace.
    pending: HashMap<Name, u64>,
    /// Runs taken by this door since then.
    taken: HashMap<Name, u64>,
    /// Since when the oldest step of a pool is claimable.
    oldest: HashMap<Name, BootInstant>,
    /// Age of the oldest unpublished commit.
    outbox: Duration,
    /// Wait for a connection to the store.
    wait: Duration,
    /// Volumes that are nearly full.
    full: Vec<PathBuf>,
}

impl Pressure {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pending runs of a namespace: those of the last look and those that came since.
    pub(super) fn pending(&self, namespace: &Name) -> u64 {
        let seen = self.seen();
        let of = |counts: &HashMap<Name, u64>| counts.get(namespace).copied().unwrap_or(0);
        of(&seen.pending) + of(&seen.taken)
    }

    /// Runs were taken.
    pub(super) fn note(&self, namespace: &Name, runs: u64) {
        *self.seen().taken.entry(namespace.clone()).or_default() += runs;
    }

    /// Age of the oldest claimable step of a pool.
    pub(super) fn queue_age(&self, pool: &Name) -> Duration {
        self.seen().oldest.get(pool).map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Why no run at all should be taken, in one sentence that names the setting.
    pub(super) fn too_high(&self, settings: &Settings) -> Option<String> {
        let seen = self.seen();
        if seen.outbox > settings.outbox_age {
            let age = seen.outbox.as_secs();
            return Some(format!("the oldest commit that is not on the bus yet is {age} s old (HOPYARD_OUTBOX_AGE)"));
        }
        if seen.wait > settings.store_wait {
            return Some(format!("a connection to the store takes {} ms (HOPYARD_STORE_WAIT)", seen.wait.as_millis()));
        }
        let full = seen.full.first()?;
        Some(format!("the volume of {} is nearly full (HOPYARD_DISK_RESERVE)", full.display()))
    }

    /// Looks until the process ends. A store that does not answer is no reason to refuse: the bus may still take a run.
    pub(super) async fn watch(self, door: Door, settings: Settings, volumes: Vec<PathBuf>) {
        let stop: CancellationToken = door.tasks.stopping().clone();
        loop {
            let began = BootInstant::now();
            if let Err(error) = self.look(&door, &settings, &volumes).await {
                tracing::debug!(%error, "the load cannot be looked at");
            }
            let pause = EVERY.max(began.elapsed() * SHARE);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn look(&self, door: &Door, settings: &Settings, volumes: &[PathBuf]) -> Result<(), hopyard_store::Error> {
        let reserve = settings.disk_reserve;
        let full: Vec<PathBuf> =
            volumes.iter().filter(|volume| disk::space(volume).is_some_and(|space| space.nearly_full(reserve))).cloned().collect();
        self.seen().full = full;
        let wait = door.reader.wait().await?;
        let outbox = Duration::from_millis(door.reader.outbox_age_ms().await?);
        {
            let mut seen = self.seen();
            (seen.wait, seen.outbox) = (wait, outbox);
        }
        // What comes while the counts are read may be in them or not: it is counted again rather than not at all.
        let before = std::mem::take(&mut self.seen().taken);
        let counts = match door.reader.live_counts().await {
            Ok(counts) => counts,
            Err(error) => {
                let mut seen = self.seen();
                for (namespace, runs) in before {
                    *seen.taken.entry(namespace).or_default() += runs;
                }
                return Err(error);
            }
        };
        let pending = counts.into_iter().filter(|(_, status, _)| *status == RunStatus::Pending).map(|(name, _, n)| (name, n)).collect();
        let served: Vec<Name> = door.presence.alive("executor", ALIVE).into_iter().filter_map(|(beat, _)| beat.pool).collect();
        let oldest = oldest(door.reader.claimable().await?, &served, BootInstant::now());
        let mut seen = self.seen();
        seen.pending = pending;
        seen.oldest = oldest;
        let queue = seen.oldest.values().map(|since| since.elapsed()).max().unwrap_or_default();
        for (signal, value) in [("queue_age", queue), ("outbox_age", seen.outbox), ("store_wait", seen.wait)] {
            instruments::pressure().with_label_values(&[signal]).set(i64::try_from(value.as_millis()).unwrap_or(i64::MAX));
        }
        instruments::pressure().with_label_values(&["full_volumes"]).set(i64::try_from(seen.full.len()).unwrap_or(i64::MAX));
        Ok(())
    }
}

/// Since when the oldest step of each pool waits that somebody serves: where nobody does, waiting says nothing about load.
fn oldest(claimable: Vec<Claimable>, served: &[Name], now: BootInstant) -> HashMap<Name, BootInstant> {
    let mut oldest: HashMap<Name, BootInstant> = HashMap::new();
    for row in claimable.into_iter().filter(|row| row.count > 0 && served.contains(&row.pool)) {
        let since = now.before(row.waited);
        let at = oldest.entry(row.pool).or_insert(since);
        *at = since.min(*at);
    }
    oldest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pools_that_are_served_are_judged_by_their_oldest_step() {
        let row = |pool: &'static str, bound: Option<&'static str>, seconds| Claimable {
            pool: Name::literal(pool),
            bound_to: bound.map(Name::literal),
            count: 1,
            waited: Duration::from_secs(seconds),
        };
        let now = BootInstant::now();
        let rows = vec![row("a", None, 1), row("a", Some("e1"), 2), row("empty", None, 3)];
        let found = oldest(rows, &[Name::literal("a"), Name::literal("b")], now);
        assert_eq!(found, HashMap::from([(Name::literal("a"), now.before(Duration::from_secs(2)))]));
    }

    #[test]
    fn each_signal_has_a_limit_and_a_sentence_with_its_setting() {
        let settings = Settings::default();
        let pressure = Pressure::default();
        assert_eq!(pressure.too_high(&settings), None);
        pressure.seen().full = vec!["/data".into()];
        assert!(pressure.too_high(&settings).is_some_and(|text| text.contains("/data") && text.contains("HOPYARD_DISK_RESERVE")));
        pressure.seen().wait = settings.store_wait + EVERY;
        assert!(pressure.too_high(&settings).is_some_and(|text| text.contains("HOPYARD_STORE_WAIT")));
        pressure.seen().outbox = settings.outbox_age + EVERY;
        assert!(pressure.too_high(&settings).is_some_and(|text| text.contains("HOPYARD_OUTBOX_AGE")));
    }

    #[test]
    fn runs_count_from_the_moment_they_are_taken() {
        let (pressure, name) = (Pressure::default(), Name::default_namespace());
        pressure.seen().pending.insert(name.clone(), 5);
        pressure.note(&name, 2);
        pressure.note(&name, 1);
        assert_eq!(pressure.pending(&name), 8);
        assert_eq!(pressure.pending(&Name::literal("other")), 0);
    }
}
