//! The one decision: what an input makes of a run. Pure and total: no clock, no randomness, no I/O, no waiting.
//!
//! [`decide`] takes the state of a run as it was read and returns the state as it shall be, with the events to record and
//! the effects to have once both are committed. Whatever does not fit the state changes nothing and says so in the reply.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use hopyard_contract::duration::Span;
use hopyard_contract::event::{Event, EventType};
use hopyard_contract::message::{
    AnswerReply, BudgetScope, Finished, Grant, KillOrder, KillReply, Pin, PinReply, RenewAnswer, Renewal, Restore, ResumeReply, Started,
    WorkspaceSaved,
};
use hopyard_contract::run::{RunState, StepState, WorkspaceRow};
use hopyard_contract::status::{PendingReason, RunStatus};
use hopyard_contract::{AttemptId, Name, RunId};
use serde_json::{Map, Value};
use uuid::Uuid;

mod answer;
mod birth;
mod budget;
mod choose;
pub(crate) mod grant;
mod kill;
mod lease;
mod progress;
mod report;
mod scope;
mod tick;

pub use answer::AnswerAsk;
pub use birth::{Birth, birth};
pub(crate) use budget::{outstanding, pays};

#[cfg(test)]
mod tests;

/// Attempts of a step that may be lost with their executor before the step fails.
pub const LOST_LIMIT: u32 = 3;
/// Grants of a step that may run out before a process starts, before that counts as a loss.
pub const UNSTARTED_LIMIT: u32 = 10;

/// Pauses of a step for a provider's limit, without a turn in between, before it fails.
pub const PAUSE_LIMIT: u32 = 5;

/// What happens to a run.
#[derive(Clone, Debug)]
pub enum Input {
    /// An executor claims a step that was found claimable.
    Lease(Box<Lease>),
    /// A process runs.
    Started(Started),
    /// An attempt is over.
    Finished(Box<Finished>),
    /// A lease shall go on, for so long and with so much of the budgets that its run shares.
    Renew(Renewal, Span, Option<Purse>),
    /// The first workspace resolved a ref.
    Pin(Pin),
    /// Someone ends the run.
    Kill(KillAsk),
    /// Someone answers the question of a step.
    Answer(AnswerAsk),
    /// Someone (by name) lets what is paused go on.
    Resume(String),
    /// Time has passed, a run it waits for has ended, or its executor fell silent.
    Tick(Tick),
    /// The janitor kept a lost attempt's work.
    Saved(WorkspaceSaved),
    /// A workspace is gone.
    Removed(WorkspaceRow, String),
    /// Something about the run cannot be decided or committed.
    Fault(String),
}

/// A claim of one step.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The step.
    pub step: Name,
    /// Who claims.
    pub executor: Name,
    /// On which host.
    pub host: Name,
    /// Secret of the lease.
    pub token: Uuid,
    /// The claim.
    pub claim_id: Uuid,
    /// Length of the lease.
    pub length: Span,
    /// The kept workspace of the run's session, if it has one.
    pub session_workspace: Option<WorkspaceRow>,
    /// The work that the session's last run left, wherever its directory is.
    pub session_work: Option<Restore>,
    /// What is there of the budgets that the run shares.
    pub purse: Option<Purse>,
}

/// The tightest of the budgets that a run shares with others, in millionths of a dollar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purse {
    /// What has not been spent.
    pub left: u64,
    /// What of it has not been handed out either.
    pub free: u64,
    /// All of it.
    pub limit: u64,
    /// Who shares it.
    pub scope: BudgetScope,
    /// When there is more.
    pub until: DateTime<Utc>,
}

/// A request to end the run.
#[derive(Clone, Debug)]
pub struct KillAsk {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// Without grace.
    pub force: bool,
}

/// What a look at the clock brings.
#[derive(Clone, Debug, Default)]
pub struct Tick {
    /// Statuses of the runs named in `after`.
    pub parents: HashMap<RunId, RunStatus>,
    /// Whether leases may be judged: the scheduler has been connected and committing for a whole lease.
    pub may_expire: bool,
    /// Whether the executor that the run is bound to can no longer be counted on.
    pub unbind: Option<&'static str>,
}

/// What became of a run, and what has to follow.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The state as it shall be.
    pub next: RunState,
    /// New events, numbered.
    pub events: Vec<Event>,
    /// What to do after the commit.
    pub effects: Vec<Effect>,
    /// The answer to who asked.
    pub reply: Reply,
}

/// Something to do after the commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A pool has a claimable step.
    Ring(Name),
    /// An executor has a claimable step that is bound to it.
    RingExecutor(Name),
    /// An executor shall end the run's attempts.
    Kill(Name, KillOrder),
    /// An attempt's result is committed.
    Settled(Name, AttemptId),
    /// A workspace is new or stands elsewhere; written with the run.
    Workspace(Box<WorkspaceRow>),
    /// A slot is free: runs that wait for it may be claimable now.
    SlotFreed,
    /// Something stale or repeated was said; counted by kind.
    Stale(&'static str),
}

