-- Jobs that wait for others. A job may wait only for jobs that are there already, so no circle can arise.
-- jobs.blocked_by counts the parents whose end has not been dealt with; jobs.awaited marks who has children, so that
-- nobody else pays for them. A job may have any number of children: they are settled in slices, the first with the
-- parent's end, the rest by the upkeep.

create table public.job_dependencies (
  job_id uuid not null,                       -- waits
  parent_id uuid not null,                    -- for this one
  workspace_id uuid not null,
  place int not null,                         -- among those that wait for it: 1, 2, 3, …
  on_parent_failure text not null,            -- what becomes of job_id when the parent fails or is cancelled: cancel | run
  settled boolean not null default false,     -- the parent has ended and job_id has been told, or it had ended before
  primary key (job_id, parent_id),
  constraint no_job_waits_for_itself check (job_id <> parent_id),
  constraint on_parent_failure_is_cancel_or_run check (on_parent_failure in ('cancel', 'run'))
);
-- What goes with it? How many have waited for it?
create index job_dependencies_of_parent on public.job_dependencies (parent_id, place);
-- who still waits for it?
create index job_dependencies_unsettled on public.job_dependencies (parent_id, job_id) where not settled;

alter table public.job_dependencies enable row level security;
revoke all on public.job_dependencies from public, anon, authenticated, service_role;
grant select on public.job_dependencies to authenticated, service_role;
create policy "members see what their workspaces' jobs wait for" on public.job_dependencies for select to authenticated
  using (workspace_id in (select sidejob.my_workspaces()));

-- How many of these parents have not ended yet? Marks them as awaited, and holds them until the child is written, so that none
-- ends unnoticed in between. Raises SJ100 for too many, SJ200 for one that is not there. lost: a parent has ended without success.
create function sidejob.await_parents(workspace uuid, parents uuid[], out open int, out lost uuid)
language plpgsql set search_path = '' as $$
declare
  parent record;
  known int := 0;
begin
  if cardinality(parents) > 100 then
    perform sidejob.refuse('SJ100', 'depends_on: at most 100 jobs', 'Let a job in between wait for some of them.');
  end if;
  open := 0;
  for parent in
    select j.id, j.status, j.awaited from public.jobs j where j.id = any (parents) and j.workspace_id = workspace order by j.id for update
  loop
    known := known + 1;
    if parent.status in ('failed', 'cancelled') then
      lost := coalesce(lost, parent.id);
    elsif parent.status <> 'succeeded' then
      open := open + 1;
      if not parent.awaited then
        update public.jobs j set awaited = true where j.id = parent.id;
      end if;
    end if;
  end loop;
  if known < (select count(distinct wanted) from unnest(parents) as wanted) or array_position(parents, null) is not null then
    perform sidejob.refuse('SJ200', 'depends_on: there is no such job in this workspace', 'A job may wait only for jobs of its workspace that are in the queue already.');
  end if;
end $$;

-- Jobs that have ended and whose children do not all know it yet.
create table sidejob.settlements (
  parent_id uuid primary key,
  workspace_id uuid not null,
  good boolean not null,                                                 -- it has succeeded
  ended_at timestamptz not null default clock_timestamp(),
  -- its children up to this one have been looked at
  after uuid not null default '00000000-0000-0000-0000-000000000000'
);
create index settlements_of_workspace on sidejob.settlements (workspace_id, ended_at, parent_id);  -- which is next?
alter table sidejob.settlements enable row level security;
revoke all on sidejob.settlements from public, anon, authenticated, service_role;

-- Tells up to `wanted` children after `after` that their parent has ended. A success lets them go on; so does any other
-- end for children that run all the same; the rest are cancelled. A child that somebody else holds is passed over, so
-- that nobody who settles ever waits with rows in hand. looked: how many were found; reached: the last of them; ended:
-- the cancelled ones that have children of their own.
create function sidejob.settle_slice(
  parent uuid, good boolean, after uuid, wanted int,
  out looked int, out settled int, out reached uuid, out ended uuid[])
language plpgsql set search_path = '' set plan_cache_mode = 'force_generic_plan' as $$
#variable_conflict use_column
declare
  ts timestamptz := clock_timestamp();
  children uuid[];
  free boolean[];
  held uuid[];
begin
  select array_agg(c.job_id order by c.job_id), array_agg(c.free order by c.job_id) into children, free
    from (select d.job_id, settle_slice.good or d.on_parent_failure = 'run' as free from public.job_dependencies d
           where d.parent_id = settle_slice.parent and not d.settled and d.job_id > settle_slice.after
           order by d.job_id limit settle_slice.wanted) as c;
  looked := coalesce(cardinality(children), 0);
  settled := 0;
  if looked = 0 then
    return;
  end if;
  reached := children[looked];
  held := array(select j.id from public.jobs j where j.id = any (children) order by j.id for update skip locked);
  with moved as (
    update public.jobs j
       set status = case when c.free then 'queued' else 'cancelled' end,
           blocked_by = case when c.free then greatest(j.blocked_by - 1, 0) else j.blocked_by end,
           next_run_at = case when c.free and j.blocked_by = 1 then greatest(j.next_run_at, ts) else j.next_run_at end,
           finished_at = case when not c.free then ts end, updated_at = ts,
               event_seq = j.event_seq + case when c.free then 0 else 1 end,
           last_event = case when c.free then j.last_event else 'job.cancelled' end,
           last_detail = case when c.free then j.last_detail
             else jsonb_build_object('by', null, 'was', 'queued', 'parent', settle_slice.parent) end
      from unnest(children, free) as c (id, free)
     where j.id = any (held) and j.id = c.id and j.status = 'queued'
    returning j.id, j.status, j.awaited)
  select array_agg(m.id) into ended from moved m where m.status = 'cancelled' and m.awaited;
  update public.job_dependencies d set settled = true
   where d.parent_id = settle_slice.parent and d.job_id = any (children)
     and (d.job_id = any (held) or not exists (select from public.jobs j where j.id = d.job_id));
  get diagnostics settled = row_count;
