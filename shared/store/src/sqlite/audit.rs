//! Reads for an audit of the embedded engine.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::run::WorkspaceRow;
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use rusqlite::Connection;
use std::collections::HashMap;
use uuid::Uuid;

use super::reader::Reads;
use super::reading;
use super::rows::{WorkspaceRecord, decode, encode, id_list, instant, micros, signed, unsigned, word};
use super::statement::{rows, value, values};
use crate::Result;
use crate::audit::{AuditReader, AuditedKey, CrowdedSlot, Histories, Overdue, Touch};

pub(super) const RUNS_FROM: &str = "select id from runs where id >= ?1 order by id limit ?2";
pub(super) const OPEN_RUNS: &str =
    "select id from runs indexed by runs_live where finished_at is null and id >= ?1 and id < ?2 order by id limit ?3";
pub(super) const TOUCHED: &str = "select at, run_id, first_seq from events where (at, run_id, first_seq) > (?1, ?2, ?3) \
     order by at, run_id, first_seq limit ?4";
pub(super) const PAGES: &str =
    "select run_id, page from events where run_id in (select unhex(value) from json_each(?1)) order by run_id, first_seq";
// Columns are copies of parts of the documents, for filters and guards: a list and a single view must not differ.
pub(super) const DIFFERING: &str = "with wanted(id) as (select unhex(value) from json_each(?1)) \
     select id, 'run' from runs where id in wanted and ( \
        namespace is not json_extract(data, '$.namespace') or workflow is not json_extract(data, '$.workflow') \
        or status is not json_extract(data, '$.status') or pending_reason is not json_extract(data, '$.pending_reason') \
        or failure_code is not json_extract(data, '$.failure_code') or event_seq is not json_extract(data, '$.event_seq') \
        or generation is not json_extract(data, '$.generation') or executor is not json_extract(data, '$.executor') \
        or cost_microusd is not json_extract(data, '$.usage.cost_microusd') or turns is not json_extract(data, '$.usage.turns') \
        or tokens_input is not json_extract(data, '$.usage.tokens.input') or tokens_output is not json_extract(data, '$.usage.tokens.output') \
        or (finished_at is null) <> (json_extract(data, '$.finished_at') is null) \
        or (kill_requested_at is null) <> (json_extract(data, '$.kill') is null)) \
     union all select run_id, 'step ' || id from steps where run_id in wanted and ( \
        id is not json_extract(data, '$.id') or status is not json_extract(data, '$.status') or pool is not json_extract(data, '$.pool') \
        or bound_to is not json_extract(data, '$.bound_to') or (claimable_at is null) <> (json_extract(data, '$.claimable_at') is null)) \
     union all select run_id, 'attempt ' || step || '.' || n from attempts where run_id in wanted and ( \
        step is not json_extract(data, '$.step') or n is not json_extract(data, '$.n') or status is not json_extract(data, '$.status') \
        or executor is not json_extract(data, '$.executor') or (finished_at is null) <> (json_extract(data, '$.finished_at') is null)) \
     union all select id, 'slots' from runs r where id in wanted and (select count(*) from run_slots w where w.run_id = r.id and w.held = 1) \
        <> case when finished_at is null then \
            (select count(*) from json_each(r.data, '$.slots') s where json_extract(s.value, '$.held')) else 0 end";
pub(super) const KEYS: &str = "select namespace, key, run_id, exists (select 1 from runs r where r.id = k.run_id and r.namespace = k.namespace) \
     from keys k where (namespace, key) > (?1, ?2) order by namespace, key limit ?3";
pub(super) const RECEIPTS: &str = "select data, time_ns from receipts where (seq, time_ns) > (?1, ?2) order by seq, time_ns limit ?3";
pub(super) const RECEIPT_NUMBERS: &str = "select distinct seq from receipts where seq >= ?1 and seq <= ?2 and time_ns >= ?3 order by seq";
pub(super) const FIRST_RECEIPT: &str = "select seq from receipts where time_ns >= ?1 order by seq limit 1";
pub(super) const OVERDUE: &str = "select run_id, kind, at from due where at < ?1 order by at, run_id limit ?2";
pub(super) const CROWDED: &str =
    "select key, count(*), max(max) from run_slots where held = 1 group by key having count(*) > max(max) order by key limit ?1";
pub(super) const INVENTORY: &str = "select * from workspaces where id > ?1 and status <> 'removed' order by id limit ?2";
pub(super) const INVENTORY_OF: &str = "select * from workspaces where id in (select value from json_each(?1)) order by id";

/// All events of runs, in order.
fn events_of(connection: &Connection, list: &str) -> Result<HashMap<RunId, Vec<Event>>> {
    let pages: Vec<(Uuid, String)> = rows(connection, PAGES, [list])?;
    let mut events: HashMap<RunId, Vec<Event>> = HashMap::new();
    for (id, page) in pages {
        let mut page: Vec<Event> = decode(format_args!("page of events of run {id}"), &page)?;
        events.entry(RunId::from_uuid(id)).or_default().append(&mut page);
    }
    Ok(events)
}

fn runs(ids: Vec<Uuid>) -> Vec<RunId> {
    ids.into_iter().map(RunId::from_uuid).collect()
}

