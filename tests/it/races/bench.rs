//! Two schedulers on one store, their clock, and how to see that one of them waits for the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hopyard_contract::duration::Span;
use hopyard_contract::message::PutDefinition;
use hopyard_contract::plan::Plan;
use hopyard_contract::run::RunState;
use hopyard_contract::{Name, RunId};
use hopyard_scheduler::budgets::Budgets;
use hopyard_scheduler::decide::{Effect, Input};
use hopyard_scheduler::request::Answer;
use hopyard_scheduler::round::{Desk, Outlook, transact};
use hopyard_scheduler::settings::Settings;
use hopyard_store::Store;
use hopyard_store::postgres_checks::Waits;
use hopyard_store::read::Reader;
use hopyard_store::runs::{OutboxRow, RunStore, Writes};
use serde_json::{Value, json};
use uuid::Uuid;

use super::plant::Plant;
use super::scene::{Ask, Scene};
use super::stage::{Clock, Doing, Stage};
use super::store::StagedStore;
use crate::harness::postgres::{self, Postgres};

/// Most tries of one request; the scheduler itself gives up after as many.
const TRIES: usize = 20;

/// A store, two schedulers and a clock.
pub struct Bench {
    pub clock: Arc<Clock>,
    pub reader: Arc<dyn Reader>,
    pub schedulers: [Arc<dyn RunStore>; 2],
    waits: Option<Waits>,
    plans: HashMap<&'static str, (Name, String)>,
    scenes: AtomicU64,
    _directory: Option<tempfile::TempDir>,
}

/// What was brought to whoever asked.
#[derive(Debug, Default)]
pub struct Told {
    pub answers: Vec<Answer>,
    pub effects: Vec<(RunId, Effect)>,
    /// Transactions that had to be made again.
    pub again: usize,
}

/// A scheduler that counts on every executor, and may judge leases or not.
pub struct Scheduler {
    pub judges: bool,
}

impl Outlook for Scheduler {
    fn may_judge(&self) -> bool {
        self.judges
    }

    fn why_unbind(&self, _: &Name) -> Option<&'static str> {
        None
    }

    fn pool_of(&self, _: &Name) -> Option<Name> {
        None
    }
}

impl Bench {
    /// Two schedulers with connections of their own to one database.
    pub async fn postgres(server: &Postgres) -> Self {
        let url = server.database().await;
        let name = url.rsplit('/').next().unwrap();
        // A circle is seen at once: both contestants wait, and nobody else is there.
        postgres::rows(&url, &format!("alter database {name} set deadlock_timeout = '5ms'")).await;
        let (one, two) = (Store::open(&url).await.unwrap(), Store::open(&url).await.unwrap());
        one.migrate().await.unwrap();
        let schedulers = [one.runs().await.unwrap(), two.runs().await.unwrap()];
        Self::new(schedulers, one.reader(), Some(Waits::of(&url).await), None).await
    }

