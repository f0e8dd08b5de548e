//! Applies what was decided: arrays in, one statement per table.
//!
//! Rows of a run are guarded by the lock on its run row. The others (`due` rows of other runs, `run_after`, the outbox) are
//! locked in the order of their keys before they change, so that two transactions do not wait for each other in a circle.

pub(super) mod follow;
pub(super) mod parts;

use std::collections::{BTreeMap, HashMap};

use hopyard_contract::RunId;
use hopyard_contract::run::{Kill, WorkspaceRow};
use hopyard_contract::submit::Receipt;
use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::{count, text};
use super::transaction::Seen;
use super::{failure, scalar, statement};
use crate::runs::{ExecutorRow, KeyRow, RunWrite, Writes};
use crate::{Error, Result};

pub(super) const TOMBSTONE_GATE: &str = "SELECT pg_advisory_xact_lock(hashtextextended('hopyard.gate.tombstones', 0))";
const KNOWN_RUN: &str = "SELECT id FROM hopyard_runs.runs WHERE id = ANY($1) \
     UNION ALL SELECT id FROM hopyard_runs.aliases WHERE id = ANY($1) LIMIT 1";
const ALIASES: &str = "INSERT INTO hopyard_runs.aliases (id, run_id) SELECT id, run_id FROM unnest($1::uuid[], $2::uuid[]) AS n(id, run_id) \
     ORDER BY id ON CONFLICT (id) DO NOTHING";
const TOMBSTONES: &str = "INSERT INTO hopyard_runs.tombstones (run_id, at, data) \
     SELECT run_id, clock_timestamp(), data::json FROM unnest($1::uuid[], $2::text[]) AS n(run_id, data) ORDER BY run_id ON CONFLICT (run_id) DO NOTHING";
const RECEIPTS: &str = "INSERT INTO hopyard_runs.receipts (seq, time_ns, namespace, data) SELECT seq, time_ns, namespace, data::json \
     FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) AS n(seq, time_ns, namespace, data) \
     ORDER BY seq, time_ns ON CONFLICT (seq, time_ns) DO NOTHING";
const KEYS: &str = "INSERT INTO hopyard_runs.keys (namespace, key, run_id, request_hash) \
     SELECT namespace, key, run_id, request_hash FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[]) AS n(namespace, key, run_id, request_hash)";
const EXECUTORS: &str = "INSERT INTO hopyard_runs.executors (id, host, pool, slots, version, draining, seen_at) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bool[], $7::timestamptz[]) \
     ON CONFLICT (id) DO UPDATE SET host = excluded.host, pool = excluded.pool, slots = excluded.slots, version = excluded.version, \
     draining = excluded.draining, seen_at = excluded.seen_at";
const WORKSPACES: &str = "INSERT INTO hopyard_runs.workspaces \
     (id, run_id, namespace, generation, executor, host, path, repo, session, status, created_at, removed_at, bytes) \
     SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], \
     $11::timestamptz[], $12::timestamptz[], $13::bigint[]) \
     ON CONFLICT (id) DO UPDATE SET run_id = excluded.run_id, namespace = excluded.namespace, generation = excluded.generation, \
     executor = excluded.executor, host = excluded.host, path = excluded.path, repo = excluded.repo, session = excluded.session, \
     status = excluded.status, created_at = excluded.created_at, removed_at = excluded.removed_at, bytes = excluded.bytes";
const BUDGETS: &str = "INSERT INTO hopyard_runs.budgets AS b (key, spent_microusd, open_microusd) \
     SELECT key, spent, open FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS n(key, spent, open) ORDER BY key \
     ON CONFLICT (key) DO UPDATE SET spent_microusd = b.spent_microusd + excluded.spent_microusd, open_microusd = b.open_microusd + excluded.open_microusd";
const OUTBOX: &str = "INSERT INTO hopyard_runs.outbox (id, messages) VALUES ($1, $2::text::json)";
const PUBLISHED: &str =
    "DELETE FROM hopyard_runs.outbox WHERE id IN (SELECT id FROM hopyard_runs.outbox WHERE id = ANY($1) ORDER BY id FOR UPDATE)";

/// Writes everything; `seen` is what the transaction knows of the runs that it loaded.
pub(super) async fn apply(connection: &mut PgConnection, seen: &HashMap<Uuid, Seen>, writes: &Writes) -> Result<()> {
    let mut runs: Vec<&RunWrite> = writes.runs.iter().collect();
    runs.sort_by_key(|write| write.run.id);
    if !writes.tombstones.is_empty() {
        write_tombstones(connection, &writes.tombstones).await?;
    }
    if !runs.is_empty() {
        parts::write(connection, &runs).await?;
    }
    follow::write(connection, seen, &runs, writes).await?;
    if !writes.receipts.is_empty() {
        write_receipts(connection, &writes.receipts).await?;
    }
    if !writes.keys.is_empty() {
        write_keys(connection, &writes.keys).await?;
    }
    if !writes.executors.is_empty() {
        write_executors(connection, &writes.executors).await?;
    }
    if !writes.workspaces.is_empty() {
        write_workspaces(connection, &writes.workspaces).await?;
    }
    if !writes.aliases.is_empty() {
        let (ids, runs): (Vec<Uuid>, Vec<Uuid>) = writes.aliases.iter().map(|(id, run)| (id.as_uuid(), run.as_uuid())).unzip();
        statement(ALIASES).bind(ids).bind(runs).execute(&mut *connection).await.map_err(failure)?;
    }
    if !writes.budgets.is_empty() {
        let keys: Vec<&str> = writes.budgets.keys().map(String::as_str).collect();
        let (spent, open): (Vec<i64>, Vec<i64>) = writes.budgets.values().map(|more| (more.spent, more.open)).unzip();
        statement(BUDGETS).bind(keys).bind(spent).bind(open).execute(&mut *connection).await.map_err(failure)?;
    }
    if !writes.outbox.is_empty() {
        statement(OUTBOX).bind(writes.outbox_id).bind(text(&writes.outbox)?).execute(&mut *connection).await.map_err(failure)?;
    }
    if !writes.published.is_empty() {
        statement(PUBLISHED).bind(writes.published.clone()).execute(&mut *connection).await.map_err(failure)?;
    }
    Ok(())
}

