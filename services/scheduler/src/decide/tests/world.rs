//! One run, one clock and the words of those who act on it; every decision is checked against the invariants.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::duration::Span;
use hopyard_contract::event::{Event, EventType};
use hopyard_contract::message::{Finished, Grant, NewRun, Outcome, Pin, Renewal, Started};
use hopyard_contract::plan::Plan;
use hopyard_contract::run::{Attempt, GitResult, Kill, RunState, StepState, WorkspaceRow};
use hopyard_contract::status::{FailureCode, PausedReason, PendingReason, RunStatus, StepStatus};
use hopyard_contract::usage::Usage;
use hopyard_contract::{AttemptId, Name, RunId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::invariants;
use crate::decide::{Birth, Decision, Effect, Input, KillAsk, Lease, Purse, Reply, Tick, birth, decide};

/// Length of every lease here, in seconds.
pub(super) const LEASE: i64 = 20;

/// A run with everything that has been said about it.
#[derive(Clone)]
pub(super) struct World {
    pub(super) now: DateTime<Utc>,
    pub(super) state: RunState,
    pub(super) events: Vec<Event>,
    pub(super) effects: Vec<Effect>,
    pub(super) reply: Reply,
    /// The last inventory row that was written.
    pub(super) row: Option<WorkspaceRow>,
    /// What is there of budgets that are shared.
    pub(super) purse: Option<Purse>,
    /// The latest instant at which anything was decided.
    pub(super) latest: DateTime<Utc>,
}

/// A lease as its executor knows it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) attempt: AttemptId,
    pub(super) token: Uuid,
    pub(super) grant: Grant,
}

/// What a submission comes with beside its plan.
pub(super) struct Submission {
    pub(super) request: Value,
    pub(super) parents: HashMap<RunId, RunStatus>,
    pub(super) tombstone: Option<Kill>,
}

impl Default for Submission {
    fn default() -> Self {
        Self { request: json!({}), parents: HashMap::new(), tombstone: None }
    }
}

/// An instant, in seconds from the submission.
pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a small number of seconds")
}

/// The id of another run.
pub(super) fn run_id(number: u64) -> RunId {
    RunId::of_bus_message(1_800_000_000_000_000_000, number, 0)
}

pub(super) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// Usage of that many millionths of a dollar and as many input tokens.
pub(super) fn cost(microusd: u64) -> Usage {
    let mut usage = Usage { cost_microusd: Some(microusd), ..Usage::default() };
    usage.tokens.input = microusd;
    usage
}

pub(super) fn failed(code: FailureCode) -> Outcome {
    Outcome::Failed { code, message: format!("it ended with {code}") }
}

pub(super) fn limited(until: DateTime<Utc>) -> Outcome {
    Outcome::Limited { reason: PausedReason::UsageLimit, until, message: "the provider takes no calls".to_owned() }
}

pub(super) fn work(head: &str) -> GitResult {
    let (base, branch) = ("base".to_owned(), "hopyard/w/1".to_owned());
    GitResult { base, head: head.to_owned(), branch, files: Vec::new(), insertions: 1, deletions: 0, patch: None, bundle: None }
}

pub(super) fn started(held: &Held, now: DateTime<Utc>) -> Started {
    Started {
        attempt: held.attempt.clone(),
        token: held.token,
        pid: 7,
        workspace: "/ws/1".to_owned(),
        before: Some("before".to_owned()),
        at: now,
    }
}

pub(super) fn finished(held: &Held, outcome: Outcome, now: DateTime<Utc>) -> Finished {
    Finished {
        pid: Some(7),
        workspace: Some("/ws/1".to_owned()),
        started_at: Some(now),
        before: Some("before".to_owned()),
        ..Finished::new(held.attempt.clone(), held.token, outcome, now)
    }
}

impl World {
    /// A run of these steps.
    pub(super) fn of(steps: Value) -> Self {
        Self::plan(json!({"steps": steps}))
    }

