//! Many schedulers at one store, and many executors that ask any of them: whatever a crowd does, an attempt has one owner.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chrono::Utc;
use hopyard_contract::duration::Span;
use hopyard_contract::message::{
    Accept, Claim, Finished, Grant, NewRun, Outcome, PutDefinition, Renew, Renewal, Report, Reports, Started, Submission, SubmissionItem,
};
use hopyard_contract::plan::Plan;
use hopyard_contract::run::RunState;
use hopyard_contract::status::{AttemptStatus, FailureCode, RunStatus};
use hopyard_contract::{AttemptId, Name, RunId, Usage};
use hopyard_scheduler::budgets::Budgets;
use hopyard_scheduler::decide::decide;
use hopyard_scheduler::request::{Answer, Request};
use hopyard_scheduler::round::{Desk, transact};
use hopyard_scheduler::settings::Settings;
use hopyard_store::Store;
use hopyard_store::runs::RunStore;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::harness::dice::Dice;
use crate::harness::postgres;
use crate::races::bench::Scheduler;

const SCHEDULERS: usize = 8;
const EXECUTORS: usize = 50;
const RUNS: usize = 100;
/// Of a lease; short, so that leases run out in the middle of everything.
const LEASE_MS: u64 = 1500;

/// Who was granted what: the secret of each lease, and the executor that has it.
type Owners = BTreeMap<AttemptId, (Uuid, Name)>;

/// The schedulers, and what the crowd has seen.
struct Crowd {
    schedulers: Vec<Arc<dyn RunStore>>,
    owners: Mutex<Owners>,
}

impl Crowd {
    /// Asks any scheduler until it answers.
    async fn ask(&self, dice: &mut Dice, request: Request, due: bool) -> Answer {
        let settings = Settings { lease: Span::from_millis(LEASE_MS), renew: Span::from_millis(500) };
        loop {
            let desk = Desk {
                store: dice.pick(&self.schedulers).as_ref(),
                settings,
                budgets: &Budgets::default(),
                outlook: &Scheduler { judges: true },
                decide: &decide,
            };
            match transact(&desk, &[&request], due, Vec::new()).await {
                Ok(mut committed) => {
                    let answered = committed.answers.pop().unwrap();
                    assert_eq!(answered.faults, [], "{request:?}");
                    return answered.answer;
                }
                Err(error) => assert!(error.is_transient(), "{request:?}: {error}"),
            }
        }
    }

    /// Asks for work; now and then the answer is lost, and another scheduler is asked the same at the same time.
    async fn claim(&self, dice: &mut Dice, executor: &Name) -> Vec<Grant> {
        let free = 1 + dice.below(4) as u32;
        let claim =
            Claim { claim_id: Uuid::new_v4(), executor: executor.clone(), host: Name::literal("h"), pool: Name::literal("p"), free };
        let (mut here, mut there) = (Dice::new(dice.below(1 << 30) as u64, 1), Dice::new(dice.below(1 << 30) as u64, 2));
        let ask = async |dice: &mut Dice| match self.ask(dice, Request::Claim(claim.clone()), false).await {
            Answer::Claim(reply) => {
                assert!(reply.grants.len() <= free as usize, "{} grants for {free} slots", reply.grants.len());
                reply.grants
            }
            other => panic!("{other:?}"),
        };
        let mut grants = if dice.one_in(3) {
            let (one, two) = tokio::join!(ask(&mut here), ask(&mut there));
            // Whatever either of them says is meant for this executor. Both may have leased before either had committed: what
            // the executor does not hear of waits for the end of its lease.
            let mut both = one;
            both.extend(two.into_iter().filter(|grant| !both.iter().any(|known| known.attempt == grant.attempt)).collect::<Vec<_>>());
            both
        } else {
            ask(&mut here).await
        };
        let mut owners = self.owners.lock().unwrap();
        for grant in &grants {
            let owner = (grant.token, executor.clone());
            let known = owners.entry(grant.attempt.clone()).or_insert_with(|| owner.clone());
            assert_eq!(*known, owner, "{} is given twice", grant.attempt);
        }
        drop(owners);
        grants.sort_by(|a, b| a.attempt.cmp(&b.attempt));
        grants
    }

    /// Carries out what was granted; some die of it, some are late, and some words are said twice.
    async fn carry_out(&self, dice: &mut Dice, executor: &Name, grant: Grant) {
        if dice.one_in(25) {
            return;
        }
        let Grant { attempt, token, .. } = grant;
        let started = Started { attempt: attempt.clone(), token, pid: 7, workspace: "/w".to_owned(), before: None, at: Utc::now() };
        self.report(dice, executor, Report::Started(started)).await;
        if dice.one_in(4) {
            let lease = Renewal { attempt: attempt.clone(), token, usage: Usage::default(), log_bytes: 0 };
            self.ask(dice, Request::Renew(Renew { executor: executor.clone(), leases: vec![lease] }), false).await;
        }
        let outcome = match dice.one_in(10) {
            true => Outcome::Failed { code: FailureCode::ExitCode, message: "ended with 1".to_owned() },
            false => Outcome::Completed,
        };
        let finished = Report::Finished(Finished {
            attempt,
            token,
            outcome,
            pid: Some(7),
            workspace: None,
            started_at: None,
            finished_at: Utc::now(),
            exit_code: Some(0),
            signal: None,
            outputs: BTreeMap::new(),
            usage: Usage::default(),
            log_bytes: 0,
            log: None,
            note: None,
            record: None,
            snapshot: None,
            before: None,
            result: None,
        });
        if dice.one_in(5) {
            self.report(dice, executor, finished.clone()).await;
        }
        self.report(dice, executor, finished).await;
    }

