//! Statements that the transaction, the scheduler's own reads and the readers share; each works on any connection.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::run::{Attempt, Run, RunState, StepState, WorkspaceRow, WorkspaceStatus};
use hopyard_contract::status::RunStatus;
use hopyard_contract::{Name, RunId};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::definitions::Plans;
use super::rows::{WorkspaceRecord, decode, encode, id_list, instant, micros, unsigned, word};
use super::statement::{rows, value, values};
use crate::runs::Claimable;
use crate::{Error, Result};

pub(super) const RUNS: &str = "select id, data from runs where id in (select unhex(value) from json_each(?1)) order by id";
pub(super) const STEPS: &str =
    "select run_id, data from steps where run_id in (select unhex(value) from json_each(?1)) order by run_id, idx";
pub(super) const ATTEMPTS: &str =
    "select run_id, data from attempts where run_id in (select unhex(value) from json_each(?1)) order by run_id, step, n";
pub(super) const TIMERS: &str = "select run_id, at from due where run_id in (select unhex(value) from json_each(?1)) and kind = 'timer'";
pub(super) const STATUSES: &str = "select id, status from runs where id in (select unhex(value) from json_each(?1)) and namespace = ?2";
pub(super) const HOLDERS: &str =
    "select key, run_id from run_slots where held = 1 and key in (select value from json_each(?1)) order by key, run_id";
// Ids begin with their time, so their order is that of age.
pub(super) const MEMBERS: &str = "select key, run_id from run_slots where key in (select value from json_each(?1)) order by key, run_id";
pub(super) const CLAIMABLE: &str = "select pool, bound_to, count(*), min(claimable_at) from steps s where claimable_at is not null and claimable_at <= ?1 \
     and not exists (select 1 from run_slots w where w.run_id = s.run_id and w.held = 0 \
                     and w.max <= (select count(*) from run_slots h where h.key = w.key and h.held = 1)) \
     group by pool, bound_to order by pool, bound_to";
pub(super) const OUTBOX_AGE: &str = "select min(at) from outbox";
// Whole instants: a page that is cut within one could not be continued from its last time.
pub(super) const EVENTS_SINCE: &str = "select page from events where at >= ?1 \
     and at <= coalesce((select at from events where at >= ?1 order by at, run_id, first_seq limit 1 offset ?2), 9223372036854775807) \
     order by at, run_id, first_seq";
pub(super) const WORKSPACES_OF_HOST: &str = "select * from workspaces where host = ?1 and status = ?2 order by created_at, id limit ?3";
pub(super) const WORKSPACES_OF_STATUS: &str = "select * from workspaces where status = ?1 order by created_at, id limit ?2";

/// Whole states of runs, in order of id.
pub(super) fn states(connection: &Connection, plans: &Plans, ids: &[RunId]) -> Result<Vec<RunState>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let list = id_list(ids);
    let runs: Vec<(Uuid, String)> = rows(connection, RUNS, params![&list])?;
    let runs: Vec<Run> = runs.into_iter().map(|(id, data)| decode(format_args!("run {id}"), &data)).collect::<Result<_>>()?;
    if runs.is_empty() {
        // Submissions ask for ids that are new.
        return Ok(Vec::new());
    }
    let mut steps: HashMap<Uuid, Vec<StepState>> = HashMap::with_capacity(runs.len());
    for (id, data) in rows::<(Uuid, String)>(connection, STEPS, [&list])? {
        steps.entry(id).or_default().push(decode(format_args!("step of run {id}"), &data)?);
    }
    let mut attempts: HashMap<Uuid, Vec<Attempt>> = HashMap::with_capacity(runs.len());
    for (id, data) in rows::<(Uuid, String)>(connection, ATTEMPTS, [&list])? {
        attempts.entry(id).or_default().push(decode(format_args!("attempt of run {id}"), &data)?);
    }
    let timers: Vec<(Uuid, i64)> = rows(connection, TIMERS, params![&list])?;
    let timers: HashMap<Uuid, i64> = timers.into_iter().collect();
    let hashes: HashSet<&String> = runs.iter().map(|r| &r.plan_hash).collect();
    let known = plans.get(connection, &hashes.into_iter().cloned().collect::<Vec<_>>())?;
    let whole = |run: Run| {
        let id = run.id.as_uuid();
        let plan = known.get(&run.plan_hash).ok_or_else(|| Error::Refused(format!("the plan {} of run {id} is missing", run.plan_hash)))?;
        Ok(RunState {
            steps: steps.remove(&id).unwrap_or_default(),
            attempts: attempts.remove(&id).unwrap_or_default(),
            plan: Arc::clone(plan),
            timer: timers.get(&id).copied().map(instant).transpose()?,
            run,
        })
    };
    runs.into_iter().map(whole).collect()
}

