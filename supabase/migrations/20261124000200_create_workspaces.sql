-- Who may see and do what. Every person, agent and worker is an ordinary Auth user; his rights are rows here,
-- looked up by auth.uid() on each call, so that deleting a row takes them away at once.

create table public.workspaces (
  id uuid primary key default gen_random_uuid(),
  name text not null,
  retention_days int default 30,  -- how long what has ended is kept; null for ever
  created_at timestamptz not null default now(),
  constraint name_is_1_to_100_characters check (char_length(name) between 1 and 100),
  constraint retention_days_is_1_to_3650 check (retention_days between 1 and 3650)
);

create table public.workspace_members (
  user_id uuid not null references auth.users (id) on delete cascade,
  workspace_id uuid not null references public.workspaces (id) on delete cascade,
  role text not null,
  is_default boolean not null default false,  -- where his jobs go when they name no workspace; only he, or provisioning, sets it
  worker_id text,                             -- a worker's name in heartbeats and jobs; provisioning gives it
  created_at timestamptz not null default now(),
  constraint user_id_is_a_member_once primary key (user_id, workspace_id),
  constraint role_is_known check (role in ('viewer', 'member', 'owner', 'worker')),
  constraint worker_id_belongs_to_workers check ((role = 'worker') = (worker_id is not null)),
  constraint worker_id_is_a_short_name check (worker_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$')
);
create index workspace_members_of_workspace on public.workspace_members (workspace_id);                     -- who is in it?
create unique index workspace_members_one_default on public.workspace_members (user_id) where is_default;  -- where do his jobs go?
create unique index workspace_members_worker_id on public.workspace_members (worker_id) where worker_id is not null;  -- is the name taken?

alter table public.workspaces enable row level security;
alter table public.workspace_members enable row level security;
revoke all on public.workspaces, public.workspace_members from public, anon, authenticated, service_role;

-- The workspaces in which the caller has one of these roles. In a policy write it as a sub-select,
-- so that it runs once a query and not once a row.
create function sidejob.workspaces_as(variadic roles text[]) returns setof uuid
language sql stable security definer set search_path = '' as $$
  select m.workspace_id from public.workspace_members m where m.user_id = auth.uid() and m.role = any (roles)
$$;

create function sidejob.my_workspaces() returns setof uuid
language sql stable security definer set search_path = '' as $$
  select m.workspace_id from public.workspace_members m where m.user_id = auth.uid()
$$;

create function sidejob.my_default_workspace() returns uuid
language sql stable security definer set search_path = '' as $$
  select m.workspace_id from public.workspace_members m where m.user_id = auth.uid() and m.is_default
$$;

-- The server sees every workspace; a list over "all that the caller may read" starts here.
create function sidejob.readable_workspaces() returns setof uuid
language plpgsql stable security definer set search_path = '' as $$
begin
  if sidejob.caller_is_server() then
    return query select w.id from public.workspaces w;
  else
    return query select sidejob.my_workspaces();
  end if;
end $$;

-- Passes the server and whoever has one of these roles there. To anyone else a workspace that he is not in does not exist.
create function sidejob.require_role(workspace uuid, variadic roles text[]) returns void
language plpgsql stable set search_path = '' as $$
begin
  if sidejob.caller_is_server() or workspace in (select sidejob.workspaces_as(variadic roles)) then
    return;
  elsif workspace in (select sidejob.my_workspaces()) then
    perform sidejob.refuse('SJ201', 'your role in this workspace does not allow this', 'It takes one of the roles ' || array_to_string(roles, ', ') || '.');
  end if;
  perform sidejob.refuse('SJ200', 'workspace_id: there is no such workspace', 'Name a workspace that you are a member of.');
end $$;

-- Raises SJ201 for a caller who is a worker of no workspace.
create function sidejob.require_worker() returns void
language plpgsql stable security definer set search_path = '' as $$
begin
  if not exists (select from public.workspace_members m where m.user_id = auth.uid() and m.role = 'worker') then
    perform sidejob.refuse('SJ201', 'only a worker may do this', 'Sign in as a user whose workspace role is worker.');
  end if;
end $$;

-- The workspace that a call speaks of: the one named, else the caller's default one, if his role there allows it. One look finds a
-- member who may; all others are asked more closely, so that each hears what is wrong.
create function sidejob.require_home(workspace uuid, variadic roles text[]) returns uuid
language plpgsql stable set search_path = '' as $$
declare
  home uuid;
begin
  select m.workspace_id into home from public.workspace_members m
   where m.user_id = auth.uid() and m.role = any (roles) and case when workspace is null then m.is_default else m.workspace_id = workspace end;
  if found then
    return home;
  end if;
  home := coalesce(workspace, sidejob.my_default_workspace());
  if home is null then
    perform sidejob.refuse('SJ102', 'workspace_id: you have no default workspace',
      'Send workspace_id, or choose a default with set_default_workspace.');
  end if;
  perform sidejob.require_role(home, variadic roles);
  return home;
end $$;

revoke execute on function sidejob.workspaces_as, sidejob.my_workspaces, sidejob.my_default_workspace, sidejob.readable_workspaces, sidejob.require_role,
  sidejob.require_home, sidejob.require_worker from public;
grant execute on function sidejob.workspaces_as, sidejob.my_workspaces, sidejob.my_default_workspace, sidejob.readable_workspaces
  to authenticated, service_role;

create policy "members see their workspaces" on public.workspaces for select to authenticated
  using (id in (select sidejob.my_workspaces()));
create policy "owners settle their workspaces" on public.workspaces for update to authenticated
  using (id in (select sidejob.workspaces_as('owner'))) with check (id in (select sidejob.workspaces_as('owner')));

create policy "everyone sees his own membership, owners see all" on public.workspace_members for select to authenticated
  using (user_id = (select auth.uid()) or workspace_id in (select sidejob.workspaces_as('owner')));
-- A worker's role is provisioning's alone: it may claim jobs and write results.
create policy "owners add people" on public.workspace_members for insert to authenticated
  with check (role <> 'worker' and workspace_id in (select sidejob.workspaces_as('owner')));
create policy "owners change people's roles" on public.workspace_members for update to authenticated
  using (role <> 'worker' and workspace_id in (select sidejob.workspaces_as('owner')))
  with check (role <> 'worker' and workspace_id in (select sidejob.workspaces_as('owner')));
create policy "owners remove people" on public.workspace_members for delete to authenticated
  using (role <> 'worker' and workspace_id in (select sidejob.workspaces_as('owner')));

-- Somebody who was added without being asked can leave. A worker cannot: its membership is provisioning's.
create policy "people leave" on public.workspace_members for delete to authenticated
  using (role <> 'worker' and user_id = (select auth.uid()));

-- The last owner can neither leave nor take another role, or nobody could add one ever again. The secret key is not
-- asked.
create function sidejob.keep_an_owner() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_op = 'UPDATE' and new.role = 'owner' then
    return new;
  end if;
  -- Two owners who leave at once take turns.
  perform from public.workspaces w where w.id = old.workspace_id for no key update;
  if not exists (
    select from public.workspace_members m
     where m.workspace_id = old.workspace_id and m.role = 'owner' and m.user_id <> old.user_id)
  then
    perform sidejob.refuse('SJ306', 'role: this is the last owner of the workspace', 'Make somebody else an owner first.');
  end if;
  return case tg_op when 'UPDATE' then new else old end;
end $$;
revoke execute on function sidejob.keep_an_owner from public;
create trigger workspace_members_keep_an_owner before update of role or delete on public.workspace_members for each row
  when (old.role = 'owner' and current_user in ('anon', 'authenticated')) execute function sidejob.keep_an_owner();

-- How many rows of a table a workspace may have: so many that nobody notices, and so few that what walks over them
-- takes no time. The first argument is that number. Raises SJ103.
create function sidejob.bound_rows() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  most int := tg_argv[0];
  workspace uuid;
  counted int;
begin
  for workspace in select distinct n.workspace_id from new_rows n order by n.workspace_id loop
    perform from public.workspaces w where w.id = workspace for no key update;  -- of two at once the second counts both
    execute format('select count(*) from (select from public.%I where workspace_id = $1 limit $2) as counted', tg_table_name)
      into counted using workspace, most + 1;
    if counted > most then
      perform sidejob.refuse('SJ103', format('%s: a workspace has at most %s', tg_table_name, most),
        format('%s: a workspace has at most %s of them; remove some first.', tg_table_name, most));
    end if;
  end loop;
  return null;
end $$;
revoke execute on function sidejob.bound_rows from public;

grant select, update (name, retention_days) on public.workspaces to authenticated;
grant select, insert (workspace_id, user_id, role), update (role), delete on public.workspace_members to authenticated;
grant select, insert, update, delete on public.workspaces, public.workspace_members to service_role;

-- Chooses where the caller's jobs go when they name no workspace. Nobody else can change it for him.
create function public.set_default_workspace(workspace_id uuid) returns void
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
begin
  if set_default_workspace.workspace_id is null or set_default_workspace.workspace_id not in (select sidejob.my_workspaces()) then
    perform sidejob.refuse('SJ200', 'workspace_id: there is no such workspace', 'Name a workspace that you are a member of.');
  end if;
  if set_default_workspace.workspace_id = sidejob.my_default_workspace() then
    return;
  end if;
  update public.workspace_members m set is_default = false where m.user_id = auth.uid() and m.is_default;
  update public.workspace_members m set is_default = true
   where m.user_id = auth.uid() and m.workspace_id = set_default_workspace.workspace_id;
end $$;
revoke execute on function public.set_default_workspace from public, anon, authenticated, service_role;
grant execute on function public.set_default_workspace to authenticated;
