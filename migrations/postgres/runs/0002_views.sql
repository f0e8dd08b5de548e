-- What people and dashboards may query: names and columns of these views are kept, tables may change below them.

create view hopyard_runs.v_runs as
select
    id, namespace, workflow, status, pending_reason, paused_reason, failure_code,
    data #>> '{error,message}' as error,
    priority, data ->> 'pool' as pool, session, repo_url, commit_id as "commit", executor, generation,
    created_at, started_at, finished_at, kill_requested_at,
    (extract(epoch from finished_at - started_at) * 1000)::bigint as duration_ms,
    cost_microusd, tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, turns, tool_calls,
    event_seq, labels, data -> 'inputs' as inputs, data -> 'result' as result
from hopyard_runs.runs;

create view hopyard_runs.v_steps as
select
    run_id, idx, id, status,
    data ->> 'pending_reason' as pending_reason, data ->> 'failure_code' as failure_code, data ->> 'error' as error,
    pool, bound_to, (data ->> 'attempt')::bigint as attempt, claimable_at, started_at, finished_at,
    (extract(epoch from finished_at - started_at) * 1000)::bigint as duration_ms,
    (data #>> '{usage,cost_microusd}')::numeric as cost_microusd, data -> 'outputs' as outputs
from hopyard_runs.steps;

create view hopyard_runs.v_attempts as
select
    run_id, step, n, status,
    data ->> 'failure_code' as failure_code, data ->> 'error' as error, executor, data ->> 'host' as host,
    (data ->> 'pid')::bigint as pid, (data ->> 'exit_code')::integer as exit_code, (data ->> 'signal')::integer as signal,
    (data ->> 'generation')::bigint as generation, lease_until, started_at, finished_at,
    (extract(epoch from finished_at - started_at) * 1000)::bigint as duration_ms,
    (data #>> '{usage,cost_microusd}')::numeric as cost_microusd, (data ->> 'log_bytes')::numeric as log_bytes,
    data #>> '{log,digest}' as log_digest, data ->> 'snapshot' as snapshot
from hopyard_runs.attempts;

create view hopyard_runs.v_events as
select
    p.run_id, (e.value ->> 'seq')::bigint as seq, e.value ->> 'namespace' as namespace, e.value ->> 'type' as type,
    (e.value ->> 'at')::timestamptz as at, e.value ->> 'step' as step, (e.value ->> 'attempt')::bigint as attempt, e.value -> 'data' as data
from hopyard_runs.events p cross join lateral json_array_elements(p.page) as e(value);
