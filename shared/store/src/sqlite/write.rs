//! Applies what was decided: prepared statements row by row, which SQLite runs in process.

use hopyard_contract::run::{Attempt, Run, StepState, WorkspaceRow};
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use sqlx::SqliteConnection;

use super::fault::fault;
use super::rows::{encode, id_list, micros, signed};
use super::transaction::Transaction;
use crate::runs::{ExecutorRow, RunWrite, Writes};
use crate::{Error, Result};

pub(super) const INSERT_RUN: &str = "insert into runs (id, namespace, workflow, status, pending_reason, paused_reason, failure_code, priority, session, repo_url, commit_id, \
     executor, generation, kill_requested_at, created_at, started_at, finished_at, cost_microusd, tokens_input, tokens_output, \
     tokens_cache_read, tokens_cache_write, turns, tool_calls, event_seq, labels, data) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)";
pub(super) const UPDATE_RUN: &str = "update runs set namespace = ?2, workflow = ?3, status = ?4, pending_reason = ?5, paused_reason = ?6, failure_code = ?7, priority = ?8, \
     session = ?9, repo_url = ?10, commit_id = ?11, executor = ?12, generation = ?13, kill_requested_at = ?14, created_at = ?15, \
     started_at = ?16, finished_at = ?17, cost_microusd = ?18, tokens_input = ?19, tokens_output = ?20, tokens_cache_read = ?21, \
     tokens_cache_write = ?22, turns = ?23, tool_calls = ?24, event_seq = ?25, labels = ?26, data = ?27 where id = ?1";
pub(super) const UPSERT_STEP: &str = "insert into steps (run_id, idx, id, status, pool, bound_to, priority, claimable_at, queued_at, started_at, finished_at, data) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) on conflict (run_id, idx) do update set status = excluded.status, \
     pool = excluded.pool, bound_to = excluded.bound_to, priority = excluded.priority, claimable_at = excluded.claimable_at, queued_at = excluded.queued_at, \
     started_at = excluded.started_at, finished_at = excluded.finished_at, data = excluded.data";
pub(super) const UPSERT_ATTEMPT: &str = "insert into attempts (run_id, step, n, status, executor, claim_id, lease_until, started_at, finished_at, data) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) on conflict (run_id, step, n) do update set status = excluded.status, \
     executor = excluded.executor, claim_id = excluded.claim_id, lease_until = excluded.lease_until, started_at = excluded.started_at, \
     finished_at = excluded.finished_at, data = excluded.data";
pub(super) const INSERT_EVENTS: &str = "insert into events (run_id, first_seq, last_seq, at, page) values (?1, ?2, ?3, ?4, ?5)";
pub(super) const HAS_ENDED: &str = "select finished_at is not null from runs where id = ?1";
pub(super) const UPSERT_SLOT: &str = "insert into run_slots (run_id, key, max, held) values (?1, ?2, ?3, ?4) \
     on conflict (run_id, key) do update set max = excluded.max, held = excluded.held";
pub(super) const UPSERT_DUE: &str =
    "insert into due (run_id, kind, at) values (?1, 'timer', ?2) on conflict (run_id, kind) do update set at = excluded.at";
pub(super) const POKE: &str = "insert into due (run_id, kind, at) select id, 'poke', ?2 from runs where id in (select unhex(value) from json_each(?1)) \
     on conflict (run_id, kind) do update set at = min(at, excluded.at)";
pub(super) const POKE_CHILDREN: &str = "insert into due (run_id, kind, at) select child, 'poke', ?2 from run_after where parent = ?1 \
     on conflict (run_id, kind) do update set at = min(at, excluded.at)";
pub(super) const POKED: &str = "delete from due where run_id in (select unhex(value) from json_each(?1)) and kind = 'poke'";
pub(super) const DROP_TIMER: &str = "delete from due where run_id = ?1 and kind = 'timer'";
pub(super) const DROP_SLOTS: &str = "delete from run_slots where run_id = ?1";
pub(super) const DROP_CHILDREN: &str = "delete from run_after where parent = ?1";
pub(super) const DROP_PARENTS: &str = "delete from run_after where child = ?1";
pub(super) const PUBLISHED: &str = "delete from outbox where id in (select value from json_each(?1))";

