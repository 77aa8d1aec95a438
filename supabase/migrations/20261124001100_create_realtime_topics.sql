-- The live side. Realtime is a hint, job_events is the truth: a subscriber reads the rows after the last seq he saw.
--
--   agents:{agentId}                     members of its workspace hear; that agent alone speaks: presence and its state
--   jobs:{jobId}                         whoever may see the job hears; only the database speaks, from the triggers below
--   system:events, the older names       members of any workspace hear; only the secret key speaks
--   executors:{workspaceId}:{executorId} workers of that workspace hear; only the database speaks: there is work
--
-- realtime.messages is shared with the rest of the project: the permissive policies open our topics alone, and the
-- restrictive ones keep a policy of the project's own, however generous, from opening them any further.

do $$
begin
  if exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables)
     and not exists (select from pg_publication_tables where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'job_events') then
    alter publication supabase_realtime add table public.job_events;
  end if;
end $$;

-- The names of before, of which sidejob/channels.py has the meaning.
create function sidejob.is_older_topic(topic text) returns boolean
language sql immutable set search_path = '' as $$
  select topic in ('system.gateway', 'system.health', 'system.config', 'system.events',
    'agents.orchestrator', 'agents.executor', 'agents.research', 'agents.indexing', 'agents.sandbox',
    'tasks.requests', 'tasks.progress', 'tasks.results', 'tasks.errors', 'tasks.delegation')
$$;

create function sidejob.is_our_topic(topic text) returns boolean
language sql immutable set search_path = '' as $$
  select starts_with(topic, 'agents:') or starts_with(topic, 'jobs:') or starts_with(topic, 'executors:')
    or starts_with(topic, 'system:') or sidejob.is_older_topic(topic)
$$;

create function sidejob.may_listen(topic text) returns boolean
language plpgsql stable security definer set search_path = '' as $$
declare
  part text[] := string_to_array(topic, ':');
begin
  return case
    when topic = 'system:events' or sidejob.is_older_topic(topic) then exists (select sidejob.my_workspaces())
    when part[1] = 'jobs' and part[2] ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' and cardinality(part) = 2 then exists (
      select from public.jobs j where j.id = part[2]::uuid and j.workspace_id in (select sidejob.my_workspaces()))
    when part[1] = 'agents' and cardinality(part) = 2 then exists (
      select from public.worker_heartbeats_v2 b where b.agent_id = part[2] and b.workspace_id in (select sidejob.my_workspaces()))
    when part[1] = 'executors' and cardinality(part) = 3 then part[2] in (select served::text from sidejob.workspaces_as('worker') as served)
    else false end;
end $$;

-- An agent's name belongs to the worker that first sent a heartbeat under it.
create function sidejob.may_speak(topic text) returns boolean
language sql stable security definer set search_path = '' as $$
  select starts_with(topic, 'agents:') and exists (
    select from public.worker_heartbeats_v2 b join public.workspace_members m on m.worker_id = b.worker_id
     where b.agent_id = substr(topic, 8) and m.user_id = auth.uid() and m.role = 'worker')
$$;

revoke execute on function sidejob.is_older_topic, sidejob.is_our_topic, sidejob.may_listen, sidejob.may_speak from public;
grant execute on function sidejob.is_older_topic, sidejob.is_our_topic, sidejob.may_listen, sidejob.may_speak to anon, authenticated, service_role;

-- Realtime asks with a row of the very topic that is joined. Both are compared, since realtime.topic() is a setting,
-- which stays what it was after realtime.send, and a row may be of any topic. The restrictive policies look at rows of
-- our topics alone.
create policy "sidejob: members listen" on realtime.messages for select to authenticated
  using (extension in ('broadcast', 'presence') and topic = (select realtime.topic())
      and sidejob.may_listen((select realtime.topic())));
create policy "sidejob: agents speak for themselves" on realtime.messages for insert to authenticated
  with check (extension in ('broadcast', 'presence') and topic = (select realtime.topic())
      and sidejob.may_speak((select realtime.topic())));
create policy "sidejob: nobody else listens" on realtime.messages as restrictive for select to anon, authenticated
  using (not sidejob.is_our_topic(topic)
      or (topic = (select realtime.topic()) and sidejob.may_listen((select realtime.topic()))));
create policy "sidejob: nobody else speaks" on realtime.messages as restrictive for insert to anon, authenticated
  with check (not sidejob.is_our_topic(topic)
      or (topic = (select realtime.topic()) and sidejob.may_speak((select realtime.topic()))));
