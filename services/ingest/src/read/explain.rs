//! Why a run is where it is: one pure function of its state and of what is known around it.

use chrono::{DateTime, Utc};
use hopyard_contract::run::{Attempt, Run, RunState};
use hopyard_contract::status::{AttemptStatus, PausedReason, PendingReason, RunStatus, StepStatus};
use hopyard_contract::time;
use hopyard_contract::view::{Blocker, Explanation};

pub(crate) mod facts;
mod waiting;

#[cfg(test)]
mod tests;

use facts::Facts;

/// Most steps that one sentence names.
const NAMED: usize = 4;
/// Most characters of an error within a sentence.
const QUOTED: usize = 300;

/// The explanation of a run.
pub(crate) fn explain(state: &RunState, facts: &Facts) -> Explanation {
    let run = &state.run;
    let mut told = match run.status {
        RunStatus::Completed => completed(run),
        RunStatus::Failed => failed(run),
        RunStatus::Killed => killed(run),
        _ if run.kill.is_some() => ending(state),
        RunStatus::Running => running(state, facts),
        RunStatus::Paused => paused(state),
        RunStatus::Pending => pending(state, facts),
    };
    if !run.status.is_final() && !facts.scheduler {
        told.text = "no scheduler is alive, so nothing moves: start one with `hopyard scheduler`".to_owned();
        told.blockers.insert(0, Blocker { code: "no_scheduler".to_owned(), text: told.text.clone(), ..Blocker::default() });
    }
    Explanation {
        run_id: run.id,
        status: run.status,
        reason: told.reason,
        text: told.text,
        since: told.since,
        blockers: told.blockers,
        next_check_at: state.timer.filter(|_| !run.status.is_final()),
    }
}

struct Told {
    reason: Option<String>,
    text: String,
    since: DateTime<Utc>,
    blockers: Vec<Blocker>,
}

impl Told {
    fn plain(reason: Option<&str>, since: DateTime<Utc>, text: String) -> Self {
        Self { reason: reason.map(str::to_owned), text, since, blockers: Vec::new() }
    }
}

fn completed(run: &Run) -> Told {
    let took = run.started_at.zip(run.finished_at).map_or_else(String::new, |(from, to)| format!(" after {}", seconds(from, to)));
    let text = match &run.result {
        Some(git) if git.head != git.base => {
            format!(
                "completed{took} with {} on branch {}: get it with `hopyard runs checkout {}`",
                count(git.files.len(), "changed file"),
                git.branch,
                run.id
            )
        }
        _ => format!("completed{took}: see its output with `hopyard runs logs {}`", run.id),
    };
    Told::plain(None, end(run), text)
}

fn failed(run: &Run) -> Told {
    let code = run.failure_code.map_or("unknown", |code| code.as_str());
    let step = run.error.as_ref().and_then(|e| e.step.as_ref()).map_or_else(String::new, |step| format!(" in step {step}"));
    let message = run.error.as_ref().map_or_else(String::new, |e| format!(": {}", quoted(&e.message)));
    let text = format!(
        "failed{step} with {code}{message}; see its output with `hopyard runs logs {id}`, start it again with `hopyard runs rerun {id}`",
        id = run.id
    );
    Told::plain(Some(code), end(run), text)
}

fn killed(run: &Run) -> Told {
    let Some(kill) = &run.kill else {
        return Told::plain(None, end(run), format!("was cancelled; start it again with `hopyard runs rerun {}`", run.id));
    };
    let reason = kill.reason.as_ref().map_or_else(String::new, |reason| format!(" ({})", quoted(reason)));
    let text = format!("was cancelled by {}{reason}; start it again with `hopyard runs rerun {}`", kill.by, run.id);
    // What Hopyard itself gives for a reason is a code; people write sentences.
    let code = kill.reason.as_deref().filter(|_| kill.by == "hopyard");
    Told::plain(code, end(run), text)
}

/// A cancel is committed, and processes are still at work.
fn ending(state: &RunState) -> Told {
    let run = &state.run;
    let since = run.kill.as_ref().map_or(run.created_at, |kill| kill.at);
    let by = run.kill.as_ref().map_or("somebody", |kill| kill.by.as_str());
    let whose = list(state.live().map(|a| format!("step {} on executor {}", a.step, a.executor)));
    let text = match whose {
        Some(whose) => format!(
            "is being cancelled by {by} and ends when {whose} has stopped; `hopyard runs cancel --force {}` does not wait for grace and blobs",
            run.id
        ),
        None => format!("is being cancelled by {by} and ends in a moment"),
    };
    Told::plain(Some("kill_requested"), since, text)
}

fn running(state: &RunState, facts: &Facts) -> Told {
    let at_work = || state.live().filter(|a| a.status == AttemptStatus::Running);
    let since = at_work().filter_map(|a| a.started_at).min().or(state.run.started_at).unwrap_or(state.run.created_at);
    let text = match list(at_work().map(place)) {
        Some(places) => format!("runs {places}: follow it with `hopyard runs logs -f {}`", state.run.id),
        None => format!("is between two steps: follow it with `hopyard runs watch {}`", state.run.id),
    };
    let held = waiting::leases(state, facts);
    Told { reason: None, text, since, blockers: held.into_iter().chain(waiting::steps(state, facts)).collect() }
}

