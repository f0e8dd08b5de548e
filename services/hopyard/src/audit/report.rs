//! What an audit says: one line per check, the offending ids below it, and how the command ends.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use hopyard_contract::audit::{Check, Violation};
use serde::Serialize;
use serde_json::json;

use crate::client::output::{self, Format};
use crate::exit::Exit;

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Stable name.
    pub(crate) name: &'static str,
    /// What is proved when nothing is found.
    pub(crate) proves: &'static str,
}

const fn question(name: &'static str, proves: &'static str) -> Question {
    Question { name, proves }
}

pub(crate) const READABLE: Question = question("rows_readable", "every stored document fits its shape");
pub(crate) const COLUMNS: Question = question("columns_agree", "lists and single views of a run are made of the same facts");
pub(crate) const INTAKE: Question =
    question("intake_dense", "every settled message of the command stream has a receipt, or stands among the dead letters");
pub(crate) const VERDICTS: Question = question("verdicts_kept", "every accepted verdict of a submission's receipt names a recorded run");
pub(crate) const KEYS: Question = question("keys_kept", "every idempotency key stands for a recorded run of its namespace");
pub(crate) const OUTBOX: Question = question("outbox_moves", "what a commit has to publish is published soon");
pub(crate) const DUE: Question = question("due_kept", "whatever was to be looked at was looked at in time");
pub(crate) const SLOTS: Question = question("slots_bounded", "no concurrency key or session is held by more runs than it allows");
pub(crate) const INVENTORY: Question =
    question("inventory_owned", "every workspace that is kept belongs to an open run or a session, and what may go goes");
pub(crate) const BLOBS: Question = question("blobs_kept", "every log, patch and bundle that is named is stored in full length");
pub(crate) const DISK: Question =
    question("disk_owned", "every directory, spool and worktree entry on this host has an owner, and none is missing");
pub(crate) const PROCESSES: Question = question("processes_owned", "no process of a run that has ended lives on this host");
pub(crate) const COUNTERS: Question = question("counters_agree", "the counters of the metrics service are those of the database");

/// Checks beside those of single runs, in the order in which they are reported.
pub(crate) const QUESTIONS: [Question; 13] =
    [READABLE, COLUMNS, INTAKE, VERDICTS, KEYS, OUTBOX, DUE, SLOTS, INVENTORY, BLOBS, DISK, PROCESSES, COUNTERS];

impl Question {
    /// A check of single runs.
    pub(crate) const fn of(check: Check) -> Self {
        question(check.as_str(), check.proves())
    }
}

#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    proves: &'static str,
    state: State,
    looked_at: u64,
    violations: u64,
    /// Why it did not run, or not to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
    shown: Vec<Shown>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Violated,
    Skipped,
}

#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    detail: String,
}

/// What has been found so far.
pub(crate) struct Report {
    at: DateTime<Utc>,
    since: Option<DateTime<Utc>>,
    most: usize,
    outcomes: Vec<Outcome>,
    unreachable: bool,
}

impl Report {
    /// Nothing has been looked at.
    pub(crate) fn new(at: DateTime<Utc>, since: Option<DateTime<Utc>>, most: usize) -> Self {
        let outcome = |q: Question| Outcome {
            name: q.name,
            proves: q.proves,
            state: State::Ok,
            looked_at: 0,
            violations: 0,
            skipped: None,
            shown: Vec::new(),
        };
        let outcomes = Check::ALL.iter().map(|check| Question::of(*check)).chain(QUESTIONS).map(outcome).collect();
        Self { at, since, most, outcomes, unreachable: false }
    }

    fn outcome(&mut self, question: &Question) -> &mut Outcome {
        let at = self.outcomes.iter().position(|o| o.name == question.name);
        let at = at.unwrap_or_else(|| unreachable!("{} is a question", question.name));
        &mut self.outcomes[at]
    }

    /// Things were looked at.
    pub(crate) fn looked(&mut self, question: &Question, count: usize) {
        self.outcome(question).looked_at += count as u64;
    }

    /// Something is wrong.
    pub(crate) fn found(&mut self, question: &Question, id: impl Into<String>, detail: impl Into<String>) {
        let most = self.most;
        let outcome = self.outcome(question);
        outcome.state = State::Violated;
        outcome.violations += 1;
        if outcome.shown.len() < most {
            outcome.shown.push(Shown { id: id.into(), detail: detail.into() });
        }
    }

