//! The end of a run: once, for ever, and a kill wins.

use serde_json::Value;

use super::usage::text;
use super::{Check, Findings};
use crate::event::{Event, EventType};
use crate::run::{Kill, RunState};
use crate::status::RunStatus;
use crate::usage::Usage;

pub(super) fn check(state: &RunState, events: &[Event], found: &mut Findings) {
    let run = &state.run;
    let finals: Vec<&Event> = events.iter().filter(|e| e.kind.is_final()).collect();
    let expected = usize::from(run.status.is_final());
    if finals.len() != expected {
        let kinds: Vec<&str> = finals.iter().map(|e| e.kind.as_str()).collect();
        found.run(Check::OneEnd, format!("the run is {} and has the final events [{}]", run.status, kinds.join(", ")));
    }
    if let Some(end) = finals.first() {
        if let Some(later) = events.iter().find(|e| e.seq > end.seq && !e.kind.is_final() && !is_housekeeping(e.kind)) {
            found.run(Check::OneEnd, format!("event {} ({}) follows the end, event {}", later.seq, later.kind.as_str(), end.seq));
        }
        if run.status.is_final() {
            unchanged(state, end, found);
        }
    }
    kill(state, events, found);
}

/// What may be heard of a run after its end.
pub(super) fn is_housekeeping(kind: EventType) -> bool {
    matches!(kind, EventType::WorkspaceCreated | EventType::WorkspaceSuperseded | EventType::WorkspaceSaved | EventType::WorkspaceRemoved)
}

/// The final event was written by the commit that ended the run: its facts are the row's for ever.
fn unchanged(state: &RunState, end: &Event, found: &mut Findings) {
    let run = &state.run;
    let mut differs = |what: &str, event: String, row: String| {
        if event != row {
            found.run(Check::EndUnchanged, format!("{what} was {event} at the end and is {row} now"));
        }
    };
    let word = |key: &str| end.data.get(key).and_then(Value::as_str).unwrap_or("none").to_owned();
    differs("the final event", end.kind.as_str().to_owned(), format!("run.{}", run.status));
    differs("the status", word("status"), run.status.to_string());
    differs("the failure code", word("failure_code"), run.failure_code.map_or("none", |code| code.as_str()).to_owned());
    differs("the end", crate::time::format(end.at), run.finished_at.map_or_else(|| "open".to_owned(), crate::time::format));
    let branch = run.result.as_ref().map_or("none", |result| result.branch.as_str());
    differs("the branch", word("branch"), branch.to_owned());
    match end.data.get("usage").map(|usage| serde_json::from_value::<Usage>(usage.clone())) {
        Some(Ok(usage)) => differs("usage", text(&usage), text(&run.usage)),
        _ => found.run(Check::EndUnchanged, "the final event carries no usage"),
    }
}

fn kill(state: &RunState, events: &[Event], found: &mut Findings) {
    let run = &state.run;
    let asked: Vec<&Event> = events.iter().filter(|e| e.kind == EventType::RunKillRequested).collect();
    if asked.len() != usize::from(run.kill.is_some()) {
        let flag = if run.kill.is_some() { "one" } else { "no" };
        found.run(Check::KillWins, format!("the run has {flag} kill and {} events of it", asked.len()));
    }
    let allowed: &[RunStatus] = match &run.kill {
        _ if !run.status.is_final() => return,
        None => &[RunStatus::Completed, RunStatus::Failed],
        Some(Kill { failure: None, .. }) => &[RunStatus::Killed],
        Some(Kill { failure: Some(_), .. }) => &[RunStatus::Failed],
    };
    if !allowed.contains(&run.status) {
        let kill =
            run.kill.as_ref().map_or_else(|| "no kill".to_owned(), |k| format!("a kill by {} at {}", k.by, crate::time::format(k.at)));
        found.run(Check::KillWins, format!("the run has {kill} and is {}", run.status));
    }
}
