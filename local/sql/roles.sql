-- What a hosted project has before the user's first migration, as far as Sidejob meets it. Runs at every start.

do $$
begin
  if to_regrole('anon') is null then create role anon nologin noinherit; end if;
  if to_regrole('authenticated') is null then create role authenticated nologin noinherit; end if;
  if to_regrole('service_role') is null then create role service_role nologin noinherit bypassrls; end if;
  if to_regrole('authenticator') is null then create role authenticator nologin noinherit; end if;
  if to_regrole('supabase_realtime_admin') is null then create role supabase_realtime_admin nologin noinherit; end if;
end $$;
grant anon, authenticated, service_role to authenticator;

-- https://supabase.com/docs/guides/database/postgres/timeouts; service_role has authenticator's.
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

create schema if not exists extensions;
grant usage on schema public, extensions to anon, authenticated, service_role;

-- PostgREST reads the schema anew when it is told to; hosted projects tell it after every DDL.
create or replace function extensions.announce_ddl() returns event_trigger language plpgsql as $$
begin
  notify pgrst, 'reload schema';
end $$;
do $$
begin
  if not exists (select from pg_event_trigger where evtname = 'announce_ddl') then
    create event trigger announce_ddl on ddl_command_end execute function extensions.announce_ddl();
    create event trigger announce_drop on sql_drop execute function extensions.announce_ddl();
  end if;
end $$;
