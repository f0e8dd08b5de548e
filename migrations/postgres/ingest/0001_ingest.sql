-- Owner: ingest. It keeps nothing yet; this marks the schema, so that what it comes to own arrives as further migrations.
comment on schema hopyard_ingest is 'owned by ingest';
