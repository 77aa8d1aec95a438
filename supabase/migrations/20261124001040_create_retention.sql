-- What has ended is not kept for ever: workspaces.retention_days.

-- Removes up to `wanted` rows of what belongs to these jobs: events, artifacts' rows, dependencies. Returns how many;
-- fewer than `wanted` means that nothing is left. One job may have any number of them. A dependency may be in the hand
-- of one who removes its other end.
create function sidejob.remove_belongings(jobs uuid[], wanted int) returns int
language plpgsql set search_path = '' as $$
declare
  got int;
  done int := 0;
begin
  delete from public.job_events e where e.ctid = any (array(
    select k.ctid from public.job_events k where k.job_id = any (jobs) limit wanted));
  get diagnostics got = row_count;
  done := done + got;
  delete from public.artifacts a where a.ctid = any (array(
    select k.ctid from public.artifacts k where k.job_id = any (jobs) limit wanted - done));
  get diagnostics got = row_count;
  done := done + got;
  delete from public.job_dependencies d where d.ctid = any (array(
    select k.ctid from public.job_dependencies k where k.job_id = any (jobs) limit wanted - done
        for update skip locked));
  get diagnostics got = row_count;
  done := done + got;
  delete from public.job_dependencies d where d.ctid = any (array(
    select k.ctid from public.job_dependencies k where k.parent_id = any (jobs) limit wanted - done
        for update skip locked));
  get diagnostics got = row_count;
  return done + got;
end $$;

-- Removes up to max_jobs jobs that ended longer ago than their workspace keeps them, each workspace its share, with
-- their events, artifacts' rows, dead letters and dependencies. Their files in Storage are found by objects_to_sweep
-- afterwards. Returns how many jobs there were; a job with very many events goes over several calls. One whose children
-- do not all know its end stays until they do. A worker cleans its own workspaces, the server all of them. Raises
-- SJ100, SJ201.
create function public.remove_old_jobs(max_jobs int default 1000) returns int
language plpgsql security definer set search_path = '' as $$
declare
  ends timestamptz := sidejob.upkeep_ends();
  pivot uuid := gen_random_uuid();
  homes uuid[];
  home uuid;
  more uuid[];
  waiting int;   -- workspaces of this round that have not had their turn
  share int;
  since timestamptz;
  old uuid[];
  turns int := 0;
  removed int := 0;
begin
  if max_jobs is null or max_jobs not between 1 and 10000 then
    perform sidejob.refuse('SJ100', 'max_jobs: must be 1 to 10000', 'Call again while the answer equals max_jobs.');
  end if;
  if sidejob.caller_is_server() then  -- at most 1,000 workspaces, other ones each time
    homes := array(
      select w.id from (
        (select w.id, 1 as part from public.workspaces w where w.id > pivot order by w.id limit 1000)
        union all
        (select w.id, 2 from public.workspaces w where w.id <= pivot order by w.id limit 1000)) as w
       order by w.part, w.id limit 1000);
  else
    homes := array(select sidejob.tended_workspaces() order by random());
  end if;
  while cardinality(homes) > 0 and removed < max_jobs loop
    more := '{}';
    waiting := cardinality(homes);
    foreach home in array homes loop
      exit when removed >= max_jobs or (turns > 0 and clock_timestamp() > ends);
      turns := turns + 1;
      share := least(200, ceil((max_jobs - removed)::numeric / waiting));
      waiting := waiting - 1;
      since := (select clock_timestamp() - make_interval(days => w.retention_days) from public.workspaces w
          where w.id = home);
      old := array(
        select j.id from public.jobs j
         where j.workspace_id = home and j.finished_at < since
           and not exists (select from sidejob.settlements s where s.parent_id = j.id)
         order by j.finished_at limit share for update skip locked);
      continue when old = '{}';
      begin
        if sidejob.remove_belongings(old, 2000) < 2000 then
          delete from public.jobs j where j.id = any (old);
          removed := removed + cardinality(old);
        end if;
        more := more || home;
      exception when others then  -- one workspace's failure is not the others'
        raise warning 'sidejob: old jobs of workspace % were not removed: %', home, sqlerrm;
      end;
    end loop;
    exit when clock_timestamp() > ends;
    homes := more;
  end loop;
  return removed;
end $$;

-- Objects of the bucket that nobody needs, among the next max_objects after the name `after`: those that no artifact's row names, whichever
-- job's it is, once their own job is no more or ended an hour ago. scanned_to is where to go on; null when the end was reached.
-- A worker looks at the folders of its own workspaces alone, and learns no name of another's; the server looks at all.
-- Only Storage itself can remove them (the function artifacts-sweep): hosted projects refuse to delete from storage.objects.
create function public.objects_to_sweep(after text default '', max_objects int default 1000, out paths text[], out scanned_to text)
language plpgsql stable security definer set search_path = '' as $$
declare
  everything boolean := sidejob.caller_is_server();
  mine uuid[] := case when not everything then array(select sidejob.tended_workspaces()) end;
  names text[];
begin
  if max_objects is null or max_objects not between 1 and 10000 then
    perform sidejob.refuse('SJ100', 'max_objects: must be 1 to 10000', 'Go on from scanned_to.');
  end if;
  after := coalesce(after, '');
  if everything then
    names := array(
      select o.name from storage.objects o where o.bucket_id = 'artifacts' and o.name collate "C" > after
       order by o.name collate "C" limit max_objects);
  else  -- each folder is a range of names, from the workspace's id and `/` to the character after that
    names := array(
      select o.name from unnest(mine) as home (id)
       cross join lateral (
         select k.name from storage.objects k
          where k.bucket_id = 'artifacts'
              and k.name collate "C" > greatest(after collate "C", (home.id || '/') collate "C")
            and k.name collate "C" < (home.id || '0') collate "C"
          order by k.name collate "C" limit max_objects) as o
       order by o.name collate "C" limit max_objects);
  end if;
  scanned_to := case when cardinality(names) = max_objects then names[max_objects] end;
  paths := array(
    select s.name
      from (select n.name, regexp_match(n.name,
              '^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/\d{4}/\d{2}/\d{2}/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/\d{1,9}/[^/]+$') as part
              from unnest(names) as n (name)) as s
      left join public.jobs j on j.id = s.part[2]::uuid and j.workspace_id = s.part[1]::uuid
     where (everything and exists (select from public.workspaces w where w.id = s.part[1]::uuid)
         or s.part[1]::uuid = any (mine))
       and (j.id is null or j.finished_at < clock_timestamp() - interval '1 hour')
       and not exists (select from public.artifacts a where a.path = s.name)
     order by s.name collate "C");
end $$;

revoke execute on function sidejob.remove_belongings from public;
revoke execute on function public.remove_old_jobs, public.objects_to_sweep from public, anon, authenticated, service_role;
grant execute on function public.remove_old_jobs, public.objects_to_sweep to authenticated, service_role;
