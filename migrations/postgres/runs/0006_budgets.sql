-- What was spent of budgets that are shared by runs, by day and scope; the key names both. `open_microusd` is what live attempts may
-- spend and have not spent.
create table hopyard_runs.budgets (
    key text primary key,
    spent_microusd bigint not null,
    open_microusd bigint not null
);
