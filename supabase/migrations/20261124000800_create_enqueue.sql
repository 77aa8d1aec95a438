-- Into the queue, and out of it again.

-- One request for a job, with its defaults filled in. Its payload is judged when the request is made, before anything
-- looks into it.
create type sidejob.request as (
  job_id uuid, type text, payload sidejob.payload, executor_id text, priority int, max_attempts int,
  backoff_seconds int, backoff_max_seconds int, run_at timestamptz, idempotency_key text, trace_id text,
  unique_seconds int, depends_on uuid[], on_parent_failure text, blocked_by int
);

-- Who asked for the same lately: a request with unique_seconds is the same job as an equal one (type, payload, executor) that was
-- made less than that before, unless that one has failed or was cancelled.
create table sidejob.unique_requests (
  workspace_id uuid not null,
  fingerprint bytea not null,
  job_id uuid not null,
  until timestamptz not null,
  primary key (workspace_id, fingerprint)
);
create index unique_requests_until on sidejob.unique_requests (until);  -- which are over?
alter table sidejob.unique_requests enable row level security;
revoke all on sidejob.unique_requests from public, anon, authenticated, service_role;

-- A list of objects could not be read: which value is wrong? shape: null as the type whose fields they are. Raises
-- SJ100 that names it, or the check violation (23514) of a value that has the right type, with its place.
create function sidejob.refuse_misfit(name text, list jsonb, shape anyelement, hint text) returns void
language plpgsql set search_path = '' as $$
declare
  given record;
  broken text;
begin
  for given in
    select item.place - 1 as place, field.key, field.value
      from jsonb_array_elements(list) with ordinality as item (value, place)
      left join lateral jsonb_each(case jsonb_typeof(item.value) when 'object' then item.value end) as field on true
     where field.key is not null or jsonb_typeof(item.value) <> 'object'
  loop
    if given.key is null then
      perform sidejob.refuse('SJ100', format('%s[%s]: must be an object', name, given.place), hint);
    end if;
    begin
      perform jsonb_populate_record(shape, jsonb_build_object(given.key, given.value));
    exception when data_exception then
      perform sidejob.refuse('SJ100', format('%s[%s].%s: %s', name, given.place, given.key, left(sqlerrm, 300)), hint);
    when check_violation then
      get stacked diagnostics broken = constraint_name;
      raise check_violation using constraint = broken,
        message = format('%s[%s].%s violates check constraint "%s"', name, given.place, given.key, broken);
    end;
  end loop;
end $$;

-- Fields that become text, numbers and dates: is this more than any of them could be? Texts are what they are.
create function sidejob.is_huge(value jsonb) returns boolean
language sql stable
return jsonb_typeof(value) in ('number', 'array', 'object') and not (sidejob.is_nested_at_most_100_deep(value)
  and sidejob.has_numbers_of_at_most_400_digits(value, 262144) and sidejob.is_at_most(value, 262144));

-- Values of a list whose fields become text, numbers and dates: a huge number, or a list of them, must not be written
-- out for that. Raises SJ100 that names the first. besides: fields that are JSON themselves, and judged by the type of
-- their own.
create function sidejob.refuse_huge(name text, list jsonb, besides text[]) returns void
language plpgsql set search_path = '' as $$
declare
  huge record;
begin
  select item.place - 1 as place, field.key into huge
    from jsonb_array_elements(list) with ordinality as item (value, place)
   cross join lateral jsonb_each(case jsonb_typeof(item.value) when 'object' then item.value else '{}' end) as field
   where field.key <> all (besides) and sidejob.is_huge(field.value)
   limit 1;
  if found then
    perform sidejob.refuse('SJ100',
      format('%s[%s].%s: must not be longer than 256 KiB, nested more than 100 deep, or hold numbers of more than 400 digits',
        name, huge.place, huge.key), 'Send the value in the type that the argument has.');
  end if;
end $$;

