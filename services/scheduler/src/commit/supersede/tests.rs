//! Newcomers and the runs they supersede, on an embedded store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hopyard_contract::message::{NewRun, PutDefinition};
use hopyard_contract::plan::Plan;
use hopyard_contract::run::RunState;
use hopyard_contract::status::RunStatus;
use hopyard_contract::{Name, RunId};
use hopyard_store::Store;
use hopyard_store::runs::{RunStore, Writes};
use serde_json::json;

use crate::commit::Round;
use crate::decide::{Birth, Input, Lease, birth};

struct Bench {
    runs: Arc<dyn RunStore>,
    namespace: Name,
    plans: HashMap<&'static str, Arc<Plan>>,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite:{}", directory.path().display())).await.unwrap();
        store.migrate().await.unwrap();
        let runs = store.runs().await.unwrap();
        let namespace = Name::default_namespace();
        let mut plans = HashMap::new();
        for policy in ["queue", "cancel_older"] {
            let plan = json!({
                "v": 1, "name": "deploy", "steps": [{"id": "a", "shell": "true"}], "inputs": {"to": {"type": "string"}},
                "concurrency": {"key": "${{ inputs.to }}", "policy": policy},
            });
            let plan = Plan::from_stored(plan).unwrap();
            let put = PutDefinition {
                namespace: namespace.clone(),
                name: plan.name.clone(),
                source: policy.to_owned(),
                definition_hash: policy.to_owned(),
                plan_hash: plan.hash(),
                plan: plan.clone(),
                register: false,
                if_match: None,
            };
            runs.put_definition(&put).await.unwrap();
            plans.insert(policy, Arc::new(plan));
        }
        Self { runs, namespace, plans, _directory: directory }
    }

    /// Accepts runs, given with policy and key, in one transaction.
    async fn accept(&self, newcomers: &[(RunId, &str, &str)]) {
        let mut tx = self.runs.begin().await.unwrap();
        let now = tx.now().await.unwrap();
        let mut round = Round { now, states: BTreeMap::new(), effects: Vec::new(), writes: Writes::default(), slots: HashMap::new() };
        for (id, policy, key) in newcomers {
            let plan = self.plans[policy].clone();
            let new = NewRun {
                run_id: *id,
                request: serde_json::from_value(json!({"inputs": {"to": key}})).unwrap(),
                workflow: plan.name.clone(),
                definition_hash: (*policy).to_owned(),
                plan_hash: plan.hash(),
                request_hash: "r".to_owned(),
                traceparent: None,
            };
            let born = birth(
                &Birth { namespace: &self.namespace, new: &new, plan, parents: &HashMap::new(), tombstone: None, trace_id: None },
                now,
            );
            round.keep(*id, born);
        }
        let born: Vec<RunId> = newcomers.iter().map(|(id, ..)| *id).collect();
        round.supersede(tx.as_mut(), &born).await.unwrap();
        round.close();
        tx.write(&round.writes).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Lets an executor claim a run's step.
    async fn lease(&self, id: RunId) {
        let mut tx = self.runs.begin().await.unwrap();
        let now = tx.now().await.unwrap();
        let mut round = Round { now, states: BTreeMap::new(), effects: Vec::new(), writes: Writes::default(), slots: HashMap::new() };
        round.take(tx.load(&[id]).await.unwrap());
        let lease = Lease {
            step: Name::literal("a"),
            executor: Name::literal("e1"),
            host: Name::literal("h1"),
            token: uuid::Uuid::new_v4(),
            claim_id: uuid::Uuid::new_v4(),
            length: "20s".parse().unwrap(),
            session_workspace: None,
            session_work: None,
        };
        round.decide(id, &Input::Lease(lease));
        round.close();
        tx.write(&round.writes).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn state(&self, id: RunId) -> RunState {
        let mut tx = self.runs.begin().await.unwrap();
        let state = tx.load(&[id]).await.unwrap().remove(0);
        tx.commit().await.unwrap();
        state
    }

    async fn superseded(&self, id: RunId) -> Option<String> {
        let kill = self.state(id).await.run.kill?;
        assert_eq!(kill.by, "hopyard");
        kill.reason
    }
}

/// A run that was submitted at a second.
fn id(second: i64, number: u64) -> RunId {
    RunId::of_bus_message((1_800_000_000 + second) * 1_000_000_000, number, 0)
}

fn by(id: RunId) -> Option<String> {
    Some(format!("superseded by run {id}"))
}

#[tokio::test]
async fn holders_and_waiters_of_the_key_give_way_to_a_newcomer() {
    let bench = Bench::new().await;
    let [holder, waiter, other, newcomer] = [1, 2, 3, 4].map(|n| id(n, 0));
    bench.accept(&[(holder, "queue", "prod"), (waiter, "queue", "prod"), (other, "queue", "test")]).await;
    bench.lease(holder).await;
    bench.accept(&[(newcomer, "cancel_older", "prod")]).await;
    assert_eq!((bench.superseded(waiter).await, bench.state(waiter).await.run.status), (by(newcomer), RunStatus::Killed));
    assert_eq!((bench.superseded(holder).await, bench.state(holder).await.run.status), (by(newcomer), RunStatus::Pending));
    assert_eq!(bench.superseded(other).await, None, "another key");
    assert_eq!(bench.superseded(newcomer).await, None);
    let last = id(5, 0);
    bench.accept(&[(last, "queue", "prod")]).await;
    assert_eq!((bench.superseded(newcomer).await, bench.superseded(last).await), (None, None), "only this policy cancels");
    assert_eq!(bench.superseded(holder).await, by(newcomer), "whoever asked first is named");
}

#[tokio::test]
async fn of_one_transaction_the_last_of_a_key_stays() {
    let bench = Bench::new().await;
    let stored = id(1, 0);
    bench.accept(&[(stored, "cancel_older", "prod")]).await;
    // Of one message of the bus: the ids carry one time and are in no order.
    let mut ids = [id(2, 1), id(2, 2), id(2, 3)];
    ids.sort();
    ids.reverse();
    let [a, b, c] = ids;
    bench.accept(&[(a, "cancel_older", "prod"), (b, "cancel_older", "prod"), (c, "cancel_older", "prod")]).await;
    assert_eq!((bench.superseded(stored).await, bench.superseded(a).await), (by(a), by(b)));
    assert_eq!((bench.superseded(b).await, bench.superseded(c).await), (by(c), None));
}

#[tokio::test]
async fn a_run_that_comes_late_gives_way_to_a_newer_one() {
    let bench = Bench::new().await;
    let (oldest, late, newer) = (id(1, 0), id(2, 0), id(3, 0));
    bench.accept(&[(newer, "cancel_older", "prod"), (oldest, "queue", "prod")]).await;
    bench.accept(&[(late, "cancel_older", "prod")]).await;
    assert_eq!((bench.superseded(late).await, bench.superseded(newer).await), (by(newer), None));
    assert_eq!(bench.superseded(oldest).await, by(late));
}
