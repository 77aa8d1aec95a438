-- Who changed whose rights, and when. Written by trigger, for a change that changes something; nobody may change or
-- remove a line, its owner included.

create table public.audit_log (
  id bigint primary key generated always as identity,
  workspace_id uuid,
  actor_id uuid,              -- auth.uid(); null for the secret key and for SQL by hand
  actor_role text not null,   -- authenticated | service_role | the database role
  action text not null,       -- workspace_members.insert
  subject jsonb not null,     -- {old, new}: the row before and after
  created_at timestamptz not null default clock_timestamp()
);
create index audit_log_recent on public.audit_log (workspace_id, id desc);  -- what happened here lately?

alter table public.audit_log enable row level security;
revoke all on public.audit_log from public, anon, authenticated, service_role;
revoke all on sequence public.audit_log_id_seq from public, anon, authenticated, service_role;
grant select on public.audit_log to authenticated, service_role;
create policy "members and owners read the audit log" on public.audit_log for select to authenticated
  using (workspace_id in (select sidejob.workspaces_as('member', 'owner')));

create function sidejob.audit() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  before jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
  after jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
  changed jsonb := coalesce(after, before);
begin
  if before - 'updated_at' = after - 'updated_at' then
    return null;
  end if;
  insert into public.audit_log (workspace_id, actor_id, actor_role, action, subject)
  values (coalesce(changed ->> 'workspace_id', changed ->> 'id')::uuid, auth.uid(),
    case current_setting('role', true) when 'none' then session_user else current_setting('role', true) end,
    tg_table_name || '.' || lower(tg_op), jsonb_strip_nulls(jsonb_build_object('old', before, 'new', after)));
  return null;
end $$;
revoke execute on function sidejob.audit from public;
create trigger workspaces_audit after insert or update or delete on public.workspaces for each row execute function sidejob.audit();
-- Which workspace is somebody's default is no right, and they may change it as often as they like.
create trigger workspace_members_audit after insert or update of user_id, workspace_id, role, worker_id or delete
  on public.workspace_members for each row execute function sidejob.audit();

create function sidejob.refuse_rewriting() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform sidejob.refuse('SJ304', 'the audit log can only be added to', 'Leave it as it is.');
  return null;
end $$;
revoke execute on function sidejob.refuse_rewriting from public;
create trigger audit_log_append_only before update or delete or truncate on public.audit_log for each statement execute function sidejob.refuse_rewriting();
