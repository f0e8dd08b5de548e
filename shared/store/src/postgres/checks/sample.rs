//! Runs to check with: one shell step each, as a submission makes them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use hopyard_contract::event::{Event, EventType};
use hopyard_contract::message::PutDefinition;
use hopyard_contract::plan::Plan;
use hopyard_contract::run::{Attempt, Run, Slot, StepState};
use hopyard_contract::status::{AttemptStatus, PendingReason, RunStatus, StepStatus};
use hopyard_contract::submit::AfterPolicy;
use hopyard_contract::{Name, RunId, Usage};
use uuid::Uuid;

use crate::postgres::{Postgres, scalar};
use crate::runs::{RunStore, RunTx, RunWrite, Writes};

/// A namespace, a pool and a plan that no other check uses.
pub(super) struct Sample {
    pub(super) namespace: Name,
    pub(super) pool: Name,
    plan_hash: String,
}

impl Sample {
    /// Stores the plan.
    pub(super) async fn new(store: &Postgres) -> Self {
        let own = format!("c{}", Uuid::new_v4().simple());
        let namespace: Name = own.parse().expect("hex digits make a name");
        let plan = serde_json::json!({"v": 1, "name": "sample", "steps": [{"id": "one", "shell": "true"}]});
        let plan: Plan = serde_json::from_value(plan).expect("the plan is valid");
        let plan_hash = plan.hash();
        let put = PutDefinition {
            namespace: namespace.clone(),
            name: Name::literal("sample"),
            source: "version: 1".to_owned(),
            definition_hash: "definition".to_owned(),
            plan,
            plan_hash: plan_hash.clone(),
            register: false,
            if_match: None,
        };
        store.put_definition(&put).await.expect("the plan is stored");
        Self { pool: namespace.clone(), namespace, plan_hash }
    }

    /// A pending run whose step is claimable since `at`.
    pub(super) fn run(&self, at: DateTime<Utc>) -> RunWrite {
        let id = RunId::mint();
        let run = Run {
            id,
            namespace: self.namespace.clone(),
            workflow: Name::literal("sample"),
            definition_hash: "definition".to_owned(),
            plan_hash: self.plan_hash.clone(),
            status: RunStatus::Pending,
            pending_reason: Some(PendingReason::AwaitingExecutor),
            paused_reason: None,
            failure_code: None,
            error: None,
            labels: BTreeMap::from([("team".to_owned(), "hops".to_owned())]),
            inputs: serde_json::Map::new(),
            repo: None,
            commit: None,
            priority: 1,
            pool: self.pool.clone(),
            session: None,
            after: Vec::new(),
            after_open: Vec::new(),
            after_policy: AfterPolicy::Skip,
            start_at: None,
            budget: None,
            budget_warned: false,
            rerun_of: None,
            replay: false,
            recordings: Default::default(),
            slots: Vec::new(),
            kill: None,
            created_at: DateTime::from_timestamp_millis(id.unix_millis()).expect("an id carries a time"),
            started_at: None,
            finished_at: None,
            deadline: None,
            usage: Usage::default(),
            late_usage: None,
            result: None,
            restore: None,
            generation: 0,
            executor: None,
            host: None,
            workspace: None,
            event_seq: 1,
            trace_id: None,
        };
        let events = vec![self.event(&run, EventType::RunAccepted, at)];
        RunWrite {
            new: true,
            steps: vec![(0, self.step(at))],
            attempts: Vec::new(),
            events,
            timer: Some(Some(at + chrono::TimeDelta::hours(1))),
            run,
        }
    }

    fn step(&self, at: DateTime<Utc>) -> StepState {
        StepState {
            id: Name::literal("one"),
            status: StepStatus::Pending,
            pending_reason: Some(PendingReason::AwaitingExecutor),
            paused_reason: None,
            failure_code: None,
            error: None,
            pool: self.pool.clone(),
            bound_to: None,
            attempt: 0,
            failures: 0,
            lost: 0,
            unstarted: 0,
            pauses: 0,
            resume_at: None,
            question: None,
            answer: None,
            claimable_at: Some(at),
            queued_at: None,
            started_at: None,
            finished_at: None,
            outputs: BTreeMap::new(),
            usage: Usage::default(),
            before: None,
            result: None,
        }
    }

