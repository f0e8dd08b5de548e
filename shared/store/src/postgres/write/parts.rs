//! Runs with their steps, attempts and events.

use hopyard_contract::Name;
use hopyard_contract::run::{Attempt, Run, StepState};
use sqlx::PgConnection;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use uuid::Uuid;

use super::{count, failure, statement, text};
use crate::runs::RunWrite;
use crate::{Error, Result};

pub(in crate::postgres) const INSERT_RUNS: &str = "\
     INSERT INTO hopyard_runs.runs (id, status, pending_reason, paused_reason, failure_code, priority, commit_id, executor, \
     generation, kill_requested_at, started_at, finished_at, cost_microusd, tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, turns, \
     tool_calls, event_seq, data, namespace, workflow, session, repo_url, created_at, labels) \
     SELECT id, status, pending_reason, paused_reason, failure_code, priority, commit_id, executor, generation, kill_requested_at, started_at, \
     finished_at, cost_microusd, tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, turns, tool_calls, event_seq, data::json, \
     namespace, workflow, session, repo_url, created_at, labels::jsonb \
     FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[], $8::text[], $9::bigint[], $10::timestamptz[], \
     $11::timestamptz[], $12::timestamptz[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], \
     $20::bigint[], $21::text[], $22::text[], $23::text[], $24::text[], $25::text[], $26::timestamptz[], $27::text[]) \
     AS n(id, status, pending_reason, paused_reason, failure_code, priority, commit_id, executor, generation, kill_requested_at, started_at, \
     finished_at, cost_microusd, tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, turns, tool_calls, event_seq, data, \
     namespace, workflow, session, repo_url, created_at, labels)";
/// No guard beyond the key: the row is locked, and a guard that names the predicate of a partial index makes a batch quadratic.
pub(in crate::postgres) const UPDATE_RUNS: &str = "\
     UPDATE hopyard_runs.runs r SET status = n.status, pending_reason = n.pending_reason, paused_reason = n.paused_reason, \
     failure_code = n.failure_code, priority = n.priority, commit_id = n.commit_id, executor = n.executor, generation = n.generation, \
     kill_requested_at = n.kill_requested_at, started_at = n.started_at, finished_at = n.finished_at, cost_microusd = n.cost_microusd, \
     tokens_input = n.tokens_input, tokens_output = n.tokens_output, tokens_cache_read = n.tokens_cache_read, \
     tokens_cache_write = n.tokens_cache_write, turns = n.turns, tool_calls = n.tool_calls, event_seq = n.event_seq, data = n.data::json \
     FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[], $8::text[], $9::bigint[], $10::timestamptz[], \
     $11::timestamptz[], $12::timestamptz[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], \
     $20::bigint[], $21::text[]) \
     AS n(id, status, pending_reason, paused_reason, failure_code, priority, commit_id, executor, generation, kill_requested_at, started_at, \
     finished_at, cost_microusd, tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, turns, tool_calls, event_seq, data) \
     WHERE r.id = n.id";
const INSERT_STEPS: &str = "INSERT INTO hopyard_runs.steps (run_id, idx, id, status, pool, bound_to, priority, claimable_at, queued_at, started_at, finished_at, data) \
     SELECT run_id, idx, id, status, pool, bound_to, priority, claimable_at, queued_at, started_at, finished_at, data::json \
     FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::timestamptz[], $9::timestamptz[], \
     $10::timestamptz[], $11::timestamptz[], $12::text[]) AS n(run_id, idx, id, status, pool, bound_to, priority, claimable_at, queued_at, started_at, finished_at, data)";
pub(in crate::postgres) const UPDATE_STEPS: &str = "\
     UPDATE hopyard_runs.steps s SET status = n.status, pool = n.pool, bound_to = n.bound_to, priority = n.priority, \
     claimable_at = n.claimable_at, queued_at = n.queued_at, started_at = n.started_at, finished_at = n.finished_at, data = n.data::json \
     FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::timestamptz[], $9::timestamptz[], \
     $10::timestamptz[], $11::timestamptz[], $12::text[]) AS n(run_id, idx, id, status, pool, bound_to, priority, claimable_at, queued_at, started_at, finished_at, data) \
     WHERE s.run_id = n.run_id AND s.idx = n.idx";
