-- What a single value may be: a domain each, for every table that has such a column. A domain is asked when its value is written. A CHECK of the
-- table is read from the catalogue, planned and asked again at every later write of the row: for 23 of them that was a fifth of what a job's move
-- cost. Over REST, and in the types that are generated from the schema, a domain looks like the type beneath it.

create domain sidejob.job_type as text  -- a count in a regular expression, {0,99}, would cost more than all the rest
  constraint type_is_a_short_name check (char_length(value) <= 100 and value ~ '^[A-Za-z0-9][A-Za-z0-9._:-]*$');
create domain sidejob.executor_id as text
  constraint executor_id_is_a_short_name check (char_length(value) <= 100 and value ~ '^[A-Za-z0-9][A-Za-z0-9._-]*$');
create domain sidejob.agent_id as text
  constraint agent_id_is_a_short_name check (char_length(value) <= 100 and value ~ '^[A-Za-z0-9][A-Za-z0-9._-]*$');
create domain sidejob.idempotency_key as text
  constraint idempotency_key_is_1_to_200_characters check (char_length(value) between 1 and 200);
create domain sidejob.trace_id as text
  constraint trace_id_is_32_hex_digits check (char_length(value) = 32 and value ~ '^[0-9a-f]*$');

create domain sidejob.priority as smallint
  constraint priority_is_0_to_9 check (value between 0 and 9);
create domain sidejob.max_attempts as int
  constraint max_attempts_is_1_to_25 check (value between 1 and 25);
create domain sidejob.backoff_seconds as int
  constraint backoff_seconds_is_0_to_86400 check (value between 0 and 86400);
create domain sidejob.run_time as timestamptz
  constraint next_run_at_is_before_2100 check (value < '2100-01-01 00:00:00+00');

-- JSON that a caller wrote. Ten bytes of it, 1e131071, are 131,072 characters when they are written out, and 72 kB of
-- such numbers took 3 GB of memory. So the size in memory is asked first, which costs nothing and is at most four
-- times the length as text; then how deep it is nested, then its numbers; and only what has passed is written out to
-- be measured. The domain of a column is asked before any policy, so all of this is paid for every signed-in caller.
--
-- The size is that of a fresh value: a stored one may be compressed, but has been through here already.
-- These bodies are put in their place, as if they were written there, which a search_path of their own would prevent.

create function sidejob.is_nested_at_most_100_deep(value jsonb) returns boolean
language sql stable parallel safe
return pg_column_size(value) < 800  -- each array or object takes eight bytes
  or not value @? 'strict $.**{100}.type() ? (@ == "array" || @ == "object")';  -- which looks no deeper than that

-- Do all numbers have at most 400 digits before the point and 400 behind it? A path of JSON cannot ask how many digits
-- are behind the point, but a quotient has as many as its operands: 1/3, worked out beside the number times zero, is
-- greater than a third of 400 digits when the number has more. This takes up to a microsecond for each number. Small
-- values have a quicker way: none of their numbers is huge, so that they may be written out, and the text is short
-- itself, or has no long run of digits. (To look for 401 of them would take 75 µs.)
create function sidejob.has_numbers_of_at_most_400_digits(value jsonb, bytes int) returns boolean
language sql stable parallel safe
return case
  when pg_column_size(value) > 4 * bytes + 64 then true  -- it is refused for its size
  when pg_column_size(value) <= 4096 and (value @@ 'lax $.** >= 1e40 || $.** <= -1e40') is not true
    and (pg_column_size(value) <= 500 and octet_length(value::text) <= 400 or value::text !~ '[0-9]{25}') then true
  else not value @? (
    'strict $.** ? (@ >= 1e400 || @ <= -1e400 || (@ * 0 + 1) / 3 > 0.' || repeat('3', 400) || ')')::jsonpath end;

