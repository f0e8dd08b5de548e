//! The rows of the simulated store, and what the statements of the real engines read of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::plan::Plan;
use hopyard_contract::run::{Attempt, Kill, Run, RunState, StepState, WorkspaceRow, WorkspaceStatus};
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use hopyard_store::Error;
use hopyard_store::runs::{ClaimQuery, Claimable, ExecutorRow, KeyRow, OutboxRow, Spent};

use super::definitions::Definition;

/// Everything that is committed. Runs are shared, so that a copy of the tables is cheap.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Runs with their steps, attempts and events.
    pub runs: BTreeMap<RunId, Arc<RunRecord>>,
    /// When runs want to be looked at.
    pub due: BTreeMap<(RunId, DueKind), Due>,
    /// Who waits for whose end: parent, child.
    pub after: BTreeSet<(RunId, RunId)>,
    /// Slots of unended runs by key: limit, and whether it is held.
    pub slots: BTreeMap<String, BTreeMap<RunId, (u32, bool)>>,
    /// Idempotency keys.
    pub keys: BTreeMap<(Name, String), KeyRow>,
    /// Receipts by sequence and time of the command stream.
    pub receipts: BTreeMap<(u64, i64), Receipt>,
    /// Kill requests that came before their runs.
    pub tombstones: BTreeMap<RunId, (DateTime<Utc>, Kill)>,
    /// Further ids of runs.
    pub aliases: BTreeMap<RunId, RunId>,
    /// What was spent of shared budgets.
    pub budgets: BTreeMap<String, Spent>,
    /// Plans by hash.
    pub plans: BTreeMap<String, Arc<Plan>>,
    /// Definitions in the order of their storing.
    pub(super) definitions: Vec<Definition>,
    /// Executors that said hello.
    pub executors: BTreeMap<Name, ExecutorRow>,
    /// The inventory of workspaces.
    pub workspaces: BTreeMap<String, WorkspaceRow>,
    /// Messages that have not been published for certain.
    pub outbox: BTreeMap<i64, OutboxRow>,
}

/// One run as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// The run row.
    pub run: Run,
    /// Its steps in the order of the plan.
    pub steps: Vec<StepState>,
    /// Its attempts by step and number.
    pub attempts: Vec<Attempt>,
    /// Its events, one page per transaction.
    pub pages: Vec<Arc<Vec<Event>>>,
}

impl RunRecord {
    /// All events in order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.pages.iter().flat_map(|page| page.iter())
    }
}

/// Why a run is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DueKind {
    /// Its own timer.
    Timer,
    /// Something that another run did.
    Poke,
}

/// A row of `due`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// From when on.
    pub at: DateTime<Utc>,
    /// Raised with each change, so that what was dealt with is told from what came since.
    pub n: u64,
}

impl Tables {
    /// The whole state of a run.
    pub fn state(&self, id: RunId) -> Result<Option<RunState>, Error> {
        let Some(record) = self.runs.get(&id) else { return Ok(None) };
        let missing = || Error::Refused(format!("the plan {} of run {id} is missing", record.run.plan_hash));
        let plan = self.plans.get(&record.run.plan_hash).cloned().ok_or_else(missing)?;
        Ok(Some(RunState {
            run: record.run.clone(),
            steps: record.steps.clone(),
            attempts: record.attempts.clone(),
            plan,
            timer: self.due.get(&(id, DueKind::Timer)).map(|due| due.at),
        }))
    }

    /// Whether a run waits for a slot that others hold to the limit.
    pub(super) fn slot_taken(&self, run: &Run) -> bool {
        run.finished_at.is_none()
            && run.slots.iter().any(|slot| {
                let Some(members) = self.slots.get(&slot.key) else { return false };
                let waits = members.get(&run.id).filter(|(_, held)| !held);
                waits.is_some_and(|(limit, _)| members.values().filter(|(_, held)| *held).count() >= *limit as usize)
            })
    }

    fn claimable_steps(&self, now: DateTime<Utc>) -> impl Iterator<Item = (&RunRecord, usize, &StepState)> {
        let open = self.runs.values().filter(|record| record.run.finished_at.is_none());
        let free = open.filter(|record| !self.slot_taken(&record.run));
        free.flat_map(|record| record.steps.iter().enumerate().map(move |(index, step)| (&**record, index, step)))
            .filter(move |(_, _, step)| step.claimable_at.is_some_and(|at| at <= now))
    }

    /// Steps that the executor may claim, best first.
    pub(super) fn candidates(&self, query: &ClaimQuery) -> Vec<(RunId, Name)> {
        let ours = |step: &StepState| step.pool == query.pool && step.bound_to.as_ref().is_none_or(|e| *e == query.executor);
        let mut found: Vec<_> = self
            .claimable_steps(query.now)
            .filter(|(_, _, step)| ours(step))
            .map(|(record, index, step)| {
                ((std::cmp::Reverse(record.run.priority), step.queued_at.or(step.claimable_at), record.run.id, index), step.id.clone())
            })
            .collect();
        found.sort();
        found.into_iter().map(|((_, _, run, _), step)| (run, step)).collect()
    }

