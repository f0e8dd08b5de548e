-- A step that lost its executor keeps its place in the queue. Absent in rows of earlier builds, whose place is when they became claimable.
alter table steps add column queued_at integer;
-- In the order in which claims are answered.
create index steps_waiting on steps (pool, bound_to, priority desc, coalesce(queued_at, claimable_at), run_id, idx, id, claimable_at)
    where claimable_at is not null;
drop index steps_claimable;