    /// An event with the run's last number.
    pub(super) fn event(&self, run: &Run, kind: EventType, at: DateTime<Utc>) -> Event {
        Event {
            v: 1,
            id: format!("{}:{}", run.id, run.event_seq),
            run_id: run.id,
            namespace: run.namespace.clone(),
            seq: run.event_seq,
            kind,
            at,
            step: None,
            attempt: None,
            data: serde_json::Map::new(),
        }
    }

    /// An attempt that has just been granted.
    pub(super) fn attempt(&self, at: DateTime<Utc>) -> Attempt {
        Attempt {
            step: Name::literal("one"),
            n: 1,
            status: AttemptStatus::Leased,
            paused: false,
            note: None,
            executor: Name::literal("executor"),
            host: Name::literal("host"),
            token: Uuid::new_v4(),
            claim_id: Uuid::new_v4(),
            lease_until: at + chrono::TimeDelta::seconds(20),
            leased_at: at,
            announced: false,
            started_at: None,
            finished_at: None,
            pid: None,
            workspace: None,
            generation: 1,
            exit_code: None,
            signal: None,
            failure_code: None,
            error: None,
            usage: Usage::default(),
            allowance_microusd: None,
            log_bytes: 0,
            log: None,
            record: None,
            snapshot: None,
        }
    }

    /// Stores new runs.
    pub(super) async fn insert(&self, store: &Postgres, runs: Vec<RunWrite>) {
        let mut tx = begin(store).await;
        tx.write(&Writes { runs, ..Writes::default() }).await.expect("runs are written");
        tx.commit().await.expect("runs are committed");
    }
}

/// Waits for a slot of its own kind.
pub(super) fn slot(key: &str, held: bool) -> Slot {
    Slot { key: key.to_owned(), limit: 1, policy: hopyard_contract::plan::ConcurrencyPolicy::Queue, held }
}

/// The same run as it is after its end.
pub(super) fn ended(write: &RunWrite, at: DateTime<Utc>) -> RunWrite {
    let mut write = write.clone();
    write.new = false;
    write.run.status = RunStatus::Completed;
    write.run.pending_reason = None;
    write.run.finished_at = Some(at);
    for (_, step) in &mut write.steps {
        step.status = StepStatus::Completed;
        step.pending_reason = None;
        step.claimable_at = None;
        step.finished_at = Some(at);
    }
    write.events = Vec::new();
    write.timer = None;
    write
}

/// An open transaction.
pub(super) async fn begin(store: &Postgres) -> Box<dyn RunTx> {
    RunStore::begin(store).await.expect("a transaction begins")
}

/// The database's clock.
pub(super) async fn now(store: &Postgres) -> DateTime<Utc> {
    begin(store).await.now().await.expect("the clock is read")
}

/// Lets `second` begin once `first` waits for a lock, or is done because it had to wait for none.
pub(super) async fn meet<A, B>(store: &Postgres, first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let done = AtomicBool::new(false);
    let first = async {
        let outcome = first.await;
        done.store(true, Ordering::SeqCst);
        outcome
    };
    let second = async {
        while !done.load(Ordering::SeqCst) && !somebody_waits(store).await {
            tokio::task::yield_now().await;
        }
        second.await
    };
    tokio::join!(first, second)
}

async fn somebody_waits(store: &Postgres) -> bool {
    waiting(store).await > 0
}

/// How many connections to the database wait for a lock.
pub(super) async fn waiting(store: &Postgres) -> usize {
    // The function and not the view over it: the question is asked very often.
    let sql = "SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE wait_event_type = 'Lock' \
         AND datid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let found: i64 = scalar(sql).fetch_one(&store.pool).await.expect("activity is read");
    usize::try_from(found).expect("a count is not negative")
}
