//! Whether runs get ahead as a whole: schedulers, outbox, command stream and pools.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use hopyard_contract::topology;
use hopyard_contract::view::{ComponentHealth, Health};
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::topology::Backlog;

use crate::door::Door;

const SCHEDULER: Duration = Duration::from_secs(12);
const OUTBOX_MS: u64 = 5_000;
const OLDEST_COMMAND: Duration = Duration::from_secs(10);
const EXECUTOR: Duration = Duration::from_secs(15);
const CLAIM: Duration = Duration::from_secs(45);
/// Messages that are remembered as taken and not settled.
const OPEN: usize = 4096;
/// Time between looks at the command stream.
const PROBE: Duration = Duration::from_secs(2);

/// How the command stream is getting on; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Messages that this process has taken and not settled, by sequence, with their stream times.
    open: BTreeMap<u64, DateTime<Utc>>,
    /// Messages settled so far.
    settled: u64,
    /// What the last probe saw: backlog and `settled` at that time.
    seen: Option<(u64, u64)>,
    /// Since when there is a backlog and nothing is settled.
    stuck: Option<BootInstant>,
    /// Why the last probe failed.
    error: Option<String>,
}

impl Commands {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message was taken, perhaps not for the first time.
    pub fn taken(&self, sequence: u64, stored_at: DateTime<Utc>) {
        let mut state = self.state();
        state.open.insert(sequence, stored_at);
        // The oldest count for health, and a door has fewer under way.
        if state.open.len() > OPEN {
            state.open.pop_last();
        }
    }

    /// A message was settled for good.
    pub fn settled(&self, sequence: u64) {
        let mut state = self.state();
        state.open.remove(&sequence);
        state.settled += 1;
    }

    fn probed(&self, backlog: Result<Backlog, String>) {
        let mut state = self.state();
        let Backlog { open: backlog, floor } = match backlog {
            Ok(backlog) => backlog,
            Err(error) => {
                state.error = Some(error);
                return;
            }
        };
        state.error = None;
        // Everything up to the floor is settled, by whatever door; a stream that was made again starts below it.
        state.open.retain(|sequence, _| *sequence > floor);
        if backlog == 0 {
            // Another door may have settled what was put back here.
            state.open.clear();
            state.stuck = None;
        } else if state.seen.is_none_or(|(before, settled)| before == 0 || settled != state.settled || backlog < before) {
            state.stuck = Some(BootInstant::now());
        }
        state.seen = Some((backlog, state.settled));
    }

    fn health(&self) -> ComponentHealth {
        let state = self.state();
        if let Some(error) = &state.error {
            return ComponentHealth::degraded("bus_unavailable", format!("the command stream cannot be looked at: {error}"));
        }
        let oldest = state.open.values().min().and_then(|at| (Utc::now() - *at).to_std().ok()).unwrap_or_default();
        let age = oldest.max(state.stuck.map(BootInstant::elapsed).unwrap_or_default());
        if age < OLDEST_COMMAND {
            return ComponentHealth::ok();
        }
        let backlog = state.seen.map_or(0, |(backlog, _)| backlog);
        ComponentHealth::degraded(
            "commands_waiting",
            format!("{backlog} submissions or cancels wait in the command stream, the oldest for {} s", age.as_secs()),
        )
    }

    /// Looks at the command stream every few seconds until the process ends.
    pub fn watch(&self, door: &Door) {
        let (own, door) = (self.clone(), door.clone());
        let stop = door.tasks.stopping().clone();
        door.tasks.clone().spawn("command-probe", async move {
            let consumer = topology::ingest();
            loop {
                let backlog = door.topology.backlog(&door.bus, consumer.stream, &consumer.durable).await;
                own.probed(backlog.map_err(|e| format!("{e:#}")));
                if stop.run_until_cancelled(tokio::time::sleep(PROBE)).await.is_none() {
                    return Ok(());
                }
            }
        });
    }
}

