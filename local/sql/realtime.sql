-- The schema realtime as the SQL of a hosted project's users meets it. Runs at every start, before the migrations.

create schema if not exists realtime;
grant usage on schema realtime to anon, authenticated, service_role, supabase_realtime_admin;

-- Private topics are authorised by policies on this table, which starts closed. An inserted row is a broadcast.
create table if not exists realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp not null default now(),
  inserted_at timestamp not null default now(),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  skip_broadcast boolean not null default false,
  expires_at timestamp,
  primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
) partition by range (inserted_at);
create index if not exists messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
  where extension = 'broadcast' and private; -- replay: the newest messages of one topic
alter table realtime.messages enable row level security;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;
alter table realtime.messages owner to supabase_realtime_admin;

-- A partition a day, from yesterday to three days ahead; older ones go. Called at each start and every hour.
create or replace function realtime.tend_partitions() returns void language plpgsql set search_path = '' as $$
declare
  day date;
  old text;
begin
  drop table if exists realtime.messages_default;
  for day in select current_date + n from generate_series(-1, 3) n loop
    if to_regclass(format('realtime.messages_%s', to_char(day, 'YYYY_MM_DD'))) is null then
      execute format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
                     'messages_' || to_char(day, 'YYYY_MM_DD'), day, day + 1);
      execute format('alter table realtime.%I owner to supabase_realtime_admin', 'messages_' || to_char(day, 'YYYY_MM_DD'));
    end if;
  end loop;
  for old in
    select c.relname from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'realtime.messages'::regclass and c.relname ~ '^messages_\d{4}_\d\d_\d\d$'
      and to_date(right(c.relname, 10), 'YYYY_MM_DD') < current_date - 3
  loop
    execute format('drop table realtime.%I', old);
  end loop;
end $$;
select realtime.tend_partitions();

do $$
begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
  if not exists (select from pg_publication where pubname = 'supabase_realtime_messages_publication') then
    create publication supabase_realtime_messages_publication for table realtime.messages
      with (publish = 'insert', publish_via_partition_root = true);
  end if;
  if current_setting('server_version_num')::int >= 180000 then
    -- Hosted projects' changes carry generated columns.
    alter publication supabase_realtime set (publish_generated_columns = stored);
  end if;
end $$;

create or replace function realtime.topic() returns text language sql stable as $$
  select nullif(current_setting('realtime.topic', true), '')
$$;

-- Sends a broadcast when the transaction commits. A failure is a warning, never the end of the caller's transaction.
create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void
language plpgsql as $$
declare
  message_id uuid := gen_random_uuid();
begin
  perform set_config('realtime.topic', topic, true);
  insert into realtime.messages (id, payload, event, topic, private, extension)
  values (message_id,
          case when jsonb_typeof(payload) = 'object' then jsonb_build_object('id', message_id) || payload else payload end,
          event, topic, private, 'broadcast');
exception when others then
  raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end $$;

create or replace function realtime.send_binary(payload bytea, event text, topic text, private boolean default true) returns void
language plpgsql as $$
begin
  perform set_config('realtime.topic', topic, true);
  insert into realtime.messages (binary_payload, event, topic, private, extension)
  values (payload, event, topic, private, 'broadcast');
exception when others then
  raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end $$;

-- For row triggers: sends what changed, privately.
create or replace function realtime.broadcast_changes(
  topic_name text, event_name text, operation text, table_name text, table_schema text, new record, old record,
  level text default 'ROW') returns void
language plpgsql as $$
begin
  if level = 'STATEMENT' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;
  if operation not in ('INSERT', 'UPDATE', 'DELETE') then
    raise exception 'operation % is not supported', operation;
  end if;
  perform realtime.send(
    jsonb_build_object(
      'old_record', case when operation = 'INSERT' then null else to_jsonb(old) end,
      'record', case when operation = 'DELETE' then null else to_jsonb(new) end,
      'operation', operation, 'table', table_name, 'schema', table_schema),
    event_name, topic_name);
exception when others then
  raise exception 'Failed to process the row: %', sqlerrm;
end $$;

-- Waits until every session sees what these transactions, named without their epochs, have committed: the log is written
-- a moment before. A volatile function's statements each look anew.
create or replace function realtime.wait_until_visible(xids bigint[]) returns void language plpgsql as $$
declare
  seen boolean;
begin
  for attempt in 1..2000 loop
    select bool_and(pg_visible_in_snapshot(
             (next_xid + ((xid - next_xid) % 4294967296 + 6442450944) % 4294967296 - 2147483648)::text::xid8, snapshot))
    into seen
    from unnest(xids) xid, pg_current_snapshot() snapshot, lateral (select pg_snapshot_xmax(snapshot)::text::bigint) m (next_xid);
    exit when seen;
    perform pg_sleep(0.0005);
  end loop;
end $$;

-- Which rows each subscriber may see, for the local server alone. checks: [{role, claims (text), keys: [[text, …], …]}, …],
-- a key being the primary key's columns in their order. Answers with a list of the visible keys' places for each check,
-- counted from 0; a policy that raises shows nothing. The keys go through a subquery that is not pulled up, so that the
-- comparison with the column stays an index condition under row level security.
create or replace function realtime.visible(entity regclass, checks jsonb) returns jsonb language plpgsql as $$
declare
  given text;
  same text;
  look text;
  one jsonb;
  seen jsonb;
  answers jsonb := '[]';
begin
  select string_agg(format('(e.v ->> %s)::%s as k%s', n - 1, format_type(a.atttypid, a.atttypmod), n), ', ' order by n),
         string_agg(format('t.%I = k.k%s', a.attname, n), ' and ' order by n)
  into given, same
  from pg_index i cross join lateral unnest(i.indkey::smallint[]) with ordinality as c(attnum, n)
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = c.attnum
  where i.indrelid = entity and i.indisprimary;
  look := format(
    'select coalesce(jsonb_agg(k.n), ''[]'') from (select e.o - 1 as n, %s from jsonb_array_elements($1) with ordinality as e(v, o) offset 0) k'
    ' where exists (select from %s t where %s)', given, entity, same);
  for one in select value from jsonb_array_elements(checks) loop
    begin
      perform set_config('role', one ->> 'role', true), set_config('request.jwt.claims', one ->> 'claims', true);
      execute look into seen using one -> 'keys';
      perform set_config('role', 'none', true);
    exception when others then
      seen := '[]';
      raise log 'a policy of % failed for %: %', entity, one ->> 'role', sqlerrm;
    end;
    answers := answers || jsonb_build_array(seen);
  end loop;
  return answers;
end $$;
revoke execute on function realtime.visible(regclass, jsonb), realtime.wait_until_visible(bigint[]), realtime.tend_partitions()
  from public;
