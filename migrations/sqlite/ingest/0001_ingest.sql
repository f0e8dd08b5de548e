-- Owner: ingest. It keeps nothing yet; this marks the file, so that what it comes to own arrives as further migrations.
pragma application_id = 1752133753;