pub(in crate::postgres) const UPSERT_ATTEMPTS: &str = "\
     INSERT INTO hopyard_runs.attempts (run_id, step, n, status, executor, claim_id, lease_until, started_at, finished_at, data) \
     SELECT run_id, step, n, status, executor, claim_id, lease_until, started_at, finished_at, data::json \
     FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::uuid[], $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], \
     $10::text[]) AS a(run_id, step, n, status, executor, claim_id, lease_until, started_at, finished_at, data) \
     ON CONFLICT (run_id, step, n) DO UPDATE SET status = excluded.status, executor = excluded.executor, claim_id = excluded.claim_id, \
     lease_until = excluded.lease_until, started_at = excluded.started_at, finished_at = excluded.finished_at, data = excluded.data";
pub(in crate::postgres) const INSERT_EVENTS: &str = "\
     INSERT INTO hopyard_runs.events (run_id, first_seq, last_seq, at, page) SELECT run_id, first_seq, last_seq, at, page::json \
     FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::text[]) AS n(run_id, first_seq, last_seq, at, page)";

/// A statement that takes its parameters.
type Statement<'q> = Query<'q, sqlx::Postgres, PgArguments>;

/// One field of many rows, as a parameter.
pub(super) fn column<'a, R, T>(rows: &[&'a R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(|row| field(row)).collect()
}

/// Writes runs, sorted by id, with everything below them.
pub(super) async fn write(connection: &mut PgConnection, writes: &[&RunWrite]) -> Result<()> {
    let (new, changed): (Vec<&RunWrite>, Vec<&RunWrite>) = writes.iter().partition(|write| write.new);
    if !new.is_empty() {
        let runs: Vec<&Run> = new.iter().map(|write| &write.run).collect();
        let labels = runs.iter().map(|run| text(&run.labels)).collect::<Result<Vec<_>>>()?;
        bind_run(statement(INSERT_RUNS), &runs)?
            .bind(column(&runs, |r| r.namespace.as_str()))
            .bind(column(&runs, |r| r.workflow.as_str()))
            .bind(column(&runs, |r| r.session.as_ref().map(Name::as_str)))
            .bind(column(&runs, |r| r.repo.as_ref().map(|repo| repo.url.as_str())))
            .bind(column(&runs, |r| r.created_at))
            .bind(labels)
            .execute(&mut *connection)
            .await
            .map_err(failure)?;
    }
    if !changed.is_empty() {
        let runs: Vec<&Run> = changed.iter().map(|write| &write.run).collect();
        let done = bind_run(statement(UPDATE_RUNS), &runs)?.execute(&mut *connection).await.map_err(failure)?;
        every("run", done.rows_affected(), runs.len())?;
    }
    write_steps(connection, &new, INSERT_STEPS).await?;
    write_steps(connection, &changed, UPDATE_STEPS).await?;
    write_attempts(connection, writes).await?;
    write_events(connection, writes).await
}

/// The first 21 parameters of both statements on runs.
pub(in crate::postgres) fn bind_run<'q>(query: Statement<'q>, runs: &[&Run]) -> Result<Statement<'q>> {
    let data = runs.iter().map(|run| text(*run)).collect::<Result<Vec<_>>>()?;
    Ok(query
        .bind(column(runs, |r| r.id.as_uuid()))
        .bind(column(runs, |r| r.status.as_str()))
        .bind(column(runs, |r| r.pending_reason.map(|reason| reason.as_str())))
        .bind(column(runs, |r| r.paused_reason.map(|reason| reason.as_str())))
        .bind(column(runs, |r| r.failure_code.map(|code| code.as_str())))
        .bind(column(runs, |r| i32::from(r.priority)))
        .bind(column(runs, |r| r.commit.clone()))
        .bind(column(runs, |r| r.executor.as_ref().map(|name| name.as_str().to_owned())))
        .bind(column(runs, |r| i64::from(r.generation)))
        .bind(column(runs, |r| r.kill.as_ref().map(|kill| kill.at)))
        .bind(column(runs, |r| r.started_at))
        .bind(column(runs, |r| r.finished_at))
        .bind(column(runs, |r| r.usage.cost_microusd.map(count)))
        .bind(column(runs, |r| count(r.usage.tokens.input)))
        .bind(column(runs, |r| count(r.usage.tokens.output)))
        .bind(column(runs, |r| count(r.usage.tokens.cache_read)))
        .bind(column(runs, |r| count(r.usage.tokens.cache_write)))
        .bind(column(runs, |r| count(r.usage.turns)))
        .bind(column(runs, |r| count(r.usage.tool_calls)))
        .bind(column(runs, |r| count(r.event_seq)))
        .bind(data))
}

/// A step with its run and its position in the plan.
pub(in crate::postgres) type StepRow<'a> = (&'a Run, u32, &'a StepState);

/// Steps of all writes.
pub(in crate::postgres) fn step_rows<'a>(writes: &[&'a RunWrite]) -> Vec<StepRow<'a>> {
    writes.iter().flat_map(|write| write.steps.iter().map(|(idx, step)| (&write.run, *idx, step))).collect()
}

