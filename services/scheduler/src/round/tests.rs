//! A store of a test's own, a calm outlook, and what a round does when a decision or the store fails.

use std::sync::Arc;

use hopyard_contract::duration::Span;
use hopyard_contract::message::{
    Accept, Claim, ClaimReply, KillReply, KillRun, NewRun, PutDefinition, Report, Reports, Submission, SubmissionItem, WorkspacesQuery,
};
use hopyard_contract::plan::Plan;
use hopyard_contract::status::{AttemptStatus, FailureCode, RunStatus};
use hopyard_store::Store;
use serde_json::json;

use super::*;
use crate::budgets::Budgets;
use crate::decide::{Birth, birth, decide};

/// Nothing is shared here.
static NO_BUDGETS: std::sync::OnceLock<Budgets> = std::sync::OnceLock::new();

/// A scheduler that is well and counts on everybody.
struct Calm;

impl Outlook for Calm {
    fn may_judge(&self) -> bool {
        true
    }

    fn why_unbind(&self, _: &Name) -> Option<&'static str> {
        None
    }

    fn pool_of(&self, _: &Name) -> Option<Name> {
        None
    }
}

/// An embedded store with two plans: `queue` and `cancel_older`, of one step each and a concurrency key from the input `to`.
pub(super) struct Bench {
    runs: Arc<dyn RunStore>,
    namespace: Name,
    plans: HashMap<&'static str, Arc<Plan>>,
    _directory: tempfile::TempDir,
}

impl Bench {
    pub(super) async fn new() -> Self {
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

    pub(super) fn desk<'a>(&'a self, decide: &'a Decide<'a>) -> Desk<'a> {
        let settings = Settings { lease: Span::from_millis(20_000), renew: Span::from_millis(5000) };
        Desk { store: self.runs.as_ref(), settings, budgets: NO_BUDGETS.get_or_init(Budgets::default), outlook: &Calm, decide }
    }

    /// A run as ingest hands it over.
    pub(super) fn new_run(&self, run_id: RunId, policy: &str, request: serde_json::Value) -> NewRun {
        let plan = &self.plans[policy];
        NewRun {
            run_id,
            request: serde_json::from_value(request).unwrap(),
            workflow: plan.name.clone(),
            definition_hash: policy.to_owned(),
            plan_hash: plan.hash(),
            request_hash: "r".to_owned(),
            recordings: Default::default(),
            traceparent: None,
        }
    }

    /// Accepts runs, given with policy and key, in one transaction.
    pub(super) async fn accept(&self, newcomers: &[(RunId, &str, &str)]) {
        let desk = self.desk(&decide);
        let mut round = Round::open(&desk).await.unwrap();
        round.now = round.tx.now().await.unwrap();
        for (id, policy, key) in newcomers {
            let (plan, new) = (self.plans[policy].clone(), self.new_run(*id, policy, json!({"inputs": {"to": key}})));
            let parents = HashMap::new();
            let birth_of = Birth { namespace: &self.namespace, new: &new, plan, parents: &parents, tombstone: None, trace_id: None };
            let born = birth(&birth_of, round.now);
            round.keep(*id, born);
        }
        let born: Vec<RunId> = newcomers.iter().map(|(id, ..)| *id).collect();
        round.supersede(&born).await.unwrap();
        round.commit(Vec::new(), Vec::new()).await.unwrap();
    }

    /// Lets an executor claim everything that it may.
    pub(super) async fn claim(&self) -> ClaimReply {
        let request = Request::Claim(claim());
        let committed = transact(&self.desk(&decide), &[&request], false, Vec::new()).await.unwrap();
        match committed.answers.into_iter().next().unwrap().answer {
            Answer::Claim(reply) => reply,
            other => panic!("a claim was answered with {other:?}"),
        }
    }

    pub(super) async fn state(&self, id: RunId) -> RunState {
        let mut tx = self.runs.begin().await.unwrap();
        let state = tx.load(&[id]).await.unwrap().remove(0);
        tx.commit().await.unwrap();
        state
    }

    async fn alias(&self, id: RunId) -> Option<RunId> {
        let mut tx = self.runs.begin().await.unwrap();
        let run = tx.alias(id).await.unwrap();
        tx.commit().await.unwrap();
        run
    }
}

fn claim() -> Claim {
    let [executor, host, pool] = ["e1", "h1", "default"].map(Name::literal);
    Claim { claim_id: uuid::Uuid::new_v4(), executor, host, pool, free: 8 }
}

