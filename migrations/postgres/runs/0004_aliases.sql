-- Ids that a submitter was told while no scheduler answered, and whose idempotency key turned out to have made another run.
create table hopyard_runs.aliases (
    id uuid not null primary key,
    run_id uuid not null
);
