-- Jobs by the calendar: cron lines with time zones. A sweep (run_schedules) turns each slot that has come into a job, once.
--
-- The lines are Vixie's (crontab(5)), and so is what happens when the clock is put forward or back (cron(8) of cronie, "Daylight
-- Saving Time and other time changes"). A line with a fixed hour and minute runs once a day whatever the clock does: a time that
-- is left out runs right after the gap, one that comes twice runs the first time. A line whose minute or hour begins with `*`
-- follows real time: nothing in the gap, and again in the hour that comes twice.

-- A cron line, read. Every list holds the numbers that match.
create type sidejob.cron_line as (
  minutes int[], hours int[], days int[], months int[],
  weekdays int[],        -- 0 is Sunday
  last_day boolean,      -- the month's last day matches as well
  last_weekdays int[],   -- and so does the last of each of these in the month
  either_day boolean,    -- days and weekdays are both restricted: a date that is in one of them will do
  real_time boolean      -- the minute or the hour begins with `*`
);

-- The items of a field that end with `L`, without it, and the others; null when there are none.
create function sidejob.split_last(written text, out last text, out usual text)
language sql immutable set search_path = '' as $$
  select string_agg(rtrim(item, 'l'), ',') filter (where item ~ '^([0-7]|sun|mon|tue|wed|thu|fri|sat)?l$'),
         string_agg(item, ',') filter (where item !~ '^([0-7]|sun|mon|tue|wed|thu|fri|sat)?l$')
    from string_to_table(written, ',') as item
$$;

-- The numbers that one field stands for. Raises SJ100 with the field's name.
create function sidejob.read_cron_field(field text, written text, low int, high int, names text[] default '{}') returns int[]
language plpgsql immutable set search_path = '' as $$
declare
  item text;
  part text[];  -- the whole range, its first and last value, the step
  first int;
  last int;
  matching int[] := '{}';
begin
  for item in select string_to_table(written, ',') loop
    part := regexp_match(item, '^(\*|([a-z]+|\d{1,4})(?:-([a-z]+|\d{1,4}))?)(?:/(\d{1,4}))?$');
    if part is null or part[2] = 'l' and (part[3] is not null or part[4] is not null) then
      perform sidejob.refuse('SJ100', format('cron: %s: "%s" cannot be read', field, item),
        'Write *, a number, a range such as 1-5, a step such as */2 or 10-20/5, or several of them with commas.');
    end if;
    if part[1] = '*' then
      first := low;
      last := high;
    else
      -- A name at the end of a range is looked for from the first value on: fri-sun ends with the Sunday after.
      first := case when part[2] ~ '\d' then part[2]::int else array_position(names, part[2]) - 1 + low end;
      last := case when part[3] is null then first
                   when part[3] ~ '\d' then part[3]::int
                   else coalesce(array_position(names, part[3], greatest(first - low + 1, 1)), array_position(names, part[3])) - 1 + low end;
      if first is null or last is null or least(first, last) < low or greatest(first, last) > high then
        perform sidejob.refuse('SJ100', format('cron: %s: "%s" is not within %s to %s', field, item, low, high),
          case when names = '{}' then 'Only numbers stand in this field.' else format('Write numbers, or the names %s.', array_to_string(names, ', ')) end);
      elsif last < first then
        perform sidejob.refuse('SJ100', format('cron: %s: "%s" runs backwards', field, item), 'Write two ranges with a comma, such as 22-23,0-2.');
      elsif part[4] is not null and part[3] is null then
        perform sidejob.refuse('SJ100', format('cron: %s: "%s" is a step without a range', field, item), format('Write %s-%s/%s.', part[2], high, part[4]));
      end if;
    end if;
    if part[4]::int not between 1 and high then
      perform sidejob.refuse('SJ100', format('cron: %s: the step of "%s" is not within 1 to %s', field, item, high),
        'A step counts within its field and begins anew with each hour, day or month.');
    end if;
    matching := matching || array(select generate_series(first, last, coalesce(part[4]::int, 1)));
  end loop;
  return matching;
end $$;

-- Reads five fields or a nickname. Raises SJ100.
create function sidejob.read_cron(expression text) returns sidejob.cron_line
language plpgsql immutable set search_path = '' as $$
declare
  written text := lower(btrim(regexp_replace(expression, '\s+', ' ', 'g')));
  field text[];
  days record;      -- of the month
  weekdays record;
  line sidejob.cron_line;
