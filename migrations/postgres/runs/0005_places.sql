-- A step that lost its executor keeps its place in the queue. Absent in rows of earlier builds, whose place is when they became claimable.
alter table hopyard_runs.steps add column queued_at timestamptz;
-- In the order in which claims are answered.
create index steps_waiting on hopyard_runs.steps (pool, priority desc, coalesce(queued_at, claimable_at), run_id, idx) where claimable_at is not null;
drop index hopyard_runs.steps_claimable;