-- Writes jobs, and finds those that were there before: one answer a request, in order.
-- Raises SJ301 the key or id stands for another request, SJ302 the id is taken elsewhere.
create function sidejob.write_jobs(home uuid, requests sidejob.request[]) returns table (job_id uuid, queued boolean, status text)
language plpgsql set search_path = '' as $$
#variable_conflict use_column
declare
  me uuid := auth.uid();
  fresh uuid[];
  request sidejob.request;
  first public.jobs;
begin
  with written as (
    insert into public.jobs (id, workspace_id, type, payload, executor_id, priority, max_attempts, backoff_seconds, backoff_max_seconds, blocked_by,
      next_run_at, idempotency_key, created_by, trace_id)
    select r.job_id, home, r.type, r.payload, r.executor_id,
           least(greatest(r.priority, -1), 10),  -- a huge one breaks the constraint, which names it, and no cast
           r.max_attempts, r.backoff_seconds, r.backoff_max_seconds, coalesce(r.blocked_by, 0), greatest(r.run_at, now()),
           case when starts_with(r.idempotency_key, 'cron:') then sidejob.callers_key(r.idempotency_key)
             else r.idempotency_key end,
           me, r.trace_id
      from unnest(requests) as r
    on conflict do nothing returning id)
  select array_agg(w.id) into fresh from written w;

  if cardinality(fresh) = cardinality(requests) then
    return query select r.job_id, true, 'queued' from unnest(requests) as r;
    return;
  end if;
  foreach request in array requests loop
    if request.job_id = any (fresh) then
      fresh := array_remove(fresh, request.job_id);  -- should it come twice, the second is a repeat
      return query select request.job_id, true, 'queued';
      continue;
    end if;
    select * into first from public.jobs j
     where j.id = request.job_id or (j.workspace_id = home and j.idempotency_key = request.idempotency_key)
     order by j.id = request.job_id desc limit 1;
    if first.workspace_id is distinct from home then
      perform sidejob.refuse('SJ302', 'job_id: this id is taken', 'Make a new random UUID.');
    elsif (first.type, first.payload, first.executor_id) is distinct from (request.type, request.payload, request.executor_id) then
      perform sidejob.refuse('SJ301',
        case when first.id = request.job_id then 'job_id' else 'idempotency_key' end || ': it already stands for a job with another type, payload or executor_id',
        'Send the first request again unchanged, or choose a new key.');
    end if;
    return query select first.id, false, first.status;
  end loop;
end $$;

-- JSON as text in which equal values are equal: 1.50 is 1.5, and 1.0 is 1. Whole strings are taken along unchanged, so
-- that nothing that looks like a number within one is touched. It is no JSON any more where something stood before or
-- after it: only to be digested.
create function sidejob.plain_text(value jsonb) returns text
language sql immutable
return case when value::text ~ '\.[0-9]*0[],}]'
  then regexp_replace(value::text, '("(?:[^"\\]|\\.)*")|(\.[0-9]*[1-9])0+([],}])|\.0+([],}])', '\1\2\3\4', 'g')
  else value::text end;

-- The job that an equal request made within its window; null when there is none: then the window is this job's.
-- Each statement sees what was committed before it, so of two who come at once the second sees the first one's job.
create function sidejob.take_window(home uuid, request sidejob.request) returns uuid
language plpgsql set search_path = '' as $$
#variable_conflict use_column
declare
  asked jsonb := jsonb_build_array(request.type, request.executor_id, request.payload);
  print bytea := sha256(convert_to(sidejob.plain_text(asked), 'UTF8'));
  ends timestamptz := clock_timestamp() + make_interval(secs => request.unique_seconds);
  taken record;
