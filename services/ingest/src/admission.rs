//! Admission: which submissions are taken while there is a limit to what can be, decided before anything is done for them.
//!
//! In this order: the size of a body (by the doors), the switch, the rate of a client, the pending runs of its namespace,
//! the load of the whole, and, once the plan is known, the queue of its pools. Load is judged by how long things wait, never
//! by how busy a machine is. Reads, cancels and health never pass here, so they stay open.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hopyard_contract::view::ComponentHealth;
use hopyard_contract::{FieldError, Name};
use hopyard_runtime::bounds;
use hopyard_runtime::clock::BootInstant;
use serde_json::Value;

use crate::door::Door;
use crate::instruments::{intake_open, refused};
use crate::problem::Refusal;
use buckets::{Buckets, Client};
use pressure::Pressure;

pub use settings::Settings;

mod buckets;
mod pressure;
mod settings;

/// How long a namespace with too many pending runs is told to wait.
const QUEUE: Duration = Duration::from_secs(5);
/// How long a submission waits when intake is off: somebody has to turn it on again.
const OFF: Duration = Duration::from_secs(30);
/// What the switch says to those it refuses.
const SWITCH: &str = "submissions are turned off: HOPYARD_INTAKE is `off`; set it to `on` and restart `hopyard ingest`";

/// Decides which submissions are taken; cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission {
    settings: Settings,
    began: BootInstant,
    buckets: Option<Arc<Mutex<Buckets>>>,
    pressure: Pressure,
}

impl Admission {
    /// With these limits.
    pub fn new(settings: Settings) -> Self {
        intake_open().with_label_values::<&str>(&[]).set(i64::from(settings.intake));
        if !settings.intake {
            tracing::warn!(setting = "HOPYARD_INTAKE", "submissions are refused until the setting is `on`");
        }
        let buckets = Buckets::new(settings.rate, settings.burst).map(|buckets| Arc::new(Mutex::new(buckets)));
        if let Some(shown) = buckets.clone() {
            bounds::show("clients", buckets::CLIENTS, move || shown.lock().unwrap_or_else(PoisonError::into_inner).len());
        }
        Self { settings, began: BootInstant::now(), buckets, pressure: Pressure::default() }
    }

    /// Starts to look at the load; `volumes` are those that must not run full.
    pub fn watch(&self, door: &Door, volumes: Vec<PathBuf>) {
        let watch = self.pressure.clone().watch(door.clone(), self.settings.clone(), volumes);
        door.tasks.spawn("admission", async move {
            watch.await;
            Ok(())
        });
    }

    /// Whether a body with so many runs is looked at.
    ///
    /// # Errors
    /// 503 `intake_off`, 429 `rate_limited` or `queue_full`, 503 `overloaded`, each with a time to come back.
    pub fn admit(&self, door: &'static str, address: Option<IpAddr>, namespace: &Name, body: &Value) -> Result<(), Refusal> {
        self.decide(address, namespace, runs_in(body)).map_err(|refusal| counted(door, refusal))
    }

    fn decide(&self, address: Option<IpAddr>, namespace: &Name, runs: u32) -> Result<(), Refusal> {
        if !self.settings.intake {
            return Err(Refusal::new(503, "intake_off", SWITCH).after(OFF));
        }
        if let Some(buckets) = &self.buckets {
            let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(wait) = buckets.take(&Client::new(address, namespace), runs, self.began.elapsed()) {
                let rate = self.settings.rate;
                let detail = format!("more than {rate} runs per second come from this client (HOPYARD_SUBMIT_RATE)");
                return Err(Refusal::new(429, "rate_limited", detail).after(wait));
            }
        }
        let cap = self.settings.pending_cap;
        if cap > 0 && self.pressure.pending(namespace) >= cap {
            let detail = format!("the namespace `{namespace}` has {cap} pending runs or more (HOPYARD_PENDING_CAP)");
            return Err(Refusal::new(429, "queue_full", detail).after(QUEUE));
        }
        match self.pressure.too_high(&self.settings) {
            None => Ok(()),
            Some(why) => Err(Refusal::new(503, "overloaded", format!("no run is taken at the moment: {why}"))),
        }
    }

