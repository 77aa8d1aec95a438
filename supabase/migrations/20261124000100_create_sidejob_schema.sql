-- The private half of Sidejob: functions that policies and transitions stand on. Not exposed over REST.

create schema sidejob;
revoke all on schema sidejob from public;
grant usage on schema sidejob to authenticated, service_role;

-- Raises a domain failure. Callers match the SQLSTATE, people read the rest; docs/errors.md lists them all.
create function sidejob.refuse(code text, message text, hint text, detail text default null) returns void
language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = code, message = message, hint = hint, detail = coalesce(detail, '');
end $$;
revoke execute on function sidejob.refuse from public;
grant execute on function sidejob.refuse to authenticated, service_role;

-- Is this the owner's own hand: the secret key, pg_cron, psql? Inside a SECURITY DEFINER function current_user
-- says nothing about the caller, the setting `role` still does. The authenticator itself may call nothing.
create function sidejob.caller_is_server() returns boolean
language sql stable set search_path = '' as $$
  select current_setting('role', true) in ('service_role', 'none')
$$;
revoke execute on function sidejob.caller_is_server from public;
grant execute on function sidejob.caller_is_server to authenticated, service_role;
