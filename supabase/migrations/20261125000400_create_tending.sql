-- The queue looks after itself, whoever comes by: pg_cron where it is there, and any worker.

-- When a workspace was last looked after.
create table sidejob.chores (
  workspace_id uuid primary key references public.workspaces (id) on delete cascade,
  cleaned_at timestamptz not null default '-infinity',
  swept_at timestamptz not null default '-infinity'
);
alter table sidejob.chores enable row level security;
revoke all on sidejob.chores from public, anon, authenticated, service_role;

-- Takes back expired leases, starts due schedules and, once a minute, removes what is older than its workspace keeps it. One at a time:
-- a second caller is told that it is busy. sweep_objects asks a worker, once an hour, to call the function artifacts-sweep.
-- A worker tends its own workspaces, the server all of them. Raises SJ201.
create function public.tend_queue(out busy boolean, out released int, out scheduled int, out removed int, out sweep_objects boolean)
language plpgsql security definer set search_path = '' as $$
declare
  mine uuid[] := array(select sidejob.tended_workspaces());
  ts timestamptz := clock_timestamp();
begin
  sweep_objects := false;
  busy := not pg_try_advisory_xact_lock(hashtextextended('sidejob.tend_queue', 0));
  if busy then
    return;
  end if;
  released := public.release_expired_leases(1000);
  scheduled := public.run_schedules(100);
  removed := 0;
  insert into sidejob.chores (workspace_id) select m.id from unnest(mine) as m (id) on conflict do nothing;
  update sidejob.chores c set cleaned_at = ts where c.workspace_id = any (mine) and c.cleaned_at < ts - interval '1 minute';
  if found then
    begin  -- a failure here must not undo the rest
      removed := public.remove_old_jobs(1000);
      if removed = 1000 then  -- there is more
        update sidejob.chores c set cleaned_at = '-infinity' where c.workspace_id = any (mine);
      end if;
      delete from sidejob.unique_requests u where u.until < ts;
      delete from sidejob.cancellations c where c.cancelled_at < ts - interval '10 minutes';
      delete from sidejob.wake_ups w where w.sent_at < ts - interval '1 day';
      delete from public.worker_heartbeats_v2 b where b.last_seen < ts - interval '7 days';
    exception when others then
      raise warning 'sidejob: cleaning failed: %', sqlerrm;
    end;
  end if;
  if not sidejob.caller_is_server() then
    update sidejob.chores c set swept_at = ts where c.workspace_id = any (mine) and c.swept_at < ts - interval '1 hour';
    sweep_objects := found;
  end if;
end $$;

revoke execute on function public.tend_queue from public, anon, authenticated, service_role;
grant execute on function public.tend_queue to authenticated, service_role;

-- Lets pg_cron tend the queue every ten seconds. Called below; call it again after the extension was added to the project.
create function sidejob.use_pg_cron() returns boolean
language plpgsql set search_path = '' as $$
begin
  if not exists (select from pg_extension where extname = 'pg_cron') then
    return false;
  end if;
  perform cron.schedule('sidejob', '10 seconds', 'select public.tend_queue()');
  return true;
end $$;
revoke execute on function sidejob.use_pg_cron from public;
select sidejob.use_pg_cron();
