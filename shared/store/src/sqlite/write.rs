//! Applies what was decided: prepared statements row by row, which SQLite runs in process.

use hopyard_contract::event::Event;
use hopyard_contract::run::{Attempt, Run, StepState, WorkspaceRow};
use hopyard_contract::status::RunStatus;
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::rows::{encode, id_list, micros, signed, word};
use super::statement::{execute, value, values};
use super::transaction::Transaction;
use crate::runs::{ExecutorRow, RunWrite, Writes};
use crate::{Error, Result};

pub(super) const INSERT_RUN: &str = "insert into runs (id, namespace, workflow, status, pending_reason, paused_reason, failure_code, priority, session, repo_url, commit_id, \
     executor, generation, kill_requested_at, created_at, started_at, finished_at, cost_microusd, tokens_input, tokens_output, \
     tokens_cache_read, tokens_cache_write, turns, tool_calls, event_seq, labels, data) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)";
// SQLite writes the entries of every index anew that names a column which is set, changed or not: so a status is only set when
// it changes, and what never changes is not set at all. The parameters are those of `INSERT_RUN`; some are left out.
pub(super) const UPDATE_RUN: &str = "update runs set pending_reason = ?5, paused_reason = ?6, priority = ?8, commit_id = ?11, executor = ?12, generation = ?13, \
     kill_requested_at = ?14, started_at = ?16, cost_microusd = ?18, tokens_input = ?19, tokens_output = ?20, tokens_cache_read = ?21, \
     tokens_cache_write = ?22, turns = ?23, tool_calls = ?24, event_seq = ?25, data = ?27 where id = ?1";
pub(super) const MOVE_RUN: &str = "update runs set status = ?4, pending_reason = ?5, paused_reason = ?6, failure_code = ?7, priority = ?8, commit_id = ?11, \
     executor = ?12, generation = ?13, kill_requested_at = ?14, started_at = ?16, finished_at = ?17, cost_microusd = ?18, tokens_input = ?19, \
     tokens_output = ?20, tokens_cache_read = ?21, tokens_cache_write = ?22, turns = ?23, tool_calls = ?24, event_seq = ?25, data = ?27 where id = ?1";
pub(super) const INSERT_STEP: &str = "insert into steps (run_id, idx, id, status, pool, bound_to, priority, claimable_at, queued_at, started_at, finished_at, data) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
pub(super) const UPDATE_STEP: &str = "update steps set status = ?4, pool = ?5, bound_to = ?6, priority = ?7, claimable_at = ?8, queued_at = ?9, started_at = ?10, \
     finished_at = ?11, data = ?12 where run_id = ?1 and idx = ?2 and id = ?3";
pub(super) const UPSERT_ATTEMPT: &str = "insert into attempts (run_id, step, n, status, executor, claim_id, lease_until, started_at, finished_at, data) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) on conflict (run_id, step, n) do update set status = excluded.status, \
     executor = excluded.executor, claim_id = excluded.claim_id, lease_until = excluded.lease_until, started_at = excluded.started_at, \
     finished_at = excluded.finished_at, data = excluded.data";
pub(super) const INSERT_EVENTS: &str = "insert into events (run_id, first_seq, last_seq, at, page) values (?1, ?2, ?3, ?4, ?5)";
pub(super) const STATUS: &str = "select status from runs where id = ?1";
pub(super) const UPSERT_SLOT: &str = "insert into run_slots (run_id, key, max, held) values (?1, ?2, ?3, ?4) \
     on conflict (run_id, key) do update set max = excluded.max, held = excluded.held";
pub(super) const UPSERT_DUE: &str =
    "insert into due (run_id, kind, at) values (?1, 'timer', ?2) on conflict (run_id, kind) do update set at = excluded.at";
pub(super) const POKE: &str = "insert into due (run_id, kind, at) select id, 'poke', ?2 from runs where id in (select unhex(value) from json_each(?1)) \
     on conflict (run_id, kind) do update set at = min(at, excluded.at)";
pub(super) const CHILDREN: &str =
    "select distinct child from run_after where parent in (select unhex(value) from json_each(?1)) order by child";
