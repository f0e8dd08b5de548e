-- SQLite makes a small table for each list of more than two words that a check compares with, fills it and drops it again, for
-- every row that is written. The same words one by one are compared in place.
-- Only the text of checks changes, not what they allow, so the rows stay as they are; SQLite's manual has this way for it.

pragma writable_schema = on;

update sqlite_schema set sql = replace(replace(replace(replace(replace(sql,
    'status in (''pending'', ''running'', ''paused'', ''completed'', ''failed'', ''killed'')',
    'status = ''pending'' or status = ''running'' or status = ''paused'' or status = ''completed'' or status = ''failed'' or status = ''killed'''),
    'pending_reason in (''awaiting_dependencies'', ''awaiting_schedule'', ''awaiting_slot'', ''awaiting_executor'',
        ''starting'', ''awaiting_workspace'', ''retry_backoff'', ''awaiting_budget'')',
    'pending_reason = ''awaiting_dependencies'' or pending_reason = ''awaiting_schedule'' or pending_reason = ''awaiting_slot'' or
        pending_reason = ''awaiting_executor'' or pending_reason = ''starting'' or pending_reason = ''awaiting_workspace'' or
        pending_reason = ''retry_backoff'' or pending_reason = ''awaiting_budget'''),
    'paused_reason in (''approval'', ''question'', ''usage_limit'', ''budget'', ''operator'')',
    'paused_reason = ''approval'' or paused_reason = ''question'' or paused_reason = ''usage_limit'' or paused_reason = ''budget'' or
        paused_reason = ''operator'''),
    'failure_code in (''exit_code'', ''timeout'', ''idle_timeout'', ''lost_executor'', ''agent_error'', ''max_turns'',
        ''budget_exceeded'', ''usage_limit_exhausted'', ''invalid_output'', ''workspace_error'', ''setup_error'', ''dependency_failed'',
        ''out_of_memory'', ''disk_full'', ''policy_denied'', ''plan_error'', ''engine_error'')',
    'failure_code = ''exit_code'' or failure_code = ''timeout'' or failure_code = ''idle_timeout'' or failure_code = ''lost_executor'' or
        failure_code = ''agent_error'' or failure_code = ''max_turns'' or failure_code = ''budget_exceeded'' or
        failure_code = ''usage_limit_exhausted'' or failure_code = ''invalid_output'' or failure_code = ''workspace_error'' or
        failure_code = ''setup_error'' or failure_code = ''dependency_failed'' or failure_code = ''out_of_memory'' or
        failure_code = ''disk_full'' or failure_code = ''policy_denied'' or failure_code = ''plan_error'' or
        failure_code = ''engine_error'''),
    'status in (''completed'', ''failed'', ''killed'')',
    'status = ''completed'' or status = ''failed'' or status = ''killed''')
where type = 'table' and name = 'runs';

update sqlite_schema set sql = replace(replace(sql,
    'status in (''pending'', ''running'', ''paused'', ''completed'', ''failed'', ''killed'', ''skipped'')',
    'status = ''pending'' or status = ''running'' or status = ''paused'' or status = ''completed'' or status = ''failed'' or
        status = ''killed'' or status = ''skipped'''),
    'status in (''completed'', ''failed'', ''killed'', ''skipped'')',
    'status = ''completed'' or status = ''failed'' or status = ''killed'' or status = ''skipped''')
where type = 'table' and name = 'steps';

update sqlite_schema set sql = replace(replace(sql,
    'status in (''leased'', ''running'', ''completed'', ''failed'', ''killed'', ''lost'')',
    'status = ''leased'' or status = ''running'' or status = ''completed'' or status = ''failed'' or status = ''killed'' or status = ''lost'''),
    'status in (''completed'', ''failed'', ''killed'', ''lost'')',
    'status = ''completed'' or status = ''failed'' or status = ''killed'' or status = ''lost''')
where type = 'table' and name = 'attempts';

update sqlite_schema set sql = replace(sql,
    'status in (''active'', ''kept'', ''reclaimable'', ''removed'')',
    'status = ''active'' or status = ''kept'' or status = ''reclaimable'' or status = ''removed''')
where type = 'table' and name = 'workspaces';

-- Tells the other connections that the schema is another one, and this one to read it again.
create index checks_changed on executors (host);
drop index checks_changed;
pragma writable_schema = reset;