    /// Two loops of the one scheduler that an embedded store lets in.
    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite:{}", directory.path().display())).await.unwrap();
        store.migrate().await.unwrap();
        let runs = store.runs().await.unwrap();
        Self::new([runs.clone(), runs], store.reader(), None, Some(directory)).await
    }

    async fn new(
        schedulers: [Arc<dyn RunStore>; 2],
        reader: Arc<dyn Reader>,
        waits: Option<Waits>,
        directory: Option<tempfile::TempDir>,
    ) -> Self {
        let mut plans = HashMap::new();
        for (name, plan) in all_plans() {
            let plan = Plan::from_stored(plan).unwrap();
            let put = PutDefinition {
                namespace: Name::default_namespace(),
                name: plan.name.clone(),
                source: name.to_owned(),
                definition_hash: name.to_owned(),
                plan_hash: plan.hash(),
                plan: plan.clone(),
                register: false,
                if_match: None,
            };
            schedulers[0].put_definition(&put).await.unwrap();
            plans.insert(name, (plan.name.clone(), plan.hash()));
        }
        Self { clock: Arc::new(Clock::new()), reader, schedulers, waits, plans, scenes: AtomicU64::new(0), _directory: directory }
    }

    /// Names for new races, an hour after those before.
    pub fn scenes(&self, number: usize, plan: &str, extra: &Value) -> Vec<Scene> {
        let base = self.clock.pass(3600);
        let scene = |_| {
            let number = self.scenes.fetch_add(1, Ordering::Relaxed);
            let name = |kind: &str| format!("{kind}{number}x").parse::<Name>().unwrap();
            let id = |n| RunId::of_bus_message(base.timestamp_nanos_opt().unwrap() + i64::from(n) * 1_000_000, number, n);
            Scene {
                namespace: name("n"),
                pools: [name("p"), name("q")],
                host: name("h"),
                number,
                key: format!("key-{number}x"),
                runs: (0..3).map(id).collect(),
                plan: self.plans[plan].clone(),
                base,
                leases: Vec::new(),
                claims: [(); 5].map(|()| Uuid::new_v4()),
                extra: extra.clone(),
            }
        };
        (0..number).map(scene).collect()
    }

    /// The store as one scheduler sees it in a race.
    pub fn staged(&self, who: usize, stage: Arc<Stage>, plant: Plant, scene: &Scene) -> StagedStore {
        StagedStore { plant, namespace: scene.namespace.clone(), runs: scene.runs.clone(), ..self.plain(who, stage) }
    }

    fn plain(&self, who: usize, stage: Arc<Stage>) -> StagedStore {
        StagedStore {
            inner: self.schedulers[who].clone(),
            reader: self.reader.clone(),
            clock: self.clock.clone(),
            stage,
            plant: Plant::Nothing,
            namespace: Name::default_namespace(),
            runs: Vec::new(),
        }
    }

    /// Asks while nothing comes in the way of it, of any number of scenes.
    pub async fn ask(&self, ask: &Ask) -> Result<Told, String> {
        carry_out(&self.plain(0, Arc::new(Stage::new(None))), ask).await
    }

    /// Waits until each contestant is done, held, or waits for what another one holds.
    pub async fn quiet(&self, stages: [&Stage; 2]) {
        loop {
            let doing = || stages.map(Stage::doing);
            let before = doing();
            let busy = before.iter().filter(|doing| matches!(doing, Doing::Beginning | Doing::Working)).count();
            if busy == 0 {
                return;
            }
            let alone = before.iter().any(|doing| matches!(doing, Doing::Nothing | Doing::Done));
            let waiting = match &self.waits {
                _ if alone => 0,
                Some(waits) => waits.count().await,
                // There is one writer: whoever begins waits until the other's transaction is over.
                None if stages.iter().any(|stage| stage.doing() == Doing::Held && stage.is_open()) => {
                    before.iter().filter(|doing| **doing == Doing::Beginning).count()
                }
                None => 0,
            };
            if waiting >= busy && before == doing() {
                return;
            }
            if alone || self.waits.is_none() {
                tokio::select! { () = stages[0].leaves(before[0]) => {}, () = stages[1].leaves(before[1]) => {} }
            }
        }
    }

    /// What is to be published.
    pub async fn outbox(&self) -> Vec<OutboxRow> {
        self.schedulers[0].outbox(0, 100_000).await.unwrap()
    }

    /// Takes everything for published.
    pub async fn publish(&self) {
        let published = self.outbox().await.into_iter().map(|row| row.id).collect();
        let mut tx = self.schedulers[0].begin().await.unwrap();
        tx.write(&Writes { published, ..Writes::default() }).await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// Asks until there is an answer, as the scheduler's loop does.
pub async fn carry_out(store: &StagedStore, ask: &Ask) -> Result<Told, String> {
    let told = tries(store, ask).await;
    store.stage.now_doing(Doing::Done);
    told
}

async fn tries(store: &StagedStore, ask: &Ask) -> Result<Told, String> {
    let decide = |state: &RunState, input: &Input, now| store.plant.decide(state, input, now);
    let desk =
        Desk { store, settings: settings(), budgets: &Budgets::default(), outlook: &Scheduler { judges: ask.judges }, decide: &decide };
    let batch: Vec<_> = ask.requests.iter().collect();
    for again in 0..TRIES {
        match transact(&desk, &batch, ask.due, Vec::new()).await {
            Ok(committed) => {
                let answers = committed.answers.into_iter().map(|answered| answered.answer).collect();
                return Ok(Told { answers, effects: committed.effects, again });
            }
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(format!("the store refuses for good: {error}")),
        }
    }
    Err(format!("there is no answer after {TRIES} tries"))
}

fn settings() -> Settings {
    Settings { lease: Span::from_millis(20_000), renew: Span::from_millis(5000) }
}

fn all_plans() -> Vec<(&'static str, Value)> {
    let step = |id: &str| json!({"id": id, "shell": "true"});
    let single = |name: &str| json!({"v": 1, "name": name, "steps": [step("a")]});
    let with = |name: &str, key: &str, value: Value| {
        let mut plan = single(name);
        plan[key] = value;
        plan
    };
    let patient = json!({"id": "b", "shell": "true", "retry": {"max_attempts": 3, "backoff": {"initial": "30s"}}});
    vec![
        ("single", single("single")),
        ("wide", json!({"v": 1, "name": "wide", "steps": [step("a"), patient, step("c")]})),
        ("limited", with("limited", "timeout", json!("30s"))),
        ("queue", with("queue", "concurrency", json!({"key": "k", "policy": "queue"}))),
        ("cancel_older", with("cancel-older", "concurrency", json!({"key": "k", "policy": "cancel_older"}))),
        ("session", with("session", "workspace", json!({"mode": "persistent"}))),
    ]
}
