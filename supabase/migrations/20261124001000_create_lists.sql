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

-- Dead letters of the caller's workspaces, newest first, paged as recent_jobs.
create function public.recent_dead_letters(
  page_size int default 20, before_created_at timestamptz default null, before_id bigint default null)
returns table (id bigint, job_id uuid, workspace_id uuid, type text, executor_id text, reason text, error jsonb, payload jsonb, attempts int,
  retries int, retried_at timestamptz, retried_as uuid, created_at timestamptz)
language plpgsql stable set search_path = '' as $$
#variable_conflict use_column
begin
  if page_size is null or page_size not between 1 and 1000 then
    perform sidejob.refuse('SJ100', 'page_size: must be 1 to 1000', 'Ask for the next page after it.');
  end if;
  recent_dead_letters.before_created_at := coalesce(recent_dead_letters.before_created_at, 'infinity');
  recent_dead_letters.before_id := coalesce(recent_dead_letters.before_id, 0);
  return query
    select d.id, d.job_id, d.workspace_id, j.type::text, j.executor_id::text, d.reason, d.error::jsonb, d.payload::jsonb,
           j.attempts, d.retries, d.retried_at, d.retried_as, d.created_at
      from sidejob.readable_workspaces() as workspace (id)
     cross join lateral (
       select l.* from public.dead_letters l
        where l.workspace_id = workspace.id and (l.created_at, l.id) < (recent_dead_letters.before_created_at, recent_dead_letters.before_id)
        order by l.created_at desc, l.id desc limit page_size) as d
      join public.jobs j on j.id = d.job_id
     order by d.created_at desc, d.id desc limit page_size;
end $$;

-- What waits and what runs, by executor and type, in the caller's workspaces: what an autoscaler asks. ready: may be claimed now;
-- delayed: due later; blocked: waits for other jobs; oldest_ready_seconds: how long the first that is ready has been due.
create function public.queue_depth(executor_id text default null)
returns table (workspace_id uuid, executor_id text, type text, ready bigint, delayed bigint, blocked bigint, in_flight bigint,
  oldest_ready_seconds int, paused boolean)
language sql stable set search_path = '' as $$
  with mine as materialized (select sidejob.readable_workspaces() as id),
  counted as (
    select j.workspace_id, j.executor_id, j.type, count(*) filter (where j.blocked_by = 0 and j.next_run_at <= now()) as ready,
           count(*) filter (where j.blocked_by = 0 and j.next_run_at > now()) as delayed, count(*) filter (where j.blocked_by > 0) as blocked,
           0::bigint as in_flight, min(j.next_run_at) filter (where j.blocked_by = 0 and j.next_run_at <= now()) as oldest
      from public.jobs j
     where j.status = 'queued' and j.workspace_id in (select id from mine) and (queue_depth.executor_id is null or j.executor_id = queue_depth.executor_id)
     group by j.workspace_id, j.executor_id, j.type
    union all
    select j.workspace_id, j.executor_id, j.type, 0, 0, 0, count(*), null
      from public.jobs j
     where j.status in ('assigned', 'running') and j.workspace_id in (select id from mine)
       and (queue_depth.executor_id is null or j.executor_id = queue_depth.executor_id)
     group by j.workspace_id, j.executor_id, j.type)
  select c.workspace_id, c.executor_id, c.type, sum(c.ready)::bigint, sum(c.delayed)::bigint, sum(c.blocked)::bigint, sum(c.in_flight)::bigint,
         coalesce(extract(epoch from now() - min(c.oldest))::int, 0),
         exists (select from public.paused_executors p where p.workspace_id = c.workspace_id and p.executor_id = c.executor_id)
    from counted c group by c.workspace_id, c.executor_id, c.type order by c.workspace_id, c.executor_id, c.type
$$;

-- How long the oldest transaction of the server that holds a snapshot or has written has been open, idle or not;
-- prepared ones count. Rows that were dead since then cannot be cleaned away, and each claim walks over them: above a
-- minute somebody should end it. Null when it cannot be seen.
create function sidejob.oldest_transaction_seconds() returns int
language sql stable security definer set search_path = '' as $$
  select extract(epoch from clock_timestamp() - least(
    (select min(a.xact_start) from pg_stat_activity a where a.backend_xmin is not null or a.backend_xid is not null),
    (select min(p.prepared) from pg_prepared_xacts p)))::int
