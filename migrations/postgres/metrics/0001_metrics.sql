-- Owner: metrics service. One document: its checkpoint and rollups, replaced as a whole and only by who knows its version.
create table hopyard_metrics.state (
    id integer not null primary key check (id = 1),
    version bigint not null check (version >= 1),
    saved_at timestamptz not null,
    state json not null
);
