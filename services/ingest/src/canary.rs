//! Canaries: a tiny run for every pool now and then, so that health means that work flows, and not only that processes beat.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use hopyard_contract::status::RunStatus;
use hopyard_contract::submit::CancelRequest;
use hopyard_contract::view::ComponentHealth;
use hopyard_contract::{Name, RunId};
use hopyard_runtime::Config;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::presence::Presence;
use serde_json::{Value, json};

use crate::accept::request::Form;
use crate::accept::{self, Origin};
use crate::door::Door;
use crate::instruments::{canaries, canary_age};
use crate::kill;
use crate::problem::Refusal;

/// Their namespace: they are in no list that somebody reads by default.
const NAMESPACE: &str = "hopyard-canary";
/// Their door, in counters.
const DOOR: &str = "canary";
/// How long an executor's last beat counts.
const ALIVE: Duration = Duration::from_secs(15);
/// A pool is late when no canary has come through for this many intervals.
const LATE: u32 = 3;
/// Pools that are watched.
const POOLS: usize = 256;

/// The canaries of a door; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Canaries {
    /// Time between two of a pool; `None` for no canaries.
    every: Option<Duration>,
    pools: Arc<Mutex<BTreeMap<Name, Watched>>>,
}

/// A pool with live executors.
#[derive(Clone, Copy, Debug)]
struct Watched {
    /// When the last one that came through was submitted, or the pool was first seen, or had no free slot.
    good: BootInstant,
    /// The one that is under way, and when it was submitted.
    out: Option<(RunId, BootInstant)>,
}

impl Canaries {
    /// From the settings of the process.
    ///
    /// # Errors
    /// When `HOPYARD_CANARY` is neither `off` nor a duration.
    pub fn read(config: &Config) -> anyhow::Result<Self> {
        let every = match config.get("CANARY") {
            None | Some("off") => None,
            Some(_) => Some(config.span("CANARY", 60_000).context("HOPYARD_CANARY is `off` or a duration")?.std()),
        };
        Ok(Self { every, pools: Arc::default() })
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<Name, Watched>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends canaries until the process drains, if there shall be any.
    pub fn start(&self, door: &Door) {
        let Some(every) = self.every else { return };
        let (own, door) = (self.clone(), door.clone());
        door.tasks.clone().spawn("canaries", async move {
            while door.tasks.draining().run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
                own.round(&door, every).await;
            }
            Ok(())
        });
    }

    /// Looks at the canaries that are out, and sends the next ones.
    async fn round(&self, door: &Door, every: Duration) {
        let idle = idle(&door.presence);
        let gone: Vec<(Name, Watched)> = {
            let mut pools = self.pools();
            for pool in idle.keys().take(POOLS) {
                pools.entry(pool.clone()).or_insert_with(|| Watched { good: BootInstant::now(), out: None });
            }
            let gone: Vec<_> = pools.iter().filter(|(pool, _)| !idle.contains_key(*pool)).map(|(p, w)| (p.clone(), *w)).collect();
            pools.retain(|pool, _| idle.contains_key(pool));
            gone
        };
        for (pool, watched) in gone {
            canary_age().remove_label_values(&[pool.as_str()]).unwrap_or_default();
            if let Some((run, _)) = watched.out {
                self.take_back(door, &pool, run).await;
            }
        }
        let watched = self.pools().clone();
        for (pool, watched) in watched {
            let free = idle.get(&pool).copied().unwrap_or(false);
            let next = self.step(door, every, &pool, watched, free).await;
            canary_age().with_label_values(&[pool.as_str()]).set(i64::try_from(next.good.elapsed().as_secs()).unwrap_or(i64::MAX));
            self.pools().insert(pool, next);
        }
    }

    /// What becomes of the canary of one pool; a pool without a free slot is at work, which says as much.
    async fn step(&self, door: &Door, every: Duration, pool: &Name, mut watched: Watched, free: bool) -> Watched {
        if !free {
            watched.good = BootInstant::now();
        }
        if let Some((run, since)) = watched.out {
            match door.reader.run(&Name::literal(NAMESPACE), run).await {
                Ok(Some(state)) if state.run.status.is_final() => {
                    let completed = state.run.status == RunStatus::Completed;
                    canaries().with_label_values(&[pool.as_str(), if completed { "completed" } else { "failed" }]).inc();
                    watched.out = None;
                    if completed {
                        watched.good = watched.good.max(since);
                    }
                }
                // Not to be seen yet, or nobody can look: it is asked for again.
                Ok(_) | Err(_) if since.elapsed() < every || !free => {}
                Ok(_) => {
                    self.take_back(door, pool, run).await;
                    watched.out = None;
                }
                Err(error) => tracing::debug!(%pool, %error, "a canary cannot be looked at"),
            }
        }
        if watched.out.is_none() && free {
            match submit(door, every, pool).await {
                Ok(run) => watched.out = Some((run, BootInstant::now())),
                Err(refusal) => {
                    canaries().with_label_values(&[pool.as_str(), "refused"]).inc();
                    tracing::debug!(%pool, code = refusal.0.code, "a canary was refused");
                }
            }
        }
        watched
    }

