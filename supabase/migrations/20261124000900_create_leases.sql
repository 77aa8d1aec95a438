-- A worker's side of a job's life. Every write after a claim names the job, the attempt and the lease token; if they are not
-- those of the present lease the answer is `lease_lost` (SJ300, the job's status in DETAIL) and nothing is written.
-- The end of a lease in time only allows a sweep to take the job away: until one does, its holder may still renew and finish.

create function sidejob.hash_lease(token text) returns bytea
language sql immutable strict set search_path = '' as $$ select sha256(convert_to(token, 'UTF8')) $$;

create function sidejob.refuse_unknown_job() returns void
language plpgsql set search_path = '' as $$
begin
  perform sidejob.refuse('SJ200', 'job_id: there is no such job', 'It may have been removed, or it belongs to a workspace that you are not in.');
end $$;

-- Why did a fenced write match nothing? To a worker of the workspace the lease is lost; to anyone else the job does not exist.
create function sidejob.refuse_lost_lease(job_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  job record;
begin
  select j.workspace_id, j.status into job from public.jobs j
   where j.id = refuse_lost_lease.job_id and j.workspace_id in (select sidejob.readable_workspaces());
  if not found then
    perform sidejob.refuse_unknown_job();
  end if;
  perform sidejob.require_role(job.workspace_id, 'worker');
  perform sidejob.refuse('SJ300', 'lease_lost: this attempt no longer holds the job', 'Stop working on it and write nothing more. DETAIL names its status.', job.status);
end $$;

create function sidejob.require_lease_seconds(lease_seconds int) returns void
language plpgsql set search_path = '' as $$
begin
  if lease_seconds is null or lease_seconds not between 15 and 600 then
    perform sidejob.refuse('SJ100', 'lease_seconds: must be 15 to 600', 'Take a short lease and renew it at half its time.');
  end if;
end $$;

-- Seconds before attempt n + 1: 5, 10, 20, … up to an hour, the upper half of each at random.
create function sidejob.retry_delay(attempt int) returns interval
language sql volatile set search_path = '' as $$
  select make_interval(secs => least(3600, 5 * 2 ^ least(attempt - 1, 12)) * (1 + random()) / 2)
$$;

-- What a claim answers: the job, and once only the token of its lease.
create type public.claimed_job as (
  id uuid, workspace_id uuid, type text, status text, executor_id text, worker_id text, agent_id text, priority smallint, payload jsonb, error jsonb,
  checkpoint jsonb, idempotency_key text, attempts int, attempt int, released int, max_attempts int, lease_owner uuid, lease_token text,
  lease_until timestamptz, next_run_at timestamptz, created_by uuid, trace_id text, created_at timestamptz, updated_at timestamptz
);

-- Takes up to max_jobs due jobs of the caller's workspaces under a lease each, highest priority and longest due first.
-- Raises SJ100 for an argument out of range, SJ201 for a caller who is no worker. An empty queue is no row.
create function public.claim_jobs(
  executor_id text default 'default', max_jobs int default 1, lease_seconds int default 60, type_prefix text default null, agent_id text default null)
returns setof public.claimed_job
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  membership record;
  ts timestamptz := clock_timestamp();  -- a variable, since a volatile call could be no bound of an index range
  level smallint;
  wanted int := claim_jobs.max_jobs;
  got int;
begin
  perform sidejob.require_lease_seconds(claim_jobs.lease_seconds);
  if wanted is null or wanted not between 1 and 1000 then
    perform sidejob.refuse('SJ100', 'max_jobs: must be 1 to 1000', 'Claim as many as you have hands for.');
  end if;
  for membership in
    select m.workspace_id, m.worker_id from public.workspace_members m where m.user_id = auth.uid() and m.role = 'worker' order by random()
  loop
    level := 32767;
    loop  -- one priority after the other, so that far-off jobs of a high one are never read
      exit when wanted = 0;
      select max(j.priority) into level from public.jobs j
       where j.workspace_id = membership.workspace_id and j.executor_id = claim_jobs.executor_id
         and j.status = 'queued' and j.blocked_by = 0 and j.priority < level;
      exit when level is null;
      return query
        with due as materialized (
          select j.id, gen_random_uuid()::text as token from public.jobs j
           where j.workspace_id = membership.workspace_id and j.executor_id = claim_jobs.executor_id
             and j.status = 'queued' and j.blocked_by = 0 and j.priority = level and j.next_run_at <= ts
             and (claim_jobs.type_prefix is null or starts_with(j.type, claim_jobs.type_prefix))
           order by j.next_run_at, j.id limit wanted for update skip locked),
        taken as (
          update public.jobs j set status = 'assigned', attempts = j.attempts + 1, worker_id = membership.worker_id, agent_id = claim_jobs.agent_id,
                 lease_owner = auth.uid(), lease_hash = sidejob.hash_lease(due.token),
                 lease_until = ts + make_interval(secs => claim_jobs.lease_seconds), updated_at = ts,
                 progress = null, last_event = 'job.claimed',
                 last_detail = jsonb_build_object('worker_id', membership.worker_id, 'agent_id', claim_jobs.agent_id, 'lease_owner', auth.uid())
            from due where j.id = due.id
          returning j.*, due.token)
        select t.id, t.workspace_id, t.type, t.status, t.executor_id, t.worker_id, t.agent_id, t.priority, t.payload, t.error,
               t.checkpoint, t.idempotency_key, t.attempts, t.attempts, t.released, t.max_attempts, t.lease_owner, t.token,
               t.lease_until, t.next_run_at, t.created_by, t.trace_id, t.created_at, t.updated_at
          from taken t order by t.next_run_at, t.id;
      get diagnostics got = row_count;
      wanted := wanted - got;
    end loop;
  end loop;
  if membership is null then
    perform sidejob.refuse('SJ201', 'only a worker claims jobs', 'Sign in as a user whose workspace role is worker.');
  end if;
end $$;

create function public.claim_one_job(
  executor_id text default 'default', lease_seconds int default 60, type_prefix text default null, agent_id text default null)
returns setof public.claimed_job
language sql set search_path = '' as $$
  select * from public.claim_jobs(executor_id, 1, lease_seconds, type_prefix, agent_id)
$$;

-- "My handler begins." A second call by the same holder changes nothing.
create function public.start_job(job_id uuid, attempt int, lease_token text, out status text, out lease_until timestamptz)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
begin
  update public.jobs j set status = 'running', started_at = coalesce(j.started_at, clock_timestamp()), updated_at = clock_timestamp(),
         last_event = case j.status when 'assigned' then 'job.started' else j.last_event end,
         last_detail = case j.status when 'assigned' then null else j.last_detail end
   where j.id = start_job.job_id and j.attempts = start_job.attempt and j.lease_hash = sidejob.hash_lease(start_job.lease_token)
     and j.lease_owner = auth.uid() and j.status in ('assigned', 'running') and j.workspace_id in (select sidejob.workspaces_as('worker'))
  returning j.status, j.lease_until into start_job.status, start_job.lease_until;
  if not found then
    perform sidejob.refuse_lost_lease(start_job.job_id);
  end if;
end $$;

-- Moves the lease's end to lease_seconds from now.
create function public.renew_lease(
  job_id uuid, attempt int, lease_token text, lease_seconds int default 60, out status text, out lease_until timestamptz)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
begin
  perform sidejob.require_lease_seconds(renew_lease.lease_seconds);
  update public.jobs j set lease_until = clock_timestamp() + make_interval(secs => renew_lease.lease_seconds), updated_at = clock_timestamp()
   where j.id = renew_lease.job_id and j.attempts = renew_lease.attempt and j.lease_hash = sidejob.hash_lease(renew_lease.lease_token)
     and j.lease_owner = auth.uid() and j.status in ('assigned', 'running') and j.workspace_id in (select sidejob.workspaces_as('worker'))
  returning j.status, j.lease_until into renew_lease.status, renew_lease.lease_until;
  if not found then
    perform sidejob.refuse_lost_lease(renew_lease.job_id);
  end if;
end $$;

-- How far it is. The row always shows the last report and every report is broadcast; the history keeps one a second at most
-- (stored says whether this one).
-- checkpoint, when given, is what the next attempt will find.
create function public.report_progress(
  job_id uuid, attempt int, lease_token text, progress jsonb, checkpoint jsonb default null, out status text, out stored boolean)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  ts timestamptz := clock_timestamp();
begin
  update public.jobs j set progress = report_progress.progress, checkpoint = coalesce(report_progress.checkpoint, j.checkpoint), updated_at = ts,
         progress_at = case when now_stored then ts else j.progress_at end,
         event_seq = j.event_seq + now_stored::int,
         last_event = case when now_stored then 'job.progress' else j.last_event end,
         last_detail = case when now_stored then report_progress.progress else j.last_detail end
    from (select coalesce(ts - k.progress_at >= interval '1 second', true) as now_stored from public.jobs k where k.id = report_progress.job_id) as pace
   where j.id = report_progress.job_id and j.attempts = report_progress.attempt and j.lease_hash = sidejob.hash_lease(report_progress.lease_token)
     and j.lease_owner = auth.uid() and j.status in ('assigned', 'running') and j.workspace_id in (select sidejob.workspaces_as('worker'))
  returning j.status, now_stored into report_progress.status, report_progress.stored;
  if not found then
    perform sidejob.refuse_lost_lease(report_progress.job_id);
  end if;
  if not report_progress.stored then  -- an event that is stored is broadcast by the trigger (…_create_realtime_topics.sql)
    perform sidejob.broadcast(report_progress.job_id, 'job.progress', jsonb_build_object('job_id', report_progress.job_id,
      'event_type', 'job.progress', 'attempt', report_progress.attempt, 'payload', report_progress.progress, 'created_at', ts));
  end if;
end $$;

-- Hands the job back untried, to be run at run_at (now when null). It costs no attempt: a drained worker, another
-- service's rate limit.
create function public.release_job(
  job_id uuid, attempt int, lease_token text, run_at timestamptz default null, reason text default null, out status text, out next_run_at timestamptz)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
begin
  update public.jobs j set status = 'queued', released = j.released + 1, next_run_at = greatest(release_job.run_at, clock_timestamp()),
         lease_until = null, started_at = null, updated_at = clock_timestamp(), last_event = 'job.released',
         last_detail = jsonb_build_object('reason', left(release_job.reason, 1000), 'next_run_at', greatest(release_job.run_at, clock_timestamp()))
   where j.id = release_job.job_id and j.attempts = release_job.attempt and j.lease_hash = sidejob.hash_lease(release_job.lease_token)
     and j.lease_owner = auth.uid() and j.status in ('assigned', 'running') and j.workspace_id in (select sidejob.workspaces_as('worker'))
  returning j.status, j.next_run_at into release_job.status, release_job.next_run_at;
  if not found then
    perform sidejob.refuse_lost_lease(release_job.job_id);
  end if;
end $$;

-- Ends the attempt. ok: the job has succeeded, its artifacts are recorded in the same transaction. Not ok: it runs again at
-- retry_at (else after the usual delay) while attempts are left and give_up is false; then it has failed and is a dead letter.
--
-- The same report a second time changes nothing and answers the same. attempt and lease_token may both be left out by an older
-- worker that knows neither: it must hold the lease, and no earlier attempt may have been its own, or a late report of that
-- one could pass for this.
create function public.finish_job(
  inout job_id uuid, attempt int, lease_token text, ok boolean, result jsonb default null, error jsonb default null, artifacts jsonb default '[]',
  retry_at timestamptz default null, give_up boolean default false, out status text)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  ts timestamptz := clock_timestamp();
  nameless boolean := finish_job.attempt is null and finish_job.lease_token is null;
  job public.jobs;
  reason text;
begin
  if finish_job.ok is null then
    perform sidejob.refuse('SJ100', 'ok: must be true or false', 'Say whether the attempt succeeded.');
  end if;
  select * into job from public.jobs j
   where j.id = finish_job.job_id and j.lease_owner = auth.uid() and j.workspace_id in (select sidejob.workspaces_as('worker'))
     and ((j.attempts = finish_job.attempt and j.lease_hash = sidejob.hash_lease(finish_job.lease_token))
       or (nameless and not exists (
         select from public.job_events e where e.job_id = j.id and e.event_type = 'job.claimed' and e.attempt < j.attempts
            and e.payload ->> 'lease_owner' = auth.uid()::text)))
     for update;
  if not found then
    perform sidejob.refuse_lost_lease(finish_job.job_id);
  end if;

  finish_job.status := job.status;
  if job.status not in ('assigned', 'running') then  -- this very attempt has ended: the same report again, or another one too late?
    if (finish_job.ok and job.status = 'succeeded' and job.result is not distinct from finish_job.result)
      or (not finish_job.ok and job.last_event in ('job.retry_scheduled', 'job.dead_lettered') and job.error is not distinct from finish_job.error) then
      return;
    end if;
    perform sidejob.refuse_lost_lease(finish_job.job_id);
  end if;

  if finish_job.ok then
    finish_job.status := 'succeeded';
    perform sidejob.record_artifacts(job, finish_job.artifacts);
    update public.jobs j set status = 'succeeded', result = finish_job.result, error = null, lease_until = null, finished_at = ts, updated_at = ts,
           last_event = 'job.succeeded', last_detail = jsonb_build_object('artifacts', jsonb_array_length(finish_job.artifacts))
     where j.id = job.id;
    return;
  end if;

  reason := case when finish_job.give_up then 'gave_up' when job.attempts - job.released >= job.max_attempts then 'attempts_exhausted' end;
  if reason is null then
    finish_job.status := 'queued';
    finish_job.retry_at := greatest(coalesce(finish_job.retry_at, ts + sidejob.retry_delay(job.attempts - job.released)), ts);
    update public.jobs j set status = 'queued', error = finish_job.error, next_run_at = finish_job.retry_at, lease_until = null, started_at = null,
           updated_at = ts, last_event = 'job.retry_scheduled',
           last_detail = jsonb_build_object('error', finish_job.error, 'next_run_at', finish_job.retry_at)
     where j.id = job.id;
  else
    finish_job.status := 'failed';
    update public.jobs j set status = 'failed', error = finish_job.error, lease_until = null, finished_at = ts, updated_at = ts,
           last_event = 'job.dead_lettered', last_detail = jsonb_build_object('reason', reason, 'error', finish_job.error)
     where j.id = job.id;
  end if;
end $$;

-- Writes the artifact rows of a result. A row that the worker inserted itself is brought up to date.
create function sidejob.record_artifacts(job public.jobs, artifacts jsonb) returns void
language plpgsql set search_path = '' as $$
begin
  if jsonb_typeof(artifacts) is distinct from 'array' then
    perform sidejob.refuse('SJ100', 'artifacts: must be a list', 'Send [] when there is none.');
  end if;
  insert into public.artifacts (job_id, workspace_id, attempt, name, mime, size, sha256, bucket, path, width, height)
  select job.id, job.workspace_id, job.attempts, a.name, coalesce(a.mime, 'application/octet-stream'), a.size, a.sha256,
         coalesce(a.bucket, 'artifacts'), a.path, a.width, a.height
    from jsonb_to_recordset(artifacts) as a (name text, mime text, size bigint, sha256 text, bucket text, path text, width int, height int)
  on conflict on constraint artifact_name_once_an_attempt do update
    set mime = excluded.mime, size = excluded.size, sha256 = excluded.sha256, path = excluded.path, width = excluded.width, height = excluded.height;
end $$;

-- Takes up to max_jobs jobs away from workers who did not renew in time: back to the queue at once, or to the dead letters when
-- no attempt is left. A worker sweeps its own workspaces, the server all of them. Returns how many there were.
create function public.release_expired_leases(max_jobs int default 100) returns int
language plpgsql security definer set search_path = '' as $$
declare
  ts timestamptz := clock_timestamp();
  failure jsonb := jsonb_build_object('code', 'lease_expired', 'message', 'The worker was not heard of before its lease ended.');
  expired uuid[];
begin
  if max_jobs is null or max_jobs not between 1 and 10000 then
    perform sidejob.refuse('SJ100', 'max_jobs: must be 1 to 10000', 'Sweep again while the answer equals max_jobs.');
  end if;
  if not sidejob.caller_is_server() and not exists (select sidejob.workspaces_as('worker')) then
    perform sidejob.refuse('SJ201', 'only a worker or the secret key sweeps leases', 'Sign in as a user whose workspace role is worker.');
  end if;
  with late as materialized (  -- lease_until is judged again under the row's lock, so a renewal in between wins
    select j.id from public.jobs j
     where j.status in ('assigned', 'running') and j.lease_until < ts
       and (sidejob.caller_is_server() or j.workspace_id in (select sidejob.workspaces_as('worker')))
     order by j.id limit max_jobs for update skip locked),
  freed as (
    update public.jobs j set status = 'queued', error = failure, next_run_at = ts, lease_owner = null, lease_hash = null, lease_until = null,
           started_at = null, updated_at = ts, last_event = 'job.lease_expired', last_detail = jsonb_build_object('worker_id', j.worker_id)
      from late where j.id = late.id returning j.id)
  select array_agg(freed.id) into expired from freed;
  update public.jobs j set status = 'failed', finished_at = ts, last_event = 'job.dead_lettered',
         last_detail = jsonb_build_object('reason', 'lease_expired', 'error', j.error)
   where j.id = any (expired) and j.attempts - j.released >= j.max_attempts;
  return coalesce(cardinality(expired), 0);
end $$;

revoke execute on function sidejob.hash_lease, sidejob.refuse_unknown_job, sidejob.refuse_lost_lease, sidejob.require_lease_seconds, sidejob.retry_delay,
  sidejob.record_artifacts from public;
revoke execute on function public.claim_jobs, public.claim_one_job, public.start_job, public.renew_lease, public.report_progress, public.release_job,
  public.finish_job, public.release_expired_leases from public, anon, authenticated, service_role;
grant execute on function public.claim_jobs, public.claim_one_job, public.start_job, public.renew_lease, public.report_progress, public.release_job,
  public.finish_job to authenticated;
grant execute on function public.release_expired_leases to authenticated, service_role;