begin
  loop
    insert into sidejob.unique_requests values (home, print, request.job_id, ends) on conflict do nothing;
    if found then
      return null;
    end if;
    select u.job_id, u.until into taken from sidejob.unique_requests u where u.workspace_id = home and u.fingerprint = print for update;
    continue when not found;  -- it was over, and cleared away just now
    if taken.until > clock_timestamp() and exists (select from public.jobs j where j.id = taken.job_id and j.status not in ('failed', 'cancelled')) then
      return taken.job_id;
    end if;
    update sidejob.unique_requests u set job_id = request.job_id, until = ends where u.workspace_id = home and u.fingerprint = print;
    return null;
  end loop;
end $$;

-- One request with all that it may ask for. Raises as write_jobs and await_parents, SJ100, and SJ103 for a parent that
-- so many wait for.
create function sidejob.write_job(home uuid, request sidejob.request, out job_id uuid, out queued boolean, out status text)
language plpgsql set search_path = '' as $$
#variable_conflict use_column
declare
  parents record;
  crowded uuid;
begin
  request.job_id := coalesce(request.job_id, sidejob.timed_id());
  if request.unique_seconds not between 1 and 31536000 then
    perform sidejob.refuse('SJ100', 'unique_seconds: must be 1 to 31536000', 'For one job ever, send an idempotency_key.');
  end if;
  if request.on_parent_failure not in ('cancel', 'run') then
    perform sidejob.refuse('SJ100', 'on_parent_failure: must be cancel or run', 'cancel is the default.');
  end if;
  if request.job_id = any (request.depends_on) then
    perform sidejob.refuse('SJ100', 'depends_on: a job cannot wait for itself', 'Leave its own id out.');
  end if;
  if cardinality(request.depends_on) > 0 then
    parents := sidejob.await_parents(home, request.depends_on);
    request.blocked_by := parents.open;
  end if;
  if request.unique_seconds is not null then
    perform from public.jobs j where j.id = request.job_id or (j.workspace_id = home and j.idempotency_key = request.idempotency_key);
    if not found then  -- the same id or key is the same job, window or not
      write_job.job_id := sidejob.take_window(home, request);
    end if;
    if write_job.job_id is not null then
      write_job.queued := false;
      write_job.status := (select j.status from public.jobs j where j.id = write_job.job_id);
      return;
    end if;
  end if;

  select * into write_job.job_id, write_job.queued, write_job.status from sidejob.write_jobs(home, array[request]);
  if write_job.queued and cardinality(request.depends_on) > 0 then
    insert into public.job_dependencies (job_id, parent_id, workspace_id, on_parent_failure, settled, place)
    select write_job.job_id, j.id, home, coalesce(request.on_parent_failure, 'cancel'), j.finished_at is not null,
           1 + coalesce((select max(d.place) from public.job_dependencies d where d.parent_id = j.id), 0)
      from public.jobs j where j.id = any (request.depends_on);
    select d.parent_id into crowded from public.job_dependencies d
     where d.job_id = write_job.job_id and d.place > 10000 and not d.settled limit 1;
    if found then
      perform sidejob.refuse('SJ103', 'depends_on: 10000 jobs wait for this one already',
        'depends_on: at most 10000 jobs wait for one that has not ended; let some wait for a job in between. DETAIL is its id.',
        crowded::text);
    end if;
    if parents.lost is not null and request.on_parent_failure is distinct from 'run' then
      write_job.status := 'cancelled';
      update public.jobs j set status = 'cancelled', finished_at = clock_timestamp(), updated_at = clock_timestamp(), last_event = 'job.cancelled',
             last_detail = jsonb_build_object('by', null, 'was', 'queued', 'parent', parents.lost)
       where j.id = write_job.job_id;
    end if;
  end if;
end $$;