/// Statuses of runs of a namespace.
pub(super) fn statuses(connection: &Connection, namespace: &Name, ids: &[RunId]) -> Result<Vec<(RunId, RunStatus)>> {
    let rows: Vec<(Uuid, String)> = rows(connection, STATUSES, params![id_list(ids), namespace.as_str()])?;
    rows.into_iter().map(|(id, status)| Ok((RunId::from_uuid(id), word(&status)?))).collect()
}

/// Who holds each slot; keys that nobody holds are absent.
pub(super) fn slot_holders(connection: &Connection, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
    runs_by_key(connection, HOLDERS, keys)
}

/// Unended runs of each slot, held or not, oldest first; keys without any are absent.
pub(super) fn slot_members(connection: &Connection, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
    runs_by_key(connection, MEMBERS, keys)
}

fn runs_by_key(connection: &Connection, sql: &'static str, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
    let rows: Vec<(String, Uuid)> = rows(connection, sql, params![encode("slot keys", keys)?])?;
    let mut runs: HashMap<String, Vec<RunId>> = HashMap::new();
    for (key, run) in rows {
        runs.entry(key).or_default().push(RunId::from_uuid(run));
    }
    Ok(runs)
}

/// What could be claimed at an instant.
pub(super) fn claimable(connection: &Connection, now: DateTime<Utc>) -> Result<Vec<Claimable>> {
    let rows: Vec<(String, Option<String>, i64, i64)> = rows(connection, CLAIMABLE, params![micros(now)])?;
    let read = |(pool, bound_to, count, oldest): (String, Option<String>, i64, i64)| {
        Ok(Claimable {
            pool: word(&pool)?,
            bound_to: bound_to.as_deref().map(word).transpose()?,
            count: unsigned(count)?,
            waited: Duration::from_micros(unsigned(micros(now) - oldest)?),
        })
    };
    rows.into_iter().map(read).collect()
}

/// Age of the oldest outbox row at an instant, in ms.
pub(super) fn outbox_age_ms(connection: &Connection, now: DateTime<Utc>) -> Result<u64> {
    let oldest = value::<Option<i64>>(connection, OUTBOX_AGE, [])?.flatten();
    Ok(oldest.map_or(0, |at| u64::try_from((micros(now) - at) / 1000).unwrap_or(0)))
}

/// Events since an instant in order of commit, at least `limit` pages of them if there are so many.
pub(super) fn events_since(connection: &Connection, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let pages: Vec<String> = values(connection, EVENTS_SINCE, params![micros(since), limit - 1])?;
    let mut events = Vec::with_capacity(pages.len());
    for page in pages {
        events.append(&mut decode::<Vec<Event>>("page of events", &page)?);
    }
    Ok(events)
}

/// The run that goes by another id as well.
pub(super) fn alias(connection: &Connection, id: RunId) -> Result<Option<RunId>> {
    let run: Option<Uuid> = value(connection, "select run_id from aliases where id = ?1", [id.as_uuid()])?;
    Ok(run.map(RunId::from_uuid))
}

/// Workspaces in a status, oldest first.
pub(super) fn workspaces(connection: &Connection, host: Option<&Name>, status: WorkspaceStatus, limit: u32) -> Result<Vec<WorkspaceRow>> {
    let rows: Vec<WorkspaceRecord> = match host {
        Some(host) => rows(connection, WORKSPACES_OF_HOST, params![host.as_str(), status.as_str(), limit])?,
        None => rows(connection, WORKSPACES_OF_STATUS, params![status.as_str(), limit])?,
    };
    rows.into_iter().map(WorkspaceRecord::read).collect()
}
