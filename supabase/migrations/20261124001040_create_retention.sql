-- What has ended is not kept for ever: workspaces.retention_days.

-- Removes up to max_jobs jobs that ended longer ago than their workspace keeps them, with their events, artifacts' rows, dead letters
-- and dependencies. What they left in Storage is found by objects_to_sweep afterwards. Returns how many jobs there were.
-- A worker cleans its own workspaces, the server all of them. Raises SJ100, SJ201.
create function public.remove_old_jobs(max_jobs int default 1000) returns int
language plpgsql security definer set search_path = '' as $$
declare
  keeping record;
  old uuid[];
  removed int := 0;
begin
  if max_jobs is null or max_jobs not between 1 and 10000 then
    perform sidejob.refuse('SJ100', 'max_jobs: must be 1 to 10000', 'Call again while the answer equals max_jobs.');
  end if;
  for keeping in
    select w.id, clock_timestamp() - make_interval(days => w.retention_days) as since from public.workspaces w
     where w.retention_days is not null and w.id in (select sidejob.tended_workspaces())
  loop
    select array_agg(gone.id) into old from (
      select j.id from public.jobs j where j.workspace_id = keeping.id and j.finished_at < keeping.since
       order by j.finished_at limit max_jobs - removed for update skip locked) as gone;
    continue when old is null;
    delete from public.artifacts a where a.job_id = any (old);
    delete from public.job_events e where e.job_id = any (old);
    delete from public.job_dependencies d where d.job_id = any (old) or d.parent_id = any (old);
    delete from public.jobs j where j.id = any (old);
    removed := removed + cardinality(old);
    exit when removed >= max_jobs;
  end loop;
  return removed;
end $$;

-- Whose queue the caller may tend. Raises SJ201 for a caller who is neither a worker nor the server.
create function sidejob.tended_workspaces() returns setof uuid
language plpgsql stable security definer set search_path = '' as $$
begin
  if sidejob.caller_is_server() then
    return query select w.id from public.workspaces w;
  else
    return query select sidejob.workspaces_as('worker');
    if not found then
      perform sidejob.refuse('SJ201', 'only a worker or the secret key tends the queue', 'Sign in as a user whose workspace role is worker.');
    end if;
  end if;
end $$;

-- Objects of the bucket that nobody needs, among the next max_objects after the name `after`: those that no artifact's row names, whichever
-- job's it is, once their own job is no more or ended an hour ago. scanned_to is where to go on; null when the end was reached.
-- Only Storage itself can remove them (the function artifacts-sweep): hosted projects refuse to delete from storage.objects.
create function public.objects_to_sweep(after text default '', max_objects int default 1000, out paths text[], out scanned_to text)
language plpgsql stable security definer set search_path = '' as $$
declare
  mine uuid[] := array(select sidejob.tended_workspaces());
  seen int;
begin
  if max_objects is null or max_objects not between 1 and 10000 then
    perform sidejob.refuse('SJ100', 'max_objects: must be 1 to 10000', 'Go on from scanned_to.');
  end if;
  with slice as materialized (
    select o.name, regexp_match(o.name,
        '^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/\d{4}/\d{2}/\d{2}/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/\d{1,9}/[^/]+$') as part
      from storage.objects o where o.bucket_id = 'artifacts' and o.name > objects_to_sweep.after
     order by o.name limit max_objects)
  select count(*), max(s.name),
         coalesce(array_agg(s.name order by s.name) filter (where
           s.part[1]::uuid = any (mine)
           and (j.id is null or j.finished_at < clock_timestamp() - interval '1 hour')
           and not exists (select from public.artifacts a where a.path = s.name)), '{}')
    into seen, scanned_to, paths
    from slice s left join public.jobs j on j.id = s.part[2]::uuid and j.workspace_id = s.part[1]::uuid;
  if seen < max_objects then
    scanned_to := null;
  end if;
end $$;

revoke execute on function sidejob.tended_workspaces from public;
grant execute on function sidejob.tended_workspaces to authenticated, service_role;
revoke execute on function public.remove_old_jobs, public.objects_to_sweep from public, anon, authenticated, service_role;
grant execute on function public.remove_old_jobs, public.objects_to_sweep to authenticated, service_role;