-- Puts a job into the queue. The same job_id, or the same idempotency_key in the workspace, is the same job as long as it
-- asks for the same thing: then nothing is written and queued is false. So is an equal request within unique_seconds.
-- The job waits until all of depends_on have succeeded; when one has not, it is cancelled, or runs all the same (on_parent_failure).
-- Raises SJ100 an argument out of range, SJ102 no workspace, SJ200 a workspace or job that the caller does not see, SJ201 no right to
-- enqueue, SJ103 too many wait for a job, SJ301 the key or id stands for another request, SJ302 the id is taken
-- elsewhere.
create function public.enqueue_job(
  type text, payload jsonb default '{}', executor_id text default 'default', priority int default 0, max_attempts int default 3,
  run_at timestamptz default null, idempotency_key text default null, inout job_id uuid default null, workspace_id uuid default null,
  trace_id text default null, backoff_seconds int default 5, backoff_max_seconds int default 3600, unique_seconds int default null,
  depends_on uuid[] default null, on_parent_failure text default 'cancel', out queued boolean, out status text)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  request sidejob.request;
begin
  request := row(enqueue_job.job_id, enqueue_job.type, enqueue_job.payload, enqueue_job.executor_id, enqueue_job.priority, enqueue_job.max_attempts,
    enqueue_job.backoff_seconds, enqueue_job.backoff_max_seconds, enqueue_job.run_at, enqueue_job.idempotency_key, enqueue_job.trace_id,
    enqueue_job.unique_seconds, enqueue_job.depends_on, enqueue_job.on_parent_failure, 0);
  select * into enqueue_job.job_id, enqueue_job.queued, enqueue_job.status
    from sidejob.write_job(sidejob.require_home(enqueue_job.workspace_id, 'member', 'owner'), request);
end $$;

-- Many jobs at once, 1 to 1,000: a list of objects with the arguments of enqueue_job. Answers in the order of the list; all are written
-- or none. A job may wait for one that stands before it in the list.
create function public.enqueue_jobs(jobs jsonb, workspace_id uuid default null) returns table (job_id uuid, queued boolean, status text)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  home uuid := sidejob.require_home(enqueue_jobs.workspace_id, 'member', 'owner');
  noise uuid := gen_random_uuid();
  requests sidejob.request[];
  request sidejob.request;
  unknown record;
begin
  if jsonb_typeof(enqueue_jobs.jobs) is distinct from 'array' or jsonb_array_length(enqueue_jobs.jobs) not between 1 and 1000 then
    perform sidejob.refuse('SJ100', 'jobs: must be a list of 1 to 1000', 'Send more in several calls.');
  end if;
  select item.place, key.name, sidejob.is_huge(key.value) as huge into unknown
    from jsonb_array_elements(enqueue_jobs.jobs) with ordinality as item (value, place)
   cross join lateral jsonb_each(case jsonb_typeof(item.value) when 'object' then item.value else '{"": null}' end)
     as key (name, value)
   where (key.name <> 'payload' and sidejob.is_huge(key.value)) or key.name not in ('type', 'payload', 'executor_id', 'priority', 'max_attempts', 'run_at', 'idempotency_key', 'job_id', 'trace_id', 'backoff_seconds',
     'backoff_max_seconds', 'unique_seconds', 'depends_on', 'on_parent_failure')
   limit 1;
  if found then
    if unknown.huge then
      perform sidejob.refuse_huge('jobs', enqueue_jobs.jobs, '{payload}');
    end if;
    perform sidejob.refuse('SJ100', format('jobs[%s]%s: %s', unknown.place - 1, coalesce('.' || nullif(unknown.name, ''), ''),
      case unknown.name when '' then 'must be an object' else 'there is no such argument' end), 'A job takes the arguments of enqueue_job.');
  end if;
  begin
    select array_agg(row(coalesce(j.job_id, sidejob.timed_id(noise, j.place::int)), j.type, coalesce(j.payload, '{}'), coalesce(j.executor_id, 'default'), coalesce(j.priority, 0),
             coalesce(j.max_attempts, 3), coalesce(j.backoff_seconds, 5), coalesce(j.backoff_max_seconds, 3600), j.run_at, j.idempotency_key, j.trace_id,
             j.unique_seconds, j.depends_on, coalesce(j.on_parent_failure, 'cancel'), 0)::sidejob.request order by j.place)
      into requests
      from rows from (jsonb_to_recordset(enqueue_jobs.jobs) as (
             type text, payload jsonb, executor_id text, priority int, max_attempts int, run_at timestamptz, idempotency_key text, job_id uuid, trace_id text,
             backoff_seconds int, backoff_max_seconds int, unique_seconds int, depends_on uuid[], on_parent_failure text)) with ordinality as j
             (type, payload, executor_id, priority, max_attempts, run_at, idempotency_key, job_id, trace_id, backoff_seconds, backoff_max_seconds,
              unique_seconds, depends_on, on_parent_failure, place);
  exception when data_exception or check_violation then
    perform sidejob.refuse_misfit('jobs', enqueue_jobs.jobs, null::sidejob.request, 'A job takes the arguments of enqueue_job.');
    raise;
  end;
  if not exists (select from unnest(requests) as r where r.depends_on is not null or r.unique_seconds is not null) then
    return query select * from sidejob.write_jobs(home, requests);
    return;
  end if;
  perform from public.jobs j  -- in order for all of the list, so that two lists cannot wait for each other
    where j.workspace_id = home
        and j.id = any (array(select parent from unnest(requests) as r, unnest(r.depends_on) as parent))
    order by j.id for update;
  foreach request in array requests loop
    return query select * from sidejob.write_job(home, request);
  end loop;
