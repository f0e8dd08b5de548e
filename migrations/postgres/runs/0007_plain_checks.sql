-- Nothing to do: PostgreSQL compares with the words of a check in place. The embedded engine does not, and both have the same
-- migrations.
select 1;