    /// A run of this plan.
    pub(super) fn plan(plan: Value) -> Self {
        Self::born(plan, Submission::default())
    }

    /// A run of this plan and this submission.
    pub(super) fn born(mut plan: Value, submission: Submission) -> Self {
        plan["v"] = json!(1);
        plan["name"] = json!("w");
        for step in plan["steps"].as_array_mut().expect("steps") {
            if ["agent", "approval", "best_of", "deliver"].iter().all(|work| step.get(work).is_none()) {
                step["shell"] = json!("true");
            }
        }
        let mut plan = Plan::from_stored(plan).expect("the plan fits");
        plan.add_variants();
        let plan = Arc::new(plan);
        let new = NewRun {
            run_id: run_id(1),
            request: serde_json::from_value(submission.request).expect("the request fits"),
            workflow: name("w"),
            definition_hash: "d".to_owned(),
            plan_hash: "p".to_owned(),
            request_hash: "r".to_owned(),
            recordings: Default::default(),
            traceparent: None,
        };
        let namespace = Name::default_namespace();
        let (parents, tombstone) = (&submission.parents, submission.tombstone);
        let decision = birth(&Birth { namespace: &namespace, new: &new, plan, parents, tombstone, trace_id: None }, at(0));
        let (now, state, reply) = (at(0), decision.next.clone(), Reply::None);
        let mut world = Self { now, state, events: Vec::new(), effects: Vec::new(), reply, row: None, purse: None, latest: now };
        world.keep(decision);
        invariants::check(None, &world);
        world
    }

    /// Decides, and checks what comes out.
    pub(super) fn decide(&mut self, input: &Input) -> &mut Self {
        let before = self.state.clone();
        let decision = decide(&before, input, self.now);
        self.keep(decision);
        invariants::check(Some(&before), self);
        self
    }

    fn keep(&mut self, decision: Decision) {
        self.state = decision.next;
        self.events.extend(decision.events);
        self.effects = decision.effects;
        self.reply = decision.reply;
        self.row = self.workspaces().pop().or(self.row.take());
        self.latest = self.latest.max(self.now);
    }

    /// The clock goes on to this second.
    pub(super) fn goto(&mut self, seconds: i64) -> &mut Self {
        self.now = at(seconds);
        self
    }

    pub(super) fn claim(&self, step: &str, executor: &str) -> Lease {
        let number = self.state.attempts.len() as u128 + 1;
        Lease {
            step: name(step),
            executor: name(executor),
            host: name(&format!("host-of-{executor}")),
            token: Uuid::from_u128(number),
            claim_id: Uuid::from_u128(number << 64),
            length: Span::from_millis(LEASE.unsigned_abs() * 1000),
            session_workspace: None,
            session_work: None,
            purse: None,
        }
    }

    /// Claims a step; `None` when it cannot be claimed.
    pub(super) fn try_lease(&mut self, step: &str, executor: &str) -> Option<Held> {
        let lease = Lease { purse: self.purse, ..self.claim(step, executor) };
        self.decide(&Input::Lease(Box::new(lease.clone())));
        match &self.reply {
            Reply::Granted(grant) => Some(Held { attempt: grant.attempt.clone(), token: lease.token, grant: (**grant).clone() }),
            Reply::NotClaimable => None,
            other => panic!("a claim was answered with {other:?}"),
        }
    }

    /// Claims a step for the first executor.
    pub(super) fn lease(&mut self, step: &str) -> Held {
        self.try_lease(step, "e1").unwrap_or_else(|| panic!("{step} is claimable: {:?}", self.state.step(step)))
    }

    /// Claims a step and reports its process.
    pub(super) fn start(&mut self, step: &str) -> Held {
        let held = self.lease(step);
        self.started(&held);
        held
    }

    pub(super) fn started(&mut self, held: &Held) -> &mut Self {
        let now = self.now;
        self.decide(&Input::Started(started(held, now)))
    }

