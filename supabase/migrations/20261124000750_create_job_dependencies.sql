-- Jobs that wait for others. A job may wait only for jobs that are there already, so no circle can arise.
-- jobs.blocked_by counts the parents that have not ended; jobs.awaited marks who has children, so that nobody else pays for them.

create table public.job_dependencies (
  job_id uuid not null,                       -- waits
  parent_id uuid not null,                    -- for this one
  workspace_id uuid not null,
  on_parent_failure text not null,            -- what becomes of job_id when the parent fails or is cancelled: cancel | run
  primary key (job_id, parent_id),
  constraint no_job_waits_for_itself check (job_id <> parent_id),
  constraint on_parent_failure_is_cancel_or_run check (on_parent_failure in ('cancel', 'run'))
);
create index job_dependencies_of_parent on public.job_dependencies (parent_id);  -- who waits for it?

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

-- The end of a job that others wait for. A success lets them go on; so does any other end for children that run all the same.
-- The rest are cancelled, and then their own children in turn: generation by generation, since triggers that call each other
-- would fail on a long chain. Children that end here are known by the parent in their detail, and do not come by again.
create function sidejob.settle_children() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  ended uuid[] := array[new.id];
  good boolean := new.status = 'succeeded';
  ts timestamptz := clock_timestamp();
begin
  while ended is not null loop
    update public.jobs j set blocked_by = j.blocked_by - freed.parents, updated_at = ts,
           next_run_at = case when j.blocked_by = freed.parents then greatest(j.next_run_at, ts) else j.next_run_at end
      from (select d.job_id, count(*)::int as parents from public.job_dependencies d
             where d.parent_id = any (ended) and (good or d.on_parent_failure = 'run') group by d.job_id) as freed
     where j.id = freed.job_id and j.status = 'queued' and j.blocked_by >= freed.parents;
    exit when good;
    with doomed as materialized (
      select j.id, min(d.parent_id::text) as parent from public.jobs j join public.job_dependencies d on d.job_id = j.id
       where d.parent_id = any (ended) and d.on_parent_failure = 'cancel' and j.status = 'queued' group by j.id order by j.id),
    cancelled as (
      update public.jobs j set status = 'cancelled', finished_at = ts, updated_at = ts, last_event = 'job.cancelled',
             last_detail = jsonb_build_object('by', null, 'was', 'queued', 'parent', doomed.parent)
        from doomed where j.id = doomed.id and j.status = 'queued'
      returning j.id, j.awaited)
    select array_agg(c.id) filter (where c.awaited) into ended from cancelled c;
  end loop;
  return null;
end $$;
revoke execute on function sidejob.await_parents, sidejob.settle_children from public;

create trigger jobs_settle after update of status on public.jobs for each row
  when (new.awaited and old.finished_at is null and new.finished_at is not null and not (new.last_detail ? 'parent'))
  execute function sidejob.settle_children();
