-- The history of every job: one row a transition, written by trigger in the transaction that moved the job.
--
-- seq counts 1, 2, 3, … within a job and is given under the job's row lock, so a reader can tell that he missed one.
-- tx is the writing transaction: a reader of all events pages by (tx, id) below the oldest running transaction
-- (pg_snapshot_xmin(pg_current_snapshot())) and so never skips an event that is committed late.

create table public.job_events (
  id bigint generated always as identity,
  job_id uuid not null,        -- no foreign key: it would cost each transition more than it guards
  workspace_id uuid not null,
  seq int not null,
  event_type text not null,
  attempt int not null,
  payload jsonb not null default '{}',
  tx xid8 not null default pg_current_xact_id(),
  created_at timestamptz not null default clock_timestamp(),
  constraint job_events_of_job primary key (job_id, seq),  -- what came after seq?
  constraint event_type_is_known check (event_type in ('job.queued', 'job.claimed', 'job.started', 'job.progress', 'job.retry_scheduled',
    'job.released', 'job.lease_expired', 'job.succeeded', 'job.failed', 'job.cancelled', 'job.dead_lettered'))
);
create unique index job_events_in_order on public.job_events (tx, id);  -- what did a reader of everything not see yet?
-- Realtime asks no policy about a DELETE: everybody who subscribed to all changes of the table gets the old row's
-- identity. With the primary key that would be the ids of strangers' jobs. Of an identity, Realtime shows only what is
-- in the primary key as well where RLS is on, and here that is nothing.
alter table public.job_events replica identity using index job_events_in_order;

alter table public.job_events enable row level security;
revoke all on public.job_events from public, anon, authenticated, service_role;
revoke all on sequence public.job_events_id_seq from public, anon, authenticated, service_role;
grant select on public.job_events to authenticated, service_role;
create policy "members see their workspaces' events" on public.job_events for select to authenticated
  using (workspace_id in (select sidejob.my_workspaces()));

-- Jobs that failed for good. What it takes to run one again is its job, which stays as long as the letter does.
create table public.dead_letters (
  id bigint primary key generated always as identity,
  job_id uuid not null unique references public.jobs (id) on delete cascade,
  workspace_id uuid not null,
  reason text not null,                -- attempts_exhausted | gave_up | lease_expired
  error sidejob.error,
  payload sidejob.payload not null,
  retries int not null default 0,      -- 1 once it was run again: a new job, once
  retried_at timestamptz,
  retried_as uuid,                     -- that job
  created_at timestamptz not null default now(),
  constraint reason_is_known check (reason in ('attempts_exhausted', 'gave_up', 'lease_expired')),
  constraint retried_once_at_most check (retries in (0, 1)),
  constraint retried_at_when_retried check ((retries > 0) = (retried_at is not null) and (retries > 0) = (retried_as is not null))
);
create index dead_letters_recent on public.dead_letters (workspace_id, created_at desc, id desc);  -- what is on page N?

alter table public.dead_letters enable row level security;
revoke all on public.dead_letters from public, anon, authenticated, service_role;
revoke all on sequence public.dead_letters_id_seq from public, anon, authenticated, service_role;
grant select on public.dead_letters to authenticated, service_role;
create policy "members and owners see dead letters" on public.dead_letters for select to authenticated
  using (workspace_id in (select sidejob.workspaces_as('member', 'owner')));

-- A move of status takes the next seq. Two moves at once take two: a last failure is job.failed and job.dead_lettered, a claim
-- that starts the job as well job.claimed and job.started. Statements that move many jobs count for themselves, which costs
-- less than a call for each row; whoever does not is counted for here, so that no move is without its event.
create function sidejob.step_event() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.event_seq := old.event_seq + case when new.last_event = 'job.dead_lettered' or (new.last_event = 'job.started' and old.status = 'queued')
    then 2 else 1 end;
  return new;
end $$;

-- Each step of the counter is an event. The join is a full one, though both sides have the same rows, since Postgres can make that
-- only by hashing or merging: for the plan of a statement of one row it would choose a nested loop, and keep it for one of 1,000.
create function sidejob.record_moves() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_op = 'INSERT' then
    insert into public.job_events (job_id, workspace_id, seq, event_type, attempt)
    select n.id, n.workspace_id, 1, 'job.queued', 0 from now_jobs n;
  else
    insert into public.job_events (job_id, workspace_id, seq, event_type, attempt, payload)
    select s.id, s.workspace_id, s.seq,
           case when s.seq = s.event_seq then s.last_event when s.last_event = 'job.dead_lettered' then 'job.failed' else 'job.claimed' end,
           s.attempts,
           case when s.seq = s.event_seq and s.last_event = 'job.started' then '{}' else coalesce(s.last_detail, '{}') end
      from (select n.id, n.workspace_id, n.event_seq, n.last_event, n.last_detail, n.attempts, generate_series(w.event_seq + 1, n.event_seq) as seq
              from now_jobs n full join was_jobs w on w.id = n.id) as s;
  end if;
  return null;
end $$;

create function sidejob.write_dead_letter() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into public.dead_letters (job_id, workspace_id, reason, error, payload)
  values (new.id, new.workspace_id, new.last_detail ->> 'reason', new.error, new.payload);
  return null;
end $$;
revoke execute on function sidejob.step_event, sidejob.record_moves, sidejob.write_dead_letter from public;

create trigger jobs_step before update of status on public.jobs for each row
  when (old.status <> new.status and old.event_seq = new.event_seq) execute function sidejob.step_event();
create trigger jobs_bury after update of status on public.jobs for each row
  when (new.status = 'failed' and old.status <> 'failed') execute function sidejob.write_dead_letter();
create trigger jobs_record_new after insert on public.jobs referencing new table as now_jobs
  for each statement execute function sidejob.record_moves();
create trigger jobs_record_moved after update on public.jobs referencing old table as was_jobs new table as now_jobs
  for each statement execute function sidejob.record_moves();
