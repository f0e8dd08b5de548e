-- Owner: scheduler. Ids are 16 bytes, times microseconds since 1970 (UTC), JSON is text.
-- `data` holds the whole row as the scheduler keeps it and is what is read back; the other columns are copies of parts of it,
-- for filters, guards and people with a SQL prompt. `data` comes last, so that filters do not touch its overflow pages.

create table runs (
    id blob not null primary key check (length(id) = 16),
    namespace text not null,
    workflow text not null,
    status text not null check (status in ('pending', 'running', 'paused', 'completed', 'failed', 'killed')),
    pending_reason text check (pending_reason in ('awaiting_dependencies', 'awaiting_schedule', 'awaiting_slot', 'awaiting_executor',
        'starting', 'awaiting_workspace', 'retry_backoff', 'awaiting_budget')),
    paused_reason text check (paused_reason in ('approval', 'question', 'usage_limit', 'budget', 'operator')),
    failure_code text check (failure_code in ('exit_code', 'timeout', 'idle_timeout', 'lost_executor', 'agent_error', 'max_turns',
        'budget_exceeded', 'usage_limit_exhausted', 'invalid_output', 'workspace_error', 'setup_error', 'dependency_failed',
        'out_of_memory', 'disk_full', 'policy_denied', 'plan_error', 'engine_error')),
    priority integer not null check (priority between 0 and 3),
    session text,
    repo_url text,
    commit_id text,
    executor text,
    generation integer not null check (generation >= 0),
    kill_requested_at integer,
    created_at integer not null,
    started_at integer,
    finished_at integer,
    cost_microusd integer check (cost_microusd >= 0),
    tokens_input integer not null check (tokens_input >= 0),
    tokens_output integer not null check (tokens_output >= 0),
    tokens_cache_read integer not null check (tokens_cache_read >= 0),
    tokens_cache_write integer not null check (tokens_cache_write >= 0),
    turns integer not null check (turns >= 0),
    tool_calls integer not null check (tool_calls >= 0),
    event_seq integer not null check (event_seq >= 0),
    labels text not null check (json_valid(labels)),
    data text not null check (json_valid(data)),
    check ((status in ('completed', 'failed', 'killed')) = (finished_at is not null)),
    check (status <> 'running' or started_at is not null),
    check (pending_reason is null or status = 'pending'),
    check (paused_reason is null or status = 'paused'),
    check ((failure_code is not null) = (status = 'failed'))
) strict, without rowid;

-- Lists are newest first by id: the id carries the time of submission.
create index runs_by_namespace on runs (namespace, id);
create index runs_by_workflow on runs (namespace, workflow, id);
create index runs_by_status on runs (namespace, status, id);
create index runs_by_session on runs (namespace, session, id) where session is not null;
create index runs_by_repo on runs (namespace, repo_url, id) where repo_url is not null;
create index runs_live on runs (namespace, status) where finished_at is null;

-- What has ended stays as it is; only housekeeping (late usage, events of its workspace) may follow.
create trigger runs_final before update on runs
when old.finished_at is not null and (
    new.namespace is not old.namespace or new.workflow is not old.workflow
    or new.status is not old.status or new.failure_code is not old.failure_code
    or new.created_at is not old.created_at or new.started_at is not old.started_at or new.finished_at is not old.finished_at
    or new.cost_microusd is not old.cost_microusd
    or new.tokens_input is not old.tokens_input or new.tokens_output is not old.tokens_output
    or new.tokens_cache_read is not old.tokens_cache_read or new.tokens_cache_write is not old.tokens_cache_write
    or new.turns is not old.turns or new.tool_calls is not old.tool_calls
    or json_extract(new.data, '$.status') is not json_extract(old.data, '$.status')
    or json_extract(new.data, '$.finished_at') is not json_extract(old.data, '$.finished_at')
    or json_extract(new.data, '$.usage') is not json_extract(old.data, '$.usage')
    or json_extract(new.data, '$.result') is not json_extract(old.data, '$.result')
    or json_extract(new.data, '$.error') is not json_extract(old.data, '$.error')
)
begin
    select raise(abort, 'a run that has ended is immutable');
end;

create table steps (
    run_id blob not null check (length(run_id) = 16),
    idx integer not null check (idx >= 0),
    id text not null,
    status text not null check (status in ('pending', 'running', 'paused', 'completed', 'failed', 'killed', 'skipped')),
    pool text not null,
    bound_to text,
    priority integer not null,
    claimable_at integer,
    started_at integer,
    finished_at integer,
    data text not null check (json_valid(data)),
    primary key (run_id, idx),
    unique (run_id, id),
    check ((status in ('completed', 'failed', 'killed', 'skipped')) = (finished_at is not null)),
    check (status <> 'running' or started_at is not null),
    check (claimable_at is null or status = 'pending')
) strict, without rowid;

create index steps_claimable on steps (pool, bound_to, priority desc, claimable_at, run_id, idx, id) where claimable_at is not null;

create table attempts (
    run_id blob not null check (length(run_id) = 16),
    step text not null,
    n integer not null check (n >= 1),
    status text not null check (status in ('leased', 'running', 'completed', 'failed', 'killed', 'lost')),
    executor text not null,
    claim_id blob not null check (length(claim_id) = 16),
    lease_until integer not null,
    started_at integer,
    finished_at integer,
    data text not null check (json_valid(data)),
    primary key (run_id, step, n),
    check ((status in ('completed', 'failed', 'killed', 'lost')) = (finished_at is not null)),
    check (status <> 'running' or started_at is not null)
) strict, without rowid;

