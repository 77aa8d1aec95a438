-- For whoever decides how many workers run, from outside: one number, and a role that may ask for it and for nothing else.

-- How many jobs the workers of an executor could have in their hands now: those that are due and held back by no pause, and those in work already, so
-- that nobody scales in under them. worker_id: only of the workspaces that this worker serves. Counted up to 10,000 a workspace.
create function sidejob.backlog(executor_id text default 'default', worker_id text default null) returns bigint
language sql stable security definer set search_path = '' as $$
  select coalesce(sum(due.jobs + in_work.jobs), 0)::bigint
    from public.workspaces w
   cross join lateral (
     select count(*) as jobs from (
       select from public.jobs j
        where j.status = 'queued' and j.workspace_id = w.id and j.executor_id = backlog.executor_id and j.blocked_by = 0 and j.next_run_at <= now()
          and not exists (select from public.paused_executors p where p.workspace_id = w.id and p.executor_id = backlog.executor_id)
        limit 10000) as counted) as due
   cross join lateral (
     select count(*) as jobs from public.jobs j
      where j.status in ('assigned', 'running') and j.workspace_id = w.id and j.executor_id = backlog.executor_id) as in_work
   where backlog.worker_id is null or w.id in (
     select served.workspace_id from public.workspace_members named join public.workspace_members served using (user_id)
      where named.worker_id = backlog.worker_id and served.role = 'worker')
$$;

-- Roles belong to the whole server: another database of it may have made this one already. It signs in once an operator gives it a password:
--   alter role sidejob_scaler login password '…'
do $$ begin
  create role sidejob_scaler nologin;
exception when duplicate_object or unique_violation then null;
end $$;

revoke execute on function sidejob.backlog from public;
grant usage on schema sidejob to sidejob_scaler;
grant execute on function sidejob.backlog to sidejob_scaler;
