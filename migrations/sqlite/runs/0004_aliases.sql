-- Ids that a submitter was told while no scheduler answered, and whose idempotency key turned out to have made another run.
create table aliases (
    id blob not null primary key check (length(id) = 16),
    run_id blob not null check (length(run_id) = 16)
) strict, without rowid;