    /// A canary that did not come through does not stay in the queue.
    async fn take_back(&self, door: &Door, pool: &Name, run: RunId) {
        canaries().with_label_values(&[pool.as_str(), "late"]).inc();
        tracing::warn!(%pool, %run, "a canary did not come through");
        let order = CancelRequest { v: 1, run_id: None, reason: Some("the canary is late".to_owned()), force: false };
        if let Err(error) = kill::ask(door, &Name::literal(NAMESPACE), run, DOOR, &order).await {
            tracing::debug!(%pool, %run, %error, "a late canary could not be cancelled");
        }
    }

    /// For `/health`; `None` when there are no canaries.
    pub fn health(&self) -> Option<ComponentHealth> {
        let limit = self.every? * LATE;
        let late: Vec<String> = self
            .pools()
            .iter()
            .map(|(pool, watched)| (pool, watched.good.elapsed()))
            .filter(|(_, age)| *age > limit)
            .map(|(pool, age)| {
                format!("no canary of the pool `{pool}` has come through for {} s, though it has a free slot", age.as_secs())
            })
            .collect();
        Some(if late.is_empty() { ComponentHealth::ok() } else { ComponentHealth::degraded("canary_late", late.join("; ")) })
    }
}

/// Pools with live executors that take work, and whether one of these has a free slot.
fn idle(presence: &Presence) -> BTreeMap<Name, bool> {
    let mut idle = BTreeMap::new();
    for (beat, _) in presence.alive("executor", ALIVE) {
        if let Some(pool) = beat.pool.filter(|_| !beat.draining) {
            *idle.entry(pool).or_default() |= beat.free > 0;
        }
    }
    idle
}

/// Several doors send one canary: its key is the pool and the interval.
async fn submit(door: &Door, every: Duration, pool: &Name) -> Result<RunId, Refusal> {
    let now = Utc::now();
    let interval = now.timestamp_millis() / i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
    let origin = Origin { door: DOOR, namespace: Name::literal(NAMESPACE), receipt: None, received_at: now, key: None, traceparent: None };
    let prepared = accept::prepare(door, &origin, &body(pool, interval), Form::One).await?;
    let decided = accept::submit(door, DOOR, prepared).await?;
    accept::count(DOOR, &decided.verdicts);
    let run = decided.verdicts.first().and_then(|verdict| verdict.run_id);
    run.ok_or_else(|| Refusal::new(503, "outcome_unknown", "the canary has no verdict"))
}

fn body(pool: &Name, interval: i64) -> Value {
    json!({
        "definition": {
            "version": 1,
            "name": "canary",
            "workspace": { "mode": "none" },
            "steps": [{ "id": "sing", "shell": "true", "timeout": "1m" }],
        },
        "pool": pool,
        "priority": 3,
        "idempotency_key": format!("{pool}:{interval}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canary_is_a_valid_submission() {
        let body = body(&Name::literal("gpu"), 7);
        let items = accept::request::body(&body, Form::One).unwrap();
        let request = items.into_iter().next().unwrap().unwrap();
        assert_eq!((request.pool, request.idempotency_key), (Some(Name::literal("gpu")), Some("gpu:7".to_owned())));
        hopyard_definition::from_json(&body["definition"]).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert!(NAMESPACE.parse::<Name>().is_ok());
    }

    #[test]
    fn a_pool_is_late_after_three_intervals() {
        assert!(Canaries::default().health().is_none(), "off, nothing is said");
        let every = Duration::from_secs(10);
        let canaries = Canaries { every: Some(every), pools: Arc::default() };
        let ago = |span| Watched { good: BootInstant::now().before(span), out: None };
        canaries.pools().insert(Name::literal("a"), ago(every * 2));
        assert_eq!(canaries.health().unwrap().status, "ok");
        canaries.pools().insert(Name::literal("b"), ago(every * 4));
        let health = canaries.health().unwrap();
        assert_eq!(health.code.as_deref(), Some("canary_late"));
        assert!(health.text.is_some_and(|text| text.contains("`b`") && !text.contains("`a`")));
    }
}