    pub(super) fn finish(&mut self, held: &Held, outcome: Outcome) -> &mut Self {
        let now = self.now;
        self.report(finished(held, outcome, now))
    }

    pub(super) fn report(&mut self, finished: Finished) -> &mut Self {
        self.decide(&Input::Finished(Box::new(finished)))
    }

    /// A step from its claim to its end.
    pub(super) fn carry_out(&mut self, step: &str, outcome: Outcome) -> &mut Self {
        let held = self.start(step);
        self.finish(&held, outcome)
    }

    pub(super) fn complete(&mut self, step: &str) -> &mut Self {
        self.carry_out(step, Outcome::Completed)
    }

    pub(super) fn renew(&mut self, held: &Held, usage: Usage) -> &mut Self {
        let renewal = Renewal { attempt: held.attempt.clone(), token: held.token, usage, log_bytes: 0 };
        self.decide(&Input::Renew(renewal, Span::from_millis(LEASE.unsigned_abs() * 1000), self.purse))
    }

    pub(super) fn pin(&mut self, held: &Held, commit: &str) -> &mut Self {
        self.decide(&Input::Pin(Pin { attempt: held.attempt.clone(), token: held.token, commit: commit.to_owned() }))
    }

    pub(super) fn kill(&mut self) -> &mut Self {
        self.decide(&Input::Kill(KillAsk { by: "ada".to_owned(), reason: Some("wrong branch".to_owned()), force: false }))
    }

    /// A look at the clock by a scheduler that may judge leases.
    pub(super) fn tick(&mut self) -> &mut Self {
        self.decide(&Input::Tick(Tick { may_expire: true, ..Tick::default() }))
    }

    /// A look at the clock after which the run's executor is not counted on any more.
    pub(super) fn unbind(&mut self) -> &mut Self {
        self.decide(&Input::Tick(Tick { may_expire: true, unbind: Some("the executor is silent"), ..Tick::default() }))
    }

    /// A look at the clock that brings the status of a run in `after`.
    pub(super) fn parent(&mut self, id: RunId, status: RunStatus) -> &mut Self {
        self.decide(&Input::Tick(Tick { parents: HashMap::from([(id, status)]), may_expire: true, unbind: None }))
    }

    pub(super) fn status(&self) -> RunStatus {
        self.state.run.status
    }

    pub(super) fn reason(&self) -> Option<PendingReason> {
        self.state.run.pending_reason
    }

    pub(super) fn step(&self, id: &str) -> &StepState {
        self.state.step(id).unwrap_or_else(|| panic!("{id} is a step"))
    }

    pub(super) fn step_status(&self, id: &str) -> StepStatus {
        self.step(id).status
    }

    pub(super) fn attempt(&self, held: &Held) -> &Attempt {
        self.state.attempt(held.attempt.step.as_str(), held.attempt.n).expect("the attempt is recorded")
    }

    pub(super) fn count(&self, kind: EventType) -> usize {
        self.events.iter().filter(|e| e.kind == kind).count()
    }

    /// The only event of its kind.
    pub(super) fn event(&self, kind: EventType) -> &Event {
        assert_eq!(self.count(kind), 1, "{}", kind.as_str());
        self.events.iter().find(|e| e.kind == kind).expect("counted before")
    }

    /// Written forms of the events from the given number on.
    pub(super) fn kinds(&self, from: usize) -> Vec<&'static str> {
        self.events[from..].iter().map(|e| e.kind.as_str()).collect()
    }

    /// The workspace rows of the last decision.
    pub(super) fn workspaces(&self) -> Vec<WorkspaceRow> {
        self.effects.iter().filter_map(|e| if let Effect::Workspace(row) = e { Some((**row).clone()) } else { None }).collect()
    }

    /// The timer, in seconds from the submission.
    pub(super) fn timer(&self) -> Option<i64> {
        self.state.timer.map(|t| (t - at(0)).num_seconds())
    }

    pub(super) fn later(&mut self, delta: TimeDelta) -> &mut Self {
        self.now += delta;
        self
    }
}