/// The parameters of both statements on steps.
pub(in crate::postgres) fn bind_steps<'q>(query: Statement<'q>, rows: &[StepRow<'_>]) -> Result<Statement<'q>> {
    let rows: Vec<&StepRow<'_>> = rows.iter().collect();
    let positions = rows.iter().map(|(_, idx, _)| i32::try_from(*idx)).collect::<std::result::Result<Vec<_>, _>>();
    let positions = positions.map_err(|_| Error::Refused("a step's position is out of range".to_owned()))?;
    let data = rows.iter().map(|(.., step)| text(*step)).collect::<Result<Vec<_>>>()?;
    Ok(query
        .bind(column(&rows, |(run, ..)| run.id.as_uuid()))
        .bind(positions)
        .bind(column(&rows, |(.., s)| s.id.as_str().to_owned()))
        .bind(column(&rows, |(.., s)| s.status.as_str()))
        .bind(column(&rows, |(.., s)| s.pool.as_str().to_owned()))
        .bind(column(&rows, |(.., s)| s.bound_to.as_ref().map(|name| name.as_str().to_owned())))
        .bind(column(&rows, |(run, ..)| i32::from(run.priority)))
        .bind(column(&rows, |(.., s)| s.claimable_at))
        .bind(column(&rows, |(.., s)| s.queued_at))
        .bind(column(&rows, |(.., s)| s.started_at))
        .bind(column(&rows, |(.., s)| s.finished_at))
        .bind(data))
}

async fn write_steps(connection: &mut PgConnection, writes: &[&RunWrite], sql: &'static str) -> Result<()> {
    let rows = step_rows(writes);
    if rows.is_empty() {
        return Ok(());
    }
    let done = bind_steps(statement(sql), &rows)?.execute(connection).await.map_err(failure)?;
    every("step", done.rows_affected(), rows.len())
}

async fn write_attempts(connection: &mut PgConnection, writes: &[&RunWrite]) -> Result<()> {
    let rows: Vec<(Uuid, &Attempt)> = writes.iter().flat_map(|write| write.attempts.iter().map(|a| (write.run.id.as_uuid(), a))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let rows: Vec<&(Uuid, &Attempt)> = rows.iter().collect();
    let data = rows.iter().map(|(_, attempt)| text(*attempt)).collect::<Result<Vec<_>>>()?;
    statement(UPSERT_ATTEMPTS)
        .bind(column(&rows, |(run, _)| *run))
        .bind(column(&rows, |(_, a)| a.step.as_str()))
        .bind(column(&rows, |(_, a)| i64::from(a.n)))
        .bind(column(&rows, |(_, a)| a.status.as_str()))
        .bind(column(&rows, |(_, a)| a.executor.as_str()))
        .bind(column(&rows, |(_, a)| a.claim_id))
        .bind(column(&rows, |(_, a)| a.lease_until))
        .bind(column(&rows, |(_, a)| a.started_at))
        .bind(column(&rows, |(_, a)| a.finished_at))
        .bind(data)
        .execute(connection)
        .await
        .map_err(failure)?;
    Ok(())
}

async fn write_events(connection: &mut PgConnection, writes: &[&RunWrite]) -> Result<()> {
    let (mut ids, mut firsts, mut lasts, mut times, mut pages) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for write in writes {
        let (Some(first), Some(last)) = (write.events.first(), write.events.last()) else { continue };
        let id = write.run.id;
        if let Some(stray) = write.events.iter().find(|event| event.run_id != id) {
            return Err(Error::Refused(format!("event {} is not of run {id}", stray.id)));
        }
        if write.events.windows(2).any(|pair| pair[1].seq != pair[0].seq + 1) {
            return Err(Error::Refused(format!("events of run {id} are numbered without gaps")));
        }
        ids.push(id.as_uuid());
        firsts.push(count(first.seq));
        lasts.push(count(last.seq));
        times.push(last.at);
        pages.push(text(&write.events)?);
    }
    if ids.is_empty() {
        return Ok(());
    }
    statement(INSERT_EVENTS).bind(ids).bind(firsts).bind(lasts).bind(times).bind(pages).execute(connection).await.map_err(failure)?;
    Ok(())
}

/// A row that is changed has to be there.
fn every(what: &str, done: u64, wanted: usize) -> Result<()> {
    if usize::try_from(done) == Ok(wanted) {
        Ok(())
    } else {
        Err(Error::Refused(format!("{wanted} rows of kind {what} are written, {done} of them exist")))
    }
}
