//! What follows from changed runs: their slots, who waits for them, and when runs are looked at next.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Seen, failure, scalar, statement};
use crate::Result;
use crate::postgres::select;
use crate::runs::{RunWrite, Writes};

/// Who ends runs and who adds a waiting run meet here: either the end is seen by the newcomer, or the newcomer by the end.
const ENDING: &str = "SELECT pg_advisory_xact_lock_shared(hashtextextended('hopyard.gate.after', 0))";
const WAITING: &str = "SELECT pg_advisory_xact_lock(hashtextextended('hopyard.gate.after', 0))";
const HAVE_ENDED: &str = "SELECT id FROM hopyard_runs.runs WHERE id = ANY($1) AND finished_at IS NOT NULL";
const INSERT_AFTER: &str = "INSERT INTO hopyard_runs.run_after (parent, child) \
     SELECT * FROM unnest($1::uuid[], $2::uuid[]) ON CONFLICT (parent, child) DO NOTHING";
pub(in crate::postgres) const DELETE_AFTER: &str = "DELETE FROM hopyard_runs.run_after WHERE (parent, child) IN \
     (SELECT parent, child FROM hopyard_runs.run_after WHERE parent = ANY($1) OR child = ANY($1) ORDER BY parent, child FOR UPDATE) RETURNING parent, child";
const UPSERT_SLOTS: &str = "INSERT INTO hopyard_runs.run_slots AS s (run_id, key, max, held) \
     SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bool[]) \
     ON CONFLICT (run_id, key) DO UPDATE SET max = excluded.max, held = excluded.held WHERE (s.max, s.held) IS DISTINCT FROM (excluded.max, excluded.held)";
const DELETE_SLOTS: &str = "DELETE FROM hopyard_runs.run_slots WHERE run_id = ANY($1)";
const LOCK_DUE: &str =
    "SELECT count(*) FROM (SELECT 1 FROM hopyard_runs.due WHERE run_id = ANY($1) ORDER BY run_id, kind FOR UPDATE) AS locked";
/// A poke that came after its run was loaded has another number and stays.
pub(in crate::postgres) const DELETE_DUE: &str = "DELETE FROM hopyard_runs.due d USING unnest($1::uuid[], $2::text[], $3::bigint[]) AS n(run_id, kind, n) \
     WHERE d.run_id = n.run_id AND d.kind = n.kind AND (n.n IS NULL OR d.n = n.n)";
/// A timer is set, a poke is only ever moved nearer. Pokes of runs that do not exist would never be dealt with.
pub(in crate::postgres) const UPSERT_DUE: &str = "INSERT INTO hopyard_runs.due AS d (run_id, kind, at) \
     SELECT n.run_id, n.kind, coalesce(n.at, now()) FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS n(run_id, kind, at) \
     WHERE EXISTS (SELECT 1 FROM hopyard_runs.runs r WHERE r.id = n.run_id) ORDER BY n.run_id, n.kind \
     ON CONFLICT (run_id, kind) DO UPDATE SET n = d.n + 1, \
     at = CASE d.kind WHEN 'timer' THEN excluded.at ELSE least(d.at, excluded.at) END";

/// Writes slots, waiting runs, timers and pokes.
pub(super) async fn write(connection: &mut PgConnection, seen: &HashMap<Uuid, Seen>, runs: &[&RunWrite], writes: &Writes) -> Result<()> {
    let ended: Vec<Uuid> = runs.iter().filter(|w| w.run.finished_at.is_some() && !had_ended(seen, w)).map(|w| w.run.id.as_uuid()).collect();
    write_slots(connection, runs, &ended).await?;
    let mut pokes: BTreeSet<Uuid> = writes.pokes.iter().map(hopyard_contract::RunId::as_uuid).collect();
    write_after(connection, runs, &ended, &mut pokes).await?;

    // Timers of the ended go first, then what the writes say of timers: a run may want to be looked at after its end.
    let mut gone: BTreeMap<(Uuid, &str), Option<i64>> = ended.iter().map(|id| ((*id, "timer"), None)).collect();
    let mut wanted: BTreeMap<(Uuid, &str), Option<DateTime<Utc>>> = BTreeMap::new();
    for run in runs {
        let id = run.run.id.as_uuid();
        match run.timer {
            None => {}
            Some(None) => drop(gone.insert((id, "timer"), None)),
            Some(Some(at)) => drop(wanted.insert((id, "timer"), Some(at))),
        }
    }
    for run in &writes.poked {
        let id = run.as_uuid();
        match seen.get(&id) {
            // It had none when it was loaded: one that is there by now is news.
            Some(Seen { poke: None, .. }) => {}
            Some(Seen { poke, .. }) => drop(gone.insert((id, "poke"), *poke)),
            None => drop(gone.insert((id, "poke"), None)),
        }
    }
    wanted.extend(pokes.into_iter().map(|id| ((id, "poke"), None)));
    write_due(connection, &gone, &wanted).await
}

