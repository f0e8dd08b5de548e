-- What was spent of budgets that are shared by runs, by day and scope; the key names both. `open_microusd` is what live attempts may
-- spend and have not spent.
create table budgets (
    key text not null primary key,
    spent_microusd integer not null,
    open_microusd integer not null
) strict, without rowid;