/// Writes everything in the order that its parts need: pokes that were dealt with go before new ones come.
pub(super) async fn apply(transaction: &mut Transaction, writes: &Writes) -> Result<()> {
    let now = transaction.shared.clock.now()?;
    let at = micros(now);
    let connection: &mut SqliteConnection = &mut transaction.inner;
    if transaction.mark.is_none() && transaction.shared.clock.mark_is_old(now) {
        sqlx::query("update clock set high = max(high, ?1) where id = 1").bind(at).execute(&mut *connection).await.map_err(fault)?;
        transaction.mark = Some(at);
    }
    if !writes.poked.is_empty() {
        sqlx::query(POKED).bind(id_list(&writes.poked)).execute(&mut *connection).await.map_err(fault)?;
    }
    for run in &writes.runs {
        write_run(connection, run, at).await?;
    }
    if !writes.pokes.is_empty() {
        sqlx::query(POKE).bind(id_list(&writes.pokes)).bind(at).execute(&mut *connection).await.map_err(fault)?;
    }
    for (receipt, time_ns) in &writes.receipts {
        write_receipt(connection, receipt, *time_ns).await?;
    }
    for (namespace, key, row) in &writes.keys {
        sqlx::query("insert into keys (namespace, key, run_id, request_hash, at) values (?1, ?2, ?3, ?4, ?5)")
            .bind(namespace.as_str())
            .bind(key)
            .bind(row.run.as_uuid())
            .bind(&row.request_hash)
            .bind(at)
            .execute(&mut *connection)
            .await
            .map_err(fault)?;
    }
    for (id, kill) in &writes.tombstones {
        sqlx::query("insert into tombstones (run_id, at, data) values (?1, ?2, ?3) on conflict (run_id) do nothing")
            .bind(id.as_uuid())
            .bind(at)
            .bind(encode("the kill request", kill)?)
            .execute(&mut *connection)
            .await
            .map_err(fault)?;
    }
    for (id, run) in &writes.aliases {
        sqlx::query("insert into aliases (id, run_id) values (?1, ?2) on conflict (id) do nothing")
            .bind(id.as_uuid())
            .bind(run.as_uuid())
            .execute(&mut *connection)
            .await
            .map_err(fault)?;
    }
    for executor in &writes.executors {
        write_executor(connection, executor).await?;
    }
    for workspace in &writes.workspaces {
        write_workspace(connection, workspace).await?;
    }
    for (key, more) in &writes.budgets {
        sqlx::query(
            "insert into budgets (key, spent_microusd, open_microusd) values (?1, ?2, ?3) on conflict (key) do update set \
             spent_microusd = spent_microusd + excluded.spent_microusd, open_microusd = open_microusd + excluded.open_microusd",
        )
        .bind(key)
        .bind(more.spent)
        .bind(more.open)
        .execute(&mut *connection)
        .await
        .map_err(fault)?;
    }
    if !writes.outbox.is_empty() {
        sqlx::query("insert into outbox (id, at, messages) values (?1, ?2, ?3)")
            .bind(writes.outbox_id)
            .bind(at)
            .bind(encode("the outbox", &writes.outbox)?)
            .execute(&mut *connection)
            .await
            .map_err(fault)?;
    }
    if !writes.published.is_empty() {
        sqlx::query(PUBLISHED).bind(encode("outbox ids", &writes.published)?).execute(&mut *connection).await.map_err(fault)?;
    }
    Ok(())
}