pub(super) const POKED: &str = "delete from due where run_id in (select unhex(value) from json_each(?1)) and kind = 'poke'";
pub(super) const DROP_TIMER: &str = "delete from due where run_id = ?1 and kind = 'timer'";
pub(super) const DROP_SLOTS: &str = "delete from run_slots where run_id = ?1";
pub(super) const DROP_CHILDREN: &str = "delete from run_after where parent in (select unhex(value) from json_each(?1))";
pub(super) const DROP_PARENTS: &str = "delete from run_after where child = ?1";
pub(super) const UPSERT_WORKSPACE: &str = "insert into workspaces (id, run_id, namespace, generation, executor, host, path, repo, session, status, created_at, removed_at, bytes) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
     on conflict (id) do update set run_id = excluded.run_id, namespace = excluded.namespace, generation = excluded.generation, \
     executor = excluded.executor, host = excluded.host, path = excluded.path, repo = excluded.repo, session = excluded.session, \
     status = excluded.status, created_at = excluded.created_at, removed_at = excluded.removed_at, bytes = excluded.bytes";
pub(super) const PUBLISHED: &str = "delete from outbox where id in (select value from json_each(?1))";

/// Writes everything in the order that its parts need: pokes that were dealt with go before new ones come.
pub(super) fn apply(transaction: &mut Transaction, writes: &Writes) -> Result<()> {
    let now = transaction.shared.clock.now()?;
    let at = micros(now);
    let connection: &Connection = &transaction.connection;
    if transaction.mark.is_none() && transaction.shared.clock.mark_is_old(now) {
        execute(connection, "update clock set high = max(high, ?1) where id = 1", params![at])?;
        transaction.mark = Some(at);
    }
    if !writes.poked.is_empty() {
        execute(connection, POKED, params![id_list(&writes.poked)])?;
    }
    let mut ended = Vec::new();
    for run in &writes.runs {
        if write_run(connection, run)? {
            ended.push(run.run.id);
        }
    }
    let mut pokes = writes.pokes.clone();
    if !ended.is_empty() {
        pokes.extend(let_children_go(connection, &ended)?);
    }
    if !pokes.is_empty() {
        execute(connection, POKE, params![id_list(&pokes), at])?;
    }
    for (receipt, time_ns) in &writes.receipts {
        write_receipt(connection, receipt, *time_ns)?;
    }
    for (namespace, key, row) in &writes.keys {
        execute(
            connection,
            "insert into keys (namespace, key, run_id, request_hash, at) values (?1, ?2, ?3, ?4, ?5)",
            params![namespace.as_str(), key, row.run.as_uuid(), &row.request_hash, at],
        )?;
    }
    for (id, kill) in &writes.tombstones {
        execute(
            connection,
            "insert into tombstones (run_id, at, data) values (?1, ?2, ?3) on conflict (run_id) do nothing",
            params![id.as_uuid(), at, encode("the kill request", kill)?],
        )?;
    }
    for (id, run) in &writes.aliases {
        execute(
            connection,
            "insert into aliases (id, run_id) values (?1, ?2) on conflict (id) do nothing",
            params![id.as_uuid(), run.as_uuid()],
        )?;
    }
    for executor in &writes.executors {
        write_executor(connection, executor)?;
    }
    for workspace in &writes.workspaces {
        write_workspace(connection, workspace)?;
    }
    for (key, more) in &writes.budgets {
        execute(
            connection,
            "insert into budgets (key, spent_microusd, open_microusd) values (?1, ?2, ?3) on conflict (key) do update set \
             spent_microusd = spent_microusd + excluded.spent_microusd, open_microusd = open_microusd + excluded.open_microusd",
            params![key, more.spent, more.open],
        )?;
    }
    if !writes.outbox.is_empty() {
        execute(
            connection,
            "insert into outbox (id, at, messages) values (?1, ?2, ?3)",
            params![writes.outbox_id, at, encode("the outbox", &writes.outbox)?],
        )?;
    }
    if !writes.published.is_empty() {
        execute(connection, PUBLISHED, params![encode("outbox ids", &writes.published)?])?;
    }
    Ok(())
}

