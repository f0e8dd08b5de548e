//! The readers' side of the simulated store: committed rows only, never a lock.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::run::{Run, RunState, Slot, WorkspaceRow, WorkspaceStatus};
use hopyard_contract::status::{PendingReason, RunStatus};
use hopyard_contract::submit::Receipt;
use hopyard_contract::view::WorkflowView;
use hopyard_contract::{Name, RunId, Usage};
use hopyard_store::Result;
use hopyard_store::metrics::MetricsStore;
use hopyard_store::read::{Reader, RunFilter, UsageBy, UsageRow};
use hopyard_store::runs::{Claimable, ExecutorRow};
use serde_json::value::RawValue;

use super::{SimStore, definitions};

/// The tables of the real engines, as `schema` names them.
const TABLES: [&str; 18] = [
    "runs",
    "steps",
    "attempts",
    "events",
    "due",
    "run_after",
    "run_slots",
    "keys",
    "receipts",
    "tombstones",
    "aliases",
    "budgets",
    "plans",
    "definitions",
    "executors",
    "workspaces",
    "outbox",
    "state",
];

#[async_trait]
impl Reader for SimStore {
    async fn run(&self, namespace: &Name, id: RunId) -> Result<Option<RunState>> {
        self.read(|tables, _| {
            let id = tables.aliases.get(&id).copied().unwrap_or(id);
            let Some(mut state) = tables.state(id)?.filter(|state| state.run.namespace == *namespace) else { return Ok(None) };
            if state.run.status == RunStatus::Pending && tables.slot_taken(&state.run) {
                await_slot(&mut state);
            }
            Ok(Some(state))
        })?
    }

    async fn runs(&self, namespace: &Name, filter: &RunFilter) -> Result<Vec<Run>> {
        self.read(|tables, _| {
            let all = tables.runs.values().rev().map(|record| &record.run);
            all.filter(|run| run.namespace == *namespace && selected(run, filter)).take(filter.limit as usize).cloned().collect()
        })
    }

    async fn wait(&self) -> Result<std::time::Duration> {
        Ok(std::time::Duration::ZERO)
    }

    async fn events(&self, namespace: &Name, id: RunId, after: u64, limit: u32) -> Result<Vec<Event>> {
        self.read(|tables, _| {
            let Some(record) = tables.runs.get(&id).filter(|record| record.run.namespace == *namespace) else { return Vec::new() };
            record.events().filter(|event| event.seq > after).take(limit as usize).cloned().collect()
        })
    }

    async fn receipt(&self, namespace: &Name, seq: u64) -> Result<Option<Receipt>> {
        self.read(|tables, _| {
            let newest_first = tables.receipts.range((seq, i64::MIN)..=(seq, i64::MAX)).rev();
            newest_first.map(|(_, receipt)| receipt).find(|receipt| receipt.namespace == *namespace).cloned()
        })
    }

    async fn workflows(&self, namespace: &Name, after: Option<&Name>, limit: u32) -> Result<Vec<WorkflowView>> {
        self.read(|tables, _| definitions::workflows(tables, namespace, after, limit))
    }

    async fn workflow(&self, namespace: &Name, name: &Name, version: Option<u32>) -> Result<Option<WorkflowView>> {
        self.read(|tables, _| definitions::workflow(tables, namespace, name, version))
    }

    async fn workflow_versions(&self, namespace: &Name, name: &Name) -> Result<Vec<WorkflowView>> {
        self.read(|tables, _| definitions::workflow_versions(tables, namespace, name))
    }

    async fn definition(&self, namespace: &Name, hash: &str) -> Result<Option<String>> {
        self.read(|tables, _| definitions::source(tables, namespace, hash))
    }

    async fn executors(&self) -> Result<Vec<ExecutorRow>> {
        self.read(|tables, _| tables.executors.values().cloned().collect())
    }

    async fn workspaces(&self, namespace: &Name, status: Option<WorkspaceStatus>, limit: u32) -> Result<Vec<WorkspaceRow>> {
        self.read(|tables, _| {
            let wanted = |row: &&WorkspaceRow| status.map_or(row.status != WorkspaceStatus::Removed, |status| row.status == status);
            let mut rows: Vec<_> = tables.workspaces.values().filter(|row| row.namespace == *namespace).filter(wanted).cloned().collect();
            rows.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
            rows.truncate(limit as usize);
            rows
        })
    }