/// A run that was submitted at a second.
pub(super) fn id(second: i64, number: u64) -> RunId {
    RunId::of_bus_message((1_800_000_000 + second) * 1_000_000_000, number, 0)
}

fn kill(run: RunId) -> Request {
    Request::Kill(KillRun { namespace: Name::default_namespace(), run, by: "ada".to_owned(), reason: None, force: false })
}

#[tokio::test]
async fn a_decision_that_panics_ends_its_run_and_no_other() {
    let bench = Bench::new().await;
    let [bad, good] = [1, 2].map(|n| id(n, 0));
    bench.accept(&[(bad, "queue", "x"), (good, "queue", "y")]).await;
    let broken = |state: &RunState, input: &Input, now: DateTime<Utc>| {
        assert!(state.run.id != bad || !matches!(input, Input::Kill(_)), "index out of bounds");
        decide(state, input, now)
    };
    let committed = transact(&bench.desk(&broken), &[&kill(bad), &kill(good)], true, Vec::new()).await.unwrap();
    let faults: Vec<_> = committed.answers.iter().map(|a| a.faults.clone()).collect();
    assert_eq!(faults[0].len(), 1);
    assert_eq!(faults[0][0].run, bad);
    assert!(faults[0][0].detail.contains("index out of bounds"), "{:?}", faults[0]);
    assert_eq!(faults[1], []);
    let state = bench.state(bad).await;
    assert_eq!((state.run.status, state.run.failure_code), (RunStatus::Failed, Some(FailureCode::EngineError)));
    assert!(state.run.error.unwrap().message.contains("index out of bounds"));
    assert_eq!(bench.state(good).await.run.status, RunStatus::Killed);
}

#[tokio::test]
async fn a_run_that_cannot_even_be_ended_does_not_hold_up_the_clock() {
    let bench = Bench::new().await;
    let [bad, good] = [1, 2].map(|n| id(n, 0));
    bench.accept(&[(bad, "queue", "x"), (good, "queue", "y")]).await;
    let broken = |state: &RunState, input: &Input, now: DateTime<Utc>| {
        assert_ne!(state.run.id, bad);
        decide(state, input, now)
    };
    let committed = transact(&bench.desk(&broken), &[&kill(bad), &kill(good)], false, Vec::new()).await.unwrap();
    assert_eq!(committed.answers[0].faults.len(), 1);
    let state = bench.state(bad).await;
    assert_eq!(state.run.status, RunStatus::Pending);
    assert!(state.timer.is_some(), "it is looked at again");
    assert_eq!(bench.state(good).await.run.status, RunStatus::Killed);
}

#[tokio::test]
async fn a_run_that_cannot_be_committed_ends_with_an_engine_error() {
    let bench = Bench::new().await;
    let run = id(1, 0);
    bench.accept(&[(run, "queue", "x")]).await;
    fail_runs(&bench.desk(&decide), &kill(run), "the row is refused").await.unwrap();
    let state = bench.state(run).await;
    assert_eq!((state.run.status, state.run.failure_code), (RunStatus::Failed, Some(FailureCode::EngineError)));
    fail_runs(&bench.desk(&decide), &kill(run), "again").await.unwrap();
    assert_eq!(bench.state(run).await, state, "final is final");
}

#[tokio::test]
async fn work_of_a_lost_attempt_is_kept_even_if_its_start_was_never_heard() {
    let bench = Bench::new().await;
    let run = id(1, 0);
    bench.accept(&[(run, "queue", "x")]).await;
    let grant = bench.claim().await.grants.remove(0);
    // Its process may have run: the word of it was lost with the executor.
    let lost = json!({"attempt": grant.attempt, "token": grant.token, "outcome": "lost", "finished_at": "2027-01-15T08:00:00Z",
        "usage": {"cost_microusd": 0, "tokens": {}, "turns": 0, "tool_calls": 0}, "log_bytes": 0});
    let report = Report::Finished(serde_json::from_value(lost).unwrap());
    let reports = Request::Reports(Reports { v: 1, from: Name::literal("e1"), reports: vec![report] });
    let found = vec![format!("{run}-g1")];
    let workspaces = Request::Workspaces(WorkspacesQuery { host: Name::literal("h1"), found, only_found: false });
    let committed = transact(&bench.desk(&decide), &[&reports, &kill(run), &workspaces], false, Vec::new()).await.unwrap();
    let attempt = bench.state(run).await.attempts.remove(0);
    assert_eq!((attempt.status, attempt.started_at), (AttemptStatus::Lost, None));
    // The inventory of this transaction is read before it is written.
    let Answer::Workspaces(early) = &committed.answers[2].answer else { panic!("workspaces were asked for") };
    assert_eq!(early.keep, [format!("{run}-g1")]);
    let committed = transact(&bench.desk(&decide), &[&workspaces], false, Vec::new()).await.unwrap();
    let Answer::Workspaces(reply) = &committed.answers[0].answer else { panic!("workspaces were asked for") };
    assert_eq!(reply.reclaimable[0].lost, [grant.attempt], "the janitor keeps its work before the directory goes");
}