/// Writes a run with everything below it; says whether it has ended with that.
fn write_run(connection: &Connection, write: &RunWrite) -> Result<bool> {
    let run = &write.run;
    let id = run.id.as_uuid();
    let ends = if write.new {
        write_run_row(connection, INSERT_RUN, run)?;
        run.status.is_final()
    } else {
        let before: Option<String> = value(connection, STATUS, params![id])?;
        let before: RunStatus = word(&before.ok_or_else(|| Error::Refused(format!("run {id} is changed but does not exist")))?)?;
        write_run_row(connection, if run.status == before { UPDATE_RUN } else { MOVE_RUN }, run)?;
        run.status.is_final() && !before.is_final()
    };
    for (idx, step) in &write.steps {
        write_step(connection, run, *idx, step, write.new)?;
    }
    for attempt in &write.attempts {
        write_attempt(connection, run.id, attempt)?;
    }
    write_events(connection, run.id, &write.events)?;
    if !run.status.is_final() {
        write_open_run(connection, run, write.new)?;
    } else if ends && !write.new {
        end_run(connection, run)?;
    }
    match write.timer {
        Some(Some(timer)) => execute(connection, UPSERT_DUE, params![id, micros(timer)])?,
        Some(None) => execute(connection, DROP_TIMER, params![id])?,
        None if ends && !write.new => execute(connection, DROP_TIMER, params![id])?,
        None => 0,
    };
    Ok(ends)
}

/// Writes the events that one transaction made of a run, as a page.
fn write_events(connection: &Connection, run: RunId, events: &[Event]) -> Result<()> {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
    if let Some(stray) = events.iter().find(|e| e.run_id != run) {
        return Err(Error::Refused(format!("event {} is not of run {run}", stray.id)));
    }
    if events.windows(2).any(|pair| pair[1].seq != pair[0].seq + 1) {
        return Err(Error::Refused(format!("events of run {run} are numbered without gaps")));
    }
    let page = encode("the events", events)?;
    execute(connection, INSERT_EVENTS, params![run.as_uuid(), signed(first.seq), signed(last.seq), micros(last.at), page])?;
    Ok(())
}

/// The parts of a run that only exist until it ends.
fn write_open_run(connection: &Connection, run: &Run, new: bool) -> Result<()> {
    for slot in &run.slots {
        execute(connection, UPSERT_SLOT, params![run.id.as_uuid(), &slot.key, slot.limit, slot.held])?;
    }
    if new {
        for parent in &run.after_open {
            execute(
                connection,
                "insert into run_after (parent, child) values (?1, ?2) on conflict (parent, child) do nothing",
                params![parent.as_uuid(), run.id.as_uuid()],
            )?;
        }
    }
    Ok(())
}

/// What a run has no more once it has ended.
fn end_run(connection: &Connection, run: &Run) -> Result<()> {
    if !run.slots.is_empty() {
        execute(connection, DROP_SLOTS, params![run.id.as_uuid()])?;
    }
    if !run.after.is_empty() {
        execute(connection, DROP_PARENTS, params![run.id.as_uuid()])?;
    }
    Ok(())
}

/// Nobody waits any longer for runs that have ended; returns who did.
fn let_children_go(connection: &Connection, ended: &[RunId]) -> Result<Vec<RunId>> {
    let ended = id_list(ended);
    let children: Vec<Uuid> = values(connection, CHILDREN, [&ended])?;
    if !children.is_empty() {
        execute(connection, DROP_CHILDREN, [&ended])?;
    }
    Ok(children.into_iter().map(RunId::from_uuid).collect())
}

