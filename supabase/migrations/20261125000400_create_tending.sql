-- Who looks after the queue: any worker, and pg_cron where it is there. Each calls what there is to do one by one.

-- When a workspace was last looked after.
create table sidejob.chores (
  workspace_id uuid primary key references public.workspaces (id) on delete cascade,
  cleaned_at timestamptz not null default '-infinity',
  swept_at timestamptz not null default '-infinity'
);
alter table sidejob.chores enable row level security;
revoke all on sidejob.chores from public, anon, authenticated, service_role;

create index cancellations_by_age on sidejob.cancellations (cancelled_at);  -- which are over?

-- Removes notes that nobody needs any more, at most max_rows of each kind: windows of unique_seconds that are over,
-- cancels of more than ten minutes ago, wake-ups of yesterday, heartbeats of a week ago. Returns how many there were.
-- They belong to the queue, so any worker removes all workspaces' notes, and learns nothing but a number. Raises SJ100,
-- SJ201.
create function public.remove_leftovers(max_rows int default 1000) returns int
language plpgsql security definer set search_path = '' as $$
declare
  ts timestamptz := clock_timestamp();
  got int;
  removed int := 0;
begin
  if max_rows is null or max_rows not between 1 and 10000 then
    perform sidejob.refuse('SJ100', 'max_rows: must be 1 to 10000', 'Call again while the answer is not 0.');
  end if;
  perform sidejob.tended_workspaces();
  delete from sidejob.unique_requests u where u.ctid = any (array(
    select k.ctid from sidejob.unique_requests k where k.until < ts order by k.until limit max_rows
        for update skip locked));
  get diagnostics got = row_count;
  removed := removed + got;
  delete from sidejob.cancellations c where c.ctid = any (array(
    select k.ctid from sidejob.cancellations k where k.cancelled_at < ts - interval '10 minutes'
        order by k.cancelled_at limit max_rows
       for update skip locked));
  get diagnostics got = row_count;
  removed := removed + got;
  delete from sidejob.wake_ups w where w.ctid = any (array(
    select k.ctid from sidejob.wake_ups k where k.sent_at < ts - interval '1 day' limit max_rows
        for update skip locked));
  get diagnostics got = row_count;
  removed := removed + got;
  delete from public.worker_heartbeats_v2 b where b.ctid = any (array(
    select k.ctid from public.worker_heartbeats_v2 k where k.last_seen < ts - interval '7 days' limit max_rows
        for update skip locked));
  get diagnostics got = row_count;
  return removed + got;
end $$;

-- Is it time to call the function artifacts-sweep? True for one worker of a workspace an hour, who is expected to do
-- so. The server is never asked. Raises SJ201.
create function public.begin_object_sweep() returns boolean
language plpgsql security definer set search_path = '' as $$
declare
  ts timestamptz := clock_timestamp();
  mine uuid[];
begin
  if sidejob.caller_is_server() then
    return false;
  end if;
  mine := array(select sidejob.tended_workspaces());
  insert into sidejob.chores (workspace_id) select m.id from unnest(mine) as m (id) on conflict do nothing;
  update sidejob.chores c set swept_at = ts where c.workspace_id = any (array(
    select k.workspace_id from sidejob.chores k
     where k.workspace_id = any (mine) and k.swept_at < ts - interval '1 hour' for update skip locked));
  return found;
end $$;

-- One part of the upkeep within a call of all of it: what it did; 0 when it failed.
create function sidejob.tend(part text, most int) returns int
language plpgsql set search_path = '' as $$
declare
  done int;
begin
  execute format('select public.%I($1)', part) into done using most;
  return done;
exception when others then  -- a failure here must not undo the rest
  raise warning 'sidejob: % failed: %', part, sqlerrm;
  return 0;
end $$;

-- All of the upkeep in one call, for a cron of one's own that has room for one: expired leases, dependencies, schedules
-- and, once a minute, what is too old. One at a time: a second caller is told that it is busy. The calls by themselves
-- are better, since this one is a single transaction: a time-out undoes all of it. So the time of one call is that of
-- all of them together (sidejob.upkeep_ends). A worker tends its own workspaces, the server all of them. Raises SJ201.
create function public.tend_queue(out busy boolean, out released int, out scheduled int, out removed int,
    out sweep_objects boolean, out settled int)
language plpgsql security definer set search_path = '' as $$
declare
  mine uuid[];
  ts timestamptz := clock_timestamp();
  clean boolean := true;
begin
  sweep_objects := false;
  perform sidejob.tended_workspaces();
  busy := not pg_try_advisory_xact_lock(hashtextextended('sidejob.tend_queue', 0));
  if busy then
    return;
  end if;
  released := sidejob.tend('release_expired_leases', 1000);
  settled := sidejob.tend('settle_dependencies', 1000);
  scheduled := sidejob.tend('run_schedules', 100);
  removed := 0;
  sweep_objects := public.begin_object_sweep();
  if not sidejob.caller_is_server() then
    mine := array(select sidejob.tended_workspaces());
    update sidejob.chores c set cleaned_at = ts where c.workspace_id = any (mine)
        and c.cleaned_at < ts - interval '1 minute';
    clean := found;
  end if;
  if clean then
    removed := sidejob.tend('remove_old_jobs', 1000);
    perform sidejob.tend('remove_leftovers', 1000);
  end if;
end $$;

revoke execute on function sidejob.tend from public;
revoke execute on function public.remove_leftovers, public.begin_object_sweep, public.tend_queue from public, anon,
    authenticated, service_role;
grant execute on function public.remove_leftovers, public.begin_object_sweep, public.tend_queue to authenticated,
    service_role;

-- Lets pg_cron tend the queue: a job for each call, so that each is a transaction of its own and one that fails stops
-- no other. Called below; call it again after the extension was added to the project, or to put the jobs back as they
-- were.
create function sidejob.use_pg_cron() returns boolean
language plpgsql set search_path = '' as $$
begin
  if not exists (select from pg_extension where extname = 'pg_cron') then
    return false;
  end if;
  perform cron.schedule('sidejob: leases', '10 seconds', 'select public.release_expired_leases(1000)');
  perform cron.schedule('sidejob: dependencies', '10 seconds', 'select public.settle_dependencies()');
  perform cron.schedule('sidejob: schedules', '10 seconds', 'select public.run_schedules()');
  perform cron.schedule('sidejob: retention', '* * * * *', 'select public.remove_old_jobs()');
  perform cron.schedule('sidejob: leftovers', '* * * * *', 'select public.remove_leftovers()');
  return true;
end $$;
revoke execute on function sidejob.use_pg_cron from public;
select sidejob.use_pg_cron();