    /// Something is wrong with a run.
    pub(crate) fn violation(&mut self, violation: Violation) {
        let step = violation.step.map(|step| format!(".{step}")).unwrap_or_default();
        let attempt = violation.attempt.map(|n| format!(".{n}")).unwrap_or_default();
        self.found(&Question::of(violation.check), format!("{}{step}{attempt}", violation.run), violation.detail);
    }

    /// A check was not asked for, or could not be carried to its end. What it has found stays.
    pub(crate) fn broke_off(&mut self, question: &Question, why: &str) {
        let outcome = self.outcome(question);
        outcome.skipped = Some(why.to_owned());
        if outcome.state == State::Ok {
            outcome.state = State::Skipped;
        }
    }

    /// Something that an audit cannot do without does not answer.
    pub(crate) fn unreachable(&mut self, why: &str) {
        self.unreachable = true;
        output::progress(&format!("hopyard: {why}"));
    }

    fn count(&self, state: State) -> usize {
        self.outcomes.iter().filter(|o| o.state == state).count()
    }

    fn violations(&self) -> u64 {
        self.outcomes.iter().map(|o| o.violations).sum()
    }

    /// Everything that was found, in the chosen format.
    pub(crate) fn told(&self, format: Format) -> String {
        let document = json!({
            "v": 1, "at": hopyard_contract::time::format(self.at), "since": self.since.map(hopyard_contract::time::format),
            "ok": self.count(State::Ok), "violated": self.count(State::Violated), "skipped": self.count(State::Skipped),
            "violations": self.violations(), "checks": self.outcomes,
        });
        if let Some(text) = output::document(format, &document) {
            return text;
        }
        let mut text = String::new();
        for outcome in &self.outcomes {
            let line = match outcome.state {
                State::Ok => format!("ok        {:<18} {} looked at", outcome.name, outcome.looked_at),
                State::Skipped => {
                    format!("skipped   {:<18} {}", outcome.name, outcome.skipped.as_deref().unwrap_or_default())
                }
                State::Violated => {
                    let rest = outcome.skipped.as_ref().map(|why| format!("; broke off: {why}")).unwrap_or_default();
                    format!("VIOLATED  {:<18} {} in {} looked at{rest}", outcome.name, outcome.violations, outcome.looked_at)
                }
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", output::clean(&line));
            for shown in &outcome.shown {
                let _ = writeln!(text, "          {}: {}", output::clean(&shown.id), output::clean(&shown.detail));
            }
            let more = outcome.violations - outcome.shown.len() as u64;
            if more > 0 {
                let _ = writeln!(text, "          and {more} more");
            }
        }
        text
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} checks: {} ok, {} violated, {} skipped; {} violations",
            self.outcomes.len(),
            self.count(State::Ok),
            self.count(State::Violated),
            self.count(State::Skipped),
            self.violations()
        )
    }

    /// How the command ends: what was found weighs more than what could not be asked.
    pub(crate) fn exit(&self) -> Exit {
        match (self.violations() > 0, self.unreachable) {
            (true, _) => Exit::Failed,
            (false, true) => Exit::Unreachable,
            (false, false) => Exit::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new(DateTime::UNIX_EPOCH, None, 2);
        report.looked(&OUTBOX, 1);
        report
    }

    #[test]
    fn every_check_has_a_name_of_its_own() {
        let mut names: Vec<_> = report().outcomes.iter().map(|o| o.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn lists_are_capped_and_counts_are_not() {
        let mut report = report();
        for n in 0..5 {
            report.found(&KEYS, format!("k{n}"), "gone\u{1b}[2J");
        }
        let text = report.told(Format::Table);
        assert!(
            text.contains(
                "VIOLATED  keys_kept          5 in 0 looked at\n          k0: gone [2J\n          k1: gone [2J\n          and 3 more\n"
            ),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&report.told(Format::Json)).unwrap();
        assert_eq!((json["violations"].as_u64(), json["violated"].as_u64()), (Some(5), Some(1)));
        assert_eq!(report.exit(), Exit::Failed);
    }

    #[test]
    fn a_check_that_did_not_run_is_never_ok() {
        let mut report = report();
        report.broke_off(&INTAKE, "the bus does not answer");
        assert!(report.told(Format::Table).contains("skipped   intake_dense       the bus does not answer\n"));
        assert_eq!(report.exit(), Exit::Done, "nobody asked for the bus");
        report.unreachable("the bus does not answer");
        assert_eq!(report.exit(), Exit::Unreachable);
        report.found(&INTAKE, "3", "no receipt");
        assert_eq!(report.exit(), Exit::Failed, "what was found weighs more");
    }
}
