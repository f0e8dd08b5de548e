//! The events as a path: every one is a step that runs, steps and attempts can take, and the path leads to what is recorded.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::ending::is_housekeeping;
use super::{Check, Findings};
use crate::event::{Event, EventType};
use crate::id::Name;
use crate::run::RunState;
use crate::status::{AttemptStatus, FailureCode, RunStatus, StepStatus};

/// Where a step stands, as far as its events tell. A lease is told with what happens next, so a claimable step may be
/// leased already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its needs have not ended.
    Waiting,
    /// May be claimed.
    Claimable,
    /// May be claimed later.
    Backoff,
    /// Leased.
    Leased,
    /// A process is at work.
    Running,
    /// Its attempt has ended like this, and nothing has followed yet.
    Between(AttemptStatus),
    /// Waits for a person or a limit.
    Paused,
    /// Over.
    Ended(StepStatus),
}

/// One step on its way.
struct Track {
    phase: Phase,
    /// Number of the last attempt.
    attempt: u32,
    /// How that ended.
    last_end: Option<AttemptStatus>,
}

/// What the events say so far.
struct Replay<'a> {
    steps: BTreeMap<&'a str, Track>,
    attempts: BTreeMap<(&'a str, u32), AttemptStatus>,
    accepted: bool,
    started: bool,
    paused: bool,
    killed: bool,
    warned: bool,
    ended: Option<RunStatus>,
    generation: u64,
    /// Workspaces that variants have to themselves, by generation and name.
    variants: BTreeSet<[String; 2]>,
}

pub(super) fn check(state: &RunState, events: &[Event], found: &mut Findings) {
    let track = |_| Track { phase: Phase::Waiting, attempt: 0, last_end: None };
    let mut replay = Replay {
        steps: state.steps.iter().map(|s| (s.id.as_str(), track(()))).collect(),
        attempts: BTreeMap::new(),
        accepted: false,
        started: false,
        paused: false,
        killed: false,
        warned: false,
        ended: None,
        generation: 0,
        variants: BTreeSet::new(),
    };
    for event in events {
        if let Err(why) = replay.take(event) {
            let detail = format!("event {} ({}) cannot come here: {why}", event.seq, event.kind.as_str());
            found.add(Check::LegalHistory, event.step.as_ref(), event.attempt, detail);
            // What follows from a wrong turn says nothing more.
            return;
        }
    }
    replay.compare(state, found);
}

impl<'a> Replay<'a> {
    fn take(&mut self, event: &'a Event) -> Result<(), String> {
        if self.ended.is_some() && !is_housekeeping(event.kind) {
            return Err("the run has ended".to_owned());
        }
        if !self.accepted && event.kind != EventType::RunAccepted {
            return Err("the run has not been accepted".to_owned());
        }
        match (&event.step, event.attempt) {
            (Some(step), Some(n)) if event.kind != EventType::WorkspaceSaved => self.attempt(step, n, event),
            (Some(step), None) => self.step(step, event),
            _ => self.run(event),
        }
    }

    fn run(&mut self, event: &'a Event) -> Result<(), String> {
        let refuse = |why: &str| Err(why.to_owned());
        match event.kind {
            EventType::RunAccepted if self.accepted => return refuse("it was accepted before"),
            EventType::RunAccepted => self.accepted = true,
            EventType::RunRunning if self.started => return refuse("it started before"),
            EventType::RunRunning if !self.attempts.values().any(|s| *s != AttemptStatus::Leased) => {
                return refuse("no process has started");
            }
            EventType::RunRunning => self.started = true,
            EventType::RunPaused if self.paused => return refuse("it is paused"),
            EventType::RunPaused => self.paused = true,
            EventType::RunResumed if !self.paused => return refuse("it is not paused"),
            EventType::RunResumed => self.paused = false,
            EventType::RunKillRequested if self.killed => return refuse("it was killed before"),
            EventType::RunKillRequested => self.killed = true,
            EventType::RunBudgetWarned if self.warned => return refuse("it was told before"),
            EventType::RunBudgetWarned => self.warned = true,
            EventType::RunCompleted => return self.end(RunStatus::Completed),
            EventType::RunFailed => return self.end(RunStatus::Failed),
            EventType::RunKilled => return self.end(RunStatus::Killed),
            // Those of variants come beside the run's own, which may never be needed.
            EventType::WorkspaceCreated if event.data.contains_key("variant") => {
                let key = ["generation", "variant"].map(|name| event.data.get(name).cloned().unwrap_or_default().to_string());
                if !self.variants.insert(key) {
                    return refuse("the workspace of this variant was made before");
                }
            }
            EventType::WorkspaceCreated => {
                let generation = event.data.get("generation").and_then(Value::as_u64).unwrap_or(0);
                if generation <= self.generation {
                    return Err(format!("workspace g{} was made before", self.generation));
                }
                self.generation = generation;
            }
            EventType::WorkspaceSaved => {
                let about = event.step.as_ref().map(Name::as_str).zip(event.attempt);
                if about.and_then(|key| self.attempts.get(&key)) != Some(&AttemptStatus::Lost) {
                    return refuse("only what a lost attempt left is saved");
                }
            }
            EventType::WorkspaceSuperseded | EventType::WorkspaceRemoved => {}
            _ => return refuse("it names no step or no attempt"),
        }
        Ok(())
    }

