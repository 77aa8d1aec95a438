-- The queue. A row is a job; its life is written by the transitions (…_create_transitions.sql) and by nobody else.
--
--   queued → assigned → running → succeeded | failed | cancelled
--
-- A failed attempt goes back to `queued` with a later next_run_at while the budget lasts: attempts - released < max_attempts.

-- An id that begins with the time, laid out as a UUID of version 7 (RFC 9562): what is made together stands together in every index,
-- and in the order of `place` where many are made at once. The rest is noise, of which one draw serves them all.
create function sidejob.timed_id(noise uuid default gen_random_uuid(), place int default 0) returns uuid
language sql volatile
return (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(place), 3, '0') || substr(noise::text, 20))::uuid;
revoke execute on function sidejob.timed_id from public;
grant execute on function sidejob.timed_id to authenticated, service_role;

create table public.jobs (
  id uuid default sidejob.timed_id(),                               -- or one of the caller's own
  workspace_id uuid not null references public.workspaces (id),
  type sidejob.job_type not null,                                   -- which handler, `browser.screenshot`
  status text not null default 'queued',
  executor_id sidejob.executor_id not null default 'default',       -- which group of workers may take it
  worker_id text,                                                   -- the worker of the present or last attempt
  agent_id sidejob.agent_id,                                        -- its process, when the claim named one
  priority sidejob.priority not null default 0,                     -- 0–9, higher first
  payload sidejob.payload not null default '{}',                    -- what to do; never changes
  result sidejob.result,                                            -- what came of it; set on success
  error sidejob.error,                                              -- the last attempt's failure {code, message, …}
  progress sidejob.progress,                                        -- the last that was reported
  checkpoint sidejob.checkpoint,                                    -- what the next attempt need not do again
  idempotency_key sidejob.idempotency_key,                          -- unique in the workspace for the life of the row
  attempts int not null default 0,                                  -- claims so far; a part of the fence, so it never goes down
  released int not null default 0,                                  -- attempts handed back, which cost nothing
  max_attempts sidejob.max_attempts not null default 3,
  backoff_seconds sidejob.backoff_seconds not null default 5,       -- before the second attempt; doubled before each later one
  backoff_max_seconds int not null default 3600,                    -- but never more than this
  blocked_by int not null default 0,                                -- jobs that this one waits for
  awaited boolean not null default false,                           -- other jobs wait for this one
  next_run_at sidejob.run_time not null default now(),              -- not before
  lease_owner uuid,                                                 -- the Auth user who holds, or last held, the lease
  lease_hash bytea,                                                 -- SHA-256 of the lease token, which only the claim's answer carries; it stays after the
                                                                    -- attempt's end, so that a repeated report can be told from a late one
  lease_until timestamptz,                                          -- from then on a sweep may take the job away; set while in flight
  event_seq int not null default 1,                                 -- the last job_events.seq given
  last_event text default 'job.queued',                             -- why the row moved; becomes job_events.event_type
  last_detail jsonb,                                                -- and job_events.payload
  progress_at timestamptz,                                          -- when progress was last stored as an event
  created_by uuid,
  trace_id sidejob.trace_id,                                        -- W3C trace id of the request that asked for it
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  started_at timestamptz,                                           -- when the present or last attempt's handler began
  finished_at timestamptz,

  constraint id_is_unique_among_jobs primary key (id),
  -- What a single value may be is its domain's affair (…_create_domains.sql); these say which values go together.
  constraint status_is_known check (status in ('queued', 'assigned', 'running', 'succeeded', 'failed', 'cancelled')),
  constraint backoff_max_seconds_is_backoff_seconds_to_604800 check (backoff_max_seconds between backoff_seconds and 604800),
  constraint released_is_0_to_attempts check (released between 0 and attempts),
  constraint blocked_by_is_not_negative check (blocked_by >= 0),
  constraint lease_while_in_flight check
    ((status in ('assigned', 'running')) = (lease_until is not null)
     and (lease_until is null or (lease_owner is not null and lease_hash is not null))),
  constraint started_before_running check (status <> 'running' or started_at is not null),
  constraint finished_at_when_final check ((status in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
  constraint last_event_explains_status check ('{
    "queued": ["job.queued", "job.retry_scheduled", "job.released", "job.lease_expired"],
    "assigned": ["job.claimed", "job.progress"],
    "running": ["job.started", "job.progress"],
    "succeeded": ["job.succeeded"],
    "failed": ["job.dead_lettered"],
    "cancelled": ["job.cancelled"]}'::jsonb -> status ? last_event)  -- one constant: a list of words is read more slowly
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.02);

-- updated_at, lease_until and progress stand in no index, so that a renewal can be a HOT update.
create index jobs_ready on public.jobs (workspace_id, executor_id, blocked_by, priority desc, next_run_at, id, type collate "C")
  where status = 'queued';                                                             -- which job is next? how many wait, of which type?
create index jobs_in_flight on public.jobs (workspace_id, executor_id, id)
  where status in ('assigned', 'running');                                             -- whose lease ran out? how many run?
create unique index idempotency_key_is_unique_among_jobs on public.jobs (workspace_id, idempotency_key)
  where idempotency_key is not null;                                                   -- was this asked before?
create index jobs_recent on public.jobs (workspace_id, created_at, id);                -- what is on page N? read from its end
create index jobs_finished on public.jobs (workspace_id, finished_at)
  where finished_at is not null;                                                       -- what ended since? what may go?

alter table public.jobs enable row level security;
revoke all on public.jobs from public, anon, authenticated, service_role;
-- UPDATE is granted only to be refused by a trigger that names the right call; there is no policy for it either.
grant select, insert, update on public.jobs to authenticated, service_role;

create policy "members see their workspaces' jobs" on public.jobs for select to authenticated
  using (workspace_id in (select sidejob.my_workspaces()));
create policy "members and owners enqueue" on public.jobs for insert to authenticated
  with check (workspace_id in (select sidejob.workspaces_as('member', 'owner')));

-- A key that a caller chose, unless it is a schedule's: those make one job for each slot, under a key that everybody
-- can work out. Raises SJ100.
create function sidejob.callers_key(idempotency_key text) returns text
language plpgsql immutable set search_path = '' as $$
begin
  if starts_with(idempotency_key, 'cron:') then
    perform sidejob.refuse('SJ100', 'idempotency_key: keys that begin with cron: are those of schedules',
      'idempotency_key: choose one that does not begin with cron:, or a schedule could be kept from making its job.');
  end if;
  return idempotency_key;
end $$;

-- A plain INSERT over REST may set what enqueue_job may set. The columns that the queue writes must be left as they
-- start; others, which a project may have added, are its own.
create function sidejob.admit_job() returns trigger
language plpgsql set search_path = '' as $$
declare
  reserved text;
begin
  if new.status <> 'queued' then
    perform sidejob.refuse('SJ101', 'status: a new job is always queued', 'Leave status out, or send "queued".');
  end if;
  reserved := case
    when new.worker_id is not null then 'worker_id'
    when new.agent_id is not null then 'agent_id'
    when new.result is not null then 'result'
    when new.error is not null then 'error'
    when new.progress is not null then 'progress'
    when new.checkpoint is not null then 'checkpoint'
    when new.attempts is distinct from 0 then 'attempts'
    when new.released is distinct from 0 then 'released'
    when new.blocked_by is distinct from 0 then 'blocked_by'
    when new.awaited is distinct from false then 'awaited'
    when new.lease_owner is not null then 'lease_owner'
    when new.lease_hash is not null then 'lease_hash'
    when new.lease_until is not null then 'lease_until'
    when new.event_seq is distinct from 1 then 'event_seq'
    when new.last_event is distinct from 'job.queued' then 'last_event'
    when new.last_detail is not null then 'last_detail'
    when new.progress_at is not null then 'progress_at'
    when new.created_by is not null then 'created_by'
    when new.created_at is distinct from now() then 'created_at'
    when new.updated_at is distinct from now() then 'updated_at'
    when new.started_at is not null then 'started_at'
    when new.finished_at is not null then 'finished_at' end;
  if reserved is not null then
    perform sidejob.refuse('SJ101', format('%s: this column is written by the queue alone', reserved),
      'Leave it out. A worker moves its job with claim_one_job, start_job, renew_lease, report_progress, finish_job and release_job.');
  end if;
  new.idempotency_key := sidejob.callers_key(new.idempotency_key);
  new.workspace_id := coalesce(new.workspace_id, sidejob.my_default_workspace());
  if new.workspace_id is null then
    perform sidejob.refuse('SJ102', 'workspace_id: you have no default workspace',
      'Send workspace_id, or choose a default with set_default_workspace.');
  end if;
  new.next_run_at := greatest(new.next_run_at, now());  -- an early date would jump the queue
  new.created_by := auth.uid();
  return new;
end $$;
revoke execute on function sidejob.callers_key, sidejob.admit_job from public;
grant execute on function sidejob.callers_key to authenticated, service_role;
create trigger jobs_admit before insert on public.jobs for each row
  when (current_user in ('anon', 'authenticated', 'service_role')) execute function sidejob.admit_job();

create function sidejob.refuse_raw_update() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform sidejob.refuse('SJ101', 'a job is moved by its transitions, never by UPDATE',
    'A worker ends its job with finish_job (or start_job, renew_lease, report_progress, release_job); a member stops one with cancel_job.');
  return null;
end $$;
revoke execute on function sidejob.refuse_raw_update from public;
create trigger jobs_refuse_raw_update before update on public.jobs for each statement
  when (current_user in ('anon', 'authenticated', 'service_role')) execute function sidejob.refuse_raw_update();
