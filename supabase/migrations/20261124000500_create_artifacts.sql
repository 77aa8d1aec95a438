-- What a job produced: one row a file here, its bytes in Storage's bucket `artifacts` under
-- <workspace>/<yyyy>/<mm>/<dd>/<job>/<attempt>/<name>. A job that comes to the same file as an earlier one has a row of its own for it,
-- and no second copy of the bytes: they stay as long as any row names them, whichever job goes first.

create table public.artifacts (
  id uuid primary key default gen_random_uuid(),
  job_id uuid not null references public.jobs (id),
  workspace_id uuid not null,   -- filled from the job
  attempt int not null,         -- the attempt that recorded it; filled from the job when left out
  name text not null,           -- the true name, whatever Storage's path had to make of it
  mime text not null default 'application/octet-stream',
  size bigint not null,         -- bytes
  sha256 text,                  -- of the very bytes uploaded, hexadecimal
  bucket text not null default 'artifacts',
  path text not null,
  url text,                     -- a public address, if there is one; never a signed one
  width int,                    -- pixels, for pictures
  height int,
  same_as uuid,                 -- the artifact of an earlier job whose file this is; written by finish_job alone, and that row may be gone
  created_at timestamptz not null default now(),
  constraint name_is_unique_among_artifacts_of_an_attempt unique (job_id, attempt, name),
  constraint name_is_1_to_255_characters check (char_length(name) between 1 and 255 and name !~ '[\x01-\x1f]'),
  constraint mime_is_a_media_type check (mime ~ '^[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(;[ -~]{0,200})?$'),
  constraint size_is_at_most_256_mib check (size between 0 and 268435456),
  constraint sha256_is_64_hex_digits check (sha256 ~ '^[0-9a-f]{64}$'),
  -- Whatever is signed is looked up here first: these two keep everything else in the project's Storage out of reach.
  constraint bucket_is_artifacts check (bucket = 'artifacts'),
  constraint path_is_in_the_folder_of_its_job check (
    case when path ~ '^[0-9a-f-]{36}/\d{4}/\d{2}/\d{2}/[0-9a-f-]{36}/\d{1,9}/[A-Za-z0-9_!.*''() &$@=;:+,?-]{1,255}$'
      then split_part(path, '/', 1) = workspace_id::text
       and split_part(path, '/', 7) not in ('.', '..')
       and (same_as is not null  -- then the earlier job's folder: finish_job took the path from that job's row
         or split_part(path, '/', 5) = job_id::text and split_part(path, '/', 6)::int between 1 and attempt)
      else false end),
  constraint url_is_an_address_of_http_or_https check (  -- pages make links of it
    char_length(url) <= 2048 and url ~* '^https?://[^/?#@[:cntrl:][:space:]"<>\\][^[:cntrl:][:space:]"<>\\]*$'),
  constraint url_is_not_a_signed_one check (url !~* '[?&](token|signature|x-amz-signature)='),
  constraint width_and_height_are_positive check (width > 0 and height > 0)
);

create index artifacts_by_path on public.artifacts (path);  -- does any job need this file? whose is it?

alter table public.artifacts enable row level security;
revoke all on public.artifacts from public, anon, authenticated, service_role;
grant select, insert (job_id, workspace_id, attempt, name, mime, size, sha256, bucket, path, url, width, height) on public.artifacts to authenticated;
grant select on public.artifacts to service_role;

create policy "members see their workspaces' artifacts" on public.artifacts for select to authenticated
  using (workspace_id in (select sidejob.my_workspaces()));
create policy "a lease's holder records what it made" on public.artifacts for insert to authenticated
  with check (workspace_id in (select sidejob.workspaces_as('worker')) and exists (
    select from public.jobs j
     where j.id = job_id and j.attempts = attempt and j.lease_owner = (select auth.uid()) and j.status in ('assigned', 'running')));

create function sidejob.place_artifact() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  job record;
begin
  select j.workspace_id, j.attempts into job from public.jobs j where j.id = new.job_id;
  new.workspace_id := coalesce(new.workspace_id, job.workspace_id);
  new.attempt := coalesce(new.attempt, job.attempts);
  if new.workspace_id is distinct from job.workspace_id then
    perform sidejob.refuse('SJ200', 'job_id: there is no such job in this workspace', 'Send the job_id that the claim gave, and no workspace_id.');
  end if;
  return new;
end $$;
revoke execute on function sidejob.place_artifact from public;
create trigger artifacts_place before insert on public.artifacts for each row execute function sidejob.place_artifact();