-- Is the text at most so many bytes long? To be asked of a value that has passed the check above. A number of 400
-- digits takes 12 bytes, so a large value is first asked for numbers of more than 40 digits: that many of them are too
-- long in any case.
create function sidejob.is_at_most(value jsonb, bytes int) returns boolean
language sql stable parallel safe
return case
  when pg_column_size(value) <= bytes / 70 then true
  when pg_column_size(value) > 4 * bytes + 64 then false
  when pg_column_size(value) > 1048576 and jsonb_array_length(jsonb_path_query_array(value,
    ('strict $.** ? (@ >= 1e40 || @ <= -1e40 || (@ * 0 + 1) / 3 > 0.' || repeat('3', 40) || ')')::jsonpath)) > bytes / 40
    then false
  else octet_length(value::text) <= bytes end;

revoke execute on function sidejob.is_nested_at_most_100_deep, sidejob.has_numbers_of_at_most_400_digits,
  sidejob.is_at_most from public;
grant execute on function sidejob.is_nested_at_most_100_deep, sidejob.has_numbers_of_at_most_400_digits,
  sidejob.is_at_most to authenticated, service_role;  -- a domain is asked in the name of the one who writes

-- Postgres asks the constraints of a domain in the order of their names, `has` before `is`, so that nothing is written
-- out before.
create domain sidejob.payload as jsonb
  constraint payload_has_at_most_100_levels check (sidejob.is_nested_at_most_100_deep(value))
  constraint payload_has_numbers_of_at_most_400_digits check (sidejob.has_numbers_of_at_most_400_digits(value, 262144))
  constraint payload_is_an_object check (jsonb_typeof(value) = 'object')
  constraint payload_is_at_most_256_kib check (sidejob.is_at_most(value, 262144));
create domain sidejob.result as jsonb
  constraint result_has_at_most_100_levels check (sidejob.is_nested_at_most_100_deep(value))
  constraint result_has_numbers_of_at_most_400_digits check (sidejob.has_numbers_of_at_most_400_digits(value, 1048576))
  constraint result_is_at_most_1_mib check (sidejob.is_at_most(value, 1048576))
  constraint result_source_is_at_most_500_characters  -- an index has it (jobs_by_source), and takes 2,704 bytes
    check (char_length(value ->> 'source') <= 500);
create domain sidejob.error as jsonb
  constraint error_has_at_most_100_levels check (sidejob.is_nested_at_most_100_deep(value))
  constraint error_has_numbers_of_at_most_400_digits check (sidejob.has_numbers_of_at_most_400_digits(value, 65536))
  constraint error_is_at_most_64_kib check (sidejob.is_at_most(value, 65536));
create domain sidejob.progress as jsonb
  constraint progress_has_at_most_100_levels check (sidejob.is_nested_at_most_100_deep(value))
  constraint progress_has_numbers_of_at_most_400_digits check (sidejob.has_numbers_of_at_most_400_digits(value, 16384))
  constraint progress_is_at_most_16_kib check (sidejob.is_at_most(value, 16384));
create domain sidejob.checkpoint as jsonb
  constraint checkpoint_has_at_most_100_levels check (sidejob.is_nested_at_most_100_deep(value))
  constraint checkpoint_has_numbers_of_at_most_400_digits check (sidejob.has_numbers_of_at_most_400_digits(value, 262144))
  constraint checkpoint_is_at_most_256_kib check (sidejob.is_at_most(value, 262144));
create domain sidejob.metrics as jsonb
  constraint metrics_have_at_most_100_levels check (sidejob.is_nested_at_most_100_deep(value))
  constraint metrics_have_numbers_of_at_most_400_digits check (sidejob.has_numbers_of_at_most_400_digits(value, 16384))
  constraint metrics_is_an_object_of_at_most_16_kib
    check (jsonb_typeof(value) = 'object' and sidejob.is_at_most(value, 16384));
create domain sidejob.artifacts as jsonb  -- of a report; that it is a list, finish_job says
  constraint artifacts_have_at_most_100_levels check (sidejob.is_nested_at_most_100_deep(value))
  constraint artifacts_have_numbers_of_at_most_400_digits check (sidejob.has_numbers_of_at_most_400_digits(value, 2097152))
  constraint artifacts_number_at_most_1001 check (jsonb_typeof(value) <> 'array' or jsonb_array_length(value) <= 1001)
  constraint artifacts_take_at_most_2_mib check (sidejob.is_at_most(value, 2097152));