    async fn usage(&self, namespace: &Name, from: DateTime<Utc>, to: DateTime<Utc>, by: UsageBy) -> Result<Vec<UsageRow>> {
        self.read(|tables, _| {
            let mut sums: BTreeMap<String, (u64, Usage)> = BTreeMap::new();
            let runs = tables.runs.values().map(|record| &record.run);
            for run in runs.filter(|run| run.namespace == *namespace && run.created_at >= from && run.created_at < to) {
                let name = match by {
                    UsageBy::Workflow => run.workflow.to_string(),
                    UsageBy::Repository => run.repo.as_ref().map(|repo| repo.url.clone()).unwrap_or_default(),
                };
                let sum = sums.entry(name).or_default();
                *sum = (sum.0 + 1, sum.1.plus(&run.usage));
            }
            sums.into_iter().map(|(name, (runs, usage))| UsageRow { name, runs, usage }).collect()
        })
    }

    async fn slot_holders(&self, slot: &Slot) -> Result<Vec<RunId>> {
        self.read(|tables, _| tables.members(std::slice::from_ref(&slot.key), true).remove(&slot.key).unwrap_or_default())
    }

    async fn statuses(&self, namespace: &Name, ids: &[RunId]) -> Result<Vec<(RunId, RunStatus)>> {
        self.read(|tables, _| {
            let known = ids.iter().filter_map(|id| tables.runs.get(id)).map(|record| &record.run);
            known.filter(|run| run.namespace == *namespace).map(|run| (run.id, run.status)).collect()
        })
    }

    async fn claimable(&self) -> Result<Vec<Claimable>> {
        self.read(|tables, now| tables.claimable(now))
    }

    async fn live_counts(&self) -> Result<Vec<(Name, RunStatus, u64)>> {
        self.read(|tables, _| {
            let mut counts: BTreeMap<(Name, RunStatus), u64> = BTreeMap::new();
            for run in tables.runs.values().map(|record| &record.run).filter(|run| run.finished_at.is_none()) {
                *counts.entry((run.namespace.clone(), run.status)).or_default() += 1;
            }
            counts.into_iter().map(|((namespace, status), count)| (namespace, status, count)).collect()
        })
    }

    async fn outbox_age_ms(&self) -> Result<u64> {
        self.read(|tables, now| tables.outbox_age_ms(now))
    }

    async fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>> {
        self.read(|tables, _| tables.events_since(since, limit))
    }

    async fn schema(&self) -> Result<Vec<(String, i64)>> {
        self.read(|_, _| TABLES.iter().map(|table| ((*table).to_owned(), 1)).collect())
    }
}

/// Says that a run waits for its slot, unless something else has to happen first.
fn await_slot(state: &mut RunState) {
    let waits = |reason: &Option<PendingReason>| matches!(reason, None | Some(PendingReason::AwaitingExecutor));
    if waits(&state.run.pending_reason) {
        state.run.pending_reason = Some(PendingReason::AwaitingSlot);
    }
    for step in state.steps.iter_mut().filter(|step| step.claimable_at.is_some() && waits(&step.pending_reason)) {
        step.pending_reason = Some(PendingReason::AwaitingSlot);
    }
}

fn selected(run: &Run, filter: &RunFilter) -> bool {
    let status = filter.statuses.is_empty() || filter.statuses.contains(&run.status);
    let workflow = filter.workflow.as_ref().is_none_or(|workflow| run.workflow == *workflow);
    let repo = filter.repo.as_ref().is_none_or(|url| run.repo.as_ref().is_some_and(|repo| repo.url == *url));
    let session = filter.session.as_ref().is_none_or(|session| run.session.as_ref() == Some(session));
    let labels = filter.labels.iter().all(|(key, value)| run.labels.get(key) == Some(value));
    let created = filter.created_after.is_none_or(|at| run.created_at >= at) && filter.created_before.is_none_or(|at| run.created_at < at);
    status && workflow && repo && session && labels && created && filter.below.is_none_or(|below| run.id < below)
}

#[async_trait]
impl MetricsStore for SimStore {
    async fn load(&self) -> Result<Option<serde_json::Value>> {
        Ok(self.inner().metrics.clone().map(|(_, state)| state))
    }

    async fn save(&self, version: i64, state: Box<RawValue>) -> Result<bool> {
        let state = serde_json::from_str(state.get()).expect("what is saved is JSON");
        let mut inner = self.inner();
        let current = inner.metrics.as_ref().map_or(0, |(version, _)| *version);
        if current != version {
            return Ok(false);
        }
        inner.metrics = Some((version + 1, state));
        Ok(true)
    }
}