begin
  if char_length(expression) > 200 then  -- reading is paid by the item
    perform sidejob.refuse('SJ100', 'cron: longer than 200 characters', 'Make two schedules of it.');
  end if;
  written := case written
    when '@hourly' then '0 * * * *'
    when '@daily' then '0 0 * * *'
    when '@midnight' then '0 0 * * *'
    when '@weekly' then '0 0 * * 0'
    when '@monthly' then '0 0 1 * *'
    when '@yearly' then '0 0 1 1 *'
    when '@annually' then '0 0 1 1 *'
    else written end;
  field := string_to_array(written, ' ');
  if written is null or starts_with(written, '@') or cardinality(field) <> 5 then
    perform sidejob.refuse('SJ100', format('cron: "%s" is neither five fields nor a nickname', coalesce(expression, '')),
      'Write minute, hour, day of month, month and day of week, such as 30 7 * * mon-fri; '
      || 'or @hourly, @daily (@midnight), @weekly, @monthly, @yearly (@annually).');
  end if;
  line.minutes := sidejob.read_cron_field('minute', field[1], 0, 59);
  line.hours := sidejob.read_cron_field('hour', field[2], 0, 23);
  days := sidejob.split_last(field[3]);
  weekdays := sidejob.split_last(field[5]);
  if replace(days.last, ',', '') <> '' then
    perform sidejob.refuse('SJ100', format('cron: day of month: "%s" cannot be read', field[3]),
      'The last day of the month is L. The last of a day of the week, such as friL, is written as the day of week.');
  elsif '' = any (string_to_array(weekdays.last, ',')) or weekdays.last = '' then
    perform sidejob.refuse('SJ100', format('cron: day of week: "%s" cannot be read', field[5]),
      'Say the last of which day: 5L or friL. The last day of the month is L as the day of month.');
  end if;
  line.last_day := days.last is not null;
  line.days := sidejob.read_cron_field('day of month', days.usual, 1, 31);
  line.months := sidejob.read_cron_field('month', field[4], 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
  line.weekdays := array(select distinct n % 7 from unnest(sidejob.read_cron_field(
    'day of week', weekdays.usual, 0, 7, '{sun,mon,tue,wed,thu,fri,sat,sun}')) as n);
  line.last_weekdays := array(select distinct n % 7 from unnest(sidejob.read_cron_field(
    'day of week', weekdays.last, 0, 7, '{sun,mon,tue,wed,thu,fri,sat,sun}')) as n);
  line.either_day := not starts_with(field[3], '*') and not starts_with(field[5], '*');
  line.real_time := starts_with(field[1], '*') or starts_with(field[2], '*');
  return line;
end $$;

-- Passes the names of pg_timezone_names, in any case. AT TIME ZONE alone would also take abbreviations, which know no daylight
-- saving, and misspelt names that end in a number. That view reads every zone's file, so a plain Area/City, which can be
-- neither, is only tried out. Raises SJ100.
create function sidejob.require_time_zone(zone text) returns void
language plpgsql stable set search_path = '' as $$
begin
  if zone = 'UTC' then
    return;
  elsif zone ~ '^[A-Za-z]+(/[A-Za-z_-]+)+$' then
    begin
      perform now() at time zone zone;
      return;
    exception when invalid_parameter_value then
      null;  -- refused below
    end;
  elsif exists (select from pg_catalog.pg_timezone_names z where lower(z.name) = lower(zone)) then
    return;
  end if;
  perform sidejob.refuse('SJ100', format('timezone: "%s" is not known', coalesce(zone, '')), 'Name a zone of the IANA database, such as Europe/Berlin or UTC.');
end $$;

-- The first time on the wall clock, from a whole minute on, that the line matches; null when there is none in 45 years.
-- (A leap day on a given weekday may be 40 years away, across 2100.)
create function sidejob.next_on_the_wall(line sidejob.cron_line, start timestamp) returns timestamp
language plpgsql immutable set search_path = '' as $$
declare
  day date := start::date;
  horizon date := (start + interval '45 years')::date;
  from_hour int := extract(hour from start);
  from_minute int := extract(minute from start);
  in_month int;
  in_days boolean;
  in_weekdays boolean;
  hour int;
  minute int;
begin
  while day <= horizon loop
    in_month := (select min(n) from unnest(line.months) as n where n >= extract(month from day));
    if in_month is null then
      day := make_date(extract(year from day)::int + 1, 1, 1);
      continue;
    elsif in_month > extract(month from day) then
      day := make_date(extract(year from day)::int, in_month, 1);
    end if;
    while extract(month from day) = in_month loop
      in_days := extract(day from day)::int = any (line.days) or (line.last_day and extract(day from day + 1) = 1);
      in_weekdays := extract(dow from day)::int = any (line.weekdays)
        or (extract(dow from day)::int = any (line.last_weekdays)
          and extract(month from day + 7) <> extract(month from day));
      if (in_days and in_weekdays) or (line.either_day and (in_days or in_weekdays)) then
        if day > start::date then
          from_hour := 0;
          from_minute := 0;
        end if;
        hour := (select min(n) from unnest(line.hours) as n where n >= from_hour);
        minute := (select min(n) from unnest(line.minutes) as n where n >= case when hour = from_hour then from_minute else 0 end);
        if minute is null then  -- this hour's minutes are over
          hour := (select min(n) from unnest(line.hours) as n where n > from_hour);
          minute := (select min(n) from unnest(line.minutes) as n);
        end if;
        if hour is not null then
          return day + make_time(hour, minute, 0);
        end if;
      end if;
      day := day + 1;
    end loop;
  end loop;
  return null;
end $$;

-- The instant in (low, high] at which the zone's clock was put forward or back; there must be one.
create function sidejob.clock_change(zone text, low timestamptz, high timestamptz) returns timestamptz
language plpgsql stable set search_path = '' set timezone = 'UTC' as $$
declare
  new_offset interval := (high at time zone zone) - high::timestamp;
  middle timestamptz;
begin
  while high - low > interval '1 second' loop
    middle := low + (high - low) / 2;
    if (middle at time zone zone) - middle::timestamp = new_offset then
      high := middle;
    else
      low := middle;
    end if;
  end loop;
  return date_trunc('second', high);
end $$;

-- The line's first slot later than `after`, by the rules at the head of this file. The session's zone is set because days
-- that are added to an instant would be that zone's days.
create function sidejob.next_slot(line sidejob.cron_line, zone text, after timestamptz) returns timestamptz
language plpgsql stable set search_path = '' set timezone = 'UTC' as $$
declare
  wall timestamp := date_trunc('minute', after at time zone zone) + interval '1 minute';
  put_back timestamptz;  -- when the clock is about to be put back behind `after`
  day_before timestamp;
  slot timestamptz;
  earlier timestamptz;
begin
  -- AT TIME ZONE takes the second of two times with one name.
  if line.real_time and (after at time zone zone) at time zone zone > after then
    put_back := sidejob.clock_change(zone, after, (after at time zone zone) at time zone zone);
  end if;
  loop
    wall := sidejob.next_on_the_wall(line, wall);
    if wall is null then
      return null;
    end if;
    slot := wall at time zone zone;
    if slot at time zone zone > wall then  -- left out: AT TIME ZONE moved it on by the length of the gap
      slot := case when not line.real_time then sidejob.clock_change(zone, slot - ((slot at time zone zone) - wall), slot) end;
    else
      day_before := slot::timestamp - interval '1 day';
      earlier := wall - ((day_before::timestamptz at time zone zone) - day_before);
      if earlier < slot and earlier at time zone zone = wall and (earlier > after or not line.real_time) then
        slot := earlier;
      end if;
    end if;
    if slot >= put_back then  -- first what the clock shows once more
      after := put_back - interval '1 microsecond';
      wall := put_back at time zone zone;
      put_back := null;
    elsif slot > after then
      return slot;
    else
      wall := wall + interval '1 minute';
    end if;
  end loop;
end $$;

-- When does a cron line fire next, strictly after that instant, in that time zone? Null when it never does: 30 February.
-- Raises SJ100: a message that begins with `cron:` or `timezone:` says what is wrong.
create function sidejob.cron_next(expression text, zone text, after timestamptz) returns timestamptz
language plpgsql stable set search_path = '' as $$
declare
  line sidejob.cron_line := sidejob.read_cron(expression);
begin
  perform sidejob.require_time_zone(zone);
  return case when isfinite(after) then sidejob.next_slot(line, zone, after) end;
end $$;

-- The first slots in (after, until], at most `wanted`, oldest first.
create function sidejob.first_slots(line sidejob.cron_line, zone text, after timestamptz, until timestamptz, wanted int) returns timestamptz[]
language plpgsql stable set search_path = '' as $$
declare
  slots timestamptz[] := '{}';
begin
  while cardinality(slots) < wanted loop
    after := sidejob.next_slot(line, zone, after);
    exit when after is null or after > until;
    slots := slots || after;
  end loop;
  return slots;
end $$;

-- The last slots in (after, until], at most `wanted`, oldest first. Their beginning is searched by halves, so a year of
-- missed minutes costs what an hour costs.
create function sidejob.last_slots(line sidejob.cron_line, zone text, after timestamptz, until timestamptz, wanted int) returns timestamptz[]
language plpgsql stable set search_path = '' set timezone = 'UTC' as $$
declare
  slots timestamptz[] := sidejob.first_slots(line, zone, after, until, wanted);
  later timestamptz[];
  too_late timestamptz := until;  -- fewer than `wanted` slots follow
  middle timestamptz;
begin
  if cardinality(slots) < wanted then
    return slots;
  end if;
  while too_late - after > interval '1 minute' loop  -- in which there is one slot at most
    middle := after + (too_late - after) / 2;
    later := sidejob.first_slots(line, zone, middle, until, wanted);
    if cardinality(later) = wanted then
      after := middle;
      slots := later;
    else
      too_late := middle;
    end if;
  end loop;
  return slots;
end $$;

create table public.schedules (
  id uuid primary key default gen_random_uuid(),
  workspace_id uuid not null references public.workspaces (id) on delete cascade,
  name text not null,                           -- unique in the workspace
  cron text not null,                           -- five fields or a nickname
  timezone text not null default 'UTC',         -- whose wall clock the line is read on; an IANA name
  type sidejob.job_type not null,               -- this and the next four go into each job
  payload sidejob.payload not null default '{}',
  executor_id sidejob.executor_id not null default 'default',
  priority sidejob.priority not null default 0,
  max_attempts sidejob.max_attempts not null default 3,
  missed text not null default 'run_once',      -- what becomes of slots that nobody swept in time, or that came while it was disabled
  enabled boolean not null default true,
  disabled_reason text,                         -- why the queue disabled it; cleared when somebody enables it again
  last_error text,                              -- why its last due slot made no job; it is tried again with each sweep
  next_run_at timestamptz not null,             -- the first slot not dealt with; trigger and sweep write it
  last_run_at timestamptz,                      -- the slot of its last job
  last_job_id uuid,                             -- that job, whose row may be gone by now
  created_by uuid,                              -- in whose name its jobs are made: who made it, or enabled it last; null is the server
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),  -- of what people set, not of its runs

  constraint name_is_unique_among_schedules unique (workspace_id, name),
  constraint name_is_1_to_100_characters check (char_length(name) between 1 and 100),
  constraint cron_is_at_most_200_characters check (char_length(cron) <= 200),
  constraint timezone_is_at_most_100_characters check (char_length(timezone) <= 100),
  constraint missed_is_known check (missed in ('skip', 'run_once', 'run_all')),
  constraint disabled_reason_when_disabled check (not enabled or disabled_reason is null)
);
create index schedules_due on public.schedules (workspace_id, next_run_at, id) where enabled;  -- whose slot has come?