fn place(attempt: &Attempt) -> String {
    let pid = attempt.pid.map_or_else(String::new, |pid| format!(", process {pid}"));
    format!("step {} on executor {} (host {}{pid})", attempt.step, attempt.executor, attempt.host)
}

fn paused(state: &RunState) -> Told {
    let run = &state.run;
    let blockers: Vec<Blocker> = state
        .steps
        .iter()
        .filter(|step| step.status == StepStatus::Paused)
        .map(|step| {
            let reason = step.paused_reason.or(run.paused_reason).unwrap_or(PausedReason::Operator);
            let asked = step.question.as_ref().filter(|_| matches!(reason, PausedReason::Approval | PausedReason::Question));
            let question = asked.map(|question| format!(" ({})", question.text)).unwrap_or_default();
            let text = format!("step {} {}{question}", step.id, paused_text(run, reason, step.id.as_str()));
            let until = step.resume_at.or_else(|| asked.and_then(|question| question.answer_by));
            Blocker { step: Some(step.id.clone()), code: reason.as_str().to_owned(), text, until, ..Blocker::default() }
        })
        .collect();
    let reason = run.paused_reason.unwrap_or(PausedReason::Operator);
    let text = blockers
        .iter()
        .find(|b| b.code == reason.as_str())
        .map_or_else(|| format!("the run {}", paused_text(run, reason, "<step>")), |b| b.text.clone());
    Told { reason: Some(reason.as_str().to_owned()), text, since: last_change(state), blockers }
}

fn paused_text(run: &Run, reason: PausedReason, step: &str) -> String {
    let id = run.id;
    match reason {
        PausedReason::Approval => format!("waits for an approval: answer with POST /api/v1/runs/{id}/steps/{step}/answer"),
        PausedReason::Question => format!("waits for the answer to a question: give it with POST /api/v1/runs/{id}/steps/{step}/answer"),
        PausedReason::UsageLimit => "waits until the provider's usage limit is reset, and goes on by itself".to_owned(),
        PausedReason::Budget => format!(
            "has spent a budget of this day that it shares, and goes on by itself on the next; once it is raised, POST /api/v1/runs/{id}/resume"
        ),
        PausedReason::Operator => format!("was paused by an operator: go on with POST /api/v1/runs/{id}/resume"),
    }
}

fn pending(state: &RunState, facts: &Facts) -> Told {
    let run = &state.run;
    let blockers = match run.pending_reason {
        Some(PendingReason::AwaitingSchedule) => waiting::schedule(run),
        Some(PendingReason::AwaitingDependencies) if !run.after_open.is_empty() => vec![waiting::parents(run, facts)],
        Some(PendingReason::AwaitingSlot) => waiting::slots(run, facts),
        _ => waiting::steps(state, facts),
    };
    // The reason of the run is that of its steps; the sentence is that of the step nearest to its start.
    let reason = run.pending_reason.map(|reason| reason.as_str().to_owned());
    let steps = || state.steps.iter().filter(|s| s.status == StepStatus::Pending && s.pending_reason == run.pending_reason);
    let first = blockers.iter().find(|b| b.step.is_none() || steps().any(|s| Some(&s.id) == b.step.as_ref())).or(blockers.first());
    let text = first.map_or_else(|| "waits for the scheduler to look at it, which happens in a moment".to_owned(), |b| b.text.clone());
    let since = match run.pending_reason {
        Some(PendingReason::AwaitingExecutor) => steps().filter_map(|s| s.claimable_at).min(),
        Some(PendingReason::Starting | PendingReason::AwaitingWorkspace) => state.live().map(|a| a.leased_at).min(),
        Some(PendingReason::AwaitingSchedule | PendingReason::AwaitingSlot) => Some(run.created_at),
        _ => None,
    };
    Told { reason, text, since: since.unwrap_or_else(|| last_change(state)), blockers }
}

/// When something about the run last ended, or its submission.
fn last_change(state: &RunState) -> DateTime<Utc> {
    let steps = state.steps.iter().filter_map(|s| s.finished_at);
    let attempts = state.attempts.iter().filter_map(|a| a.finished_at);
    steps.chain(attempts).max().unwrap_or(state.run.created_at)
}

fn end(run: &Run) -> DateTime<Utc> {
    run.finished_at.unwrap_or(run.created_at)
}

fn seconds(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let millis = (to - from).num_milliseconds().max(0);
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Some of the items in words; `None` if there are none.
fn list(items: impl Iterator<Item = String>) -> Option<String> {
    let mut items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(NAMED);
    items.truncate(NAMED);
    match (items.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(items.join(", ")),
        (false, more) => Some(format!("{} and {more} more", items.join(", "))),
    }
}

/// The first line of a text, not too long.
fn quoted(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut short: String = line.chars().filter(|c| !c.is_control()).take(QUOTED).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

fn at(instant: DateTime<Utc>) -> String {
    time::format(instant)
}