/// The answer to who asked.
#[derive(Clone, Debug, Default)]
pub enum Reply {
    /// Nothing to say.
    #[default]
    None,
    /// The claim holds.
    Granted(Box<Grant>),
    /// The step was not claimable any more.
    NotClaimable,
    /// About a lease.
    Renewed(RenewAnswer),
    /// The commit.
    Pinned(PinReply),
    /// About a kill.
    Killed(KillReply),
    /// About an answer.
    Answered(AnswerReply),
    /// About a resume.
    Resumed(ResumeReply),
}

/// Decides what an input makes of a run.
pub fn decide(state: &RunState, input: &Input, now: DateTime<Utc>) -> Decision {
    let mut change =
        Change { state: state.clone(), events: Vec::new(), effects: Vec::new(), reply: Reply::None, resumed_by: None, purse: None, now };
    match input {
        Input::Lease(lease) => change.on_lease(lease),
        Input::Started(started) => change.on_started(started),
        Input::Finished(finished) => change.on_finished(finished),
        Input::Renew(renewal, length, purse) => {
            change.purse = *purse;
            change.on_renew(renewal, *length);
        }
        Input::Pin(pin) => change.on_pin(pin),
        Input::Kill(ask) => change.on_kill(ask),
        Input::Answer(ask) => change.on_answer(ask),
        Input::Resume(by) => change.on_resume(by),
        Input::Tick(tick) => change.on_tick(tick),
        Input::Saved(saved) => change.on_saved(saved),
        Input::Removed(row, reason) => change.on_removed(row, reason),
        Input::Fault(detail) => change.on_fault(detail),
    }
    change.state.timer = change.timer();
    Decision { next: change.state, events: change.events, effects: change.effects, reply: change.reply }
}

/// A decision in the making.
struct Change {
    state: RunState,
    events: Vec<Event>,
    effects: Vec<Effect>,
    reply: Reply,
    /// Who lets the run go on, if somebody does.
    resumed_by: Option<String>,
    /// What is there of the budgets that the run shares.
    purse: Option<Purse>,
    now: DateTime<Utc>,
}

impl Change {
    /// Records a fact.
    fn event(&mut self, kind: EventType, step: Option<&Name>, attempt: Option<u32>, data: Value) {
        let run = &mut self.state.run;
        run.event_seq += 1;
        let data = match data {
            Value::Object(map) => map.into_iter().filter(|(_, v)| !v.is_null()).collect(),
            _ => Map::new(),
        };
        self.events.push(Event {
            v: 1,
            id: format!("{}:{}", run.id, run.event_seq),
            run_id: run.id,
            namespace: run.namespace.clone(),
            seq: run.event_seq,
            kind,
            at: self.now,
            step: step.cloned(),
            attempt,
            data,
        });
    }

    /// Position of a step in the plan's order.
    fn step_index(&self, id: &str) -> Option<usize> {
        self.state.steps.iter().position(|s| s.id.as_str() == id)
    }

    /// Position of the attempt whose lease this token is; ended ones included.
    fn attempt_index(&self, attempt: &AttemptId, token: Uuid) -> Option<usize> {
        let ours = attempt.run == self.state.run.id;
        self.state.attempts.iter().position(|a| ours && a.n == attempt.n && a.step == attempt.step && a.token == token)
    }

    /// When the run wants to be looked at next.
    fn timer(&self) -> Option<DateTime<Utc>> {
        let run = &self.state.run;
        if run.status.is_final() {
            return None;
        }
        // While the gate is closed nothing is open yet; a start that has passed unseen still wants its look.
        let closed = self.state.steps.iter().all(|s| s.pending_reason == Some(PendingReason::AwaitingDependencies));
        let start = run.start_at.filter(|at| closed && (*at > self.now || run.after_open.is_empty()));
        // Looks that repeat are never put off by what happens in between.
        let soon = |seconds| {
            let at = self.now + chrono::TimeDelta::seconds(seconds);
            self.state.timer.filter(|earlier| *earlier > self.now).map_or(at, |earlier| earlier.min(at))
        };
        // A lease that could not be judged when it ran out is looked at every second.
        let leases = self.state.live().map(|a| if a.lease_until > self.now { a.lease_until } else { soon(1) });
        let waiting = |reason| self.state.steps.iter().filter(move |s| s.pending_reason == Some(reason));
        let backoffs = waiting(PendingReason::RetryBackoff).chain(waiting(PendingReason::AwaitingBudget)).filter_map(|s| s.claimable_at);
        let asks = |s: &StepState| s.question.as_ref().filter(|_| s.paused_reason.is_some()).and_then(|question| question.answer_by);
        let pauses = self.state.steps.iter().filter_map(|s| s.resume_at.or_else(|| asks(s)));
        // A step that only the holder of the workspace may claim: look now and then whether that one can be counted on.
        let bound = waiting(PendingReason::AwaitingExecutor).any(|s| s.bound_to.is_some());
        let look = bound.then(|| soon(10));
        start.into_iter().chain(look).chain(run.deadline.filter(|_| run.kill.is_none())).chain(leases).chain(backoffs).chain(pauses).min()
    }
}