$$;

-- Counts of the caller's jobs: all that are open, and those that ended in the last 24 hours. Times and throughput are those of the last
-- hour, of at most the last 1,000 jobs of each workspace.
create function public.metrics_overview() returns jsonb
language sql stable set search_path = '' as $$
  with mine as materialized (select sidejob.readable_workspaces() as id),
  depth as materialized (select * from public.queue_depth()),
  waiting as (select count(*) as jobs, min(j.created_at) as oldest from public.jobs j where j.status = 'queued' and j.workspace_id in (select id from mine)),
  in_flight as (select j.status, count(*) as jobs from public.jobs j
    where j.status in ('assigned', 'running') and j.workspace_id in (select id from mine) group by j.status),
  ended as (select j.status, count(*) as jobs from public.jobs j
    where j.finished_at > now() - interval '24 hours' and j.workspace_id in (select id from mine) group by j.status),
  lately as materialized (
    select mine.id, j.* from mine cross join lateral (
      select k.status, k.attempts, k.released, k.next_run_at, k.started_at, k.finished_at from public.jobs k
       where k.workspace_id = mine.id and k.finished_at > now() - interval '1 hour' order by k.finished_at desc limit 1000) as j),
  times as (
    select count(*) as jobs, avg(attempts - released) as attempts,
           percentile_cont(array[0.5, 0.95]) within group (order by extract(epoch from finished_at - started_at)) as ran,
           percentile_cont(array[0.5, 0.95]) within group (order by extract(epoch from started_at - next_run_at)) as waited
      from lately where status = 'succeeded'),
  rate as (
    select sum(jobs * 60 / seconds) as per_minute from (
      select count(*) as jobs, case count(*) when 1000 then greatest(1, extract(epoch from now() - min(finished_at))) else 3600 end as seconds
        from lately group by id) as each_workspace)
  select jsonb_build_object(
    'counts', jsonb_build_object('queued', (select jobs from waiting), 'assigned', 0, 'running', 0, 'succeeded', 0, 'failed', 0, 'cancelled', 0)
      || coalesce((select jsonb_object_agg(status, jobs) from (select * from in_flight union all select * from ended) as counted), '{}'),
    'oldestQueuedSeconds', (select extract(epoch from now() - oldest)::int from waiting),
    'latest', (select max(newest.created_at) from mine cross join lateral (
      select j.created_at from public.jobs j where j.workspace_id = mine.id order by j.created_at desc, j.id desc limit 1) as newest),
    'executors', (select coalesce(jsonb_agg(jsonb_build_object('workspaceId', workspace_id, 'executorId', executor_id, 'type', type, 'ready', ready,
      'delayed', delayed, 'blocked', blocked, 'inFlight', in_flight, 'oldestReadySeconds', oldest_ready_seconds, 'paused', paused)), '[]') from depth),
    'lastHour', (select jsonb_build_object('sampled', jobs, 'meanAttempts', round(attempts, 2), 'perMinute', round(coalesce(per_minute, 0), 1),
      'runSeconds', jsonb_build_object('p50', round(ran[1]::numeric, 3), 'p95', round(ran[2]::numeric, 3)),
      'waitSeconds', jsonb_build_object('p50', round(waited[1]::numeric, 3), 'p95', round(waited[2]::numeric, 3))) from times cross join rate),
    'oldestTransactionSeconds', sidejob.oldest_transaction_seconds(),
    'ts', now())
$$;

revoke execute on function sidejob.oldest_transaction_seconds from public;
grant execute on function sidejob.oldest_transaction_seconds to authenticated, service_role;
revoke execute on function public.recent_jobs, public.recent_dead_letters, public.queue_depth, public.metrics_overview from public, anon, authenticated, service_role;
grant execute on function public.recent_jobs, public.recent_dead_letters, public.queue_depth, public.metrics_overview to authenticated, service_role;