async fn write_run(connection: &mut SqliteConnection, write: &RunWrite, at: i64) -> Result<()> {
    let run = &write.run;
    let id = run.id.as_uuid();
    let had_ended = if write.new {
        false
    } else {
        let found: Option<bool> = sqlx::query_scalar(HAS_ENDED).bind(id).fetch_optional(&mut *connection).await.map_err(fault)?;
        found.ok_or_else(|| Error::Refused(format!("run {id} is changed but does not exist")))?
    };
    write_run_row(connection, run, write.new).await?;
    for (idx, step) in &write.steps {
        write_step(connection, run, *idx, step).await?;
    }
    for attempt in &write.attempts {
        write_attempt(connection, run.id, attempt).await?;
    }
    if let (Some(first), Some(last)) = (write.events.first(), write.events.last()) {
        if let Some(stray) = write.events.iter().find(|e| e.run_id != run.id) {
            return Err(Error::Refused(format!("event {} is not of run {id}", stray.id)));
        }
        if write.events.windows(2).any(|pair| pair[1].seq != pair[0].seq + 1) {
            return Err(Error::Refused(format!("events of run {id} are numbered without gaps")));
        }
        sqlx::query(INSERT_EVENTS)
            .bind(id)
            .bind(signed(first.seq))
            .bind(signed(last.seq))
            .bind(micros(last.at))
            .bind(encode("the events", &write.events)?)
            .execute(&mut *connection)
            .await
            .map_err(fault)?;
    }
    if run.finished_at.is_some() {
        if !had_ended {
            end_run(connection, run, write.new, at).await?;
        }
    } else {
        write_open_run(connection, run, write.new).await?;
    }
    match write.timer {
        None => {}
        Some(None) => {
            sqlx::query(DROP_TIMER).bind(id).execute(&mut *connection).await.map_err(fault)?;
        }
        Some(Some(timer)) => {
            sqlx::query(UPSERT_DUE).bind(id).bind(micros(timer)).execute(&mut *connection).await.map_err(fault)?;
        }
    }
    Ok(())
}

/// The parts of a run that only exist until it ends.
async fn write_open_run(connection: &mut SqliteConnection, run: &Run, new: bool) -> Result<()> {
    for slot in &run.slots {
        sqlx::query(UPSERT_SLOT)
            .bind(run.id.as_uuid())
            .bind(&slot.key)
            .bind(slot.limit)
            .bind(slot.held)
            .execute(&mut *connection)
            .await
            .map_err(fault)?;
    }
    if new {
        for parent in &run.after_open {
            sqlx::query("insert into run_after (parent, child) values (?1, ?2) on conflict (parent, child) do nothing")
                .bind(parent.as_uuid())
                .bind(run.id.as_uuid())
                .execute(&mut *connection)
                .await
                .map_err(fault)?;
        }
    }
    Ok(())
}

/// What follows from the end of a run, once.
async fn end_run(connection: &mut SqliteConnection, run: &Run, new: bool, at: i64) -> Result<()> {
    let id = run.id.as_uuid();
    sqlx::query(POKE_CHILDREN).bind(id).bind(at).execute(&mut *connection).await.map_err(fault)?;
    sqlx::query(DROP_CHILDREN).bind(id).execute(&mut *connection).await.map_err(fault)?;
    if new {
        return Ok(());
    }
    sqlx::query(DROP_TIMER).bind(id).execute(&mut *connection).await.map_err(fault)?;
    if !run.slots.is_empty() {
        sqlx::query(DROP_SLOTS).bind(id).execute(&mut *connection).await.map_err(fault)?;
    }
    if !run.after.is_empty() {
        sqlx::query(DROP_PARENTS).bind(id).execute(&mut *connection).await.map_err(fault)?;
    }
    Ok(())
}

async fn write_run_row(connection: &mut SqliteConnection, run: &Run, new: bool) -> Result<()> {
    let usage = &run.usage;
    sqlx::query(if new { INSERT_RUN } else { UPDATE_RUN })
        .bind(run.id.as_uuid())
        .bind(run.namespace.as_str())
        .bind(run.workflow.as_str())
        .bind(run.status.as_str())
        .bind(run.pending_reason.map(|r| r.as_str()))
        .bind(run.paused_reason.map(|r| r.as_str()))
        .bind(run.failure_code.map(|c| c.as_str()))
        .bind(run.priority)
        .bind(run.session.as_ref().map(Name::as_str))
        .bind(run.repo.as_ref().map(|r| r.url.as_str()))
        .bind(run.commit.as_deref())
        .bind(run.executor.as_ref().map(Name::as_str))
        .bind(run.generation)
        .bind(run.kill.as_ref().map(|k| micros(k.at)))
        .bind(micros(run.created_at))
        .bind(run.started_at.map(micros))
        .bind(run.finished_at.map(micros))
        .bind(usage.cost_microusd.map(signed))
        .bind(signed(usage.tokens.input))
        .bind(signed(usage.tokens.output))
        .bind(signed(usage.tokens.cache_read))
        .bind(signed(usage.tokens.cache_write))
        .bind(signed(usage.turns))
        .bind(signed(usage.tool_calls))
        .bind(signed(run.event_seq))
        .bind(encode("the labels", &run.labels)?)
        .bind(encode("the run", run)?)
        .execute(connection)
        .await
        .map_err(fault)?;
    Ok(())
}