    /// Whether runs for these pools are taken: one whose oldest step has waited too long gets no more.
    ///
    /// # Errors
    /// 503 `overloaded`.
    pub fn admit_pools(&self, door: &'static str, pools: &BTreeSet<Name>) -> Result<(), Refusal> {
        let Some(pool) = pools.iter().find(|pool| self.pressure.queue_age(pool) > self.settings.queue_age) else { return Ok(()) };
        let age = self.pressure.queue_age(pool).as_secs();
        let detail = format!("the pool `{pool}` is behind: its oldest step has been claimable for {age} s (HOPYARD_QUEUE_AGE)");
        Err(counted(door, Refusal::new(503, "overloaded", detail).after(QUEUE)))
    }

    /// Runs were taken: they count before the store is looked at again.
    pub fn taken(&self, namespace: &Name, runs: usize) {
        self.pressure.note(namespace, runs as u64);
    }

    /// What a submission off the command stream is refused with; those that a door took before are not asked.
    pub fn closed(&self) -> Option<FieldError> {
        (!self.settings.intake).then(|| {
            refused().with_label_values(&["cmd", "intake_off"]).inc();
            FieldError::new("intake_off", "", SWITCH)
        })
    }

    /// For `/health`: whether submissions are taken.
    pub fn health(&self) -> ComponentHealth {
        if !self.settings.intake {
            return ComponentHealth::degraded("intake_off", SWITCH);
        }
        match self.pressure.too_high(&self.settings) {
            None => ComponentHealth::ok(),
            Some(why) => ComponentHealth::degraded("overloaded", format!("submissions are refused: {why}")),
        }
    }
}

fn counted(door: &'static str, refusal: Refusal) -> Refusal {
    refused().with_label_values(&[door, &refusal.0.code]).inc();
    refusal
}

/// Runs that a body asks for, as far as it can be told before it is checked.
fn runs_in(body: &Value) -> u32 {
    let many = body.get("runs").and_then(Value::as_array).map_or(1, Vec::len);
    u32::try_from(many.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(outcome: Result<(), Refusal>) -> (u16, String) {
        let problem = *outcome.expect_err("it is refused").0;
        assert!(problem.retry_after_ms.is_some_and(|ms| ms > 0), "{problem:?}");
        (problem.status, problem.code)
    }

    fn admission(settings: Settings) -> Admission {
        Admission::new(settings)
    }

    #[test]
    fn the_first_limit_that_is_reached_says_why() {
        let name = Name::default_namespace();
        let one = json!({ "workflow": "x" });
        let closed = admission(Settings { intake: false, rate: 1, burst: 1, ..Settings::default() });
        for _ in 0..3 {
            assert_eq!(told(closed.admit("http", None, &name, &one)), (503, "intake_off".to_owned()));
        }
        assert_eq!(closed.closed().expect("it is closed").code, "intake_off");
        assert_eq!(closed.health().code.as_deref(), Some("intake_off"));

        let open = admission(Settings { rate: 1, burst: 3, pending_cap: 2, ..Settings::default() });
        assert!(open.closed().is_none());
        assert_eq!(open.health().status, "ok");
        open.admit("http", None, &name, &json!({ "runs": [one, one] })).expect("two of three");
        open.taken(&name, 2);
        assert_eq!(told(open.admit("http", None, &name, &one)), (429, "queue_full".to_owned()));
        assert_eq!(told(open.admit("http", None, &name, &one)), (429, "rate_limited".to_owned()));
        open.admit("http", None, &Name::literal("other"), &one).expect("another namespace has its own limits");
    }

    #[test]
    fn a_body_counts_by_its_runs() {
        assert_eq!(runs_in(&json!({ "runs": [1, 2, 3] })), 3);
        assert_eq!((runs_in(&json!({ "runs": [] })), runs_in(&json!({})), runs_in(&json!("x"))), (1, 1, 1));
    }
}
