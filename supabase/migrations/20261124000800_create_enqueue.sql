-- Into the queue, and out of it again.

-- Puts a job into the queue. The same job_id, or the same idempotency_key in the workspace, is the same job as long as it
-- asks for the same thing: then nothing is written and queued is false.
-- Raises SJ102 no workspace, SJ200 a workspace that the caller does not see, SJ201 no right to enqueue,
-- SJ301 the key or id stands for another request, SJ302 the id is taken elsewhere.
create function public.enqueue_job(
  type text, payload jsonb default '{}', executor_id text default 'default', priority int default 0, max_attempts int default 3,
  run_at timestamptz default null, idempotency_key text default null, inout job_id uuid default null, workspace_id uuid default null,
  trace_id text default null, out queued boolean, out status text)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  home uuid := coalesce(enqueue_job.workspace_id, sidejob.my_default_workspace());
  first public.jobs;
begin
  if home is null then
    perform sidejob.refuse('SJ102', 'workspace_id: you have no default workspace',
      'Send workspace_id, or choose a default with set_default_workspace.');
  end if;
  perform sidejob.require_role(home, 'member', 'owner');

  insert into public.jobs (id, workspace_id, type, payload, executor_id, priority, max_attempts, next_run_at, idempotency_key, created_by, trace_id)
  values (coalesce(enqueue_job.job_id, gen_random_uuid()), home, enqueue_job.type, enqueue_job.payload, enqueue_job.executor_id, enqueue_job.priority,
    enqueue_job.max_attempts, greatest(enqueue_job.run_at, now()), enqueue_job.idempotency_key, auth.uid(), enqueue_job.trace_id)
  on conflict do nothing
  returning * into first;
  enqueue_job.queued := found;

  if not found then
    select * into first from public.jobs j
     where j.id = enqueue_job.job_id or (j.workspace_id = home and j.idempotency_key = enqueue_job.idempotency_key)
     order by j.id = enqueue_job.job_id desc limit 1;
    if first.workspace_id is distinct from home then
      perform sidejob.refuse('SJ302', 'job_id: this id is taken', 'Make a new random UUID.');
    elsif (first.type, first.payload, first.executor_id) is distinct from (enqueue_job.type, enqueue_job.payload, enqueue_job.executor_id) then
      perform sidejob.refuse('SJ301',
        case when first.id = enqueue_job.job_id then 'job_id' else 'idempotency_key' end || ': it already stands for a job with another type, payload or executor_id',
        'Send the first request again unchanged, or choose a new key.');
    end if;
  end if;
  enqueue_job.job_id := first.id;
  enqueue_job.status := first.status;
end $$;

-- Stops a job that has not ended: at once when it is queued; one in a worker's hands loses its lease, which the worker
-- learns at its next renewal. A job that has ended is left as it is. Raises SJ200, SJ201.
create function public.cancel_job(inout job_id uuid, out status text)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  job record;
begin
  select j.workspace_id, j.status into job from public.jobs j
   where j.id = cancel_job.job_id and j.workspace_id in (select sidejob.readable_workspaces()) for update;
  if not found then
    perform sidejob.refuse_unknown_job();
  end if;
  perform sidejob.require_role(job.workspace_id, 'member', 'owner');
  cancel_job.status := job.status;
  if job.status in ('queued', 'assigned', 'running') then
    cancel_job.status := 'cancelled';
    update public.jobs j set status = 'cancelled', last_event = 'job.cancelled', last_detail = jsonb_build_object('by', auth.uid(), 'was', job.status),
           lease_owner = null, lease_hash = null, lease_until = null, finished_at = clock_timestamp(), updated_at = clock_timestamp()
     where j.id = cancel_job.job_id;
  end if;
end $$;

revoke execute on function public.enqueue_job, public.cancel_job from public, anon, authenticated, service_role;
grant execute on function public.enqueue_job, public.cancel_job to authenticated, service_role;