alter table public.schedules enable row level security;
revoke all on public.schedules from public, anon, authenticated, service_role;
grant select, delete,
  insert (id, workspace_id, name, cron, timezone, type, payload, executor_id, priority, max_attempts, missed, enabled),
  update (name, cron, timezone, type, payload, executor_id, priority, max_attempts, missed, enabled) on public.schedules to authenticated;
grant select, insert, update, delete on public.schedules to service_role;

create policy "members see their workspaces' schedules" on public.schedules for select to authenticated
  using (workspace_id in (select sidejob.my_workspaces()));
create policy "owners make schedules" on public.schedules for insert to authenticated
  with check (workspace_id in (select sidejob.workspaces_as('owner')));
create policy "owners change schedules" on public.schedules for update to authenticated
  using (workspace_id in (select sidejob.workspaces_as('owner'))) with check (workspace_id in (select sidejob.workspaces_as('owner')));
create policy "owners remove schedules" on public.schedules for delete to authenticated
  using (workspace_id in (select sidejob.workspaces_as('owner')));

-- Fills in what people do not set. Another line or zone counts from now on; enabling does not, so that the sweep finds what was
-- missed meanwhile. Raises SJ100 for a line that cannot be read or never fires, SJ102 no workspace.
create function sidejob.admit_schedule() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.workspace_id := coalesce(new.workspace_id, sidejob.my_default_workspace());
  if new.workspace_id is null then
    perform sidejob.refuse('SJ102', 'workspace_id: you have no default workspace',
      'Send workspace_id, or choose a default with set_default_workspace.');
  end if;
  if tg_op = 'INSERT' or (new.cron, new.timezone) is distinct from (old.cron, old.timezone) then
    new.next_run_at := sidejob.cron_next(new.cron, new.timezone, clock_timestamp());
    if new.next_run_at is null then
      perform sidejob.refuse('SJ100', format('cron: "%s" never fires', new.cron), 'No month has such a day.');
    end if;
    new.last_error := null;
  end if;
  if tg_op = 'INSERT' or (new.enabled and not old.enabled) then
    new.created_by := coalesce(auth.uid(), new.created_by);
  end if;
  if new.enabled then
    new.disabled_reason := null;
  end if;
  if tg_op = 'INSERT' or new is distinct from old then
    new.updated_at := clock_timestamp();
  end if;
  return new;
