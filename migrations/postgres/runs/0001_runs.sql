-- Owner: scheduler. Every statement names the schema, since no session state survives a pooler in transaction mode.
-- `data` holds the whole row as the scheduler keeps it and is what is read back, so it is `json`: kept letter by letter. The
-- other columns are copies of parts of it, for filters, guards and people with a SQL prompt. Texts compare by bytes (COLLATE "C"),
-- as they do in the embedded engine.

create table hopyard_runs.runs (
    id uuid not null primary key,
    namespace text collate "C" not null,
    workflow text collate "C" not null,
    status text collate "C" not null check (status in ('pending', 'running', 'paused', 'completed', 'failed', 'killed')),
    pending_reason text collate "C" check (pending_reason in ('awaiting_dependencies', 'awaiting_schedule', 'awaiting_slot', 'awaiting_executor',
        'starting', 'awaiting_workspace', 'retry_backoff', 'awaiting_budget')),
    paused_reason text collate "C" check (paused_reason in ('approval', 'question', 'usage_limit', 'budget', 'operator')),
    failure_code text collate "C" check (failure_code in ('exit_code', 'timeout', 'idle_timeout', 'lost_executor', 'agent_error', 'max_turns',
        'budget_exceeded', 'usage_limit_exhausted', 'invalid_output', 'workspace_error', 'setup_error', 'dependency_failed',
        'out_of_memory', 'disk_full', 'policy_denied', 'plan_error', 'engine_error')),
    priority integer not null check (priority between 0 and 3),
    session text collate "C",
    repo_url text collate "C",
    commit_id text collate "C",
    executor text collate "C",
    generation bigint not null check (generation >= 0),
    kill_requested_at timestamptz,
    created_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    cost_microusd bigint check (cost_microusd >= 0),
    tokens_input bigint not null check (tokens_input >= 0),
    tokens_output bigint not null check (tokens_output >= 0),
    tokens_cache_read bigint not null check (tokens_cache_read >= 0),
    tokens_cache_write bigint not null check (tokens_cache_write >= 0),
    turns bigint not null check (turns >= 0),
    tool_calls bigint not null check (tool_calls >= 0),
    event_seq bigint not null check (event_seq >= 0),
    labels jsonb not null,
    data json not null,
    check ((status in ('completed', 'failed', 'killed')) = (finished_at is not null)),
    check (status <> 'running' or started_at is not null),
    check (pending_reason is null or status = 'pending'),
    check (paused_reason is null or status = 'paused'),
    check ((failure_code is not null) = (status = 'failed'))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

-- Lists are newest first by id: the id carries the time of submission.
create index runs_by_namespace on hopyard_runs.runs (namespace, id);
create index runs_by_workflow on hopyard_runs.runs (namespace, workflow, id);
create index runs_by_session on hopyard_runs.runs (namespace, session, id) where session is not null;
create index runs_by_repo on hopyard_runs.runs (namespace, repo_url, id) where repo_url is not null;
create index runs_by_label on hopyard_runs.runs using gin (labels jsonb_path_ops) where labels <> '{}';
-- Most runs have completed: a list of those walks runs_by_namespace, the rare statuses have indexes of their own.
create index runs_live on hopyard_runs.runs (namespace, status, id) where finished_at is null;
create index runs_ended_badly on hopyard_runs.runs (namespace, status, id) where status in ('failed', 'killed');

create function hopyard_runs.refuse() returns trigger language plpgsql as $$
begin
    raise exception '%', tg_argv[0];
end $$;

-- What has ended stays as it is; only housekeeping (late usage, events of its workspace) may follow.
create function hopyard_runs.runs_final() returns trigger language plpgsql as $$
begin
    if (new.namespace, new.workflow, new.status, new.failure_code, new.created_at, new.started_at, new.finished_at, new.cost_microusd,
            new.tokens_input, new.tokens_output, new.tokens_cache_read, new.tokens_cache_write, new.turns, new.tool_calls)
        is distinct from
        (old.namespace, old.workflow, old.status, old.failure_code, old.created_at, old.started_at, old.finished_at, old.cost_microusd,
            old.tokens_input, old.tokens_output, old.tokens_cache_read, old.tokens_cache_write, old.turns, old.tool_calls)
        or (new.data -> 'status')::jsonb is distinct from (old.data -> 'status')::jsonb
        or (new.data -> 'finished_at')::jsonb is distinct from (old.data -> 'finished_at')::jsonb
        or (new.data -> 'usage')::jsonb is distinct from (old.data -> 'usage')::jsonb
        or (new.data -> 'result')::jsonb is distinct from (old.data -> 'result')::jsonb
        or (new.data -> 'error')::jsonb is distinct from (old.data -> 'error')::jsonb
    then
        raise exception 'run % has ended and is immutable', old.id;
    end if;
    return new;
end $$;

create trigger runs_final before update on hopyard_runs.runs
    for each row when (old.finished_at is not null) execute function hopyard_runs.runs_final();

create table hopyard_runs.steps (
    run_id uuid not null,
    idx integer not null check (idx >= 0),
    id text collate "C" not null,
    status text collate "C" not null check (status in ('pending', 'running', 'paused', 'completed', 'failed', 'killed', 'skipped')),
    pool text collate "C" not null,
    bound_to text collate "C",
    priority integer not null,
    claimable_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    data json not null,
    primary key (run_id, idx),
    unique (run_id, id),
    check ((status in ('completed', 'failed', 'killed', 'skipped')) = (finished_at is not null)),
    check (status <> 'running' or started_at is not null),
    check (claimable_at is null or status = 'pending')
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

-- In the order in which claims are answered. Only what may be claimed is in it.
create index steps_claimable on hopyard_runs.steps (pool, priority desc, claimable_at, run_id, idx) where claimable_at is not null;

create table hopyard_runs.attempts (
    run_id uuid not null,
    step text collate "C" not null,
    n bigint not null check (n >= 1),
    status text collate "C" not null check (status in ('leased', 'running', 'completed', 'failed', 'killed', 'lost')),
    executor text collate "C" not null,
    claim_id uuid not null,
    lease_until timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    data json not null,
    primary key (run_id, step, n),
    check ((status in ('completed', 'failed', 'killed', 'lost')) = (finished_at is not null)),
    check (status <> 'running' or started_at is not null)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

create index attempts_live_by_claim on hopyard_runs.attempts (claim_id) where finished_at is null;

create trigger attempts_final before update on hopyard_runs.attempts for each row
    when (old.finished_at is not null and (new.status is distinct from old.status or new.finished_at is distinct from old.finished_at))
    execute function hopyard_runs.refuse('an attempt that has ended keeps its status');

-- The events of one run that one transaction made, as a JSON array.
create table hopyard_runs.events (
    run_id uuid not null,
    first_seq bigint not null check (first_seq >= 1),
    last_seq bigint not null check (last_seq >= first_seq),
    at timestamptz not null,
    page json not null,
    primary key (run_id, first_seq),
    check (json_array_length(page) = last_seq - first_seq + 1)
);

create index events_by_time on hopyard_runs.events (at, run_id, first_seq);

-- Per statement, not per row: a batch pays for one look at the index per page and for one call.
create function hopyard_runs.events_dense() returns trigger language plpgsql as $$
declare
    gap record;
begin
    select n.run_id, n.first_seq into gap from added n
    where n.first_seq <> 1 + coalesce((select e.last_seq from hopyard_runs.events e
        where e.run_id = n.run_id and e.first_seq < n.first_seq order by e.first_seq desc limit 1), 0)
        or exists (select 1 from hopyard_runs.events e where e.run_id = n.run_id and e.first_seq > n.first_seq and e.first_seq <= n.last_seq)
    limit 1;
    if found then
        raise exception 'events of run % are numbered without gaps, not from %', gap.run_id, gap.first_seq;
    end if;
    return null;
end $$;

create trigger events_dense after insert on hopyard_runs.events
    referencing new table as added for each statement execute function hopyard_runs.events_dense();

create trigger events_final before update on hopyard_runs.events
    for each row execute function hopyard_runs.refuse('an event is immutable');

-- When a run wants to be looked at: its own timer, or a poke by what another run did. `n` counts further pokes, so that who deals
-- with one does not delete a later one whose cause it has not seen.
create table hopyard_runs.due (
    run_id uuid not null,
    kind text collate "C" not null check (kind in ('timer', 'poke')),
    at timestamptz not null,
    n bigint not null default 0,
    primary key (run_id, kind)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

create index due_by_time on hopyard_runs.due (at, run_id);

-- Runs that wait for the end of others.
create table hopyard_runs.run_after (
    parent uuid not null,
    child uuid not null,
    primary key (parent, child)
);

create index run_after_by_child on hopyard_runs.run_after (child);

-- Slots of runs that have not ended.
create table hopyard_runs.run_slots (
    run_id uuid not null,
    key text collate "C" not null,
    max bigint not null check (max >= 1),
    held boolean not null,
    primary key (run_id, key)
) with (fillfactor = 80);

create index run_slots_held on hopyard_runs.run_slots (key, run_id) where held;

-- Idempotency keys.
create table hopyard_runs.keys (
    namespace text collate "C" not null,
    key text collate "C" not null,
    run_id uuid not null,
    request_hash text collate "C" not null,
    at timestamptz not null default clock_timestamp(),
    primary key (namespace, key)
);

-- Answers to messages of the command stream; the stream's time tells sequences of a wiped stream apart.
create table hopyard_runs.receipts (
    seq bigint not null check (seq >= 1),
    time_ns bigint not null,
    namespace text collate "C" not null,
    data json not null,
    primary key (seq, time_ns)
);

-- Kill requests that came before their runs; they serve for a day.
create table hopyard_runs.tombstones (
    run_id uuid not null primary key,
    at timestamptz not null,
    data json not null
);

create index tombstones_by_time on hopyard_runs.tombstones (at);

create table hopyard_runs.plans (
    hash text collate "C" not null primary key,
    plan json not null
);

-- Versions of workflows; a definition that only runs name has no version.
create table hopyard_runs.definitions (
    namespace text collate "C" not null,
    name text collate "C" not null,
    version bigint check (version >= 1),
    hash text collate "C" not null,
    plan_hash text collate "C" not null,
    created_at timestamptz not null default clock_timestamp(),
    source text not null,
    unique (namespace, name, version)
);

create index definitions_by_hash on hopyard_runs.definitions (namespace, hash);

create trigger definitions_final before update on hopyard_runs.definitions
    for each row execute function hopyard_runs.refuse('a definition is immutable');

create trigger plans_final before update on hopyard_runs.plans
    for each row execute function hopyard_runs.refuse('a plan is immutable');

create table hopyard_runs.executors (
    id text collate "C" not null primary key,
    host text collate "C" not null,
    pool text collate "C" not null,
    slots bigint not null check (slots >= 0),
    version text not null,
    draining boolean not null,
    seen_at timestamptz not null
);

create table hopyard_runs.workspaces (
    id text collate "C" not null primary key,
    run_id uuid not null,
    namespace text collate "C" not null,
    generation bigint not null check (generation >= 0),
    executor text collate "C" not null,
    host text collate "C" not null,
    path text not null,
    repo text collate "C",
    session text collate "C",
    status text collate "C" not null check (status in ('active', 'kept', 'reclaimable', 'removed')),
    created_at timestamptz not null,
    removed_at timestamptz,
    bytes bigint check (bytes >= 0),
    check ((status = 'removed') = (removed_at is not null))
) with (fillfactor = 80);

create index workspaces_by_status on hopyard_runs.workspaces (status, created_at, id);
create index workspaces_by_host on hopyard_runs.workspaces (host, status, created_at, id);
create index workspaces_by_namespace on hopyard_runs.workspaces (namespace, created_at, id);
create index workspaces_by_session on hopyard_runs.workspaces (namespace, session, created_at, id)
    where session is not null and status in ('active', 'kept');
create index workspaces_by_executor on hopyard_runs.workspaces (executor, run_id) where status = 'active';

-- Messages that have not been published for certain: one row per transaction.
create table hopyard_runs.outbox (
    id bigint not null primary key,
    at timestamptz not null default clock_timestamp(),
    messages json not null
) with (autovacuum_vacuum_scale_factor = 0.02);

create index outbox_by_time on hopyard_runs.outbox (at, id);