end $$;

-- Jobs that were taken from a worker by a cancel, so that its next heartbeat learns of them even without Realtime.
create table sidejob.cancellations (
  job_id uuid primary key,
  worker_id text not null,
  agent_id text,
  cancelled_at timestamptz not null
);
create index cancellations_of_worker on sidejob.cancellations (worker_id, cancelled_at);  -- which of mine?
alter table sidejob.cancellations enable row level security;
revoke all on sidejob.cancellations from public, anon, authenticated, service_role;

-- Stops a job that has not ended: at once when it is queued; one in a worker's hands loses its lease, which the worker
-- hears by broadcast, and else learns from its next heartbeat or renewal. A job that has ended is left as it is. Raises SJ200, SJ201.
create function public.cancel_job(inout job_id uuid, out status text)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  job record;
begin
  select j.workspace_id, j.status, j.executor_id, j.worker_id, j.agent_id, j.attempts into job from public.jobs j
   where j.id = cancel_job.job_id and j.workspace_id in (select sidejob.readable_workspaces()) for update;
  if not found then
    perform sidejob.refuse_unknown_job();
  end if;
  perform sidejob.require_role(job.workspace_id, 'member', 'owner');
  cancel_job.status := job.status;
  if job.status in ('queued', 'assigned', 'running') then
    cancel_job.status := 'cancelled';
    update public.jobs j set status = 'cancelled', last_event = 'job.cancelled', last_detail = jsonb_build_object('by', auth.uid(), 'was', job.status),
           lease_owner = null, lease_hash = null, lease_until = null, finished_at = clock_timestamp(), updated_at = clock_timestamp()
     where j.id = cancel_job.job_id;
  end if;
  if job.status in ('assigned', 'running') then
    insert into sidejob.cancellations values (cancel_job.job_id, job.worker_id, job.agent_id, clock_timestamp())
    on conflict (job_id) do update set worker_id = excluded.worker_id, agent_id = excluded.agent_id, cancelled_at = excluded.cancelled_at;
    perform realtime.send(jsonb_build_object('jobId', cancel_job.job_id, 'attempt', job.attempts), 'task.cancel',
      'executors:' || job.workspace_id || ':' || job.executor_id, true);
  end if;
end $$;

revoke execute on function sidejob.refuse_misfit, sidejob.is_huge, sidejob.refuse_huge, sidejob.plain_text, sidejob.write_jobs,
  sidejob.take_window, sidejob.write_job from public;
revoke execute on function public.enqueue_job, public.enqueue_jobs, public.cancel_job from public, anon, authenticated, service_role;
grant execute on function public.enqueue_job, public.enqueue_jobs, public.cancel_job to authenticated, service_role;
