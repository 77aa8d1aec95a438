-- Who is at work: one row a worker process, written anew every few seconds.

create table public.worker_heartbeats_v2 (
  worker_id text not null,                    -- from the caller's membership
  agent_id sidejob.agent_id not null,         -- the process; unique in the whole project
  workspace_id uuid not null references public.workspaces (id) on delete cascade,
  executor_id sidejob.executor_id not null default 'default',
  status text not null default 'idle',        -- idle | busy | draining | offline (its last word), or one of its own
  running int not null default 0,             -- jobs in hand
  capacity int not null default 1,            -- jobs at once at most
  version text,
  metrics sidejob.metrics not null default '{}',
  last_seen timestamptz not null default clock_timestamp(),
  primary key (worker_id, agent_id),
  constraint agent_id_is_unique unique (agent_id),
  constraint status_is_a_short_word check (status ~ '^[a-z][a-z_-]{0,39}$'),
  constraint running_is_not_negative check (running >= 0),
  constraint capacity_is_not_negative check (capacity >= 0),
  constraint version_is_at_most_100_characters check (char_length(version) <= 100)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

alter table public.worker_heartbeats_v2 enable row level security;
revoke all on public.worker_heartbeats_v2 from public, anon, authenticated, service_role;
grant select on public.worker_heartbeats_v2 to authenticated, service_role;
create policy "members see their workspaces' workers" on public.worker_heartbeats_v2 for select to authenticated
  using (workspace_id in (select sidejob.my_workspaces()));

-- "I am alive." A worker of several workspaces shows up in his default one, else in the oldest. cancelled: jobs of any
-- of its workspaces that were taken from this process in the last ten minutes, the longest time of a lease, by somebody
-- who cancelled them.
create function public.worker_heartbeat(
  agent_id text, executor_id text default 'default', status text default 'idle', running int default 0,
  capacity int default 1, version text default null, metrics jsonb default '{}',
  out worker_id text, out ts timestamptz, out cancelled uuid[])
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  membership record;
begin
  select m.workspace_id, m.worker_id into membership from public.workspace_members m
   where m.user_id = auth.uid() and m.role = 'worker' order by m.is_default desc, m.created_at, m.workspace_id limit 1;
  if not found then
    perform sidejob.refuse('SJ201', 'only a worker sends heartbeats', 'Sign in as a user whose workspace role is worker.');
  end if;
  worker_heartbeat.worker_id := membership.worker_id;
  worker_heartbeat.ts := clock_timestamp();
  perform set_config('synchronous_commit', 'off', true);  -- should the server crash, the next one makes it good
  insert into public.worker_heartbeats_v2 as beat
    (worker_id, agent_id, workspace_id, executor_id, status, running, capacity, version, metrics, last_seen)
  values (membership.worker_id, worker_heartbeat.agent_id, membership.workspace_id, worker_heartbeat.executor_id, worker_heartbeat.status,
    worker_heartbeat.running, worker_heartbeat.capacity, worker_heartbeat.version, coalesce(worker_heartbeat.metrics, '{}'), worker_heartbeat.ts)
  on conflict (agent_id) do update set
    workspace_id = excluded.workspace_id, executor_id = excluded.executor_id, status = excluded.status, running = excluded.running,
    capacity = excluded.capacity, version = excluded.version, metrics = excluded.metrics, last_seen = excluded.last_seen
    where beat.worker_id = excluded.worker_id;
  if not found then
    perform sidejob.refuse('SJ303', 'agent_id: another worker uses this name', 'Give each process a name of its own, for example worker_id and a random part.');
  end if;
  worker_heartbeat.cancelled := array(
    select c.job_id from sidejob.cancellations c
     where c.worker_id = any (array(  -- it has a name in each of its workspaces
             select m.worker_id from public.workspace_members m where m.user_id = auth.uid() and m.role = 'worker'))
       and (c.agent_id is null or c.agent_id = worker_heartbeat.agent_id)
       and c.cancelled_at > worker_heartbeat.ts - interval '10 minutes' order by c.cancelled_at);
end $$;

-- Workers heard of in the last 20 seconds, by the database's clock, who have not said goodbye.
create function public.active_workers() returns setof public.worker_heartbeats_v2
language sql stable set search_path = '' as $$
  select * from public.worker_heartbeats_v2 b where b.last_seen > clock_timestamp() - interval '20 seconds' and b.status <> 'offline'
   order by b.last_seen desc, b.agent_id desc
$$;

revoke execute on function public.worker_heartbeat, public.active_workers from public, anon, authenticated, service_role;
grant execute on function public.worker_heartbeat to authenticated;
grant execute on function public.active_workers to authenticated, service_role;