create policy "sidejob: nobody rewrites" on realtime.messages as restrictive for update to anon, authenticated
  using (not sidejob.is_our_topic(topic)) with check (not sidejob.is_our_topic(topic));

-- When a wake-up was last sent to an executor: a burst of jobs sends one in 100 ms, not one each.
create table sidejob.wake_ups (
  workspace_id uuid not null,
  executor_id text not null,
  sent_at timestamptz not null,
  primary key (workspace_id, executor_id)
) with (fillfactor = 50);
alter table sidejob.wake_ups enable row level security;
revoke all on sidejob.wake_ups from public, anon, authenticated, service_role;

-- Tells the workers of an executor that this job is due. Within 100 ms of the last wake-up it says nothing: a worker that was
-- woken looks a second time a little later. A transaction that finds the note locked sends without writing it down: it may be
-- committed after the one that holds the lock, when that one's message has already been acted on.
create function sidejob.wake(job public.jobs) returns void
language plpgsql security definer set search_path = '' as $$
declare
  ts timestamptz := clock_timestamp();
begin
  if exists (select from sidejob.wake_ups w where w.workspace_id = job.workspace_id and w.executor_id = job.executor_id
                and w.sent_at > ts - interval '100 milliseconds') then
    return;
  end if;
  perform from sidejob.wake_ups w where w.workspace_id = job.workspace_id and w.executor_id = job.executor_id for update skip locked;
  if found then
    update sidejob.wake_ups w set sent_at = ts where w.workspace_id = job.workspace_id and w.executor_id = job.executor_id;
  elsif not exists (select from sidejob.wake_ups w where w.workspace_id = job.workspace_id and w.executor_id = job.executor_id) then
    insert into sidejob.wake_ups values (job.workspace_id, job.executor_id, ts) on conflict do nothing;
  end if;
  perform realtime.send(
    jsonb_build_object('jobId', job.id, 'type', job.type)
      || case when octet_length(job.payload::text) <= 2048 then jsonb_build_object('payload', job.payload) else '{}' end,
    'task.assign', 'executors:' || job.workspace_id || ':' || job.executor_id, true);
end $$;
revoke execute on function sidejob.wake from public;

-- A job that is due wakes its workers: a new one, of many at once one for each executor; one that went back to the queue; one that
-- has nothing more to wait for.
create function sidejob.wake_for_new() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  ts timestamptz := clock_timestamp();
  executor record;
  job public.jobs;
begin
  for executor in  -- found without the jobs' payloads, which would be sorted along
    select distinct n.workspace_id, n.executor_id from now_jobs n where n.next_run_at <= ts and n.blocked_by = 0
  loop
    select * into job from now_jobs n
     where n.workspace_id = executor.workspace_id and n.executor_id = executor.executor_id and n.next_run_at <= ts and n.blocked_by = 0 limit 1;
    perform sidejob.wake(job);
  end loop;
  return null;
end $$;

create function sidejob.wake_for_returned() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if new.next_run_at <= clock_timestamp() then
    perform sidejob.wake(new);
  end if;
  return null;
end $$;

create trigger jobs_wake_new after insert on public.jobs referencing new table as now_jobs
  for each statement execute function sidejob.wake_for_new();
create trigger jobs_wake_returned after update on public.jobs for each row
  when (new.status = 'queued' and new.blocked_by = 0 and (old.status <> 'queued' or old.blocked_by > 0)) execute function sidejob.wake_for_returned();

-- Every event is told, unless a statement writes more than 20 of them: hosted projects cap the messages of a second, and the change stream
-- of job_events carries every one all the same. All of a statement are one INSERT: realtime.send would cost a subtransaction and a plan
-- for each. As there, a broadcast that fails is a warning and no failure of the job's.
create function sidejob.tell() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into realtime.messages (topic, event, payload, private, extension)
  select 'jobs:' || e.job_id, e.event_type, to_jsonb(e) - 'tx', true, 'broadcast'
    from new_events e where (select count(*) from new_events) <= 20 order by e.seq;
  return null;
exception when others then
  raise warning 'sidejob: broadcasting failed: %', sqlerrm;
  return null;
end $$;
create trigger job_events_tell after insert on public.job_events referencing new table as new_events
  for each statement execute function sidejob.tell();

create function sidejob.broadcast(job_id uuid, event_type text, message jsonb) returns void
language sql security definer set search_path = '' as $$
  select realtime.send(message, event_type, 'jobs:' || job_id, true)
$$;
revoke execute on function sidejob.wake_for_new, sidejob.wake_for_returned, sidejob.tell, sidejob.broadcast from public;