-- The file of an artifact, for another job of the workspace to share. The earlier job is locked, so that retention passes it by until
-- the caller's transaction has ended. `besides`: how much the caller says of the file himself. Raises SJ100, SJ305.
create function sidejob.shared_file(same_as uuid, workspace_id uuid, besides int) returns public.artifacts
language plpgsql strict set search_path = '' as $$
declare
  file public.artifacts;
begin
  if besides > 0 then
    perform sidejob.refuse('SJ100', 'same_as: such an artifact has a name and nothing else',
      'Leave out mime, size, sha256, bucket, path, width and height: they are those of the file that it shares.');
  end if;
  select s.* into file from public.artifacts s join public.jobs j on j.id = s.job_id
   where s.id = shared_file.same_as and s.workspace_id = shared_file.workspace_id and j.finished_at is not null
     and exists (select from storage.objects o where o.bucket_id = s.bucket and o.name = s.path)
     for key share of j;
  if not found then
    perform sidejob.refuse('SJ305', 'same_as: there is no such artifact of an ended job in this workspace, or its file is gone',
      'Store a file of your own and name its path. DETAIL is the id that same_as had.', same_as::text);
  end if;
  return file;
end $$;
revoke execute on function sidejob.shared_file from public;

-- A public bucket is somebody's, who gives addresses in it to the world: to make it private would break them, and to
-- leave it public would show every job's files to everybody.
do $$
begin
  if exists (select from storage.buckets b where b.id = 'artifacts' and b.public) then
    raise exception 'the bucket "artifacts" is there already, and it is public'
      using errcode = 'SJ100', hint = 'Move its files to a bucket of another name, or make it private in the dashboard '
        '(Storage, artifacts, Edit bucket) if nobody needs its public addresses; then apply the migrations again.';
  end if;
end $$;
insert into storage.buckets (id, name, public, file_size_limit) values ('artifacts', 'artifacts', false, 268435456)
on conflict (id) do update set file_size_limit = excluded.file_size_limit;

-- May the caller write this object now? Only a worker that holds the lease of the very attempt in the path.
create function sidejob.may_store(object_name text) returns boolean
language plpgsql stable security definer set search_path = '' as $$
declare
  part text[] := regexp_match(object_name,
    '^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/\d{4}/\d{2}/\d{2}/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/(\d{1,9})/[^/]{1,255}$');
begin
  return part is not null and exists (
    select from public.jobs j
     where j.id = part[2]::uuid and j.workspace_id = part[1]::uuid and j.attempts = part[3]::int
       and j.lease_owner = auth.uid() and j.status in ('assigned', 'running')
       and j.workspace_id in (select sidejob.workspaces_as('worker')));
end $$;
-- Parts of a path are compared as text: a cast would raise on somebody else's file names.
create function sidejob.may_fetch(object_name text) returns boolean
language sql stable security definer set search_path = '' as $$
  select split_part(object_name, '/', 1) in (select mine::text from sidejob.my_workspaces() as mine)
$$;
revoke execute on function sidejob.may_store, sidejob.may_fetch from public;
grant execute on function sidejob.may_store, sidejob.may_fetch to anon, authenticated, service_role;
grant usage on schema sidejob to anon;  -- for the two above: a policy asks them in the caller's own name

-- storage.objects is shared with the rest of the project. The permissive policies open only our bucket; the restrictive
-- ones keep a policy of the project's own, however generous, from opening it any further.
create policy "sidejob: members fetch artifacts" on storage.objects for select to authenticated
  using (bucket_id = 'artifacts' and sidejob.may_fetch(name));
create policy "sidejob: a lease's holder stores artifacts" on storage.objects for insert to authenticated
  with check (bucket_id = 'artifacts' and sidejob.may_store(name));
create policy "sidejob: a lease's holder stores artifacts again" on storage.objects for update to authenticated
  using (bucket_id = 'artifacts' and sidejob.may_store(name)) with check (bucket_id = 'artifacts' and sidejob.may_store(name));
create policy "sidejob: nobody else fetches artifacts" on storage.objects as restrictive for select to anon, authenticated
  using (bucket_id is distinct from 'artifacts' or sidejob.may_fetch(name));
create policy "sidejob: nobody else stores artifacts" on storage.objects as restrictive for insert to anon, authenticated
  with check (bucket_id is distinct from 'artifacts' or sidejob.may_store(name));
create policy "sidejob: nobody else stores artifacts again" on storage.objects as restrictive for update to anon, authenticated
  using (bucket_id is distinct from 'artifacts' or sidejob.may_store(name))
  with check (bucket_id is distinct from 'artifacts' or sidejob.may_store(name));
create policy "sidejob: nobody deletes artifacts" on storage.objects as restrictive for delete to anon, authenticated
  using (bucket_id is distinct from 'artifacts');