/// A submission of one run; `promised`: somebody was told its id.
fn accept(bench: &Bench, run: RunId, request: serde_json::Value, promised: bool) -> Request {
    let new = bench.new_run(run, "queue", request);
    let items = vec![SubmissionItem::Run(Box::new(new))];
    let submission = Submission { namespace: bench.namespace.clone(), receipt: None, promised, received_at: Utc::now(), items };
    Request::Accept(Accept { submissions: vec![submission] })
}

/// Sent twice with one key while nobody answered: the second id was answered, and the first made the run.
#[tokio::test]
async fn an_id_that_was_promised_names_the_run_that_its_key_has_made() {
    let bench = Bench::new().await;
    let (first, second, third) = (id(1, 0), id(2, 0), id(3, 0));
    let keyed = json!({"inputs": {"to": "x"}, "idempotency_key": "k"});
    let told = [accept(&bench, first, keyed.clone(), true), accept(&bench, second, keyed.clone(), true)];
    transact(&bench.desk(&decide), &[&told[0], &told[1]], false, Vec::new()).await.unwrap();
    assert_eq!(bench.alias(second).await, Some(first));
    // An id that nobody was told is not kept.
    transact(&bench.desk(&decide), &[&accept(&bench, third, keyed, false)], false, Vec::new()).await.unwrap();
    assert_eq!(bench.alias(third).await, None);
    let killed = transact(&bench.desk(&decide), &[&kill(second)], false, Vec::new()).await.unwrap();
    assert!(matches!(killed.answers[0].answer, Answer::Kill(KillReply::Requested)), "{killed:?}");
    assert_eq!(bench.state(first).await.run.status, RunStatus::Killed);
}

#[tokio::test]
async fn a_cancel_by_a_promised_id_that_comes_before_it_ends_the_run_of_its_key() {
    let bench = Bench::new().await;
    let (first, second) = (id(1, 0), id(2, 0));
    let keyed = json!({"inputs": {"to": "x"}, "idempotency_key": "k"});
    transact(&bench.desk(&decide), &[&accept(&bench, first, keyed.clone(), true), &kill(second)], false, Vec::new()).await.unwrap();
    transact(&bench.desk(&decide), &[&accept(&bench, second, keyed, true)], false, Vec::new()).await.unwrap();
    assert_eq!(bench.state(first).await.run.status, RunStatus::Killed);
}

#[tokio::test]
async fn a_cancel_that_comes_before_its_run_in_the_same_batch_wins() {
    let bench = Bench::new().await;
    let run = id(1, 0);
    let accept = accept(&bench, run, json!({"inputs": {"to": "x"}}), false);
    let committed = transact(&bench.desk(&decide), &[&kill(run), &accept], false, Vec::new()).await.unwrap();
    assert!(matches!(committed.answers[0].answer, Answer::Kill(KillReply::Tombstone)));
    assert_eq!(bench.state(run).await.run.status, RunStatus::Killed);
}

#[tokio::test]
async fn the_clock_is_read_again_whenever_more_runs_are_locked() {
    let bench = Bench::new().await;
    let [one, two] = [1, 2].map(|n| id(n, 0));
    bench.accept(&[(one, "queue", "x"), (two, "queue", "y")]).await;
    let desk = bench.desk(&decide);
    let mut round = Round::open(&desk).await.unwrap();
    for run in [one, two] {
        // What was read before the lock may be earlier than what the one before wrote.
        round.now = DateTime::UNIX_EPOCH;
        round.know([run]).await.unwrap();
        assert!(round.now > DateTime::UNIX_EPOCH);
    }
    let now = round.now;
    round.know([one, two]).await.unwrap();
    assert_eq!(round.now, now, "nothing was locked");
}