end $$;

-- Settles children of these ended jobs, in this order, and of those children that are cancelled meanwhile: up to
-- `wanted`, in slices, none of which begins later than `ends`. Returns how many. The rest stays in
-- sidejob.settlements.
create function sidejob.settle(parents uuid[], wanted int, ends timestamptz) returns int
language plpgsql set search_path = '' as $$
declare
  work sidejob.settlements;
  slice record;
  size int;
  done int := 0;
begin
  while cardinality(parents) > 0 and done < wanted loop
    select s.* into work from sidejob.settlements s where s.parent_id = parents[1] for update skip locked;
    if not found then
      parents := parents[2:];
      continue;
    end if;
    size := least(100, wanted - done);
    slice := sidejob.settle_slice(work.parent_id, work.good, work.after, size);
    done := done + slice.settled;
    insert into sidejob.settlements (parent_id, workspace_id, good)
    select child, work.workspace_id, false from unnest(slice.ended) as child on conflict do nothing;
    parents := parents || coalesce(slice.ended, '{}');
    if slice.looked = size then
      update sidejob.settlements s set after = slice.reached where s.parent_id = work.parent_id;
    else
      parents := parents[2:];
      if exists (select from public.job_dependencies d where d.parent_id = work.parent_id and not d.settled) then
        -- those in other hands, another time
        update sidejob.settlements s set after = default where s.parent_id = work.parent_id;
      else
        delete from sidejob.settlements s where s.parent_id = work.parent_id;
      end if;
    end if;
    exit when clock_timestamp() > ends;
  end loop;
  return done;
end $$;

-- The end of a job that others wait for. A transaction settles up to 2,000 children at once, within the time that
-- upkeep_ends leaves it; for one that is in another hand (a second parent that ends at the same time) it looks again
-- for a tenth of a second. The upkeep does the rest. Children that are cancelled by it are known by the parent in their
-- detail, and do not come by again.
create function sidejob.settle_children() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  ends timestamptz := sidejob.upkeep_ends();
  room int := coalesce(nullif(current_setting('sidejob.settling_room', true), '')::int, 2000);
begin
  insert into sidejob.settlements (parent_id, workspace_id, good)
      values (new.id, new.workspace_id, new.status = 'succeeded')
  on conflict do nothing;
  while room > 0 and clock_timestamp() < ends loop
    room := room - sidejob.settle(array[new.id], room, ends);
    exit when room <= 0 or not exists (select from sidejob.settlements s where s.parent_id = new.id);
    perform pg_sleep(0.005);
    room := room - 100;  -- so that many parents together wait no longer than one
  end loop;
  perform set_config('sidejob.settling_room', room::text, true);
  return null;
end $$;

create trigger jobs_settle after update of status on public.jobs for each row
  when (new.awaited and old.finished_at is null and new.finished_at is not null and not (new.last_detail ? 'parent'))
  execute function sidejob.settle_children();

-- Tells children of ended jobs, which are too many for one statement, to go on or to end: up to max_jobs, oldest
-- parents first, each workspace its share. Returns how many. A worker does so for its own workspaces, the server for
-- all. Raises SJ100, SJ201.
create function public.settle_dependencies(max_jobs int default 10000) returns int
language plpgsql security definer set search_path = '' as $$
declare
  ends timestamptz := sidejob.upkeep_ends();
  homes uuid[];
  home uuid;
  more uuid[];
  share int;
  got int;
  done int := 0;
begin
  if max_jobs is null or max_jobs not between 1 and 10000 then
    perform sidejob.refuse('SJ100', 'max_jobs: must be 1 to 10000', 'Call again while the answer is not 0.');
  end if;
  if sidejob.caller_is_server() then
    with recursive waiting as (  -- the workspaces in the index, without reading all of it
      (select s.workspace_id from sidejob.settlements s order by s.workspace_id limit 1)
      union all
      select (select s.workspace_id from sidejob.settlements s where s.workspace_id > w.workspace_id
          order by s.workspace_id limit 1)
        from waiting w where w.workspace_id is not null)
    select array_agg(w.workspace_id order by random()) into homes from waiting w where w.workspace_id is not null;
  else
    homes := array(select sidejob.tended_workspaces() order by random());
  end if;
  while cardinality(homes) > 0 and done < max_jobs loop
    more := '{}';
    share := least(500, ceil((max_jobs - done)::numeric / cardinality(homes)));
    foreach home in array homes loop
      exit when done >= max_jobs or (done > 0 and clock_timestamp() > ends);
      begin
        got := sidejob.settle(
          array(select s.parent_id from sidejob.settlements s
                 where s.workspace_id = home order by s.ended_at, s.parent_id limit 20),
          least(share, max_jobs - done), ends);
      exception when others then  -- one workspace's failure is not the others'
        raise warning 'sidejob: dependencies of workspace % were not settled: %', home, sqlerrm;
        got := 0;
      end;
      done := done + got;
      if got > 0 then
        more := more || home;
      end if;
    end loop;
    exit when clock_timestamp() > ends;
    homes := more;
  end loop;
  return done;
end $$;

revoke execute on function sidejob.await_parents, sidejob.settle_slice, sidejob.settle, sidejob.settle_children
    from public;
revoke execute on function public.settle_dependencies from public, anon, authenticated, service_role;
grant execute on function public.settle_dependencies to authenticated, service_role;