end $$;
revoke execute on function sidejob.admit_schedule from public;
create trigger schedules_bound after insert on public.schedules referencing new table as new_rows
  for each statement execute function sidejob.bound_rows('1000');  -- each sweep looks through those that are due
create trigger schedules_admit before insert
  or update of workspace_id, name, cron, timezone, type, payload, executor_id, priority, max_attempts, missed, enabled
  on public.schedules for each row execute function sidejob.admit_schedule();
-- A run is written down as a job's event, not here.
create trigger schedules_audit after insert or delete
  or update of workspace_id, name, cron, timezone, type, payload, executor_id, priority, max_attempts, missed, enabled, created_by
  on public.schedules for each row execute function sidejob.audit();

-- The due slots for which jobs are to be made, oldest first; at most 100. A slot is missed when a later one is due as well, or
-- when it is more than five minutes old: pg_cron sweeps once a minute, and a busy sweep may come late.
create function sidejob.slots_to_run(schedule public.schedules, ts timestamptz) returns timestamptz[]
language plpgsql stable set search_path = '' as $$
declare
  since timestamptz := schedule.next_run_at - interval '1 microsecond';
  slots timestamptz[];
begin
  perform sidejob.require_time_zone(schedule.timezone);
  slots := sidejob.last_slots(sidejob.read_cron(schedule.cron), schedule.timezone, since, ts, case schedule.missed when 'run_all' then 100 else 1 end);
  if schedule.missed = 'skip' and slots[1] < ts - interval '5 minutes' then
    return '{}';
  end if;
  return slots;