#[async_trait]
impl AuditReader for Reads {
    async fn runs_from(&self, from: RunId, limit: u32) -> Result<Vec<RunId>> {
        let params = (from.as_uuid(), limit);
        Ok(runs(self.pool().read(move |connection| values(connection, RUNS_FROM, params)).await?))
    }

    async fn open_runs(&self, from: RunId, to: RunId, limit: u32) -> Result<Vec<RunId>> {
        let params = (from.as_uuid(), to.as_uuid(), limit);
        Ok(runs(self.pool().read(move |connection| values(connection, OPEN_RUNS, params)).await?))
    }

    async fn touched(&self, behind: &Touch, limit: u32) -> Result<Vec<Touch>> {
        let params = (micros(behind.at), behind.run.as_uuid(), signed(behind.first_seq), limit);
        let rows: Vec<(i64, Uuid, i64)> = self.pool().read(move |connection| rows(connection, TOUCHED, params)).await?;
        let read =
            |(at, run, first): (i64, Uuid, i64)| Ok(Touch { at: instant(at)?, run: RunId::from_uuid(run), first_seq: unsigned(first)? });
        rows.into_iter().map(read).collect()
    }

    async fn histories(&self, ids: &[RunId]) -> Result<Histories> {
        let (plans, ids) = (self.plans().clone(), ids.to_owned());
        self.pool()
            .snapshot(move |connection| {
                let list = id_list(&ids);
                let states = reading::states(connection, &plans, &ids)?;
                // The snapshot was taken by the first statement: what it holds was true at some moment before this one.
                let now = Utc::now();
                let mut events = events_of(connection, &list)?;
                let differing: Vec<(Uuid, String)> = rows(connection, DIFFERING, [&list])?;
                let with_events = |state: hopyard_contract::run::RunState| {
                    let events = events.remove(&state.run.id).unwrap_or_default();
                    (state, events)
                };
                Ok(Histories {
                    now,
                    runs: states.into_iter().map(with_events).collect(),
                    differing: differing.into_iter().map(|(id, row)| (RunId::from_uuid(id), row)).collect(),
                })
            })
            .await
    }

    async fn keys(&self, behind: Option<(&Name, &str)>, limit: u32) -> Result<Vec<AuditedKey>> {
        let (namespace, key) = behind.map_or(("", ""), |(namespace, key)| (namespace.as_str(), key));
        let params = (namespace.to_owned(), key.to_owned(), limit);
        let rows: Vec<(String, String, Uuid, bool)> = self.pool().read(move |connection| rows(connection, KEYS, params)).await?;
        let read = |(namespace, key, run, known): (String, String, Uuid, bool)| {
            Ok(AuditedKey { namespace: word(&namespace)?, key, run: RunId::from_uuid(run), known })
        };
        rows.into_iter().map(read).collect()
    }

    async fn receipts(&self, behind: (u64, i64), limit: u32) -> Result<Vec<(Receipt, i64)>> {
        let params = (signed(behind.0), behind.1, limit);
        let rows: Vec<(String, i64)> = self.pool().read(move |connection| rows(connection, RECEIPTS, params)).await?;
        rows.into_iter().map(|(data, time)| Ok((decode("receipt", &data)?, time))).collect()
    }

    async fn receipt_numbers(&self, from: u64, to: u64, since_ns: i64) -> Result<Vec<u64>> {
        let params = (signed(from), signed(to), since_ns);
        let rows: Vec<i64> = self.pool().read(move |connection| values(connection, RECEIPT_NUMBERS, params)).await?;
        rows.into_iter().map(unsigned).collect()
    }

    async fn first_receipt(&self, since_ns: i64) -> Result<Option<u64>> {
        let params = (since_ns,);
        let first: Option<i64> = self.pool().read(move |connection| value(connection, FIRST_RECEIPT, params)).await?;
        first.map(unsigned).transpose()
    }

    async fn overdue(&self, before: DateTime<Utc>, limit: u32) -> Result<Vec<Overdue>> {
        let params = (micros(before), limit);
        let rows: Vec<(Uuid, String, i64)> = self.pool().read(move |connection| rows(connection, OVERDUE, params)).await?;
        rows.into_iter().map(|(run, kind, at)| Ok(Overdue { run: RunId::from_uuid(run), kind, at: instant(at)? })).collect()
    }

    async fn crowded_slots(&self, limit: u32) -> Result<Vec<CrowdedSlot>> {
        let params = (limit,);
        let rows: Vec<(String, i64, i64)> = self.pool().read(move |connection| rows(connection, CROWDED, params)).await?;
        let read = |(key, holders, limit)| Ok(CrowdedSlot { key, holders: unsigned(holders)?, limit: unsigned(limit)? });
        rows.into_iter().map(read).collect()
    }

    async fn inventory(&self, behind: &str, limit: u32) -> Result<Vec<WorkspaceRow>> {
        let params = (behind.to_owned(), limit);
        let rows: Vec<WorkspaceRecord> = self.pool().read(move |connection| rows(connection, INVENTORY, params)).await?;
        rows.into_iter().map(WorkspaceRecord::read).collect()
    }

    async fn inventory_of(&self, ids: &[String]) -> Result<Vec<WorkspaceRow>> {
        let params = (encode("workspace ids", ids)?,);
        let rows: Vec<WorkspaceRecord> = self.pool().read(move |connection| rows(connection, INVENTORY_OF, params)).await?;
        rows.into_iter().map(WorkspaceRecord::read).collect()
    }
}