/// Waits until everyone who looked for tombstones has committed, and refuses to write one for a run that came about meanwhile.
async fn write_tombstones(connection: &mut PgConnection, tombstones: &[(RunId, Kill)]) -> Result<()> {
    statement(TOMBSTONE_GATE).execute(&mut *connection).await.map_err(failure)?;
    let ids: Vec<Uuid> = tombstones.iter().map(|(id, _)| id.as_uuid()).collect();
    let known: Option<Uuid> = scalar(KNOWN_RUN).bind(ids.clone()).fetch_optional(&mut *connection).await.map_err(failure)?;
    if let Some(id) = known {
        return Err(Error::Retry(format!("run {id} was accepted while its tombstone was written")));
    }
    let data = tombstones.iter().map(|(_, kill)| text(kill)).collect::<Result<Vec<_>>>()?;
    statement(TOMBSTONES).bind(ids).bind(data).execute(connection).await.map_err(failure)?;
    Ok(())
}

async fn write_receipts(connection: &mut PgConnection, receipts: &[(Receipt, i64)]) -> Result<()> {
    let mut sequences = Vec::with_capacity(receipts.len());
    for (receipt, _) in receipts {
        let seq = receipt.seq.ok_or_else(|| Error::Refused(format!("receipt {} has no sequence of the command stream", receipt.id)))?;
        sequences.push(count(seq));
    }
    let times: Vec<i64> = receipts.iter().map(|(_, time_ns)| *time_ns).collect();
    let namespaces: Vec<&str> = receipts.iter().map(|(receipt, _)| receipt.namespace.as_str()).collect();
    let data = receipts.iter().map(|(receipt, _)| text(receipt)).collect::<Result<Vec<_>>>()?;
    statement(RECEIPTS).bind(sequences).bind(times).bind(namespaces).bind(data).execute(connection).await.map_err(failure)?;
    Ok(())
}

async fn write_keys(connection: &mut PgConnection, keys: &[(hopyard_contract::Name, String, KeyRow)]) -> Result<()> {
    let mut keys: Vec<_> = keys.iter().collect();
    keys.sort_by_key(|(namespace, key, _)| (namespace, key));
    statement(KEYS)
        .bind(parts::column(&keys, |(namespace, ..)| namespace.as_str()))
        .bind(parts::column(&keys, |(_, key, _)| key.as_str()))
        .bind(parts::column(&keys, |(.., row)| row.run.as_uuid()))
        .bind(parts::column(&keys, |(.., row)| row.request_hash.as_str()))
        .execute(connection)
        .await
        .map_err(failure)?;
    Ok(())
}

async fn write_executors(connection: &mut PgConnection, executors: &[ExecutorRow]) -> Result<()> {
    // One row per id, the last word counts: a statement cannot change a row twice. Sorted, as every lock.
    let rows: Vec<&ExecutorRow> = executors.iter().map(|row| (&row.id, row)).collect::<BTreeMap<_, _>>().into_values().collect();
    statement(EXECUTORS)
        .bind(parts::column(&rows, |r| r.id.as_str()))
        .bind(parts::column(&rows, |r| r.host.as_str()))
        .bind(parts::column(&rows, |r| r.pool.as_str()))
        .bind(parts::column(&rows, |r| i64::from(r.slots)))
        .bind(parts::column(&rows, |r| r.version.as_str()))
        .bind(parts::column(&rows, |r| r.draining))
        .bind(parts::column(&rows, |r| r.seen_at))
        .execute(connection)
        .await
        .map_err(failure)?;
    Ok(())
}

async fn write_workspaces(connection: &mut PgConnection, workspaces: &[WorkspaceRow]) -> Result<()> {
    let rows: Vec<&WorkspaceRow> = workspaces.iter().map(|row| (&row.id, row)).collect::<BTreeMap<_, _>>().into_values().collect();
    statement(WORKSPACES)
        .bind(parts::column(&rows, |r| r.id.as_str()))
        .bind(parts::column(&rows, |r| r.run_id.as_uuid()))
        .bind(parts::column(&rows, |r| r.namespace.as_str()))
        .bind(parts::column(&rows, |r| i64::from(r.generation)))
        .bind(parts::column(&rows, |r| r.executor.as_str()))
        .bind(parts::column(&rows, |r| r.host.as_str()))
        .bind(parts::column(&rows, |r| r.path.as_str()))
        .bind(parts::column(&rows, |r| r.repo.as_deref()))
        .bind(parts::column(&rows, |r| r.session.as_ref().map(hopyard_contract::Name::as_str)))
        .bind(parts::column(&rows, |r| r.status.as_str()))
        .bind(parts::column(&rows, |r| r.created_at))
        .bind(parts::column(&rows, |r| r.removed_at))
        .bind(parts::column(&rows, |r| r.bytes.map(count)))
        .execute(connection)
        .await
        .map_err(failure)?;
    Ok(())
}
