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
  id uuid primary key default sidejob.timed_id(),     -- or one of the caller's own
  workspace_id uuid not null references public.workspaces (id),
  type text not null,                                 -- which handler, `browser.screenshot`
  status text not null default 'queued',
  executor_id text not null default 'default',        -- which group of workers may take it
  worker_id text,                                     -- the worker of the present or last attempt
  agent_id text,                                      -- its process, when the claim named one
  priority smallint not null default 0,               -- 0–9, higher first
  payload jsonb not null default '{}',                -- what to do; never changes
  result jsonb,                                       -- what came of it; set on success
  error jsonb,                                        -- the last attempt's failure {code, message, …}
  progress jsonb,                                     -- the last that was reported
  checkpoint jsonb,                                   -- what the next attempt need not do again
  idempotency_key text,                               -- unique in the workspace for the life of the row
  attempts int not null default 0,                    -- claims so far; a part of the fence, so it never goes down
  released int not null default 0,                    -- attempts handed back, which cost nothing
  max_attempts int not null default 3,
  backoff_seconds int not null default 5,             -- before the second attempt; doubled before each later one
  backoff_max_seconds int not null default 3600,      -- but never more than this
  blocked_by int not null default 0,                  -- jobs that this one waits for
  awaited boolean not null default false,             -- other jobs wait for this one
  next_run_at timestamptz not null default now(),     -- not before
  lease_owner uuid,                                   -- the Auth user who holds, or last held, the lease
  lease_hash bytea,                                   -- SHA-256 of the lease token, which only the claim's answer carries; it stays after the
                                                      -- attempt's end, so that a repeated report can be told from a late one
  lease_until timestamptz,                            -- from then on a sweep may take the job away; set while in flight
  event_seq int not null default 1,                   -- the last job_events.seq given
  last_event text default 'job.queued',               -- why the row moved; becomes job_events.event_type
  last_detail jsonb,                                  -- and job_events.payload
  progress_at timestamptz,                            -- when progress was last stored as an event
  created_by uuid,
  trace_id text,                                      -- W3C trace id of the request that asked for it
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  started_at timestamptz,                             -- when the present or last attempt's handler began
  finished_at timestamptz,

  -- Every write of a row checks all of these. A count in a regular expression, {0,99}, would cost more than all the rest.
  constraint status_is_known check (status in ('queued', 'assigned', 'running', 'succeeded', 'failed', 'cancelled')),
  constraint type_is_a_short_name check (char_length(type) <= 100 and type ~ '^[A-Za-z0-9][A-Za-z0-9._:-]*$'),
  constraint executor_id_is_a_short_name check (char_length(executor_id) <= 100 and executor_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]*$'),
  constraint agent_id_is_a_short_name check (char_length(agent_id) <= 100 and agent_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]*$'),
  constraint priority_is_0_to_9 check (priority between 0 and 9),
  constraint payload_is_an_object check (jsonb_typeof(payload) = 'object'),
  constraint payload_is_at_most_256_kib check (octet_length(payload::text) <= 262144),
  constraint result_is_at_most_1_mib check (octet_length(result::text) <= 1048576),
  constraint error_is_at_most_64_kib check (octet_length(error::text) <= 65536),
  constraint progress_is_at_most_16_kib check (octet_length(progress::text) <= 16384),
  constraint checkpoint_is_at_most_256_kib check (octet_length(checkpoint::text) <= 262144),
  constraint idempotency_key_is_1_to_200_characters check (char_length(idempotency_key) between 1 and 200),
  constraint trace_id_is_32_hex_digits check (char_length(trace_id) = 32 and trace_id ~ '^[0-9a-f]*$'),
  constraint max_attempts_is_1_to_25 check (max_attempts between 1 and 25),
  constraint backoff_seconds_is_0_to_86400 check (backoff_seconds between 0 and 86400),
  constraint backoff_max_seconds_is_backoff_seconds_to_604800 check (backoff_max_seconds between backoff_seconds and 604800),
  constraint released_is_0_to_attempts check (released between 0 and attempts),
  constraint blocked_by_is_not_negative check (blocked_by >= 0),
  constraint next_run_at_is_before_2100 check (next_run_at < '2100-01-01 00:00:00+00'),
  constraint lease_while_in_flight check
    ((status in ('assigned', 'running')) = (lease_until is not null)
     and (lease_until is null or (lease_owner is not null and lease_hash is not null))),
  constraint started_before_running check (status <> 'running' or started_at is not null),
  constraint finished_at_when_final check ((status in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
  constraint last_event_explains_status check (case status
    when 'queued' then last_event in ('job.queued', 'job.retry_scheduled', 'job.released', 'job.lease_expired')
    when 'assigned' then last_event in ('job.claimed', 'job.progress')
    when 'running' then last_event in ('job.started', 'job.progress')
    when 'succeeded' then last_event = 'job.succeeded'
    when 'failed' then last_event = 'job.dead_lettered'
    else last_event = 'job.cancelled' end)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.02);

-- updated_at, lease_until and progress stand in no index, so that a renewal can be a HOT update.
create index jobs_ready on public.jobs (workspace_id, executor_id, blocked_by, priority desc, next_run_at, id, type collate "C")
  where status = 'queued';                                                             -- which job is next? how many wait, of which type?
create index jobs_in_flight on public.jobs (workspace_id, executor_id, id)
  where status in ('assigned', 'running');                                             -- whose lease ran out? how many run?
create unique index jobs_idempotency on public.jobs (workspace_id, idempotency_key)
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

-- A plain INSERT over REST may set what enqueue_job may set. Every other column must be left as it starts:
-- null, zero, false, the present time, or the first event.
create function sidejob.admit_job() returns trigger
language plpgsql set search_path = '' as $$
declare
  reserved text;
begin
  if new.status <> 'queued' then
    perform sidejob.refuse('SJ101', 'status: a new job is always queued', 'Leave status out, or send "queued".');
  end if;
  select given.key into reserved
    from jsonb_each(to_jsonb(new) - '{id,workspace_id,type,status,executor_id,payload,priority,max_attempts,backoff_seconds,backoff_max_seconds,next_run_at,idempotency_key}'::text[]) as given
   where case given.key when 'event_seq' then given.value <> '1' when 'last_event' then given.value <> '"job.queued"'
         else given.value not in ('null', '0', 'false', to_jsonb(now())) end
   order by given.key limit 1;
  if reserved is not null then
    perform sidejob.refuse('SJ101', format('%s: this column is written by the queue alone', reserved),
      'Leave it out. A worker moves its job with claim_one_job, start_job, renew_lease, report_progress, finish_job and release_job.');
  end if;
  new.workspace_id := coalesce(new.workspace_id, sidejob.my_default_workspace());
  if new.workspace_id is null then
    perform sidejob.refuse('SJ102', 'workspace_id: you have no default workspace',
      'Send workspace_id, or choose a default with set_default_workspace.');
  end if;
  new.next_run_at := greatest(new.next_run_at, now());  -- an early date would jump the queue
  new.created_by := auth.uid();
  return new;
end $$;
revoke execute on function sidejob.admit_job from public;
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