end $$;

-- Makes a job of each slot of this schedule that has come, at most `wanted`, and returns how many it made. The caller
-- has locked it. Null when it failed: it notes last_error, and nothing else has changed. One whose creator may no
-- longer enqueue is disabled.
create function sidejob.make_due_jobs(schedule public.schedules, ts timestamptz, wanted int) returns int
language plpgsql set search_path = '' as $$
declare
  slots timestamptz[];
  slot timestamptz;
  job_id uuid;
  upcoming timestamptz;
  made int := 0;
begin
  if schedule.created_by is not null and not exists (
    select from public.workspace_members m
     where m.user_id = schedule.created_by and m.workspace_id = schedule.workspace_id and m.role in ('member', 'owner'))
  then
    update public.schedules s set enabled = false,
           disabled_reason = 'its creator is no longer a member or owner of the workspace; an owner who enables it takes it over'
     where s.id = schedule.id;
    return 0;
  end if;
  begin
    slots := sidejob.slots_to_run(schedule, ts);
    upcoming := coalesce(slots[wanted + 1], sidejob.cron_next(schedule.cron, schedule.timezone, ts));
    foreach slot in array slots[:wanted] loop
      insert into public.jobs (workspace_id, type, payload, executor_id, priority, max_attempts, idempotency_key,
          created_by)
      values (schedule.workspace_id, schedule.type, schedule.payload, schedule.executor_id, schedule.priority,
          schedule.max_attempts,
        'cron:' || schedule.id || ':' || to_char(slot at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
            schedule.created_by)
      on conflict do nothing
      returning id into job_id;
      if found then
        made := made + 1;
        schedule.last_run_at := slot;
        schedule.last_job_id := job_id;
      end if;
    end loop;
    update public.schedules s set next_run_at = upcoming, last_run_at = schedule.last_run_at,
        last_job_id = schedule.last_job_id, last_error = null
     where s.id = schedule.id;
    return made;
  exception when others then
    update public.schedules s set last_error = left(sqlerrm, 1000)
     where s.id = schedule.id and s.last_error is distinct from left(sqlerrm, 1000);
    return null;
  end;
end $$;

-- Makes a job of each slot that has come, at most max_runs, and returns how many it made. A worker does so for his own
-- workspaces, the server for all; one schedule of each workspace after the other, each with its share of max_runs, so
-- that none waits behind the thousands of another. Callers may overlap: a schedule is in one hand at a time, and the
-- job's idempotency key `cron:<schedule id>:<slot in UTC>` holds for ever. Those that failed before come after those
-- that did not, some of them at random, so that they stand in nobody's way. Raises SJ100, SJ201.
create function public.run_schedules(max_runs int default 100) returns int
language plpgsql security definer set search_path = '' as $$
declare
  ends timestamptz := sidejob.upkeep_ends();
  ts timestamptz := clock_timestamp();
  homes uuid[];
  home uuid;
  turn uuid[];     -- workspaces that may have more healthy schedules that are due
  more uuid[];
  waiting int;     -- workspaces of this round that have not had their turn
  share int;       -- of the jobs that may be made: one schedule may have 100 slots
  tried uuid[] := '{}';
  failing uuid;
  schedule public.schedules;
  looked int := 0;
  got int;
  made int := 0;
begin
  if max_runs is null or max_runs not between 1 and 1000 then
    perform sidejob.refuse('SJ100', 'max_runs: must be 1 to 1000', 'Call again while the answer equals max_runs.');
  end if;
  if sidejob.caller_is_server() then
    with recursive planned as (  -- the workspaces in the index, without reading all of it
      (select s.workspace_id from public.schedules s where s.enabled order by s.workspace_id limit 1)
      union all
      select (select s.workspace_id from public.schedules s where s.enabled and s.workspace_id > p.workspace_id
          order by s.workspace_id limit 1)
        from planned p where p.workspace_id is not null)
    select array_agg(p.workspace_id order by random()) into homes from planned p where p.workspace_id is not null;
  else
    homes := array(select sidejob.tended_workspaces() order by random());
  end if;
  turn := homes;
  while cardinality(turn) > 0 loop
    more := '{}';
    waiting := cardinality(turn);
    foreach home in array turn loop
      exit when made >= max_runs or (looked > 0 and clock_timestamp() > ends);
      share := ceil((max_runs - made)::numeric / waiting);
      waiting := waiting - 1;
      select s.* into schedule from public.schedules s
       where s.workspace_id = home and s.enabled and s.next_run_at <= ts and s.last_error is null
       order by s.next_run_at, s.id limit 1 for update skip locked;
      continue when not found;
      looked := looked + 1;
      more := more || home;
      got := sidejob.make_due_jobs(schedule, ts, share);
      made := made + coalesce(got, 0);
      if got is null then
        tried := tried || schedule.id;
      end if;
    end loop;
    exit when made >= max_runs or clock_timestamp() > ends;
    turn := more;
  end loop;
  for failing in
    select f.id from unnest(homes) as of_home (id)
     cross join lateral (
       select s.id from public.schedules s
        where s.workspace_id = of_home.id and s.enabled and s.next_run_at <= ts and s.last_error is not null
            and s.id <> all (tried)
        order by random() limit 20) as f
     order by random() limit 200
  loop
    exit when made >= max_runs or (looked > 0 and clock_timestamp() > ends);
    looked := looked + 1;
    select s.* into schedule from public.schedules s where s.id = failing and s.enabled and s.next_run_at <= ts
        for update skip locked;
    if found then
      made := made + coalesce(sidejob.make_due_jobs(schedule, ts, max_runs - made), 0);
    end if;
  end loop;
  return made;
end $$;

revoke execute on function sidejob.split_last, sidejob.read_cron_field, sidejob.read_cron, sidejob.require_time_zone,
  sidejob.next_on_the_wall, sidejob.clock_change,
  sidejob.next_slot, sidejob.cron_next, sidejob.first_slots, sidejob.last_slots, sidejob.slots_to_run,
  sidejob.make_due_jobs from public;
-- A schedule is admitted in its writer's own name.
grant execute on function sidejob.split_last, sidejob.read_cron_field, sidejob.read_cron, sidejob.require_time_zone,
  sidejob.next_on_the_wall, sidejob.clock_change,
  sidejob.next_slot, sidejob.cron_next to authenticated, service_role;
revoke execute on function public.run_schedules from public, anon, authenticated, service_role;
grant execute on function public.run_schedules to authenticated, service_role;
