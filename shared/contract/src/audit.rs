//! What is true of every run that Hopyard has recorded, as checks over its state and its events.
//!
//! The checks are the other half of the decisions: they know nothing of how a state came about and only ask whether it can
//! have. `hopyard audit` asks them about a live store; tests and simulations about states of their own. A check that finds
//! nothing returns nothing, and one corruption may break several checks.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::id::{Name, RunId};
use crate::run::RunState;

mod agreement;
mod attempts;
mod ending;
mod history;
mod numbering;
mod time;
mod usage;

#[cfg(test)]
mod tests;

macro_rules! checks {
    ($($variant:ident = $name:literal, $proves:literal;)+) => {
        /// A check by its stable name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "`proves` says what each proves")]
        pub enum Check { $(#[serde(rename = $name)] $variant,)+ }

        impl Check {
            /// All of them, in the order in which they are reported.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The stable name.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $name,)+ } }
            /// What is proved when it finds nothing.
            pub const fn proves(self) -> &'static str { match self { $(Self::$variant => $proves,)+ } }
        }
    };
}

checks! {
    EventsDense = "events_dense", "a run's events are numbered 1 to n without a gap, and the run knows n";
    OneEnd = "one_end", "a run that has ended has exactly one final event, another none, and only workspaces are heard of after it";
    EndUnchanged = "end_unchanged", "status, code, usage and time of a final run are those of its final event";
    LegalHistory = "legal_history", "the events are a path that runs, steps and attempts can take, and they lead to the recorded statuses";
    StatusAgrees = "status_agrees", "a run's status, its reasons and its slots follow from its steps, and theirs from their attempts";
    AttemptsNumbered = "attempts_numbered", "attempts of a step are numbered 1 to n";
    OneLiveAttempt = "one_live_attempt", "a step has at most one live attempt, and that is its last";
    AttemptEndsOnce = "attempt_ends_once", "an attempt that was started or has ended has exactly one start and one end, with time and reason";
    NoEarlyLease = "no_early_lease", "an attempt is leased only when the one before has ended, and lost only when its lease has";
    LiveLease = "live_lease", "what is running has a live lease, a process id and a workspace";
    OneWriter = "one_writer", "a workspace belongs to one executor";
    UsageAddsUp = "usage_adds_up", "usage of a run is the sum of its steps', and theirs of their attempts'";
    KillWins = "kill_wins", "a run with a kill that came before its end did not complete, and none was killed without one";
    EffectOnce = "effect_once", "a step has at most one completed attempt, and none after it";
    Woken = "woken", "whatever is open is claimable, leased, timed or waits for another run, and no timer is overdue";
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that cannot be, or that has been for too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The check that found it.
    pub check: Check,
    /// The run it is about.
    pub run: RunId,
    /// The step it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Name>,
    /// The attempt it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What is wrong, with the values.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.run)?;
        if let Some(step) = &self.step {
            write!(f, ".{step}")?;
        }
        if let Some(attempt) = self.attempt {
            write!(f, ".{attempt}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// When the state was read, and how much time things may take.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The database's time at which state and events were read.
    pub now: DateTime<Utc>,
    /// How long after its time something due may be dealt with. A scheduler judges leases only after a whole lease of being
    /// connected and looks every second; whoever knows that none was at work for a while allows for that too.
    pub overdue: TimeDelta,
    /// How far the database's clock may have been set back.
    pub clock_set_back: TimeDelta,
}

impl Moment {
    /// A moment by a clock that never ran backwards.
    pub const fn new(now: DateTime<Utc>, overdue: TimeDelta) -> Self {
        Self { now, overdue, clock_set_back: TimeDelta::zero() }
    }
}

/// Asks every check about one run; `events` are all of its events in order, read at the same moment as the state.
pub fn run(state: &RunState, events: &[Event], moment: &Moment) -> Vec<Violation> {
    let mut found = Findings { run: state.run.id, violations: Vec::new() };
    numbering::check(state, events, &mut found);
    ending::check(state, events, &mut found);
    history::check(state, events, &mut found);
    agreement::check(state, &mut found);
    attempts::check(state, events, &mut found);
    usage::check(state, &mut found);
    time::check(state, events, moment, &mut found);
    found.violations
}

/// What has been found about one run so far.
struct Findings {
    run: RunId,
    violations: Vec<Violation>,
}

impl Findings {
    /// Something about the run.
    fn run(&mut self, check: Check, detail: impl Into<String>) {
        self.add(check, None, None, detail.into());
    }

    /// Something about a step.
    fn step(&mut self, check: Check, step: &Name, detail: impl Into<String>) {
        self.add(check, Some(step), None, detail.into());
    }

    /// Something about an attempt.
    fn attempt(&mut self, check: Check, step: &Name, attempt: u32, detail: impl Into<String>) {
        self.add(check, Some(step), Some(attempt), detail.into());
    }

    fn add(&mut self, check: Check, step: Option<&Name>, attempt: Option<u32>, detail: String) {
        self.violations.push(Violation { check, run: self.run, step: step.cloned(), attempt, detail });
    }
}
