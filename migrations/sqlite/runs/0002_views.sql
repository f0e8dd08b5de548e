-- What people and dashboards may query: names and columns of these views are kept, tables may change below them.

create view hopyard_runs as
select
    lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4) || '-' || substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) as id,
    namespace, workflow, status, pending_reason, paused_reason, failure_code,
    json_extract(data, '$.error.message') as error,
    priority, json_extract(data, '$.pool') as pool, session, repo_url, commit_id as "commit", executor, generation,
    strftime('%Y-%m-%dT%H:%M:%S', created_at / 1000000, 'unixepoch') || printf('.%06dZ', created_at % 1000000) as created_at,
    strftime('%Y-%m-%dT%H:%M:%S', started_at / 1000000, 'unixepoch') || printf('.%06dZ', started_at % 1000000) as started_at,
    strftime('%Y-%m-%dT%H:%M:%S', finished_at / 1000000, 'unixepoch') || printf('.%06dZ', finished_at % 1000000) as finished_at,
    strftime('%Y-%m-%dT%H:%M:%S', kill_requested_at / 1000000, 'unixepoch') || printf('.%06dZ', kill_requested_at % 1000000) as kill_requested_at,
    (finished_at - started_at) / 1000 as duration_ms,
    cost_microusd, tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, turns, tool_calls,
    event_seq, labels,
    json_extract(data, '$.inputs') as inputs,
    json_extract(data, '$.result') as result
from runs;

create view hopyard_steps as
select
    lower(substr(hex(run_id), 1, 8) || '-' || substr(hex(run_id), 9, 4) || '-' || substr(hex(run_id), 13, 4) || '-' || substr(hex(run_id), 17, 4) || '-' || substr(hex(run_id), 21)) as run_id,
    idx, id, status,
    json_extract(data, '$.pending_reason') as pending_reason,
    json_extract(data, '$.failure_code') as failure_code,
    json_extract(data, '$.error') as error,
    pool, bound_to,
    json_extract(data, '$.attempt') as attempt,
    strftime('%Y-%m-%dT%H:%M:%S', claimable_at / 1000000, 'unixepoch') || printf('.%06dZ', claimable_at % 1000000) as claimable_at,
    strftime('%Y-%m-%dT%H:%M:%S', started_at / 1000000, 'unixepoch') || printf('.%06dZ', started_at % 1000000) as started_at,
    strftime('%Y-%m-%dT%H:%M:%S', finished_at / 1000000, 'unixepoch') || printf('.%06dZ', finished_at % 1000000) as finished_at,
    (finished_at - started_at) / 1000 as duration_ms,
    json_extract(data, '$.usage.cost_microusd') as cost_microusd,
    json_extract(data, '$.outputs') as outputs
from steps;

create view hopyard_attempts as
select
    lower(substr(hex(run_id), 1, 8) || '-' || substr(hex(run_id), 9, 4) || '-' || substr(hex(run_id), 13, 4) || '-' || substr(hex(run_id), 17, 4) || '-' || substr(hex(run_id), 21)) as run_id,
    step, n, status,
    json_extract(data, '$.failure_code') as failure_code,
    json_extract(data, '$.error') as error,
    executor, json_extract(data, '$.host') as host,
    json_extract(data, '$.pid') as pid,
    json_extract(data, '$.exit_code') as exit_code,
    json_extract(data, '$.signal') as signal,
    json_extract(data, '$.generation') as generation,
    strftime('%Y-%m-%dT%H:%M:%S', lease_until / 1000000, 'unixepoch') || printf('.%06dZ', lease_until % 1000000) as lease_until,
    strftime('%Y-%m-%dT%H:%M:%S', started_at / 1000000, 'unixepoch') || printf('.%06dZ', started_at % 1000000) as started_at,
    strftime('%Y-%m-%dT%H:%M:%S', finished_at / 1000000, 'unixepoch') || printf('.%06dZ', finished_at % 1000000) as finished_at,
    (finished_at - started_at) / 1000 as duration_ms,
    json_extract(data, '$.usage.cost_microusd') as cost_microusd,
    json_extract(data, '$.log_bytes') as log_bytes,
    json_extract(data, '$.log.digest') as log_digest,
    json_extract(data, '$.snapshot') as snapshot
from attempts;

create view hopyard_events as
select
    json_extract(event.value, '$.run_id') as run_id,
    json_extract(event.value, '$.seq') as seq,
    json_extract(event.value, '$.namespace') as namespace,
    json_extract(event.value, '$.type') as type,
    json_extract(event.value, '$.at') as at,
    json_extract(event.value, '$.step') as step,
    json_extract(event.value, '$.attempt') as attempt,
    json_extract(event.value, '$.data') as data
from events, json_each(events.page) as event;
