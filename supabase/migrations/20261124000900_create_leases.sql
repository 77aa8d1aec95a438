-- A worker's side of a job's life. Every write after a claim names the job, the attempt and the lease token; if they are not
-- those of the present lease the answer is `lease_lost` (SJ300, the job's status in DETAIL) and nothing is written.
-- Functions with plan_cache_mode keep one plan for all calls: to plan their statements anew cost more than to run them.
-- The end of a lease in time only allows a sweep to take the job away: until one does, its holder may still renew and finish.

-- These two stand in statements of many rows, so they have a body that is put in their place, which a search_path of their own would prevent.
create function sidejob.hash_lease(token text) returns bytea
language sql stable return sha256(convert_to(token, 'UTF8'));

-- Seconds before the next attempt: the base, doubled for each attempt after the first, up to the cap; the upper half of it at random.
create function sidejob.retry_delay(attempt int, base int, cap int) returns interval
language sql volatile return make_interval(secs => least(cap, base * 2 ^ least(attempt - 1, 24)) * (1 + random()) / 2);

-- Passes what may be a delay in seconds: null, or 0 up to a year. Delays are added by the database: a worker's clock
-- may be wrong.
create function sidejob.require_delay(name text, seconds double precision) returns void
language plpgsql immutable set search_path = '' as $$
begin
  if seconds not between 0 and 31536000 then  -- NaN is greater than every number
    perform sidejob.refuse('SJ100', format('%s: must be 0 to 31536000 seconds', name),
        'Send how long to wait from now on, at most a year.');
  end if;
end $$;

create function sidejob.refuse_unknown_job() returns void
language plpgsql set search_path = '' as $$
begin
  perform sidejob.refuse('SJ200', 'job_id: there is no such job', 'It may have been removed, or it belongs to a workspace that you are not in.');
end $$;

-- Why did a fenced write match nothing? To a worker of the workspace the lease is lost; to anyone else the job does not exist.
create function sidejob.refuse_lost_lease(job_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  job record;
begin
  select j.workspace_id, j.status into job from public.jobs j
   where j.id = refuse_lost_lease.job_id and j.workspace_id in (select sidejob.readable_workspaces());
  if not found then
    perform sidejob.refuse_unknown_job();
  end if;
  perform sidejob.require_role(job.workspace_id, 'worker');
  perform sidejob.refuse('SJ300', 'lease_lost: this attempt no longer holds the job', 'Stop working on it and write nothing more. DETAIL names its status.', job.status);
end $$;

create function sidejob.require_lease_seconds(lease_seconds int) returns void
language plpgsql set search_path = '' as $$
begin
  if lease_seconds is null or lease_seconds not between 15 and 600 then
    perform sidejob.refuse('SJ100', 'lease_seconds: must be 15 to 600', 'Take a short lease and renew it at half its time.');
  end if;
end $$;

-- What a claim answers: the job, and once only the token of its lease.
create type public.claimed_job as (
  id uuid, workspace_id uuid, type text, status text, executor_id text, worker_id text, agent_id text, priority smallint, payload jsonb, error jsonb,
  checkpoint jsonb, idempotency_key text, attempts int, attempt int, released int, max_attempts int, lease_owner uuid, lease_token text,
  lease_until timestamptz, next_run_at timestamptz, created_by uuid, trace_id text, created_at timestamptz,
      updated_at timestamptz,
  queue_ms int  -- how long it had been due, by the database's clock
);

-- What a worker asks for when it claims.
create type sidejob.claim as (executor_id text, lease_seconds int, type_prefix text, agent_id text, start boolean);

-- Takes up to `wanted` due jobs of one workspace: the highest priority first, and within one the longest due. A job gains one priority
-- for each minute that the first of its priority has been due, so that none waits for ever.
-- Each priority is a range of its own in the index: far-off jobs of a high one are never read. Types sort below '~', so the range
-- from a prefix to the prefix and '~' is what begins with it.
create function sidejob.take_due(workspace uuid, worker_id text, claim sidejob.claim, wanted int, barred text[]) returns setof public.claimed_job
language plpgsql set search_path = '' set plan_cache_mode = 'force_generic_plan' as $$
#variable_conflict use_column
declare
  ts timestamptz := clock_timestamp();  -- a variable, since a volatile call could be no bound of an index range
  me uuid := auth.uid();
  secret text := gen_random_uuid();  -- one draw a claim; with the job's id behind it, so that no job's token is another's
  detail jsonb := jsonb_build_object('worker_id', take_due.worker_id, 'agent_id', claim.agent_id, 'lease_owner', me);
  first_type text := coalesce(claim.type_prefix, '');
  last_type text := coalesce(claim.type_prefix, '') || '~';
  level smallint := 32767;
  due_since timestamptz;
  levels smallint[] := '{}';
  ranks numeric[] := '{}';
  got int;
begin
  loop
    select j.priority, j.next_run_at into level, due_since from public.jobs j
     where j.workspace_id = workspace and j.executor_id = claim.executor_id and j.status = 'queued' and j.blocked_by = 0 and j.priority < level
       and j.type collate "C" >= first_type and j.type collate "C" < last_type
     order by j.priority desc, j.next_run_at, j.id limit 1;
    exit when not found;
    if due_since <= ts then
      levels := levels || level;
      ranks := ranks || (level + floor(extract(epoch from ts - due_since) / 60));
    end if;
    exit when level = 0;
  end loop;
  if cardinality(levels) > 1 then
    select array_agg(l order by r desc, l desc) into levels from unnest(levels, ranks) as ranked (l, r);
  end if;

  foreach level in array levels loop
    return query
      with due as materialized (
        select j.id, secret || ':' || j.id as token from public.jobs j
         where j.workspace_id = workspace and j.executor_id = claim.executor_id and j.status = 'queued' and j.blocked_by = 0
           and j.priority = level and j.next_run_at <= ts and j.type collate "C" >= first_type and j.type collate "C" < last_type
           and (barred = '{}' or not exists (select from unnest(barred) as prefix where starts_with(j.type, prefix)))
         order by j.next_run_at, j.id limit wanted for update skip locked),
      taken as (
        update public.jobs j set status = case when claim.start then 'running' else 'assigned' end, attempts = j.attempts + 1,
               worker_id = take_due.worker_id, agent_id = claim.agent_id, lease_owner = me, lease_hash = sidejob.hash_lease(due.token),
               lease_until = ts + make_interval(secs => claim.lease_seconds), updated_at = ts, progress = null,
               started_at = case when claim.start then ts end, event_seq = j.event_seq + case when claim.start then 2 else 1 end,
               last_event = case when claim.start then 'job.started' else 'job.claimed' end,
               last_detail = detail
          from due where j.id = due.id
        returning j.id, j.workspace_id, j.type::text, j.status, j.executor_id::text, j.worker_id, j.agent_id::text, j.priority::smallint,
                  j.payload::jsonb, j.error::jsonb, j.checkpoint::jsonb, j.idempotency_key::text, j.attempts, j.attempts as attempt, j.released,
                  j.max_attempts::int, j.lease_owner, due.token, j.lease_until, j.next_run_at::timestamptz, j.created_by, j.trace_id::text,
                  j.created_at, j.updated_at,
                  least(greatest(extract(epoch from ts - j.next_run_at) * 1000, 0), 2147483647)::int as queue_ms)
      select * from taken t order by t.next_run_at, t.id;
    get diagnostics got = row_count;
    wanted := wanted - got;
    exit when wanted = 0;
  end loop;
end $$;

-- The same within the workspace's limits, whose rows the caller has locked. Each round takes at most what the tightest limit that is
-- not used up leaves room for.
create function sidejob.take_limited(workspace uuid, worker_id text, claim sidejob.claim, wanted int) returns setof public.claimed_job
language plpgsql set search_path = '' as $$
#variable_conflict use_column
declare
  ts timestamptz := clock_timestamp();
  ids uuid[] := '{}';
  prefixes text[] := '{}';
  room int[] := '{}';
  begun int[] := '{}';
  bound record;
  taken public.claimed_job;
  round int;
  got int;
begin
  for bound in
    select l.* from public.job_limits l where l.workspace_id = workspace and (l.executor_id is null or l.executor_id = claim.executor_id)
  loop
    ids := ids || bound.id;
    prefixes := prefixes || bound.type_prefix;
    begun := begun || 0;
    room := room || least(
      bound.max_running - (
        select count(*)::int from public.jobs j
         where j.workspace_id = workspace and j.status in ('assigned', 'running') and (bound.executor_id is null or j.executor_id = bound.executor_id)
           and starts_with(j.type, bound.type_prefix)),
      bound.max_starts - (select count(*)::int from unnest(bound.starts) as start where start > ts - make_interval(secs => bound.per_seconds)));
  end loop;

  while wanted > 0 loop
    round := least(wanted, (select min(r) from unnest(room) as r where r > 0));
    got := 0;
    for taken in select * from sidejob.take_due(workspace, worker_id, claim, round,
      (select coalesce(array_agg(p), '{}') from unnest(prefixes, room) as used (p, r) where r <= 0))
    loop
      got := got + 1;
      for i in 1 .. cardinality(ids) loop
        if starts_with(taken.type, prefixes[i]) then
          room[i] := room[i] - 1;
          begun[i] := begun[i] + 1;
        end if;
      end loop;
      return next taken;
    end loop;
    wanted := wanted - got;
    exit when got < round;
  end loop;

  update public.job_limits l
     set starts = (select coalesce(array_agg(start order by start), '{}') from unnest(l.starts) as start where start > ts - make_interval(secs => l.per_seconds))
                  || array_fill(ts, array[b])
    from unnest(ids, begun) as used (id, b)
   where l.id = used.id and l.max_starts is not null and b > 0;
end $$;

-- Takes up to max_jobs due jobs of the caller's workspaces under a lease each; start says that their handlers begin at once.
-- A worker of several workspaces gives each its share, and what one leaves to the others; who has least in hand comes first.
-- Raises SJ100 for an argument out of range, SJ201 for a caller who is no worker. An empty queue is no row.
create function public.claim_jobs(
  executor_id text default 'default', max_jobs int default 1, lease_seconds int default 60, type_prefix text default null, agent_id text default null,
  start boolean default false)
returns setof public.claimed_job
language plpgsql security definer set search_path = '' set plan_cache_mode = 'force_generic_plan' as $$
#variable_conflict use_column
declare
  claim sidejob.claim := row(executor_id, lease_seconds, type_prefix, agent_id, coalesce(start, false));
  homes uuid[];            -- where the caller is a worker and the executor is not paused
  names text[];            -- and what he is called there
  turns int[] := '{1}';    -- whose turn it is, by their places in homes
  limited boolean;
  wanted int := claim_jobs.max_jobs;
  share int;
  got int;
begin
  select array_agg(m.workspace_id), array_agg(m.worker_id), bool_or(exists (
           select from public.job_limits l where l.workspace_id = m.workspace_id and (l.executor_id is null or l.executor_id = claim_jobs.executor_id)))
    into homes, names, limited
    from public.workspace_members m
   where m.user_id = auth.uid() and m.role = 'worker' and not exists (
     select from public.paused_executors p where p.workspace_id = m.workspace_id and p.executor_id = claim_jobs.executor_id);
  if homes is null then
    perform sidejob.require_worker();
  end if;
  perform sidejob.require_lease_seconds(claim_jobs.lease_seconds);
  if wanted is null or wanted not between 1 and 1000 then
    perform sidejob.refuse('SJ100', 'max_jobs: must be 1 to 1000', 'Claim as many as you have hands for.');
  elsif claim_jobs.executor_id is null then
    perform sidejob.refuse('SJ100', 'executor_id: must not be null', 'Leave it out for the executor named default.');
  elsif homes is null then
    return;
  end if;
  if limited then  -- held until the commit, so that two claims together cannot pass one; in order, so that two cannot wait for each other
    perform from public.job_limits l
     where l.workspace_id = any (homes) and (l.executor_id is null or l.executor_id = claim_jobs.executor_id)
     order by l.id for update;
  end if;
  if cardinality(homes) > 1 then
    select array_agg(place order by in_hand, random()) into turns
      from (select place, (
              select count(*) from public.jobs j
               where j.workspace_id = homes[place] and j.executor_id = claim_jobs.executor_id and j.status in ('assigned', 'running')) as in_hand
              from generate_subscripts(homes, 1) as place) as ranked;
    turns := turns || turns;  -- first each one's share, then what is left
  end if;
  for turn in 1 .. cardinality(turns) loop
    share := ceil(wanted::numeric / greatest(cardinality(homes) - turn + 1, 1));
    if limited then
      return query select * from sidejob.take_limited(homes[turns[turn]], names[turns[turn]], claim, share);
    else
      return query select * from sidejob.take_due(homes[turns[turn]], names[turns[turn]], claim, share, '{}');
    end if;
    get diagnostics got = row_count;
    wanted := wanted - got;
    exit when wanted = 0;
  end loop;
end $$;

create function public.claim_one_job(
  executor_id text default 'default', lease_seconds int default 60, type_prefix text default null, agent_id text default null)
returns setof public.claimed_job
language sql set search_path = '' as $$
  select * from public.claim_jobs(executor_id, 1, lease_seconds, type_prefix, agent_id)
$$;

-- "My handler begins." A second call by the same holder changes nothing.
create function public.start_job(job_id uuid, attempt int, lease_token text, out status text, out lease_until timestamptz)
language plpgsql security definer set search_path = '' set plan_cache_mode = 'force_generic_plan' as $$
#variable_conflict use_column
begin
  update public.jobs j set status = 'running', started_at = coalesce(j.started_at, clock_timestamp()), updated_at = clock_timestamp(),
         last_event = case j.status when 'assigned' then 'job.started' else j.last_event end,
         last_detail = case j.status when 'assigned' then null else j.last_detail end
   where j.id = start_job.job_id and j.attempts = start_job.attempt and j.lease_hash = sidejob.hash_lease(start_job.lease_token)
     and j.lease_owner = auth.uid() and j.status in ('assigned', 'running')
     and j.workspace_id = any (array(select m.workspace_id from public.workspace_members m where m.user_id = auth.uid() and m.role = 'worker'))
  returning j.status, j.lease_until into start_job.status, start_job.lease_until;
  if not found then
    perform sidejob.refuse_lost_lease(start_job.job_id);
  end if;
end $$;

-- Moves the lease's end to lease_seconds from now.
create function public.renew_lease(
  job_id uuid, attempt int, lease_token text, lease_seconds int default 60, out status text, out lease_until timestamptz)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
begin
  perform sidejob.require_lease_seconds(renew_lease.lease_seconds);
  update public.jobs j set lease_until = clock_timestamp() + make_interval(secs => renew_lease.lease_seconds), updated_at = clock_timestamp()
   where j.id = renew_lease.job_id and j.attempts = renew_lease.attempt and j.lease_hash = sidejob.hash_lease(renew_lease.lease_token)
     and j.lease_owner = auth.uid() and j.status in ('assigned', 'running')
     and j.workspace_id = any (array(select m.workspace_id from public.workspace_members m where m.user_id = auth.uid() and m.role = 'worker'))
  returning j.status, j.lease_until into renew_lease.status, renew_lease.lease_until;
  if not found then
    perform sidejob.refuse_lost_lease(renew_lease.job_id);
  end if;
end $$;

-- How far it is. The row always shows the last report and every report is broadcast; the history keeps one a second at most
-- (stored says whether this one).
-- checkpoint, when given, is what the next attempt will find.
create function public.report_progress(
  job_id uuid, attempt int, lease_token text, progress jsonb, checkpoint jsonb default null, out status text, out stored boolean)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  ts timestamptz := clock_timestamp();
begin
  perform set_config('synchronous_commit', 'off', true);  -- should the server crash, the next report makes it good
  update public.jobs j set progress = report_progress.progress, checkpoint = coalesce(report_progress.checkpoint, j.checkpoint), updated_at = ts,
         progress_at = case when now_stored then ts else j.progress_at end,
         event_seq = j.event_seq + now_stored::int,
         last_event = case when now_stored then 'job.progress' else j.last_event end,
         last_detail = case when now_stored then report_progress.progress else j.last_detail end
    from (select coalesce(ts - k.progress_at >= interval '1 second', true) as now_stored from public.jobs k where k.id = report_progress.job_id) as pace
   where j.id = report_progress.job_id and j.attempts = report_progress.attempt and j.lease_hash = sidejob.hash_lease(report_progress.lease_token)
     and j.lease_owner = auth.uid() and j.status in ('assigned', 'running')
     and j.workspace_id = any (array(select m.workspace_id from public.workspace_members m where m.user_id = auth.uid() and m.role = 'worker'))
  returning j.status, now_stored into report_progress.status, report_progress.stored;
  if not found then
    perform sidejob.refuse_lost_lease(report_progress.job_id);
  end if;
  if not report_progress.stored then  -- an event that is stored is broadcast by the trigger (…_create_realtime_topics.sql)
    perform sidejob.broadcast(report_progress.job_id, 'job.progress', jsonb_build_object('job_id', report_progress.job_id,
      'event_type', 'job.progress', 'attempt', report_progress.attempt, 'payload', report_progress.progress, 'created_at', ts));
  end if;
end $$;

-- Hands the job back untried, to be run delay_seconds from now, or at run_at, whichever is later; now when both are
-- null. It costs no attempt: a drained worker, another service's rate limit. Nothing else would end a job that is
-- handed back again and again, so from the eleventh time on it waits in any case: 5 seconds, then 10, 20, … up to ten
-- minutes, the upper half of it at random. Raises SJ100 for a delay out of range, SJ300.
create function public.release_job(
  job_id uuid, attempt int, lease_token text, run_at timestamptz default null, reason text default null,
  delay_seconds double precision default null, out status text, out next_run_at timestamptz)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  ts timestamptz := clock_timestamp();
  due timestamptz;
begin
  perform sidejob.require_delay('delay_seconds', release_job.delay_seconds);
  due := greatest(ts, release_job.run_at, ts + make_interval(secs => release_job.delay_seconds));
  update public.jobs j set status = 'queued', released = j.released + 1, next_run_at = pace.due,
         lease_until = null, started_at = null, updated_at = ts, last_event = 'job.released',
         last_detail = jsonb_build_object('reason', left(release_job.reason, 1000), 'next_run_at', pace.due)
    from (select case when k.released < 10 then due
                 else greatest(due, ts + sidejob.retry_delay(k.released - 9, 5, 600)) end as due
            from public.jobs k where k.id = release_job.job_id) as pace
   where j.id = release_job.job_id and j.attempts = release_job.attempt and j.lease_hash = sidejob.hash_lease(release_job.lease_token)
     and j.lease_owner = auth.uid() and j.status in ('assigned', 'running')
     and j.workspace_id = any (array(select m.workspace_id from public.workspace_members m where m.user_id = auth.uid() and m.role = 'worker'))
  returning j.status, j.next_run_at into release_job.status, release_job.next_run_at;
  if not found then
    perform sidejob.refuse_lost_lease(release_job.job_id);
  end if;
end $$;

-- What a worker says of the end of an attempt.
create type sidejob.report as (
  job_id uuid, attempt int, lease_token text, ok boolean, result sidejob.result, error sidejob.error,
  artifacts sidejob.artifacts, retry_at timestamptz, give_up boolean, retry_after_seconds double precision
);

-- A file in a report.
create type sidejob.artifact as (
  name text, mime text, size bigint, sha256 text, bucket text, path text, width int, height int, same_as uuid
);

-- Reads a report's artifacts. Raises SJ100 for a value of the wrong type, and for a name that stands there twice:
-- these would be one row.
create function sidejob.read_artifacts(list jsonb) returns setof sidejob.artifact
language plpgsql stable set search_path = '' as $$
declare
  files sidejob.artifact[];
  twice text;
begin
  begin
    files := array(select a from jsonb_populate_recordset(null::sidejob.artifact, list) as a);
  exception when data_exception then
    perform sidejob.refuse_misfit('artifacts', list, null::sidejob.artifact,
      'An artifact has name, mime, size, sha256, path, width and height.');
    raise;
  end;
  select a.name into twice from unnest(files) as a
   where a.name is not null group by a.name having count(*) > 1 order by a.name limit 1;
  if found then
    perform sidejob.refuse('SJ100', format('artifacts: two of them have the name "%s"', left(twice, 255)),
      format('artifacts: give each file of a report a name of its own; "%s" is there twice.', left(twice, 255)));
  end if;
  return query select * from unnest(files);
end $$;

-- Ends attempts. ok: the job has succeeded, its artifacts are recorded in the same transaction. Not ok: it runs again
-- retry_after_seconds from now or at retry_at, whichever is later (else after the usual delay), while attempts are left
-- and give_up is false; then it has failed and is a dead letter. status is null for a report whose writer does not hold
-- the lease: nothing is written for it. An artifact that says `same_as`, the id of an earlier job's artifact, and no
-- path shares that one's file.
--
-- The same report a second time changes nothing and answers the same. attempt and lease_token may both be left out by an older
-- worker that knows neither: it must hold the lease, and no earlier attempt may have been its own, or a late report of that
-- one could pass for this.
create function sidejob.finish(reports sidejob.report[]) returns table (job_id uuid, attempt int, status text)
language plpgsql set search_path = '' set plan_cache_mode = 'force_generic_plan' as $$
#variable_conflict use_column
declare
  ts timestamptz := clock_timestamp();
  me uuid := auth.uid();
  mine uuid[] := array(select m.workspace_id from public.workspace_members m where m.user_id = me and m.role = 'worker');
  said record;
begin
  select bool_or(r.ok is null) as nothing, bool_or(jsonb_typeof(r.artifacts) <> 'array') as no_list, bool_or(r.artifacts <> '[]') as artifacts,
         count(distinct r.job_id) < count(*) as twice, min(r.retry_after_seconds) as soonest,
             max(r.retry_after_seconds) as latest
    into said from unnest(reports) as r;
  if said.nothing then
    perform sidejob.refuse('SJ100', 'ok: must be true or false', 'Say whether the attempt succeeded.');
  elsif said.no_list then
    perform sidejob.refuse('SJ100', 'artifacts: must be a list', 'Send [] when there is none.');
  elsif said.twice then
    perform sidejob.refuse('SJ100', 'job_id: each job may be reported once in a call', 'Send a repeated report in a call of its own.');
  end if;
  perform sidejob.require_delay('retry_after_seconds', said.soonest);
  perform sidejob.require_delay('retry_after_seconds', said.latest);
  return query
  with outcome as materialized (
    select r.*, j.*, judged.next,
           case judged.next when 'queued' then
             greatest(ts, coalesce(greatest(r.retry_at, ts + make_interval(secs => r.retry_after_seconds)),
               ts + sidejob.retry_delay(j.used, j.backoff_seconds, j.backoff_max_seconds))) end as run_at
      -- In order, so that two reporters cannot wait for each other. Each row is looked up by itself: a join would leave it to the
      -- statistics of the tables, which a queue that was just filled does not have, whether jobs is read from end to end.
      from (select * from unnest(reports) with ordinality
              as given (job_id, attempt, lease_token, ok, result, error, artifacts, retry_at, give_up,
                  retry_after_seconds, place)
             order by given.job_id) as r
      left join lateral (
        select j.id, j.status, j.attempts - j.released as used, j.max_attempts, j.backoff_seconds, j.backoff_max_seconds,
               j.result as old_result, j.error as old_error, j.last_event
          from public.jobs j
         where j.id = r.job_id and j.lease_owner = me and j.workspace_id = any (mine)
           and ((j.attempts = r.attempt and j.lease_hash = sidejob.hash_lease(r.lease_token))
             or (r.attempt is null and r.lease_token is null and not exists (
               select from public.job_events e where e.job_id = j.id and e.event_type = 'job.claimed' and e.attempt < j.attempts
                  and e.payload ->> 'lease_owner' = me::text)))
           for update) as j on true
     cross join lateral (select case when j.status in ('assigned', 'running') then
         case when r.ok then 'succeeded' when r.give_up or j.used >= j.max_attempts then 'failed' else 'queued' end end as next) as judged),
  moved as (
    update public.jobs j
       set status = o.next, updated_at = ts, lease_until = null,
           result = case o.next when 'succeeded' then o.result else j.result end,
           error = case o.next when 'succeeded' then null::sidejob.error else o.error end,
           finished_at = case o.next when 'queued' then null else ts end,
           started_at = case o.next when 'queued' then null else j.started_at end,
           next_run_at = coalesce(o.run_at, j.next_run_at),
           event_seq = j.event_seq + case o.next when 'failed' then 2 else 1 end,
           last_event = case o.next when 'succeeded' then 'job.succeeded' when 'queued' then 'job.retry_scheduled' else 'job.dead_lettered' end,
           last_detail = case o.next
             when 'succeeded' then jsonb_build_object('artifacts', coalesce(jsonb_array_length(o.artifacts), 0))
             when 'queued' then jsonb_build_object('error', o.error, 'next_run_at', o.run_at)
             else jsonb_build_object('reason', case when o.give_up then 'gave_up' else 'attempts_exhausted' end, 'error', o.error) end
      from outcome o where j.id = o.id and o.next is not null)
  select o.job_id, o.attempt, coalesce(o.next, case  -- this very attempt has ended: the same report again, or another one too late?
           when o.ok and o.status = 'succeeded' and o.old_result is not distinct from o.result then o.status
           when not o.ok and o.last_event in ('job.retry_scheduled', 'job.dead_lettered') and o.old_error is not distinct from o.error then o.status end)
    from outcome o order by o.place;
  if said.artifacts then  -- of what has succeeded just now; a row that the worker inserted itself is brought up to date
    insert into public.artifacts (job_id, workspace_id, attempt, name, mime, size, sha256, bucket, path, width, height, same_as)
    select j.id, j.workspace_id, j.attempts, a.name, coalesce(s.mime, a.mime, 'application/octet-stream'), coalesce(s.size, a.size),
           coalesce(s.sha256, a.sha256), coalesce(s.bucket, a.bucket, 'artifacts'), coalesce(s.path, a.path),
           coalesce(s.width, a.width), coalesce(s.height, a.height), s.id
      from unnest(reports) as r join public.jobs j on j.id = r.job_id and j.lease_owner = me and j.status = 'succeeded' and j.finished_at = ts
     cross join lateral sidejob.read_artifacts(r.artifacts) as a
     cross join lateral sidejob.shared_file(a.same_as, j.workspace_id,
        num_nonnulls(a.mime, a.size, a.sha256, a.bucket, a.path, a.width, a.height)) as s  -- nulls without same_as
    on conflict on constraint name_is_unique_among_artifacts_of_an_attempt do update
      set mime = excluded.mime, size = excluded.size, sha256 = excluded.sha256, path = excluded.path, width = excluded.width, height = excluded.height,
          same_as = excluded.same_as;
  end if;
end $$;

-- Ends an attempt, as said above. Raises SJ100, SJ300 lease_lost, SJ305 when an artifact's same_as is gone.
create function public.finish_job(
  inout job_id uuid, attempt int, lease_token text, ok boolean, result jsonb default null, error jsonb default null, artifacts jsonb default '[]',
  retry_at timestamptz default null, give_up boolean default false, retry_after_seconds double precision default null,
      out status text)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  report sidejob.report := row(job_id, attempt, lease_token, ok, result, error, artifacts, retry_at, give_up,
      retry_after_seconds);
begin
  select f.status into finish_job.status from sidejob.finish(array[report]) as f;
  if finish_job.status is null then
    perform sidejob.refuse_lost_lease(finish_job.job_id);
  end if;
end $$;

-- Reads reports, a list of 1 to 1,000 objects with the arguments of finish_job. Raises SJ100.
create function sidejob.read_reports(reports jsonb) returns sidejob.report[]
language plpgsql set search_path = '' as $$
begin
  if jsonb_typeof(reports) is distinct from 'array' or jsonb_array_length(reports) not between 1 and 1000 then
    perform sidejob.refuse('SJ100', 'reports: must be a list of 1 to 1000', 'Send more in several calls.');
  end if;
  perform sidejob.refuse_huge('reports', reports, '{result,error,artifacts}');
  return (select array_agg(r) from jsonb_populate_recordset(null::sidejob.report, reports) as r);
exception when data_exception or check_violation then
  perform sidejob.refuse_misfit('reports', reports, null::sidejob.report, 'A report has the arguments of finish_job.');
  raise;
end $$;

-- Ends many attempts at once. Answers in the order of the reports, and a status of null means lease_lost: that report changed nothing,
-- the others stand. A report that breaks a constraint, or whose artifact's same_as is gone, fails the whole call.
create function public.finish_jobs(reports jsonb) returns table (job_id uuid, attempt int, status text)
language plpgsql security definer set search_path = '' as $$
begin
  perform sidejob.require_worker();
  return query select * from sidejob.finish(sidejob.read_reports(reports));
end $$;

-- Both halves of a busy worker's turn in one call: ends attempts, then claims. reports may be empty; no more than max_jobs are claimed, and
-- none when it is 0. Answers {"finished": as finish_jobs, "claimed": as claim_jobs}.
create function public.finish_and_claim(
  reports jsonb default '[]', executor_id text default 'default', max_jobs int default 1, lease_seconds int default 60, type_prefix text default null,
  agent_id text default null, start boolean default false)
returns json  -- not jsonb, which would be taken apart and sorted only to be written as text again
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  finished json := '[]';
  claimed json := '[]';
begin
  perform sidejob.require_worker();
  if finish_and_claim.reports <> '[]' then
    select json_agg(f) into finished from sidejob.finish(sidejob.read_reports(finish_and_claim.reports)) as f;
  end if;
  if finish_and_claim.max_jobs is distinct from 0 then
    select coalesce(json_agg(c), '[]') into claimed
      from public.claim_jobs(finish_and_claim.executor_id, finish_and_claim.max_jobs, finish_and_claim.lease_seconds, finish_and_claim.type_prefix,
        finish_and_claim.agent_id, finish_and_claim.start) as c;
  end if;
  return json_build_object('finished', finished, 'claimed', claimed);
end $$;

-- Takes up to max_jobs jobs away from workers who did not renew in time, each workspace its share: back to the queue at
-- once, or to the dead letters when no attempt is left. A worker sweeps its own workspaces, the server all of them.
-- Returns how many there were. Raises SJ100, SJ201.
create function public.release_expired_leases(max_jobs int default 100) returns int
language plpgsql security definer set search_path = '' as $$
declare
  ends timestamptz := sidejob.upkeep_ends();
  ts timestamptz := clock_timestamp();
  homes uuid[];
  home uuid;
  more uuid[];
  waiting int;   -- workspaces of this round that have not had their turn
  share int;
  late uuid[];
  done int := 0;
begin
  if max_jobs is null or max_jobs not between 1 and 10000 then
    perform sidejob.refuse('SJ100', 'max_jobs: must be 1 to 10000', 'Sweep again while the answer equals max_jobs.');
  end if;
  if sidejob.caller_is_server() then
    with recursive busy as (  -- the workspaces in the index, without reading all of it
      (select j.workspace_id from public.jobs j where j.status in ('assigned', 'running') order by j.workspace_id
          limit 1)
      union all
      select (select j.workspace_id from public.jobs j where j.status in ('assigned', 'running')
          and j.workspace_id > b.workspace_id
               order by j.workspace_id limit 1)
        from busy b where b.workspace_id is not null)
    select array_agg(b.workspace_id order by random()) into homes from busy b where b.workspace_id is not null;
  else
    homes := array(select sidejob.tended_workspaces() order by random());
  end if;
  while cardinality(homes) > 0 and done < max_jobs loop
    more := '{}';
    waiting := cardinality(homes);
    foreach home in array homes loop
      exit when done >= max_jobs or (done > 0 and clock_timestamp() > ends);
      share := least(500, ceil((max_jobs - done)::numeric / waiting));
      waiting := waiting - 1;
      late := array(  -- lease_until is judged again under the row's lock, so a renewal in between wins
        select j.id from public.jobs j
         where j.workspace_id = home and j.status in ('assigned', 'running') and j.lease_until < ts
         order by j.executor_id, j.id limit share for update skip locked);
      continue when late = '{}';
      begin
        perform sidejob.free_expired(late, ts);
        done := done + cardinality(late);
        if cardinality(late) = share then
          more := more || home;
        end if;
      exception when others then  -- one workspace's failure is not the others'
        raise warning 'sidejob: expired leases of workspace % were not released: %', home, sqlerrm;
      end;
    end loop;
    exit when clock_timestamp() > ends;
    homes := more;
  end loop;
  return done;
end $$;

-- Moves jobs whose leases ran out, which the caller has locked.
create function sidejob.free_expired(late uuid[], ts timestamptz) returns void
language plpgsql set search_path = '' as $$
declare
  failure jsonb := jsonb_build_object('code', 'lease_expired', 'message',
      'The worker was not heard of before its lease ended.');
begin
  update public.jobs j set status = 'queued', error = failure, next_run_at = ts, lease_owner = null, lease_hash = null,
      lease_until = null,
         started_at = null, updated_at = ts, last_event = 'job.lease_expired',
             last_detail = jsonb_build_object('worker_id', j.worker_id)
   where j.id = any (late);
  update public.jobs j set status = 'failed', finished_at = ts, last_event = 'job.dead_lettered',
         last_detail = jsonb_build_object('reason', 'lease_expired', 'error', j.error)
   where j.id = any (late) and j.attempts - j.released >= j.max_attempts;
end $$;

revoke execute on function sidejob.hash_lease, sidejob.refuse_unknown_job, sidejob.refuse_lost_lease, sidejob.require_lease_seconds, sidejob.retry_delay,
  sidejob.require_delay, sidejob.take_due, sidejob.take_limited, sidejob.finish, sidejob.read_reports,
  sidejob.read_artifacts, sidejob.free_expired from public;
revoke execute on function public.claim_jobs, public.claim_one_job, public.start_job, public.renew_lease, public.report_progress, public.release_job,
  public.finish_job, public.finish_jobs, public.finish_and_claim, public.release_expired_leases from public, anon, authenticated, service_role;
grant execute on function public.claim_jobs, public.claim_one_job, public.start_job, public.renew_lease, public.report_progress, public.release_job,
  public.finish_job, public.finish_jobs, public.finish_and_claim to authenticated;
grant execute on function public.release_expired_leases to authenticated, service_role;
