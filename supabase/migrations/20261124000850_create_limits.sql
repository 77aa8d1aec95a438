-- How much may run at once, how much may be begun in a while, and what is not to begin at all. Who sets no limit pays nothing for them.

-- A limit counts the jobs of one executor, or of the whole workspace when executor_id is null, whose type begins with type_prefix.
create table public.job_limits (
  id uuid primary key default gen_random_uuid(),
  workspace_id uuid not null default sidejob.my_default_workspace() references public.workspaces (id) on delete cascade,
  executor_id sidejob.executor_id,
  type_prefix text not null default '',
  max_running int,                                  -- jobs in workers' hands at once
  max_starts int,                                   -- claims in any per_seconds
  per_seconds int,
  starts timestamptz[] not null default '{}',       -- the last claims that count against max_starts
  created_at timestamptz not null default now(),
  constraint type_prefix_is_the_start_of_a_type check (type_prefix ~ '^[A-Za-z0-9._:-]{0,100}$'),
  constraint max_running_is_0_to_100000 check (max_running between 0 and 100000),
  constraint max_starts_is_1_to_1000 check (max_starts between 1 and 1000),
  constraint per_seconds_is_1_to_86400 check (per_seconds between 1 and 86400),
  constraint max_starts_and_per_seconds_go_together check ((max_starts is null) = (per_seconds is null)),
  constraint max_running_or_max_starts_is_set check (max_running is not null or max_starts is not null),
  constraint executor_id_and_type_prefix_are_limited_once unique nulls not distinct (workspace_id, executor_id, type_prefix)
);

-- An executor whose jobs wait. What its workers hold already they finish.
create table public.paused_executors (
  workspace_id uuid not null references public.workspaces (id) on delete cascade,
  executor_id sidejob.executor_id not null,
  reason text,
  paused_by uuid,
  paused_at timestamptz not null default now(),
  primary key (workspace_id, executor_id),
  constraint reason_is_at_most_1000_characters check (char_length(reason) <= 1000)
);

alter table public.job_limits enable row level security;
alter table public.paused_executors enable row level security;
revoke all on public.job_limits, public.paused_executors from public, anon, authenticated, service_role;
grant select, insert (workspace_id, executor_id, type_prefix, max_running, max_starts, per_seconds), update (max_running, max_starts, per_seconds), delete
  on public.job_limits to authenticated, service_role;
grant select on public.paused_executors to authenticated, service_role;

create policy "members see their workspaces' limits" on public.job_limits for select to authenticated
  using (workspace_id in (select sidejob.my_workspaces()));
create policy "owners add limits" on public.job_limits for insert to authenticated
  with check (workspace_id in (select sidejob.workspaces_as('owner')));
create policy "owners change limits" on public.job_limits for update to authenticated
  using (workspace_id in (select sidejob.workspaces_as('owner'))) with check (workspace_id in (select sidejob.workspaces_as('owner')));
create policy "owners remove limits" on public.job_limits for delete to authenticated
  using (workspace_id in (select sidejob.workspaces_as('owner')));
create policy "members see what is paused" on public.paused_executors for select to authenticated
  using (workspace_id in (select sidejob.my_workspaces()));

-- A claim counts the jobs of each limit that fits it, and looks up whether its executor is paused.
create trigger job_limits_bound after insert on public.job_limits referencing new table as new_rows
  for each statement execute function sidejob.bound_rows('500');
create trigger paused_executors_bound after insert on public.paused_executors referencing new table as new_rows
  for each statement execute function sidejob.bound_rows('1000');
create trigger job_limits_audit after insert or delete or update of max_running, max_starts, per_seconds on public.job_limits
  for each row execute function sidejob.audit();
create trigger paused_executors_audit after insert or update or delete on public.paused_executors for each row execute function sidejob.audit();

-- From now on no job of this executor is claimed. A second call changes the reason alone.
create function public.pause_executor(executor_id text, workspace_id uuid default null, reason text default null) returns void
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
begin
  insert into public.paused_executors as paused (workspace_id, executor_id, reason, paused_by)
  values (sidejob.require_home(pause_executor.workspace_id, 'owner'), pause_executor.executor_id, pause_executor.reason, auth.uid())
  on conflict (workspace_id, executor_id) do update set reason = excluded.reason where paused.reason is distinct from excluded.reason;
end $$;

-- Jobs of this executor are claimed again; its workers are woken. Harmless when it was not paused.
create function public.resume_executor(executor_id text, workspace_id uuid default null) returns void
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  home uuid := sidejob.require_home(resume_executor.workspace_id, 'owner');
  due public.jobs;
begin
  delete from public.paused_executors p where p.workspace_id = home and p.executor_id = resume_executor.executor_id;
  select * into due from public.jobs j
   where j.workspace_id = home and j.executor_id = resume_executor.executor_id and j.status = 'queued' and j.blocked_by = 0 and j.next_run_at <= now()
   limit 1;
  if found then
    perform sidejob.wake(due);
  end if;
end $$;

revoke execute on function public.pause_executor, public.resume_executor from public, anon, authenticated, service_role;
grant execute on function public.pause_executor, public.resume_executor to authenticated, service_role;