/// Looks at everything that runs need to get ahead.
pub async fn health(door: &Door) -> Health {
    let mut components = BTreeMap::new();
    let bus =
        if door.bus.connected() { ComponentHealth::ok() } else { ComponentHealth::degraded("bus_unavailable", "the bus is not connected") };
    components.insert("bus".to_owned(), bus);
    let scheduler = if door.presence.alive("scheduler", SCHEDULER).is_empty() {
        ComponentHealth::degraded("no_scheduler", "no scheduler has been heard for 12 s; start one with `hopyard scheduler`")
    } else {
        ComponentHealth::ok()
    };
    components.insert("scheduler".to_owned(), scheduler);
    components.insert("commands".to_owned(), door.commands.health());
    components.insert("intake".to_owned(), door.admission.health());
    let (store, outbox) = match door.reader.outbox_age_ms().await {
        Ok(age) if age < OUTBOX_MS => (ComponentHealth::ok(), ComponentHealth::ok()),
        Ok(age) => {
            (ComponentHealth::ok(), ComponentHealth::degraded("outbox_waiting", format!("the oldest unpublished commit is {age} ms old")))
        }
        Err(error) => {
            (ComponentHealth::degraded("store_unavailable", error.to_string()), ComponentHealth::degraded("store_unavailable", "not known"))
        }
    };
    components.insert("store".to_owned(), store);
    components.insert("outbox".to_owned(), outbox);
    components.insert("pools".to_owned(), pools(door).await);
    if let Some(canaries) = door.canaries.health() {
        components.insert("canaries".to_owned(), canaries);
    }
    Health::of(components)
}

/// Every pool with claimable steps needs an executor that claims, or that is busy.
async fn pools(door: &Door) -> ComponentHealth {
    let claimable = match door.reader.claimable().await {
        Ok(claimable) => claimable,
        Err(error) => return ComponentHealth::degraded("store_unavailable", error.to_string()),
    };
    let alive = door.presence.alive("executor", EXECUTOR);
    let mut waiting = BTreeMap::new();
    for row in claimable.into_iter().filter(|row| row.count > 0) {
        *waiting.entry(row.pool).or_insert(0) += row.count;
    }
    let mut texts = Vec::new();
    for (pool, count) in waiting {
        let mut of_pool = alive.iter().filter(|(beat, _)| beat.pool.as_ref() == Some(&pool)).peekable();
        if of_pool.peek().is_none() {
            texts.push(format!(
                "{count} steps wait for the pool `{pool}`, which has no live executor; start one with `hopyard executor --pool {pool}`"
            ));
        } else if !of_pool
            .any(|(beat, age)| beat.free == 0 || beat.claimed_ms_ago.is_some_and(|ms| Duration::from_millis(ms) + *age < CLAIM))
        {
            texts.push(format!("{count} steps wait for the pool `{pool}`, whose executors have free slots but have not claimed for 45 s"));
        }
    }
    if texts.is_empty() { ComponentHealth::ok() } else { ComponentHealth::degraded("no_executor", texts.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(open: u64, floor: u64) -> Result<Backlog, String> {
        Ok(Backlog { open, floor })
    }

    #[test]
    fn a_backlog_is_late_only_when_nothing_gets_ahead() {
        let commands = Commands::default();
        assert_eq!(commands.health().status, "ok");
        commands.taken(7, Utc::now() - chrono::TimeDelta::seconds(11));
        commands.probed(waiting(3, 0));
        let health = commands.health();
        assert_eq!((health.status.as_str(), health.code.as_deref()), ("degraded", Some("commands_waiting")));
        assert!(health.text.is_some_and(|t| t.starts_with("3 submissions")));
        commands.settled(7);
        commands.probed(waiting(2, 0));
        assert_eq!(commands.health().status, "ok");
        commands.probed(Err("gone".to_owned()));
        assert_eq!(commands.health().code.as_deref(), Some("bus_unavailable"));
        commands.probed(waiting(0, 0));
        assert_eq!(commands.health().status, "ok");
    }

    #[test]
    fn what_another_door_settled_is_forgotten() {
        let commands = Commands::default();
        commands.taken(1, Utc::now() - chrono::TimeDelta::seconds(60));
        commands.probed(waiting(0, 0));
        assert_eq!(commands.health().status, "ok");
    }

    #[test]
    fn under_steady_load_too_what_another_door_settled_is_forgotten() {
        let commands = Commands::default();
        // Put back here and settled elsewhere, while there is always something waiting.
        commands.taken(5, Utc::now() - chrono::TimeDelta::seconds(60));
        commands.probed(waiting(9, 4));
        assert_eq!(commands.health().code.as_deref(), Some("commands_waiting"));
        commands.probed(waiting(8, 5));
        assert_eq!(commands.health().status, "ok");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_holds_the_oldest() {
        let commands = Commands::default();
        for sequence in 1..=2 * OPEN as u64 {
            commands.taken(sequence, Utc::now());
        }
        let state = commands.state();
        assert_eq!((state.open.len(), state.open.keys().next()), (OPEN, Some(&1)));
    }
}
