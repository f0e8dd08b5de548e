//! Counters of the metrics service against what the runs say, once everything is at rest.

use std::collections::BTreeMap;

use hopyard_contract::event::{Event, EventType};
use hopyard_contract::run::RunState;
use hopyard_metrics::Totals;
use hopyard_store::metrics::MetricsStore;

use super::Scope;
use super::report::{COUNTERS, Report};

/// A counter's name and, if it is split, a label with its value.
type Key = (&'static str, Option<(&'static str, &'static str)>);

/// What the runs say.
#[derive(Default)]
pub(crate) struct Counts {
    counts: BTreeMap<Key, u64>,
    /// Whether some run could not be read.
    pub(crate) incomplete: bool,
}

impl Counts {
    /// Counts a run.
    pub(crate) fn add(&mut self, state: &RunState, events: &[Event]) {
        let run = &state.run;
        self.count("hopyard_runs_accepted_total", None, 1);
        for step in state.steps.iter().filter(|s| s.status.is_final()) {
            self.count("hopyard_steps_finished_total", Some(("status", step.status.as_str())), 1);
        }
        for attempt in state.attempts.iter().filter(|a| a.status.is_final()) {
            self.count("hopyard_attempts_finished_total", Some(("status", attempt.status.as_str())), 1);
        }
        let retries = events.iter().filter(|e| e.kind == EventType::StepRetrying).count();
        self.count("hopyard_step_retries_total", None, retries as u64);
        if !run.status.is_final() {
            return;
        }
        self.count("hopyard_runs_finished_total", Some(("status", run.status.as_str())), 1);
        let tokens = run.usage.tokens;
        for (kind, tokens) in tokens.by_kind() {
            self.count("hopyard_tokens_total", Some(("kind", kind)), tokens);
        }
        match run.usage.cost_microusd {
            Some(cost) => self.count("hopyard_cost_usd_total", None, cost),
            None => self.count("hopyard_cost_unknown_runs_total", None, 1),
        }
    }

    fn count(&mut self, name: &'static str, only: Option<(&'static str, &'static str)>, by: u64) {
        *self.counts.entry((name, only)).or_default() += by;
    }

    /// What differs, one line each.
    fn differences(&self, totals: &Totals) -> anyhow::Result<Vec<(String, String)>> {
        let mut lines = Vec::new();
        for ((name, only), runs) in &self.counts {
            let counted = totals.sum(name, *only)?;
            if counted != *runs {
                let id = only.map_or_else(|| (*name).to_owned(), |(label, value)| format!("{name}{{{label}=\"{value}\"}}"));
                lines.push((id, format!("it stands at {counted}, the runs say {runs}")));
            }
        }
        Ok(lines)
    }
}

/// Compares; only all runs at rest can be compared with counters that follow events.
pub(crate) async fn check(metrics: &dyn MetricsStore, scope: &Scope, counts: &Counts, report: &mut Report) {
    let why = if !scope.quiesced || scope.since.is_some() {
        Some("counters follow events; --quiesced, without --since, compares them")
    } else if counts.incomplete {
        Some("not every run could be read")
    } else {
        None
    };
    if let Some(why) = why {
        return report.broke_off(&COUNTERS, why);
    }
    match metrics.load().await {
        Ok(None) => report.broke_off(&COUNTERS, "no metrics service has saved counters in this store"),
        Err(error) => report.broke_off(&COUNTERS, &error.to_string()),
        Ok(Some(state)) => match Totals::read(&state).and_then(|totals| counts.differences(&totals)) {
            Err(error) => report.broke_off(&COUNTERS, &format!("{error:#}")),
            Ok(lines) => {
                report.looked(&COUNTERS, counts.counts.len());
                lines.into_iter().for_each(|(id, detail)| report.found(&COUNTERS, id, detail));
            }
        },
    }
}