    /// What could be claimed at an instant, by pool and binding.
    pub(super) fn claimable(&self, now: DateTime<Utc>) -> Vec<Claimable> {
        let mut groups: BTreeMap<(Name, Option<Name>), (u64, DateTime<Utc>)> = BTreeMap::new();
        for (_, _, step) in self.claimable_steps(now) {
            let at = step.claimable_at.unwrap_or(now);
            let group = groups.entry((step.pool.clone(), step.bound_to.clone())).or_insert((0, at));
            *group = (group.0 + 1, group.1.min(at));
        }
        let waited = |since: DateTime<Utc>| (now - since).to_std().unwrap_or_default();
        groups.into_iter().map(|((pool, bound_to), (count, at))| Claimable { pool, bound_to, count, waited: waited(at) }).collect()
    }

    /// Runs with something due, oldest first, each once.
    pub(super) fn due_runs(&self, now: DateTime<Utc>) -> Vec<RunId> {
        let mut rows: Vec<(DateTime<Utc>, RunId)> =
            self.due.iter().filter(|(_, due)| due.at <= now).map(|((id, _), due)| (due.at, *id)).collect();
        rows.sort();
        let mut seen = HashSet::new();
        rows.into_iter().map(|(_, id)| id).filter(|id| seen.insert(*id)).collect()
    }

    /// Members of slots, by key; only holders if `held`.
    pub(super) fn members(&self, keys: &[String], held: bool) -> HashMap<String, Vec<RunId>> {
        let listed = |members: &BTreeMap<RunId, (u32, bool)>| {
            members.iter().filter(|(_, (_, h))| *h || !held).map(|(id, _)| *id).collect::<Vec<_>>()
        };
        let all = keys.iter().filter_map(|key| Some((key.clone(), listed(self.slots.get(key)?))));
        all.filter(|(_, members)| !members.is_empty()).collect()
    }

    /// Unended runs that an active workspace binds to an executor.
    pub(super) fn bound_runs(&self, executor: &Name) -> Vec<RunId> {
        let rows = self.workspaces.values().filter(|row| row.executor == *executor && row.status == WorkspaceStatus::Active);
        let open = |row: &&WorkspaceRow| {
            self.runs.get(&row.run_id).is_some_and(|r| r.run.generation == row.generation && r.run.finished_at.is_none())
        };
        rows.filter(open).map(|row| row.run_id).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The newest kept or active workspace of a session.
    pub(super) fn session_workspace(&self, namespace: &Name, repo: Option<&str>, session: &Name) -> Option<WorkspaceRow> {
        let there = |row: &&WorkspaceRow| matches!(row.status, WorkspaceStatus::Active | WorkspaceStatus::Kept);
        let ours =
            |row: &&WorkspaceRow| row.namespace == *namespace && row.repo.as_deref() == repo && row.session.as_ref() == Some(session);
        self.workspaces.values().filter(ours).filter(there).max_by_key(|row| (row.created_at, row.id.clone())).cloned()
    }

    /// Workspaces in a status, oldest first.
    pub(super) fn workspaces_in(&self, host: Option<&Name>, status: WorkspaceStatus, limit: u32) -> Vec<WorkspaceRow> {
        let wanted = |row: &&WorkspaceRow| row.status == status && host.is_none_or(|host| row.host == *host);
        let mut rows: Vec<_> = self.workspaces.values().filter(wanted).cloned().collect();
        rows.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        rows.truncate(limit as usize);
        rows
    }

    /// Events since an instant: `limit` pages in order of time, and the rest of the last one's instant.
    pub(super) fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Vec<Event> {
        let mut pages: Vec<_> = self
            .runs
            .values()
            .flat_map(|record| record.pages.iter().filter_map(|page| Some((page.last()?.at, record.run.id, page))))
            .filter(|(at, ..)| *at >= since)
            .collect();
        pages.sort_by_key(|(at, run, page)| (*at, *run, page.first().map(|e| e.seq)));
        let Some(last) = (limit as usize).checked_sub(1) else { return Vec::new() };
        let until = pages.get(last).map(|(at, ..)| *at);
        pages.into_iter().filter(|(at, ..)| until.is_none_or(|until| *at <= until)).flat_map(|(_, _, page)| page.iter().cloned()).collect()
    }

    /// Age of the oldest outbox row in ms.
    pub(super) fn outbox_age_ms(&self, now: DateTime<Utc>) -> u64 {
        let oldest = self.outbox.values().map(|row| row.at).min();
        oldest.map_or(0, |at| u64::try_from((now - at).num_milliseconds()).unwrap_or(0))
    }

    /// Outbox rows of an age, oldest first.
    pub(super) fn outbox_rows(&self, now: DateTime<Utc>, age_ms: u64, limit: u32) -> Vec<OutboxRow> {
        let before = now - TimeDelta::milliseconds(i64::try_from(age_ms).unwrap_or(i64::MAX / 2));
        let mut rows: Vec<OutboxRow> = self.outbox.values().filter(|row| row.at <= before).cloned().collect();
        rows.sort_by_key(|row| (row.at, row.id));
        rows.truncate(limit as usize);
        rows
    }
}
