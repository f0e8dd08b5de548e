//! The ledger: each event counts once, whatever way and however often it comes.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use hopyard_contract::Usage;
use hopyard_contract::event::{Event, EventType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalogue::{
    ATTEMPT_DURATION, ATTEMPTS_FINISHED, COST, COST_UNKNOWN, LABEL_OVERFLOW, REPOSITORY_COST, REPOSITORY_TOKENS, RUN_DURATION,
    RUN_QUEUE_DURATION, RUNS_ACCEPTED, RUNS_FINISHED, STEP_RETRIES, STEPS_FINISHED, TOKENS,
};
use crate::seen::{self, Seen};
use crate::series::{Row, Series, Shown};

#[cfg(test)]
mod tests;

/// Counters and the memory of what is in them.
#[derive(Debug)]
pub(crate) struct Ledger {
    shown: Arc<Shown>,
    seen: Seen,
    /// Sequence of the last message of the event stream; 0 for none.
    sequence: u64,
}

/// The ledger as it was saved.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Saved {
    series: Vec<Row>,
    seen: seen::Rows,
    sequence: u64,
}

/// The same, to be written.
#[derive(Serialize)]
pub(crate) struct Saving<'a> {
    series: Vec<Row>,
    seen: seen::Saving<'a>,
    sequence: u64,
}

impl Saved {
    /// Its counters.
    pub(crate) fn into_series(self) -> Series {
        Series::from_rows(self.series)
    }
}

/// What the place of a message in its stream tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing new.
    Expected,
    /// Messages are missing.
    Gap,
    /// The stream began anew, or the consumer did.
    Restarted,
}

impl Ledger {
    /// Goes on from what was saved; an empty one begins at the first event of the database.
    pub(crate) fn restore(shown: Arc<Shown>, saved: Saved) -> Self {
        *shown.series() = Series::from_rows(saved.series);
        Self { shown, seen: Seen::from_rows(saved.seen), sequence: saved.sequence }
    }

    /// As it is saved.
    pub(crate) fn save(&self) -> Saving<'_> {
        Saving { series: self.shown.series().rows(), seen: self.seen.save(), sequence: self.sequence }
    }

    /// What is shown.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Instant from which on the database has to be read.
    pub(crate) fn floor(&self) -> DateTime<Utc> {
        self.seen.floor().unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// The database was read up to an instant.
    pub(crate) fn read_up_to(&mut self, at: DateTime<Utc>) {
        self.seen.read_up_to(at);
    }

    /// How many runs are remembered: the size of a checkpoint goes by them.
    pub(crate) fn remembered(&self) -> usize {
        self.seen.len()
    }

    /// Takes note of a message's place in the stream. A repeated delivery tells nothing.
    pub(crate) fn place(&mut self, sequence: u64, first_delivery: bool) -> Place {
        let last = self.sequence;
        if sequence > last {
            self.sequence = sequence;
            // Before the first message the database was read, which holds what came before.
            if last == 0 || sequence == last + 1 { Place::Expected } else { Place::Gap }
        } else if first_delivery {
            self.sequence = sequence;
            Place::Restarted
        } else {
            Place::Expected
        }
    }

    /// Counts an event unless it is counted; says whether it was new.
    pub(crate) fn count(&mut self, event: &Event) -> bool {
        if !self.seen.note(event) {
            return false;
        }
        let series = &mut *self.shown.series();
        match event.kind {
            EventType::RunAccepted => accepted(series, event),
            EventType::RunRunning => {
                let waited = event.at.timestamp_millis() - event.run_id.unix_millis();
                series.observe(&RUN_QUEUE_DURATION, &[], u64::try_from(waited).unwrap_or(0));
            }
            EventType::RunCompleted | EventType::RunFailed | EventType::RunKilled => finished(series, event),
            EventType::StepCompleted | EventType::StepFailed | EventType::StepKilled | EventType::StepSkipped => {
                series.add(&STEPS_FINISHED, &[status(event)], 1)
            }
            EventType::StepRetrying => series.add(&STEP_RETRIES, &[text(event, "failure_code")], 1),
            EventType::AttemptCompleted | EventType::AttemptFailed | EventType::AttemptKilled | EventType::AttemptLost => {
                series.add(&ATTEMPTS_FINISHED, &[status(event), text(event, "failure_code")], 1);
                if let Some(millis) = number(event, "duration_ms") {
                    series.observe(&ATTEMPT_DURATION, &[status(event)], millis);
                }
            }
            _ => {}
        }
        true
    }
}

fn accepted(series: &mut Series, event: &Event) {
    let workflow = text(event, "workflow");
    series.add(&RUNS_ACCEPTED, &[workflow], 1);
    // Counters that begin at 1 would lose their first increment in rates.
    for status in ["completed", "killed"] {
        series.add(&RUNS_FINISHED, &[status, workflow, ""], 0);
    }
    for status in ["completed", "failed", "killed", "skipped"] {
        series.add(&STEPS_FINISHED, &[status], 0);
    }
    series.add(&LABEL_OVERFLOW, &["workflow"], 0);
}

fn finished(series: &mut Series, event: &Event) {
    let (workflow, status) = (text(event, "workflow"), status(event));
    series.add(&RUNS_FINISHED, &[status, workflow, text(event, "failure_code")], 1);
    if let Some(millis) = number(event, "duration_ms") {
        series.observe(&RUN_DURATION, &[workflow, status], millis);
    }
    let usage = event.data.get("usage").and_then(|usage| serde_json::from_value::<Usage>(usage.clone()).ok());
    let Some(usage) = usage else { return };
    let repository = text(event, "repo");
    let of_repository = !repository.is_empty();
    for (kind, count) in usage.tokens.by_kind() {
        series.add(&TOKENS, &[kind, workflow], count);
        if of_repository && count > 0 {
            series.add(&REPOSITORY_TOKENS, &[kind, repository], count);
        }
    }
    match usage.cost_microusd {
        Some(micros) => {
            series.add(&COST, &[workflow], micros);
            if of_repository && micros > 0 {
                series.add(&REPOSITORY_COST, &[repository], micros);
            }
        }
        None => series.add(&COST_UNKNOWN, &[workflow], 1),
    }
}

/// The word after the dot.
fn status(event: &Event) -> &'static str {
    event.kind.as_str().split_once('.').map_or("", |(_, status)| status)
}

fn text<'a>(event: &'a Event, field: &str) -> &'a str {
    event.data.get(field).and_then(Value::as_str).unwrap_or("")
}

fn number(event: &Event, field: &str) -> Option<u64> {
    event.data.get(field).and_then(Value::as_u64)
}