async fn write_step(connection: &mut SqliteConnection, run: &Run, idx: u32, step: &StepState) -> Result<()> {
    sqlx::query(UPSERT_STEP)
        .bind(run.id.as_uuid())
        .bind(idx)
        .bind(step.id.as_str())
        .bind(step.status.as_str())
        .bind(step.pool.as_str())
        .bind(step.bound_to.as_ref().map(Name::as_str))
        .bind(run.priority)
        .bind(step.claimable_at.map(micros))
        .bind(step.queued_at.map(micros))
        .bind(step.started_at.map(micros))
        .bind(step.finished_at.map(micros))
        .bind(encode("the step", step)?)
        .execute(connection)
        .await
        .map_err(fault)?;
    Ok(())
}

async fn write_attempt(connection: &mut SqliteConnection, run: RunId, attempt: &Attempt) -> Result<()> {
    sqlx::query(UPSERT_ATTEMPT)
        .bind(run.as_uuid())
        .bind(attempt.step.as_str())
        .bind(attempt.n)
        .bind(attempt.status.as_str())
        .bind(attempt.executor.as_str())
        .bind(attempt.claim_id)
        .bind(micros(attempt.lease_until))
        .bind(attempt.started_at.map(micros))
        .bind(attempt.finished_at.map(micros))
        .bind(encode("the attempt", attempt)?)
        .execute(connection)
        .await
        .map_err(fault)?;
    Ok(())
}

async fn write_receipt(connection: &mut SqliteConnection, receipt: &Receipt, time_ns: i64) -> Result<()> {
    let seq = receipt.seq.ok_or_else(|| Error::Refused(format!("receipt {} has no sequence of the command stream", receipt.id)))?;
    // A redelivered message regenerates the same receipt.
    sqlx::query("insert into receipts (seq, time_ns, namespace, data) values (?1, ?2, ?3, ?4) on conflict (seq, time_ns) do nothing")
        .bind(signed(seq))
        .bind(time_ns)
        .bind(receipt.namespace.as_str())
        .bind(encode("the receipt", receipt)?)
        .execute(connection)
        .await
        .map_err(fault)?;
    Ok(())
}

async fn write_executor(connection: &mut SqliteConnection, executor: &ExecutorRow) -> Result<()> {
    sqlx::query(
        "insert into executors (id, host, pool, slots, version, draining, seen_at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         on conflict (id) do update set host = excluded.host, pool = excluded.pool, slots = excluded.slots, version = excluded.version, \
         draining = excluded.draining, seen_at = excluded.seen_at",
    )
    .bind(executor.id.as_str())
    .bind(executor.host.as_str())
    .bind(executor.pool.as_str())
    .bind(executor.slots)
    .bind(&executor.version)
    .bind(executor.draining)
    .bind(micros(executor.seen_at))
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}

async fn write_workspace(connection: &mut SqliteConnection, workspace: &WorkspaceRow) -> Result<()> {
    sqlx::query(
        "insert into workspaces (id, run_id, namespace, generation, executor, host, path, repo, session, status, created_at, removed_at, bytes) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
         on conflict (id) do update set run_id = excluded.run_id, namespace = excluded.namespace, generation = excluded.generation, \
         executor = excluded.executor, host = excluded.host, path = excluded.path, repo = excluded.repo, session = excluded.session, \
         status = excluded.status, created_at = excluded.created_at, removed_at = excluded.removed_at, bytes = excluded.bytes",
    )
    .bind(&workspace.id)
    .bind(workspace.run_id.as_uuid())
    .bind(workspace.namespace.as_str())
    .bind(workspace.generation)
    .bind(workspace.executor.as_str())
    .bind(workspace.host.as_str())
    .bind(&workspace.path)
    .bind(workspace.repo.as_deref())
    .bind(workspace.session.as_ref().map(Name::as_str))
    .bind(workspace.status.as_str())
    .bind(micros(workspace.created_at))
    .bind(workspace.removed_at.map(micros))
    .bind(workspace.bytes.map(signed))
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}