fn had_ended(seen: &HashMap<Uuid, Seen>, write: &RunWrite) -> bool {
    !write.new && seen.get(&write.run.id.as_uuid()).is_some_and(|seen| seen.ended)
}

async fn write_slots(connection: &mut PgConnection, runs: &[&RunWrite], ended: &[Uuid]) -> Result<()> {
    let (mut ids, mut keys, mut limits, mut held) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in runs.iter().filter(|w| w.run.finished_at.is_none()).map(|w| &w.run) {
        for slot in &run.slots {
            ids.push(run.id.as_uuid());
            keys.push(slot.key.as_str());
            limits.push(i64::from(slot.limit));
            held.push(slot.held);
        }
    }
    if !ids.is_empty() {
        statement(UPSERT_SLOTS).bind(ids).bind(keys).bind(limits).bind(held).execute(&mut *connection).await.map_err(failure)?;
    }
    if runs.iter().any(|w| !w.run.slots.is_empty() && w.run.finished_at.is_some()) {
        statement(DELETE_SLOTS).bind(ended.to_vec()).execute(connection).await.map_err(failure)?;
    }
    Ok(())
}

/// Keeps who waits for whom, and adds those to `pokes` whose wait has changed.
async fn write_after(connection: &mut PgConnection, runs: &[&RunWrite], ended: &[Uuid], pokes: &mut BTreeSet<Uuid>) -> Result<()> {
    let waits: Vec<(Uuid, Uuid)> = runs
        .iter()
        .filter(|w| w.new && w.run.finished_at.is_none())
        .flat_map(|w| w.run.after_open.iter().map(|parent| (parent.as_uuid(), w.run.id.as_uuid())))
        .collect();
    if waits.is_empty() && ended.is_empty() {
        return Ok(());
    }
    statement(if waits.is_empty() { ENDING } else { WAITING }).execute(&mut *connection).await.map_err(failure)?;
    if !waits.is_empty() {
        let (parents, children): (Vec<Uuid>, Vec<Uuid>) = waits.iter().copied().unzip();
        let over: Vec<Uuid> = scalar(HAVE_ENDED).bind(parents.clone()).fetch_all(&mut *connection).await.map_err(failure)?;
        let over: HashSet<Uuid> = over.into_iter().collect();
        pokes.extend(waits.iter().filter(|(parent, _)| over.contains(parent)).map(|(_, child)| *child));
        statement(INSERT_AFTER).bind(parents).bind(children).execute(&mut *connection).await.map_err(failure)?;
    }
    if !ended.is_empty() {
        let gone: Vec<(Uuid, Uuid)> = select(DELETE_AFTER).bind(ended.to_vec()).fetch_all(&mut *connection).await.map_err(failure)?;
        pokes.extend(gone.into_iter().filter(|(parent, _)| ended.contains(parent)).map(|(_, child)| child));
    }
    Ok(())
}

async fn write_due(
    connection: &mut PgConnection,
    gone: &BTreeMap<(Uuid, &str), Option<i64>>,
    wanted: &BTreeMap<(Uuid, &str), Option<DateTime<Utc>>>,
) -> Result<()> {
    let all: BTreeSet<Uuid> = gone.keys().chain(wanted.keys()).map(|(id, _)| *id).collect();
    if all.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = all.into_iter().collect();
    let _: i64 = scalar(LOCK_DUE).bind(ids).fetch_one(&mut *connection).await.map_err(failure)?;
    if !gone.is_empty() {
        let (ids, kinds): (Vec<Uuid>, Vec<&str>) = gone.keys().copied().unzip();
        let numbers: Vec<Option<i64>> = gone.values().copied().collect();
        statement(DELETE_DUE).bind(ids).bind(kinds).bind(numbers).execute(&mut *connection).await.map_err(failure)?;
    }
    if !wanted.is_empty() {
        let (ids, kinds): (Vec<Uuid>, Vec<&str>) = wanted.keys().copied().unzip();
        let times: Vec<Option<DateTime<Utc>>> = wanted.values().copied().collect();
        statement(UPSERT_DUE).bind(ids).bind(kinds).bind(times).execute(connection).await.map_err(failure)?;
    }
    Ok(())
}
