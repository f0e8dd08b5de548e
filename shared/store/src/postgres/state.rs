//! Reads that the scheduler's transaction and the readers share; each works on any connection.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::run::{Attempt, Run, RunState, StepState};
use hopyard_contract::status::RunStatus;
use hopyard_contract::{Name, RunId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::plans::Plans;
use super::rows::{self, json, slot_taken, uuids, word};
use super::{failure, scalar, select};
use crate::runs::Claimable;
use crate::{Error, Result};

/// Locks in the order of id, whatever order the plan reads in.
pub(super) const LOCK_RUNS: &str = "SELECT id, data::text FROM hopyard_runs.runs WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
/// Waits for nobody.
pub(super) const LOCK_FREE_RUNS: &str =
    "SELECT id, data::text FROM hopyard_runs.runs WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE NOWAIT";
pub(super) const RUNS: &str = "SELECT id, data::text FROM hopyard_runs.runs WHERE id = ANY($1) ORDER BY id";
/// Steps, attempts and due rows of runs in one round trip; a statement of its own, so that its snapshot is younger than the locks.
/// Run by run (`OFFSET 0` keeps the planner from another way): of a list it expects too much where it has no statistics, and reads
/// whole tables.
pub(super) const PARTS: &str = "SELECT 0 AS part, run_id, '' AS step, idx::bigint AS n, NULL::timestamptz AS at, data::text AS data \
     FROM unnest($1::uuid[]) AS asked(id), LATERAL (SELECT run_id, idx, data FROM hopyard_runs.steps WHERE run_id = asked.id OFFSET 0) AS s \
     UNION ALL SELECT 1, run_id, step, n, NULL, data::text FROM unnest($1::uuid[]) AS asked(id), \
     LATERAL (SELECT run_id, step, n, data FROM hopyard_runs.attempts WHERE run_id = asked.id OFFSET 0) AS a \
     UNION ALL SELECT CASE kind WHEN 'timer' THEN 2 ELSE 3 END, run_id, '', n, at, '' FROM unnest($1::uuid[]) AS asked(id), \
     LATERAL (SELECT run_id, kind, n, at FROM hopyard_runs.due WHERE run_id = asked.id OFFSET 0) AS d \
     ORDER BY 1, 2, 3, 4";
const STATUSES: &str = "SELECT id, status FROM hopyard_runs.runs WHERE id = ANY($1) AND namespace = $2 ORDER BY id";
// Ids begin with their time, so their order is that of age.
const MEMBERS: &str = "SELECT key, run_id FROM hopyard_runs.run_slots WHERE key = ANY($1) ORDER BY key, run_id";
const HOLDERS: &str = "SELECT key, run_id FROM hopyard_runs.run_slots WHERE key = ANY($1) AND held ORDER BY key, run_id";
pub(super) const CLAIMABLE: &str = concat!(
    "SELECT s.pool, s.bound_to, count(*), (extract(epoch FROM clock_timestamp() - min(s.claimable_at)) * 1000000)::bigint FROM hopyard_runs.steps s \
     WHERE s.claimable_at IS NOT NULL AND s.claimable_at <= clock_timestamp() AND NOT ",
    slot_taken!("s.run_id"),
    " GROUP BY s.pool, s.bound_to ORDER BY s.pool, s.bound_to NULLS FIRST"
);
/// Whole instants: a page that is cut within one could not be continued from its last time.
pub(super) const EVENTS_SINCE: &str = "SELECT run_id, page::text FROM hopyard_runs.events WHERE at >= $1 \
     AND at <= coalesce((SELECT l.at FROM hopyard_runs.events l WHERE l.at >= $1 ORDER BY l.at, l.run_id, l.first_seq LIMIT 1 OFFSET $2), 'infinity') \
     ORDER BY at, run_id, first_seq";
const OUTBOX_AGE: &str =
    "SELECT coalesce(greatest(extract(epoch FROM clock_timestamp() - min(at)) * 1000, 0), 0)::bigint FROM hopyard_runs.outbox";

type Part = (i32, Uuid, String, i64, Option<DateTime<Utc>>, String);

/// Whole states, and the numbers of the pokes of those runs that have one.
pub(super) async fn states(connection: &mut PgConnection, plans: &Plans, runs: Vec<Run>) -> Result<(Vec<RunState>, HashMap<Uuid, i64>)> {
    let mut pokes = HashMap::new();
    if runs.is_empty() {
        return Ok((Vec::new(), pokes));
    }
    let ids: Vec<Uuid> = runs.iter().map(|run| run.id.as_uuid()).collect();
    let parts: Vec<Part> = select(PARTS).bind(ids).fetch_all(&mut *connection).await.map_err(failure)?;
    let mut steps: HashMap<Uuid, Vec<StepState>> = HashMap::with_capacity(runs.len());
    let mut attempts: HashMap<Uuid, Vec<Attempt>> = HashMap::with_capacity(runs.len());
    let mut timers: HashMap<Uuid, DateTime<Utc>> = HashMap::new();
    for (part, id, step, n, at, data) in parts {
        match (part, at) {
            (0, _) => steps.entry(id).or_default().push(json(&data, "step of run", id)?),
            (1, _) => attempts.entry(id).or_default().push(json(&data, "attempt of run", format_args!("{id}, step {step}"))?),
            (2, Some(at)) => drop(timers.insert(id, at)),
            _ => drop(pokes.insert(id, n)),
        }
    }
    let hashes: Vec<&str> = runs.iter().map(|run| run.plan_hash.as_str()).collect();
    let known = plans.get(connection, &hashes).await?;
    let whole = |run: Run| {
        let id = run.id.as_uuid();
        let plan = known.get(&run.plan_hash).ok_or_else(|| Error::Refused(format!("the plan {} of run {id} is missing", run.plan_hash)))?;
        Ok(RunState {
            steps: steps.remove(&id).unwrap_or_default(),
            attempts: attempts.remove(&id).unwrap_or_default(),
            plan: Arc::clone(plan),
            timer: timers.get(&id).copied(),
            run,
        })
    };
    Ok((runs.into_iter().map(whole).collect::<Result<_>>()?, pokes))
}

/// Statuses of runs of a namespace.
pub(super) async fn statuses(connection: &mut PgConnection, namespace: &Name, ids: &[RunId]) -> Result<Vec<(RunId, RunStatus)>> {
    let found: Vec<(Uuid, String)> =
        select(STATUSES).bind(uuids(ids)).bind(namespace.as_str()).fetch_all(connection).await.map_err(failure)?;
    found.into_iter().map(|(id, status)| Ok((RunId::from_uuid(id), word(&status)?))).collect()
}

/// Who holds each slot; keys that nobody holds are absent.
pub(super) async fn slot_holders(connection: &mut PgConnection, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
    runs_by_key(connection, HOLDERS, keys).await
}

/// Unended runs of each slot, held or not, oldest first; keys without any are absent.
pub(super) async fn slot_members(connection: &mut PgConnection, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
    runs_by_key(connection, MEMBERS, keys).await
}

async fn runs_by_key(connection: &mut PgConnection, sql: &'static str, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
    let found: Vec<(String, Uuid)> = select(sql).bind(keys.to_vec()).fetch_all(connection).await.map_err(failure)?;
    let mut runs: HashMap<String, Vec<RunId>> = HashMap::new();
    for (key, run) in found {
        runs.entry(key).or_default().push(RunId::from_uuid(run));
    }
    Ok(runs)
}

/// What could be claimed now.
pub(super) async fn claimable(connection: &mut PgConnection) -> Result<Vec<Claimable>> {
    rows::claimable(select(CLAIMABLE).fetch_all(connection).await.map_err(failure)?)
}

/// Age of the oldest outbox row, in ms.
pub(super) async fn outbox_age_ms(connection: &mut PgConnection) -> Result<u64> {
    let age: i64 = scalar(OUTBOX_AGE).fetch_one(connection).await.map_err(failure)?;
    Ok(rows::counted(age))
}

/// Events since an instant in order of commit time, run and number: at least `limit` pages of them if there are so many.
pub(super) async fn events_since(connection: &mut PgConnection, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let pages: Vec<(Uuid, String)> =
        select(EVENTS_SINCE).bind(since).bind(i64::from(limit) - 1).fetch_all(connection).await.map_err(failure)?;
    events_of(pages)
}

/// Events of stored pages, in the order of the pages.
pub(super) fn events_of(pages: Vec<(Uuid, String)>) -> Result<Vec<Event>> {
    let mut events = Vec::with_capacity(pages.len());
    for (run, page) in pages {
        events.append(&mut json::<Vec<Event>>(&page, "page of events of run", run)?);
    }
    Ok(events)
}
