-- The queue's upkeep: expired leases, dependencies, schedules, retention, leftovers. Each is a call of its own
-- (release_expired_leases, settle_dependencies, run_schedules, remove_old_jobs, remove_leftovers) and so a transaction
-- of its own: one that fails does not stop the others. Each is bounded twice, by rows and by time, and gives every
-- workspace that has something to do its share, so that the work of one keeps no other waiting. Rows in other hands are
-- passed over.

-- Whose queue the caller may tend. Raises SJ201 for a caller who is neither a worker nor the server.
create function sidejob.tended_workspaces() returns setof uuid
language plpgsql stable security definer set search_path = '' as $$
begin
  if sidejob.caller_is_server() then
    return query select w.id from public.workspaces w;
  else
    return query select sidejob.workspaces_as('worker');
    if not found then
      perform sidejob.refuse('SJ201', 'only a worker or the secret key tends the queue',
          'Sign in as a user whose workspace role is worker.');
    end if;
  end if;
end $$;

-- When a call of the upkeep takes no further slice of work: after two seconds, or a quarter of the statement's time
-- when that is less. Hosted projects end a statement after eight seconds, and what it did is then undone. The slice in
-- hand is finished.
create function sidejob.upkeep_ends() returns timestamptz
language sql stable set search_path = '' as $$
  select statement_timestamp() + least(interval '2 seconds',
      nullif(current_setting('statement_timeout')::interval, interval '0') / 4)
$$;

revoke execute on function sidejob.tended_workspaces, sidejob.upkeep_ends from public;
grant execute on function sidejob.tended_workspaces to authenticated, service_role;
