-- What becomes of a job that failed for good: somebody runs it again, or throws it away.

-- Puts the same work into the queue once more, as a new job. A second call answers with that job again.
-- Raises SJ200, SJ201.
create function public.retry_dead_letter(id bigint, out job_id uuid)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  letter public.dead_letters := sidejob.opened_letter(retry_dead_letter.id);
begin
  if letter.retried_as is null then
    insert into public.jobs (workspace_id, type, payload, executor_id, priority, max_attempts, backoff_seconds, backoff_max_seconds, checkpoint, created_by, trace_id)
    select j.workspace_id, j.type, j.payload, j.executor_id, j.priority, j.max_attempts, j.backoff_seconds, j.backoff_max_seconds, j.checkpoint, auth.uid(), j.trace_id
      from public.jobs j where j.id = letter.job_id
    returning jobs.id into letter.retried_as;
    update public.dead_letters d set retries = 1, retried_at = clock_timestamp(), retried_as = letter.retried_as where d.id = letter.id;
  end if;
  retry_dead_letter.job_id := letter.retried_as;
end $$;

-- Throws a dead letter away. The job and its history stay. Raises SJ200, SJ201.
create function public.discard_dead_letter(id bigint) returns void
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  letter public.dead_letters := sidejob.opened_letter(discard_dead_letter.id);
begin
  delete from public.dead_letters d where d.id = letter.id;
  insert into public.audit_log (workspace_id, actor_id, actor_role, action, subject)
  values (letter.workspace_id, auth.uid(), current_setting('role', true), 'dead_letters.discard', jsonb_build_object('old', to_jsonb(letter) - 'payload'));
end $$;

-- The letter, locked, if the caller may do something about it.
create function sidejob.opened_letter(id bigint) returns public.dead_letters
language plpgsql set search_path = '' as $$
#variable_conflict use_column
declare
  letter public.dead_letters;
begin
  select * into letter from public.dead_letters d
   where d.id = opened_letter.id and d.workspace_id in (select sidejob.readable_workspaces()) for update;
  if not found then
    perform sidejob.refuse('SJ200', 'id: there is no such dead letter', 'It may have been discarded, or it belongs to a workspace that you are not in.');
  end if;
  perform sidejob.require_role(letter.workspace_id, 'member', 'owner');
  return letter;
end $$;

revoke execute on function sidejob.opened_letter from public;
revoke execute on function public.retry_dead_letter, public.discard_dead_letter from public, anon, authenticated, service_role;
grant execute on function public.retry_dead_letter, public.discard_dead_letter to authenticated, service_role;
