//! Every check finds what it is there for, and nothing in what is sound.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Check, Moment, Violation};
use crate::event::Event;
use crate::run::RunState;

mod corrupted;
mod samples;

/// A state with its events, and when both were read.
#[derive(Clone)]
struct Sample {
    state: RunState,
    events: Vec<Event>,
    now: DateTime<Utc>,
}

impl Sample {
    fn audit(&self) -> Vec<Violation> {
        super::run(&self.state, &self.events, &Moment::new(self.now, TimeDelta::seconds(30)))
    }

    /// Changes the sample and says what is found.
    fn broken(mut self, change: impl FnOnce(&mut Self)) -> Vec<Violation> {
        assert_eq!(self.audit(), [], "the sample is sound before");
        change(&mut self);
        self.audit()
    }
}

#[test]
fn sound_runs_pass_every_check() {
    for (what, sample) in [
        ("completed", samples::completed()),
        ("failed", samples::failed()),
        ("killed", samples::killed()),
        ("running", samples::running()),
        ("waiting", samples::waiting()),
    ] {
        assert_eq!(sample.audit(), [], "{what}");
    }
}

#[test]
fn names_are_stable_and_unique() {
    let mut names: Vec<&str> = Check::ALL.iter().map(|c| c.as_str()).collect();
    for check in Check::ALL {
        assert_eq!(serde_json::to_value(check).unwrap(), check.as_str());
        assert!(!check.proves().is_empty());
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Check::ALL.len());
}

#[test]
fn a_violation_reads_as_one_line() {
    let violation = samples::completed()
        .broken(|s| s.state.attempts[0].finished_at = None)
        .into_iter()
        .find(|v| v.check == Check::AttemptEndsOnce)
        .expect("an end without a time");
    let run = violation.run;
    assert_eq!(violation.to_string(), format!("attempt_ends_once: {run}.build.1: it is lost and its end is None"));
}
