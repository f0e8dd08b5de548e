-- Owner: metrics service. One document: its checkpoint and rollups, replaced as a whole and only by who knows its version.
create table state (
    id integer not null primary key check (id = 1),
    version integer not null check (version >= 1),
    saved_at integer not null,
    state text not null check (json_valid(state))
) strict;