    fn end(&mut self, status: RunStatus) -> Result<(), String> {
        let open: Vec<&str> = self.steps.iter().filter(|(_, t)| !matches!(t.phase, Phase::Ended(_))).map(|(id, _)| *id).collect();
        if !open.is_empty() {
            return Err(format!("the steps {} are open", open.join(", ")));
        }
        self.ended = Some(status);
        Ok(())
    }

    fn step(&mut self, step: &Name, event: &Event) -> Result<(), String> {
        let killed = self.killed;
        let track = self.steps.get_mut(step.as_str()).ok_or("there is no such step")?;
        let phase = track.phase;
        track.phase = match (phase, event.kind) {
            (Phase::Ended(_), _) => return Err("the step has ended".to_owned()),
            (
                Phase::Waiting | Phase::Backoff | Phase::Paused | Phase::Between(AttemptStatus::Failed | AttemptStatus::Lost),
                EventType::StepClaimable,
            ) if !killed => {
                let next = event.data.get("attempt").and_then(Value::as_u64);
                if next.is_some_and(|n| n != u64::from(track.attempt) + 1) {
                    return Err(format!("attempt {} was the last", track.attempt));
                }
                Phase::Claimable
            }
            (Phase::Between(AttemptStatus::Failed), EventType::StepRetrying) if !killed => Phase::Backoff,
            // Without a wait the step is claimable first.
            (Phase::Claimable, EventType::StepRetrying) if !killed && track.last_end == Some(AttemptStatus::Failed) => Phase::Claimable,
            // No variant passes, or nothing was recorded of it.
            (Phase::Waiting, EventType::StepFailed)
                if !killed && [FailureCode::DependencyFailed, FailureCode::PlanError].iter().any(|code| has_code(event, *code)) =>
            {
                Phase::Ended(StepStatus::Failed)
            }
            (Phase::Waiting, EventType::StepSkipped) if !killed => Phase::Ended(StepStatus::Skipped),
            // What a person says to an approval, or does not say in time.
            (Phase::Paused, EventType::StepCompleted) if track.attempt == 0 => Phase::Ended(StepStatus::Completed),
            (Phase::Paused, EventType::StepFailed) if !killed => Phase::Ended(StepStatus::Failed),
            (Phase::Between(AttemptStatus::Completed), EventType::StepCompleted) => Phase::Ended(StepStatus::Completed),
            (Phase::Between(AttemptStatus::Failed | AttemptStatus::Lost), EventType::StepFailed) => Phase::Ended(StepStatus::Failed),
            // Nothing was left to begin it with.
            (Phase::Claimable | Phase::Backoff, EventType::StepFailed) if !killed && has_code(event, FailureCode::BudgetExceeded) => {
                Phase::Ended(StepStatus::Failed)
            }
            (Phase::Leased | Phase::Running | Phase::Between(AttemptStatus::Completed), EventType::StepKilled) => {
                return Err(format!("the step is {phase:?}"));
            }
            (_, EventType::StepKilled) if killed => Phase::Ended(StepStatus::Killed),
            (Phase::Waiting | Phase::Claimable | Phase::Between(_), EventType::StepPaused) if !killed => Phase::Paused,
            _ if killed => return Err(format!("the step is {phase:?} and the run killed")),
            _ => return Err(format!("the step is {phase:?}")),
        };
        Ok(())
    }