fn write_run_row(connection: &Connection, statement: &str, run: &Run) -> Result<()> {
    let usage = &run.usage;
    execute(
        connection,
        statement,
        params![
            run.id.as_uuid(),
            run.namespace.as_str(),
            run.workflow.as_str(),
            run.status.as_str(),
            run.pending_reason.map(|r| r.as_str()),
            run.paused_reason.map(|r| r.as_str()),
            run.failure_code.map(|c| c.as_str()),
            run.priority,
            run.session.as_ref().map(Name::as_str),
            run.repo.as_ref().map(|r| r.url.as_str()),
            run.commit.as_deref(),
            run.executor.as_ref().map(Name::as_str),
            run.generation,
            run.kill.as_ref().map(|k| micros(k.at)),
            micros(run.created_at),
            run.started_at.map(micros),
            run.finished_at.map(micros),
            usage.cost_microusd.map(signed),
            signed(usage.tokens.input),
            signed(usage.tokens.output),
            signed(usage.tokens.cache_read),
            signed(usage.tokens.cache_write),
            signed(usage.turns),
            signed(usage.tool_calls),
            signed(run.event_seq),
            encode("the labels", &run.labels)?,
            encode("the run", run)?
        ],
    )?;
    Ok(())
}

fn write_step(connection: &Connection, run: &Run, idx: u32, step: &StepState, new: bool) -> Result<()> {
    let written = execute(
        connection,
        if new { INSERT_STEP } else { UPDATE_STEP },
        params![
            run.id.as_uuid(),
            idx,
            step.id.as_str(),
            step.status.as_str(),
            step.pool.as_str(),
            step.bound_to.as_ref().map(Name::as_str),
            run.priority,
            step.claimable_at.map(micros),
            step.queued_at.map(micros),
            step.started_at.map(micros),
            step.finished_at.map(micros),
            encode("the step", step)?
        ],
    )?;
    if written == 0 {
        return Err(Error::Refused(format!("step {idx} of run {} is changed but does not exist", run.id)));
    }
    Ok(())
}

fn write_attempt(connection: &Connection, run: RunId, attempt: &Attempt) -> Result<()> {
    execute(
        connection,
        UPSERT_ATTEMPT,
        params![
            run.as_uuid(),
            attempt.step.as_str(),
            attempt.n,
            attempt.status.as_str(),
            attempt.executor.as_str(),
            attempt.claim_id,
            micros(attempt.lease_until),
            attempt.started_at.map(micros),
            attempt.finished_at.map(micros),
            encode("the attempt", attempt)?
        ],
    )?;
    Ok(())
}

fn write_receipt(connection: &Connection, receipt: &Receipt, time_ns: i64) -> Result<()> {
    let seq = receipt.seq.ok_or_else(|| Error::Refused(format!("receipt {} has no sequence of the command stream", receipt.id)))?;
    // A redelivered message regenerates the same receipt.
    execute(
        connection,
        "insert into receipts (seq, time_ns, namespace, data) values (?1, ?2, ?3, ?4) on conflict (seq, time_ns) do nothing",
        params![signed(seq), time_ns, receipt.namespace.as_str(), encode("the receipt", receipt)?],
    )?;
    Ok(())
}

fn write_executor(connection: &Connection, executor: &ExecutorRow) -> Result<()> {
    execute(
        connection,
        "insert into executors (id, host, pool, slots, version, draining, seen_at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         on conflict (id) do update set host = excluded.host, pool = excluded.pool, slots = excluded.slots, version = excluded.version, \
         draining = excluded.draining, seen_at = excluded.seen_at",
        params![
            executor.id.as_str(),
            executor.host.as_str(),
            executor.pool.as_str(),
            executor.slots,
            &executor.version,
            executor.draining,
            micros(executor.seen_at)
        ],
    )?;
    Ok(())
}

fn write_workspace(connection: &Connection, workspace: &WorkspaceRow) -> Result<()> {
    execute(
        connection,
        UPSERT_WORKSPACE,
        params![
            &workspace.id,
            workspace.run_id.as_uuid(),
            workspace.namespace.as_str(),
            workspace.generation,
            workspace.executor.as_str(),
            workspace.host.as_str(),
            &workspace.path,
            workspace.repo.as_deref(),
            workspace.session.as_ref().map(Name::as_str),
            workspace.status.as_str(),
            micros(workspace.created_at),
            workspace.removed_at.map(micros),
            workspace.bytes.map(signed)
        ],
    )?;
    Ok(())
}