create index attempts_live_by_claim on attempts (claim_id) where finished_at is null;
create index attempts_live_by_executor on attempts (executor) where finished_at is null;

create trigger attempts_final before update on attempts
when old.finished_at is not null and (new.status is not old.status or new.finished_at is not old.finished_at)
begin
    select raise(abort, 'an attempt that has ended keeps its status');
end;

-- The events of one run that one transaction made, as a JSON array.
create table events (
    run_id blob not null check (length(run_id) = 16),
    first_seq integer not null check (first_seq >= 1),
    last_seq integer not null check (last_seq >= first_seq),
    at integer not null,
    page text not null check (json_valid(page)),
    primary key (run_id, first_seq),
    check (json_array_length(page) = last_seq - first_seq + 1)
) strict, without rowid;

create index events_by_time on events (at, run_id, first_seq);

create trigger events_dense before insert on events
when new.first_seq <> 1 + coalesce((select last_seq from events where run_id = new.run_id order by first_seq desc limit 1), 0)
begin
    select raise(abort, 'events of a run are numbered without gaps');
end;

create trigger events_final before update on events
begin
    select raise(abort, 'an event is immutable');
end;

-- When a run wants to be looked at: its own timer, or a poke by what another run did.
create table due (
    run_id blob not null check (length(run_id) = 16),
    kind text not null check (kind in ('timer', 'poke')),
    at integer not null,
    primary key (run_id, kind)
) strict, without rowid;

create index due_by_time on due (at, run_id);

-- Runs that wait for the end of others.
create table run_after (
    parent blob not null check (length(parent) = 16),
    child blob not null check (length(child) = 16),
    primary key (parent, child)
) strict, without rowid;

create index run_after_by_child on run_after (child);

-- Slots of runs that have not ended.
create table run_slots (
    run_id blob not null check (length(run_id) = 16),
    key text not null,
    max integer not null check (max >= 1),
    held integer not null check (held in (0, 1)),
    primary key (run_id, key)
) strict, without rowid;

create index run_slots_held on run_slots (key, run_id) where held = 1;

-- Idempotency keys.
create table keys (
    namespace text not null,
    key text not null,
    run_id blob not null check (length(run_id) = 16),
    request_hash text not null,
    at integer not null,
    primary key (namespace, key)
) strict, without rowid;

-- Answers to messages of the command stream; the stream's time tells sequences of a wiped stream apart.
create table receipts (
    seq integer not null check (seq >= 1),
    time_ns integer not null,
    namespace text not null,
    data text not null check (json_valid(data)),
    primary key (seq, time_ns)
) strict, without rowid;

-- Kill requests that came before their runs; they serve for a day.
create table tombstones (
    run_id blob not null primary key check (length(run_id) = 16),
    at integer not null,
    data text not null check (json_valid(data))
) strict, without rowid;

create index tombstones_by_time on tombstones (at);

create table plans (
    hash text not null primary key,
    plan text not null check (json_valid(plan))
) strict, without rowid;

-- Versions of workflows; a definition that only runs name has no version.
create table definitions (
    namespace text not null,
    name text not null,
    version integer check (version >= 1),
    hash text not null,
    plan_hash text not null,
    created_at integer not null,
    source text not null,
    unique (namespace, name, version)
) strict;

create index definitions_by_hash on definitions (namespace, hash);

create trigger definitions_final before update on definitions
begin
    select raise(abort, 'a definition is immutable');
end;

create trigger plans_final before update on plans
begin
    select raise(abort, 'a plan is immutable');
end;

create table executors (
    id text not null primary key,
    host text not null,
    pool text not null,
    slots integer not null check (slots >= 0),
    version text not null,
    draining integer not null check (draining in (0, 1)),
    seen_at integer not null
) strict, without rowid;

create table workspaces (
    id text not null primary key,
    run_id blob not null check (length(run_id) = 16),
    namespace text not null,
    generation integer not null check (generation >= 0),
    executor text not null,
    host text not null,
    path text not null,
    repo text,
    session text,
    status text not null check (status in ('active', 'kept', 'reclaimable', 'removed')),
    created_at integer not null,
    removed_at integer,
    bytes integer check (bytes >= 0),
    check ((status = 'removed') = (removed_at is not null))
) strict, without rowid;

create index workspaces_by_status on workspaces (status, created_at, id);
create index workspaces_by_host on workspaces (host, status, created_at, id);
create index workspaces_by_namespace on workspaces (namespace, created_at, id);
create index workspaces_by_session on workspaces (namespace, session, created_at, id) where session is not null and status in ('active', 'kept');
create index workspaces_by_executor on workspaces (executor, run_id) where status = 'active';

-- Messages that have not been published for certain: one row per transaction.
create table outbox (
    id integer not null primary key,
    at integer not null,
    messages text not null check (json_valid(messages))
) strict;

create index outbox_by_time on outbox (at, id);

-- The latest time that was handed out: time never runs backwards over a restart.
create table clock (
    id integer not null primary key check (id = 1),
    high integer not null
) strict;

insert into clock (id, high) values (1, 0);