    fn attempt(&mut self, step: &'a Name, n: u32, event: &Event) -> Result<(), String> {
        let track = self.steps.get_mut(step.as_str()).ok_or("there is no such step")?;
        let end = match event.kind {
            EventType::AttemptLeased => {
                if !matches!(track.phase, Phase::Claimable | Phase::Backoff) {
                    return Err(format!("the step is {:?}", track.phase));
                }
                if n != track.attempt + 1 {
                    return Err(format!("attempt {} was the last", track.attempt));
                }
                (track.phase, track.attempt) = (Phase::Leased, n);
                self.attempts.insert((step.as_str(), n), AttemptStatus::Leased);
                return Ok(());
            }
            EventType::AttemptRunning => None,
            EventType::AttemptCompleted => Some(AttemptStatus::Completed),
            EventType::AttemptFailed => Some(AttemptStatus::Failed),
            EventType::AttemptKilled => Some(AttemptStatus::Killed),
            EventType::AttemptLost => Some(AttemptStatus::Lost),
            _ => return Err("it is not about an attempt".to_owned()),
        };
        if n != track.attempt || !matches!(track.phase, Phase::Leased | Phase::Running) {
            return Err(format!("attempt {} was the last, and the step is {:?}", track.attempt, track.phase));
        }
        match end {
            None if track.phase == Phase::Running => return Err("it is running".to_owned()),
            Some(AttemptStatus::Killed) if !self.killed => return Err("nobody has asked for it".to_owned()),
            None => track.phase = Phase::Running,
            Some(status) => (track.phase, track.last_end) = (Phase::Between(status), Some(status)),
        }
        self.attempts.insert((step.as_str(), n), end.unwrap_or(AttemptStatus::Running));
        Ok(())
    }

    /// The path has to lead to the recorded statuses.
    fn compare(&self, state: &RunState, found: &mut Findings) {
        let run = &state.run;
        if self.ended != Some(run.status).filter(|s| s.is_final()) {
            let ended = self.ended.map_or("open", RunStatus::as_str);
            found.run(Check::LegalHistory, format!("by its events the run is {ended}, the record says {}", run.status));
        }
        if self.started != run.started_at.is_some() {
            found.run(Check::LegalHistory, format!("the record's start is {:?}, the events say otherwise", run.started_at));
        }
        for step in &state.steps {
            let Some(track) = self.steps.get(step.id.as_str()) else { continue };
            let fits = match track.phase {
                Phase::Waiting | Phase::Claimable | Phase::Backoff | Phase::Leased => step.status == StepStatus::Pending,
                Phase::Running => step.status == StepStatus::Running,
                Phase::Paused => step.status == StepStatus::Paused,
                Phase::Ended(status) => step.status == status,
                Phase::Between(_) => false,
            };
            if !fits {
                let detail = format!("by its events the step is {:?}, the record says {}", track.phase, step.status);
                found.step(Check::LegalHistory, &step.id, detail);
            }
        }
        for attempt in &state.attempts {
            let told = self.attempts.get(&(attempt.step.as_str(), attempt.n)).copied();
            // A lease is told with what happens next.
            let expected = if attempt.announced { Some(attempt.status) } else { None };
            if told != expected || (!attempt.announced && attempt.status != AttemptStatus::Leased) {
                let told = told.map_or("unknown", AttemptStatus::as_str);
                let detail = format!("by the events it is {told}, the record says {}", attempt.status);
                found.attempt(Check::LegalHistory, &attempt.step, attempt.n, detail);
            }
        }
        for (step, n) in self.attempts.keys().filter(|(step, n)| state.attempt(step, *n).is_none()) {
            found.run(Check::LegalHistory, format!("the events tell of attempt {step}.{n}, which is not recorded"));
        }
    }
}

fn has_code(event: &Event, code: FailureCode) -> bool {
    event.data.get("failure_code").and_then(Value::as_str) == Some(code.as_str())
}