    async fn report(&self, dice: &mut Dice, executor: &Name, report: Report) {
        self.ask(dice, Request::Reports(Reports { v: 1, from: executor.clone(), reports: vec![report] }), false).await;
    }
}

/// Three steps that wait for nothing; one of them is tried again.
fn definition() -> PutDefinition {
    let plan = json!({ "v": 1, "name": "wide", "steps": [{ "id": "a", "shell": "true" }, { "id": "b", "shell": "true" },
        { "id": "c", "shell": "true", "retry": { "max_attempts": 3, "backoff": { "initial": "100ms" } } }] });
    let plan = Plan::from_stored(plan).unwrap();
    PutDefinition {
        namespace: Name::default_namespace(),
        name: plan.name.clone(),
        source: String::new(),
        definition_hash: "wide".to_owned(),
        plan_hash: plan.hash(),
        plan,
        register: false,
        if_match: None,
    }
}

fn submission(put: &PutDefinition, run_id: RunId) -> Request {
    let run = NewRun {
        run_id,
        request: serde_json::from_value(json!({ "pool": "p" })).unwrap(),
        workflow: put.name.clone(),
        definition_hash: put.definition_hash.clone(),
        plan_hash: put.plan_hash.clone(),
        request_hash: "r".to_owned(),
        recordings: Default::default(),
        traceparent: None,
    };
    let items = vec![SubmissionItem::Run(Box::new(run))];
    let submission = Submission { namespace: put.namespace.clone(), receipt: None, promised: false, received_at: Utc::now(), items };
    Request::Accept(Accept { submissions: vec![submission] })
}

/// Covers C3: eight schedulers and fifty executors that die, come late and ask twice never run one attempt twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_has_one_owner_however_many_ask() {
    let seed = u64::from(Utc::now().timestamp_subsec_nanos());
    println!("seed {seed}");
    let server = postgres::server().await;
    let url = postgres::new_database(&server).await;
    let mut schedulers = Vec::new();
    let first = Store::open(&url).await.unwrap();
    first.migrate().await.unwrap();
    for _ in 0..SCHEDULERS {
        schedulers.push(Store::open(&url).await.unwrap().runs().await.unwrap());
    }
    let put = definition();
    schedulers[0].put_definition(&put).await.unwrap();
    let crowd = Arc::new(Crowd { schedulers, owners: Mutex::default() });
    let runs: Vec<RunId> = (0..RUNS).map(|_| RunId::mint()).collect();

    let (over, stop) = watch::channel(false);
    let mut executors = JoinSet::new();
    for n in 0..EXECUTORS {
        let (crowd, stop) = (crowd.clone(), stop.clone());
        executors.spawn(async move {
            let (mut dice, executor) = (Dice::new(seed, n as u64), format!("e{n}").parse::<Name>().unwrap());
            while !*stop.borrow() {
                for grant in crowd.claim(&mut dice, &executor).await {
                    crowd.carry_out(&mut dice, &executor, grant).await;
                }
            }
        });
    }
    let mut dice = Dice::new(seed, 1000);
    for run in &runs {
        crowd.ask(&mut dice, submission(&put, *run), false).await;
    }
    // Leases run out and retries come when somebody looks at the clock.
    let reader = first.reader();
    let nothing = || Request::Reports(Reports { v: 1, from: Name::literal("nobody"), reports: Vec::new() });
    while reader.live_counts().await.unwrap().iter().any(|(_, _, live)| *live > 0) {
        crowd.ask(&mut dice, nothing(), true).await;
        // None ends before it is told to, unless it found something.
        if let Some(executor) = executors.try_join_next() {
            executor.unwrap();
        }
    }
    over.send(true).unwrap();
    while let Some(executor) = executors.join_next().await {
        executor.unwrap();
    }

    let mut kept = Owners::new();
    let mut lost = 0;
    for id in runs {
        let state = reader.run(&put.namespace, id).await.unwrap().unwrap();
        judge(&state);
        lost += state.attempts.iter().filter(|attempt| attempt.status == AttemptStatus::Lost).count();
        kept.extend(
            state
                .attempts
                .into_iter()
                .map(|attempt| (AttemptId { run: id, step: attempt.step, n: attempt.n }, (attempt.token, attempt.executor))),
        );
    }
    println!("{} attempts, {lost} of them lost", kept.len());
    assert!(lost > 0, "no lease ran out: the crowd was too well behaved");
    let owners = std::mem::take(&mut *crowd.owners.lock().unwrap());
    // A grant that nobody heard of is there too, if its answer came for a claim that was over.
    for (attempt, owner) in &owners {
        assert_eq!(kept.get(attempt), Some(owner), "{attempt}");
    }
    assert_eq!(owners.len(), kept.len(), "every grant reached the one who asked");
}

/// A run is over, each of its steps was done once, and a failure has its reason.
fn judge(state: &RunState) {
    let run = state.run.id;
    for step in &state.steps {
        let of = |status| state.attempts.iter().filter(|attempt| attempt.step == step.id && attempt.status == status).count();
        let (done, live) = (of(AttemptStatus::Completed), of(AttemptStatus::Leased) + of(AttemptStatus::Running));
        assert_eq!(live, 0, "{run} {}: an attempt goes on", step.id);
        match state.run.status {
            RunStatus::Completed => assert_eq!(done, 1, "{run} {}", step.id),
            RunStatus::Failed => assert!(done <= 1 && !state.attempts.is_empty(), "{run} {}", step.id),
            other => panic!("{run} ends as {other:?}"),
        }
    }
}
