-- A worker may take a file over from an earlier job that was made from the very same source: a Figma file, or a version of one.
-- The source stands in the job's result, `result ->> 'source'`, and its artifact then says `same_as` and shares the
-- earlier job's bytes. Reading needs no right beyond those on jobs and artifacts.
--
-- Why one more index: an export asks this before it asks Figma anything, among all jobs that the workspace keeps, and no
-- other index has the source. A job without one, which is every job but Figma's exports and fills, is not in it and pays nothing.

create index jobs_by_source on public.jobs (workspace_id, type, (result ->> 'source'), finished_at desc)
  where status = 'succeeded' and (result ->> 'source') is not null;  -- what was made from this already?
