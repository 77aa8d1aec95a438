-- What people look at. Reading stays under RLS: these run in the caller's own name.

-- Jobs of the caller's workspaces, newest first: created_at descending, then id descending. A page begins after
-- (before_created_at, before_id); without before_id it begins before that instant. Each workspace is one range of its index.
create function public.recent_jobs(
  page_size int default 20, before_created_at timestamptz default null, before_id uuid default null,
  status text default null, executor_id text default null, type text default null)
returns setof public.jobs
language plpgsql stable set search_path = '' as $$
#variable_conflict use_column
begin
  if page_size is null or page_size not between 1 and 1000 then
    perform sidejob.refuse('SJ100', 'page_size: must be 1 to 1000', 'Ask for the next page after it.');
  end if;
  -- Filled in here and not in the query: below a policy only a bare parameter can bound an index range (before Postgres 18).
  recent_jobs.before_created_at := coalesce(recent_jobs.before_created_at, 'infinity');
  recent_jobs.before_id := coalesce(recent_jobs.before_id, '00000000-0000-0000-0000-000000000000');
  return query
    select newest.* from sidejob.readable_workspaces() as workspace (id)
     cross join lateral (
       select j.* from public.jobs j
        where j.workspace_id = workspace.id and (j.created_at, j.id) < (recent_jobs.before_created_at, recent_jobs.before_id)
          and (recent_jobs.status is null or j.status = recent_jobs.status)
          and (recent_jobs.executor_id is null or j.executor_id = recent_jobs.executor_id)
          and (recent_jobs.type is null or j.type = recent_jobs.type)
        order by j.created_at desc, j.id desc limit page_size) as newest
     order by newest.created_at desc, newest.id desc limit page_size;
end $$;

-- Counts of the caller's jobs: all that are open, and those that ended in the last 24 hours.
create function public.metrics_overview() returns jsonb
language sql stable set search_path = '' as $$
  with mine as materialized (select sidejob.readable_workspaces() as id),
  waiting as (select count(*) as jobs, min(j.created_at) as oldest from public.jobs j where j.status = 'queued' and j.workspace_id in (select id from mine)),
  in_flight as (select j.status, count(*) as jobs from public.jobs j
    where j.status in ('assigned', 'running') and j.workspace_id in (select id from mine) group by j.status),
  ended as (select j.status, count(*) as jobs from public.jobs j
    where j.finished_at > now() - interval '24 hours' and j.workspace_id in (select id from mine) group by j.status)
  select jsonb_build_object(
    'counts', jsonb_build_object('queued', (select jobs from waiting), 'assigned', 0, 'running', 0, 'succeeded', 0, 'failed', 0, 'cancelled', 0)
      || coalesce((select jsonb_object_agg(status, jobs) from (select * from in_flight union all select * from ended) as counted), '{}'),
    'oldestQueuedSeconds', (select extract(epoch from now() - oldest)::int from waiting),
    'latest', (select max(newest.created_at) from mine cross join lateral (
      select j.created_at from public.jobs j where j.workspace_id = mine.id order by j.created_at desc, j.id desc limit 1) as newest),
    'ts', now())
$$;

revoke execute on function public.recent_jobs, public.metrics_overview from public, anon, authenticated, service_role;
grant execute on function public.recent_jobs, public.metrics_overview to authenticated, service_role;
