-- A newcomer that cancels the older runs of its key looks for all of them, held or not.
create index run_slots_by_key on run_slots (key, run_id);
